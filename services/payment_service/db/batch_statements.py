"""The statements of a batch of webhooks: one that claims and loads, one that writes (ADR 0019, 0022).

Rows are given as JSON, an array for each: columns would be fifty arrays, and this driver looks at every element of an
array several times in Python. They are written in the order in which they are given. An enum of strings is a string.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import asyncpg

from services.payment_service.domain.ledger import Posting
from services.payment_service.domain.models import Fact, ParkedEvent, Payment
from services.payment_service.domain.timeline import TimelineEntry
from services.payment_service.use_cases.recording_ports import Wanted
from shared.db.outbox import adding_events

Found = tuple[int, str, str, str | None, str]
"""What was found by a name: its rank (batch.BY_PAYMENT_ID …), the name, the payment's gateway, account and id."""

_CLAIM_AND_LOAD = """
    SELECT about, payment_id, order_id, gateway, account, amount_minor, currency, capture, method, tolerance_minor,
        status, version, amount_authorized, amount_capture_pending, amount_captured, amount_refund_pending,
        amount_refunded, amount_disputed, amount_dispute_lost, amount_excess, has_unknown_operation, session_unknown,
        authorization_valid_for, capture_before, capture_warned_at, given_up_at, failure_code, conflict,
        gateway_reference, duplicate_of, created_at, updated_at, expires_at, asked_at, has_operations, facts, siblings
    FROM claim_and_load_webhooks($1, $2::jsonb, $3::jsonb)
"""
"""Several statements on the server (migration 0007), so that what is read is what those have left who held the locks.
The first row is about the claims and what was found, the others are payments."""

_OPERATIONS = """
    SELECT operation_id, payment_id, kind, reference, amount_minor, currency, origin, actor, target, is_whole, is_final,
        reason, merchant_reference, request_key, status, call, key_number, calls, looks, gateway_reference,
        failure_code, first_sent_at, last_sent_at, next_look_at, settled_at, escalated_at, created_at, updated_at
    FROM operations WHERE payment_id = ANY($1::text[]) ORDER BY operation_id
"""

# No conflict of a fact is resolved: under the payment's lock there is none, and if there were, the batch would break.
_ADD_FACTS = """
    facts_ AS (
        INSERT INTO payment_facts (payment_id, natural_key, kind, source, object_reference, amount_minor, currency,
            reason, about, operation, capture_before, learnt_by, occurred_at, received_at)
        SELECT row ->> 0, row ->> 1, row ->> 2, row ->> 3, row ->> 4, (row ->> 5)::bigint, row ->> 6,
            row ->> 7, row ->> 8, row ->> 9, (row ->> 10)::timestamptz, row ->> 11, (row ->> 12)::timestamptz,
            (row ->> 13)::timestamptz
        FROM {given})
"""

_SAVE_PAYMENTS = """
    payments_ AS (
        UPDATE payments SET status = row ->> 1, version = (row ->> 2)::int, amount_authorized = (row ->> 3)::bigint,
            amount_capture_pending = (row ->> 4)::bigint, amount_captured = (row ->> 5)::bigint,
            amount_refund_pending = (row ->> 6)::bigint, amount_refunded = (row ->> 7)::bigint,
            amount_disputed = (row ->> 8)::bigint, amount_dispute_lost = (row ->> 9)::bigint,
            amount_excess = (row ->> 10)::bigint, has_unknown_operation = (row ->> 11)::bool,
            session_unknown = (row ->> 12)::bool, capture_before = (row ->> 13)::timestamptz,
            capture_warned_at = (row ->> 14)::timestamptz, given_up_at = (row ->> 15)::timestamptz,
            failure_code = row ->> 16, conflict = row ->> 17, gateway_reference = row ->> 18,
            duplicate_of = row ->> 19, updated_at = (row ->> 20)::timestamptz
        FROM {given} WHERE payments.payment_id = row ->> 0)
"""

_ADD_REFERENCES = """
    references_ AS (
        INSERT INTO payment_references (gateway, account, reference, payment_id)
        SELECT row ->> 0, row ->> 1, row ->> 2, row ->> 3 FROM {given} ON CONFLICT DO NOTHING)
"""

_ADD_ENTRIES = """
    timeline_ AS (
        INSERT INTO payment_timeline (payment_id, at, kind, summary, source, actor, reference, amount_minor, currency,
            request_id, details)
        SELECT row ->> 0, (row ->> 1)::timestamptz, row ->> 2, row ->> 3, row ->> 4, row ->> 5, row ->> 6,
            (row ->> 7)::bigint, row ->> 8, row ->> 9, row -> 10
        FROM {given})
"""

# Entries are numbered first: a join of entries with their lines would be one of each with each.
_POST = """
    entries AS MATERIALIZED (SELECT nextval('ledger_entries_entry_id_seq') AS entry_id, row FROM {given}),
    ledger_entries_ AS (
        INSERT INTO ledger_entries (entry_id, payment_id, payment_version, cause, at) OVERRIDING SYSTEM VALUE
        SELECT entry_id, row ->> 0, (row ->> 1)::int, row ->> 2, (row ->> 3)::timestamptz FROM entries),
    ledger_postings_ AS (
        INSERT INTO ledger_postings (entry_id, line, account, gateway, currency, amount_minor)
        SELECT entry_id, place, line ->> 0, row ->> 4, row ->> 5, (line ->> 1)::bigint
        FROM entries CROSS JOIN LATERAL jsonb_array_elements(row -> 6) WITH ORDINALITY AS lines (line, place))
"""

