"""PayU's answers as observations. Values change their type between text and number, so they are read as text first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import MAX_IDENTIFIER, UnexpectedShape, is_storable, object_of, sane
from shared.errors import InvalidAmount
from shared.money import Money

Json = Mapping[str, Any]

INDIA = timezone(timedelta(hours=5, minutes=30))
"""The zone of every time that PayU writes."""

OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")
PAYU_ID = re.compile(r"[0-9]{5,30}")
NOT_FOUND = "not found"

LAST_TRY = timedelta(hours=24)
"""How long after a try of the shopper another one may follow it: longer than a form of ours is shown."""

_NOTHING = re.compile(r"\bno (?:action|transaction|record)|\bnot found|\b0 out of", re.IGNORECASE)

_DEEPEST = 5
_MOST_DIGITS = 30


def scalar_text(value: Any) -> str | None:
    """A text or a number as the text that it was written as; None for anything else, and for nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    if isinstance(value, Decimal) and abs(value.adjusted()) > _MOST_DIGITS:  # written out it would fill the memory
        return None
    text = (f"{value:f}" if isinstance(value, Decimal) else str(value)).strip()
    return text if text and len(text) <= MAX_IDENTIFIER and is_storable(text) else None


def required_text(source: Json, key: str) -> str:
    value = scalar_text(source.get(key))
    if value is None:
        raise UnexpectedShape(f"{key} is missing")
    return value


def money_of(source: Json, key: str) -> Money:
    return sane(Money.from_major(required_text(source, key), "INR"))


def moment_of(source: Json, key: str = "addedon") -> datetime | None:
    text = scalar_text(source.get(key))
    if text is None or text.startswith("0000"):
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=INDIA).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def is_nothing(body: Json, sentences: Iterable[Any] = ()) -> bool:
    """Whether PayU says that there is none of what was asked for. An error is no such answer, whatever it says."""
    texts = tuple(sentences) or (body.get("msg"),)
    is_plain_no = scalar_text(body.get("status")) == "0" and scalar_text(body.get("error_code")) is None
    return is_plain_no and all(isinstance(text, str) and _NOTHING.search(text) is not None for text in texts)


# --- payments -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Payment:
    """One entry of ``verify_payment``, which stands for all that happened under our txnid."""

    body: Json
    txnid: str

    @property
    def payu_id(self) -> str | None:
        text = scalar_text(self.body.get("mihpayid"))
        return text if text is not None and PAYU_ID.fullmatch(text) else None

    @property
    def state(self) -> tuple[str, str]:
        """``status`` and ``unmappedstatus``, in lower case."""
        words = (scalar_text(self.body.get(name)) or "" for name in ("status", "unmappedstatus"))
        status, unmapped = (word.lower() for word in words)
        return status, unmapped

    @property
    def brought_money(self) -> bool:
        return self.state[0] == "success" and self.payu_id is not None

    @property
    def is_held(self) -> bool:
        return self.state == ("success", "auth")

    @property
    def is_untried(self) -> bool:
        """The shopper is on the page and nothing has gone to a bank."""
        return self.state == ("pending", "initiated")

    @property
    def references(self) -> tuple[str, ...]:
        return (self.txnid, self.payu_id) if self.payu_id else (self.txnid,)


def payment_in(body: Json, txnid: str) -> Payment | None:
    """None where PayU says that it knows no such txnid. Raises UnexpectedShape for any other answer without it."""
    entry = object_of(object_of(body, "transaction_details"), txnid)
    if not entry:
        raise UnexpectedShape("the answer is not about our txnid")
    if (scalar_text(entry.get("status")) or "").lower() == NOT_FOUND:
        return None
    if scalar_text(entry.get("txnid")) != txnid:
        raise UnexpectedShape("the answer is about another txnid")
    return Payment(entry, txnid)


def original_amount(entry: Json) -> Money:
    """What was asked for: without the surcharge that PayU may add for the shopper to pay."""
    if scalar_text(entry.get("transaction_amount")) is not None:
        return money_of(entry, "transaction_amount")
    total = money_of(entry, "amt")
    if scalar_text(entry.get("additional_charges")) is None:
        return total
    return total - money_of(entry, "additional_charges")


def observations_of(payment: Payment, now: datetime, *, other_tries: bool = False) -> Iterator[Observation]:
    """A word that is not documented is never a success and never a failure: it is under way, and asked about again.

    ``other_tries``: PayU has had more than one under our txnid, of which it shows only this one.
    """
    status, unmapped = payment.state
    name, at = payment.payu_id or payment.txnid, moment_of(payment.body)
    if status == "success" and unmapped in ("captured", "auth"):
        if payment.payu_id is None:
            raise UnexpectedShape("a success without PayU's id")
        kind = FactKind.CAPTURED if unmapped == "captured" else FactKind.AUTHORIZED
        yield Observation(kind, payment.payu_id, original_amount(payment.body), at)
    elif status == "failure":
        is_over = at is not None and now - at >= LAST_TRY and not other_tries
        yield from _page_over(payment) if is_over else _try_over(payment)
    elif payment.is_untried:
        yield Observation(FactKind.SESSION_OPENED, payment.txnid)
    else:
        yield Observation(FactKind.PROCESSING, name, occurred_at=at)


