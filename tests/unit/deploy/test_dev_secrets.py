"""The secrets of a data directory: made once, kept, and completed when a newer release wants more of them."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.local.dev import SECRETS_FILE, development_environment
from shared.ports import system_ports


def test_secrets_are_made_once_and_what_is_missing_is_added(tmp_path: Path) -> None:
    ports = system_ports()
    (tmp_path / SECRETS_FILE).write_text(json.dumps({"WEBHOOK_SECRET": "kept"}))
    first = development_environment(port=8000, data=tmp_path, ports=ports)
    assert first["WEBHOOK_SECRET"] == "kept"
    assert first["COMMAND_KEYS"] == f"order_service:{first['COMMAND_SIGNING_KEY']}"
    assert len(bytes.fromhex(first["COMMAND_SIGNING_KEY"])) == 32
    assert development_environment(port=8000, data=tmp_path, ports=ports) == first
    assert (tmp_path / SECRETS_FILE).stat().st_mode & 0o077 == 0
