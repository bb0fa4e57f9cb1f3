"""Calling Razorpay: authentication, collections, and what its errors mean (fact sheet: Errors)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

Json = Mapping[str, Any]

# A repeated link is refused by its unique reference_id, a repeated capture because it is done, a repeated refund
# replayed under its key: each of these may be sent again after an unknown outcome.
GUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
UNGUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
"""Nothing keeps a second order from being made: after an unknown outcome the first is looked for."""

READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

PAGE = 100
"""The most that a collection returns at once."""

MOST_PAGES = 20


class AlreadyDone(GatewayRejected):
    """Razorpay refuses this because it has had it before."""


class RazorpayApi:
    def __init__(self, key_id: str, key_secret: str, api_base: str, http: HttpCaller) -> None:
        self.base = api_base.rstrip("/")
        self.key_id = key_id
        token = base64.b64encode(f"{key_id}:{key_secret}".encode()).decode()
        self._headers = {"authorization": f"Basic {token}", "accept": "application/json"}
        self._http = http

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        return _body_of(await self._http.send("GET", self._url(path), policy=READ, headers=self._headers, params=query))

    async def post(
        self, path: str, payload: Json, policy: CallPolicy, *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        answer = await self._http.send(
            "POST",
            self._url(path),
            policy=policy,
            headers={**self._headers, "content-type": "application/json", **(headers or {})},
            content=json.dumps(payload, separators=(",", ":")).encode(),
        )
        return _body_of(answer)

    async def collect(
        self, path: str, query: Mapping[str, str], *names: str, until: Callable[[Json], bool] | None = None
    ) -> list[Json]:
        """All entries of a collection, page after page, or those up to the first that ``until`` accepts.

        Raises GatewayOutcomeUnknown where it does not end or is not understood: nothing found in nonsense is no proof.
        """
        found: list[Json] = []
        for page in range(MOST_PAGES):
            body = await self.get(path, {**query, "count": str(PAGE), "skip": str(page * PAGE)})
            entries = entries_of(body, names)
            found += entries
            if len(entries) < PAGE or (until is not None and any(until(entry) for entry in entries)):
                return found
        raise GatewayOutcomeUnknown("Razorpay's list is too long to look through")

    def _url(self, path: str) -> str:
        return f"{self.base}/v1{path}"


def entries_of(body: Json, names: Sequence[str] = ()) -> list[Json]:
    """A collection's entries: under ``items``, or under a name of its own (payment links). Raises
    GatewayOutcomeUnknown."""
    entries = next((body[name] for name in (*names, "items") if name in body), None)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise GatewayOutcomeUnknown("Razorpay's list is not understood")
    return entries


def segment(identifier: str) -> str:
    """An id as a part of a path: whatever it holds, it stays one part."""
    return quote(identifier, safe="")


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, or the error class that status and description together mean."""
    if answer.status in (401, 403):
        raise _keys_refused(answer)
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("Razorpay's address answered with a redirect, which is not followed")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Razorpay's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    problem = body.get("error")
    raise _error_of(answer, problem if isinstance(problem, dict) else {})


def _error_of(answer: HttpAnswer, problem: Json) -> Exception:
    """Most refusals share one code and differ in their description alone."""
    code = problem.get("code") if isinstance(problem.get("code"), str) else None
    text = problem.get("description")
    text = text.lower() if isinstance(text, str) else ""
    if code in ("GATEWAY_ERROR", "SERVER_ERROR"):
        return GatewayOutcomeUnknown("Razorpay answered with an error of its own")
    if "authentication failed" in text or "api key" in text:
        return _keys_refused(answer)
    if "still in progress" in text:
        return GatewayOutcomeUnknown("Razorpay is still working on an earlier call with this key")
    silent = answer.after_silence
    if answer.status == 404 or "id provided does not exist" in text:
        return GatewayObjectNotFound("Razorpay does not know this object", gateway_code=code, after_silence=silent)
    reason = problem.get("reason")
    gateway_code = reason if isinstance(reason, str) and reason not in ("", "NA") else code
    kind = AlreadyDone if "already" in text else GatewayRejected
    why = f"Razorpay refused the request ({gateway_code or answer.status})"
    return kind(why, gateway_code=gateway_code, after_silence=silent)


def _keys_refused(answer: HttpAnswer) -> GatewayUnavailable | GatewayOutcomeUnknown:
    """A rotated or mistyped key: this try did nothing, and no payment may be failed for it (failure H9); an unanswered
    one before it, in the same call, may have."""
    why = "Razorpay refuses our API key; check RAZORPAY_KEY_ID and RAZORPAY_KEY_SECRET"
    return GatewayOutcomeUnknown(why) if answer.after_silence else GatewayUnavailable(why)
