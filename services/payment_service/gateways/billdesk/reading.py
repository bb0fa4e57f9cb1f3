"""BillDesk's objects as observations, from answers and webhooks alike: the same object always gives the same facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.billdesk.settings import ACCEPTED, BillDeskSettings
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_identifier,
    sane,
    text_of,
)
from shared.errors import InvalidAmount
from shared.money import Money
from shared.settings import split_list

Json = Mapping[str, Any]

INR = "356"
SUCCESS = "0300"
_CURRENCIES: Mapping[str, str] = {INR: "INR", "840": "USD", "978": "EUR", "826": "GBP", "784": "AED", "702": "SGD"}
"""ISO 4217's numbers. Only the first is ours; the others let a wrong currency be told from nonsense."""

_REFUND_KINDS: Mapping[tuple[bool, bool], FactKind] = {
    (False, False): FactKind.REFUND_PENDING,
    (False, True): FactKind.REFUND_SUCCEEDED,
    (True, False): FactKind.REFUND_FAILED,
}
_OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")


def to_rupees(amount: Money) -> str:
    """``499.00``. Raises CurrencyNotSupported."""
    if amount.currency != "INR":
        raise CurrencyNotSupported("BillDesk's orders are in INR")
    if amount.amount_minor <= 0:
        raise CurrencyNotSupported("BillDesk takes amounts above zero")
    return f"{amount.as_major():f}"


def money_of(source: Json, key: str = "amount") -> Money:
    """Raises UnexpectedShape, InvalidAmount."""
    currency = _CURRENCIES.get(text_of(source, "currency"))
    if currency is None:
        raise UnexpectedShape("a currency that BillDesk is not known to have")
    amount = sane(Money.from_major(text_of(source, key), currency))
    if amount.amount_minor < 0:
        raise UnexpectedShape(f"{key} is negative")
    return amount


def moment_of(source: Json, key: str) -> datetime | None:
    """None where it is absent or has no zone: nothing of importance hangs on it."""
    value = optional_identifier(source, key)
    try:
        moment = datetime.fromisoformat(value) if value is not None else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None


@dataclass(frozen=True, slots=True)
class Reader:
    """What the account's settings say about codes that no documentation explains."""

    settings: BillDeskSettings

    def transaction(self, body: Json, *, is_last: bool = False) -> Observation:
        """One try of the buyer. Only success and what is known to be its end are believed; all else is under way.

        ``is_last``: its order brings no other try, so that the payment ends with it. Otherwise a try that failed is a
        declined one, and the next may be under way already.
        """
        reference, status = identifier_of(body, "transactionid"), text_of(body, "auth_status")
        at = moment_of(body, "transaction_date")
        if status == SUCCESS and body.get("transaction_error_type") == "success":
            return Observation(FactKind.CAPTURED, reference, money_of(body), at)
        if status in split_list(self.settings.canceled_codes):
            kind = FactKind.CANCELED if is_last else FactKind.DECLINED
            return Observation(kind, reference, occurred_at=at, reason="canceled_by_buyer")
        if status in split_list(self.settings.failed_codes):
            kind = FactKind.FAILED if is_last else FactKind.DECLINED
            return Observation(kind, reference, occurred_at=at, reason=_failure_of(body))
        return Observation(FactKind.PROCESSING, reference, occurred_at=at)

    def refund(self, body: Json, now: datetime) -> Observation:
        """Accepted is not yet given back, and there is no word for given back: after a day it counts as that."""
        at, status = moment_of(body, "refund_date"), optional_identifier(body, "refund_status")
        has_failed = status in split_list(self.settings.refund_failed_codes)
        is_done = status in ACCEPTED and self._is_old_enough(at, now)
        return Observation(
            _REFUND_KINDS[has_failed, is_done],
            identifier_of(body, "refundid"),
            money_of(body, "refund_amount"),
            at,
            reason=status if has_failed else None,
            about=identifier_of(body, "transactionid"),
            operation=_operation_of(body),
        )

    def refunds_in(self, transaction: Json, now: datetime) -> list[Observation]:
        """``refund_details``, whose layout is documented nowhere: what does not look like a refund is passed over, and
        our own rows then know of it."""
        listed = transaction.get("refund_details")
        found: list[Observation] = []
        for entry in listed if isinstance(listed, list) else ():
            if not isinstance(entry, dict):
                continue
            about = {name: transaction.get(name) for name in ("transactionid", "currency")}
            try:
                found.append(self.refund({**about, **entry}, now))
            except (UnexpectedShape, InvalidAmount):
                continue
        return found

    def check_owner(self, body: Json) -> None:
        if body.get("mercid") != self.settings.merchant_id:
            raise UnexpectedShape("it is another merchant's")

    def _is_old_enough(self, at: datetime | None, now: datetime) -> bool:
        hours = self.settings.refund_final_after_hours
        return hours == 0 or (at is not None and now - at >= timedelta(hours=hours))


def _failure_of(body: Json) -> str:
    return optional_identifier(body, "transaction_error_type") or text_of(body, "auth_status")


def _operation_of(body: Json) -> str | None:
    """Our operation's reference; another one was typed by somebody in the dashboard."""
    reference = optional_identifier(body, "merc_refund_ref_no")
    return reference if reference is not None and _OUR_REFERENCE.fullmatch(reference) else None
