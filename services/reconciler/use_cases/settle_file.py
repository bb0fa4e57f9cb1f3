"""Settle a file: read, store and match its lines, find what disagrees, keep cases of it, tell the ledger.

All of it is one transaction on connections of its own, so a file is settled or it is not: killed anywhere, nothing is
there, and doing it again gives the same. Files of one account are settled one after the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from services.reconciler.domain.cases import Finding, Subject
from services.reconciler.domain.file_findings import findings_of_file, name_of_file, unread_file
from services.reconciler.domain.limited_findings import MAX_FINDINGS_PER_SCENARIO, Limited, keys_of
from services.reconciler.domain.loose_lines import fee_differs, unknown_line
from services.reconciler.domain.payouts import judge_payout
from services.reconciler.domain.settlement import FileStatus, SettlementFile
from services.reconciler.domain.settlement_changes import line_changed
from services.reconciler.domain.settlement_holding import Acquaintance, foreign_file
from services.reconciler.domain.settlement_rules import Coverage, due
from services.reconciler.settlement_formats.port import Incomplete, ReaderFailed, Unreadable
from services.reconciler.use_cases.book_settlement import book_settlement
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.receive_file import content_of
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.settle_again import settle_again
from services.reconciler.use_cases.settlement_ports import ReadingReport
from services.reconciler.use_cases.settlement_totals import totals_of_file
from services.reconciler.use_cases.settling import cases_of, due_of, judge_touched, keep_and_act
from services.reconciler.use_cases.settling_ports import StoredLines

__all__ = ["give_up_file", "settle_again", "settle_file"]

MAX_PAYOUTS_JUDGED = 10_000
MAX_READINGS = 3
"""Of a file whose reader dies or is too slow: that may be the machine's fault, until it happens every time."""

MOST_IN_A_FILE_MINOR = 10**17


async def settle_file(file_id: str, run_id: str, context: Context, progress: Progress) -> RunOutcome:
    """A file that was settled or refused before is left as it is.

    Raises LeaseLost, DatabaseUnavailable, and ReaderFailed as long as it may be read later: nothing was stored then.
    """
    await progress("reading")
    try:
        async with context.settlement_uow() as tx:
            file = await tx.files.get(file_id, for_update=True)
            if file is None or file.status is not FileStatus.RECEIVED:
                return RunOutcome()
            return await _Settling(tx, file, run_id, context, progress).settle()
    except Unreadable as problem:
        return await _refuse(file_id, problem, run_id, context)
    except ReaderFailed as failure:
        async with context.uow() as tx:
            if await tx.runs.failed_readings(file_id) + 1 < MAX_READINGS:
                raise
        return await _refuse(file_id, Unreadable(failure.code, failure.detail), run_id, context)


async def give_up_file(file_id: str, run_id: str, context: Context) -> None:
    """Its runs took their runners down, so nobody is left to say why. Sent again, it is tried again."""
    problem = Unreadable("given_up", "whoever read it ended before it was done, again and again")
    await _refuse(file_id, problem, run_id, context)


