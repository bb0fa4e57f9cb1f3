"""The mirror over a real PostgreSQL: newest version wins, only whole exports move marks, no suspect is left out."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from services.reconciler.domain.decisions import decide
from services.reconciler.domain.errors import ExportBroken, ExportWentBack
from services.reconciler.domain.mirror import KnownOrder, KnownOrderPayment, KnownPayment, Movement, MovementKind
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.mirror_ports import PairKey, Scope
from services.reconciler.use_cases.pull_exports import pull_exports
from shared.clock import SystemClock
from shared.errors import ServiceUnavailable
from shared.money import Money
from tests.integration.reconciler.owners import Comparing, comparing, no_progress
from tests.support.clock import A_MOMENT
from tests.support.postgres import ServiceDatabase


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Comparing]:
    async with comparing(service_database("reconciler")) as made:
        yield made


async def test_the_mirror_says_what_the_owners_said(shop: Comparing) -> None:
    shop.owners.pays(unknown_since=shop.owners.ago(hours=1), outcome_unknown=True, amount_excess=3)
    shop.owners.confirms()
    shop.owners.parks("prk_1", "gw_pay_1")
    await shop.pulls()
    async with shop.context.uow() as tx:
        payment, order = await tx.mirror.payment("pay_1"), await tx.mirror.order("ord_1")
        parked = await tx.mirror.parked_event("prk_1")
        assert await tx.mirror.known_by("generic", "", ["gw_pay_1", "x"]) == {"gw_pay_1": "pay_1"}
        assert await tx.mirror.payment("pay_2") is None
    at = shop.clock.now() - timedelta(hours=2)
    money = Money(1000, "EUR")
    assert payment == KnownPayment(
        payment_id="pay_1",
        order_id="ord_1",
        gateway="generic",
        account="",
        status=PaymentStatus.CAPTURED,
        version=3,
        amount=money,
        standing=Standing(amount_authorized=1000, amount_captured=1000, outcome_unknown=True),
        amount_excess=3,
        conflict=None,
        duplicate_of=None,
        unknown_since=at + timedelta(hours=1),
        created_at=at,
        updated_at=at,
        references=("gw_pay_1", "ourpay_1"),
        movements=(Movement(MovementKind.SALE, "gw_pay_1", "ourpay_1", money, at),),
        gateway_reference="gw_pay_1",
    )
    assert order is not None
    assert (order.status, order.confirmed_by, order.total) == ("confirmed", "pay_1", money)
    assert order.payments == (KnownOrderPayment("pay_1", PaymentStatus.CAPTURED, 3, 1000, 0, None),)
    assert parked is not None
    assert (parked.references, parked.delivery_id) == (("gw_pay_1",), "whd_prk_1")


async def test_an_older_version_never_replaces_a_newer_one(shop: Comparing) -> None:
    shop.owners.pays(version=5, references=["new"])
    shop.owners.confirms()
    await shop.pulls()
    at = shop.owners.now()
    shop.owners.pays(version=4, status="expired", references=["old"], updated_at=at)
    shop.owners.orders_it(version=1, updated_at=shop.owners.ago(hours=3))
    await shop.pulls()
    async with shop.context.uow() as tx:
        payment, order = await tx.mirror.payment("pay_1"), await tx.mirror.order("ord_1")
    assert payment is not None
    assert (payment.version, payment.status, payment.references) == (5, "captured", ("new",))
    assert order is not None
    assert order.status == "confirmed"


async def test_what_a_payment_moved_and_is_called_is_replaced_as_a_whole(shop: Comparing) -> None:
    shop.owners.pays()
    await shop.pulls()
    shop.owners.changes(shop.owners.payments, "pay_1", references=["other"], movements=[])
    await shop.pulls()
    async with shop.context.uow() as tx:
        payment = await tx.mirror.payment("pay_1")
    assert payment is not None
    assert (payment.references, payment.movements) == (("other",), ())
    dispute = {"kind": "withheld", "reference": "dp_1", "amount_minor": 10, "currency": "EUR"}
    shop.owners.changes(shop.owners.payments, "pay_1", movements=[dispute | {"occurred_at": shop.owners.now()}])
    await shop.pulls()
    async with shop.context.uow() as tx:
        payment = await tx.mirror.payment("pay_1")
    assert payment is not None
    ((kind, is_withheld),) = [(each.kind, each.is_withheld) for each in payment.movements]
    assert (kind, is_withheld) == (MovementKind.CHARGEBACK, True)


async def test_a_document_that_changed_while_it_was_exported_counts_in_its_newer_form(shop: Comparing) -> None:
    payment = a_payment("pay_1")
    newer = replace(payment, version=4, status=PaymentStatus.EXPIRED)
    for batch in ([payment, newer], [newer, payment]):
        async with shop.context.uow() as tx:
            await tx.mirror.put_payments(batch)
            assert (await tx.mirror.payment("pay_1")) == newer


async def test_a_reference_of_two_payments_goes_to_the_same_one_in_any_order(shop: Comparing) -> None:
    first, second = (replace(a_payment(each), references=("shared",)) for each in ("pay_1", "pay_2"))
    for batches in ([[first, second]], [[second, first]], [[first], [second]], [[second], [first]]):
        await shop.execute("TRUNCATE known_payments CASCADE")
        async with shop.context.uow() as tx:
            for batch in batches:
                await tx.mirror.put_payments(batch)
            assert await tx.mirror.known_by("generic", "", ["shared"]) == {"shared": "pay_1"}


async def test_a_pull_begins_a_little_before_the_mark_of_the_last(shop: Comparing) -> None:
    began_at = shop.clock.now()
    await shop.pulls()
    assert await shop.mark("payments") == began_at
    shop.clock.move(3600)
    await shop.pulls()
    asked = [params for path, params in shop.owners.asked if path.endswith("/payments")]
    assert asked == [{}, {"updated_since": "2026-01-02T02:49:05Z"}], "first all of it, then from 15 minutes before"


async def test_a_stream_that_breaks_off_keeps_what_came_and_moves_no_mark(shop: Comparing) -> None:
    for number in range(1500):
        shop.owners.pays(f"pay_{number:04}")
    shop.owners.breaks_after["payments"] = 1400
    with pytest.raises(ExportBroken):
        await shop.pulls()
    assert await shop.mark("payments") is None
    assert (await shop.rows("SELECT count(*) FROM known_payments"))[0]["count"] == 1000, "whole batches are kept"
    shop.owners.breaks_after.clear()
    await shop.pulls()
    assert (await shop.rows("SELECT count(*) FROM known_payments"))[0]["count"] == 1500
    assert await shop.mark("payments") is not None


async def test_payments_that_are_suddenly_missing_where_pulls_overlap_move_no_mark(shop: Comparing) -> None:
    """The export is of another database for once (PG13): what it lacks would look like payments that never were."""
    owners = shop.owners
    owners.pays("pay_1", updated_at=owners.ago(minutes=5))
    owners.pays("pay_2", updated_at=owners.ago(minutes=20))
    await shop.pulls()
    mark, kept = await shop.mark("payments"), dict(owners.payments)
    shop.clock.move(3600)
    owners.payments.clear()
    with pytest.raises(ExportWentBack):
        await shop.pulls()
    assert await shop.mark("payments") == mark
    owners.payments |= kept
    owners.changes(owners.payments, "pay_1")
    await shop.pulls()
    assert await shop.mark("payments") == shop.clock.now()


async def test_a_mark_in_the_future_is_corrected_by_reading_all(shop: Comparing) -> None:
    """A replica whose clock was a day ahead: what was paid meanwhile would be skipped for good."""
    shop.clock.move(24 * 3600)
    await shop.pulls()
    shop.clock.move(-24 * 3600 + 600)
    shop.owners.pays(updated_at=shop.owners.now())
    shop.clock.move(4 * 3600)
    await shop.pulls()
    assert await shop.rows("SELECT payment_id FROM known_payments") == [{"payment_id": "pay_1"}]
    assert await shop.mark("payments") == shop.clock.now()


async def test_once_a_day_all_is_read_and_what_went_back_is_taken_as_it_is(shop: Comparing) -> None:
    """PG13: a few rows of a restored database. Their updated_at is old, so no other pull would show them."""
    owners = shop.owners
    for number in range(8):
        owners.pays(f"pay_{number}", f"ord_{number}")
        owners.confirms(f"ord_{number}", f"pay_{number}")
    await shop.pulls()
    del owners.payments["pay_1"]
    owners.payments["pay_2"] |= {"version": 2, "status": "failed", "amount_captured": 0, "references": ["other"]}
    shop.clock.move(23 * 3600)
    await shop.pulls()
    assert len(await shop.rows("SELECT payment_id FROM known_payments WHERE version = 3")) == 8, "not seen yet"
    owners.pays("pay_late", version=1)  # overlooked till now
    shop.clock.move(2 * 3600)
    assert await pull_exports(shop.context, no_progress) == 2
    async with shop.context.uow() as tx:
        assert await tx.mirror.payment("pay_1") is None
        payment = await tx.mirror.payment("pay_2")
        assert await tx.mirror.payment("pay_late") is not None
    assert payment is not None
    assert (payment.version, payment.references, payment.movements[0].reference) == (2, ("other",), "gw_pay_2")
    assert await pull_exports(shop.context, no_progress) == 0


async def test_an_order_service_that_was_set_back_is_told_again(shop: Comparing) -> None:
    owners = shop.owners
    for number in range(2):
        owners.pays(f"pay_{number}", f"ord_{number}")
        owners.orders_it(f"ord_{number}", knows=[owners.knowing(f"pay_{number}", version=2, amount_captured=0)])
    before = dict(owners.orders)
    for number in range(2):
        owners.confirms(f"ord_{number}", f"pay_{number}")
        owners.orders[f"ord_{number}"]["version"] = 2
    await shop.compares()
    owners.orders["ord_1"] = before["ord_1"]
    shop.clock.move(25 * 3600)
    assert (await shop.compares()).failed == 1
    assert await shop.found() == [("unconfirmed_order", "confirm_order", "open")]


async def test_a_database_that_lost_much_is_refused_until_somebody_says_it_is_meant(shop: Comparing) -> None:
    owners = shop.owners
    for number in range(50):
        owners.pays(f"pay_{number}")
    await shop.pulls()
    for number in range(21):
        del owners.payments[f"pay_{number}"]
    shop.clock.move(25 * 3600)
    mark = await shop.mark("payments")
    with pytest.raises(ExportWentBack, match="21"):
        await shop.pulls()
    assert await shop.mark("payments") == mark
    assert (await shop.rows("SELECT count(*) FROM known_payments"))[0]["count"] == 50
    assert await pull_exports(shop.without(accept_restored=True), no_progress) == 21
    assert (await shop.rows("SELECT count(*) FROM known_payments"))[0]["count"] == 29
    await shop.pulls()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"payment": {"payment_id": "pay_1"}}\n{"end": {"count": 1}}\n',
        b'{"end": {"count": 1}}\n',
        b'{"order": null}\n{"end": {"count": 1}}\n',
        b'{"end": {"count": 0}}',
        b"x" * (1024 * 1024 + 1),
        b'{"end": {"count": 0}, "pad": "' + b"x" * (1024 * 1024) + b'"}\n',
        b"not json\n",
    ],
    ids=["empty", "unreadable", "too few", "nothing", "no line end", "no lines", "long line", "no json"],
)
async def test_what_is_no_whole_export_moves_no_mark(shop: Comparing, content: bytes) -> None:
    shop.owners.raw["payments"] = content
    with pytest.raises(ExportBroken):
        await shop.pulls()
    assert await shop.mark("payments") is None


async def test_an_owner_that_refuses_us_is_away(shop: Comparing) -> None:
    shop.owners.status["payments"] = 403
    with pytest.raises(ServiceUnavailable):
        await shop.pulls()


async def test_parked_events_that_are_exported_no_more_are_gone(shop: Comparing) -> None:
    shop.owners.parks("prk_1")
    shop.owners.parks("prk_2")
    await shop.pulls()
    del shop.owners.parked["prk_1"]
    shop.clock.move(1)
    shop.owners.raw["parked-events"] = b""
    with pytest.raises(ExportBroken):
        await shop.pulls()
    assert len(await shop.rows("SELECT * FROM known_parked_events")) == 2, "a broken list proves no absence"
    del shop.owners.raw["parked-events"]
    await shop.pulls()
    assert [row["parked_id"] for row in await shop.rows("SELECT * FROM known_parked_events")] == ["prk_2"]


def a_payment(payment_id: str = "pay_1", **changes: object) -> KnownPayment:
    payment = KnownPayment(
        payment_id=payment_id,
        order_id="ord_1",
        gateway="generic",
        account="",
        status=PaymentStatus.CAPTURED,
        version=3,
        amount=Money(1000, "EUR"),
        standing=Standing(amount_authorized=1000, amount_captured=1000),
        amount_excess=0,
        conflict=None,
        duplicate_of=None,
        unknown_since=None,
        created_at=A_MOMENT,
        updated_at=A_MOMENT,
        references=(),
        movements=(),
    )
    return replace(payment, **changes)  # type: ignore[arg-type]


def every_combination() -> list[tuple[KnownOrder | None, KnownPayment | None]]:
    """Order, payment and what one knows of the other, in every combination that the columns allow."""
    standings = [
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000)),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=1000)),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1100)),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000)),
        (PaymentStatus.PARTIALLY_CAPTURED, Standing(amount_authorized=400, amount_captured=400)),
        (PaymentStatus.PARTIALLY_CAPTURED, Standing(amount_authorized=1000, amount_captured=400)),
        (PaymentStatus.AUTHORIZED, Standing(amount_authorized=1000)),
        *[(status, Standing()) for status in PaymentStatus if "c" in status.value],
        (PaymentStatus.FAILED, Standing(outcome_unknown=True)),
        (PaymentStatus.FAILED, Standing()),
        (PaymentStatus.EXPIRED, Standing()),
    ]
    payments: list[KnownPayment | None] = [
        a_payment(status=status, standing=standing, amount=amount, conflict=conflict, amount_excess=excess)
        for (status, standing), amount, conflict, excess in itertools.product(
            standings, (Money(1000, "EUR"), Money(999, "EUR")), (None, "amount"), (0, 5)
        )
    ]
    known = [
        None,
        *[
            KnownOrderPayment("pay_1", PaymentStatus.PROCESSING, version, captured, 0, resolution)
            for version, captured, resolution in itertools.product(
                (2, 3, 4), (0, 1000), (None, "refund_requested", "refund_failed")
            )
        ],
    ]
    orders: list[KnownOrder | None] = [
        KnownOrder(
            order_id="ord_1",
            status=status,
            payment_status="paid",
            attention=None,
            total=Money(1000, "EUR"),
            confirmed_by=confirmed_by,
            version=1,
            created_at=A_MOMENT,
            updated_at=A_MOMENT,
            payments=(each,) if each is not None else (),
        )
        for (status, confirmed_by), each in itertools.product(
            (("open", None), ("confirmed", "pay_1"), ("confirmed", "pay_0"), ("canceled", None), ("expired", None)),
            known,
        )
    ]
    return list(itertools.product([*orders, None], [*payments, None]))


async def test_nothing_that_is_decided_is_left_in_the_database(shop: Comparing) -> None:
    """What SQL lets through is compared with the table on every combination: leaving one out would hide it for ever.
    And what agrees mostly stays there."""
    combinations = every_combination()
    orders: list[KnownOrder] = []
    payments: list[KnownPayment] = []
    decided: set[PairKey] = set()
    for number, (order, payment) in enumerate(combinations):
        key = PairKey(f"ord_{number:06}", f"pay_{number:06}")
        orders += [named(order, key)] if order is not None else []
        payments += [replace(payment, payment_id=key.payment_id, order_id=key.order_id)] if payment is not None else []
        if decide(order, payment, payment_id="pay_1", settled_before=None) is not None:
            decided.add(key)
    async with shop.context.uow() as tx:
        await tx.mirror.put_orders(orders)
        await tx.mirror.put_payments(payments)
    found = {key for key in await suspects(shop) if key.payment_id != "pay_0"}  # another one, which nobody knows
    assert len(decided) > 3000
    assert decided - found == set()
    assert len(found - decided) < len(combinations) / 20


def named(order: KnownOrder, key: PairKey) -> KnownOrder:
    told = tuple(replace(each, payment_id=key.payment_id) for each in order.payments)
    keeper = key.payment_id if order.confirmed_by == "pay_1" else order.confirmed_by
    return replace(order, order_id=key.order_id, payments=told, confirmed_by=keeper)


async def suspects(shop: Comparing, limit: int = 700) -> set[PairKey]:
    found: set[PairKey] = set()
    scope = Scope(None)
    after: str | None = ""
    async with shop.context.uow() as tx:
        while after is not None:
            part = await tx.mirror.slice(scope, after=after, limit=limit)
            assert not found & set(part.suspects)
            found.update(part.suspects)
            after = part.next_after
        last = ""
        while keys := await tx.mirror.orders_of_nothing(scope, after=last, limit=limit):
            found.update(keys)
            last = keys[-1].order_id
    return found


async def test_the_size_of_a_slice_changes_nothing(shop: Comparing) -> None:
    chance = random.Random(5)
    for number in range(60):
        payment_id, order_id = f"pay_{number:02}", f"ord_{number:02}"
        if chance.random() < 0.8:
            shop.owners.pays(payment_id, order_id)
        if chance.random() < 0.8:
            shop.owners.confirms(order_id, payment_id, version=chance.choice((2, 3)))
    await shop.pulls()
    whole = await suspects(shop, 1000)
    assert 20 < len(whole) < 50
    for limit in (1, 7, 60):
        assert await suspects(shop, limit) == whole


async def test_a_hundred_thousand_pairs_that_agree_cost_about_a_second(
    shop: Comparing, capsys: pytest.CaptureFixture[str]
) -> None:
    for table, columns, values in (
        (
            "known_orders",
            "order_id, status, payment_status, total_minor, currency, confirmed_by, version, created_at, updated_at",
            "'ord_' || n, 'confirmed', 'paid', 1000, 'EUR', 'pay_' || n, 2, :at, :at",
        ),
        (
            "known_order_payments",
            "payment_id, order_id, status, version, amount_captured, amount_refunded",
            "'pay_' || n, 'ord_' || n, 'captured', 3, 1000, 0",
        ),
        (
            "known_payments",
            (
                "payment_id, order_id, gateway, status, version, amount_minor, currency, amount_authorized,"
                " amount_captured, created_at, updated_at"
            ),
            "'pay_' || n, 'ord_' || n, 'stripe', 'captured', 3, 1000, 'EUR', 1000, 1000, :at, :at",
        ),
    ):
        rows = "generate_series(1, 100000) AS n"
        at = {"at": A_MOMENT - timedelta(days=1)} if ":at" in values else {}
        await shop.execute(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {rows}", at)
        await shop.execute(f"ANALYZE {table}")
    marks = (
        "INSERT INTO pull_marks (source, pulled_until, whole_at) VALUES ('payments', :at, :at), ('orders', :at, :at)"
    )
    await shop.execute(marks, {"at": shop.clock.now()})
    clock = SystemClock()
    began = clock.monotonic()
    outcome = await shop.compares()
    with capsys.disabled():
        print(f"\n100 000 pairs that agree were compared in {clock.monotonic() - began:.2f} s")  # noqa: T201 - a figure to read
    assert (outcome.checked, outcome.matched, outcome.cases_opened) == (100_000, 100_000, 0)
