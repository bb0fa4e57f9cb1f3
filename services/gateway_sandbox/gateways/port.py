"""What a gateway brings to the sandbox, and what the sandbox lends it.

A gateway is its routes (method, path, the operation it counts as, a handler), its way of answering errors, its
checkout page, what an outcome means to it, and how it signs webhooks. Books, idempotency, faults, deliveries and the
page's HTML are shared: a handler gets a ``WireCall`` and the ``Books`` of one transaction and returns a ``WireAnswer``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, Protocol, TypeVar

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureStatus,
    DisputeStatus,
    Outcome,
    RefundStatus,
)


@dataclass(frozen=True, slots=True)
class WireCall:
    """One HTTP request to a gateway. Header names are in lower case; ``path`` starts after the gateway's name."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    body: bytes
    path_values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """``hold_seconds``: keep the caller waiting that long and then break off without an answer."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    hold_seconds: float | None = None

    @classmethod
    def json(cls, status: int, body: Any, headers: Mapping[str, str] | None = None) -> WireAnswer:
        return cls(status, to_json(body), headers or {})


class WireError(Exception):
    """A gateway says no, in its own words. ``stored`` tells whether its idempotency layer remembers this answer."""

    def __init__(self, answer: WireAnswer, *, stored: bool = True) -> None:
        super().__init__(answer.body)
        self.answer = answer
        self.stored = stored


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries a list call wants; None means any. Newest first, after the entry ``after``."""

    reference: str | None = None
    order_id: str | None = None
    paid_only: bool = False
    created_from: datetime | None = None
    created_before: datetime | None = None
    after: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event to be sent. ``render`` writes its exact body, from the entry or from a copy with a wrong amount."""

    event_id: str
    event_type: str
    entry: BookEntry
    render: Callable[[BookEntry], str]


class Books(Protocol):
    """A gateway's own books inside one transaction; everything done through them commits or vanishes together."""

    now: datetime
    answers_later: bool
    """The fault ``pending``: accept this capture or refund as pending; the control API settles it."""

    pending_code: str | None
    """Which kind of pending, in the gateway's own words, where the fault names one."""

    def word(self, text: str) -> str:
        """A status as the gateway writes it; under the fault ``unknown_status`` one that nobody documents."""
        ...

    def new_id(self, prefix: str, length: int = 24) -> str:
        """An unguessable id of letters and digits: ``pi_3Nf…``."""
        ...

    async def find(self, reference: str, *, for_update: bool = False) -> BookEntry | None:
        """By any id that this gateway gave the payment: session, payment, capture, refund, dispute, other alias."""
        ...

    async def search(self, wanted: EntryFilter) -> list[BookEntry]: ...

    async def alias(self, entry: BookEntry, other_id: str) -> None:
        """Let ``find`` know the entry by another id, an authorization's for example; repeating it changes nothing."""
        ...

    async def open(self, entry: BookEntry) -> None:
        """Add an entry; recorded as the operation ``create_session``."""
        ...

    async def record(self, entry: BookEntry, operation: str, amount_minor: int | None = None, **details: Any) -> None:
        """Save the entry as it is now, together with what happened to it."""
        ...

    async def add_refund(self, entry: BookEntry, refund: BookRefund) -> None:
        """Save the entry and the refund; recorded as the operation ``refund``."""
        ...

    async def save_refund(self, entry: BookEntry, refund: BookRefund, operation: str) -> None:
        """Save both as they are now; recorded as ``operation``."""
        ...

    async def find_refund(self, refund_id: str) -> BookRefund | None: ...

    async def refunds_of(self, entry: BookEntry) -> list[BookRefund]:
        """Newest first."""
        ...

    async def add_capture(self, entry: BookEntry, capture: BookCapture) -> None:
        """Save the entry and the capture; recorded as the operation ``capture``."""
        ...

    async def save_capture(self, entry: BookEntry, capture: BookCapture, operation: str) -> None: ...

    async def find_capture(self, capture_id: str) -> BookCapture | None: ...

    async def captures_of(self, entry: BookEntry) -> list[BookCapture]:
        """Newest first."""
        ...

    async def add_dispute(self, entry: BookEntry, dispute: BookDispute) -> None:
        """Save the entry and the dispute; recorded as the operation ``dispute``."""
        ...

    async def save_dispute(self, entry: BookEntry, dispute: BookDispute, operation: str) -> None: ...

    async def find_dispute(self, dispute_id: str) -> BookDispute | None: ...

    async def disputes_of(self, entry: BookEntry) -> list[BookDispute]:
        """Newest first."""
        ...

    async def movements(self, since: datetime, until: datetime) -> list[SettlementLine]:
        """What was captured, refunded or lost to disputes in ``[since, until)``, oldest first; payouts not named."""
        ...

    def announce(self, announcement: Announcement) -> None:
        """Send an event once this transaction has committed."""
        ...


