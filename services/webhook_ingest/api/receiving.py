"""Taking the raw bytes of a delivery off the wire, each check cheaper than the next (SEC d6)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from services.webhook_ingest.domain.errors import BodyTooLarge, UnsupportedContentType
from services.webhook_ingest.signatures.port import RawDelivery

_MEDIA_TYPES = frozenset({"application/json", "application/jose", "application/x-www-form-urlencoded", "text/plain"})

RawHeaders = Sequence[tuple[bytes, bytes]]
"""As ASGI has them: in order of arrival, names in lower case."""


def check_size_claim(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    """Refuse by Content-Length, before a byte of the body is read. Raises BodyTooLarge."""
    claim = headers.get(b"content-length", b"0")
    if claim.isdigit() and (len(claim) > 15 or int(claim) > max_bytes):
        raise BodyTooLarge(f"a webhook has at most {max_bytes} bytes")


def check_media_type(raw: RawHeaders) -> None:
    """Raises UnsupportedContentType. A sender that names no type is taken at its bytes."""
    types = []
    for name, value in raw:
        if name == b"content-type":
            types.append(value)
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedContentType("a compressed body is not accepted: the raw bytes are what is signed")
    if types and types != [b"application/json"] and not _is_accepted(types):
        raise UnsupportedContentType


def _is_accepted(types: Sequence[bytes]) -> bool:
    media_type = types[0].decode("latin-1").partition(";")[0].strip().lower()
    is_json = media_type.startswith("application/") and media_type.endswith("+json")
    return len(types) == 1 and (not media_type or media_type in _MEDIA_TYPES or is_json)


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises ClientDisconnect, and BodyTooLarge as soon as it is more: chunks announce no size."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLarge(f"a webhook has at most {max_bytes} bytes")
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)


def raw_delivery(scope: Scope, body: bytes) -> RawDelivery:
    headers = tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
    query: bytes = scope.get("query_string", b"")
    return RawDelivery(scope["method"], scope["path"], query.decode("latin-1"), headers, body)


def client_address(scope: Scope, trusted_hops: int) -> str:
    """Who connects, or whom the outermost of our proxies saw; nothing that a client writes itself (SEC-5)."""
    client = scope.get("client")
    peer: str = client[0] if client else ""
    if trusted_hops == 0:
        return peer
    forwarded = _forwarded_addresses(
        value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
    )
    if len(forwarded) < trusted_hops:
        return peer
    candidate = forwarded[-trusted_hops]
    return candidate if _is_address(candidate) else peer


def _forwarded_addresses(values: Iterable[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",")]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
