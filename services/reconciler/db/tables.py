"""The tables of the reconciler."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    CHAR,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.reconciler.domain.cases import Action, CaseKind, CaseStatus, Scenario
from services.reconciler.domain.mirror import MovementKind
from services.reconciler.domain.models import RunStatus
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.domain.settlement import FileStatus, LineKind
from shared.db.base import currency, metadata_for, one_of, timestamp

metadata = metadata_for("reconciler")


def _values(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in enum)


TOTALS = (
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_dispute_lost",
)

watched_payments = Table(
    "watched_payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    timestamp("payment_created_at"),
    timestamp("status_since"),  # or since its money last moved: the plan begins there
    timestamp("first_seen_at"),
    timestamp("next_check_at", nullable=True),  # NULL: dropped, kept only so that old news are recognised
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    timestamp("last_checked_at", nullable=True),
    Column("last_error", Text),
    Column("asked_by_run", Text),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in TOTALS),
    Column("outcome_unknown", Boolean, nullable=False, server_default="false"),
    timestamp("capture_before", nullable=True),
    Column("method", Text),
    one_of("status", _values(PaymentStatus)),
    CheckConstraint(" AND ".join(f"{name} >= 0" for name in TOTALS), name="totals_not_negative"),
    CheckConstraint("version > 0", name="version_positive"),
    CheckConstraint("amount_minor >= 0", name="amount_not_negative"),
    CheckConstraint("checks >= 0 AND failures >= 0", name="counts_not_negative"),
    CheckConstraint("asked_by_run IS NULL OR next_check_at IS NOT NULL", name="asked_is_watched"),
    Index("ix_watched_payments_next_check_at", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
    Index(
        "ix_watched_payments_dropped",
        text("GREATEST(status_since, last_checked_at)"),
        "payment_id",
        postgresql_where=text("next_check_at IS NULL"),
    ),
    Index("ix_watched_payments_asked_by_run", "asked_by_run", postgresql_where=text("asked_by_run IS NOT NULL")),
)

reconciliation_runs = Table(
    "reconciliation_runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("gateway", Text),
    Column("status", Text, nullable=False),
    timestamp("started_at"),
    timestamp("finished_at", nullable=True),
    timestamp("window_from", nullable=True),
    timestamp("window_to", nullable=True),
    Column("matched", BigInteger, nullable=False, server_default="0"),
    Column("checked", BigInteger, nullable=False, server_default="0"),
    Column("changed", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    Column("asked_by", Text),  # who asked for it; NULL: the schedule
    Column("holder", Text),
    Column("file_id", Text),  # of a settlement run that reads one file
    Column("phase", Text),  # what it is at: pulling, reading, matching, deciding, acting
    Column("done", BigInteger, nullable=False, server_default="0"),  # of this phase
    Column("total", BigInteger),  # of this phase, where it is known
    Column("cases_opened", BigInteger, nullable=False, server_default="0"),
    Column("cases_resolved", BigInteger, nullable=False, server_default="0"),
    Column("totals", JSONB, nullable=False, server_default=text("'[]'::jsonb")),  # per gateway and currency
    Column("problem", Text),  # why it failed: a code
    Column("attempts", Integer, nullable=False, server_default="0"),
    one_of("kind", ("sweep", "settlement", "orders")),
    one_of("status", _values(RunStatus)),
    CheckConstraint("matched >= 0 AND checked >= 0 AND changed >= 0 AND failed >= 0", name="counts_not_negative"),
    CheckConstraint("changed <= checked", name="changed_were_checked"),
    CheckConstraint("(status = 'running') = (finished_at IS NULL)", name="ended_has_end"),
    CheckConstraint("window_from < window_to", name="window_forward"),
    Index("ix_reconciliation_runs_running", "run_id", postgresql_where=text("status = 'running'")),
)

gateway_pauses = Table(
    "gateway_pauses",
    metadata,
    Column("gateway", Text, primary_key=True),
    timestamp("paused_until"),
    Column("in_a_row", Integer, nullable=False),
    CheckConstraint("in_a_row > 0", name="in_a_row_positive"),
)
"""A gateway that did not answer rests as a whole: its payments keep their dates and their counts of checks."""

sweep_days = Table(
    "sweep_days",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("day", Date, primary_key=True),  # UTC, of the check
    Column("checked", BigInteger, nullable=False, server_default="0"),
    Column("learnt_first", BigInteger, nullable=False, server_default="0"),
    Column("failed", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("learnt_first <= checked", name="learnt_were_checked"),
)
"""What the sweep learnt before any webhook did: how many webhooks a gateway loses."""

# What the owners say: pulled from their exports, newest version wins.

known_payments = Table(
    "known_payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in TOTALS),
    Column("amount_excess", BigInteger, nullable=False, server_default="0"),
    Column("outcome_unknown", Boolean, nullable=False, server_default="false"),
    timestamp("unknown_since", nullable=True),
    Column("conflict", Text),
    Column("duplicate_of", Text),
    Column("gateway_reference", Text),
    timestamp("created_at"),
    timestamp("updated_at"),
    one_of("status", _values(PaymentStatus)),
    CheckConstraint("version > 0", name="version_positive"),
    Index("ix_known_payments_order_id", "order_id"),
    Index("ix_known_payments_updated_at", "updated_at"),
)

known_movements = Table(
    "known_movements",
    metadata,
    Column("payment_id", Text, ForeignKey("known_payments.payment_id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("reference", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("our_reference", Text),
    Column("amount_minor", BigInteger, nullable=False),
    currency(),
    timestamp("occurred_at"),
    Column("is_withheld", Boolean, nullable=False, server_default="false"),
    one_of("kind", _values(MovementKind)),
    CheckConstraint("amount_minor > 0", name="amount_positive"),
    Index("ix_known_movements_reference", "gateway", "reference"),
    Index(
        "ix_known_movements_our_reference",
        "gateway",
        "our_reference",
        postgresql_where=text("our_reference IS NOT NULL"),
    ),
    Index("ix_known_movements_occurred_at", "gateway", "account", "occurred_at"),
)
"""Captures, refunds and chargebacks that succeeded; replaced as a whole with each newer version of their payment."""

known_references = Table(
    "known_references",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True, server_default=""),
    Column("reference", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("known_payments.payment_id"), nullable=False),
    Index("ix_known_references_payment_id", "payment_id"),
)

known_orders = Table(
    "known_orders",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("payment_status", Text, nullable=False),
    Column("attention", Text),
    Column("total_minor", BigInteger, nullable=False),
    currency(),
    Column("confirmed_by", Text),
    Column("version", BigInteger, nullable=False),
    timestamp("created_at"),
    timestamp("updated_at"),
    Index("ix_known_orders_updated_at", "updated_at"),
    Index("ix_known_orders_confirmed_by", "confirmed_by", postgresql_where=text("confirmed_by IS NOT NULL")),
)

known_order_payments = Table(
    "known_order_payments",
    metadata,
    Column("payment_id", Text, primary_key=True),
    Column("order_id", Text, ForeignKey("known_orders.order_id"), nullable=False),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("amount_captured", BigInteger, nullable=False),
    Column("amount_refunded", BigInteger, nullable=False),
    Column("resolution", Text),
    Index("ix_known_order_payments_order_id", "order_id"),
)

known_parked_events = Table(
    "known_parked_events",
    metadata,
    Column("parked_id", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("delivery_id", Text, nullable=False),
    Column("event_type", Text),
    Column("status", Text, nullable=False),
    Column("refs", ARRAY(Text), nullable=False),
    timestamp("received_at"),
    timestamp("seen_at"),  # when the pull that last saw it began; what a later whole pull lacks is gone
)

pull_marks = Table(
    "pull_marks",
    metadata,
    Column("source", Text, primary_key=True),
    timestamp("pulled_until"),  # everything of before has been read; the next pull begins a little earlier
    timestamp("whole_at", nullable=True),  # when the last pull of all there is began
)

# Settlement files, their lines and what was paid out.

settlement_files = Table(
    "settlement_files",
    metadata,
    Column("file_id", Text, primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("format", Text, nullable=False),
    Column("format_version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("received_by", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("content_bytes", BigInteger, nullable=False),
    Column("content_sha256", LargeBinary, nullable=False),
    Column("status", Text, nullable=False),
    Column("problem", Text),
    Column("problem_detail", Text),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("lines", BigInteger, nullable=False, server_default="0"),
    Column("repeated_lines", BigInteger, nullable=False, server_default="0"),
    Column("bad_rows", BigInteger, nullable=False, server_default="0"),
    timestamp("covers_from", nullable=True),
    timestamp("covers_until", nullable=True),
    Column("result_digest", LargeBinary),
    Column("booking_held", Boolean, nullable=False, server_default="false"),  # its ledger commands wait for a person
    timestamp("received_at"),
    timestamp("read_at", nullable=True),
    one_of("status", _values(FileStatus)),
    one_of("source", ("upload", "folder", "report_api")),
    CheckConstraint("octet_length(content_sha256) = 32", name="content_has_a_digest"),
    Index("uq_settlement_files_content", "gateway", "account", "content_sha256", unique=True),
    Index("ix_settlement_files_waiting", "file_id", postgresql_where=text("status = 'received'")),
    Index("ix_settlement_files_booking_held", "gateway", "account", postgresql_where=text("booking_held")),
)

settlement_file_chunks = Table(
    "settlement_file_chunks",
    metadata,
    Column("file_id", Text, ForeignKey("settlement_files.file_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""The file as it came, byte for byte, in pieces. STORAGE EXTERNAL (0003): compressing it again would only cost time."""

