"""Real files to the ledger: when a gateway has paid out what it took for us, it owes us nothing (RC1, RC4, RC6).

Bytes are read by the real formats, commands are booked as payment_service books them. Whatever order files come in,
and however often they say the same, ``gateway_receivable`` ends at 0.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from itertools import permutations
from typing import Any, NamedTuple

import pytest

from services.gateway_sandbox.gateways.port import SettlementLine as BookLine
from services.payment_service.domain.ledger import SettlementTotals, postings, settlement_postings
from services.payment_service.domain.models import PaymentState
from services.reconciler.domain.cases import Action
from services.reconciler.domain.settlement import LineKind, SettlementFile
from services.reconciler.settlement_formats.reading import FileReading, Request, inspect
from services.reconciler.use_cases.resolve_case import Wish, resolve_case
from tests.integration.reconciler.conftest import World
from tests.integration.reconciler.settling import NOW, START, Content, Settler, a_line, stated
from tests.support.settlement_reader import InProcessReading
from tests.unit.gateway_sandbox.test_sown_settlements import GATEWAYS, books_of, built, written

DEFAULT_CURRENCY = {"myfatoorah": "KWD"}
AMOUNTS = tuple(field.name for field in fields(SettlementTotals))
LEDGER = ("gateway_receivable", "payouts", "gateway_fees", "gateway_fee_taxes", "settlement_adjustments")


class Paid(NamedTuple):
    """A payment as our books have it. Minor units."""

    references: tuple[str, ...]
    currency: str
    captured: int
    refunds: tuple[tuple[str, int], ...] = ()
    lost: tuple[tuple[str, int], ...] = ()

    @property
    def state(self) -> PaymentState:
        return PaymentState(
            amount_authorized=self.captured,
            amount_captured=self.captured,
            amount_refunded=sum(amount for _, amount in self.refunds),
            amount_disputed=sum(amount for _, amount in self.lost),
            amount_dispute_lost=sum(amount for _, amount in self.lost),
        )


class Formats:
    """The reader: bytes by file id."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    @asynccontextmanager
    async def read(self, file: SettlementFile, _content: AsyncIterator[bytes]) -> AsyncIterator[InProcessReading]:
        request = Request(file.gateway, file.account, file.format, default_currency=DEFAULT_CURRENCY.get(file.gateway))
        yield InProcessReading(FileReading(io.BytesIO(self.bodies[file.file_id]), request))


