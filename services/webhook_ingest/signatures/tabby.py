"""Tabby: a secret that we chose, in a header that we named, the same for every delivery.

It proves who sends and nothing about what is sent, so a delivery is only a reason to ask (trust: hint). There is no
event id either: the one that is recorded is made of what an event is about, as Tabby's repetitions of it agree on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.webhook_ingest.signatures.fields import clean_identifier
from services.webhook_ingest.signatures.naming import event_id_of, object_in, text_in
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
    refused,
)
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.schemes import HmacScheme, SignatureConfig, SignatureField
from services.webhook_ingest.signatures.values import GatewayValues

HEADER_VARIABLE = "TABBY_WEBHOOK_HEADER"
DEFAULT_HEADER = "X-Tabby-Auth"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_NOT_OURS_TO_NAME = frozenset(
    "host connection content-length content-type content-encoding transfer-encoding accept accept-encoding user-agent "
    "date via forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip x-request-id traceparent".split()
)
"""What senders and proxies set by themselves: a secret there would be refused always, or never."""


class TabbyScheme:
    """A static token under a configured name. One header of that name, whole and equal to one of our secrets."""

    def __init__(self, header: str = DEFAULT_HEADER) -> None:
        if not _HEADER_NAME.fullmatch(header) or header.lower() in _NOT_OURS_TO_NAME:
            raise InvalidSchemeConfig(f"{HEADER_VARIABLE} is not a header that could carry our secret")
        self.header = header
        config = SignatureConfig(name="tabby", mode="static_token", signature=SignatureField(header), trust=Trust.HINT)
        self._token = HmacScheme(config)

    @property
    def secret_headers(self) -> frozenset[str]:
        return self._token.secret_headers

    def check_secret(self, secret: SigningSecret) -> None:
        self._token.check_secret(secret)
        if not secret.text.isascii() or not secret.text.isprintable():
            raise InvalidSchemeConfig("TABBY_WEBHOOK_SECRET cannot be a header's value")

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        if len(delivery.header_values(self.header)) > 1:
            return refused(Refusal.REPEATED_FIELD)
        verification = self._token.verify(delivery, secrets, received_at)
        if not verification.verified:
            return verification
        body = object_in(delivery.body)
        return replace(verification, event_id=event_id_of(dedupe_input(body)), event_type=_event_type(body))

    def sign(self, secret: SigningSecret, body: bytes, *, timestamp: datetime, message_id: str) -> dict[str, str]:
        """The header that Tabby would add, whatever the body and the time are."""
        return self._token.sign(secret, body, timestamp=timestamp, message_id=message_id)


def dedupe_input(body: Mapping[str, Any]) -> str | None:
    """What makes two deliveries the same event (fact sheet: Dedupe key), or None for a body that is none of Tabby's."""
    dispute, status = text_in(body, "dispute_id"), text_in(body, "status")
    if dispute is not None and status is not None:
        return f"tabby|dispute|{dispute}|{status}"
    payment = text_in(body, "id")
    if payment is None or status is None:
        return None
    order = body.get("order")
    reference = text_in(order, "reference_id") if isinstance(order, dict) else None
    captures, refunds = (",".join(_ids(body, name)) for name in ("captures", "refunds"))
    return "|".join(("tabby", payment, status, captures, refunds, reference or ""))


def _event_type(body: Mapping[str, Any]) -> str | None:
    status = text_in(body, "status")
    if status is None:
        return None
    return clean_identifier(f"dispute.{status}" if "dispute_id" in body else status)


def _ids(body: Mapping[str, Any], name: str) -> list[str]:
    entries = body.get(name)
    found = [text_in(entry, "id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return sorted(each for each in found if each is not None)


def _build(values: GatewayValues) -> TabbyScheme:
    return TabbyScheme((values.text(HEADER_VARIABLE) or DEFAULT_HEADER).strip())


REGISTRATION = Registration(
    "tabby",
    "TABBY_WEBHOOK_SECRET",
    _build,
    we_choose_the_secret=True,
    variables=(HEADER_VARIABLE,),
    summary="a static secret in the header that `TABBY_WEBHOOK_HEADER` names (`X-Tabby-Auth`); nothing is signed",
    not_offered={
        Trait.WHOLE_BODY: "the header only proves that the sender knows a secret: the payment is always asked for",
        Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever",
    },
)