class _Settling:
    def __init__(
        self, tx: ReconcilerTransaction, file: SettlementFile, run_id: str, context: Context, progress: Progress
    ) -> None:
        self._tx = tx
        self._file = file
        self._run_id = run_id
        self._context = context
        self._progress = progress
        self._now = context.clock.now()

    async def settle(self) -> RunOutcome:
        await self._tx.settlement.lock_account(self._file.gateway, self._file.account)
        stored, report = await self._store()
        self._file = replace(self._file, covers_from=report.covers_from, covers_until=report.covers_until)
        await self._progress("totalling")
        await self._check_size(report)
        await self._tx.settlement.total_payouts(self._file, report.payouts, now=self._now)
        await self._progress("deciding")
        await self._touch(report)
        looked_at = await cases_of(self._tx, await self._tx.settlement.touched_cases(self._file))
        lines = await self._tx.settlement.acquaintance()
        findings = await self._findings(report, {case.key for case in looked_at}, lines)
        await self._mark_read(stored, report, findings)
        counts = await keep_and_act(self._tx, findings, looked_at, self._run_id, self._context)
        await self._progress("booking")
        if lines.is_foreign:
            await self._tx.settlement.hold_booking(self._file, is_held=True)
        else:
            await book_settlement(self._tx, self._file, self._context)
        return RunOutcome(
            matched=stored.lines - stored.unmatched,
            checked=stored.lines,
            failed=report.bad_rows,
            cases_opened=counts.opened,
            cases_resolved=counts.resolved,
            totals=await totals_of_file(self._tx, self._file, self._context, now=self._now),
        )

    async def _check_size(self, report: ReadingReport) -> None:
        """Raises Unreadable: no sum of it may be more than the ledger's commands can carry."""
        stated: Counter[str] = Counter()
        for payout in report.payouts:
            stated[payout.currency] += abs(payout.amount_minor)
        if max(await self._tx.settlement.sum_lines(self._file), *stated.values(), 0) > MOST_IN_A_FILE_MINOR:
            raise Unreadable("amount_too_large", "the amounts of one currency add up to more than any settlement")

    async def _store(self) -> tuple[StoredLines, ReadingReport]:
        async def told(lines: int) -> None:
            await self._progress("matching", lines)

        content = content_of(self._file.file_id, self._context.settlement_uow)
        async with self._context.reader.read(self._file, content) as reading:
            stored = await self._tx.settlement.store_lines(self._file, reading.lines, told=told)
            return stored, reading.report()

    async def _findings(self, report: ReadingReport, open_keys: Set[str], lines: Acquaintance) -> list[Finding]:
        file = self._file
        subject = Subject(gateway=file.gateway, account=file.account, file_id=file.file_id)
        limited = Limited(subject, name_of_file(file), always=open_keys)
        what_is_due = await due_of(
            self._tx,
            file.gateway,
            file.account,
            self._context,
            covers=(report.covers_from, report.covers_until),
        )
        await judge_touched(limited, self._tx, what_is_due)
        if lines.is_foreign:
            limited.add([foreign_file(file, lines)])
        else:
            await self._add_unknown_lines(limited)
            await self._add_fees(limited)
        await self._add_changed_lines(limited)
        await self._add_payouts(limited)
        return [*limited.findings(), *findings_of_file(file, report.bad_rows, report.totals)]

    async def _touch(self, report: ReadingReport) -> None:
        """Of what is absent, a file is asked only about its own time: what it costs is the file's, not history's."""
        settlement, rules = self._tx.settlement, self._context.settlement_rules
        own = Coverage(report.covers_from, report.covers_until)
        before = None if own.since is None else own.since - rules.delay(self._file.gateway)
        window = due(rules, self._file.gateway, Coverage(before, own.until), now=self._now)
        has_earlier = await settlement.has_earlier_files(self._file)
        await settlement.touch_file(self._file, window, has_earlier=has_earlier)
        await settlement.pair_touched()

    async def _add_unknown_lines(self, limited: Limited) -> None:
        lines, count = await self._tx.settlement.unmatched(self._file.file_id, limit=MAX_FINDINGS_PER_SCENARIO + 1)
        candidates = await self._tx.settlement.candidates(lines)
        found = [unknown_line(line, of) for line, of in zip(lines, candidates, strict=True)]
        _add_first(limited, found, count)

    async def _add_changed_lines(self, limited: Limited) -> None:
        lines, count = await self._tx.settlement.changed_lines(limit=MAX_FINDINGS_PER_SCENARIO)
        _add_first(limited, [line_changed(line) for line in lines], count)

    async def _add_fees(self, limited: Limited) -> None:
        rule = self._context.settlement_rules.fees.get(self._file.gateway)
        if rule is None:
            return
        lines, count = await self._tx.settlement.fees_that_differ(
            self._file.file_id, rule, limit=MAX_FINDINGS_PER_SCENARIO + 1
        )
        _add_first(limited, [finding for line in lines if (finding := fee_differs(line, rule))], count)

    async def _add_payouts(self, limited: Limited) -> None:
        settlement = self._tx.settlement
        is_usual = await settlement.states_payouts(self._file.gateway, self._file.account)
        for payout in await settlement.payouts_of_file(self._file, limit=MAX_PAYOUTS_JUDGED):
            rules = self._context.settlement_rules
            finding = judge_payout(payout, rules, is_stated_usually=is_usual, now=self._now)
            limited.add([finding] if finding else [])

    async def _mark_read(self, stored: StoredLines, report: ReadingReport, findings: Sequence[Finding]) -> None:
        digest = hashlib.sha256(stored.digest + keys_of(findings).encode()).digest()
        self._file = replace(
            self._file,
            status=FileStatus.READ,
            read_at=self._now,
            rows=report.rows,
            lines=stored.lines,
            repeated_lines=stored.repeated,
            bad_rows=report.bad_rows,
            result_digest=digest,
        )
        await self._tx.files.save(self._file, report.problems)


def _add_first(limited: Limited, findings: Sequence[Finding], count: int) -> None:
    """``findings`` are the first of ``count``, in the order of their keys."""
    limited.add(findings)
    if findings and count > len(findings):
        limited.count_rest(findings[0].scenario, count - len(findings))


async def _refuse(file_id: str, problem: Unreadable, run_id: str, context: Context) -> RunOutcome:
    """Nothing of it is applied, and there is a case of that until it can be read (failure RC2)."""
    async with context.settlement_uow() as tx:
        file = await tx.files.get(file_id, for_update=True)
        if file is None or file.status is not FileStatus.RECEIVED:
            return RunOutcome()
        refused = replace(
            file,
            status=FileStatus.INCOMPLETE if isinstance(problem, Incomplete) else FileStatus.REFUSED,
            read_at=context.clock.now(),
            problem=problem.code,
            problem_detail=problem.detail,
        )
        await tx.files.save(refused)
        counts = await keep_and_act(tx, [unread_file(refused)], (), run_id, context)
    return RunOutcome(failed=1, cases_opened=counts.opened)
