"""Orders and payments in every combination that the table of decisions knows, for one test file per scenario."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, OrphanPolicy, Role, Verdict, decide
from services.reconciler.domain.mirror import KnownOrder, KnownOrderPayment, KnownPayment
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from shared.money import Money
from tests.support.clock import A_MOMENT

VERSION = 5
Combination = tuple[Role, MoneyState, Knowledge]

STATES: Mapping[MoneyState, tuple[tuple[PaymentStatus, Standing], ...]] = {
    MoneyState.TAKEN: (
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000)),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=400)),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000, amount_refund_pending=999)),
        (PaymentStatus.PARTIALLY_CAPTURED, Standing(amount_authorized=600, amount_captured=600)),  # for good
    ),
    MoneyState.LEAVING: (
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000, amount_refund_pending=1000)),
        (
            PaymentStatus.PARTIALLY_CAPTURED,
            Standing(amount_authorized=600, amount_captured=600, amount_refunded=100, amount_refund_pending=500),
        ),
    ),
    MoneyState.BACK: (
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=1000)),
        (
            PaymentStatus.CAPTURED,
            Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=300, amount_disputed=700),
        ),
    ),
    MoneyState.HELD: (
        (PaymentStatus.AUTHORIZED, Standing(amount_authorized=1000)),
        (PaymentStatus.PARTIALLY_CAPTURED, Standing(amount_authorized=1000, amount_captured=600)),
    ),
    MoneyState.COMING: (
        (PaymentStatus.CREATED, Standing()),
        (PaymentStatus.REQUIRES_ACTION, Standing()),
        (PaymentStatus.PROCESSING, Standing(outcome_unknown=True)),
    ),
    MoneyState.NONE: (
        (PaymentStatus.FAILED, Standing()),
        (PaymentStatus.CANCELED, Standing()),
        (PaymentStatus.EXPIRED, Standing()),
        (PaymentStatus.CAPTURED, Standing(amount_authorized=1000)),  # the gateway took the capture back
    ),
    MoneyState.UNCLEAR: ((PaymentStatus.FAILED, Standing(outcome_unknown=True)),),
}

ROLES: Mapping[Role, tuple[Mapping[str, Any], ...]] = {
    Role.AWAITED: ({"status": "open"},),
    Role.KEEPER: ({"status": "confirmed", "confirmed_by": "pay_1"},),
    Role.BESIDE: ({"status": "confirmed", "confirmed_by": "pay_0"},),
    Role.LATE: ({"status": "canceled"}, {"status": "expired"}),
}

KNOWN: Mapping[Knowledge, tuple[KnownOrderPayment | None, ...]] = {
    Knowledge.NOTHING: (None,),
    Knowledge.OLDER: (
        KnownOrderPayment("pay_1", PaymentStatus.CREATED, VERSION - 1, 0, 0, None),
        KnownOrderPayment("pay_1", PaymentStatus.CAPTURED, 0, 1000, 0, "refund_failed"),
    ),
    Knowledge.UNDECIDED: (KnownOrderPayment("pay_1", PaymentStatus.CAPTURED, VERSION, 1000, 0, None),),
    Knowledge.ACTING: tuple(
        KnownOrderPayment("pay_1", PaymentStatus.CAPTURED, VERSION, 1000, 0, resolution)
        for resolution in ("refund_requested", "release_requested", "fulfilled")
    ),
    Knowledge.GAVE_UP: (KnownOrderPayment("pay_1", PaymentStatus.CAPTURED, VERSION, 1000, 0, "refund_failed"),),
}


def a_payment(**changes: Any) -> KnownPayment:
    payment = KnownPayment(
        payment_id="pay_1",
        order_id="ord_1",
        gateway="generic",
        account="",
        status=PaymentStatus.CAPTURED,
        version=VERSION,
        amount=Money(1000, "EUR"),
        standing=Standing(amount_authorized=1000, amount_captured=1000),
        amount_excess=0,
        conflict=None,
        duplicate_of=None,
        unknown_since=None,
        created_at=A_MOMENT,
        updated_at=A_MOMENT,
        references=(),
        movements=(),
    )
    return replace(payment, **changes)


def an_order(known: KnownOrderPayment | None = None, **changes: Any) -> KnownOrder:
    order = KnownOrder(
        order_id="ord_1",
        status="open",
        payment_status="pending",
        attention=None,
        total=Money(1000, "EUR"),
        confirmed_by=None,
        version=1,
        created_at=A_MOMENT,
        updated_at=A_MOMENT,
        payments=(known,) if known is not None else (),
    )
    return replace(order, **changes)


def as_known(knowledge: Knowledge) -> KnownOrderPayment | None:
    return KNOWN[knowledge][0]


def judged(
    order: KnownOrder | None,
    payment: KnownPayment | None,
    *,
    settled_before: datetime | None = None,
    orphan_policy: OrphanPolicy = OrphanPolicy.CASE,
) -> Verdict | None:
    return decide(order, payment, payment_id="pay_1", settled_before=settled_before, orphan_policy=orphan_policy)


def verdicts(combination: Combination) -> list[Verdict | None]:
    """Of every pair of that kind."""
    role, money, knowledge = combination
    return [
        judged(an_order(known, **order), a_payment(status=status, standing=standing))
        for order, (status, standing), known in itertools.product(ROLES[role], STATES[money], KNOWN[knowledge])
    ]


def where(scenario: Scenario | None) -> dict[Combination, Action | None]:
    """Every combination that is this scenario, with what is done about it. All pairs of one kind are judged alike."""
    found: dict[Combination, Action | None] = {}
    for combination in itertools.product(Role, MoneyState, Knowledge):
        judgements = {(each.scenario, each.action) if each is not None else None for each in verdicts(combination)}
        assert len(judgements) == 1, f"{combination} is judged in two ways: {judgements}"
        [judgement] = judgements
        if judgement is None and scenario is None:
            found[combination] = None
        elif judgement is not None and judgement[0] is scenario:
            found[combination] = judgement[1]
    return found