settlement_file_problems = Table(
    "settlement_file_problems",
    metadata,
    Column("file_id", Text, ForeignKey("settlement_files.file_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("line_number", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""The first bad rows of a file, up to a bound; settlement_files.bad_rows counts all."""

settlement_lines = Table(
    "settlement_lines",
    metadata,
    # No foreign key: checking it for each of a million lines takes longer than storing them. Files are not deleted.
    Column("file_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),  # in the order of the file, from 1
    Column("line_id", BigInteger, Identity(always=True), nullable=False),  # only an order of arrival: no index
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False, server_default=""),
    Column("line_number", BigInteger, nullable=False),
    Column("part", SmallInteger, nullable=False),
    Column("kind", Text, nullable=False),
    currency(),
    Column("gross_minor", BigInteger, nullable=False),
    Column("fee_minor", BigInteger, nullable=False),
    Column("tax_minor", BigInteger, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    timestamp("occurred_at", nullable=True),
    Column("reference", Text),
    Column("parent_reference", Text),
    Column("our_reference", Text),
    Column("line_reference", Text),
    Column("payout_reference", Text),
    Column("presented_minor", BigInteger),
    Column("presented_currency", CHAR(3)),
    Column("source_type", Text, nullable=False),
    Column("identity", BigInteger, nullable=False),  # its hour and a hash of its content: finds candidates
    Column("occurrence", Integer, nullable=False),  # of that content within the file, from 1: a genuine pair is two
    Column("repeats", Boolean, nullable=False, server_default="false"),  # an earlier file told it; it counts nothing
    Column("payment_id", Text),
    Column("movement_reference", Text),
    Column("matched_by", Text),
    one_of("kind", _values(LineKind)),
    one_of("matched_by", ("reference", "payment", "our_reference", "person")),
    CheckConstraint("net_minor = gross_minor - fee_minor - tax_minor", name="net_adds_up"),
    CheckConstraint("(payment_id IS NULL) = (matched_by IS NULL)", name="matched_has_rule"),
    Index("ix_settlement_lines_identity", "identity"),
    Index("ix_settlement_lines_payment_id", "payment_id", postgresql_where=text("payment_id IS NOT NULL")),
    Index(
        "ix_settlement_lines_unmatched",
        "gateway",
        "account",
        "identity",
        postgresql_where=text(
            "payment_id IS NULL AND NOT repeats AND kind IN"
            " ('sale', 'refund', 'refund_reversal', 'chargeback', 'chargeback_reversal')"
        ),
    ),
)

settlement_payouts = Table(
    "settlement_payouts",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True, server_default=""),
    Column("payout_reference", Text, primary_key=True),
    Column("currency", CHAR(3), primary_key=True),
    Column("lines_minor", BigInteger, nullable=False, server_default="0"),  # sum of the nets of its lines
    Column("lines", BigInteger, nullable=False, server_default="0"),
    Column("paid_minor", BigInteger),  # by lines of kind payout, positive to us; NULL: there are none
    Column("statement_minor", BigInteger),  # the sum of settlement_statements, the bank's first; NULL: there is none
    # What the gateway or the bank says; NULL: nobody has said it yet.
    Column("stated_minor", BigInteger, Computed("COALESCE(statement_minor, paid_minor)", persisted=True)),
    timestamp("paid_at", nullable=True),
    Column("bank_reference", Text),
    Column("booked_minor", BigInteger, nullable=False, server_default="0"),  # of stated_minor, told to the ledger
    Column("rounding_minor", BigInteger, nullable=False, server_default="0"),  # of the difference, told as adjustment
    timestamp("first_seen_at"),
    timestamp("updated_at"),
    Index("ix_settlement_payouts_bank_reference", "gateway", "account", "bank_reference"),
)
"""Unexplained is ``stated_minor - lines_minor``, always: it is computed where it is read, and stored nowhere."""

settlement_statements = Table(
    "settlement_statements",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True, server_default=""),
    Column("payout_reference", Text, primary_key=True),
    Column("currency", CHAR(3), primary_key=True),
    Column("transfer", Text, primary_key=True),  # the bank's reference or else the time of it; '': the gateway says it
    Column("amount_minor", BigInteger, nullable=False),
)
"""What is stated that a payout paid, but for what lines say: stated again it is corrected, another transfer adds."""

# Cases.

cases = Table(
    "cases",
    metadata,
    Column("case_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("scenario", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("gateway", Text),
    Column("account", Text, nullable=False, server_default=""),
    Column("order_id", Text),
    Column("payment_id", Text),
    Column("file_id", Text),
    Column("line_number", BigInteger),
    Column("payout_reference", Text),
    Column("currency", CHAR(3)),
    Column("expected_minor", BigInteger),
    Column("actual_minor", BigInteger),
    Column("difference_minor", BigInteger),
    Column("action", Text),
    Column("evidence", JSONB, nullable=False),
    Column("owner", Text),
    timestamp("held_at", nullable=True),
    Column("requested_action", Text),
    Column("requested_by", Text),
    Column("request_reason", Text),
    timestamp("opened_at"),
    timestamp("last_seen_at"),
    Column("last_seen_run", Text),
    timestamp("resolved_at", nullable=True),
    Column("resolved_by", Text),
    Column("resolution", Text),
    Column("reason", Text),
    one_of("kind", _values(CaseKind)),
    one_of("scenario", _values(Scenario)),
    one_of("status", _values(CaseStatus)),
    one_of("action", _values(Action)),
    one_of("requested_action", _values(Action)),
    CheckConstraint("(status = 'resolved') = (resolved_at IS NOT NULL)", name="resolved_has_time"),
    CheckConstraint("difference_minor = actual_minor - expected_minor", name="difference_is_signed"),
    Index("uq_cases_unresolved_key", "key", unique=True, postgresql_where=text("status <> 'resolved'")),
    Index("ix_cases_accepted_key", "key", postgresql_where=text("resolution = 'accepted'")),
    Index("ix_cases_held_at", "held_at", postgresql_where=text("held_at IS NOT NULL")),
    Index("ix_cases_status", "status", "case_id"),
    Index("ix_cases_payment_id", "payment_id", postgresql_where=text("payment_id IS NOT NULL")),
    Index("ix_cases_order_id", "order_id", postgresql_where=text("order_id IS NOT NULL")),
    Index("ix_cases_file_id", "file_id", postgresql_where=text("file_id IS NOT NULL")),
)

case_actions = Table(
    "case_actions",
    metadata,
    Column("case_id", Text, ForeignKey("cases.case_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("action", Text, nullable=False),
    Column("command_key", Text, nullable=False, unique=True),
    Column("asked_by", Text, nullable=False),
    timestamp("at"),
    timestamp("verified_at", nullable=True),
    one_of("action", _values(Action)),
    Index(
        "ix_case_actions_money_by_policy",
        "at",
        postgresql_where=text("asked_by = 'policy' AND action IN ('refund', 'cancel_order')"),
    ),
)

case_notes = Table(
    "case_notes",
    metadata,
    Column("case_id", Text, ForeignKey("cases.case_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("author", Text, nullable=False),
    Column("text", Text, nullable=False),
    timestamp("at"),
)