Handler = Callable[[WireCall, Books], Awaitable[WireAnswer]]


@dataclass(frozen=True, slots=True)
class WireRoute:
    """``path`` may hold one ``{name}`` per segment; ``operation`` is what faults and books call it.

    ``wants``: where one address serves several calls, told apart by what they carry, whether this is its own. ``also``:
    other names that faults know it by, where the wire does not tell two operations apart.
    """

    method: str
    path: str
    operation: str
    handler: Handler
    wants: Callable[[WireCall], bool] | None = None
    also: tuple[str, ...] = ()

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The path's values when this route answers the call; None otherwise."""
        wanted, given = self.path.split("/"), path.split("/")
        if method != self.method or len(wanted) != len(given):
            return None
        values: dict[str, str] = {}
        for pattern, part in zip(wanted, given, strict=True):
            if pattern.startswith("{"):
                values[pattern[1:-1]] = part
            elif pattern != part:
                return None
        return values


@dataclass(frozen=True, slots=True)
class CheckoutLine:
    name: str
    quantity: int
    amount: str


@dataclass(frozen=True, slots=True)
class CheckoutView:
    """What the hosted page shows; the amounts are already written with the currency's own digits."""

    merchant: str
    gateway_title: str
    lines: Sequence[CheckoutLine]
    total: str
    currency: str
    is_manual_capture: bool
    cancel_explanation: str
    declined_message: str | None = None
    instrument: tuple[str, str] = ("Visa •••• 4242", "Test card")
    decline_label: str = "Decline the card"
    pay_explanation: str | None = None
    """Instead of the usual one, where paying means something else."""
    has_way_back: bool = True
    """Whether there is anywhere to go without paying."""


@dataclass(frozen=True, slots=True)
class FormPost:
    """The browser is sent on by a form that a page posts for it, as some gateways return to the shop."""

    url: str
    fields: Mapping[str, str]


Departure = str | FormPost
"""How the browser leaves the hosted page: to an address, or with a form that is posted there."""

SettlementKind = Literal["capture", "refund", "dispute"]


@dataclass(frozen=True, slots=True)
class Payout:
    """What the gateway says that it paid out, in one currency; negative where the shop owes it."""

    reference: str
    currency: str
    amount_minor: int
    bank_reference: str


@dataclass(frozen=True, slots=True)
class PayoutTerms:
    """In which currencies a gateway settles, its home currency first, and what it calls a day's payout in each.

    The patterns know ``day``, ``currency`` and ``number``: 1 for the home currency, 2 for the next. Several patterns of
    one kind are for the home currency and the others. A gateway whose file has no column for a currency has just one.
    """

    currencies: tuple[str, ...]
    reference: str
    bank_reference: str | None = None
    foreign_reference: str | None = None

    def payout(self, currency: str, day: date, amount_minor: int) -> Payout:
        known = self.currencies
        number = known.index(currency) + 1 if currency in known else int(currency, 36)
        is_home = currency == known[0]
        pattern = self.reference if is_home else self.foreign_reference or self.reference
        reference = pattern.format(day=day, currency=currency, number=number)
        bank_pattern = self.bank_reference or reference
        bank_reference = bank_pattern.format(day=day, currency=currency, number=number)
        return Payout(reference, currency, amount_minor, bank_reference)