_PARK = """
    parked_ AS (
        INSERT INTO parked_events (parked_id, gateway, account, delivery_id, event_type, trust, content_type, payload,
            refs, status, received_at)
        SELECT row ->> 0, row ->> 1, row ->> 2, row ->> 3, row ->> 4, row ->> 5, row ->> 6, row ->> 7,
            ARRAY(SELECT jsonb_array_elements_text(row -> 8)), row ->> 9, (row ->> 10)::timestamptz
        FROM {given} ORDER BY row ->> 3 ON CONFLICT DO NOTHING RETURNING 1)
"""

_PARTS: Mapping[str, str] = {
    "facts": _ADD_FACTS,
    "payments": _SAVE_PAYMENTS,
    "references": _ADD_REFERENCES,
    "timeline": _ADD_ENTRIES,
    "ledger": _POST,
    "parked": _PARK,
}


@cache
def writing(parts: tuple[str, ...], *, with_events: bool) -> str:
    """One statement that does these parts and returns how many deliveries were parked. Its arguments are the parts'
    rows, in this order, and then those of ``Outbox.arguments``."""
    done = [
        _PARTS[part].format(given=f"jsonb_array_elements(${place}::jsonb) AS given (row)")
        for place, part in enumerate(parts, 1)
    ]
    if with_events:
        done.append(adding_events(len(parts) + 1))
    parked = "(SELECT count(*) FROM parked_)" if "parked" in parts else "0"
    return f"WITH {','.join(done)} SELECT {parked}"


@dataclass(frozen=True, slots=True)
class Loaded:
    claimed: frozenset[str]
    found: Sequence[Found]
    locked_references: Collection[tuple[str, str]]
    """By (gateway, name): of what was unknown at the first look."""
    payments: Sequence[asyncpg.Record]


class BatchStatements:
    """They run in the transaction that the connection has open."""

    def __init__(self, driver: asyncpg.Connection) -> None:
        self._driver = driver

    async def claim_and_load(self, consumer: str, message_ids: Sequence[str], wanted: Mapping[str, Wanted]) -> Loaded:
        """``wanted``: by message id. From here to its end the transaction waits two seconds at most for any lock."""
        rows = [
            (message_id, each.gateway, each.account, each.references, each.our_references)
            for message_id, each in wanted.items()
        ]
        about, *payments = await self._driver.fetch(
            _CLAIM_AND_LOAD, consumer, json.dumps(message_ids), json.dumps(rows)
        )
        claimed, found, unknown = json.loads(about[0])
        locked = {(gateway, name) for _, gateway, _, theirs, ours in unknown for name in (*theirs, *ours)}
        return Loaded(frozenset(claimed), found, locked, payments)

    async def operations(self, payment_ids: Collection[str]) -> list[asyncpg.Record]:
        return list(await self._driver.fetch(_OPERATIONS, list(payment_ids)))

    async def write(self, rows: Mapping[str, Sequence[Sequence[Any]]], events: Sequence[Any]) -> int:
        """``rows``: of each part. ``events``: what ``Outbox.arguments`` says, or nothing. Returns how many deliveries
        were not parked before."""
        parts = tuple([part for part in _PARTS if rows.get(part)])
        if not parts and not events:
            return 0
        given = [json.dumps(rows[part]) for part in parts]
        parked = await self._driver.fetch(writing(parts, with_events=bool(events)), *given, *events)
        return int(parked[0][0])


def fact_row(payment_id: str, natural_key: str, fact: Fact, learnt_by: str | None) -> tuple[Any, ...]:
    observation = fact.observation
    amount = observation.amount
    return (
        payment_id,
        natural_key,
        observation.kind,
        fact.source,
        observation.object_reference,
        amount.amount_minor if amount else None,
        amount.currency if amount else None,
        observation.reason,
        observation.about,
        observation.operation,
        _moment(observation.capture_before),
        learnt_by,
        _moment(observation.occurred_at),
        _moment(fact.received_at),
    )


def payment_row(payment: Payment) -> tuple[Any, ...]:
    state = payment.state
    return (
        payment.payment_id,
        state.status,
        payment.version,
        state.amount_authorized,
        state.amount_capture_pending,
        state.amount_captured,
        state.amount_refund_pending,
        state.amount_refunded,
        state.amount_disputed,
        state.amount_dispute_lost,
        state.amount_excess,
        state.has_unknown_operation,
        payment.session_unknown,
        _moment(payment.capture_before),
        _moment(payment.capture_warned_at),
        _moment(payment.given_up_at),
        state.failure_code,
        state.conflict,
        payment.gateway_reference,
        payment.duplicate_of,
        _moment(payment.updated_at),
    )


def entry_rows(payment_id: str, entries: Iterable[TimelineEntry]) -> list[tuple[Any, ...]]:
    return [
        (
            payment_id,
            _moment(entry.at),
            entry.kind,
            entry.summary,
            entry.source,
            entry.actor,
            entry.reference,
            entry.amount.amount_minor if entry.amount else None,
            entry.amount.currency if entry.amount else None,
            entry.request_id,
            entry.details,
        )
        for entry in entries
    ]


def ledger_row(payment: Payment, lines: Sequence[Posting], cause: str, at: datetime) -> tuple[Any, ...]:
    amounts = [(line.account, line.amount_minor) for line in lines]
    return (
        payment.payment_id,
        payment.version,
        cause,
        _moment(at),
        payment.gateway,
        payment.terms.amount.currency,
        amounts,
    )


def parked_row(parked: ParkedEvent) -> tuple[Any, ...]:
    return (
        parked.parked_id,
        parked.gateway,
        parked.account,
        parked.delivery_id,
        parked.event_type,
        parked.trust,
        parked.content_type,
        parked.payload,
        parked.references,
        parked.status,
        _moment(parked.received_at),
    )


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
