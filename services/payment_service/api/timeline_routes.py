"""What happened to a payment, and what it comes to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from services.payment_service.api.dependencies import PaymentsReader, UseCaseContext
from services.payment_service.api.fields import Storable
from services.payment_service.api.timeline_schemas import TimelineOut
from services.payment_service.use_cases.read_timeline import read_timeline
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1", tags=["payments"])

PaymentIdPath = Annotated[str, Path(max_length=100), Storable]


@router.get("/payments/{payment_id}/timeline", responses=problem_responses(401, 403, 404, 422, 503))
async def get_timeline(payment_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> TimelineOut:
    """Everything that happened to a payment, in time order, and where it stands in one sentence."""
    return TimelineOut.of(await read_timeline(payment_id, context))
