"""A real RabbitMQ for the tests: RABBITMQ_URL, else the machine's own, else Docker, else installed by apt as root.

A broker of ours runs on private ports with its own epmd, home and data in a temporary directory, so it meets no other
broker of the machine and leaves nothing behind. Each xdist worker has its own. A virtual host is made per test.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from shared.randomness import SystemRandomness
from tests.support.directories import throwaway_directory
from tests.support.guard import process_guard
from tests.support.ports import free_ports
from tests.support.waiting import until_blocking

START_SECONDS = 60
DOCKER_IMAGE = "rabbitmq:3.13"
CreateVirtualHost = Callable[[], str]
"""Each call makes a virtual host and returns its URL, ``amqp://…/name``."""

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_LOCAL_PROGRAMS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/homebrew/opt/rabbitmq/sbin"), Path("/opt/rabbitmq/sbin"))
_INSTALL_LOCK = Path(tempfile.gettempdir()) / "payrail-apt.lock"


class RabbitMQNotAvailable(RuntimeError):
    """There is no broker to test with; the message says what to install."""


class RabbitMQServer(ABC):
    """A broker that tests can use; only our own can be stopped, killed and frozen."""

    port: int
    is_ours = True

    def __init__(self) -> None:
        self._run = SystemRandomness().token_bytes(4).hex()
        self._numbers = itertools.count(1)

    def url(self, virtual_host: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(virtual_host, safe='')}"

    def create_vhost(self) -> str:
        """Make a virtual host and return its name."""
        name = f"t_{self._run}_{next(self._numbers)}"
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).'
        )
        return name

    def delete_vhost(self, name: str) -> None:
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"tests">>).')

    def evaluate(self, expression: str) -> str:
        """Run an Erlang expression inside the broker."""
        return self.rabbitmqctl("eval", expression)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good and remove what is left on disk."""
        self.stop()

    @property
    def accepts_connections(self) -> bool:
        """Whether the broker greets a client; a port alone is open too early."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
            probe.settimeout(1)
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == b"\x01"
        return False

    @abstractmethod
    def start(self) -> None:
        """Return when the broker greets clients."""

    @abstractmethod
    def stop(self) -> None:
        """Stop in order; its durable queues are there after the next start."""

    @abstractmethod
    def kill9(self) -> None:
        """End it as a power cut would. Quorum queues need 10 s of life before that (field note M10)."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open and nothing answers."""

    @abstractmethod
    def resume(self) -> None:
        """Thaw it (SIGCONT)."""

    @abstractmethod
    def rabbitmqctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return its output; raises RabbitMQNotAvailable with its complaint."""


class LocalRabbitMQ(RabbitMQServer):
    """A broker run from the programs of this machine, as whoever we are; root included."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._programs = programs
        self.port, self._distribution_port, self._epmd_port = free_ports(3)
        self._node = f"payrail-{self._run}@localhost"
        self._directory = throwaway_directory("payrail-rmq-")
        process_guard().remove_afterwards(self._directory)
        self._environment = self._prepare_directory()
        self._broker: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._broker.pid if self._broker is not None and self._broker.poll() is None else None

    @property
    def log_directory(self) -> Path:
        return self._directory / "log"

    def start(self) -> None:
        if self.pid is not None:
            return
        self._start_epmd()
        with (self._directory / "output").open("ab") as output:  # not a pipe, or whoever reads it waits for ever
            self._broker = subprocess.Popen(
                [str(self._programs / "rabbitmq-server")],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process_guard().watch(self._node, pid=self._broker.pid, command_contains=str(self._directory))
        until_blocking(self._is_up, within_seconds=START_SECONDS, what="the start of RabbitMQ")

    def stop(self) -> None:
        self.resume()
        self._end(signal.SIGTERM)

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Nothing of the broker is worth an orderly shutdown: it and its data go."""
        self.kill9()
        if self._epmd is not None:
            self._epmd.terminate()
            self._epmd.wait(10)
            process_guard().forget(f"epmd {self._node}")
        process_guard().forget(self._node)
        shutil.rmtree(self._directory, ignore_errors=True)

    def evaluate(self, expression: str) -> str:
        """By erl_call where Erlang has it: some milliseconds instead of the half second of rabbitmqctl."""
        erl_call = shutil.which("erl_call")
        if erl_call is None:
            return self.rabbitmqctl("eval", expression)
        cookie = (self._directory / ".erlang.cookie").read_text().strip()
        return self._run_program([erl_call, "-n", self._node, "-c", cookie, "-e"], expression + "\n")

    def rabbitmqctl(self, *arguments: str) -> str:
        return self._run_program([str(self._programs / "rabbitmqctl"), "-q", "-n", self._node, *arguments])

    def _run_program(self, command: list[str], text: str | None = None) -> str:
        return _run(command, environment=self._environment, text=text)

    def _prepare_directory(self) -> dict[str, str]:
        directory = self._directory
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "log.file.level = warning\n"
            "disk_free_limit.absolute = 10MB\n"
            "raft.wal_max_size_bytes = 16777216\n"  # half a gigabyte by default, per broker of a test run
        )
        (directory / "enabled_plugins").write_text("[].\n")
        for name in ("log", "data"):
            (directory / name).mkdir()
        idle = "+sbwt none +sbwtdcpu none +sbwtdio none"  # spinning schedulers would take the cores of the tests
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin",
            "HOME": str(directory),  # where the cookie is made, so that no other broker shares it
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # the machine's own broker is configured there
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{idle} -kernel inet_dist_use_interface {{127,0,0,1}}",
            "RUNNING_UNDER_SYSTEMD": "1",  # the script execs Erlang, so the process we started is the broker itself
        }

    def _start_epmd(self) -> None:
        """Run the port mapper ourselves and in the foreground; Erlang would leave a daemon behind."""
        if self._epmd is not None:
            return
        epmd = shutil.which("epmd", path=self._environment["PATH"])
        if epmd is None:
            raise RabbitMQNotAvailable("Erlang's epmd is not on the PATH; install Erlang as your RabbitMQ wants it.")
        command = [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
        self._epmd = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True)
        process_guard().watch(f"epmd {self._node}", pid=self._epmd.pid, command_contains=str(self._epmd_port))

    def _is_up(self) -> bool:
        if self.pid is None:
            output = (self._directory / "output").read_text(errors="replace")[-3000:]
            raise RabbitMQNotAvailable(f"RabbitMQ stopped while starting:\n{output}")
        return self.accepts_connections

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._broker is not None:
            try:
                self._broker.wait(30)
            except subprocess.TimeoutExpired:
                self._broker.kill()
                self._broker.wait(10)
        self._broker = None

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            os.kill(self.pid, number)


class DockerRabbitMQ(RabbitMQServer):
    """A broker in a container, for machines without RabbitMQ of their own."""

    def __init__(self) -> None:
        super().__init__()
        (self.port,) = free_ports(1)
        self._name = f"payrail-test-{self._run}"

    def start(self) -> None:
        if _succeeds(["docker", "container", "inspect", self._name]):
            self._docker("start", self._name)
        else:
            published = f"127.0.0.1:{self.port}:5672"
            # A fixed host name keeps the node's name, and with it the data, over a restart of the container.
            self._docker("run", "-d", "--name", self._name, "--hostname", "broker", "-p", published, DOCKER_IMAGE)
        until_blocking(lambda: self.accepts_connections, within_seconds=START_SECONDS, what="the start of RabbitMQ")

    def stop(self) -> None:
        self._docker("stop", "--time", "30", self._name)

    def kill9(self) -> None:
        self._docker("kill", "--signal", "KILL", self._name)

    def pause(self) -> None:
        self._docker("pause", self._name)

    def resume(self) -> None:
        self._docker("unpause", self._name)

    def close(self) -> None:
        self._docker("rm", "--force", "--volumes", self._name)

    def rabbitmqctl(self, *arguments: str) -> str:
        return self._docker("exec", self._name, "rabbitmqctl", "-q", *arguments)

    def _docker(self, *arguments: str) -> str:
        return _run(["docker", *arguments])


class ExternalRabbitMQ(RabbitMQServer):
    """Somebody else's broker, by RABBITMQ_URL: tests make virtual hosts on it and leave its process alone."""

    is_ours = False

    def __init__(self, url: str, management_url: str | None) -> None:
        super().__init__()
        self._url = urlsplit(url)
        self.port = self._url.port or 5672
        host = f"http://{self._url.hostname}:15672"
        self._management_url = (management_url or host).rstrip("/")

    def url(self, virtual_host: str = "/") -> str:
        return f"{self._url.scheme}://{self._url.netloc}/{quote(virtual_host, safe='')}"

    def create_vhost(self) -> str:
        name = f"t_{self._run}_{next(self._numbers)}"
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._manage("PUT", f"/api/vhosts/{name}")
        self._manage("PUT", f"/api/permissions/{name}/{quote(self._url.username or 'guest')}", everything)
        return name

    def delete_vhost(self, name: str) -> None:
        self._manage("DELETE", f"/api/vhosts/{name}")

    def start(self) -> None:
        """It runs already."""

    def stop(self) -> None:
        """It is not ours to stop."""

    def kill9(self) -> None:
        raise RabbitMQNotAvailable("the broker of RABBITMQ_URL is not ours to kill; use the fixture own_rabbitmq.")

    def pause(self) -> None:
        self.kill9()

    def resume(self) -> None:
        self.kill9()

    def rabbitmqctl(self, *arguments: str) -> str:
        raise RabbitMQNotAvailable("rabbitmqctl cannot reach the broker of RABBITMQ_URL; use the fixture own_rabbitmq.")

    def _manage(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        credentials = f"{self._url.username or 'guest'}:{self._url.password or 'guest'}"
        url, data = self._management_url + path, json.dumps(body or {}).encode()
        request = urllib.request.Request(url, data, method=method)  # noqa: S310 - the caller's own setting
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                return
        except urllib.error.URLError as refused:
            raise RabbitMQNotAvailable(
                f"the management API at {self._management_url} answered {refused}; tests make a virtual host each by "
                "it, so set RABBITMQ_MANAGEMENT_URL, or unset RABBITMQ_URL to let the tests start a broker."
            ) from refused


def find_rabbitmq() -> RabbitMQServer:
    """The broker of the environment, else one of our own; not started yet."""
    given = os.environ.get("RABBITMQ_URL")
    return ExternalRabbitMQ(given, os.environ.get("RABBITMQ_MANAGEMENT_URL")) if given else make_own_rabbitmq()


def make_own_rabbitmq() -> RabbitMQServer:
    """A broker that a test may kill; not started yet. Raises RabbitMQNotAvailable with what to install."""
    programs = ensure_programs()
    return LocalRabbitMQ(programs) if programs else DockerRabbitMQ()


def ensure_programs() -> Path | None:
    """The folder of the machine's RabbitMQ, installed if need be; None when Docker stands in for it.

    Raises RabbitMQNotAvailable with what to install.
    """
    programs = _local_programs()
    if programs is None and _succeeds(["docker", "info"]):
        return None
    if programs is None:
        _install()
        programs = _local_programs()
    if programs is None:
        raise RabbitMQNotAvailable(
            "the tests need a real RabbitMQ: install it (Debian, Ubuntu: apt-get install rabbitmq-server; macOS: brew "
            "install rabbitmq), or start Docker, or set RABBITMQ_URL and RABBITMQ_MANAGEMENT_URL to a running one."
        )
    return programs


def _local_programs() -> Path | None:
    """The folder with RabbitMQ's own scripts; those in /usr/sbin of Debian only run as root or as rabbitmq."""
    on_path = shutil.which("rabbitmq-server")
    folders = [*_LOCAL_PROGRAMS, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "rabbitmq-server").exists()), None)


