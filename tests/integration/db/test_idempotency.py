"""Idempotency keys: one caller's key on one route stands for one request and one answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.db.idempotency import IdempotencyClaim, IdempotencyStore, StoredAnswer, fingerprint_of
from shared.errors import (
    Conflict,
    DomainError,
    IdempotencyKeyInFlight,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
)
from shared.web.idempotency import answer_once
from tests.integration.messaging.tiny_service import TinyService

KEY = "a-key-of-at-least-16"
REQUEST = {"order_id": "ord_1", "amount": {"amount_minor": 1050, "currency": "USD"}}
ANSWER = StoredAnswer(201, {"payment_id": "pay_1", "client_secret": "canary-secret"}, {"Location": "/pay_1"})


@pytest.fixture
def store(service: TinyService) -> IdempotencyStore:
    return IdempotencyStore(service.database, service.ports)


async def begin(store: IdempotencyStore, request: Any = None, **changes: Any) -> IdempotencyClaim | StoredAnswer:
    values = {"caller": "cus_1", "route": "POST /orders", "key": KEY} | changes
    return await store.begin(**values, fingerprint=fingerprint_of(REQUEST if request is None else request))


async def answered(store: IdempotencyStore, **changes: Any) -> None:
    claim = await begin(store, **changes)
    assert isinstance(claim, IdempotencyClaim)
    await store.complete(claim, ANSWER)


async def test_of_many_requests_at_once_one_proceeds_and_the_others_are_told_to_wait(store: IdempotencyStore) -> None:
    results = await asyncio.gather(*(begin(store) for _ in range(15)), return_exceptions=True)
    assert sum(isinstance(result, IdempotencyClaim) for result in results) == 1
    assert sum(isinstance(result, IdempotencyKeyInFlight) for result in results) == 14


async def test_the_same_request_again_replays_the_answer(store: IdempotencyStore) -> None:
    await answered(store)
    assert await begin(store, {"amount": {"currency": "USD", "amount_minor": 1050}, "order_id": "ord_1"}) == ANSWER


async def test_another_request_under_the_same_key_is_refused(store: IdempotencyStore) -> None:
    await answered(store)
    with pytest.raises(IdempotencyKeyReused) as refusal:
        await begin(store, {"order_id": "ord_2"})
    assert refusal.value.status == 422


async def test_another_request_is_refused_while_the_first_still_runs(store: IdempotencyStore) -> None:
    await begin(store)
    with pytest.raises(IdempotencyKeyReused):
        await begin(store, {"order_id": "ord_2"})


@pytest.mark.parametrize("change", [{"caller": "cus_2"}, {"route": "POST /refunds"}])
async def test_the_key_of_another_caller_or_route_is_another_key(
    store: IdempotencyStore, change: dict[str, str]
) -> None:
    await answered(store)
    assert isinstance(await begin(store, **change), IdempotencyClaim)


async def test_the_claim_of_a_crashed_request_can_be_taken_over_when_its_lock_has_run_out(
    service: TinyService, store: IdempotencyStore
) -> None:
    crashed = await begin(store)
    assert isinstance(crashed, IdempotencyClaim)
    await service.rows("UPDATE idempotency_keys SET locked_until = now() - interval '1 second'")
    results = await asyncio.gather(*(begin(store) for _ in range(5)), return_exceptions=True)
    takers = [result for result in results if isinstance(result, IdempotencyClaim)]
    assert len(takers) == 1
    await store.complete(crashed, StoredAnswer(500, {"late": True}, {}))  # it was only slow, and has lost its claim
    await store.complete(takers[0], ANSWER)
    assert await begin(store) == ANSWER


async def test_a_paused_request_whose_key_was_taken_over_cannot_commit_its_effect(
    service: TinyService, store: IdempotencyStore
) -> None:
    """Failure L11: it went to sleep after its claim, and somebody else has had the effect meanwhile."""
    paused = await begin(store)
    await service.rows("UPDATE idempotency_keys SET locked_until = now() - interval '1 second'")
    successor = await begin(store)
    assert isinstance(paused, IdempotencyClaim)
    assert isinstance(successor, IdempotencyClaim)
    async with service.database.begin() as connection:
        await store.complete(successor, ANSWER, connection=connection)
    with pytest.raises(IdempotencyKeyInFlight):
        async with service.database.begin() as connection:
            await store.complete(paused, ANSWER, connection=connection)


async def test_an_abandoned_claim_is_free_at_once(store: IdempotencyStore) -> None:
    claim = await begin(store)
    assert isinstance(claim, IdempotencyClaim)
    await store.abandon(claim)
    assert isinstance(await begin(store), IdempotencyClaim)


async def test_an_answer_is_not_lost_by_abandoning_afterwards(store: IdempotencyStore) -> None:
    claim = await begin(store)
    assert isinstance(claim, IdempotencyClaim)
    await store.complete(claim, ANSWER)
    await store.abandon(claim)
    assert await begin(store) == ANSWER


async def test_the_table_shows_neither_the_key_nor_the_answer(service: TinyService, store: IdempotencyStore) -> None:
    await answered(store)
    (dump,) = await service.rows("SELECT encode(convert_to(k::text, 'UTF8'), 'escape') AS text FROM idempotency_keys k")
    (raw,) = await service.rows("SELECT sealed_response, key_digest, fingerprint FROM idempotency_keys")
    everything = dump.text.encode() + b"".join(bytes(value) for value in raw)
    for secret in (b"canary", b"client_secret", KEY.encode()):
        assert secret not in everything


async def test_an_answer_that_was_moved_to_another_callers_row_does_not_open(
    service: TinyService, store: IdempotencyStore
) -> None:
    await answered(store)
    await answered(store, caller="cus_2")
    await service.rows(
        "UPDATE idempotency_keys mine SET sealed_response = theirs.sealed_response FROM idempotency_keys theirs "
        "WHERE mine.caller = 'cus_2' AND theirs.caller = 'cus_1'"
    )
    with pytest.raises(AssertionError, match="does not open"):
        await begin(store, caller="cus_2")


@pytest.mark.parametrize(
    "key", ["", "x" * 15, "x" * 65, "a key with spaces in it", "ümlaut-ümlaut-ümlaut", "x" * 16 + "\n"]
)
async def test_a_key_of_another_form_is_invalid(store: IdempotencyStore, key: str) -> None:
    with pytest.raises(IdempotencyKeyInvalid):
        await begin(store, key=key)


@pytest.mark.parametrize("key", ["x" * 16, "Z" * 64, "0123456789_-abcdef"])
async def test_a_key_of_16_to_64_characters_is_accepted(store: IdempotencyStore, key: str) -> None:
    assert isinstance(await begin(store, key=key), IdempotencyClaim)


async def test_an_operation_runs_once_and_its_answer_is_marked_when_replayed(store: IdempotencyStore) -> None:
    runs = 0

    async def operation(_claim: IdempotencyClaim | None) -> StoredAnswer:
        nonlocal runs
        runs += 1
        return ANSWER

    first = await answer_once(store, key=KEY, caller="c", route="r", request=REQUEST, operation=operation)
    again = await answer_once(store, key=KEY, caller="c", route="r", request=REQUEST, operation=operation)
    assert (runs, first.status_code, again.status_code) == (1, 201, 201)
    assert first.body == again.body
    assert "idempotent-replayed" not in first.headers
    assert (again.headers["idempotent-replayed"], again.headers["location"]) == ("true", "/pay_1")


async def test_an_operation_that_failed_may_be_tried_again_at_once(store: IdempotencyStore) -> None:
    refusals: list[DomainError] = [Conflict("not now")]

    async def operation(_claim: IdempotencyClaim | None) -> StoredAnswer:
        if refusals:
            raise refusals.pop()
        return ANSWER

    with pytest.raises(Conflict):
        await answer_once(store, key=KEY, caller="c", route="r", request=REQUEST, operation=operation)
    answer = await answer_once(store, key=KEY, caller="c", route="r", request=REQUEST, operation=operation)
    assert answer.status_code == 201


async def test_without_a_key_an_operation_simply_runs(store: IdempotencyStore) -> None:
    async def operation(claim: IdempotencyClaim | None) -> StoredAnswer:
        assert claim is None
        return ANSWER

    answer = await answer_once(store, key=None, caller="c", route="r", request=REQUEST, operation=operation)
    assert answer.status_code == 201
