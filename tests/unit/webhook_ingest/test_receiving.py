from __future__ import annotations

import pytest
from starlette.types import Scope

from services.webhook_ingest.api.receiving import check_media_type, check_size_claim, client_address
from services.webhook_ingest.domain.errors import BodyTooLarge, UnsupportedContentType


def a_request(*headers: tuple[str, str], peer: str | None = "192.0.2.10") -> Scope:
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "headers": encoded, "client": (peer, 1) if peer else None}


@pytest.mark.parametrize(
    ("forwarded", "hops", "expected"),
    [
        (["198.51.100.1"], 0, "192.0.2.10"),
        (["198.51.100.1"], 1, "198.51.100.1"),
        (["203.0.113.1, 198.51.100.1"], 1, "198.51.100.1"),
        (["203.0.113.1, 198.51.100.1"], 2, "203.0.113.1"),
        (["203.0.113.1", "198.51.100.1"], 2, "203.0.113.1"),
        (["198.51.100.1"], 2, "192.0.2.10"),
        (["not an address"], 1, "192.0.2.10"),
        ([], 1, "192.0.2.10"),
    ],
)
def test_the_client_is_whom_our_outermost_proxy_saw(forwarded: list[str], hops: int, expected: str) -> None:
    request = a_request(*(("X-Forwarded-For", value) for value in forwarded))
    assert client_address(request, hops) == expected


def test_a_connection_without_an_address_is_nobody() -> None:
    assert client_address(a_request(peer=None), 0) == ""


@pytest.mark.parametrize("claim", ["101", "9" * 400])
def test_a_size_claim_over_the_limit_is_refused_before_reading(claim: str) -> None:
    with pytest.raises(BodyTooLarge):
        check_size_claim({b"content-length": claim.encode()}, 100)


@pytest.mark.parametrize("claim", ["100", "0", "", "-1", "nonsense", "٣"])
def test_other_size_claims_are_left_to_the_count_of_bytes(claim: str) -> None:
    check_size_claim({b"content-length": claim.encode()}, 100)


def test_two_content_types_are_one_too_many() -> None:
    with pytest.raises(UnsupportedContentType):
        check_media_type([(b"content-type", b"application/json"), (b"content-type", b"text/xml")])


def test_a_missing_content_type_is_taken_at_its_bytes() -> None:
    check_media_type([])
