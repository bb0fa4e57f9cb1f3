"""The spool: deliveries in files of this machine while PostgreSQL is away (ADR 0020).

Each process appends to a segment of its own, which it holds a lock on (flock), and closes it when the database is back.
A segment whose owner has died is nobody's lock, so whoever comes by adopts it. The lock is taken before the segment has
its name, so no segment is ever seen unlocked while its owner lives.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from services.webhook_ingest.db.delivery_rows import Key, Row
from services.webhook_ingest.db.spool_records import TOKEN_BYTES, Contents, encode, parse
from services.webhook_ingest.domain.errors import StoreFull
from services.webhook_ingest.metrics import (
    SPOOL_BYTES,
    SPOOL_OLDEST_SECONDS,
    SPOOL_SET_ASIDE,
    SPOOL_UNREADABLE,
    SPOOLED,
)
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import DatabaseUnavailable
from shared.ports import Ports
from shared.settings import ConfigurationError

log = structlog.get_logger()

SEGMENT_BYTES = 2 * 1024 * 1024
"""About what is read, stored and deleted together when it is drained."""

REST_SECONDS = 1.0
"""After the disk has failed it is left alone for so long: each try costs callers time, and the disk work."""

_SEGMENT = re.compile(r"(?P<milliseconds>[0-9]{14})-(?P<token>[0-9a-f]{32})\.spool")

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Segment:
    """A file that this process holds the lock of."""

    path: Path
    token: bytes
    descriptor: int
    size: int = 0


class Spool:
    """Everything on disk is done by one thread of its own, in order; the event loop never waits for a disk.

    ``max_bytes`` bounds the directory, whoever's files they are. Raises ConfigurationError if it cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        ports: Ports,
        sync: Callable[[int], None] = os.fdatasync,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._ports = ports
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._current: Segment | None = None
        self._held: dict[Path, Segment] = {}
        self._created_at = 0
        self._tried_again_at = float("-inf")
        self._unreadable: dict[Path, str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhook-spool")
        self.known: dict[Key, AppendResult] = {}
        """What this process has spooled and not drained yet, so that a repetition is told apart."""
        self.refused: str | None = None
        """Why the last batch could not be spooled; None if it could."""
        self.waiting_bytes = 0
        _prepare(directory)
        _remove_nameless(directory)

    async def append(self, rows: Sequence[Row]) -> list[AppendResult]:
        """Returns once all of them are on disk, by one fsync.

        Raises StoreFull, or DatabaseUnavailable if the disk fails: then nobody is told that they are safe, and it does
        no harm if some of them are there.
        """
        if self._ports.clock.monotonic() < self._tried_again_at:
            raise DatabaseUnavailable(retry_after_seconds=2)
        try:
            await self._run(lambda: self._append(rows))
        except StoreFull:
            self.refused = "the spool is full"
            raise
        except OSError as error:
            self._tried_again_at = self._ports.clock.monotonic() + REST_SECONDS
            self.refused = f"the spool cannot be written ({error.strerror})"
            log.error("spool_not_written", error=error.strerror, errno=error.errno)
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        self.refused = None
        stored = [AppendResult(row.id, is_duplicate=False, body_digest=row.body_digest) for row in rows]
        self.known.update(zip((row.key for row in rows), stored, strict=True))
        SPOOLED.inc(len(rows))
        return stored

    async def claim(self) -> list[Segment]:
        """Every segment that is ours to drain, oldest first: this process's own, closed now, and those of dead ones."""
        segments = await self._run(self._claim)
        SPOOL_UNREADABLE.set(len(self._unreadable))
        return segments

    def cannot_read(self, path: Path, error: OSError) -> None:
        """Said once of each file, for it is tried again at every round; the metric goes on saying it."""
        if self._unreadable.get(path) != error.strerror:
            log.error("spool_segment_not_read", segment=path.name, error=error.strerror, errno=error.errno)
        self._unreadable[path] = error.strerror or type(error).__name__
        SPOOL_UNREADABLE.set(len(self._unreadable))

    async def read(self, segment: Segment) -> Contents:
        """Raises OSError."""
        contents = await self._run(lambda: parse(segment.path.read_bytes(), segment.token))
        if contents.torn:
            log.warning("spool_torn_end_cut", segment=segment.path.name, bytes=contents.torn)
        return contents

    async def set_aside(self, segment: Segment, damaged: Sequence[bytes], unstorable: Sequence[Row]) -> None:
        """Keep for a person what no program can bring in; on disk before the segment goes."""
        pieces = [*damaged, *(encode([row], segment.token) for row in unstorable)]
        if not pieces:
            return
        await self._run(lambda: self._write_aside(segment, pieces))
        SPOOL_SET_ASIDE.inc(len(pieces))
        log.error("spool_records_set_aside", segment=segment.path.name, damaged=len(damaged), refused=len(unstorable))

    async def delete(self, segment: Segment, rows: Iterable[Row]) -> None:
        """Call it after all its rows are committed."""
        await self._run(lambda: self._delete(segment))
        self._unreadable.pop(segment.path, None)
        for row in rows:
            self.known.pop(row.key, None)

    async def measure(self) -> None:
        names = await self._run(self._sizes)
        self.waiting_bytes = sum(names.values())
        SPOOL_BYTES.set(self.waiting_bytes)
        segments = list(filter(None, map(_SEGMENT.fullmatch, names)))
        if not segments:
            self.known.clear()  # what this process let go of after a failure, another one may have drained
        times = [int(found["milliseconds"]) for found in segments]
        oldest = self._milliseconds() - min(times) if times else 0
        SPOOL_OLDEST_SECONDS.set(max(oldest, 0) / 1000)

    async def close(self) -> None:
        """Let go of all locks: whoever comes next, here or after a restart, adopts what is left."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # What follows runs in the spool's thread.

    def _append(self, rows: Sequence[Row]) -> None:
        segment = self._current or self._create()
        data = encode(rows, segment.token)
        if sum(self._sizes().values()) + len(data) > self._max_bytes:
            raise StoreFull(retry_after_seconds=5)
        try:
            write_all(segment.descriptor, data)
            self._sync(segment.descriptor)
        except OSError:
            self._let_go(segment)
            raise
        segment.size += len(data)
        if segment.size >= self._segment_bytes:
            self._close_current()

    def _let_go(self, segment: Segment) -> None:
        """After a failure: back to what was acknowledged. Nothing is added to it any more, and neither it nor its
        descriptor stays behind, however often the disk fails; what is in it is adopted by the next claim."""
        self._current = None
        with suppress(OSError):  # what cannot be cut off was never acknowledged, and does no harm
            os.ftruncate(segment.descriptor, segment.size)
        if not segment.size:
            with suppress(OSError):
                segment.path.unlink()
        os.close(segment.descriptor)

    def _create(self) -> Segment:
        for _ in range(2):
            with suppress(FileNotFoundError, BlockingIOError):  # a process that starts has taken it for a dead one's
                return self._created()
        return self._created()

    def _created(self) -> Segment:
        token = self._ports.randomness.token_bytes(TOKEN_BYTES)
        self._created_at = max(self._milliseconds(), self._created_at + 1)  # names in the order of creation
        path = self._directory / f"{self._created_at:014d}-{token.hex()}.spool"
        nameless = path.with_suffix(".new")
        descriptor = os.open(nameless, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            nameless.rename(path)
            sync_directory(self._directory)
        except OSError:
            for name in (nameless, path):
                with suppress(OSError):
                    name.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._current = Segment(path, token, descriptor)
        return self._current

    def _close_current(self) -> None:
        if self._current is not None:
            self._held[self._current.path] = self._current
            self._current = None

    def _claim(self) -> list[Segment]:
        self._close_current()
        paths = {self._directory / name: found for name in self._sizes() if (found := _SEGMENT.fullmatch(name))}
        self._unreadable = {path: error for path, error in self._unreadable.items() if path in paths}
        for path, found in paths.items():
            if path not in self._held:
                self._adopt(path, bytes.fromhex(found["token"]))
        return [self._held[path] for path in sorted(self._held)]

    def _adopt(self, path: Path, token: bytes) -> None:
        """One that cannot be opened is no reason to leave the others where they are."""
        try:
            adopted = _adopted(path, token)
        except OSError as error:
            self.cannot_read(path, error)
            return
        self._unreadable.pop(path, None)
        if adopted is not None:
            self._held[path] = adopted
            log.info("spool_segment_adopted", segment=path.name)

    def _write_aside(self, segment: Segment, pieces: Sequence[bytes]) -> None:
        path = segment.path.with_suffix(".aside")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, b"".join(pieces))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._directory)

    def _delete(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        os.close(segment.descriptor)
        del self._held[segment.path]

    def _sizes(self) -> dict[str, int]:
        """The files' sizes by name; one that goes while we look counts nothing."""
        sizes = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                try:
                    sizes[entry.name] = entry.stat().st_size
                except FileNotFoundError:
                    continue
                except OSError:
                    sizes[entry.name] = 0  # whoever opens it will say why
        return sizes

    def _close(self) -> None:
        self._close_current()
        for segment in self._held.values():
            os.close(segment.descriptor)
        self._held.clear()

    def _milliseconds(self) -> int:
        return int(self._ports.clock.now().timestamp() * 1000)


def _prepare(directory: Path) -> None:
    """The raw bodies are in there in clear, so nobody else may read it. A directory that was there before keeps its
    owner and mode, and is refused if they are wrong: a mistyped path must not close somebody's home."""
    try:
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            sync_directory(path.parent)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"WEBHOOK_SPOOL_DIRECTORY {directory} belongs to another user; name one of its own"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigurationError(
                f"WEBHOOK_SPOOL_DIRECTORY {directory} is open to others; `chmod 700` it, or name another"
            )
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise ConfigurationError(f"WEBHOOK_SPOOL_DIRECTORY cannot be used: {error.strerror}") from None


def _remove_nameless(directory: Path) -> None:
    """Segments that never got their names, because their process died first; nothing is in them."""
    for path in directory.glob("*.new"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    return path.stat().st_ino == os.fstat(descriptor).st_ino


def sync_directory(directory: Path) -> None:
    """A file is not there after a power failure until its name is on disk, too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _adopted(path: Path, token: bytes) -> Segment | None:
    """The segment, if its owner is dead and nobody was quicker. Raises OSError if it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    if status.st_nlink == 0:  # drained and deleted between our look and our lock
        os.close(descriptor)
        return None
    return Segment(path, token, descriptor, status.st_size)


def write_all(descriptor: int, data: bytes) -> None:
    """A disk that is nearly full takes a part."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
