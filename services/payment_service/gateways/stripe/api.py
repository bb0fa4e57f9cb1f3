"""Stripe's wire: form in, JSON out, errors by class (fact sheet §1), lists to their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, parse_json_object
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller

API_VERSION = "2026-06-24.dahlia"

CREATE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)  # the idempotency key makes repeating safe
MONEY = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)  # likewise
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
CLOSE = CallPolicy(budget_seconds=15, attempts=3, repeatable=True)  # expiring twice is refused, and then we look

MOST_PAGES = 50

_TRY_LATER = frozenset({"rate_limit", "lock_timeout"})
"""Nothing ran: our rate is limited, or another request holds the object. Not only said with 429."""


class StripeApi:
    def __init__(self, base: str, key: str, http: HttpCaller) -> None:
        self._base = base.rstrip("/")
        self._key = key
        self._http = http

    async def call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}", "stripe-version": API_VERSION}
        if key is not None:
            headers["idempotency-key"] = key
        content = None
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode()
        answer = await self._http.send(
            method, self._base + path, policy=policy, headers=headers, params=query, content=content
        )
        return body_of(answer)

    async def entries(
        self, path: str, query: Mapping[str, str], *, until: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> list[dict[str, Any]]:
        """A list, newest first, to its end or to the page that has what is looked for. Lists are consistent, searches
        are not.

        Raises GatewayOutcomeUnknown where it is not understood or does not end: nothing found in nonsense is no proof
        that there is nothing.
        """
        asked, found = {**query, "limit": "100"}, []
        for _ in range(MOST_PAGES):
            page = await self.call("GET", path, READ, query=asked)
            try:
                entries, has_more = entries_of(page), page.get("has_more")
                found += entries
                if has_more is False or (until and any(until(entry) for entry in entries)):
                    return found
                asked["starting_after"] = identifier_of(entries[-1], "id")
            except (UnexpectedShape, IndexError) as error:
                raise GatewayOutcomeUnknown("Stripe's list is not understood") from error
        raise GatewayOutcomeUnknown("Stripe's list is too long to look through")


def entries_of(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = page.get("data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnexpectedShape("data is not a list of objects")
    return entries


def body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, or the error class that the status means."""
    if answer.status in (401, 403):
        # A rotated or restricted key: nothing moved, and no payment may be failed for it (failure H9).
        raise GatewayUnavailable("Stripe refuses our API key; check STRIPE_API_KEY")
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("Stripe's address answered with a redirect, which is not followed")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Stripe's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    raise _refusal(answer, body)


def _refusal(answer: HttpAnswer, body: Mapping[str, Any]) -> Exception:
    problem = body.get("error")
    problem = problem if isinstance(problem, dict) else {}
    kind, code = problem.get("type"), problem.get("code") or problem.get("type")
    code = code if isinstance(code, str) else None
    if code in _TRY_LATER:
        return _not_now(answer, f"Stripe asks to try later ({code})")
    if answer.status == 409 or kind == "idempotency_error":
        # Our own earlier call with this key lives; a new key now could run it twice (failure H10).
        return GatewayOutcomeUnknown("Stripe has had an earlier call with this key")
    if answer.status == 404:
        return GatewayObjectNotFound("Stripe does not know this object", gateway_code=code)
    return GatewayRejected(f"Stripe refused the request ({code or answer.status})", gateway_code=code)


def _not_now(answer: HttpAnswer, why: str) -> GatewayRateLimited | GatewayOutcomeUnknown:
    """This try did nothing; an unanswered one before it, in the same call, may have."""
    return GatewayOutcomeUnknown(why) if answer.after_silence else GatewayRateLimited(why)
