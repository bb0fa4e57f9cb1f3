"""The cases that every gateway has to pass, written once. Nothing here knows a gateway by its name.

A case that a gateway cannot have says why (``lacks``): then it is the refusal that is tested, or that the gap is one of
the gateway's and not of ours.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from services.gateway_sandbox.gateways.registry import sandbox_definitions
from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.gateways.port import Capability, Facts
from services.webhook_ingest.signatures.port import PreparingScheme, RawDelivery, Refusal, Verification
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.registry import build_registry, registrations
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from shared.money import CURRENCY_EXPONENT, Money
from shared.ports import system_ports
from tests.conformance.market import HELD_SECONDS, Market, Sent
from tests.support.waiting import until

_TELLING: Final = ("status", "amount_authorized", "amount_captured", "amount_excess", "failure_code", "facts")
_NOT_PAID: Final = frozenset({"declined", "failed", "canceled", "operation_failed", "operation_refused"})
WITH_MONEY: Final = frozenset({"authorized", "partially_captured", "captured"})
_USUAL: Final = ("INR", "USD", "SAR", "AED", "EUR", "KWD")
_THREE_DECIMALS: Final = ("KWD", "BHD", "OMR")
_ODD_MINOR: Final = 25_037
"""Such an amount shows a lost digit, and is large enough for every gateway."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A gateway as the suite knows it: what it says of itself."""

    facts: Facts
    registration: Registration
    live: Facts | None = None
    """As the account that is set up here has them: it may take fewer currencies."""

    def here(self, market: Market) -> Subject:
        return replace(self, live=market.payment.gateways.get(self.name).facts)

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def money(self) -> Money:
        return Money(_ODD_MINOR, next(each for each in _USUAL if self.takes(each)))

    def takes(self, currency: str) -> bool:
        found = (self.live or self.facts).currencies
        return found is None or currency in found

    def can(self, *capabilities: Capability) -> bool:
        return self.facts.capabilities.issuperset(capabilities)

    def why_not(self, *capabilities: Capability) -> str | None:
        missing = [each for each in capabilities if each not in self.facts.capabilities]
        return self.facts.not_offered[missing[0]] if missing else None

    def why_untrusted(self, trait: Trait) -> str | None:
        return self.registration.not_offered.get(trait)


def subjects() -> dict[str, Subject]:
    """Every gateway that is registered with all of its three parts."""
    definitions, known, played = gateway_definitions(), registrations(), sandbox_definitions()
    lacking = set(definitions) - (set(known) & set(played))
    assert not lacking, f"without a scheme or a sandbox nothing can be shown of {sorted(lacking)}"
    return {name: Subject(definition.facts, known[name]) for name, definition in definitions.items()}


Run = Callable[[Market, Subject], Awaitable[None]]
Lacks = Callable[[Subject], str | None]


@dataclass(frozen=True, slots=True)
class Case:
    """``lacks`` gives the reason why a gateway cannot have it; ``refused`` then tests that it is refused."""

    title: str
    run: Run
    lacks: Lacks = field(default=lambda _subject: None)
    refused: Run | None = None


CASES: dict[str, Case] = {}


def case(title: str, *, lacks: Lacks | None = None, refused: Run | None = None) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        name = getattr(run, "__name__")  # noqa: B009 - a callable need not have one, these do
        CASES[name] = Case(title, run, lacks or (lambda _subject: None), refused)
        return run

    return register


def needs(*capabilities: Capability) -> Lacks:
    return lambda subject: subject.why_not(*capabilities)


# --- the page and what the shopper does ------------------------------------------------------------------------------


@case("session")
async def session(market: Market, subject: Subject) -> None:
    payment = await market.open(subject.name, subject.money)
    assert payment["status"] == "requires_action"
    entry = await market.entry(payment)
    assert (entry["amount_minor"], entry["currency"]) == (subject.money.amount_minor, subject.money.currency)
    assert entry["captured_minor"] == 0


@case("success")
async def success(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    await books_agree(market, payment, captured=subject.money.amount_minor)


@case("decline")
async def decline(market: Market, subject: Subject) -> None:
    payment = await market.open(subject.name, subject.money)
    await market.shopper(payment, "fail")
    await market.learns(payment, _NOT_PAID)
    await unpaid(market, payment)


@case("abandonment")
async def abandonment(market: Market, subject: Subject) -> None:
    """Nobody pays. Waiting is not failing; closing it ends it, and nothing was taken."""
    payment = await market.open(subject.name, subject.money)
    seen = await market.sync(payment)
    assert seen["status"] in ("requires_action", "processing")
    answer = await market.call("POST", f"/payments/{payment['payment_id']}/close", {"reason": "order_expired"})
    if subject.can(Capability.CLOSE_SESSION):
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] in ("canceled", "expired")
    await unpaid(market, payment)


