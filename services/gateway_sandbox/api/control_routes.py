"""The control API: what scripts and tests do beside the hosted page. Never mounted in production."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from services.gateway_sandbox.api.dependencies import SandboxDependency
from services.gateway_sandbox.api.schemas import BooksBody, FaultBody, OutcomeBody, PaymentView, fault_view
from services.gateway_sandbox.use_cases.control import (
    empty_books,
    read_books,
    read_entry,
    read_faults,
    replace_faults,
)
from services.gateway_sandbox.use_cases.settle_checkout import settle
from shared.web.problems import problem_responses

router = APIRouter(prefix="/sandbox/control", tags=["control"], responses=problem_responses(404, 422))


@router.post("/{gateway}/sessions/{reference}", responses=problem_responses(409))
async def bring_to_an_outcome(
    gateway: str, reference: str, body: OutcomeBody, sandbox: SandboxDependency
) -> PaymentView:
    """What the buyer does. ``reference`` is the gateway's session or payment id, or ours (its newest session)."""
    state = await settle(gateway, reference, body.outcome, sandbox, late=body.late)
    return PaymentView.of(await read_entry(state.entry, sandbox))


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
