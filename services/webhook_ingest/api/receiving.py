"""Taking the raw bytes of a delivery off the wire, each check cheaper than the next (SEC d6)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from fastapi import Request

from services.webhook_ingest.domain.errors import BodyTooLarge, UnsupportedContentType
from services.webhook_ingest.signatures.port import RawDelivery

_MEDIA_TYPES = frozenset({"application/json", "application/jose", "application/x-www-form-urlencoded", "text/plain"})


def check_size_claim(request: Request, max_bytes: int) -> None:
    """Refuse by Content-Length, before a byte of the body is read. Raises BodyTooLarge."""
    claim = request.headers.get("content-length", "0")
    if claim.isascii() and claim.isdigit() and (len(claim) > 15 or int(claim) > max_bytes):
        raise BodyTooLarge(f"a webhook has at most {max_bytes} bytes")


def check_media_type(request: Request) -> None:
    """Raises UnsupportedContentType. A sender that names no type is taken at its bytes."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedContentType("a compressed body is not accepted: the raw bytes are what is signed")
    values = request.headers.getlist("content-type")
    media_type = values[0].partition(";")[0].strip().lower() if values else ""
    is_json = media_type.startswith("application/") and media_type.endswith("+json")
    if len(values) > 1 or (media_type and media_type not in _MEDIA_TYPES and not is_json):
        raise UnsupportedContentType


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body, or BodyTooLarge as soon as it is more: chunked bodies announce no size."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLarge(f"a webhook has at most {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def raw_delivery(request: Request, body: bytes) -> RawDelivery:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
    query: bytes = request.scope.get("query_string", b"")
    return RawDelivery(request.method, request.scope["path"], query.decode("latin-1"), headers, body)


def client_address(request: Request, trusted_hops: int) -> str:
    """Who connects, or whom the outermost of our proxies saw; nothing that a client writes itself (SEC-5)."""
    peer = request.client.host if request.client else ""
    if trusted_hops == 0:
        return peer
    forwarded = _forwarded_addresses(request.headers.getlist("x-forwarded-for"))
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