@case("expiry")
async def expiry(market: Market, subject: Subject) -> None:
    payment = await market.open(subject.name, subject.money)
    await market.shopper(payment, "expire")
    await _has_ended(market, subject, payment)
    await unpaid(market, payment)


async def _has_ended(market: Market, subject: Subject, payment: Mapping[str, Any]) -> None:
    """Where the gateway tells at once that a page's time is over; others know nothing of a page that nobody paid."""
    if subject.facts.expires_silently is None:
        await market.learns(payment, frozenset({"expired", "canceled", "failed"}))
    else:
        await market.sync(payment)


@case("late success")
async def late_success(market: Market, subject: Subject) -> None:
    """Money that arrives after the end is still money."""
    payment = await market.open(subject.name, subject.money)
    await market.shopper(payment, "expire")
    await _has_ended(market, subject, payment)
    await market.shopper(payment, "succeed", late=True)
    await market.becomes(payment, status="captured", amount_captured=subject.money.amount_minor)
    await books_agree(market, payment, captured=subject.money.amount_minor)


# --- webhooks --------------------------------------------------------------------------------------------------------


@case("duplicate webhooks")
async def duplicate_webhooks(market: Market, subject: Subject) -> None:
    async with market.faults(subject.name, {"operation": "webhook", "kind": "duplicate", "copies": 2, "count": None}):
        payment = await market.paid(subject.name, subject.money)
        await market.deliveries_of(payment)
    await market.quiet()
    seen = await market.see(payment)
    assert seen["amount_captured"] == subject.money.amount_minor
    captured = [fact for fact in seen["facts"] if fact["kind"] == "captured"]
    assert len({(fact["object_reference"], fact["amount"]["amount_minor"]) for fact in captured}) == len(captured)
    await books_agree(market, payment, captured=subject.money.amount_minor)


@case("reordered webhooks")
async def reordered_webhooks(market: Market, subject: Subject) -> None:
    """The first delivery arrives after those that came later."""
    fault = {"operation": "webhook", "kind": "reorder", "seconds": 0.3}
    async with market.faults(subject.name, fault):
        payment = await market.open(subject.name, subject.money)
        await market.shopper(payment, "succeed")
        await market.becomes(payment, amount_captured=subject.money.amount_minor)
        await market.deliveries_of(payment)
    await market.quiet()
    await books_agree(market, payment, captured=subject.money.amount_minor)


@case("tampered body")
async def tampered_body(market: Market, subject: Subject) -> None:
    """The genuine word about one payment, made into one about another, with the genuine signature."""
    paid = await market.paid(subject.name, subject.money)
    genuine = await market.deliveries_of(paid)
    victim = await market.open(subject.name, subject.money)
    forgeries = [forged for sent in genuine[-3:] for forged in forgeries_of(sent, paid, victim)]
    assert forgeries
    taken_in = []
    for forged in forgeries:
        answer = await market.deliver(forged)
        if subject.why_untrusted(Trait.WHOLE_BODY) is None:
            assert answer.status_code in (400, 401), (subject.name, answer.status_code)
        assert answer.status_code in (200, 400, 401), (subject.name, answer.status_code)
        taken_in += [answer.json()["delivery_id"]] if answer.status_code == 200 else []
    assert await market.trust_in(taken_in) <= {"hint"}, "a body that nobody signed is believed"
    await market.quiet()
    await unpaid(market, victim)
    assert (await market.see(paid))["amount_captured"] == subject.money.amount_minor


@case("wrong secret")
async def wrong_secret(market: Market, subject: Subject) -> None:
    genuine = await a_delivery(market, subject)
    others = other_secrets(market, subject)
    assert (await verified_with(market, subject, genuine, others)).refusal is not None
    assert (await verified_with(market, subject, genuine, market.variables)).verified


@case("rotated secret")
async def rotated_secret(market: Market, subject: Subject) -> None:
    """While a secret is being changed, what was signed with the old one is still good."""
    genuine = await a_delivery(market, subject)
    name = subject.registration.secret_variable
    others = other_secrets(market, subject)
    both = {**market.variables, name: f"{others[name]},{market.variables[name]}"}
    assert (await verified_with(market, subject, genuine, both)).verified