class Ledger(Settler):
    """Settles bytes, and adds up what they and our payments post."""

    def __init__(self, world: World, gateway: str, paid: Sequence[Paid] = (), **rules: Any) -> None:
        super().__init__(world, gateway=gateway, **rules)
        self.formats = Formats()
        self.paid = paid
        self.context = replace(self.context, reader=self.formats)  # type: ignore[arg-type]

    async def opens(self) -> None:
        await self.forgets_everything()
        await self.learns()

    async def learns(self) -> None:
        """Our payments, as the mirror has them."""
        for number, payment in enumerate(self.paid, start=1):
            payment_id = await self.knows(number, currency=payment.currency)
            await self._write_references(payment_id, "", payment.references)
            moved = [("sale", payment.references[0], payment.captured)]
            moved += [("refund", *refund) for refund in payment.refunds]
            moved += [("chargeback", *lost) for lost in payment.lost]
            for kind, reference, amount in moved:
                await self._moves(payment_id, kind, reference, amount, payment.currency)

    async def _moves(self, payment_id: str, kind: str, reference: str, amount: int, currency: str) -> None:
        await self.world.execute(
            """INSERT INTO known_movements (payment_id, kind, reference, gateway, account, amount_minor, currency,
                occurred_at) VALUES (:id, :kind, :reference, :gateway, '', :amount, :currency, :at)""",
            id=payment_id,
            kind=kind,
            reference=reference,
            gateway=self.gateway,
            amount=amount,
            currency=currency,
            at=START,
        )

    async def gets(self, body: str | bytes) -> None:
        body = body if isinstance(body, bytes) else body.encode()
        seen = inspect(io.BytesIO(body), Request(self.gateway, "", default_currency=DEFAULT_CURRENCY.get(self.gateway)))
        file_id = await self.takes([], name=f"file-{self._files}")
        await self.world.execute(
            "UPDATE settlement_files SET format = :format WHERE file_id = :id", format=seen["format"], id=file_id
        )
        self.formats.bodies[file_id] = body
        await self.reads(file_id)
        (row,) = await self.world.rows("SELECT status, bad_rows FROM settlement_files WHERE file_id = :id", id=file_id)
        assert (row["status"], row["bad_rows"]) == ("read", 0)

    async def balances(self) -> dict[tuple[str, str], int]:
        """Per account and currency, without what is 0."""
        sums: Counter[tuple[str, str]] = Counter()
        for payment in self.paid:
            for posting in postings(PaymentState(), payment.state):
                sums[posting.account, payment.currency] += posting.amount_minor
        for command in await self.commands():
            for posting in settlement_postings(SettlementTotals(**{name: command[name] for name in AMOUNTS})):
                sums[posting.account, command["currency"]] += posting.amount_minor
        assert sum(sums.values()) == 0
        return {(account, currency): amount for (account, currency), amount in sums.items() if amount}

    async def commands(self) -> list[dict[str, Any]]:
        rows = await self.world.rows(
            "SELECT convert_from(body, 'UTF8')::json->'data' AS data FROM outbox_messages"
            " WHERE type = 'settlement.booked.v1' ORDER BY position"
        )
        return [row["data"] for row in rows]

    async def books(self, *bodies: str | bytes) -> dict[str, int]:
        """From nothing: what settlement leaves in one currency."""
        await self.opens()
        for body in bodies:
            await self.gets(body)
        return {account: amount for (account, _), amount in (await self.balances()).items() if account in LEDGER}


@pytest.fixture
def at_now(world: World) -> World:
    world.clock.move((NOW - world.clock.now()).total_seconds())
    return world


@pytest.fixture
def ledger(at_now: World) -> Callable[..., Ledger]:
    return lambda gateway, *paid, **rules: Ledger(at_now, gateway, paid, **rules)


# --- every gateway of the sandbox -----------------------------------------------------------------------------------

WITHOUT_DISPUTES = {"tabby"}
"""Its statements have no word for a dispute: what one takes is an adjustment."""


def books(gateway: str, lines: Iterable[BookLine]) -> list[Paid]:
    found: dict[str, Paid] = {}
    for line in lines:
        entry = line.entry
        name = entry.reference or ""
        if line.kind == "capture":
            charges = [charge["id"] for charge in entry.details["charges"]]
            ids = (line.object_id, name, entry.gateway_reference, *charges, *map(str, _ids(entry.details)))
            found[name] = Paid(tuple(dict.fromkeys(ids)), entry.currency, line.amount_minor)
        elif line.kind == "refund":
            found[name] = found[name]._replace(refunds=((line.object_id, line.amount_minor),))
        elif gateway not in WITHOUT_DISPUTES:
            found[name] = found[name]._replace(lost=((line.object_id, line.amount_minor),))
    return list(found.values())


def _ids(details: Any) -> list[str]:
    return [details[name] for name in ("order_id", "custom_id", "mihpayid", "invoice_reference")]


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_what_a_gateway_paid_out_it_owes_no_more(ledger: Callable[..., Ledger], gateway: str) -> None:
    settlement = written(gateway)
    account = ledger(gateway, *books(gateway, books_of(built()[gateway])))
    file, statement = settlement.file.body, settlement.statement.body
    paid_out = sum(payout.amount_minor for payout in settlement.payouts)
    for order in ([file, statement], [statement, file], [statement, file + b"\n", statement + b"\n", file]):
        found = await account.books(*order)
        assert found.get("gateway_receivable", 0) == 0
        assert found["payouts"] == paid_out


# --- files that overlap ---------------------------------------------------------------------------------------------

