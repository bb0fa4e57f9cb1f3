"""Lines of settlement files, as every gateway's format is turned into them: typed, signed, integer minor units."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class LineKind(StrEnum):
    """What a line moves on the balance that the gateway keeps for us."""

    SALE = "sale"
    REFUND = "refund"
    REFUND_REVERSAL = "refund_reversal"
    """A refund that failed or was taken back: the money is with us again."""
    CHARGEBACK = "chargeback"
    CHARGEBACK_REVERSAL = "chargeback_reversal"
    FEE = "fee"
    """A fee that belongs to no sale: a monthly one, a dispute's."""
    TAX = "tax"
    """Tax by itself, where a file writes it as a line of its own."""
    RESERVE = "reserve"
    """Kept back (negative) or let go again (positive)."""
    ADJUSTMENT = "adjustment"
    PAYOUT = "payout"
    """On its way to our bank: negative; a payout that came back: positive."""


ABOUT_A_PAYMENT = frozenset(
    {LineKind.SALE, LineKind.REFUND, LineKind.REFUND_REVERSAL, LineKind.CHARGEBACK, LineKind.CHARGEBACK_REVERSAL}
)
"""These are matched against payments; the others are classified and totalled."""


ROUNDING = "rounding"
"""``source_type`` of a line of ours: what the other lines of its payout, each rounded, lack to their exact sum. With a
``line_reference`` that names the payout."""


class SettlementLine(NamedTuple):
    """One effect on the balance. A tuple, because a file has millions of them.

    Signs are ours: what comes to us is positive. ``net_minor = gross_minor - fee_minor - tax_minor``, always; a fee
    that the gateway keeps is positive, one that it gives back negative. A row whose numbers do not add up so is no line
    but a BadRow. All amounts are minor units of ``currency``, in which the gateway keeps the balance.
    """

    line_number: int
    """The physical line (table) or the item's number (JSON) in the file, from 1."""
    part: int
    """0; a format that makes several lines of one row counts them."""
    kind: LineKind
    currency: str
    gross_minor: int
    fee_minor: int
    tax_minor: int
    """On the fee: GST or VAT."""
    net_minor: int
    occurred_at: datetime | None
    """Of the movement (not of the settlement), with its zone."""
    reference: str | None
    """The gateway's object that moved: its capture, refund or dispute."""
    parent_reference: str | None
    """Another id by which the gateway knows the payment: intent, order, session, the refunded capture."""
    our_reference: str | None
    """Our attempt's or operation's reference, where the file carries it."""
    line_reference: str | None
    """The gateway's own id of the line, unique at that gateway (Stripe's ``txn_…``)."""
    payout_reference: str | None
    """The payout that the line was paid out with: ``po_…``, ``setl_…``, a UTR."""
    presented_minor: int | None
    """What the shopper saw, signed as gross, where that is in another currency; else None."""
    presented_currency: str | None
    source_type: str
    """The gateway's own word for the kind, as it stands in the file; at most 64 characters."""


class StatedPayout(NamedTuple):
    """What the gateway, or the bank, says that it paid out (or took, negative). Several rows of one payout add up."""

    line_number: int
    payout_reference: str
    currency: str
    amount_minor: int
    """Positive: it came to our bank."""
    paid_at: datetime | None
    bank_reference: str | None

    @property
    def transfer(self) -> str:
        """Of one payout: what is stated of the same transfer again is a correction, another one is another part."""
        return self.bank_reference or (self.paid_at.isoformat() if self.paid_at else "")


class StatedTotal(NamedTuple):
    """A total that the file states about itself, to be compared with what was read."""

    line_number: int
    name: str
    """``rows``, ``net``, ``gross_credit``, …: a key of the comparison, not prose."""
    currency: str | None
    """None: a count."""
    stated: int
    counted: int


class BadRow(NamedTuple):
    """A row that could not be understood. It stops nothing; what it moves is unknown, which the file's report says."""

    line_number: int
    code: str
    """``amount_unreadable``, ``currency_unknown``, ``date_unreadable``, ``columns_missing``, ``sum_wrong``, …"""
    detail: str
    """For a person; names the column, and never repeats what a cell holds beyond 40 characters."""


Parsed = SettlementLine | StatedPayout | StatedTotal | BadRow


class FileStatus(StrEnum):
    RECEIVED = "received"
    """Stored and hashed; to be read."""
    READ = "read"
    """Its lines are stored and matched."""
    INCOMPLETE = "incomplete"
    """Its own totals or trailer say that a part of it is missing: nothing of it was applied (failure RC2)."""
    REFUSED = "refused"
    """It could not be read at all; ``problem`` says why."""


BANK_STATEMENT = "payout_statement"
"""The format that says what came to the bank, transfer by transfer; other files that state payouts state them whole."""


@dataclass(frozen=True, slots=True)
class SettlementFile:
    """A stored file. The same content for the same account is one file, whatever it was called (failure RC1)."""

    file_id: str
    gateway: str
    account: str
    """'' is the account without a name."""
    format: str
    format_version: int
    name: str
    """As it was called where it came from; shown, never used as a path."""
    source: str
    """``upload``, ``folder`` or ``report_api``."""
    received_by: str
    size_bytes: int
    content_bytes: int
    """After expansion."""
    content_sha256: bytes
    status: FileStatus
    received_at: datetime
    read_at: datetime | None = None
    problem: str | None = None
    """A code; with ``problem_detail`` for a person."""
    problem_detail: str | None = None
    rows: int = 0
    lines: int = 0
    repeated_lines: int = 0
    """Lines that an earlier file has told already."""
    bad_rows: int = 0
    covers_from: datetime | None = None
    covers_until: datetime | None = None
    """The times of its earliest and latest line about a payment."""
    result_digest: bytes | None = None
    """Of lines, matches and findings, in an order of their contents: the same inputs give the same digest."""