@case("old timestamp", lacks=lambda subject: subject.why_untrusted(Trait.TIMESTAMP))
async def old_timestamp(market: Market, subject: Subject) -> None:
    genuine = await a_delivery(market, subject)
    late = await verified_with(market, subject, genuine, market.variables, later=timedelta(days=1))
    assert late.refusal is Refusal.TIMESTAMP_OUT_OF_TOLERANCE


@case("replay")
async def replay(market: Market, subject: Subject) -> None:
    """A delivery that comes again, much later or not, changes nothing."""
    payment = await market.paid(subject.name, subject.money)
    genuine = (await market.deliveries_of(payment))[-1]
    await market.quiet()
    before = await market.see(payment)
    assert (await market.deliver(genuine)).status_code == 200
    await market.quiet()
    assert (await market.see(payment))["version"] == before["version"]


@case("wrong amount")
async def wrong_amount(market: Market, subject: Subject) -> None:
    await _shown_otherwise(market, subject, {})


def _one_currency(subject: Subject) -> str | None:
    if subject.facts.currencies is not None and len(subject.facts.currencies) == 1:
        return f"one currency only ({next(iter(subject.facts.currencies))})"
    return None


@case("wrong currency", lacks=_one_currency)
async def wrong_currency(market: Market, subject: Subject) -> None:
    mine = subject.money.currency
    alike = _THREE_DECIMALS if mine in _THREE_DECIMALS else (*_USUAL, "GBP", "QAR")
    stated = subject.facts.currencies
    other = next(each for each in alike if each != mine and (stated is None or each in stated))
    await _shown_otherwise(market, subject, {"currency": other})


async def _shown_otherwise(market: Market, subject: Subject, params: Mapping[str, Any]) -> None:
    """The gateway tells another amount or currency than was asked for: never paid, and a person looks."""
    kinds = [
        {"operation": operation, "kind": "wrong_amount", "count": None, **params}
        for operation in ("webhook", "retrieve", "list")
    ]
    async with market.faults(subject.name, *kinds):
        payment = await market.open(subject.name, subject.money)
        await market.shopper(payment, "succeed")

        async def noticed() -> bool:
            seen = await market.see(payment)
            assert seen["status"] != "captured", seen
            refused = any(fact["kind"] == "operation_refused" for fact in seen["facts"])  # completing it was refused
            assert refused or seen["conflict"], [seen[name] for name in _TELLING]
            return True

        await until(noticed, within_seconds=20, what=f"{subject.name}: the conflict")


# --- amounts and words -----------------------------------------------------------------------------------------------


def _no_three_decimals(subject: Subject) -> str | None:
    if any(map(subject.takes, _THREE_DECIMALS)):
        return None
    return "no currency with three decimals"


async def _refuses_dinars(market: Market, subject: Subject) -> None:
    await refused_before_any_row(market, market.order(subject.name, Money(12_345, "KWD")), "currency_not_supported")


@case("three-decimal currency", lacks=_no_three_decimals, refused=_refuses_dinars)
async def three_decimals(market: Market, subject: Subject) -> None:
    """12.345 stays 12.345 from the page to the refund; what the wire cannot say is refused before anything is made."""
    currency = next(each for each in _THREE_DECIMALS if subject.takes(each))
    order = market.order(subject.name, Money(12_345, currency))
    answer = await market.call("POST", "/payments", order)
    amount_minor = 12_345
    if answer.status_code == 422:  # a gateway whose last digit is always zero: said before any row
        assert answer.json()["code"] in ("currency_not_supported", "invalid_amount"), answer.text
        amount_minor = 12_340
    payment = await market.paid(subject.name, Money(amount_minor, currency))
    entry = await books_agree(market, payment, captured=amount_minor)
    assert entry["currency"] == currency


@case("long references and texts")
async def long_references(market: Market, subject: Subject) -> None:
    name = "Maximiliane Alexandrina von und zu Hohenlohe-Waldenburg-Schillingsfürst " * 2
    order = market.order(
        subject.name,
        subject.money,
        description="Tea " * 60,
        customer={"email": f"{'a' * 60}@{'b' * 60}.example", "name": name[:200]},
        items=[
            {"name": "Oolong " * 25, "quantity": 1, "unit_amount_minor": subject.money.amount_minor} for _ in range(1)
        ],
    )
    payment = await market.create(order)
    await market.visit(payment)
    await market.shopper(payment, "succeed")
    await market.becomes(payment, status="captured")
    [attempt] = payment["attempts"]
    assert re.fullmatch(r"[0-9A-Z]{20}", attempt["reference"])