STRIPE = (
    Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000, refunds=(("re_1", 2_500),)),
    Paid(("ch_2", "pi_2", "REF2"), "USD", 5_000, lost=(("dp_2", 5_000),)),
    Paid(("ch_3", "pi_3", "REF3"), "USD", 10_000),
)
STRIPE_HEADER = (
    "automatic_payout_id,balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,"
    "charge_id,payment_intent_id,payment_metadata[order_ref],refund_metadata[refund_ref]\n"
)
FIRST_PAYOUT = STRIPE_HEADER + (
    "po_1,txn_1,2026-01-05 12:00:00,usd,100.00,3.00,97.00,charge,ch_1,ch_1,pi_1,REF1,\n"
    "po_1,txn_2,2026-01-05 12:00:00,usd,50.00,1.00,49.00,charge,ch_2,ch_2,pi_2,REF2,\n"
    "po_1,txn_3,2026-01-06 12:00:00,usd,-25.00,0.00,-25.00,refund,re_1,ch_1,pi_1,REF1,r1\n"
    "po_1,txn_4,2026-01-06 12:00:00,usd,-50.00,15.00,-65.00,dispute,dp_2,ch_2,pi_2,REF2,\n"
    ",txn_5,2026-01-07 00:00:00,usd,-56.00,0.00,-56.00,payout,po_1,,,,\n"
)
SECOND_PAYOUT = (
    "po_2,txn_6,2026-01-07 12:00:00,usd,100.00,3.00,97.00,charge,ch_3,ch_3,pi_3,REF3,\n"
    ",txn_7,2026-01-08 00:00:00,usd,-97.00,0.00,-97.00,payout,po_2,,,,\n"
)
STRIPE_STATEMENT = (
    "payout_reference,paid_at,amount,currency,bank_reference\n"
    "po_1,2026-01-07,56.00,USD,B1\npo_2,2026-01-08,97.00,USD,B2\n"
)
STRIPE_ENDS = {"payouts": 15_300, "gateway_fees": 2_200}


async def test_stripe_reports_with_payouts(ledger: Callable[..., Ledger]) -> None:
    account = ledger("stripe", *STRIPE)
    files = [FIRST_PAYOUT, FIRST_PAYOUT + SECOND_PAYOUT, STRIPE_STATEMENT]
    for order in permutations(files):
        assert await account.books(*order) == STRIPE_ENDS
        assert await account.cases() == []


def transaction(name: str, kind: str, amount: int, fee: int, source: Any, at: int = 1_767_614_400) -> dict[str, Any]:
    return {
        "id": name,
        "object": "balance_transaction",
        "amount": amount,
        "fee": fee,
        "net": amount - fee,
        "currency": "usd",
        "created": at,
        "type": kind,
        "reporting_category": kind,
        "source": source,
    }


def listed(*transactions: dict[str, Any]) -> str:
    return json.dumps({"object": "list", "has_more": False, "data": transactions})


def charge(number: int) -> dict[str, Any]:
    name = f"ch_{number}"
    return {"id": name, "object": "charge", "payment_intent": f"pi_{number}", "metadata": {"order_ref": f"REF{number}"}}


CHARGE = transaction("txn_1", "charge", 10_000, 300, charge(1))
PAYOUT = transaction("txn_2", "payout", -9_700, 0, "po_1")
FAILED = transaction("txn_3", "payout_reversal", 9_700, 0, "po_1", 1_767_700_000)
AGAIN = transaction("txn_4", "payout", -9_700, 0, "po_2", 1_767_800_000)


async def test_stripes_api_tells_of_a_payout_that_came_back(ledger: Callable[..., Ledger], at_now: World) -> None:
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000))
    for order in permutations([listed(CHARGE, PAYOUT), listed(PAYOUT, FAILED), listed(AGAIN, FAILED)]):
        assert await account.books(*order) == {"payouts": 9_700, "gateway_fees": 300}
    at_now.clock.move(8 * 86_400)
    await account.settles_again()
    assert await account.cases() == [], "its lines name no payout, which is no fault of the payouts"


async def test_a_payout_that_the_bank_got_less_of_is_found_though_no_line_names_it(
    ledger: Callable[..., Ledger], at_now: World
) -> None:
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000))
    statement = "payout_reference,paid_at,amount,currency,bank_reference\npo_1,2026-01-07,96.99,USD,B1\n"
    await account.books(listed(CHARGE, PAYOUT), statement)
    at_now.clock.move(8 * 86_400)
    await account.settles_again()
    assert await account.cases() == [("payout_differs", -1)]


