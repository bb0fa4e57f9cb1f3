"""Tokens: given for client id, secret and version, and asked for with every other call as ``O-Bearer``."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from services.gateway_sandbox.gateways.phonepe.wire import Json, bad_request, unauthorized
from services.gateway_sandbox.gateways.port import WireCall

TOKEN_SECONDS = 3600
_FORM = "application/x-www-form-urlencoded"
_FIELDS = frozenset({"client_id", "client_secret", "client_version", "grant_type"})
_NONCE = 16


@dataclass(frozen=True, slots=True)
class Client:
    """Without id and secret any will do, and any token too."""

    client_id: str | None
    client_secret: str | None
    client_version: str

    def issue(self, call: WireCall, nonce: str, now: datetime) -> Json:
        """Raises WireError. The time is in seconds here, and only here."""
        form = self._form(call)
        wanted = {
            "client_id": self.client_id or form["client_id"],
            "client_secret": self.client_secret or form["client_secret"],
            "client_version": self.client_version,
        }
        if any(not hmac.compare_digest(form[key].encode(), value.encode()) for key, value in wanted.items()):
            raise unauthorized()
        issued_at, token = int(now.timestamp()), nonce + self._proof(nonce)
        return {
            "access_token": token,
            "encrypted_access_token": "opaque",
            "expires_in": None,
            "issued_at": issued_at,
            "expires_at": issued_at + TOKEN_SECONDS,
            "session_expires_at": issued_at + TOKEN_SECONDS,
            "token_type": "O-Bearer",
            "refresh_token": "opaque",
        }

    def authenticate(self, call: WireCall) -> None:
        """Raises WireError. The scheme is ``O-Bearer``, and ``Bearer`` is none."""
        scheme, _, token = call.headers.get("authorization", "").partition(" ")
        if scheme != "O-Bearer" or not token:
            raise unauthorized()
        if self.client_secret is None:
            return
        nonce, proof = token[:_NONCE], token[_NONCE:]
        if not hmac.compare_digest(proof.encode(), self._proof(nonce).encode()):
            raise unauthorized()

    def _form(self, call: WireCall) -> dict[str, str]:
        if call.headers.get("content-type", "").partition(";")[0].strip() != _FORM:
            raise bad_request("the token is asked for with a form")
        try:
            pairs = parse_qsl(call.body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=20)
        except ValueError:
            raise bad_request("not a form") from None
        form = dict(pairs)
        if set(form) != _FIELDS or len(pairs) != len(_FIELDS) or form["grant_type"] != "client_credentials":
            raise bad_request("client_id, client_secret, client_version and grant_type are wanted")
        return form

    def _proof(self, nonce: str) -> str:
        """Any process of the sandbox knows a token again, without storing it. It does not expire."""
        return hmac.new((self.client_secret or "").encode(), nonce.encode(), hashlib.sha256).hexdigest()
