"""The watched folder: what somebody, or a gateway's SFTP, puts into ``<folder>/<gateway>[__<account>]/`` is taken in.

What was stored is moved to ``done/``, what was refused to ``refused/`` with a ``.txt`` beside it that says why. A crash
between storing and moving leaves the file where it is: the next look finds its content known, and moves it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.reconciler.domain.errors import FileChanged, FileRefused
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

State = tuple[int, int, int]
"""inode, size and time of the last change."""


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
        self._stuck = {path: state for path, state in self._stuck.items() if path in self._seen}
        for found in settled[:MAX_FILES_A_ROUND]:
            await self._take(found)
        return len(settled) > MAX_FILES_A_ROUND

    async def _take(self, found: _Found) -> None:
        try:
            with _opened(found.path) as raw:
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
            target = self._move_away(found, REFUSED)
            if target is not None:
                _explain(target, error)
        except OSError as error:
            log.warning("settlement_file_not_readable", gateway=found.gateway, error=type(error).__name__)
        else:
            log.info("settlement_file_taken", file_id=received.file.file_id, duplicate=received.is_duplicate)
            self._move_away(found, DONE)

    def _move_away(self, found: _Found, where: str) -> Path | None:
        target = _move(found, where)
        if target is None:
            self._stuck[found.path] = self._seen[found.path]
        return target


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
                yield found, (status.st_ino, status.st_size, status.st_mtime_ns)


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


def _move(found: _Found, where: str) -> Path | None:
    """Into a directory beside it, under a name that is free there. None: it cannot be moved, and stays."""
    directory = found.directory / where
    try:
        directory.mkdir(exist_ok=True)
        if directory.is_symlink():
            raise NotADirectoryError
        target = next(path for path in _names(directory, found.name) if not os.path.lexists(path))
        found.path.rename(target)
    except OSError as error:
        log.warning("settlement_file_not_moved", gateway=found.gateway, to=where, error=type(error).__name__)
        return None
    return target


def _names(directory: Path, name: str) -> Iterator[Path]:
    yield directory / name
    stem, dot, ending = name.partition(".")
    number = 2
    while True:
        yield directory / f"{stem}-{number}{dot}{ending}"
        number += 1


def _explain(target: Path, error: FileRefused) -> None:
    try:
        target.with_name(target.name + ".txt").write_text(f"{error.code}: {error.detail}\n", encoding="utf-8")
    except OSError as problem:
        log.warning("settlement_refusal_not_written", error=type(problem).__name__)
