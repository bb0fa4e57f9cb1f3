"""The peers: installed into an environment of their own, started as their documentation recommends.

The versions are locked with hashes in peers/requirements.txt. A machine that cannot install them has rows without
figures, and the run fails in the end, unless BENCH_PEERS=off says that this is known.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx

from tests.bench.report import ARTIFACTS
from tests.bench.webhooks import Scheme
from tests.e2e.stack import SECRETS
from tests.support.guard import process_guard
from tests.support.ports import free_port
from tests.support.waiting import until_blocking

PEERS = Path(__file__).parent / "peers"
ENVIRONMENT = ARTIFACTS / "peers"
ENDPOINT = str(uuid.UUID(int=7))
GUNICORN_WORKERS = 2 * (os.cpu_count() or 1) + 1
"""What gunicorn's documentation recommends."""

_UVICORN = ["-m", "uvicorn", "app:app", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
_GUNICORN = ["-m", "gunicorn", "--workers", str(GUNICORN_WORKERS), "--log-level", "warning"]


class PeersMissing(RuntimeError):
    """The peers could not be installed; the message is the installer's."""


@dataclass(frozen=True)
class Peer:
    """One endpoint to compare with. ``database`` names the database it gets on the server that ours uses too."""

    name: str
    label: str
    arguments: Sequence[str]
    path: str = "/webhooks"
    scheme: Scheme = Scheme.GENERIC
    secret: str = SECRETS["WEBHOOK_SECRET"]
    database: str = ""
    binds_by_host: bool = True
    prepare: Sequence[str] = ()
    probe_status: int = 405


RAW = Peer("raw_asgi", "raw ASGI, 200 and nothing else", [*_UVICORN, "--log-level", "warning"], probe_status=200)
HMAC = Peer("fastapi_hmac", "FastAPI, HMAC, stores nothing", [*_UVICORN, "--log-level", "warning"])
INSERT = Peer(
    "fastapi_insert",
    "FastAPI, HMAC, one INSERT a request",
    [*_UVICORN, "--log-level", "warning"],
    database="peer_insert",
)
DJSTRIPE = Peer(
    "djstripe_view",
    f"dj-stripe's webhook view, gunicorn with {GUNICORN_WORKERS} workers",
    [*_GUNICORN, "wsgi:application"],
    path=f"/stripe/webhook/{ENDPOINT}/",
    scheme=Scheme.STRIPE,
    secret="whsec_bench_0123456789abcdef",
    database="peer_djstripe",
    binds_by_host=False,
    prepare=["prepare.py"],
)
TUTORIAL = Peer(
    "tutorial_fastapi",
    "tutorial handler, FastAPI and ORM, all inline",
    [*_UVICORN, "--log-level", "warning"],
    database="peer_tutorial",
)
FLASK = Peer(
    "tutorial_flask",
    f"tutorial handler, Flask and psycopg, gunicorn with {GUNICORN_WORKERS} workers",
    [*_GUNICORN, "app:app"],
    database="peer_tutorial",
    binds_by_host=False,
)
INGEST_PEERS = (RAW, HMAC, INSERT, DJSTRIPE)


def peers_are_off() -> bool:
    return os.environ.get("BENCH_PEERS", "on") == "off"


@cache
def peers_python() -> Path:
    """The interpreter of the peers' environment, made at the first call and kept until the lock changes.

    Raises PeersMissing, the same way again at each call.
    """
    if peers_are_off():
        raise PeersMissing("BENCH_PEERS=off")
    lock = PEERS / "requirements.txt"
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "locked.sha256"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode() + b"compiled").hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == digest:
        return python
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    _install(python, lock)
    stamp.write_text(digest)
    return python


def _install(python: Path, lock: Path) -> None:
    """By uv, which the development environment has, from whatever index the machine's own configuration names."""
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
    compiled = "--compile-bytecode"  # they write none themselves, and Django takes ten seconds to compile
    _run([*uv, "pip", "install", "--quiet", compiled, "--python", str(python), "--require-hashes", "-r", str(lock)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise PeersMissing(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-600:]}")


@dataclass
class RunningPeer:
    peer: Peer
    url: str
    process: subprocess.Popen[bytes]
    log: Path = field(default_factory=Path)

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        process_guard().forget(self.peer.name)


def start_peer(peer: Peer, database_url: Callable[[str], str]) -> RunningPeer:
    """Returns when it answers. Raises PeersMissing when it cannot be had."""
    python = str(peers_python())
    port = free_port()
    environment = _environment(peer, database_url)
    directory = PEERS / peer.name
    if peer.prepare:
        _prepare([python, *peer.prepare], environment, directory)
    bound = ["--host", "127.0.0.1", "--port", str(port)] if peer.binds_by_host else ["--bind", f"127.0.0.1:{port}"]
    log = ARTIFACTS / f"{peer.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *peer.arguments, *bound], cwd=directory, env=environment, stdout=output, stderr=output
        )
    process_guard().watch(peer.name, pid=process.pid, command_contains=str(ENVIRONMENT))
    running = RunningPeer(peer, f"http://127.0.0.1:{port}{peer.path}", process, log)
    until_blocking(lambda: _answers(running), within_seconds=120, what=f"the start of {peer.name}, see {log}")
    return running


def _environment(peer: Peer, database_url: Callable[[str], str]) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    own = {
        "PEER_SECRET": peer.secret,
        "PEER_ENDPOINT": ENDPOINT,
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**kept, **own, **({"PEER_DATABASE_URL": database_url(peer.database)} if peer.database else {})}


def _prepare(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise RuntimeError(f"{directory.name} could not be prepared:\n{done.stderr[-4000:]}")


def _answers(running: RunningPeer) -> bool:
    assert running.process.poll() is None, running.log.read_text()[-4000:]
    with suppress(httpx.HTTPError):
        return httpx.get(running.url, trust_env=False).status_code == running.peer.probe_status
    return False