def _try_over(payment: Payment) -> Iterator[Observation]:
    """What has failed is one try. The form opens another under the same txnid, which may be at a bank by now.

    ``bounced``: the shopper has left without one.
    """
    yield Observation(FactKind.SESSION_OPENED, payment.txnid)
    unmapped, name = payment.state[1], payment.payu_id or payment.txnid
    if unmapped != "bounced":
        why = _why(payment.body, unmapped)
        yield Observation(FactKind.DECLINED, name, occurred_at=moment_of(payment.body), reason=why)


def _page_over(payment: Payment) -> Iterator[Observation]:
    """Of the page, not of the try: a bank's late yes makes the same try one that holds money."""
    unmapped = payment.state[1]
    kind = {"usercancelled": FactKind.CANCELED, "bounced": FactKind.EXPIRED}.get(unmapped, FactKind.FAILED)
    why = _why(payment.body, unmapped)
    yield Observation(kind, payment.txnid, occurred_at=moment_of(payment.body), reason=why)


def _why(entry: Json, unmapped: str) -> str:
    code = scalar_text(entry.get("error_code"))
    return code if code not in (None, "E000") else unmapped or "failed"


# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """One capture, refund or cancellation, as ``check_action_status`` tells it."""

    body: Json

    @property
    def kind(self) -> str:
        return (scalar_text(self.body.get("action")) or "").lower()

    @property
    def token(self) -> str | None:
        return scalar_text(self.body.get("token"))

    @property
    def is_ours(self) -> bool:
        return self.token is not None and OUR_REFERENCE.fullmatch(self.token) is not None

    @property
    def request_id(self) -> str:
        return required_text(self.body, "request_id")

    @property
    def status(self) -> str:
        """``success``, ``failure``, or anything else, which is not the end."""
        return (scalar_text(self.body.get("status")) or "").lower()

    @property
    def amount(self) -> Money:
        return money_of(self.body, "amt")


@dataclass(frozen=True, slots=True)
class Actions:
    """All of one payment. ``unread``: how many more are listed that are not understood, or are of another payment."""

    listed: tuple[Action, ...] = ()
    unread: int = 0

    def with_token(self, token: str) -> Action | None:
        return next((action for action in self.listed if action.token == token), None)


def actions_in(body: Json, payu_id: str) -> Actions:
    """Empty where PayU says, in place of the list, that there are none. Raises UnexpectedShape for anything else.

    They are nested under the id that was asked for, and once more under their own, so this walks down to where a
    ``status`` appears.
    """
    leaves = list(_leaves(body.get("transaction_details"), _DEEPEST))
    rows = [Action(leaf) for leaf in leaves if isinstance(leaf, dict) and "status" in leaf]
    if rows:
        own = tuple(row for row in rows if scalar_text(row.body.get("mihpayid")) == payu_id)
        return Actions(own, len(leaves) - len(own))
    if not is_nothing(body, leaves):
        raise UnexpectedShape("neither actions nor the word that there are none")
    return Actions()


def _leaves(node: Any, depth: int) -> Iterator[Any]:
    """The rows, and what stands in their place."""
    if isinstance(node, dict) and "status" not in node and depth > 0:
        for value in node.values():
            yield from _leaves(value, depth - 1)
    elif node not in (None, "", []):
        yield node


_REFUND_KINDS: Mapping[str, FactKind] = {"success": FactKind.REFUND_SUCCEEDED, "failure": FactKind.REFUND_FAILED}


def observations_of_actions(actions: Actions, payu_id: str) -> tuple[list[Observation], int]:
    """Row by row, so that one without an amount does not hide the others; and how many could not be read."""
    found, unread = [], actions.unread
    for action in actions.listed:
        try:
            observation = action_observation(action, payu_id)
        except (UnexpectedShape, InvalidAmount):
            unread += 1
            continue
        if observation is not None:
            found.append(observation)
    return found, unread


def action_observation(action: Action, payu_id: str) -> Observation | None:
    """None for a capture or cancellation that has not come to anything (yet), and for what is neither nor a refund.

    Of captures only our own count here, whose amount we have set: what an automatic one shows may have the surcharge in
    it, and ``verify_payment`` has told of that one already.
    """
    if action.kind == "refund":
        return refund_observation(action, payu_id)
    if action.status != "success":
        return None
    if action.kind == "capture" and action.is_ours:
        return Observation(FactKind.CAPTURED, payu_id, action.amount)
    return Observation(FactKind.CANCELED, payu_id, reason="hold_released") if action.kind == "cancel" else None


def refund_observation(action: Action, payu_id: str) -> Observation:
    kind = _REFUND_KINDS.get(action.status, FactKind.REFUND_PENDING)
    return Observation(
        kind,
        action.request_id,
        action.amount,
        reason="refund_failed" if kind is FactKind.REFUND_FAILED else None,
        about=payu_id,
        operation=action.token if action.is_ours else None,
    )


# --- lists ----------------------------------------------------------------------------------------------------------


def rows_in(body: Json) -> list[Json]:
    rows = body.get("Transaction_details")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnexpectedShape("Transaction_details is not a list")
    return rows


def row_observations(row: Json, payu_id: str) -> tuple[Observation, ...]:
    """Only a capture is told apart from everything else; what the rest came to, ``verify_payment`` says better."""
    status = (scalar_text(row.get("status")) or "").lower()
    is_capture = (scalar_text(row.get("action")) or "").lower() == "capture" and status == "success"
    if status != "captured" and not is_capture:
        return ()
    try:
        return (Observation(FactKind.CAPTURED, payu_id, money_of(row, "transaction_fee"), moment_of(row)),)
    except (UnexpectedShape, InvalidAmount):
        return ()
