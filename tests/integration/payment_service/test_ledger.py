"""The sub-ledger on a real PostgreSQL: what it refuses, what it answers, and that a difference is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from services.payment_service.domain.ledger import Account, Posting, postings
from services.payment_service.domain.models import PaymentState, PaymentStatus
from services.payment_service.use_cases.check_ledger import MAX_CHANGES, LedgerWatch, check_ledger
from services.payment_service.worker import run_worker
from shared.clock import to_rfc3339
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.waiting import until

HELD = PaymentState(PaymentStatus.AUTHORIZED, amount_authorized=1999)
CAPTURED = PaymentState(PaymentStatus.CAPTURED, amount_authorized=1999, amount_captured=1999)
REFUNDING = replace(CAPTURED, amount_refund_pending=500)
REFUNDED = replace(CAPTURED, amount_refunded=500)
DISPUTED = replace(REFUNDED, amount_disputed=1000)
LOST = replace(DISPUTED, amount_dispute_lost=1000)

WITHOUT_TRIGGERS = text("SET LOCAL session_replication_role = replica")


async def go(world: World, payment_id: str, *states: PaymentState, lines: Sequence[Posting] | None = None) -> None:
    """Take a payment through states, each in a transaction of its own, as record_facts does."""
    for state in states:
        async with world.container.context.uow() as tx:
            before = await tx.payments.get_for_update(payment_id)
            assert before is not None
            after = replace(before, state=state, version=before.version + 1)
            await tx.payments.save(after)
            posted = postings(before.state, state) if lines is None else lines
            await tx.ledger.post(after, posted, cause="webhook", at=world.clock.now())


async def by_hand(world: World, sql: str, **values: Any) -> None:
    """As somebody would who may do everything: without triggers and foreign keys."""
    async with world.container.database.begin() as connection:
        await connection.execute(WITHOUT_TRIGGERS)
        await connection.execute(text(sql), values)


async def ask(world: World, path: str, **params: Any) -> dict[str, Any]:
    answer = await world.http.get(f"/api/v1/ledger{path}", params=params, headers=world.token("payments:read"))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def balances(world: World, **params: Any) -> dict[str, int]:
    answer = await ask(world, "/balances", **params)
    assert all(total["amount_minor"] == 0 for total in answer["trial_balance"])
    return {each["account"]: each["balance"]["amount_minor"] for each in answer["data"]}


def imbalance(kind: str) -> float | None:
    return REGISTRY.get_sample_value("payrail_ledger_imbalance", {"kind": kind})


# --- what the database refuses -------------------------------------------------------------------------------------


async def test_an_entry_that_does_not_sum_to_zero_is_refused_at_its_commit(world: World) -> None:
    payment = await world.opened()
    await go(world, payment["payment_id"], CAPTURED)
    line = "INSERT INTO ledger_postings VALUES (:entry, 9, 'payouts', 'generic', :currency, :amount)"
    entry = (await world.rows("SELECT entry_id FROM ledger_entries"))[0]["entry_id"]
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):
        await world.run(line, entry=entry, currency="EUR", amount=1)
    with pytest.raises(asyncpg.CheckViolationError, match="does not sum to zero"):  # what one currency lacks
        await world.run(
            "INSERT INTO ledger_postings VALUES (:entry, 8, 'payouts', 'generic', 'USD', -1),"
            "(:entry, 9, 'payouts', 'generic', 'EUR', 1)",
            entry=entry,
        )
    assert len(await world.rows("SELECT * FROM ledger_postings")) == 2


async def test_lines_may_be_written_one_after_the_other_within_a_transaction(world: World) -> None:
    payment = await world.opened()
    await go(world, payment["payment_id"], CAPTURED)
    async with world.container.database.begin() as connection:
        for line, amount in ((8, 70), (9, -70)):
            await connection.execute(
                text(
                    f"INSERT INTO ledger_postings SELECT entry_id, {line}, 'payouts', 'generic', 'EUR', {amount} "
                    "FROM ledger_entries"
                )
            )
    assert len(await world.rows("SELECT * FROM ledger_postings")) == 4


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_postings SET amount_minor = -amount_minor",
        "DELETE FROM ledger_postings",
        "UPDATE ledger_entries SET cause = 'another'",
        "DELETE FROM ledger_entries",
    ],
)
async def test_what_was_booked_is_never_changed_or_deleted(world: World, change: str) -> None:
    payment = await world.opened()
    await go(world, payment["payment_id"], CAPTURED)
    with pytest.raises(IntegrityError, match="never changed or deleted"):
        await world.run(change)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("'petty_cash', 'generic', 'EUR', 1", "account_known"),
        ("'payouts', 'generic', 'EUR', 0", "posting_not_zero"),
        ("'payouts', NULL, 'EUR', 1", "gateway"),
    ],
)
async def test_a_line_cannot_be_nonsense(world: World, values: str, constraint: str) -> None:
    payment = await world.opened()
    await go(world, payment["payment_id"], CAPTURED)
    with pytest.raises(IntegrityError, match=constraint):
        await world.run(f"INSERT INTO ledger_postings SELECT entry_id, 9, {values} FROM ledger_entries")


async def test_lines_that_do_not_sum_to_zero_are_our_bug(world: World) -> None:
    payment = await world.opened()
    with pytest.raises(AssertionError, match="sums to zero"):
        await go(world, payment["payment_id"], CAPTURED, lines=[Posting(Account.PAYOUTS, 1)])
    assert await world.rows("SELECT * FROM ledger_entries") == []


async def test_nothing_to_post_is_no_entry(world: World) -> None:
    payment = await world.opened()
    await go(world, payment["payment_id"], PaymentState(PaymentStatus.PROCESSING))
    assert await world.rows("SELECT * FROM ledger_entries") == []


# --- what it answers -----------------------------------------------------------------------------------------------


async def test_balances_follow_a_payment_through_its_life(world: World) -> None:
    payment_id = (await world.opened())["payment_id"]
    assert await balances(world) == {}
    await go(world, payment_id, HELD)
    assert await balances(world) == {"authorizations_due": -1999, "authorizations_held": 1999}
    held_until = world.clock.now()
    await go(world, payment_id, CAPTURED, REFUNDING)
    assert await balances(world) == {
        "authorizations_due": 0,
        "authorizations_held": 0,
        "customer_payments": -1499,
        "gateway_receivable": 1999,
        "refunds_pending": -500,
    }
    await go(world, payment_id, REFUNDED, DISPUTED, LOST, replace(LOST, amount_excess=7))
    assert await balances(world) == {
        "authorizations_due": 0,
        "authorizations_held": 0,
        "customer_payments": -1499,
        "dispute_losses": 1000,
        "disputes_withheld": 0,
        "gateway_receivable": 492,
        "refunds_pending": 0,
        "returned_in_excess": 7,
    }
    then = await balances(world, at=to_rfc3339(held_until))
    assert then == {"authorizations_due": -1999, "authorizations_held": 1999}


async def test_balances_are_kept_apart_by_gateway_and_currency(world: World) -> None:
    euros, dinars = await world.opened(), await world.opened(amount={"amount_minor": 12500, "currency": "KWD"})
    await go(world, euros["payment_id"], CAPTURED)
    await go(world, dinars["payment_id"], replace(CAPTURED, amount_authorized=12500, amount_captured=12500))
    answer = await ask(world, "/balances")
    assert [(each["account"], each["gateway"], each["balance"]) for each in answer["data"]] == [
        ("customer_payments", "generic", {"amount_minor": -1999, "currency": "EUR"}),
        ("gateway_receivable", "generic", {"amount_minor": 1999, "currency": "EUR"}),
        ("customer_payments", "generic", {"amount_minor": -12500, "currency": "KWD"}),
        ("gateway_receivable", "generic", {"amount_minor": 12500, "currency": "KWD"}),
    ]
    assert answer["trial_balance"] == [{"amount_minor": 0, "currency": each} for each in ("EUR", "KWD")]
    assert answer["at"].endswith("Z")
    assert await balances(world, currency="KWD") == {"customer_payments": -12500, "gateway_receivable": 12500}
    assert await balances(world, gateway="generic", currency="USD") == {}
    assert await balances(world, gateway="stripe") == {}


async def test_a_trial_balance_that_is_not_zero_is_told_and_not_hidden(world: World) -> None:
    await go(world, (await world.opened())["payment_id"], CAPTURED)
    await by_hand(world, "UPDATE ledger_postings SET amount_minor = 2000 WHERE amount_minor > 0")
    answer = await ask(world, "/balances")
    assert answer["trial_balance"] == [{"amount_minor": 1, "currency": "EUR"}]


async def test_entries_tell_what_was_posted_newest_first(world: World) -> None:
    payment_id = (await world.opened())["payment_id"]
    await go(world, payment_id, HELD, CAPTURED)
    captured, held = (await ask(world, "/entries"))["data"]
    assert captured["postings"] == [
        {"account": account, "gateway": "generic", "amount": {"amount_minor": amount, "currency": "EUR"}}
        for account, amount in (
            ("authorizations_held", -1999),
            ("authorizations_due", 1999),
            ("gateway_receivable", 1999),
            ("customer_payments", -1999),
        )
    ]
    assert (captured["payment_id"], captured["cause"]) == (payment_id, "webhook")
    assert captured["payment_version"] == held["payment_version"] + 1
    assert captured["at"].endswith("Z")


async def test_entries_can_be_filtered(world: World) -> None:
    first, second = (await world.opened())["payment_id"], (await world.opened())["payment_id"]
    await go(world, first, HELD, CAPTURED)
    await go(world, second, CAPTURED)

    async def payments(**params: Any) -> list[str]:
        return [entry["payment_id"] for entry in (await ask(world, "/entries", **params))["data"]]

    assert await payments(payment_id=first) == [first, first]
    assert await payments(payment_id="pay_nobody") == []
    assert await payments(account="customer_payments") == [second, first]
    assert await payments(account="authorizations_held") == [first, first]
    assert await payments(account="authorizations_held", payment_id=second) == []
    assert await payments(gateway="generic") == [second, first, first]
    assert await payments(gateway="stripe") == []


async def test_entries_come_in_pages_that_miss_and_repeat_nothing(world: World) -> None:
    payment_id = (await world.opened())["payment_id"]
    await go(world, payment_id, HELD, CAPTURED, REFUNDING, REFUNDED, DISPUTED)
    seen, cursor = [], None
    for expected in (2, 2, 1):
        page = await ask(world, "/entries", limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["data"]) == expected
        seen += [entry["entry_id"] for entry in page["data"]]
        cursor = page["next_cursor"]
        await go(world, payment_id, replace(DISPUTED, amount_excess=len(seen)))  # what is new comes before
    assert cursor is None
    assert seen == sorted(seen, key=int, reverse=True)
    assert len(set(seen)) == 5


@pytest.mark.parametrize("path", ["/balances", "/entries"])
async def test_who_may_read_the_ledger(world: World, path: str) -> None:
    url = f"/api/v1/ledger{path}"
    assert (await world.http.get(url)).status_code == 401
    assert (await world.http.get(url, headers=world.token("payments:write orders:read"))).status_code == 403
    assert (await world.http.get(url, headers=world.token("payments:read"))).status_code == 200


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/balances", {"at": "yesterday"}),
        ("/balances", {"at": "1767323045"}),
        ("/balances", {"at": "2026-01-02T03:04:05"}),
        ("/balances", {"at": "0001-01-01T00:00:00+10:00"}),
        ("/balances", {"at": "9999-12-31T23:59:59-10:00"}),
        ("/balances", {"currency": "eur"}),
        ("/balances", {"gateway": "a\x00b"}),
        ("/entries", {"account": "petty_cash"}),
        ("/entries", {"cursor": "x"}),
        ("/entries", {"cursor": "9" * 19}),
        ("/entries", {"cursor": "0"}),
        ("/entries", {"payment_id": "pay_\x00"}),
        ("/entries", {"limit": "0"}),
        ("/entries", {"limit": "201"}),
    ],
)
async def test_nonsense_is_refused(world: World, path: str, params: dict[str, str]) -> None:
    answer = await world.http.get(f"/api/v1/ledger{path}", params=params, headers=world.token("payments:read"))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


# --- that it is checked --------------------------------------------------------------------------------------------


async def checked(world: World, watch: LedgerWatch) -> tuple[float | None, float | None]:
    """The metric after one round: entries that do not balance, payments that do not tie."""
    assert await check_ledger(watch, world.container.context) is False
    return imbalance("trial_balance"), imbalance("payment")


async def test_what_was_posted_by_the_book_ties(world: World) -> None:
    watch = LedgerWatch()
    assert await checked(world, watch) == (0, 0)
    payment_id = (await world.opened())["payment_id"]
    for state in (HELD, CAPTURED, REFUNDING, REFUNDED, DISPUTED, LOST):
        await go(world, payment_id, state)
        assert await checked(world, watch) == (0, 0)


async def test_the_check_in_sql_and_the_postings_in_python_are_the_same(world: World) -> None:
    """For any totals: what ``postings`` books ties, and a minor unit more or less in any account does not."""
    chance = random.Random(20260102)
    payment_ids = [(await world.opened())["payment_id"] for _ in range(12)]
    for payment_id in payment_ids:
        for _ in range(chance.randint(1, 4)):
            await go(world, payment_id, _any_state(chance))
    async with world.container.context.uow() as tx:
        assert await tx.ledger.untied_payments(payment_ids, limit=100) == []
    wrong = {}
    for account, payment_id in zip(Account, payment_ids, strict=False):
        other = Account.PAYOUTS if account is not Account.PAYOUTS else Account.GATEWAY_FEES
        payment = await world.see(payment_id)
        lines = [Posting(account, 1), Posting(other, -1)]
        async with world.container.context.uow() as tx:
            stored = await tx.payments.get(payment_id)
            assert stored is not None
            await tx.ledger.post(stored, lines, cause="webhook", at=world.clock.now())
        wrong[payment["payment_id"]] = account
    async with world.container.context.uow() as tx:
        assert await tx.ledger.untied_payments(payment_ids, limit=100) == sorted(wrong)
        assert len(await tx.ledger.untied_payments(payment_ids, limit=3)) == 3


def _any_state(chance: random.Random) -> PaymentState:
    captured = chance.randint(0, 3000)
    disputed = chance.randint(0, captured)
    refunded = chance.randint(0, captured - disputed)
    return PaymentState(
        PaymentStatus.PARTIALLY_CAPTURED,
        amount_authorized=captured + chance.choice((0, chance.randint(0, 2000))),
        amount_captured=captured,
        amount_refunded=refunded,
        amount_refund_pending=chance.randint(0, captured - disputed - refunded),
        amount_disputed=disputed,
        amount_dispute_lost=chance.choice((0, disputed, chance.randint(0, disputed))),
        amount_excess=chance.choice((0, chance.randint(0, 900))),
    )


async def test_a_change_of_totals_without_its_posting_is_found_and_told_until_it_is_mended(world: World) -> None:
    watch, payment_id = LedgerWatch(), (await world.opened())["payment_id"]
    await go(world, payment_id, CAPTURED)
    assert await checked(world, watch) == (0, 0)
    await go(world, payment_id, REFUNDED, lines=())  # our bug
    with capture_logs() as logs:
        assert await checked(world, watch) == (0, 1)
        assert await checked(world, watch) == (0, 1)
    assert [(log["event"], log["payment_ids"]) for log in logs] == [("ledger_imbalance", [payment_id])]
    await go(world, payment_id, REFUNDED, lines=postings(CAPTURED, REFUNDED))
    with capture_logs() as logs:
        assert await checked(world, watch) == (0, 0)
    assert [log["event"] for log in logs] == ["ledger_balanced_again"]


@pytest.mark.parametrize(
    ("sown", "found"),
    [
        ("UPDATE ledger_postings SET amount_minor = amount_minor + 1 WHERE amount_minor > 0", (1, 1)),
        ("DELETE FROM ledger_postings WHERE amount_minor > 0", (1, 1)),
        ("DELETE FROM ledger_postings", (0, 1)),
        ("UPDATE ledger_postings SET amount_minor = amount_minor * 2", (0, 1)),
        ("UPDATE ledger_postings SET gateway = 'stripe'", (0, 1)),
        ("UPDATE ledger_postings SET gateway = 'stripe' WHERE amount_minor > 0", (1, 1)),
        ("UPDATE ledger_postings SET currency = 'USD'", (0, 1)),
        ("UPDATE ledger_postings SET account = 'payouts' WHERE amount_minor > 0", (0, 1)),
        ("UPDATE ledger_entries SET payment_id = 'pay_other'", (0, 1)),
        ("INSERT INTO ledger_postings SELECT entry_id, 9, 'payouts', 'generic', 'EUR', 5 FROM ledger_entries", (1, 1)),
    ],
)
async def test_a_hand_at_the_database_is_found(world: World, sown: str, found: tuple[int, int]) -> None:
    watch, payment_id = LedgerWatch(), (await world.opened())["payment_id"]
    await go(world, payment_id, CAPTURED)
    assert await checked(world, watch) == (0, 0)
    await by_hand(world, sown)
    assert await checked(world, watch) == found


async def test_a_round_looks_at_what_changed_and_the_walk_at_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a walk of one payment a round, an old difference takes its turn; a new one is found at once."""
    monkeypatch.setattr("services.payment_service.use_cases.check_ledger.WALK_PAYMENTS", 1)
    ids = sorted([(await world.opened())["payment_id"] for _ in range(4)])
    for payment_id in ids:
        await go(world, payment_id, CAPTURED)
    watch = LedgerWatch()
    assert await checked(world, watch) == (0, 0)  # the walk has seen the first one
    await world.run("UPDATE payments SET amount_refunded = 1 WHERE payment_id = :id", id=ids[3])
    await go(world, ids[1], REFUNDED, lines=())
    await world.run(
        "INSERT INTO payment_timeline (payment_id, at, kind, summary) VALUES (:id, now(), 'event', 'x')", id=ids[1]
    )
    assert await checked(world, watch) == (0, 1)
    assert list(watch.untied) == [ids[1]]
    assert await checked(world, watch) == (0, 1)
    assert await checked(world, watch) == (0, 2)
    assert list(watch.untied) == [ids[1], ids[3]]
    assert watch.next_payment == ids[3]
    await checked(world, watch)
    assert watch.next_payment == ""  # and round again


