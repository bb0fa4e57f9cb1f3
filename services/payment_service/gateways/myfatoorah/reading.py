"""MyFatoorah's invoices and refunds, as observations.

One invoice may have many attempts, each with a ``PaymentId`` of its own. Holds and captures are about the attempt, so
that two paid attempts of one invoice show as money taken twice; whether the page is still open is about the invoice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    optional_identifier,
    optional_text,
    text_of,
)
from services.payment_service.gateways.myfatoorah.amounts import Account, decimal_of
from shared.errors import InvalidAmount
from shared.money import Money

Json = Mapping[str, Any]

OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")
_INVOICE_ID = re.compile(r"[0-9]{1,12}")
_HELD = re.compile(r"([A-Za-z0-9_]{1,64});hold=([0-9.]{1,20})")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]{1,9})?)?")

_PAID = frozenset({"paid", "duplicatepayment"})
_SUCCESS = frozenset({"succss", "success"})
"""The vendor's spelling first."""

SLOW_ATTEMPT = timedelta(days=1)
"""How long after the link's end an attempt may still be under way before it counts as abandoned."""

_REFUND_KINDS: Mapping[str, FactKind] = {
    "pending": FactKind.REFUND_PENDING,
    "refunded": FactKind.REFUND_SUCCEEDED,
    "canceled": FactKind.REFUND_FAILED,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    payment_id: str
    status: str
    amount: Money | None
    code: str | None
    date: str

    @property
    def has_paid(self) -> bool:
        return self.status in _SUCCESS

    @property
    def may_pay(self) -> bool:
        """Under way, or in a state that nobody documents: neither a success nor a failure."""
        return self.status not in ("failed", "canceled", "authorize") and not self.has_paid


@dataclass(frozen=True, slots=True)
class Invoice:
    invoice_id: str
    status: str
    our_reference: str | None
    payment_id: str | None
    """Ours, as its ``UserDefinedField`` echoes it."""
    held: Money | None
    """What was to be held first, as its ``UserDefinedField`` echoes it; None where the money is taken at once."""
    value: Money
    expires_at: datetime | None
    attempts: tuple[Attempt, ...]

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.invoice_id, *(attempt.payment_id for attempt in self.attempts))))

    @property
    def is_paid(self) -> bool:
        return self.status in _PAID

    def attempt(self, payment_id: str) -> Attempt:
        found = next((attempt for attempt in self.attempts if attempt.payment_id == payment_id), None)
        if found is None:
            raise UnexpectedShape("the invoice does not show the attempt that was asked about")
        return found

    def captured(self, attempt: Attempt) -> Money:
        """What was paid is on the attempt. A partial capture rewrites the invoice's value, and whether it rewrites the
        attempt's as well is not documented: the smaller one is what was taken."""
        amount = attempt.amount
        if amount is None:
            raise UnexpectedShape("a paid attempt has no amount")
        is_less = self.held is not None and amount.currency == self.value.currency and self.value < amount
        return self.value if is_less else amount


def is_invoice_id(reference: str) -> bool:
    """A PaymentId is longer."""
    return _INVOICE_ID.fullmatch(reference) is not None


def user_field(payment_id: str, held: Decimal | None) -> str:
    """What we have echoed in ``UserDefinedField``: whose it is, and how much is to be held before it is captured."""
    return payment_id if held is None else f"{payment_id};hold={held:f}"


def payment_id_of(source: Json, key: str = "UserDefinedField") -> str | None:
    """Our payment's id, of a field that others may have filled with anything."""
    value = source.get(key)
    plain = value.partition(";")[0] if isinstance(value, str) else ""
    return plain if re.fullmatch(r"[A-Za-z0-9_]{1,64}", plain) else None


def number_or_text(source: Json, key: str) -> str:
    """An id, which is a number in one answer and a string in the next."""
    value = source.get(key)
    return identifier_of({key: str(value)} if type(value) is int else source, key)


def invoice_of(data: Json, account: Account, zone: timezone) -> Invoice:
    """Of ``GetPaymentStatus``. Raises UnexpectedShape or InvalidAmount."""
    attempts = tuple(_attempt(entry, account) for entry in entries_of(data, "InvoiceTransactions"))
    value = Money.from_major(decimal_of(data.get("InvoiceValue")), account.currency)
    return Invoice(
        invoice_id=number_or_text(data, "InvoiceId"),
        status=text_of(data, "InvoiceStatus").strip().lower(),
        our_reference=optional_identifier(data, "CustomerReference"),
        payment_id=payment_id_of(data),
        held=_held(data, account),
        value=value,
        expires_at=_expiry(data, zone),
        attempts=tuple(sorted(attempts, key=lambda attempt: attempt.date)),
    )


def observations_of(invoice: Invoice, now: datetime) -> list[Observation]:
    """What an invoice with its attempts amounts to (fact sheet: Retrieve payment)."""
    declined = [
        Observation(FactKind.DECLINED, attempt.payment_id, reason=attempt.code or "declined")
        for attempt in invoice.attempts
        if attempt.status == "failed"
    ]
    if invoice.is_paid:
        return [*_paid(invoice), *declined]
    if invoice.status == "canceled":
        return [*_canceled(invoice, now), *declined]
    if invoice.status == "pending":
        return [*_pending(invoice, now), *declined]
    return [Observation(FactKind.PROCESSING, invoice.invoice_id), *declined]  # a word that nobody documents


