"""What is installed without the repository has the files that it reads beside its code."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("directory", "read"),
    [
        ("services/reconciler/reporting/templates", {".html", ".css"}),
        ("services/order_service/invoicing/fonts", {".ttf", ".txt"}),
        ("deploy/local", {".html", ".css", ".js", ".svg", ".json", ".sh"}),
        ("deploy/cli/gateway_template", {".md"}),
    ],
)
def test_a_wheel_has_what_is_read_at_run_time(directory: str, read: set[str]) -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    wanted = {*patterns["*"], *patterns.get(directory.replace("/", "."), ())}
    files = [path for path in (ROOT / directory).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {path.suffix for path in files} == read
    assert [path for path in files if not any(PurePosixPath(path.name).match(each) for each in wanted)] == []
