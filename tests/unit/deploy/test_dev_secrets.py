"""The secrets of a data directory: made once, kept, and completed when a newer release wants more of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.local.dev import SECRETS_FILE, development_environment
from shared.ports import system_ports

KEY, OTHER = "0f" * 32, "1e" * 32


def test_secrets_are_made_once_and_what_is_missing_is_added(tmp_path: Path) -> None:
    ports = system_ports()
    (tmp_path / SECRETS_FILE).write_text(json.dumps({"WEBHOOK_SECRET": "kept"}))
    first = development_environment(port=8000, data=tmp_path, ports=ports)
    assert first["WEBHOOK_SECRET"] == "kept"
    key = first["COMMAND_SIGNING_KEY"]
    assert first["COMMAND_KEYS"] == f"order_service:{key},reconciler:{key}"
    assert len(bytes.fromhex(first["COMMAND_SIGNING_KEY"])) == 32
    assert development_environment(port=8000, data=tmp_path, ports=ports) == first
    assert (tmp_path / SECRETS_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("kept", "completed"),
    [
        (f"order_service:{KEY}", f"order_service:{KEY},reconciler:{KEY}"),
        (f"order_service:{OTHER},mine:{OTHER}", f"order_service:{OTHER},mine:{OTHER},reconciler:{KEY}"),
        (f"reconciler:{OTHER},order_service:{KEY}", f"reconciler:{OTHER},order_service:{KEY}"),
    ],
)
def test_the_senders_of_an_older_release_are_completed_and_kept(tmp_path: Path, kept: str, completed: str) -> None:
    (tmp_path / SECRETS_FILE).write_text(json.dumps({"COMMAND_SIGNING_KEY": KEY, "COMMAND_KEYS": kept}))
    environment = development_environment(port=8000, data=tmp_path, ports=system_ports())
    assert (environment["COMMAND_SIGNING_KEY"], environment["COMMAND_KEYS"]) == (KEY, completed)
    assert json.loads((tmp_path / SECRETS_FILE).read_text())["COMMAND_KEYS"] == completed
