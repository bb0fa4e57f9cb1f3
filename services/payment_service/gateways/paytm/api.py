"""Calling Paytm: envelopes and their checksums, and what its result codes mean (fact sheet: Errors)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, object_of, optional_text, parse_json_object
from shared.errors import GatewayOutcomeUnknown, GatewayRateLimited, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.paytm_checksum import checksum_of, cut_member, envelope, has_checksum, new_salt
from shared.ports import Ports

Json = Mapping[str, Any]

# The same order with the same content answers the same token again; a refund is unique by its refId, for ever. So both
# may be sent again after an unknown outcome.
GUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

_SYSTEM_ERRORS = frozenset({"501"})
_KEY_PROBLEMS = frozenset({"2005", "330", "931", "2004"})
"""Reported by integrators, not documented; their messages name the checksum, which is looked for too."""

_OUR_MISTAKES = frozenset({"334", "335", "1001", "1005", "1007", "0001", "309", "312", "315", "372"})
"""The request is wrong: that says nothing about the payment that it was about."""

_THROTTLED = "429"
_THROTTLING = ("rate limit", "too many requests")
_NO_RECORD = "331"
_THINGS = r"(?:records?|data|orders?|refunds?|transactions?|txns?)"
_ABSENCE = re.compile(rf"\bno (?:such )?{_THINGS}\b|\b{_THINGS}(?: id)?(?: is| was)? (?:not found|does not exist)")
_MERCHANTS = re.compile(r"\b(?:merchant|mid)\b")
"""Who is not known as a merchant has heard nothing about orders and refunds."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: the result in Paytm's words, and the body that it came with."""

    status: str
    code: str
    message: str
    body: Json
    after_silence: bool = False

    @property
    def means_absence(self) -> bool:
        """There is no such order, or no such refund. Its code is documented for orders alone; its words count only in
        an answer that names nothing, as a bank may say of an account that it does not exist."""
        if self.code == _NO_RECORD:
            return self.is_failure and not self.body.get("txnId")
        return self._tells_of_absence and not any(map(self.body.get, ("txnId", "refId", "orderId")))

    @property
    def leaves_absence_open(self) -> bool:
        """It says that there is none, and repeats the names that were asked about: either may be meant."""
        return self._tells_of_absence and not self.means_absence and not self.body.get("txnId")

    @property
    def is_throttled(self) -> bool:
        """Too many questions: no word about what was asked."""
        words = self.message.lower()
        is_told = self.code == _THROTTLED or any(each in words for each in _THROTTLING)
        return self.is_failure and is_told and not self.body.get("txnId")

    @property
    def _tells_of_absence(self) -> bool:
        words = self.message.lower()
        return self.is_failure and _ABSENCE.search(words) is not None and _MERCHANTS.search(words) is None

    @property
    def is_failure(self) -> bool:
        return self.status in ("F", "TXN_FAILURE", "FAILURE")

    def refusal(self) -> GatewayRejected:
        code = self.code or self.status
        why = f"Paytm refused the request ({code})"
        return GatewayRejected(why, gateway_code=code or None, after_silence=self.after_silence)


class PaytmApi:
    """``keys``: all that are valid while one is replaced; the first one signs."""

    def __init__(
        self,
        *,
        merchant_id: str,
        keys: tuple[bytes, ...],
        api_base: str,
        client_id: str | None,
        http: HttpCaller,
        ports: Ports,
    ) -> None:
        self.base = api_base.rstrip("/")
        self.merchant_id = merchant_id
        self._keys = keys
        self._client_id = client_id
        self._http = http
        self._ports = ports

    async def call(
        self,
        path: str,
        body: Json,
        policy: CallPolicy,
        *,
        query: Mapping[str, str] | None = None,
        names_token_type: bool = False,
    ) -> Said:
        """``names_token_type``: the head of refunds and lists, which is not that of orders.

        Raises what may have happened, where the answer is about our call and not about what was asked.
        """
        text = json.dumps(body, separators=(",", ":"))
        answer = await self._http.send(
            "POST",
            f"{self.base}{path}",
            policy=policy,
            headers={"content-type": "application/json", "accept": "application/json"},
            params=query,
            content=envelope(self._head(text, names_token_type=names_token_type), text).encode(),
        )
        return _understood(self._said(answer))

    def _head(self, body_text: str, *, names_token_type: bool) -> dict[str, str]:
        signature = checksum_of(body_text, self._keys[0], new_salt(self._ports.randomness))
        if names_token_type:
            return {"tokenType": "AES", "signature": signature}
        named = {"clientId": self._client_id} if self._client_id else {}
        sent_at = str(int(self._ports.clock.now().timestamp()))
        return {"version": "v1", "channelId": "WEB", "requestTimestamp": sent_at, "signature": signature, **named}

    def _said(self, answer: HttpAnswer) -> Said:
        if answer.status in (401, 403):
            raise _keys_refused(after_silence=answer.after_silence)
        if 300 <= answer.status < 400:
            raise GatewayOutcomeUnknown("Paytm's address answered with a redirect, which is not followed")
        try:
            text = answer.body.decode()
            parsed = parse_json_object(text)
            body = object_of(parsed, "body")
            self._check(text, optional_text(object_of(parsed, "head"), "signature"))
            result = object_of(body, "resultInfo")
            status, code = _word(result, "resultStatus"), _word(result, "resultCode")
            said = Said(status, code, _word(result, "resultMsg"), body, answer.after_silence)
        except (UnexpectedShape, UnicodeDecodeError) as error:
            raise GatewayOutcomeUnknown("Paytm's answer is not understood") from error
        if answer.status >= 400 and not said.status:
            raise GatewayRejected(gateway_code=str(answer.status), after_silence=answer.after_silence)
        return said

    def _check(self, text: str, signature: str | None) -> None:
        """What comes without a checksum came over TLS all the same; what comes with one has to fit it."""
        if signature is None:
            return
        body = cut_member(text, "body")
        if body is None or not any(has_checksum(body, key, signature) for key in self._keys):
            raise UnexpectedShape("the checksum does not fit")


def _understood(said: Said) -> Said:
    if said.code in _SYSTEM_ERRORS:
        raise GatewayOutcomeUnknown("Paytm answered with an error of its own")
    if said.is_failure and (said.code in _KEY_PROBLEMS or "checksum" in said.message.lower()):
        raise _keys_refused(after_silence=said.after_silence)
    if said.is_throttled:
        why = "Paytm says that we ask too often"
        raise GatewayOutcomeUnknown(why) if said.after_silence else GatewayRateLimited(why)
    if said.is_failure and said.code in _OUR_MISTAKES:
        raise said.refusal()
    return said


def _keys_refused(*, after_silence: bool) -> GatewayUnavailable | GatewayOutcomeUnknown:
    """A replaced or mistyped key: this try did nothing, and no payment may be failed for it (failure H9); an unanswered
    one before it, in the same call, may have."""
    why = "Paytm refuses our checksum; check PAYTM_MERCHANT_ID and PAYTM_MERCHANT_KEY"
    return GatewayOutcomeUnknown(why) if after_silence else GatewayUnavailable(why)


def _word(result: Json, key: str) -> str:
    """A code may come as a number."""
    value = result.get(key)
    if type(value) is int and 0 <= value < 10**6:
        return str(value)
    return optional_text(result, key, longest=500) or ""
