"""Pruning one table: a walk through its rows in the order of a key that grows with time, a small batch at a time.

A table is read through the index of that key, so a batch costs the same whether ten thousand rows are stored or ten
million; nothing here scans a table, and no index exists for pruning only. What is due is deleted, or emptied where the
row itself has to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial, reduce

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_TRANSACTION_SECONDS = 2.0
"""Beyond any batch that the pace allows: what lasts longer is stopped, and the next one is smaller."""

LOCK_WAIT_SECONDS = 0.1
"""Rows that somebody holds are skipped; this bounds the wait for what cannot be skipped (a migration's table lock)."""


@dataclass(frozen=True)
class Walk:
    """What is pruned of one table. All texts are SQL of ours.

    ``name``: of the table, or of the part of it that ``where`` (the condition of a partial index) leaves.
    ``key``: names and types of the columns of an index whose order is (nearly) that of time. ``at``: the time of a row;
    a window in which every row is younger than the limit ends the walk. ``due``: which rows go; it may use ``:before``.
    """

    name: str
    table: str
    key: tuple[tuple[str, str], ...]
    at: str
    due: str
    keep: timedelta
    where: str | None = None
    assign: str | None = None
    """Instead of deleting: SET these. Then ``gone`` says which rows have had it, and the walk goes on where the last
    one stopped, because those rows stay where they are."""
    gone: str = "false"
    group: str | None = None
    """The index's first column, where it does not grow with time: each of its values is walked by itself."""
    by_database_clock: bool = True
    """Whether ``at`` was written by PostgreSQL's clock (``now()``) or by the service's."""
    tells_newest: bool = False
    """Remember the newest key that was deleted, for readers who must learn that they come too late."""

    @property
    def starts_at_mark(self) -> bool:
        return self.assign is not None

    def window(self, *, is_first: bool) -> TextClause:
        """The next rows by the key. Keys travel as text, so that a mark can be stored whatever their types."""
        names = ", ".join(name for name, _ in self.key)
        values = ", ".join(f"CAST(CAST(:key_{n} AS text) AS {kind})" for n, (_, kind) in enumerate(self.key))
        conditions = [self.where] if self.where is not None else []
        if not is_first:
            conditions.append(f"({names}) > ({values})")
        if self.group is not None:
            conditions.append(f"{self.group} = :group")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        # Under names of their own: ORDER BY would otherwise mean the text.
        keys = ", ".join(f"CAST({name} AS text) AS text_{n}" for n, (name, _) in enumerate(self.key))
        return text(
            f"""
            SELECT CAST(ctid AS text) AS place, {self.at} AS at, ({self.due}) AS due, ({self.gone}) AS gone, {keys}
            FROM {self.table} {where} ORDER BY {names} LIMIT :limit
            """  # noqa: S608 - names of ours
        )

    @cached_property
    def next_group(self) -> TextClause:
        return text(
            f"""
            SELECT {self.group} FROM {self.table}
            WHERE {self.group} > coalesce(CAST(:after AS text), '') ORDER BY {self.group} LIMIT 1
            """  # noqa: S608
        )

    @cached_property
    def prune(self) -> TextClause:
        """By the rows' places, which needs no index. A place may hold another row by now: what is due is asked again,
        under the row's lock; a row that somebody else has locked is left for the next walk."""
        lock = "UPDATE" if self.assign is None else "NO KEY UPDATE"  # a new row may point to one that is emptied
        change = f"DELETE FROM {self.table}"  # noqa: S608
        if self.assign is not None:
            change = f"UPDATE {self.table} SET {self.assign}"  # noqa: S608
        keys = ", ".join(f"CAST({name} AS text)" for name, _ in self.key)
        return text(
            f"""
            {change} WHERE ctid = ANY(ARRAY(
                SELECT ctid FROM {self.table} WHERE ctid = ANY(CAST(CAST(:places AS text[]) AS tid[])) AND ({self.due})
                FOR {lock} SKIP LOCKED))
            RETURNING {keys}
            """  # noqa: S608
        )


Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk is: behind ``key`` (None: at the beginning) of ``group``."""

    group: str | None = None
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one window."""

    looked_at: int
    pruned: int
    position: Position
    is_last: bool
    oldest_kept: datetime | None
    """The time of the first row that stays."""
    newest_pruned: Key | None
    is_whole: bool
    """Nothing that was old enough was left behind, so the next walk may begin here."""


async def prepare(connection: AsyncConnection) -> None:
    """Bounds for a transaction that prunes, and plans that go by the index whatever the statistics say.

    The plan is made for the values at hand: a plan for any LIMIT would take a tenth of the table for its result.
    """
    settings = {
        "lock_timeout": f"{int(LOCK_WAIT_SECONDS * 1000)}ms",
        "statement_timeout": f"{int(MAX_TRANSACTION_SECONDS * 1000)}ms",
        "plan_cache_mode": "force_custom_plan",
        "enable_seqscan": "off",
    }
    statement = text(
        "SELECT set_config(name, value, true)"
        " FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS setting (name, value)"
    )
    await connection.execute(statement, {"names": list(settings), "values": list(settings.values())})


async def begin_walk(connection: AsyncConnection, walk: Walk, mark: Key | None) -> Position | None:
    """Where to start; None if there is nothing at all."""
    if walk.group is None:
        return Position(key=mark if walk.starts_at_mark else None)
    return await _group_after(connection, walk, None)


async def _group_after(connection: AsyncConnection, walk: Walk, group: str | None) -> Position | None:
    found = (await connection.execute(walk.next_group, {"after": group})).scalar()
    return None if found is None else Position(group=found)


async def prune_batch(
    connection: AsyncConnection, walk: Walk, position: Position, *, before: datetime, limit: int, dry_run: bool = False
) -> Batch:
    """Look at the next ``limit`` rows and prune those that are due, in the open transaction. A dry run counts them."""
    values: dict[str, object] = {"limit": limit, "before": before}
    values |= {f"key_{number}": part for number, part in enumerate(position.key or ())}
    if walk.group is not None:
        values["group"] = position.group
    rows = (await connection.execute(walk.window(is_first=position.key is None), values)).all()
    due = [row for row in rows if row.due]
    pruned: Sequence[Key] = [tuple(row[4:]) for row in due]
    if due and not dry_run:
        values = {"places": [row.place for row in due], "before": before}
        pruned = [tuple(row) for row in await connection.execute(walk.prune, values)]
    gone = set(pruned)
    kept = [row.at for row in rows if not row.gone and tuple(row[4:]) not in gone]
    end = len(rows) < limit or all(row.at >= before for row in rows)
    here = Position(position.group, tuple(rows[-1][4:]) if rows else position.key)
    following = await _group_after(connection, walk, position.group) if end and walk.group is not None else None
    return Batch(
        looked_at=len(rows),
        pruned=len(pruned),
        position=following or here,
        is_last=end and following is None,
        oldest_kept=kept[0] if kept else None,
        newest_pruned=reduce(partial(newer, walk), gone, None),
        is_whole=not any(at < before for at in kept),
    )


def newer(walk: Walk, one: Key | None, other: Key | None) -> Key | None:
    """The later of two keys in the walk's order; numbers are compared as numbers."""
    if one is None or other is None:
        return one or other
    numbers = [kind == "bigint" for _, kind in walk.key]

    def order(key: Key) -> list[int | str]:
        return [int(part) if number else part for part, number in zip(key, numbers, strict=True)]

    return max(one, other, key=order)
