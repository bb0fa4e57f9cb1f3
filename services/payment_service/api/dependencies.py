"""What routes get from the application."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from services.payment_service.use_cases.ports import Context
from shared.web.auth import Principal, require_scope


def get_context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def get_return_budget(request: Request) -> float:
    return float(request.app.state.return_budget_seconds)


UseCaseContext = Annotated[Context, Depends(get_context)]
ReturnBudget = Annotated[float, Depends(get_return_budget)]
PaymentsReader = Annotated[Principal, Depends(require_scope("payments:read"))]
CapturesWriter = Annotated[Principal, Depends(require_scope("captures:write"))]
RefundsWriter = Annotated[Principal, Depends(require_scope("refunds:write"))]
PaymentsWriter = Annotated[Principal, Depends(require_scope("payments:write"))]
