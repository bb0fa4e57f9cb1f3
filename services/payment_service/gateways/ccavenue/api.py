"""Calling CCAvenue's API: one address, a command in an encrypted envelope, and what its codes mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared.ccavenue_cipher import CannotDecrypt, CCAvenueCipher, split_pairs
from shared.errors import (
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.randomness import Randomness

Json = Mapping[str, Any]

PATH = "/apis/servlet/DoWebTrans"

READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
"""A second one would be refused as a repetition; but what became of the first is better looked for."""

_KEYS_REFUSED = frozenset({"51407", "51408", "-1"})
_NOT_FOUND = frozenset({"51308", "51313", "51419"})
_DONE_ALREADY = frozenset({"51301", "51302", "51309"})
_NOT_NOW = frozenset({"51305", "51307"})
_CANNOT_SAY = frozenset({"51420"})

_LONGEST_CODE = 20


class AlreadyDone(GatewayRejected):
    """Confirmed or cancelled before, or a refund's reference was used before: perhaps by an earlier call of ours."""


class CCAvenueApi:
    def __init__(
        self, access_code: str, cipher: CCAvenueCipher, api_base: str, http: HttpCaller, randomness: Randomness
    ) -> None:
        self._access_code = access_code
        self._cipher = cipher
        self._url = f"{api_base.rstrip('/')}{PATH}"
        self._http = http
        self._randomness = randomness

    async def ask(self, command: str, payload: Json, *, version: str = "1.1") -> dict[str, Any]:
        return await self._call(command, payload, READ, version)

    async def order(self, command: str, payload: Json) -> dict[str, Any]:
        """A call that may move money. What it raises says whether it can have."""
        return await self._call(command, payload, WRITE, "1.1")

    async def _call(self, command: str, payload: Json, policy: CallPolicy, version: str) -> dict[str, Any]:
        sealed = self._cipher.encrypt(json.dumps(payload, separators=(",", ":")), self._randomness)
        form = {
            "enc_request": sealed,
            "access_code": self._access_code,
            "command": command,
            "request_type": "JSON",
            "response_type": "JSON",
            "version": version,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self._http.send(
            "POST", self._url, policy=policy, headers=headers, content=urlencode(form).encode()
        )
        return self._opened(answer)

    def _opened(self, answer: HttpAnswer) -> dict[str, Any]:
        """The decrypted answer. CCAvenue says 200 to everything; another status comes from what stands before it."""
        if answer.status in (401, 403):
            raise _keys_refused(after_silence=answer.after_silence)
        try:
            if answer.status != 200:
                raise UnexpectedShape("not CCAvenue's own answer")
            envelope = _envelope(answer.body)
            if envelope.get("status") == "1":  # then ``enc_response`` is plain text, for people
                raise error_of(envelope.get("enc_error_code"), after_silence=answer.after_silence)
            if envelope.get("status") != "0":
                raise UnexpectedShape("neither a yes nor a no")
            body = _unwrapped(parse_json_object(self._cipher.decrypt(envelope.get("enc_response", ""))))
        except (UnexpectedShape, CannotDecrypt) as error:
            raise GatewayOutcomeUnknown("CCAvenue's answer is not understood") from error
        raise_refusal(body, after_silence=answer.after_silence)
        return body


def raise_refusal(body: Json, *, after_silence: bool = False) -> None:
    """An answer that was understood and says no, in the code inside it."""
    code = code_of(body)
    if code is not None:
        raise error_of(code, after_silence=after_silence)
    if str(body.get("status", 0)) == "1" or str(body.get("refund_status", 0)) == "1":
        raise GatewayOutcomeUnknown("CCAvenue says no without saying why")


def code_of(source: Json, key: str = "error_code") -> str | None:
    """A code as text; sometimes it comes as a number. Empty, ``null`` and 0 mean that there is none."""
    value = source.get(key)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if text in ("", "0", "null"):
        return None
    return text[:_LONGEST_CODE] if text.isascii() and text.isprintable() else "unreadable"


def error_of(code: str | None, *, after_silence: bool) -> GatewayError:
    """What a code says about the money: only a refusal that names its reason proves that nothing moved."""
    code = (code or "").strip()[:_LONGEST_CODE]
    if not code or code in _CANNOT_SAY:
        return GatewayOutcomeUnknown("CCAvenue cannot process this now")
    if code in _KEYS_REFUSED:
        return _keys_refused(after_silence=after_silence)
    if code in _NOT_NOW:  # it would do it later, once its own people have looked at the order
        why = "CCAvenue's risk review of this order is not over"
        return GatewayOutcomeUnknown(why) if after_silence else GatewayUnavailable(why)
    if code in _NOT_FOUND:
        return GatewayObjectNotFound(
            "CCAvenue does not know this order", gateway_code=code, after_silence=after_silence
        )
    kind = AlreadyDone if code in _DONE_ALREADY else GatewayRejected
    return kind(f"CCAvenue refused the request ({code})", gateway_code=code, after_silence=after_silence)


def _keys_refused(*, after_silence: bool) -> GatewayUnavailable | GatewayOutcomeUnknown:
    """A mistyped key, an address that is not on their list, a command that is not ours: nothing ran (failure H9)."""
    why = "CCAvenue refuses our access code; check CCAVENUE_ACCESS_CODE, CCAVENUE_WORKING_KEY and the allowed addresses"
    return GatewayOutcomeUnknown(why) if after_silence else GatewayUnavailable(why)


def _envelope(body: bytes) -> dict[str, str]:
    """``status=0&enc_response=…`` with stray line ends; the same as a JSON object has been seen."""
    try:
        text = body.decode().strip()
        if text.startswith("{"):
            fields = parse_json_object(text)
            return {name: str(value).strip() for name, value in fields.items() if isinstance(value, str | int)}
        return dict(split_pairs(text))
    except ValueError as error:
        raise UnexpectedShape("neither a form nor JSON") from error


def _unwrapped(body: dict[str, Any]) -> dict[str, Any]:
    """Some versions put everything under one name, ``Order_Status_Result`` for example."""
    if len(body) == 1:
        [inner] = body.values()
        if isinstance(inner, dict):
            return inner
    return body


def rows_of(body: Json, key: str) -> Sequence[Json]:
    """A list, of which a single row comes as an object; an absent one is empty. Raises UnexpectedShape."""
    rows = body.get(key)
    if rows is None or rows == "":
        return ()
    if isinstance(rows, dict):
        return (rows,)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnexpectedShape(f"{key} is not a list")
    return rows