async def test_stripe_by_report_and_by_api(ledger: Callable[..., Ledger]) -> None:
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000))
    rows = (
        "po_1,txn_1,2026-01-05 12:00:00,usd,100.00,3.00,97.00,charge,ch_1,ch_1,pi_1,REF1,\n"
        ",txn_2,2026-01-05 12:00:00,usd,-97.00,0.00,-97.00,payout,po_1,,,,\n"
    )
    for order in permutations([listed(CHARGE, PAYOUT), STRIPE_HEADER + rows]):
        assert await account.books(*order) == {"payouts": 9_700, "gateway_fees": 300}
        (payout,) = await account.world.rows("SELECT lines_minor, lines, stated_minor FROM settlement_payouts")
        assert tuple(payout.values()) == (9_700, 1, 9_700)
        assert await account.cases() == []


PAYPAL_COLUMNS = (
    '"CH","Transaction ID","Invoice ID","PayPal Reference ID","PayPal Reference ID Type","Transaction Event Code",'
    '"Transaction Initiation Date","Transaction Completion Date","Transaction Debit or Credit",'
    '"Gross Transaction Amount","Gross Transaction Currency","Fee Debit or Credit","Fee Amount","Fee Currency",'
    '"Custom Field","Bank Reference ID"\n'
)
PAYPAL_DAY = '"2026/01/05 04:00:00 -0800"'
PAYPAL_REPORT = (
    '"RH","2026/01/06 05:00:00 -0800","A","M","009"\n"FH",01\n'
    '"SH","2026/01/05 00:00:00 -0800","2026/01/05 23:59:59 -0800","M",""\n'
    + PAYPAL_COLUMNS
    + f'"SB","CAP1","ORD-1-1","","","T0006",{PAYPAL_DAY},{PAYPAL_DAY},"CR",10000,"USD","DR",300,"USD","ORD-1",""\n'
    + f'"SB","WD1","","","","T0400",{PAYPAL_DAY},{PAYPAL_DAY},"DR",9700,"USD","",0,"USD","","BANK1"\n'
    + '"SC",2\n"RC",2\n"FC",2\n'
)


def paypal_row(name: str, code: str, amount: str, **more: Any) -> dict[str, Any]:
    return {
        "transaction_info": {
            "transaction_id": name,
            "transaction_event_code": code,
            "transaction_initiation_date": "2026-01-05T12:00:00+0000",
            "transaction_amount": {"currency_code": "USD", "value": amount},
            "transaction_status": "S",
            **more,
        }
    }


async def test_paypal_by_report_and_by_api(ledger: Callable[..., Ledger], at_now: World) -> None:
    account = ledger("paypal", Paid(("CAP1", "ORD-1"), "USD", 10_000))
    fee = {"currency_code": "USD", "value": "-3.00"}
    capture = paypal_row("CAP1", "T0006", "100.00", fee_amount=fee, invoice_id="ORD-1-1", custom_field="ORD-1")
    api = json.dumps({"transaction_details": [capture, paypal_row("WD1", "T0400", "-97.00")]})
    statement = "payout_reference,paid_at,amount,currency,bank_reference\nBANK1,2026-01-07,97.00,USD,BANK1\n"
    for order in permutations([PAYPAL_REPORT, api, statement]):
        assert await account.books(*order) == {"payouts": 9_700, "gateway_fees": 300}
        assert await account.cases() == []
    at_now.clock.move(8 * 86_400)
    await account.settles_again()
    assert await account.cases() == []


def razorpay_row(**changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("payment_id", "order_id", "order_receipt", "dispute_id"))
    values = {"currency": "INR", "settled": True, "created_at": 1_767_614_400, "settlement_id": "setl_1", **nothing}
    return values | dict.fromkeys(("fee", "tax", "debit", "credit"), 0) | changes


def collection(*items: dict[str, Any]) -> str:
    return json.dumps({"entity": "collection", "count": len(items), "items": items})


