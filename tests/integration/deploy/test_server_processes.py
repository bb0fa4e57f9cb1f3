"""`payrail serve --processes 2`, as it is run: one port, one page of metrics, and a death that nobody notices."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.processes import children, is_alive
from tests.support.guard import process_guard
from tests.support.ports import free_port
from tests.support.waiting import until_blocking

REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 60


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """webhook_ingest, which starts without its database."""
    port = free_port()
    environment = os.environ | {
        "PAYRAIL_ENVIRONMENT": "development",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "JWT_SHARED_KEY": "a-development-key-of-at-least-32-bytes",
        "RABBITMQ_URL": "amqp://127.0.0.1:1/",
        "WEBHOOK_SECRET": "a-webhook-secret-of-32-bytes-at-least",
        "WEBHOOK_FAILED_VERIFICATIONS_PER_MINUTE": "1000",
        "TMPDIR": str(tmp_path),
        "LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "deploy.cli", "serve", "webhook-ingest", "--port", str(port), "--processes", "2"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL)
    process_guard().watch(f"supervisor {port}", pid=process.pid, command_contains="deploy.cli")
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def answered(base: str, code: str) -> int:
    """How many forged webhooks were refused, by the page of metrics of whichever process answers."""
    page = httpx.get(f"{base}/metrics", trust_env=False).text
    found = re.search(rf'payrail_webhooks_total{{gateway="generic",result="{code}"}} ([0-9.]+)', page)
    return int(float(found.group(1))) if found else 0


def is_answering(base: str) -> bool:
    try:
        return httpx.get(f"{base}/healthz", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def answering_pids(parent: int) -> set[int]:
    """The children that serve by now: those that have opened their part of the metrics."""
    return {pid for pid in children(parent) if any("payrail-metrics" in path for path in mapped(pid))}


def mapped(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []


def test_a_killed_process_comes_back_while_the_other_answers_and_one_scrape_counts_both(
    service: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    process, base = service
    until_blocking(lambda: is_answering(base), within_seconds=START_SECONDS, what="the first answer")
    until_blocking(lambda: len(answering_pids(process.pid)) == 2, within_seconds=START_SECONDS, what="both processes")

    def forge(count: int) -> None:
        for _ in range(count):
            answer = httpx.post(f"{base}/api/v1/webhooks/generic", content=b"{}", trust_env=False)
            assert answer.status_code == 401

    forge(20)
    assert answered(base, "signature_missing") == 20
    killed = min(answering_pids(process.pid))
    os.kill(killed, signal.SIGKILL)
    until_blocking(lambda: not is_alive(killed), what="the death")
    forge(10)
    until_blocking(lambda: len(answering_pids(process.pid)) == 2, within_seconds=START_SECONDS, what="the return")
    successors = answering_pids(process.pid)
    assert killed not in successors
    forge(10)
    assert answered(base, "signature_missing") == 40, "what the dead one had counted stays, and both count on"
    [directory] = tmp_path.glob("payrail-metrics-*")
    assert {path.stem.rpartition("_")[2] for path in directory.glob("*.db")} == {"0", "1"}
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert not any(map(is_alive, successors))
    assert not list(tmp_path.glob("payrail-metrics-*"))
