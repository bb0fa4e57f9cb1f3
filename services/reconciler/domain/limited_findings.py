"""How many findings of a kind become cases of their own, and the digest of what was found."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Set

from services.reconciler.domain.cases import CaseKind, Finding, Scenario, Subject

MAX_FINDINGS_PER_SCENARIO = 500


class Limited:
    """At most so many findings of a scenario, the first by their keys, and one that counts the rest.

    Give findings in any order: the same ones come out, in memory for the limit.
    """

    def __init__(
        self,
        scope: Subject,
        name: str,
        *,
        always: Set[str] = frozenset(),
        counts_always: bool = False,
        limit: int = MAX_FINDINGS_PER_SCENARIO,
    ) -> None:
        """``always``: keys of open cases; dropping one of these findings would close a case that is not settled.

        ``counts_always``: they use up the limit, so that looking again and again does not open more and more cases.
        """
        self._scope = scope
        self._name = name
        self._limit = limit
        self._always = always
        self._counts_always = counts_always
        self._found_again: dict[str, Finding] = {}
        self._kept: dict[Scenario, dict[str, Finding]] = {}
        self._rest: Counter[Scenario] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.key in self._always:
                self._found_again[finding.key] = finding
                continue
            kept = self._kept.setdefault(finding.scenario, {})
            kept[finding.key] = finding
            if len(kept) > 2 * self._limit:
                self._trim(finding.scenario, self._limit)

    def count_rest(self, scenario: Scenario, count: int) -> None:
        """Of those that were not even read."""
        self._rest[scenario] += count

    def findings(self) -> Iterator[Finding]:
        yield from (finding for _, finding in sorted(self._found_again.items()))
        used = Counter(finding.scenario for finding in self._found_again.values() if self._counts_always)
        for scenario in sorted(self._kept.keys() | self._rest.keys()):
            self._trim(scenario, self._limit - used[scenario])
            yield from (finding for _, finding in sorted(self._kept.get(scenario, {}).items()))
            if self._rest[scenario]:
                yield self._summary(scenario)

    def _trim(self, scenario: Scenario, limit: int) -> None:
        kept = self._kept.get(scenario, {})
        for key in sorted(kept)[max(limit, 0) :]:
            del kept[key]
            self._rest[scenario] += 1

    def _summary(self, scenario: Scenario) -> Finding:
        return Finding(
            kind=CaseKind.SETTLEMENT,
            scenario=scenario,
            key=f"{scenario}:rest:{self._name}",
            subject=self._scope,
            evidence={"summary": True, "more": self._rest[scenario]},
        )


def keys_of(findings: Collection[Finding]) -> str:
    """A digest of what was found, in an order of its contents."""
    content = "\n".join(
        f"{finding.key} {finding.currency} {finding.expected_minor} {finding.actual_minor}"
        for finding in sorted(findings, key=lambda finding: finding.key)
    )
    return hashlib.sha256(content.encode()).hexdigest()
