"""Files and books for tests of settling: lines in memory instead of a parsed file; the mirror as pulling leaves it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from services.reconciler.domain.settlement import (
    ABOUT_A_PAYMENT,
    BadRow,
    LineKind,
    SettlementFile,
    SettlementLine,
    StatedPayout,
    StatedTotal,
)
from services.reconciler.domain.settlement_rules import SettlementRules
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.running import RunOutcome
from services.reconciler.use_cases.settle_file import settle_again, settle_file
from services.reconciler.use_cases.settlement_ports import Inspection, RawFile, ReadingReport
from tests.integration.reconciler.conftest import World

GATEWAY = "razorpay"
START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
NOW = datetime(2026, 1, 20, tzinfo=UTC)
SIGNS = {LineKind.SALE: 1, LineKind.REFUND: -1, LineKind.CHARGEBACK: -1}


def a_line(kind: LineKind = LineKind.SALE, gross: int = 1_000, **changes: Any) -> SettlementLine:
    """Minute ``at`` after START; gross signed; the fee is taken off the net."""
    fee, tax = changes.pop("fee", 0), changes.pop("tax", 0)
    at = START + timedelta(minutes=changes.pop("at", 0))
    line = SettlementLine(
        line_number=0,
        part=0,
        kind=kind,
        currency="INR",
        gross_minor=gross,
        fee_minor=fee,
        tax_minor=tax,
        net_minor=gross - fee - tax,
        occurred_at=at,
        reference=None,
        parent_reference=None,
        our_reference=None,
        line_reference=None,
        payout_reference="setl_1",
        presented_minor=None,
        presented_currency=None,
        source_type=kind.value,
    )
    return line._replace(**changes)


def copy_text(line: SettlementLine) -> bytes:
    def cell(value: object) -> str:
        if value is None:
            return r"\N"
        written = value.isoformat() if isinstance(value, datetime) else str(value)
        return written.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")

    return ("\t".join(cell(value) for value in line) + "\n").encode()


class Content:
    """What a file holds. ``breaks_after``: the reading raises ``breaks_with`` behind so many lines."""

    def __init__(
        self,
        lines: Sequence[SettlementLine],
        payouts: Sequence[StatedPayout] = (),
        totals: Sequence[StatedTotal] = (),
        bad_rows: Sequence[BadRow] = (),
        breaks_with: Exception | None = None,
    ) -> None:
        self.all = [line._replace(line_number=number) for number, line in enumerate(lines, start=2)]
        self.payouts, self.totals, self.bad_rows = tuple(payouts), tuple(totals), tuple(bad_rows)
        self.breaks_with = breaks_with

    @property
    async def lines(self) -> AsyncIterator[bytes]:
        whole = b"".join(copy_text(line) for line in self.all)
        for start in range(0, len(whole), 1_000):  # pieces end anywhere
            yield whole[start : start + 1_000]
        if self.breaks_with is not None:
            raise self.breaks_with

    def report(self) -> ReadingReport:
        times = [line.occurred_at for line in self.all if line.kind in ABOUT_A_PAYMENT and line.occurred_at]
        return ReadingReport(
            rows=len(self.all) + 1,
            lines=len(self.all),
            bad_rows=len(self.bad_rows),
            problems=self.bad_rows,
            payouts=self.payouts,
            totals=self.totals,
            covers_from=min(times, default=None),
            covers_until=max(times, default=None),
        )


class Shelf:
    """The SettlementReader: file ids and what they hold."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        raise AssertionError("files are put on the shelf, not received")

    @asynccontextmanager
    async def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AsyncIterator[Content]:
        yield self.contents[file.file_id]


