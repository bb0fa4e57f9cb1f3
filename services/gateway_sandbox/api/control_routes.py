"""The control API: what scripts and tests do beside the hosted page. Never mounted in production."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import AwareDatetime

from services.gateway_sandbox.api.dependencies import SandboxDependency
from services.gateway_sandbox.api.schemas import (
    AmountBody,
    BooksBody,
    CaptureStatusBody,
    DisputeBody,
    DisputeStatusBody,
    FaultBody,
    HoldBody,
    MovementView,
    OutcomeBody,
    PaymentView,
    RefundStatusBody,
    SettlementBody,
    SettlementView,
    fault_view,
)
from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.use_cases import move_money
from services.gateway_sandbox.use_cases.control import (
    empty_books,
    read_books,
    read_entry,
    read_faults,
    replace_faults,
)
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.use_cases.settle_checkout import settle
from services.gateway_sandbox.use_cases.write_settlement import read_movements, settle_period, write_settlement
from shared.web.problems import problem_responses

router = APIRouter(prefix="/sandbox/control", tags=["control"], responses=problem_responses(404, 422))


@router.post("/{gateway}/sessions/{reference}", responses=problem_responses(409))
async def bring_to_an_outcome(
    gateway: str, reference: str, body: OutcomeBody, sandbox: SandboxDependency
) -> PaymentView:
    """What the buyer does. ``reference`` is the gateway's session or payment id, or ours (its newest session)."""
    state = await settle(gateway, reference, body.outcome, sandbox, late=body.late)
    return await _shown(state.entry, sandbox)


@router.post("/{gateway}/sessions/{reference}/hold", responses=problem_responses(409))
async def expire_the_hold(gateway: str, reference: str, body: HoldBody, sandbox: SandboxDependency) -> PaymentView:  # noqa: ARG001 - says what is meant
    """The authorization lapses now."""
    return await _shown(await move_money.expire_hold(gateway, reference, sandbox), sandbox)


@router.post("/{gateway}/sessions/{reference}/captures", status_code=201, responses=problem_responses(409))
async def capture_in_the_dashboard(
    gateway: str, reference: str, body: AmountBody, sandbox: SandboxDependency
) -> PaymentView:
    """Somebody captures held money in the gateway's dashboard, finally: all of it, if no amount is given."""
    return await _shown(await move_money.capture_in_dashboard(gateway, reference, body.amount_minor, sandbox), sandbox)


@router.post("/{gateway}/captures/{capture_id}", responses=problem_responses(409))
async def settle_a_capture(
    gateway: str, capture_id: str, body: CaptureStatusBody, sandbox: SandboxDependency
) -> PaymentView:
    """A pending capture succeeds or fails."""
    return await _shown(await move_money.settle_capture(gateway, capture_id, body.status, sandbox), sandbox)


@router.post("/{gateway}/sessions/{reference}/refunds", status_code=201, responses=problem_responses(409))
async def refund_in_the_dashboard(
    gateway: str, reference: str, body: AmountBody, sandbox: SandboxDependency
) -> PaymentView:
    """Somebody refunds in the gateway's dashboard: all that is left, if no amount is given. The last of `refunds`."""
    return await _shown(await move_money.refund_in_dashboard(gateway, reference, body.amount_minor, sandbox), sandbox)


@router.post("/{gateway}/refunds/{refund_id}", responses=problem_responses(409))
async def settle_a_refund(
    gateway: str, refund_id: str, body: RefundStatusBody, sandbox: SandboxDependency
) -> PaymentView:
    """A pending refund succeeds or fails; one that succeeded fails later, or is reversed."""
    return await _shown(await move_money.settle_refund(gateway, refund_id, body.status, sandbox), sandbox)


@router.post("/{gateway}/sessions/{reference}/disputes", status_code=201, responses=problem_responses(409))
async def dispute(gateway: str, reference: str, body: DisputeBody, sandbox: SandboxDependency) -> PaymentView:
    """The buyer disputes the payment: all that was captured, if no amount is given. The last of `disputes`."""
    entry = await move_money.open_dispute(gateway, reference, body.amount_minor, body.reason, sandbox)
    return await _shown(entry, sandbox)


@router.post("/{gateway}/disputes/{dispute_id}", responses=problem_responses(409))
async def close_a_dispute(
    gateway: str, dispute_id: str, body: DisputeStatusBody, sandbox: SandboxDependency
) -> PaymentView:
    """The dispute ends: won by the shop, or lost."""
    return await _shown(await move_money.close_dispute(gateway, dispute_id, body.status, sandbox), sandbox)


@router.get("/{gateway}/settlement", response_class=Response)
async def settlement_file(
    gateway: str, sandbox: SandboxDependency, since: AwareDatetime, until: AwareDatetime
) -> Response:
    """The file that the gateway gives the shop about what moved in `[since, until)`, as its own format has it."""
    made = await write_settlement(gateway, sandbox, since=since, until=until)
    headers = {"Content-Disposition": f'attachment; filename="{made.name}"'}
    return Response(made.body, media_type=made.content_type, headers=headers)


@router.post("/{gateway}/settlement")
async def settlement_with_faults(gateway: str, body: SettlementBody, sandbox: SandboxDependency) -> SettlementView:
    """The same file, with faults sown into what is written and never into the books, and what was paid out for it."""
    sow = [each.to_sow() for each in body.sow]
    made = await settle_period(gateway, sandbox, since=body.since, until=body.until, sow=sow)
    return SettlementView.of_settlement(made)


@router.get("/{gateway}/movements")
async def movements(
    gateway: str, sandbox: SandboxDependency, since: AwareDatetime, until: AwareDatetime
) -> list[MovementView]:
    """What the books really moved in `[since, until)`, oldest first."""
    lines = await read_movements(gateway, sandbox, since=since, until=until)
    return [MovementView.of(line) for line in lines]


@router.put("/{gateway}/faults")
async def script_faults(
    gateway: str, faults: Annotated[list[FaultBody], Body(max_length=200)], sandbox: SandboxDependency
) -> list[dict[str, Any]]:
    """Replace the list. Each call is hit by the first fault in it that applies and has hits left."""
    stored = await replace_faults(gateway, [fault.to_fault() for fault in faults], sandbox)
    return [fault_view(fault) for fault in stored]


@router.get("/{gateway}/faults")
async def show_faults(gateway: str, sandbox: SandboxDependency) -> list[dict[str, Any]]:
    return [fault_view(fault) for fault in await read_faults(gateway, sandbox)]


@router.delete("/{gateway}/faults", status_code=204)
async def remove_faults(gateway: str, sandbox: SandboxDependency) -> Response:
    await replace_faults(gateway, [], sandbox)
    return Response(status_code=204)


@router.get("/{gateway}/books")
async def show_books(
    gateway: str, sandbox: SandboxDependency, reference: str | None = None, order_id: str | None = None
) -> BooksBody:
    """What was charged, captured and refunded, in ISO 4217 minor units, and which webhooks went out; oldest first."""
    return BooksBody.of(await read_books(gateway, sandbox, reference=reference, order_id=order_id))


@router.delete("/{gateway}/books", status_code=204)
async def empty(gateway: str, sandbox: SandboxDependency) -> Response:
    await empty_books(gateway, sandbox)
    return Response(status_code=204)


async def _shown(entry: BookEntry, sandbox: Sandbox) -> PaymentView:
    return PaymentView.of(await read_entry(entry, sandbox))