async def test_razorpay_with_its_settlements_and_the_banks_word(ledger: Callable[..., Ledger]) -> None:
    """The bank knows the payout by its UTR, before or after the gateway tells that it is its own (finding 8)."""
    account = ledger("razorpay", Paid(("pay_1", "order_1"), "INR", 50_000, refunds=(("rfnd_1", 10_000),)))
    sold = razorpay_row(entity_id="pay_1", type="payment", amount=50_000, fee=1_180, tax=180, credit=48_820)
    refunded = razorpay_row(entity_id="rfnd_1", type="refund", amount=10_000, debit=10_000, payment_id="pay_1")
    settled = {"id": "setl_1", "amount": 38_820, "status": "processed", "utr": "UTR1", "created_at": 1_767_700_000}
    statement = "payout_reference,paid_at,amount,currency,bank_reference\nUTR1,2026-01-07,388.20,INR,UTR1\n"
    ends = {"payouts": 38_820, "gateway_fees": 1_000, "gateway_fee_taxes": 180}
    for order in permutations([collection(sold, refunded), collection(settled), statement]):
        assert await account.books(*order) == ends
        assert [row["payout_reference"] for row in await account.world.rows("SELECT * FROM settlement_payouts")] == [
            "setl_1"
        ]
        assert await account.cases() == []


GENERIC = (
    "settlement_id,type,id,payment_id,reference,session_reference,order_id,created_at,currency,amount,fee,tax,net\n"
    "set_1,capture,cap_1,gw_1,,REF1,,2026-01-05T12:00:00Z,USD,100.00,3.00,0.00,97.00\n"
)


async def test_the_bank_tells_a_payout_in_parts(ledger: Callable[..., Ledger]) -> None:
    """In one file or in several, told again or corrected (finding 2)."""
    account = ledger("generic", Paid(("cap_1", "REF1"), "USD", 10_000))
    header = "payout_reference,paid_at,amount,currency,bank_reference\n"
    one, other = "set_1,2026-01-07,60.00,USD,B1\n", "set_1,2026-01-08,37.00,USD,\n"
    for order in list(permutations([GENERIC, header + one, header + other, header + one + other]))[::5]:
        assert await account.books(*order) == {"payouts": 9_700, "gateway_fees": 300}
        assert await account.cases() == []
    wrong = header + "set_1,2026-01-07,61.00,USD,B1\n"
    assert await account.books(GENERIC, wrong, header + other, header + one) == {"payouts": 9_700, "gateway_fees": 300}


async def test_two_payouts_in_one_transfer_are_two(ledger: Callable[..., Ledger]) -> None:
    account = ledger("generic", Paid(("cap_1", "REF1"), "USD", 10_000), Paid(("cap_2", "REF2"), "USD", 10_000))
    second = "set_2,capture,cap_2,gw_2,,REF2,,2026-01-05T12:00:00Z,USD,100.00,3.00,0.00,97.00\n"
    statement = "payout_reference,paid_at,amount,currency,bank_reference\n" + "".join(
        f"set_{number},2026-01-07,97.00,USD,B1\n" for number in (1, 2)
    )
    for order in permutations([GENERIC + second, statement]):
        assert await account.books(*order) == {"payouts": 19_400, "gateway_fees": 600}
        assert await account.cases() == []


async def test_what_was_settled_in_another_currency_is_owed_in_neither(ledger: Callable[..., Ledger]) -> None:
    """Euros paid and refunded, dollars settled: the conversion is booked on both sides (finding 5)."""
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "EUR", 10_000, refunds=(("re_1", 2_500),)))
    header = STRIPE_HEADER.strip() + ",customer_facing_amount,customer_facing_currency\n"
    sold = "po_1,txn_1,2026-01-05 12:00:00,usd,108.00,3.00,105.00,charge,ch_1,ch_1,pi_1,REF1,,100.00,eur\n"
    back = "po_1,txn_2,2026-01-05 13:00:00,usd,-27.20,0.00,-27.20,refund,re_1,ch_1,pi_1,REF1,r1,-25.00,eur\n"
    statement = "payout_reference,paid_at,amount,currency,bank_reference\npo_1,2026-01-07,77.80,USD,B1\n"
    for order in permutations([header + sold, header + sold + back, statement]):
        await account.opens()
        for body in order:
            await account.gets(body)
        assert await account.balances() == {
            ("customer_payments", "EUR"): -7_500,
            ("currency_conversion", "EUR"): 7_500,
            ("currency_conversion", "USD"): -8_080,
            ("gateway_fees", "USD"): 300,
            ("payouts", "USD"): 7_780,
        }
        assert await account.cases() == []


