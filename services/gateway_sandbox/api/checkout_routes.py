"""The hosted checkout page and its form."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.gateway_sandbox.api.dependencies import SandboxDependency
from services.gateway_sandbox.api.templates import (
    CONTENT_SECURITY_POLICY,
    FORM_POST_POLICY,
    checkout_page,
    form_post_page,
    message_page,
)
from services.gateway_sandbox.domain.models import Outcome
from services.gateway_sandbox.gateways.port import FormPost
from services.gateway_sandbox.use_cases.settle_checkout import CheckoutState, decide_on_page, view_checkout
from shared.errors import Forbidden, NotFound

router = APIRouter(prefix="/sandbox", include_in_schema=False)

_BUTTONS: Mapping[str, Outcome] = {"succeed": Outcome.SUCCEED, "fail": Outcome.FAIL, "cancel": Outcome.CANCEL}


@router.get("/{gateway}/checkout/{session_reference}")
async def show_checkout(gateway: str, session_reference: str, sandbox: SandboxDependency) -> Response:
    try:
        return _page(await view_checkout(gateway, session_reference, sandbox))
    except NotFound as error:
        return _message("Not found", error.detail, 404)


@router.post("/{gateway}/checkout/{session_reference}/outcome")
async def decide(gateway: str, session_reference: str, request: Request, sandbox: SandboxDependency) -> Response:
    form = parse_qs((await request.body()).decode("utf-8", "replace"))
    outcome = _BUTTONS.get(form.get("outcome", [""])[0])
    if outcome is None:
        return _message("Not understood", "The form carries no known outcome.", 400)
    token = form.get("token", [""])[0]
    try:
        state = await decide_on_page(gateway, session_reference, outcome, token, sandbox)
    except NotFound as error:
        return _message("Not found", error.detail, 404)
    except Forbidden as error:
        return _message("Refused", error.detail, 403)
    here = f"/sandbox/{gateway}/checkout/{session_reference}"  # 303 to itself: a reload does not post again
    if isinstance(state.departure, FormPost):
        page = form_post_page(state.departure.url, state.departure.fields, state.view.merchant)
        return HTMLResponse(page, headers={"Content-Security-Policy": FORM_POST_POLICY})
    return RedirectResponse(state.departure or here, status_code=303)


def _page(state: CheckoutState) -> Response:
    return HTMLResponse(checkout_page(state.entry, state.view, state.story), headers=_headers())


def _message(title: str, text: str, status: int) -> Response:
    return HTMLResponse(message_page(title, text), status_code=status, headers=_headers())


def _headers() -> dict[str, str]:
    return {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