NO_PAYOUT = Payout("", "", 0, "")
UNREADABLE = "n/a"

_Amount = TypeVar("_Amount", int, str)


@dataclass(frozen=True, slots=True)
class SettlementLine:
    """One movement of money that a settlement reports. Minor units; ``amount_minor`` is what the buyer paid, or got
    back, and is positive. ``object_id``: the gateway's id of the capture, refund or dispute. ``parent_id``: its id of
    the captured object that a refund or dispute takes from, where the books know which. ``is_unreadable``: the row's
    amount is to be written as something that is no number."""

    kind: SettlementKind
    entry: BookEntry
    object_id: str
    reference: str | None
    amount_minor: int
    fee_minor: int
    tax_minor: int
    at: datetime
    parent_id: str | None = None
    payout: Payout = NO_PAYOUT
    is_unreadable: bool = False

    @property
    def gross_minor(self) -> int:
        """Negative for what goes back to buyers."""
        return self.amount_minor if self.kind == "capture" else -self.amount_minor

    @property
    def net_minor(self) -> int:
        """What the shop's balance changes by: negative for what goes back to buyers."""
        return self.gross_minor - self.fee_minor - self.tax_minor

    def written(self, gross: _Amount) -> _Amount | str:
        """The cell of the gross amount."""
        return UNREADABLE if self.is_unreadable else gross


@dataclass(frozen=True, slots=True)
class SettlementFile:
    name: str
    content_type: str
    body: bytes


class SandboxGateway(Protocol):
    name: str
    routes: Sequence[WireRoute]
    payouts: PayoutTerms

    def authenticate(self, call: WireCall) -> None:
        """Raises WireError."""
        ...

    def idempotency_key(self, call: WireCall) -> str | None:
        """The key under which the answer is kept, if this call carries one that counts. Raises WireError."""
        ...

    def no_such_route(self, call: WireCall) -> WireError: ...

    def key_in_use(self) -> WireError: ...

    def key_reused(self, key: str) -> WireError: ...

    def broken(self, status: int) -> WireAnswer:
        """An error of the gateway's own making."""
        ...

    def too_busy(self, retry_after_seconds: int) -> WireAnswer: ...

    def refusal(self, operation: str, code: str | None) -> WireError:
        """The fault ``reject``: a business refusal of a capture, void or refund; without a code the usual one."""
        ...

    def finish(self, call: WireCall, answer: WireAnswer, request_id: str, *, replayed: bool) -> WireAnswer:
        """Put on the headers that every answer carries."""
        ...

    def checkout(self, entry: BookEntry) -> CheckoutView: ...

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> Departure | None:
        """The buyer decided: move the locked entry and return how the browser leaves, or None to stay on the page."""
        ...

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """The locked, open session's time is over."""
        ...

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        """The locked entry's authorization lapses, by itself at ``hold_expires_at`` or by the control API.

        Raises IllegalMove when nothing is held.
        """
        ...

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        """Somebody captures held money in the dashboard, finally. Raises IllegalMove, MoreThanThereIs."""
        ...

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        """A pending capture succeeds or fails: move the books and announce it. Raises IllegalMove."""
        ...

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        """Somebody refunds in the dashboard, without any reference of ours. Raises IllegalMove, MoreThanThereIs."""
        ...

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        """A pending refund succeeds or fails, or one that succeeded fails or is reversed. Raises IllegalMove."""
        ...

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        """The buyer disputes captured money, for the gateway's usual reason if none is given."""
        ...

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        """The dispute is won by the shop, or lost. Raises IllegalMove."""
        ...

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:
        """The headers of one delivery try; retries are signed afresh."""
        ...

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        """The file that the gateway gives the shop for a day, as its fact sheet writes it; oldest line first.

        Each line knows its payout. Totals that the file states about itself follow from the payouts.
        """
        ...
