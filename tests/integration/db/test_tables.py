"""Outbox, inbox and leases under concurrency: what the money rests on."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import text

from shared.contracts.envelope import EventEnvelope
from shared.db.inbox import dead_messages
from shared.db.leases import acquire_lease, holds_lease, release_lease
from shared.db.outbox import backlog, events_after
from shared.unit_of_work import InboxClaim
from tests.integration.messaging.tiny_service import TinyService, a_capture, an_order_paid


async def test_fifty_writers_at_once_get_a_sequence_without_gaps(service: TinyService) -> None:
    await asyncio.gather(*(service.announce(a_capture("pay_1")) for _ in range(50)))
    rows = await service.rows("SELECT sequence, body FROM outbox_messages ORDER BY sequence")
    assert [row.sequence for row in rows] == list(range(1, 51))
    assert all(EventEnvelope.from_json(bytes(row.body)).sequence == row.sequence for row in rows)


async def test_a_rolled_back_event_leaves_no_gap(service: TinyService) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with service.uow() as tx:
            await tx.outbox.add(a_capture(), subject="pay_1")
            raise ZeroDivisionError
    await service.announce(a_capture())
    assert [row.sequence for row in await service.waiting()] == [1]


async def test_a_subject_whose_first_event_was_written_by_hand_goes_on_from_there(service: TinyService) -> None:
    async with service.uow() as tx:
        first = await tx.outbox.add(a_capture(), subject="pay_1", first_sequence=2)
        second = await tx.outbox.add(a_capture(), subject="pay_1", first_sequence=2)
    assert (first.sequence, second.sequence) == (2, 3)


async def test_the_backlog_tells_number_and_age(service: TinyService) -> None:
    async with service.database.begin() as connection:
        assert (await backlog(connection)).waiting == 0
    await service.announce_captures(3)
    await service.rows("UPDATE outbox_messages SET created_at = now() - interval '90 seconds' WHERE position = 1")
    async with service.database.begin() as connection:
        measured = await backlog(connection)
    assert measured.waiting == 3
    assert 89 < measured.oldest_age_seconds < 120


async def catch_up(service: TinyService, cursor: tuple[int, int]) -> tuple[list[str], tuple[int, int]]:
    async with service.database.begin() as connection:
        rows = await events_after(connection, transaction_id=cursor[0], position=cursor[1], types=None, limit=100)
    return [json.loads(body)["id"] for _, _, body in rows], rows[-1][:2] if rows else cursor


async def test_catching_up_never_steps_over_a_transaction_that_commits_late(service: TinyService) -> None:
    cursor, seen = (0, 0), []
    async with service.uow() as slow:
        late = await slow.outbox.add(a_capture("pay_slow"), subject="pay_slow")
        quick = await service.announce(a_capture("pay_quick"))  # a higher position, committed first
        ids, cursor = await catch_up(service, cursor)
        seen += ids
        assert seen == []  # the quick one has to wait for the slow one, or the slow one would be missed
    ids, cursor = await catch_up(service, cursor)
    seen += ids
    assert seen == [late.id, *quick]
    assert await catch_up(service, cursor) == ([], cursor)


async def test_catching_up_in_pages_sees_each_event_once(service: TinyService) -> None:
    announced: list[str] = []
    for _ in range(5):
        announced += await service.announce_captures(3)
    seen: list[str] = []
    cursor = (0, 0)
    while True:
        async with service.database.begin() as connection:
            rows = await events_after(connection, transaction_id=cursor[0], position=cursor[1], types=None, limit=4)
        if not rows:
            break
        seen += [json.loads(body)["id"] for _, _, body in rows]
        cursor = rows[-1][:2]
    assert seen == announced


async def test_catching_up_gives_only_the_types_asked_for(service: TinyService) -> None:
    await service.announce(a_capture())
    (paid,) = await service.announce(an_order_paid())
    async with service.database.begin() as connection:
        rows = await events_after(connection, transaction_id=0, position=0, types=["order.paid.v1"], limit=9)
    assert [json.loads(body)["id"] for _, _, body in rows] == [paid]


async def test_of_many_claims_at_once_one_succeeds(service: TinyService) -> None:
    claim = InboxClaim("testing.payments", "evt_1")

    async def attempt() -> bool:
        async with service.uow() as tx:
            return await tx.inbox.claim(claim)

    assert sorted(await asyncio.gather(*(attempt() for _ in range(15)))) == [False] * 14 + [True]


async def test_a_claim_that_rolled_back_can_be_made_again(service: TinyService) -> None:
    claim = InboxClaim("testing.payments", "evt_1")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with service.uow() as tx:
            assert await tx.inbox.claim(claim)
            raise ZeroDivisionError
    async with service.uow() as tx:
        assert await tx.inbox.claim(claim)


async def test_each_consumer_claims_for_itself(service: TinyService) -> None:
    async with service.uow() as tx:
        assert await tx.inbox.claim(InboxClaim("one", "evt_1"))
        assert await tx.inbox.claim(InboxClaim("other", "evt_1"))
        assert not await tx.inbox.claim(InboxClaim("one", "evt_1"))


async def test_a_dead_message_that_is_driven_again_is_claimed_and_its_copy_is_removed(service: TinyService) -> None:
    await service.rows(
        "INSERT INTO inbox_messages (consumer, message_id, status, attempts, body) "
        "VALUES ('c', 'evt_1', 'dead', 8, 'x')"
    )
    async with service.database.begin() as connection:
        assert [row[:3] for row in await dead_messages(connection, limit=10)] == [("c", "evt_1", 8)]
    async with service.uow() as tx:
        assert await tx.inbox.claim(InboxClaim("c", "evt_1"))
    row = await service.inbox("evt_1")
    assert (row.status, row.body) == ("done", None)


async def lease(service: TinyService, holder: str, seconds: float = 60) -> int | None:
    async with service.database.begin() as connection:
        return await acquire_lease(connection, name="sweep", holder=holder, seconds=seconds)


async def test_a_lease_has_one_holder_who_may_renew_it(service: TinyService) -> None:
    assert await lease(service, "one") == 1
    assert await lease(service, "other") is None
    assert await lease(service, "one") == 1


async def test_of_many_who_want_a_lease_at_once_one_gets_it(service: TinyService) -> None:
    tokens = await asyncio.gather(*(lease(service, f"runner {number}") for number in range(12)))
    assert [token for token in tokens if token is not None] == [1]


async def test_a_lease_that_ran_out_is_taken_over_and_its_old_holder_is_fenced_off(service: TinyService) -> None:
    old = await lease(service, "paused", seconds=0)
    new = await lease(service, "successor")
    assert (old, new) == (1, 2)
    assert await lease(service, "paused") is None
    async with service.database.begin() as connection:
        assert not await holds_lease(connection, name="sweep", fencing_token=1)
        assert await holds_lease(connection, name="sweep", fencing_token=2)


async def test_a_lease_that_is_given_back_is_free_at_once(service: TinyService) -> None:
    await lease(service, "one")
    async with service.database.begin() as connection:
        await release_lease(connection, name="sweep", holder="other")
    assert await lease(service, "other") is None
    async with service.database.begin() as connection:
        await release_lease(connection, name="sweep", holder="one")
    assert await lease(service, "other") == 2


async def test_a_successor_cannot_take_over_while_the_holder_records_under_its_token(service: TinyService) -> None:
    token = await lease(service, "one", seconds=0)
    assert token is not None
    async with service.database.begin() as connection:
        assert await holds_lease(connection, name="sweep", fencing_token=token)
        taking = asyncio.create_task(lease(service, "other"))
        await connection.execute(text("SELECT pg_sleep(0.1)"))
        assert not taking.done()
    assert await taking == 2
