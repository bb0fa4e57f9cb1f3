"""What the reconciler has this service do: book a settlement, ask a gateway, give money back, tell of its cases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from services.payment_service.messaging.handlers import CaseHandler, CommandHandler, UnknownType
from services.payment_service.use_cases.check_ledger import LedgerWatch, check_ledger
from shared.contracts.commands import Command, PaymentSyncRequested, RefundRequested, SettlementBooked
from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.reconciliation_events import ReconciliationCaseOpened, ReconciliationCaseResolved
from shared.contracts.topology import PAYMENT_CASES, PAYMENT_COMMANDS
from shared.errors import GatewayUnavailable, InvalidAmount, NotFound
from shared.messaging.bus import BusMessage, Subscription
from shared.messaging.commands import UnsignedCommand
from shared.messaging.consumer import Consumer, Handled
from shared.unit_of_work import InboxClaim, in_transaction
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Shop, open_shop

KEY = b"r" * 32


def envelope(shop: Shop, event: EventData, message_id: str) -> EventEnvelope:
    return EventEnvelope(
        id=message_id,
        source="payrail/reconciler",
        type=event.TYPE,
        subject="cse_1",
        time=shop.clock.now(),
        sequence=1,
        data=event.model_dump(mode="json"),
    )


async def command(shop: Shop, given: Command, message_id: str = "evt_1") -> None:
    handler = CommandHandler(shop.context, {"reconciler": (KEY,)})
    await handler(envelope(shop, given, message_id), InboxClaim(PAYMENT_COMMANDS.name, message_id))


async def tell(shop: Shop, event: EventData, message_id: str) -> None:
    await CaseHandler(shop.context)(envelope(shop, event, message_id), InboxClaim(PAYMENT_CASES.name, message_id))


async def ledger(shop: Shop) -> dict[str, int]:
    """Balances that are not zero, by account."""
    answer = (await shop.ask("ledger/balances")).json()
    assert all(total["amount_minor"] == 0 for total in answer["trial_balance"])
    found = {each["account"]: each["balance"]["amount_minor"] for each in answer["data"]}
    return {account: amount for account, amount in found.items() if amount}


def a_settlement(**changes: Any) -> SettlementBooked:
    values: dict[str, Any] = {
        "sender": "reconciler",
        "command_key": "fil_1:po_1:EUR",
        "gateway": "generic",
        "file_id": "fil_1",
        "payout_reference": "po_1",
        "currency": "EUR",
        "fees_minor": 250,
        "tax_minor": 45,
        "payout_minor": 8705,
    }
    return SettlementBooked(**(values | changes)).signed(KEY)


def a_sync(payment_id: str) -> PaymentSyncRequested:
    return PaymentSyncRequested(sender="reconciler", command_key="cse_1:sync", payment_id=payment_id).signed(KEY)


# --- settlement.booked ---------------------------------------------------------------------------------------------


async def test_what_a_payout_settles_is_owed_no_more(build_world: BuildWorld) -> None:
    """100.00 captured, 10.00 refunded, 2.50 of fees and 0.45 of tax on them kept, 87.05 paid out."""
    shop = await open_shop(build_world)
    amount = {"amount_minor": 10_000, "currency": "EUR"}
    payment_id = await shop.captured(amount=amount, items=[{"name": "Tea", "quantity": 1, "unit_amount_minor": 10_000}])
    await shop.refund(payment_id, 1000)
    await shop.run_due()
    assert (await ledger(shop))["gateway_receivable"] == 9000
    await command(shop, a_settlement())
    assert await ledger(shop) == {
        "customer_payments": -9000,
        "gateway_fees": 250,
        "gateway_fee_taxes": 45,
        "payouts": 8705,
    }
    assert await check_ledger(LedgerWatch(), shop.context) is False
    answer = (await shop.ask("ledger/entries?account=payouts")).json()
    (entry,) = answer["data"]
    assert (entry["source_key"], entry["cause"]) == ("fil_1:po_1:EUR", "settlement")
    assert (entry["payment_id"], entry["payment_version"]) == (None, None)
    of_payment = (await shop.ask(f"ledger/entries?payment_id={payment_id}")).json()["data"]
    assert of_payment
    assert {each["source_key"] for each in of_payment} == {None}


async def test_a_settlement_is_booked_once_however_often_it_is_sent(build_world: BuildWorld) -> None:
    """RC1, RC10."""
    shop = await open_shop(build_world)
    await command(shop, a_settlement())
    await command(shop, a_settlement())  # the same message
    await asyncio.gather(*(command(shop, a_settlement(), f"evt_{number}") for number in range(2, 8)))
    await command(shop, a_settlement(command_key="fil_1:po_2:EUR"), "evt_9")
    assert (await ledger(shop))["payouts"] == 2 * 8705
    assert len(await shop.world.rows("SELECT * FROM ledger_entries")) == 2


async def test_reserves_adjustments_and_what_came_back_are_booked_by_their_signs(build_world: BuildWorld) -> None:
    """RC12."""
    shop = await open_shop(build_world)
    await command(shop, a_settlement(reserve_minor=700, adjustment_minor=-30))
    assert await ledger(shop) == {
        "gateway_fees": 250,
        "gateway_fee_taxes": 45,
        "reserves_held": 700,
        "settlement_adjustments": -30,
        "payouts": 8705,
        "gateway_receivable": -9670,
    }
    back = {"fees_minor": -250, "tax_minor": -45, "reserve_minor": -700, "adjustment_minor": 30, "payout_minor": -8705}
    await command(shop, a_settlement(command_key="fil_2:po_1:EUR", **back), "evt_2")
    assert await ledger(shop) == {}
    nothing = {"fees_minor": 0, "tax_minor": 0, "payout_minor": 0}
    await command(shop, a_settlement(command_key="fil_3:po_1:EUR", **nothing), "evt_3")
    assert len(await shop.world.rows("SELECT * FROM ledger_entries")) == 2


async def test_a_settlement_that_is_unsigned_or_of_no_currency_books_nothing(build_world: BuildWorld) -> None:
    """XS25. A line in a currency that is none would make the whole ledger unreadable."""
    shop = await open_shop(build_world)
    forged = a_settlement().model_copy(update={"payout_minor": 1})
    as_a_refund = RefundRequested(
        sender="reconciler", command_key="k", payment_id="p", order_id="o", reason="reconciliation"
    )
    stolen = a_sync("pay_1").model_copy(update={"signature": as_a_refund.signed(KEY).signature})
    for unsigned in (forged, stolen):
        with pytest.raises(UnsignedCommand):
            await command(shop, unsigned)
    with pytest.raises(InvalidAmount):
        await command(shop, a_settlement(currency="ZZZ"))
    assert await shop.world.rows("SELECT * FROM ledger_entries") == []
    await command(shop, a_settlement())  # the message is not used up
    assert len(await shop.world.rows("SELECT * FROM ledger_entries")) == 1


async def test_an_entry_is_of_a_payment_or_of_a_settlement(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    for names in ("p, v, k", "p, -, k", "p, -, -", "-, v, -", "-, v, k", "-, -, -"):
        known = {"p": ":p", "v": "2", "k": "'key'", "-": "NULL"}
        values = ", ".join(known[name] for name in names.split(", "))
        with pytest.raises(IntegrityError, match="of_payment_or_settlement"):
            await shop.world.run(
                "INSERT INTO ledger_entries (cause, at, payment_id, payment_version, source_key) "
                f"SELECT 'x', now(), {values} FROM payments WHERE payment_id = :p",
                p=payment_id,
            )


async def test_the_ledgers_check_goes_on_beside_settlements(build_world: BuildWorld) -> None:
    """Its changes are told by payments, and a settlement has none."""
    shop, watch = await open_shop(build_world), LedgerWatch()
    await check_ledger(watch, shop.context)
    payment_id = await shop.captured()
    for number in range(3):
        await command(shop, a_settlement(command_key=f"fil_{number}:po_1:EUR"), f"evt_{number}")
        assert await check_ledger(watch, shop.context) is False
    assert (watch.untied, watch.unbalanced) == ((), ())
    await shop.world.run("UPDATE payments SET amount_refunded = 5 WHERE payment_id = :p", p=payment_id)
    await check_ledger(watch, shop.context)
    assert watch.untied == (payment_id,)


# --- payment.sync_requested ----------------------------------------------------------------------------------------


async def test_the_gateway_is_asked_with_no_transaction_open_and_what_it_says_is_a_fact(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    account = shop.account(payment_id)
    account.held = account.captured = ORDERED
    retrieve, open_while_asking = shop.gateway.retrieve, []

    async def watched(*args: Any, **values: Any) -> Any:
        open_while_asking.append(in_transaction())
        return await retrieve(*args, **values)

    monkeypatch.setattr(shop.gateway, "retrieve", watched)
    await command(shop, a_sync(payment_id))
    assert open_while_asking == [False]
    assert await shop.totals(payment_id) == {"authorized": ORDERED, "captured": ORDERED}
    sources = await shop.world.rows("SELECT DISTINCT source FROM payment_facts WHERE kind = 'captured'")
    assert [row["source"] for row in sources] == ["sweep"]
    await command(shop, a_sync(payment_id))
    told = await shop.world.rows("SELECT summary, actor, details FROM payment_timeline WHERE kind = 'decision'")
    assert [(row["actor"], row["details"]["command_key"]) for row in told] == [("reconciler", "cse_1:sync")]
    assert "which changed the payment" in told[0]["summary"]


async def test_a_gateway_that_cannot_be_asked_now_is_asked_later(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message waits, does not die of it, and asks again."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    account = shop.account(payment_id)
    account.held = account.captured = ORDERED
    retrieve = shop.gateway.retrieve

    async def away(*_: Any, **__: Any) -> Any:
        raise GatewayUnavailable

    handler = CommandHandler(shop.context, {"reconciler": (KEY,)})
    subscription = Subscription(PAYMENT_COMMANDS, handler, shop.world.container.database)
    sent = envelope(shop, a_sync(payment_id), "evt_1")
    monkeypatch.setattr(shop.gateway, "retrieve", away)
    consumer = Consumer(subscription, shop.clock)
    for attempt in range(subscription.max_attempts + 2):
        message = BusMessage("evt_1", sent.type, sent.subject, sent.to_json(), redelivered=attempt > 0)
        assert (await consumer.handle(message))[0] is Handled.RETRY
    monkeypatch.setattr(shop.gateway, "retrieve", retrieve)
    message = BusMessage("evt_1", sent.type, sent.subject, sent.to_json(), redelivered=True)
    assert (await consumer.handle(message))[0] is Handled.DONE
    assert (await shop.totals(payment_id))["captured"] == ORDERED


async def test_a_payment_that_is_not_known_uses_up_the_messages_attempts(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    with pytest.raises(NotFound):
        await command(shop, a_sync("pay_unknown"))
    with pytest.raises(UnknownType):
        await tell(shop, a_sync("pay_unknown"), "evt_2")


# --- refund.requested, from the reconciler -------------------------------------------------------------------------


async def test_the_reconciler_may_have_money_given_back(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    (row,) = await shop.world.rows("SELECT order_id FROM payments")
    given = RefundRequested(
        sender="reconciler",
        command_key="cse_1:refund",
        payment_id=payment_id,
        order_id=row["order_id"],
        reason="reconciliation",
    )
    for number in range(3):
        await command(shop, given.signed(KEY), f"evt_{number}")
    await shop.run_due()
    ((refund),) = await shop.operations(payment_id)
    assert (refund["status"], refund["actor"], refund["reason"]) == ("succeeded", "reconciler", "reconciliation")


# --- cases ---------------------------------------------------------------------------------------------------------


def a_case(payment_id: str | None, **changes: Any) -> ReconciliationCaseOpened:
    values: dict[str, Any] = {
        "case_id": "cse_1",
        "kind": "settlement",
        "scenario": "amount_differs",
        "payment_id": payment_id,
        "currency": "EUR",
        "expected_minor": 1999,
        "actual_minor": 1000,
        "difference_minor": -999,
    }
    return ReconciliationCaseOpened(**(values | changes))


async def test_a_case_is_told_in_the_timeline_and_the_verdict_until_it_is_resolved(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.clock.move(60)
    opened = a_case(payment_id)
    await tell(shop, opened, "evt_1")
    await tell(shop, opened, "evt_1")
    told = (await shop.ask(f"payments/{payment_id}/timeline")).json()
    (entry,) = [each for each in told["data"] if each["kind"] == "case"]
    assert entry["summary"] == (
        "Reconciliation found: amount differs, 19.99 EUR in our books, 10.00 EUR at the gateway, "
        "difference -9.99 EUR; a person decides"
    )
    assert (entry["amount"]["amount_minor"], entry["reference"], entry["source"]) == (-999, "cse_1", "reconciler")
    assert told["verdict"].endswith("; reconciliation found amount differs (-9.99 EUR), which is not settled.")

    shop.clock.move(60)
    resolved = ReconciliationCaseResolved(**opened.model_dump(), resolution="settled", resolved_by="run_1")
    await tell(shop, resolved, "evt_2")
    told = (await shop.ask(f"payments/{payment_id}/timeline")).json()
    assert told["data"][-1]["summary"] == (
        "Reconciliation case resolved (amount differs, 19.99 EUR in our books, 10.00 EUR at the gateway, "
        "difference -9.99 EUR): settled, by run_1"
    )
    assert "reconciliation" not in told["verdict"]


async def test_a_case_of_nobodys_payment_is_ignored_and_free_text_is_left_out(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await tell(shop, a_case(None), "evt_1")
    await tell(shop, a_case("pay_unknown"), "evt_2")
    assert await shop.world.rows("SELECT * FROM payment_timeline WHERE kind = 'case'") == []
    odd = {"currency": "ZZZ", "scenario": "Lovelace <ada@example.com>", "action": "refund", "case_id": "cse_2"}
    await tell(shop, a_case(payment_id, **odd), "evt_3")
    (row,) = await shop.world.rows("SELECT * FROM payment_timeline WHERE kind = 'case'")
    assert row["summary"] == "Reconciliation found: unnamed; policy: refund"
    for personal in ("ada@", "lovelace"):  # nothing that an id could spell
        assert personal not in str(row).lower()