@case("non-ASCII names")
async def non_ascii_names(market: Market, subject: Subject) -> None:
    order = market.order(
        subject.name,
        subject.money,
        description="Tee für zwei – 茶 🍵 <b>&amp;\"'|~^",
        customer={"email": "zoe@example.com", "name": "Zoë Łukasiewicz 山田太郎 محمد"},
        items=[{"name": "Grüner Tee 茶 | & <x>", "quantity": 1, "unit_amount_minor": subject.money.amount_minor}],
    )
    payment = await market.create(order)
    await market.visit(payment)
    await market.shopper(payment, "succeed")
    await market.becomes(payment, status="captured")


@case("unknown status is never success")
async def unknown_status(market: Market, subject: Subject) -> None:
    """The webhook is lost, and the gateway answers with a word that nobody documents."""
    lost = {"operation": "webhook", "kind": "lose", "count": None}
    strange = [{"operation": each, "kind": "unknown_status", "count": None} for each in ("retrieve", "list")]
    async with market.faults(subject.name, lost, *strange):
        payment = await market.open(subject.name, subject.money)
        await market.shopper(payment, "succeed")
        answer = await market.call("POST", f"/payments/{payment['payment_id']}/sync")
        assert answer.status_code in (200, 502, 503), answer.text
        assert (await market.see(payment))["status"] in ("requires_action", "processing"), (
            "unknown is not failed either"
        )
    await market.sync(payment)
    await market.becomes(payment, status="captured")


@case("forged browser return")
async def forged_return(market: Market, subject: Subject) -> None:
    """What a browser brings back is not read: only the gateway's own word counts."""
    payment = await market.open(subject.name, subject.money)
    path = f"/api/v1/payments/{payment['payment_id']}/return"
    claim = {"status": "success", "payment_status": "paid", "RESPCODE": "01", "txnid": payment["payment_id"]}
    for answer in (
        await market.payments_http.get(path, params=claim),
        await market.payments_http.post(path, data=claim, headers={"Origin": "https://evil.example"}),
    ):
        assert answer.status_code == 303, answer.text
        assert httpx.URL(answer.headers["location"]).params["status"] not in WITH_MONEY
    await unpaid(market, payment)


@case("browser return")
async def browser_return(market: Market, subject: Subject) -> None:
    """With its webhook lost, a payment is learnt of when the shopper comes back."""
    async with market.faults(subject.name, {"operation": "webhook", "kind": "lose", "count": None}):
        payment = await market.open(subject.name, subject.money)
        await market.shopper(payment, "succeed")
        path = f"/api/v1/payments/{payment['payment_id']}/return"
        answer = await market.payments_http.post(path, data={"anything": "at all"})
        assert answer.status_code == 303, answer.text
    await market.becomes(payment, status="captured")


# --- held money ------------------------------------------------------------------------------------------------------


async def _refuses_manual(market: Market, subject: Subject) -> None:
    order = market.order(subject.name, subject.money, capture="manual")
    await refused_before_any_row(market, order, "capability_not_supported")


async def held(market: Market, subject: Subject) -> dict[str, Any]:
    return await market.paid(subject.name, subject.money, capture="manual")


@case("capture", lacks=needs(Capability.MANUAL_CAPTURE), refused=_refuses_manual)
async def capture(market: Market, subject: Subject) -> None:
    payment = await held(market, subject)
    assert (await market.move(payment, "captures")).status_code in (201, 202)
    await market.becomes(payment, status="captured", amount_captured=subject.money.amount_minor)
    await books_agree(market, payment, captured=subject.money.amount_minor)


async def _refuses_part(market: Market, subject: Subject) -> None:
    if not subject.can(Capability.MANUAL_CAPTURE):
        await _refuses_manual(market, subject)
        return
    payment = await held(market, subject)
    assert (await market.move(payment, "captures", 10_000)).status_code == 422
    assert (await market.entry(payment))["captured_minor"] == 0


@case("partial capture", lacks=needs(Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE), refused=_refuses_part)
async def partial_capture(market: Market, subject: Subject) -> None:
    payment = await held(market, subject)
    assert (await market.move(payment, "captures", 10_000, final=True)).status_code in (201, 202)
    await market.becomes(payment, amount_captured=10_000)
    await books_agree(market, payment, captured=10_000)


@case(
    "several captures",
    lacks=needs(Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE, Capability.SEVERAL_CAPTURES),
)
async def several_captures(market: Market, subject: Subject) -> None:
    payment = await held(market, subject)
    for amount_minor, so_far in ((10_000, 10_000), (5_037, 15_037), (10_000, 25_037)):
        answer = await market.move(payment, "captures", amount_minor, final=so_far == subject.money.amount_minor)
        assert answer.status_code in (201, 202), answer.text
        await market.becomes(payment, amount_captured=so_far)
    await books_agree(market, payment, captured=subject.money.amount_minor)