def _install() -> None:
    """Install by apt as root; nothing happens on other systems, and the caller complains."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    # RUNLEVEL=1 keeps Debian from starting a broker of its own on the usual port.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with _INSTALL_LOCK.open("w") as lock:  # the xdist workers come here together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _local_programs() is None:
            _run(["apt-get", "update", "-q"], environment=environment)
            command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "rabbitmq-server"]
            _run(command, environment=environment)


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(command: list[str], *, environment: dict[str, str] | None = None, text: str | None = None) -> str:
    done = subprocess.run(
        command, input=text or "", capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    if done.returncode != 0 or done.stdout.startswith("{error"):
        raise RabbitMQNotAvailable(f"{' '.join(command)[:300]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """The broker of this session (of this xdist worker, when it is ours)."""
    server = find_rabbitmq()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_rabbitmq() -> Iterator[RabbitMQServer]:
    """A broker of this test's own, to stop, kill and freeze; some seconds to start."""
    server = make_own_rabbitmq()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def create_vhost(rabbitmq: RabbitMQServer) -> Iterator[CreateVirtualHost]:
    """A factory of fresh virtual hosts, deleted with everything in them after the test."""
    names: list[str] = []

    def create() -> str:
        names.append(rabbitmq.create_vhost())
        return rabbitmq.url(names[-1])

    yield create
    for name in names:
        rabbitmq.delete_vhost(name)


@pytest.fixture
def vhost_url(create_vhost: CreateVirtualHost) -> str:
    """The URL of a virtual host of this test's own."""
    return create_vhost()
