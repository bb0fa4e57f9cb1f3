from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.webhook_ingest.domain.models import dedupe_key
from services.webhook_ingest.domain.sanitizing import (
    REJECT_HEADER_CHARACTERS,
    safe_headers,
    safe_query,
    safe_text,
    without_card_numbers,
)
from services.webhook_ingest.signatures.port import Trust, Verification
from shared.masking import MASK


@given(st.binary(max_size=300))
def test_a_body_without_card_numbers_keeps_every_byte(body: bytes) -> None:
    assert without_card_numbers(body.translate(None, b"0123456789")) == body.translate(None, b"0123456789")


def test_a_card_number_is_cut_out_of_any_bytes() -> None:
    masked = without_card_numbers(b"\xff\x00 4242-4242-4242-4242 \xfe")
    assert masked.startswith(b"\xff\x00 [PAN:")
    assert masked.endswith(b"4242] \xfe")


@given(st.text())
def test_safe_text_is_storable_printable_and_bounded(text: str) -> None:
    safe = safe_text(text, 20)
    assert len(safe) <= 20
    assert safe.isprintable()
    safe.encode()


def test_headers_lose_secrets_and_excess() -> None:
    headers = [("Authorization", "Bearer x"), ("X-Callback-Token", "t"), ("X-Id", "1")]
    kept = dict(safe_headers(headers, secret_names=frozenset({"x-callback-token"})))
    assert kept == {"Authorization": "[removed]", "X-Callback-Token": "[removed]", "X-Id": "1"}
    flood = [(f"X-{number}", "v" * 1000) for number in range(200)]
    assert len(safe_headers(flood, secret_names=frozenset())) == 60
    bounded = safe_headers(flood, secret_names=frozenset(), characters=REJECT_HEADER_CHARACTERS)
    assert sum(len(name) + len(value) for name, value in bounded) <= REJECT_HEADER_CHARACTERS


def test_only_a_signed_event_id_is_deduplicated_by() -> None:
    digest = bytes(32)
    signed = Verification(None, Trust.FULL, event_id="e1", event_id_is_signed=True)
    unsigned = Verification(None, Trust.FULL, event_id="e1", event_id_is_signed=False)
    assert dedupe_key(signed, digest) == "id:e1"
    assert dedupe_key(unsigned, digest) == dedupe_key(Verification(None), digest) == "sha256:" + "0" * 64


def test_what_opens_a_door_is_taken_out_of_the_address() -> None:
    query = "tamaraToken=eyJhbGciOi.x.y&orderId=o%2D1&api_key=k&flag&token="
    assert safe_query(query) == f"tamaraToken={MASK}&orderId=o%2D1&api_key={MASK}&flag&token="