def refund_observation(refund: Json, about: str, account: Account) -> Observation:
    """A status that is not known stays pending, so that a person is called when it does not end."""
    kind = _REFUND_KINDS.get(text_of(refund, "RefundStatus").strip().lower(), FactKind.REFUND_PENDING)
    ours = optional_identifier(refund, "ExternalIdentifier")
    return Observation(
        kind,
        number_or_text(refund, "RefundId"),
        account.money(refund, "Amount", "BaseCurrency"),
        reason="refund_canceled" if kind is FactKind.REFUND_FAILED else None,
        about=about,
        operation=ours if ours is not None and OUR_REFERENCE.fullmatch(ours) else None,
    )


def _paid(invoice: Invoice) -> Iterator[Observation]:
    paid = [attempt for attempt in invoice.attempts if attempt.has_paid]
    for attempt in paid:
        taken = invoice.captured(attempt)
        yield Observation(FactKind.CAPTURED, attempt.payment_id, taken)
        if invoice.held is not None and taken.currency == invoice.held.currency and taken < invoice.held:
            yield Observation(FactKind.RELEASED, attempt.payment_id)
    if not paid:  # paid, and no attempt that says by what
        yield Observation(FactKind.PROCESSING, invoice.invoice_id)


def _canceled(invoice: Invoice, now: datetime) -> Iterator[Observation]:
    """An attempt that has paid, or may still pay, outweighs the invoice's word: it may be about to say so."""
    is_alive = _may_bring_money(invoice, now)
    kind = FactKind.PROCESSING if is_alive else FactKind.CANCELED
    yield Observation(kind, invoice.invoice_id)
    for attempt in invoice.attempts:
        if attempt.status in ("authorize", "canceled"):
            yield from _let_go(invoice, attempt, is_alive=is_alive)


def _pending(invoice: Invoice, now: datetime) -> Iterator[Observation]:
    held = [attempt for attempt in invoice.attempts if attempt.status == "authorize"]
    released = [attempt for attempt in invoice.attempts if attempt.status == "canceled"]
    is_alive = _may_bring_money(invoice, now)
    for attempt in released:
        if invoice.held is None:  # the shopper has only left this attempt, and the page is still open
            yield Observation(FactKind.DECLINED, attempt.payment_id, reason="canceled")
        else:
            yield from _let_go(invoice, attempt, is_alive=is_alive or bool(held))
    for attempt in held:
        yield Observation(FactKind.AUTHORIZED, attempt.payment_id, attempt.amount)
    if held or (released and invoice.held is not None and not is_alive):
        return
    yield _without_money(invoice, now)


def _let_go(invoice: Invoice, attempt: Attempt, *, is_alive: bool) -> Iterator[Observation]:
    """The end of one attempt's hold. It is the end of the payment only where no other attempt may bring money."""
    if not is_alive:
        yield Observation(FactKind.CANCELED, attempt.payment_id)
    elif invoice.held is not None:
        yield Observation(FactKind.RELEASED, attempt.payment_id)


def _may_bring_money(invoice: Invoice, now: datetime) -> bool:
    """Whether an attempt has paid, though the invoice does not say so yet, or is under way; whichever came last."""
    is_soon = _late_by(invoice, now) < SLOW_ATTEMPT
    return any(attempt.has_paid or (attempt.may_pay and is_soon) for attempt in invoice.attempts)


def _late_by(invoice: Invoice, now: datetime) -> timedelta:
    """There is no status for an expired link: it follows from its time, which is its own zone's."""
    return now - invoice.expires_at if invoice.expires_at is not None else timedelta(seconds=-1)


def _without_money(invoice: Invoice, now: datetime) -> Observation:
    if _may_bring_money(invoice, now):
        return Observation(FactKind.PROCESSING, invoice.invoice_id)
    if _late_by(invoice, now) < timedelta():
        return Observation(FactKind.SESSION_OPENED, invoice.invoice_id)
    newest = invoice.attempts[-1] if invoice.attempts else None
    if newest is not None and all(attempt.status == "failed" for attempt in invoice.attempts):
        return Observation(FactKind.FAILED, invoice.invoice_id, reason=newest.code or "declined")
    return Observation(FactKind.EXPIRED, invoice.invoice_id)


def _attempt(entry: Json, account: Account) -> Attempt:
    status = text_of(entry, "TransactionStatus").strip().lower()
    counts = status in _SUCCESS or status == "authorize"
    key = "TransationValue" if "TransationValue" in entry else "TransactionValue"
    return Attempt(
        payment_id=number_or_text(entry, "PaymentId"),
        status=status,
        amount=account.money(entry, key, "Currency") if counts else None,
        code=optional_identifier(entry, "ErrorCode"),
        date=optional_identifier(entry, "TransactionDate") or "",
    )


def _held(data: Json, account: Account) -> Money | None:
    found = _HELD.fullmatch(optional_text(data, "UserDefinedField") or "")
    if found is None:
        return None
    try:
        return Money.from_major(found.group(2), account.currency)
    except InvalidAmount:
        return None


_MONTHS = "january february march april may june july august september october november december".split()


def _expiry(data: Json, zone: timezone) -> datetime | None:
    """``March 4, 2026`` and ``13:30:17.8120000``. None for what is written otherwise: then nothing expires by it."""
    date = re.fullmatch(r"([A-Za-z]+) ([0-9]{1,2}), ([0-9]{4})", (optional_text(data, "ExpiryDate") or "").strip())
    clock = _CLOCK.fullmatch((optional_text(data, "ExpiryTime") or "").strip())
    if date is None or clock is None or date.group(1).lower() not in _MONTHS:
        return None
    hour, minute, second = (int(part or 0) for part in clock.groups())
    try:
        return datetime(
            int(date.group(3)),
            _MONTHS.index(date.group(1).lower()) + 1,
            int(date.group(2)),
            hour,
            minute,
            second,
            tzinfo=zone,
        )
    except ValueError:
        return None
