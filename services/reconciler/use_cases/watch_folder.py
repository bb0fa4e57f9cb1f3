"""The watched folder: what somebody, or a gateway's SFTP, puts into ``<folder>/<gateway>[__<account>]/`` is taken in.

What was stored is moved to ``done/``, what was refused to ``refused/`` with a ``.txt`` beside it that says why. A crash
between storing and moving leaves the file where it is: the next look finds its content known, and moves it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.reconciler.domain.errors import FileChanged, FileRefused
from services.reconciler.metrics import SETTLEMENT_FILES_REFUSED
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.receive_file import Arrival, receive_file
from services.reconciler.use_cases.settlement_ports import RawFile

log = structlog.get_logger()

DONE, REFUSED = "done", "refused"
MAX_FILES_A_ROUND = 20
MAX_ENTRIES = 10_000
"""Of one directory: what is moved away is looked at no more, so that only a backlog comes near it."""

_DIRECTORY = re.compile(r"(?P<gateway>[a-z][a-z0-9_]{1,31}?)(?:__(?P<account>[A-Za-z0-9._-]{1,64}))?")
_UNFINISHED = (".part", ".tmp", ".filepart", ".crdownload")
_REASON = ".txt"

State = tuple[int, int, int, int, int]
"""Which file it is, its size, and when its content, and anything about it, changed last."""


@dataclass(frozen=True, slots=True)
class _Found:
    directory: Path
    name: str
    gateway: str
    account: str

    @property
    def path(self) -> Path:
        return self.directory / self.name


class FolderWatch:
    """``round`` looks once. A file is taken when it is as it was at the look before: whoever writes it has ended."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[Path, State] = {}
        self._stuck: dict[Path, State] = {}
        """Handled, but they cannot be moved: to read them again and again would tell nothing new."""
        self._unread: dict[Path, State] = {}
        """They could not be read. They come after all others, the one that was tried longest ago first."""

    async def round(self) -> bool:
        """True: more waits. Does nothing where no folder is watched. Raises InfrastructureError."""
        folder = self._context.intake.folder
        if folder is None:
            return False
        before, self._seen = self._seen, {}
        settled: list[_Found] = []
        for found, state in _files(folder):
            self._seen[found.path] = state
            if self._stuck.get(found.path) != state and before.get(found.path) == state:
                settled.append(found)
        self._stuck, self._unread = self._still_there(self._stuck), self._still_there(self._unread)
        fresh = [found for found in settled if found.path not in self._unread]
        tried = {found.path: found for found in settled}
        again = [tried[path] for path in self._unread if path in tried]
        for found in (fresh + again)[:MAX_FILES_A_ROUND]:
            await self._take(found)
        return len(fresh) > MAX_FILES_A_ROUND

    def _still_there(self, files: dict[Path, State]) -> dict[Path, State]:
        return {path: state for path, state in files.items() if self._seen.get(path) == state}

    async def _take(self, found: _Found) -> None:
        try:
            with _opened(found.path) as raw:
                if _state(os.fstat(raw.fileno())) != self._seen[found.path]:
                    return  # another one has taken its place; a later look takes that
                received = await receive_file(
                    Arrival(
                        raw,
                        name=found.name,
                        source="folder",
                        received_by="folder",
                        gateway=found.gateway,
                        account=found.account,
                    ),
                    self._context,
                )
        except FileChanged:
            return  # it is still being written; a later look takes it
        except FileRefused as error:
            log.warning("settlement_file_refused", gateway=found.gateway, code=error.code)
            SETTLEMENT_FILES_REFUSED.labels(gateway=found.gateway, source="folder").inc()
            self._move_away(found, REFUSED, f"{error.code}: {error.detail}\n")
        except OSError as error:
            log.warning("settlement_file_not_readable", gateway=found.gateway, error=type(error).__name__)
            SETTLEMENT_FILES_REFUSED.labels(gateway=found.gateway, source="folder").inc()
            self._unread.pop(found.path, None)
            self._unread[found.path] = self._seen[found.path]
        else:
            log.info("settlement_file_taken", file_id=received.file.file_id, duplicate=received.is_duplicate)
            self._move_away(found, DONE)

    def _move_away(self, found: _Found, where: str, reason: str | None = None) -> None:
        state = self._seen[found.path]
        try:
            _move(found, state, where, reason)
        except FileChanged:
            return  # delivered again meanwhile: nobody has read that one
        except OSError as error:
            log.warning("settlement_file_not_moved", gateway=found.gateway, to=where, error=type(error).__name__)
            self._stuck[found.path] = state


def _files(folder: Path) -> Iterator[tuple[_Found, State]]:
    """Plain files of the gateways' directories, by name; links, hidden and unfinished files are left alone."""
    for directory in _entries(folder):
        match = _DIRECTORY.fullmatch(directory.name)
        if match is None or not directory.is_dir(follow_symlinks=False):
            continue
        for entry in _entries(Path(directory.path)):
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found = _Found(Path(directory.path), entry.name, match["gateway"], match["account"] or "")
                yield found, _state(status)


def _state(status: os.stat_result) -> State:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted((entry for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)), key=_name)
    except OSError as error:
        log.warning("settlement_folder_not_readable", error=type(error).__name__)
        return []


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


@contextmanager
def _opened(path: Path) -> Iterator[RawFile]:
    """Raises OSError; a link that has taken the file's place is not followed, a pipe is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as raw:
        yield raw


def _move(found: _Found, state: State, where: str, reason: str | None) -> None:
    """Into a directory beside it, under a name that is free there, with ``reason`` in a file beside it.

    Every path is one name in a directory that is held open, so that whoever may write there leads to no other place by
    a link. Raises FileChanged: what has the name now is not what was read; OSError: it cannot be moved, and stays.
    """
    with suppress(FileExistsError):
        (found.directory / where).mkdir()
    with _held(found.directory / where) as target, _held(found.directory) as source:
        name = next(name for name in _names(found.name) if not _is_taken(name, target))
        if _state(os.stat(found.name, dir_fd=source, follow_symlinks=False)) != state:
            raise FileChanged
        os.rename(found.name, name, src_dir_fd=source, dst_dir_fd=target)
        if reason is not None:
            _explain(f"{name}{_REASON}", reason, target)


@contextmanager
def _held(directory: Path) -> Iterator[int]:
    """Raises OSError, also where it is a link."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(name: str) -> Iterator[str]:
    yield name
    stem, dot, ending = name.partition(".")
    number = 2
    while True:
        yield f"{stem}-{number}{dot}{ending}"
        number += 1


def _is_taken(name: str, directory: int) -> bool:
    """Also where a reason would not find its place."""
    return _exists(name, directory) or _exists(f"{name}{_REASON}", directory)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _explain(name: str, reason: str, directory: int) -> None:
    """In a file that is new: what has the name by now, be it a link, is left as it is."""
    try:
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(reason)
    except OSError as problem:
        log.warning("settlement_refusal_not_written", error=type(problem).__name__)