@case("over-capture", lacks=needs(Capability.MANUAL_CAPTURE))
async def over_capture(market: Market, subject: Subject) -> None:
    payment = await held(market, subject)
    answer = await market.move(payment, "captures", subject.money.amount_minor + 1)
    assert answer.status_code in (409, 422), answer.text
    assert (await market.entry(payment))["captured_minor"] == 0
    assert (await market.see(payment))["amount_captured"] == 0


async def _refuses_void(market: Market, subject: Subject) -> None:
    if not subject.can(Capability.MANUAL_CAPTURE):
        await _refuses_manual(market, subject)
        return
    payment = await held(market, subject)
    assert (await market.move(payment, "void")).status_code == 422
    assert (await market.entry(payment))["status"] == "authorized"


@case("void", lacks=needs(Capability.MANUAL_CAPTURE, Capability.VOID), refused=_refuses_void)
async def void(market: Market, subject: Subject) -> None:
    payment = await held(market, subject)
    assert (await market.move(payment, "void")).status_code in (201, 202)
    await market.becomes(payment, status="canceled", amount_captured=0)
    entry = await market.entry(payment)
    assert (entry["captured_minor"], entry["status"]) == (0, "canceled")


# --- refunds ---------------------------------------------------------------------------------------------------------


@case("full refund")
async def full_refund(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    await market.refund(payment)
    await refunded(market, subject, payment, subject.money.amount_minor)


async def _refuses_partial_refund(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    assert (await market.move(payment, "refunds", 1_037)).status_code == 422
    assert (await market.entry(payment))["refunded_minor"] == 0


@case("partial refunds", lacks=needs(Capability.PARTIAL_REFUND), refused=_refuses_partial_refund)
async def partial_refunds(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    await market.refund(payment, 1_037)
    await refunded(market, subject, payment, 1_037)
    await market.refund(payment, 10_000)
    await refunded(market, subject, payment, 11_037)


@case("over-refund")
async def over_refund(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    answer = await market.move(payment, "refunds", subject.money.amount_minor + 1)
    assert answer.status_code in (409, 422), answer.text
    assert (await market.entry(payment))["refunded_minor"] == 0


def _refunds_are_final(subject: Subject) -> str | None:
    return subject.facts.refunds_are_final


@case("asynchronous refund", lacks=_refunds_are_final)
async def asynchronous_refund(market: Market, subject: Subject) -> None:
    """Accepted first and settled later: pending is neither done nor failed."""
    payment = await market.paid(subject.name, subject.money)
    async with market.faults(subject.name, {"operation": "refund", "kind": "pending"}):
        refund = await market.refund(payment)
    seen = await market.operation("refunds", refund)
    assert seen["status"] in ("submitted", "pending"), seen
    assert (await market.see(payment))["amount_refunded"] == 0
    await refunded(market, subject, payment, subject.money.amount_minor)
    assert (await market.operation("refunds", refund))["status"] == "succeeded"


@case("failing refund", lacks=_refunds_are_final)
async def failing_refund(market: Market, subject: Subject) -> None:
    """Accepted, and failed later: the money is the shop's again, and can be refunded once more."""
    payment = await market.paid(subject.name, subject.money)
    async with market.faults(subject.name, {"operation": "refund", "kind": "pending"}):
        refund = await market.refund(payment)
    [entry_refund] = (await market.entry(payment))["refunds"]
    answer = await market.sandbox.control(subject.name, f"refunds/{entry_refund['refund_id']}", status="failed")
    assert answer.status_code == 200, answer.text

    async def known() -> bool:
        await market.sync(payment)
        return bool((await market.operation("refunds", refund))["status"] == "failed")

    await until(known, within_seconds=20, what=f"{subject.name}: the failed refund")
    seen = await market.see(payment)
    assert (seen["amount_refunded"], seen["amount_refundable"]) == (0, subject.money.amount_minor)


@case("refused refund")
async def refused_refund(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    async with market.faults(subject.name, {"operation": "refund", "kind": "reject"}):
        answer = await market.move(payment, "refunds")
    assert answer.status_code in (201, 202), answer.text
    assert answer.json()["status"] in ("failed", "unknown"), answer.text
    assert (await market.entry(payment))["refunded_minor"] == 0
    assert (await market.see(payment))["amount_refunded"] == 0


@case("refund in the dashboard")
async def dashboard_refund(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    path = f"sessions/{await market.session_of(payment)}/refunds"
    assert (await market.sandbox.control(subject.name, path, amount_minor=subject.money.amount_minor)).is_success
    await refunded(market, subject, payment, subject.money.amount_minor)


@case("dispute", lacks=needs(Capability.DISPUTES))
async def dispute(market: Market, subject: Subject) -> None:
    """What is disputed cannot be refunded beside it; a dispute that is won takes nothing, one that is lost is gone."""
    whole = subject.money.amount_minor
    for status, disputed, lost in (("won", 0, 0), ("lost", whole, whole)):
        payment = await market.paid(subject.name, subject.money)
        path = f"sessions/{await market.session_of(payment)}/disputes"
        opened = await market.sandbox.control(subject.name, path)
        assert opened.is_success, opened.text
        await market.comes_to(payment, amount_disputed=whole, amount_dispute_lost=0)
        refused = await market.move(payment, "refunds")
        assert (refused.status_code, refused.json()["code"]) == (409, "payment_disputed")
        dispute_id = opened.json()["disputes"][-1]["dispute_id"]
        ended = await market.sandbox.control(subject.name, f"disputes/{dispute_id}", status=status)
        assert ended.is_success, ended.text
        await market.comes_to(payment, amount_disputed=disputed, amount_dispute_lost=lost)


# --- a gateway that misbehaves ---------------------------------------------------------------------------------------


@case("timeout before the work")
async def timeout_before(market: Market, subject: Subject) -> None:
    await _misbehaves(market, subject, {"kind": "timeout_before", "seconds": HELD_SECONDS})


@case("timeout after the work")
async def timeout_after(market: Market, subject: Subject) -> None:
    await _misbehaves(market, subject, {"kind": "timeout_after", "seconds": HELD_SECONDS}, is_done=True)


@case("429")
async def rate_limited(market: Market, subject: Subject) -> None:
    await _misbehaves(market, subject, {"kind": "rate_limit", "retry_after": 0})


@case("5xx")
async def server_error(market: Market, subject: Subject) -> None:
    await _misbehaves(market, subject, {"kind": "error_5xx", "status": 503})


@case("unparsable answer")
async def unparsable_answer(market: Market, subject: Subject) -> None:
    await _misbehaves(market, subject, {"kind": "unparsable"}, is_done=True)


async def _misbehaves(market: Market, subject: Subject, fault: Mapping[str, Any], *, is_done: bool = False) -> None:
    """First while the page is opened, then while money is given back: money moves once, or not at all.

    ``is_done``: the work was done although the answer was no use; then it has to be found.
    """
    async with market.faults(subject.name, {"operation": "create_session", **fault}):
        payment = await market.create_somehow(market.order(subject.name, subject.money))
        is_opened_by_us = payment["next_action"]["type"] == "redirect"
        assert not (is_opened_by_us and await market.faults_left(subject.name)), "the fault hit nobody"
        await market.sandbox.client.delete(f"/sandbox/control/{subject.name}/faults")  # where a browser opens the page
        await market.visit(payment)
    await market.shopper(payment, "succeed")
    payment = await market.becomes(payment, status="captured")
    # A part, so that the gateway's books would take a second one.
    back = 1_037 if subject.can(Capability.PARTIAL_REFUND) else subject.money.amount_minor
    async with market.faults(subject.name, {"operation": "refund", **fault}):
        answer = await market.move(payment, "refunds", back)
        assert answer.status_code in (201, 202), answer.text
        assert not await market.faults_left(subject.name), "the fault hit nobody"
        await _told_once(market, subject, payment, answer.json(), back, is_done=is_done)


async def _told_once(
    market: Market,
    subject: Subject,
    payment: Mapping[str, Any],
    refund: Mapping[str, Any],
    back: int,
    *,
    is_done: bool,
) -> None:

    async def decided() -> bool:
        await market.sync(payment)
        entry = await market.entry(payment)
        assert entry["refunded_minor"] in (0, back), "the money went back twice"
        seen, operation = await market.see(payment), await market.operation("refunds", refund)
        if entry["refunded_minor"]:
            assert operation["status"] != "failed", "the gateway did it, and we say that it failed"
            await _settle_pending(market, subject, entry)
            return bool(seen["amount_refunded"] == back)
        # Not done: then it is unknown, or will be tried again, or is proved not to have happened.
        assert seen["amount_refunded"] == 0
        return not is_done and str(operation["status"]) in ("unknown", "failed", "canceled")

    await until(decided, within_seconds=25, what=f"{subject.name}: one refund or a clear answer")


# --- lists and files -------------------------------------------------------------------------------------------------


async def _refuses_to_list(market: Market, subject: Subject) -> None:
    now = market.payment.ports.clock.now()
    window = f"since={_query(now - timedelta(hours=1))}&until={_query(now + timedelta(hours=1))}"
    answer = await market.call("GET", f"/gateways/{subject.name}/payments?{window}")
    assert (answer.status_code, answer.json()["code"]) == (422, "capability_not_supported")


@case("list by window", lacks=needs(Capability.LIST_BY_WINDOW), refused=_refuses_to_list)
async def listing(market: Market, subject: Subject) -> None:
    payment = await market.paid(subject.name, subject.money)
    now = market.payment.ports.clock.now()
    window = f"since={_query(now - timedelta(hours=1))}&until={_query(now + timedelta(hours=1))}"
    found, cursor = [], ""
    for _ in range(20):
        answer = await market.call("GET", f"/gateways/{subject.name}/payments?{window}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [each for each in page["data"] if each["payment_id"] == payment["payment_id"]]
        if page["next_cursor"] is None:
            break
        cursor = "&" + urlencode({"cursor": page["next_cursor"]})
    assert found, "the list does not have it, or we did not know it again"
    told = [o for each in found for o in each["observations"]]
    captured = [o for o in told if o["kind"] == "captured"]
    assert captured or not told, "its list tells of it, and not that it is paid"
    assert all(o["amount"]["amount_minor"] == subject.money.amount_minor for o in captured)


async def _refuses_to_report(market: Market, subject: Subject) -> None:
    answer = await market.call("GET", f"/gateways/{subject.name}/settlement-reports?day=2026-01-05")
    assert (answer.status_code, answer.json()["code"]) == (422, "capability_not_supported")


@case("settlement report", lacks=needs(Capability.SETTLEMENT_REPORT), refused=_refuses_to_report)
async def settlement_report(market: Market, subject: Subject) -> None:
    """What the gateway's own API says of the day names what was paid, by an id that we know."""
    payment = await market.paid(subject.name, subject.money)
    entry = await market.entry(payment)
    known = {entry["gateway_reference"], entry["payment_reference"], entry["reference"]} - {None}
    known |= {capture["capture_id"] for capture in entry["captures"]}
    contents = []
    today = market.payment.ports.clock.now().date()
    for later in (-1, 0, 1, 2):  # by its own calendar, and perhaps on the day after
        day = today + timedelta(days=later)
        answer = await market.call("GET", f"/gateways/{subject.name}/settlement-reports?day={day}")
        assert answer.status_code == 200, answer.text
        contents += [report["content"] for report in answer.json()["data"]]
    assert any(each in content for content in contents for each in known), "it is in no report"


@case("settlement file")
async def settlement_file(market: Market, subject: Subject) -> None:
    """The gateway's own file names what was paid, in its own format, by an id that we know."""
    amount = Money(31_873, subject.money.currency)
    payment = await market.paid(subject.name, amount)
    await market.refund(payment)
    await refunded(market, subject, payment, amount.amount_minor)
    now = market.payment.ports.clock.now()
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await market.sandbox.client.get(f"/sandbox/control/{subject.name}/settlement", params=window)
    assert answer.status_code == 200, answer.text
    entry = await market.entry(payment)
    known = {entry["gateway_reference"], entry["payment_reference"], entry["reference"]} - {None}
    known |= {capture["capture_id"] for capture in entry["captures"]}
    assert any(each in answer.text for each in known), "the file names the payment by none of its ids"
    major = Decimal(amount.amount_minor).scaleb(-CURRENCY_EXPONENT[amount.currency])
    written = [str(amount.amount_minor), f"{major:f}"]
    assert max(answer.text.count(each) for each in written) >= 2, "what was paid and what went back"


# --- what the cases are made of --------------------------------------------------------------------------------------


async def unpaid(market: Market, payment: Mapping[str, Any]) -> None:
    seen = await market.see(payment)
    assert seen["status"] not in WITH_MONEY, seen["status"]
    assert (seen["amount_captured"], seen["amount_authorized"]) == (0, 0)


async def books_agree(market: Market, payment: Mapping[str, Any], *, captured: int) -> dict[str, Any]:
    """The gateway's own books hold what we say, once."""
    entries = [entry for entry in await market.entries(payment) if entry["captured_minor"]]
    assert [entry["captured_minor"] for entry in entries] == [captured]
    seen = await market.see(payment)
    assert (seen["amount_captured"], seen["amount"]["currency"]) == (captured, entries[0]["currency"])
    return entries[0]


async def refunded(market: Market, subject: Subject, payment: Mapping[str, Any], amount_minor: int) -> None:
    """Until it is known to us; a gateway that settles refunds later does so now."""

    async def done() -> bool:
        await _settle_pending(market, subject, await market.entry(payment))
        await market.sync(payment)
        seen = await market.see(payment)
        return bool(seen["amount_refunded"] == amount_minor and seen["amount_refund_pending"] == 0)

    await until(done, within_seconds=20, what=f"{subject.name}: {amount_minor} refunded")
    entry = await market.entry(payment)
    assert entry["refunded_minor"] == amount_minor
    assert sum(each["amount_minor"] for each in entry["refunds"] if each["status"] == "succeeded") == amount_minor


async def _settle_pending(market: Market, subject: Subject, entry: Mapping[str, Any]) -> None:
    for each in entry["refunds"]:
        if each["status"] == "pending":
            answer = await market.sandbox.control(subject.name, f"refunds/{each['refund_id']}", status="succeeded")
            assert answer.status_code == 200, answer.text


async def refused_before_any_row(market: Market, order: Mapping[str, Any], code: str) -> None:
    answer = await market.call("POST", "/payments", order)
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert (await market.call("GET", f"/payments/{order['payment_id']}")).status_code == 404


async def a_delivery(market: Market, subject: Subject) -> Sent:
    """The latest that the gateway has signed about a payment; what it is about does not matter.

    Some gateways sign what they say about payments and not what they say about refunds.
    """
    if subject.name not in market.signed:
        payment = await market.paid(subject.name, subject.money)
        market.signed[subject.name] = (await market.deliveries_of(payment))[-1]
    return market.signed[subject.name]


def other_secrets(market: Market, subject: Subject) -> dict[str, str]:
    """The same settings with other secrets, in the gateway's own look."""
    made = sandbox_definitions()[subject.name].secrets(system_ports().randomness)
    return {**market.variables, subject.registration.secret_variable: made[subject.registration.secret_variable]}


async def verified_with(
    market: Market,
    subject: Subject,
    sent: Sent,
    variables: Mapping[str, str],
    *,
    later: timedelta = timedelta(),
) -> Verification:
    """What ingest's scheme says with these settings, now or later."""
    ports = market.payment.ports
    async with build_http_client(ports) as client:
        registry = build_registry(GatewayValues(variables), production=False, http=HttpCaller(client, ports))
        gateway = registry[subject.name]
        delivery = RawDelivery("POST", sent.path, "", tuple(sent.headers.items()), sent.body)
        at, scheme = sent.at + later, gateway.scheme
        if isinstance(scheme, PreparingScheme):
            scheme = await scheme.prepare(delivery, gateway.secrets, at)
        return scheme.verify(delivery, gateway.secrets, at)


def forgeries_of(sent: Sent, paid: Mapping[str, Any], victim: Mapping[str, Any]) -> list[Sent]:
    """The delivery with one payment's names in the place of the other's, and with single bytes changed."""
    renamed = renamed_body(sent.body, paid, victim)
    half_renamed = renamed_body(sent.body, paid, victim, only_ours=True)  # the paid one's ids at the gateway
    middle = len(sent.body) // 2
    spoilt = sent.body[:middle] + bytes([sent.body[middle] ^ 1]) + sent.body[middle + 1 :]
    more = (
        sent.body.rstrip()[:-1] + b' , "forged": 1}' if sent.body.rstrip().endswith(b"}") else sent.body + b"&forged=1"
    )
    bodies = {renamed, half_renamed, spoilt, more} - {sent.body}
    return [replace(sent, body=body) for body in sorted(bodies)]


def renamed_body(body: bytes, paid: Mapping[str, Any], victim: Mapping[str, Any], *, only_ours: bool = False) -> bytes:
    """What is said of one payment, said of another."""
    pairs = list(zip(_names_of(paid), _names_of(victim), strict=True))
    for one, other in pairs[:3] if only_ours else pairs:
        if one and other:
            body = body.replace(one.encode(), other.encode())
    return body


def _names_of(payment: Mapping[str, Any]) -> tuple[str | None, ...]:
    [attempt] = payment["attempts"]
    return (payment["payment_id"], payment["order_id"], attempt["reference"], attempt["gateway_reference"])


def _query(moment: Any) -> str:
    return str(moment.isoformat()).replace("+", "%2B")