class Settler:
    """One reconciler that settles files of an account."""

    def __init__(self, world: World, *, gateway: str = GATEWAY, **rules: Any) -> None:
        self.world = world
        self.gateway = gateway
        self.shelf = Shelf()
        self.phases: list[str] = []
        self.killed_in: str | None = None
        self.context: Context = replace(
            world.container.context,
            reader=self.shelf,
            settlement_rules=SettlementRules(**rules),
            command_key=b"k" * 32,
        )
        self._files = 0

    async def takes(
        self, content: Content | Sequence[SettlementLine], *, name: str = "a.csv", account: str = ""
    ) -> str:
        content = content if isinstance(content, Content) else Content(content)
        self._files += 1
        file_id = f"stf_{self._files:026}"
        self.shelf.contents[file_id] = content
        digest = hashlib.sha256(f"{self._files}{content.all}".encode()).digest()
        await self.world.execute(
            """
            INSERT INTO settlement_files (file_id, gateway, account, format, format_version, name, source, received_by,
                size_bytes, content_bytes, content_sha256, status, received_at)
            VALUES (:file_id, :gateway, :account, 'x', 1, :name, 'upload', 'ops', 1, 1, :digest, 'received', now())
            """,
            file_id=file_id,
            gateway=self.gateway,
            account=account,
            name=name,
            digest=digest,
        )
        return file_id

    async def settles(self, content: Content | Sequence[SettlementLine], **where: str) -> RunOutcome:
        file_id = await self.takes(content, **where)
        return await self.reads(file_id)

    async def reads(self, file_id: str, run_id: str = "run_1") -> RunOutcome:
        return await settle_file(file_id, run_id, self.context, self._progress)

    async def settles_again(self) -> RunOutcome:
        from services.reconciler.domain.models import RunRequest

        return await settle_again("run_again", RunRequest(), self.context, self._progress)

    async def _progress(self, phase: str, done: int = 0, total: int | None = None) -> None:
        self.phases.append(phase)
        if phase == self.killed_in:
            raise KeyboardInterrupt

    async def knows(self, number: int, *movements: tuple[str, int], currency: str = "INR", **changes: Any) -> str:
        """Payment ``number`` with its movements: kind and amount; references sale_1, refund_1 or refund_1_2."""
        payment_id = f"pay_{number:026}"
        values = {"id": payment_id, "order": f"ord_{number:026}", "gateway": self.gateway, "currency": currency}
        account = changes.get("account", "")
        await self.world.execute(
            """
            INSERT INTO known_payments (payment_id, order_id, gateway, account, status, version, amount_minor, currency,
                created_at, updated_at)
            VALUES (:id, :order, :gateway, :account, 'captured', 1, 1000, :currency, now(), now())
            ON CONFLICT DO NOTHING
            """,
            **values,
            account=account,
        )
        await self._write_references(payment_id, account, [f"order_{number}", f"OUR{number}"])
        counted: dict[str, int] = {}
        for kind, amount in movements:
            counted[kind] = counted.get(kind, 0) + 1
            suffix = f"_{counted[kind]}" if counted[kind] > 1 else ""
            await self.world.execute(
                """
                INSERT INTO known_movements (payment_id, kind, reference, gateway, account, amount_minor, currency,
                    occurred_at, is_withheld)
                VALUES (:id, :kind, :reference, :gateway, :account, :amount, :currency, :at, :withheld)
                ON CONFLICT DO NOTHING
                """,
                id=payment_id,
                kind="chargeback" if kind == "withheld" else kind,
                withheld=kind == "withheld",
                reference=f"{kind}_{number}{suffix}",
                gateway=self.gateway,
                account=account,
                amount=amount,
                currency=currency,
                at=START + timedelta(minutes=changes.get("at", 0)),
            )
        return payment_id

    async def _write_references(self, payment_id: str, account: str, references: Iterable[str]) -> None:
        for reference in references:
            await self.world.execute(
                """INSERT INTO known_references (gateway, account, reference, payment_id)
                VALUES (:gateway, :account, :reference, :id) ON CONFLICT DO NOTHING""",
                gateway=self.gateway,
                account=account,
                reference=reference,
                id=payment_id,
            )

    async def cases(self, *, resolved: bool = False) -> list[tuple[str, int | None]]:
        """Scenario and difference of the cases that are open (or resolved)."""
        rows = await self.world.rows(
            "SELECT scenario, difference_minor FROM cases WHERE (status = 'resolved') = :resolved"
            " ORDER BY scenario, difference_minor, key",
            resolved=resolved,
        )
        return [(row["scenario"], row["difference_minor"]) for row in rows]

    async def lines(self) -> list[dict[str, Any]]:
        """Lines without what depends on when and where they were stored, in the order of their contents."""
        return await self.world.rows(
            """SELECT kind, currency, gross_minor, reference, line_reference, identity, occurrence, repeats, payment_id,
                movement_reference, matched_by
            FROM settlement_lines ORDER BY identity, occurrence, repeats"""
        )

    async def digest(self, file_id: str) -> bytes:
        (row,) = await self.world.rows("SELECT result_digest FROM settlement_files WHERE file_id = :id", id=file_id)
        return bytes(row["result_digest"])

    async def forgets_everything(self) -> None:
        async with self.world.container.database.begin() as connection:
            await connection.execute(
                text(
                    "TRUNCATE settlement_files, settlement_lines, settlement_payouts, settlement_statements, cases,"
                    " known_payments, known_movements, known_references, outbox_messages, outbox_sequences CASCADE"
                )
            )


def sale(number: int, gross: int = 1_000, **changes: Any) -> SettlementLine:
    return a_line(LineKind.SALE, gross, **({"reference": f"sale_{number}"} | changes))


def refund(number: int, gross: int, **changes: Any) -> SettlementLine:
    return a_line(LineKind.REFUND, gross, **({"reference": f"refund_{number}"} | changes))


def stated(amount: int, reference: str = "setl_1", currency: str = "INR") -> StatedPayout:
    return StatedPayout(1, reference, currency, amount, None, "UTR1")