# --- what waits for a person ----------------------------------------------------------------------------------------

FOREIGN = STRIPE_HEADER + "".join(
    f"po_1,txn_{n},2026-01-05 12:00:00,usd,100.00,3.00,97.00,charge,ch_{n},ch_{n},pi_{n},REF{n},\n"
    for n in range(1, 31)
)


async def test_the_file_of_another_account_is_not_booked(ledger: Callable[..., Ledger]) -> None:
    """One case, which nothing but a person or the payments themselves ends (finding 19)."""
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000))
    assert await account.books(FOREIGN) == {"gateway_receivable": 10_000}
    assert await account.cases() == [("unknown_line", None)]
    await account.settles_again()
    assert (await account.commands(), await account.cases()) == ([], [("unknown_line", None)])


async def test_a_foreign_file_that_is_accepted_is_booked_once(ledger: Callable[..., Ledger]) -> None:
    account = ledger("stripe", Paid(("ch_1", "pi_1", "REF1"), "USD", 10_000))
    await account.books(FOREIGN)
    (case,) = await account.world.rows("SELECT case_id FROM cases")
    await resolve_case(case["case_id"], Wish(Action.ACCEPT, "of before our time", "ann"), account.context)
    for _ in range(2):
        await account.settles_again()
        assert [command["fees_minor"] for command in await account.commands()] == [9_000]
        assert await account.cases() == [("unknown_line", 10_000)] * 29


async def test_a_foreign_file_is_booked_once_its_payments_are_known(ledger: Callable[..., Ledger]) -> None:
    account = ledger("stripe")
    await account.books(FOREIGN, STRIPE_HEADER + "po_1,txn_99,2026-01-05 12:00:00,usd,-1.00,0.00,-1.00,fee,x,,,,\n")
    assert [command["fees_minor"] for command in await account.commands()] == [100]
    account.paid = [Paid((f"ch_{n}", f"pi_{n}", f"REF{n}"), "USD", 10_000) for n in range(1, 31)]
    await account.learns()
    await account.settles_again()
    assert [command["fees_minor"] for command in await account.commands()] == [100, 9_000]
    assert await account.cases() == []


async def test_sums_that_no_command_could_carry_are_refused(at_now: World) -> None:
    settler = Settler(at_now)
    lines = [a_line(LineKind.ADJUSTMENT, 10**15 - 1, at=number) for number in range(150)]
    await settler.settles(lines)
    await settler.settles(Content([], payouts=[stated(10**15 - 1)._replace(bank_reference=str(n)) for n in range(150)]))
    files = await at_now.rows("SELECT status, problem FROM settlement_files")
    assert [tuple(row.values()) for row in files] == [("refused", "amount_too_large")] * 2


async def test_another_currency_of_a_payout_closes_no_case(at_now: World) -> None:
    """Nor does looking again, while the difference is there (finding 11)."""
    settler = Settler(at_now)
    fees = [a_line(LineKind.FEE, -100), a_line(LineKind.FEE, -100, currency="USD")]
    await settler.settles(Content(fees, payouts=[stated(-50), stated(-100, currency="USD")]))
    fee = a_line(LineKind.FEE, -7, currency="USD", at=4)
    await settler.settles(Content([fee], payouts=[stated(-107, currency="USD")]))
    assert await settler.cases() == [("payout_differs", 50)]
    await at_now.execute("UPDATE cases SET status = 'resolved', resolution = 'settled', resolved_at = now()")
    await settler.settles_again()
    assert await settler.cases() == [("payout_differs", 50)]