async def test_an_entry_that_does_not_balance_is_told_until_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the walk is elsewhere: the metric must not fall back because nobody looks."""
    monkeypatch.setattr("services.payment_service.use_cases.check_ledger.WALK_ENTRIES", 1)
    payment_id, watch = (await world.opened())["payment_id"], LedgerWatch()
    await go(world, payment_id, HELD, CAPTURED, REFUNDING, REFUNDED)
    more = "UPDATE ledger_postings SET amount_minor = amount_minor {} WHERE entry_id = 1 AND amount_minor > 0"
    await by_hand(world, more.format("+ 1"))
    assert [await checked(world, watch) for _ in range(9)] == [(1, 1)] * 9
    await by_hand(world, more.format("- 1"))
    assert [await checked(world, watch) for _ in range(2)] == [(0, 0)] * 2


async def test_a_transaction_that_commits_late_is_not_stepped_over(world: World) -> None:
    slow, quick = (await world.opened())["payment_id"], (await world.opened())["payment_id"]
    watch = LedgerWatch()

    async def one_round() -> tuple[str, ...]:
        watch.next_payment = "pay_z"  # the walk is elsewhere
        await check_ledger(watch, world.container.context)
        return watch.untied

    assert await one_round() == ()
    async with world.container.context.uow() as tx:
        payment = await tx.payments.get_for_update(slow)
        assert payment is not None
        await tx.ledger.post(payment, postings(PaymentState(), CAPTURED), cause="webhook", at=world.clock.now())
        await go(world, quick, CAPTURED)  # a higher number, committed first
        assert await one_round() == ()
    assert await one_round() == (slow,)


async def test_a_backlog_is_worked_off_in_rounds_that_follow_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_CHANGES > 2
    monkeypatch.setattr("services.payment_service.use_cases.check_ledger.MAX_CHANGES", 2)
    payment_id, watch = (await world.opened())["payment_id"], LedgerWatch()
    await check_ledger(watch, world.container.context)
    await go(world, payment_id, HELD, CAPTURED, REFUNDING, REFUNDED, DISPUTED)
    rounds = 1
    while await check_ledger(watch, world.container.context):
        rounds += 1
    assert rounds >= 3


async def test_the_worker_checks_by_itself(build_world: BuildWorld) -> None:
    world = await build_world(ledger_check_seconds=0.05)
    payment_id = (await world.opened())["payment_id"]
    await go(world, payment_id, CAPTURED)
    worker = asyncio.create_task(run_worker(world.container))
    try:
        await until(lambda: imbalance("payment") == 0, what="a first round")
        await go(world, payment_id, REFUNDED, lines=())
        await until(lambda: imbalance("payment") == 1, what="the difference is found")
    finally:
        worker.cancel()
        await asyncio.wait([worker])


async def test_balances_at_a_moment_are_those_of_what_was_learnt_by_then(world: World) -> None:
    await go(world, (await world.opened())["payment_id"], CAPTURED)
    assert await balances(world, at=to_rfc3339(world.clock.now() - timedelta(hours=1))) == {}


# --- what comes in ties, whatever comes in -------------------------------------------------------------------------


async def test_what_is_learnt_is_booked_in_the_same_transaction(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment))
    await world.receive(world.webhook(payment))
    assert await balances(world) == {"customer_payments": -1999, "gateway_receivable": 1999}
    (entry,) = (await ask(world, "/entries", payment_id=payment["payment_id"]))["data"]
    assert (entry["cause"], entry["payment_version"]) == (
        "webhook",
        (await world.see(payment["payment_id"]))["version"],
    )
    assert await checked(world, LedgerWatch()) == (0, 0)
