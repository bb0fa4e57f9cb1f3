"""Notice that an export lacks what it had before, or has older versions of it (PG13).

A pull of what has changed expects again whatever the mirror knows to have changed in its overlap. A pull of all there
is compares all of it: a few that went back are taken as their owner has them, so that the comparison makes cases of
them; many are another database, and nothing of that is taken.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import structlog

from services.reconciler.domain.errors import ExportWentBack
from services.reconciler.domain.mirror import KnownOrder, KnownPayment
from services.reconciler.use_cases.mirror_ports import MirrorRepository, Source
from services.reconciler.use_cases.ports import Context

log = structlog.get_logger()

FEW, ONE_IN, MOST = 20, 100, 10_000
"""Of what is known, at most one in so many (a few at any rate, and never more) may have gone back."""
PAGE = 10_000
NAMED = 20

T = TypeVar("T", KnownPayment, KnownOrder)
Store = Callable[[MirrorRepository, Sequence[T]], Awaitable[int]]


class LookBack(Protocol[T]):
    async def see(self, mirror: MirrorRepository, batch: Sequence[T]) -> None:
        """Before the batch is stored, in its transaction."""
        ...

    async def end(self, store: Store[T]) -> int:
        """After the whole export: how many went back. Raises ExportWentBack."""
        ...


class OverlapLookBack(Generic[T]):
    def __init__(self, source: Source, key: Callable[[T], str], expected: set[str]) -> None:
        self._source = source
        self._key: Callable[[T], str] = key
        self._expected = expected

    async def see(self, mirror: MirrorRepository, batch: Sequence[T]) -> None:  # noqa: ARG002 - it has been asked
        self._expected.difference_update(self._key(each) for each in batch)

    async def end(self, store: Store[T]) -> int:  # noqa: ARG002 - there is nothing to put back
        if self._expected:
            raise _went_back(self._source, len(self._expected), sorted(self._expected))
        return 0


class WholeLookBack(Generic[T]):
    """Only what was known, and at rest, well before the pull began is compared: another pull may store newer versions
    at the same time. Memory: eight bytes for each document; their ids are read again only where some are missing."""

    def __init__(self, source: Source, key: Callable[[T], str], before: datetime, context: Context) -> None:
        self._source = source
        self._key: Callable[[T], str] = key
        self._before = before
        self._context = context
        self._seen = array("q")
        self._met = 0
        self._older: dict[str, T] = {}

    async def see(self, mirror: MirrorRepository, batch: Sequence[T]) -> None:
        given = {self._key(each): each for each in batch}
        self._seen.extend(hash(id_) for id_ in given)
        known = await mirror.versions(self._source, list(given), before=self._before)
        self._met += len(known)
        if len(self._older) <= MOST:
            self._older.update({id_: given[id_] for id_, version in known.items() if given[id_].version < version})

    async def end(self, store: Store[T]) -> int:
        async with self._context.settlement_uow() as tx:  # counting may last longer than a request's statement
            known = await tx.mirror.count(self._source, before=self._before)
        gone: list[str] = await self._gone() if known > self._met else []
        went_back = sorted([*gone, *self._older])
        if not went_back:
            return 0
        allowed = min(MOST, max(FEW, known // ONE_IN), known // 2)
        if len(went_back) > allowed and not self._context.order_rules.accept_restored:
            raise _went_back(self._source, len(went_back), went_back)
        log.error("export_went_back", source=self._source.value, count=len(went_back), ids=went_back[:NAMED])
        for start in range(0, len(went_back), PAGE):
            ids = went_back[start : start + PAGE]
            async with self._context.settlement_uow() as tx:
                await tx.mirror.forget(self._source, ids)
                await store(tx.mirror, [self._older[id_] for id_ in ids if id_ in self._older])
        return len(went_back)

    async def _gone(self) -> list[str]:
        seen = set(self._seen)
        gone: list[str] = []
        after = ""
        while True:
            async with self._context.settlement_uow() as tx:
                ids = await tx.mirror.ids(self._source, before=self._before, after=after, limit=PAGE)
            gone += [id_ for id_ in ids if hash(id_) not in seen]
            if len(ids) < PAGE:
                return gone
            after = ids[-1]


def _went_back(source: Source, count: int, ids: Sequence[str]) -> ExportWentBack:
    log.error("export_refused", source=source.value, count=count, ids=list(ids[:NAMED]))
    return ExportWentBack(f"the export of {source.value} lacks, or has older versions of, {count} that it had before")
