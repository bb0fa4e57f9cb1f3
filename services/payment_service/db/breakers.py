"""The rows that the replicas share about their circuit breakers: domain/breaker.py's steps, by the database's clock.

Each change locks the row first, so that what it was before is known and its event tells the truth; the event is written
in the same transaction. The conditions in the statements decide, whatever the caller believes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.sql.elements import TextClause

from services.payment_service.domain.breaker import CLOSED, Breaker, BreakerState, OperationClass
from services.payment_service.use_cases.breakers import BREAKERS_CHANNEL, BreakerKey
from shared.contracts.payment_events import GatewayHealthChanged
from shared.db.session import Database
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports

_ALL = text(
    """
    SELECT gateway, operation_class, state, openings, reason, probe_token,
        coalesce(extract(epoch FROM open_until - clock_timestamp()), 0)::float8 AS open_seconds,
        coalesce(extract(epoch FROM probe_until - clock_timestamp()), 0)::float8 AS probe_seconds
    FROM gateway_breakers
    """
)

_LOCK = text(
    """
    SELECT gateway, operation_class, state, openings, reason, probe_token,
        coalesce(extract(epoch FROM open_until - clock_timestamp()), 0)::float8 AS open_seconds,
        coalesce(extract(epoch FROM probe_until - clock_timestamp()), 0)::float8 AS probe_seconds
    FROM gateway_breakers WHERE gateway = :gateway AND operation_class = :operation_class FOR UPDATE
    """
)

_OPEN = text(
    """
    INSERT INTO gateway_breakers AS kept
        (gateway, operation_class, state, openings, reason, open_until, changed_at)
    VALUES (:gateway, :operation_class, 'open', :openings, :reason, now() + make_interval(secs => :seconds), now())
    ON CONFLICT (gateway, operation_class) DO UPDATE SET
        state = 'open', openings = excluded.openings, reason = excluded.reason, open_until = excluded.open_until,
        probe_token = NULL, probe_until = NULL, changed_at = excluded.changed_at
    WHERE kept.state = 'closed'
    """
)

_TAKE_PROBE = text(
    """
    UPDATE gateway_breakers SET
        state = 'half_open', probe_token = :token, probe_until = now() + make_interval(secs => :seconds),
        changed_at = CASE state WHEN 'open' THEN now() ELSE changed_at END
    WHERE gateway = :gateway AND operation_class = :operation_class
      AND ((state = 'open' AND open_until <= now()) OR (state = 'half_open' AND probe_until <= now()))
    """
)

_CLOSE = text(
    """
    UPDATE gateway_breakers SET
        state = 'closed', openings = 0, reason = NULL, open_until = NULL, probe_token = NULL, probe_until = NULL,
        changed_at = now()
    WHERE gateway = :gateway AND operation_class = :operation_class AND state = 'half_open' AND probe_token = :token
    """
)

_REOPEN = text(
    """
    UPDATE gateway_breakers SET
        state = 'open', openings = openings + 1, reason = :reason, probe_token = NULL, probe_until = NULL,
        open_until = now() + make_interval(secs => :seconds), changed_at = now()
    WHERE gateway = :gateway AND operation_class = :operation_class AND state = 'half_open' AND probe_token = :token
    """
)

_GIVE_BACK = text(
    """
    UPDATE gateway_breakers SET probe_token = NULL, probe_until = now()
    WHERE gateway = :gateway AND operation_class = :operation_class AND state = 'half_open' AND probe_token = :token
    """
)


class StoredBreakers:
    """Each method is a small transaction of its own: a breaker is no part of any payment's change."""

    def __init__(self, database: Database, ports: Ports) -> None:
        self._uow = UnitOfWork(database, lambda each: Transaction(each, service="payment_service", ports=ports))

    async def load(self) -> Mapping[BreakerKey, Breaker]:
        async with self._uow() as tx:
            rows = (await tx.connection.execute(_ALL)).mappings().all()
        return {BreakerKey(row["gateway"], OperationClass(row["operation_class"])): _breaker(row) for row in rows}

    async def open(self, key: BreakerKey, *, openings: int, reason: str, seconds: float) -> Breaker:
        return await self._change(key, _OPEN, openings=openings, reason=reason, seconds=float(seconds))

    async def take_probe(self, key: BreakerKey, *, token: str, seconds: float) -> Breaker:
        return await self._change(key, _TAKE_PROBE, token=token, seconds=float(seconds))

    async def close(self, key: BreakerKey, *, token: str) -> Breaker:
        return await self._change(key, _CLOSE, token=token)

    async def reopen(self, key: BreakerKey, *, token: str, reason: str, seconds: float) -> Breaker:
        return await self._change(key, _REOPEN, token=token, reason=reason, seconds=float(seconds))

    async def give_back(self, key: BreakerKey, *, token: str) -> Breaker:
        return await self._change(key, _GIVE_BACK, token=token)

    async def _change(self, key: BreakerKey, statement: TextClause, **values: Any) -> Breaker:
        named = {"gateway": key.gateway, "operation_class": key.operation_class.value}
        async with self._uow() as tx:
            before = await _locked(tx, named)
            changed = (await tx.connection.execute(statement, named | values)).rowcount
            after = await _locked(tx, named)
            if changed:
                tx.hint(BREAKERS_CHANNEL)
                if after.state is not before.state:
                    await tx.outbox.add(_event(key, before, after), subject=key.gateway)
        return after


async def _locked(tx: Transaction, named: Mapping[str, str]) -> Breaker:
    row = (await tx.connection.execute(_LOCK, named)).mappings().one_or_none()
    return CLOSED if row is None else _breaker(row)


def _breaker(row: RowMapping) -> Breaker:
    return Breaker(
        state=BreakerState(row["state"]),
        openings=row["openings"],
        reason=row["reason"],
        open_until=row["open_seconds"],
        probe_until=row["probe_seconds"],
        probe_token=row["probe_token"],
    )


def _event(key: BreakerKey, before: Breaker, after: Breaker) -> GatewayHealthChanged:
    is_open = after.state is BreakerState.OPEN
    return GatewayHealthChanged(
        gateway=key.gateway,
        operation_class=key.operation_class.value,
        state=after.state.value,
        previous_state=before.state.value,
        reason=after.reason,
        retry_after_seconds=max(0, math.ceil(after.open_until)) if is_open else None,
    )
