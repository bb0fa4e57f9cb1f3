"""BillDesk's notifications: one compact JOSE, JWS HS256 around the JSON, or around a JWE that holds it.

It is the whole body as ``application/jose``, or one field of a form or of JSON, by the merchant's provisioning. What is
opened is verified as a whole and handed on as JSON; whatever else a form carries is looked at by nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.webhook_ingest.signatures.fields import FieldProblem, Fields, clean_identifier, unique_keys
from services.webhook_ingest.signatures.port import (
    Content,
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
    refused,
)
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.values import GatewayValues
from shared import jose

_FIELDS = ("transaction_response", "encrypted_response")
_ANY_KID = "HMAC"
"""What stands in a signature's ``kid`` for merchants whose key has no id."""

_IDENTIFIED_BY: Mapping[str, tuple[str, str]] = {
    "transaction": ("transactionid", "auth_status"),
    "refund": ("refundid", "refund_status"),
}


@dataclass(frozen=True, slots=True)
class BillDeskScheme:
    """``client_ids`` and ``key_ids`` are those of all our accounts; where none is set, none is asked for."""

    client_ids: frozenset[str]
    key_ids: frozenset[str] = frozenset()
    encryption_keys: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def secret_headers(self) -> frozenset[str]:
        return frozenset()

    def check_secret(self, secret: SigningSecret) -> None:
        if not secret.text.strip() or not secret.text.isascii():
            raise InvalidSchemeConfig("billdesk: a signing key is empty or not ASCII")

    def verify(
        self,
        delivery: RawDelivery,
        secrets: Sequence[SigningSecret],
        received_at: datetime,  # noqa: ARG002 - the port's: no time is signed
    ) -> Verification:
        if not secrets:
            return refused(Refusal.NO_SECRET)
        try:
            return self._verified(_token_of(delivery), secrets)
        except FieldProblem as problem:
            return refused(problem.reason)
        except jose.Malformed:
            return refused(Refusal.SIGNATURE_MALFORMED)
        except jose.WrongKey:
            return refused(Refusal.SIGNATURE_MISMATCH)

    def _verified(self, token: str, secrets: Sequence[SigningSecret]) -> Verification:
        signed = jose.open_signed(token, [secret.text.encode("utf-8", "surrogatepass") for secret in secrets])
        self._check(signed.header, kids=self.key_ids | {_ANY_KID})
        content = signed.content
        if jose.is_encrypted(content):
            encrypted = jose.decrypt(content.decode("ascii", "replace"), self.encryption_keys)
            self._check(encrypted.header, kids=self.key_ids)
            content = encrypted.content
        body = _json_of(content)
        return Verification(
            refusal=None,
            trust=Trust.FULL,
            key_id=secrets[signed.key_index].key_id,
            event_id=_event_id(body),
            event_id_is_signed=True,
            event_type=_event_type(body),
            content=Content("application/json", content),
        )

    def _check(self, header: Mapping[str, Any], *, kids: frozenset[str]) -> None:
        """Both are optional in what BillDesk sends; what is there has to be ours."""
        for name, ours in (("clientid", self.client_ids), ("kid", kids if self.key_ids else frozenset())):
            value = header.get(name)
            if value is not None and ours and not (isinstance(value, str) and value in ours):
                raise jose.WrongKey("made for another client, or with another key")


def _token_of(delivery: RawDelivery) -> str:
    """Raises FieldProblem where there is none, or more than one."""
    body = delivery.body.strip()
    if body.startswith(b"eyJ"):
        return body.decode("ascii", "replace")
    fields = Fields(delivery, unique_json_keys=body.startswith(b"{"))
    is_json = body.startswith(b"{")
    found = [value for name in _FIELDS if (value := fields.single("json" if is_json else "form", name))]
    if not found:
        raise FieldProblem(Refusal.SIGNATURE_MISSING)
    if len(found) > 1:
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS)
    return found[0]


def _json_of(content: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(content.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE) from None
    if not isinstance(body, dict):
        raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
    return body


def _event_type(body: Mapping[str, Any]) -> str | None:
    kind = body.get("objectid")
    names = _IDENTIFIED_BY.get(kind) if isinstance(kind, str) else None
    status = body.get(names[1]) if names is not None else None
    return clean_identifier(f"{kind}.{status}") if isinstance(status, str) else None


def _event_id(body: Mapping[str, Any]) -> str | None:
    """What it is about and what became of it. An encrypted retry has other bytes, and is the same event."""
    kind = body.get("objectid")
    names = _IDENTIFIED_BY.get(kind) if isinstance(kind, str) else None
    values = [body.get(name) for name in names] if names is not None else []
    if names is None or not all(isinstance(value, str) and clean_identifier(value) == value for value in values):
        return None
    return clean_identifier(":".join([str(kind), *map(str, values)]))


def _build(values: GatewayValues) -> BillDeskScheme:
    """Raises InvalidSchemeConfig. Which account a delivery is for is known by its address alone, after the secrets: so
    the ids and encryption keys of all accounts count for each."""
    keys = tuple(key.encode() for key in _of_all_accounts(values, "BILLDESK_ENCRYPTION_KEY"))
    if any(len(key) != jose.CONTENT_KEY_BYTES for key in keys):
        raise InvalidSchemeConfig(f"BILLDESK_ENCRYPTION_KEY must have {jose.CONTENT_KEY_BYTES} characters")
    return BillDeskScheme(
        frozenset(_of_all_accounts(values, "BILLDESK_CLIENT_ID")),
        frozenset(_of_all_accounts(values, "BILLDESK_KEY_ID")),
        keys,
    )


def _of_all_accounts(values: GatewayValues, name: str) -> list[str]:
    names = (name, *values.names_starting_with(f"{name}__"))
    return [item for each in names for item in values.items(each)]


REGISTRATION = Registration(
    "billdesk",
    "BILLDESK_SIGNING_KEY",
    _build,
    variables=(
        "BILLDESK_SIGNING_KEY__",
        "BILLDESK_CLIENT_ID",
        "BILLDESK_CLIENT_ID__",
        "BILLDESK_KEY_ID",
        "BILLDESK_KEY_ID__",
        "BILLDESK_ENCRYPTION_KEY",
        "BILLDESK_ENCRYPTION_KEY__",
    ),
    summary="JWS HS256 with the signing key, around the JSON or a JWE (`dir`, A256GCM); body, form field or JSON field",
    not_offered={Trait.TIMESTAMP: "the token holds no time; each status counts once, and successes are asked about"},
)
