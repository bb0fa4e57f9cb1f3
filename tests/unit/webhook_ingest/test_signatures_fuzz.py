"""A verifier is total (SEC-40, W6): any bytes give an answer, and no flipped bit gets through."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret
from services.webhook_ingest.signatures.schemes import HmacScheme
from tests.unit.webhook_ingest.vectors import HEADER_VECTORS, SIGNED_AT, STRIPE_VECTOR, VECTORS, Vector, vector

_SCHEMES = [(HmacScheme(case.config), case) for case in VECTORS]
_HEADER_NAMES = sorted({name for case in VECTORS for name, _ in case.headers} | {"Content-Type"})
_PIECES = st.sampled_from(
    ["v1,", "v1=", "t=", "sha256=", ",", ";", "=", "|", " ", "1772355600", "\x00", "v0=", "ts=", "h1="]
)
_LIKE_SIGNATURES = st.lists(_PIECES | st.text(max_size=8), max_size=12).map("".join)
_HEADERS = st.lists(st.tuples(st.sampled_from(_HEADER_NAMES), st.text(max_size=40) | _LIKE_SIGNATURES), max_size=6)
_BODIES = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


@settings(max_examples=600, deadline=None)
@given(
    chosen=st.sampled_from(_SCHEMES),
    headers=_HEADERS,
    query=st.text(max_size=30),
    body=_BODIES,
    secret=st.text(max_size=40),
)
def test_random_deliveries_are_refused_and_never_raise(
    chosen: tuple[HmacScheme, Vector], headers: list[tuple[str, str]], query: str, body: bytes, secret: str
) -> None:
    scheme, case = chosen
    delivery = RawDelivery("POST", "/", query, tuple(headers), body)
    assert not scheme.verify(delivery, [SigningSecret(secret), SigningSecret(case.secret)], SIGNED_AT).verified


@settings(max_examples=300, deadline=None)
@given(case=st.sampled_from(HEADER_VECTORS), data=st.data())
def test_a_mutated_signature_header_is_refused_and_never_raises(case: Vector, data: st.DataObject) -> None:
    name = case.config.signature.name
    value = next(text for header, text in case.headers if header == name)
    position = data.draw(st.integers(0, len(value) - 1))
    replacement = data.draw(st.characters(max_codepoint=255))
    mutated = value[:position] + replacement + value[position + 1 :]
    answer = case.with_header(name, mutated).verify()
    if _meaning(case, mutated) != _meaning(case, value):
        assert not answer.verified


@settings(max_examples=250, deadline=None)
@given(case=st.sampled_from([case for case in HEADER_VECTORS if "{body}" in case.config.content]), data=st.data())
def test_a_flipped_bit_in_the_body_is_refused(case: Vector, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(case.body) - 1))
    bit = data.draw(st.integers(0, 7))
    body = bytearray(case.body)
    body[position] ^= 1 << bit
    assert not replace(case, body=bytes(body)).verify().verified


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"id":"a","id":"b"}',
        b'{"id":"\\ud800","type":"\\u0000"}',
        b'{"id":' + b"9" * 10_000 + b"}",
        b'{"id":1e400,"type":NaN}',
        b"&" * 5_000 + b"=%zz%",
    ],
    ids=lambda body: repr(body[:16]),
)
@pytest.mark.parametrize("name", ["stripe", "adyen", "braintree", "twilio", "standard_webhooks"])
def test_hostile_bodies_are_refused_when_unsigned(name: str, body: bytes) -> None:
    assert not replace(vector(name), body=body).verify().verified


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"id":"\\ud800"}',
        b'{"id":"\\u0000x"}',
        b'{"id":{}}',
        b'{"id":"' + b"x" * 300 + b'"}',
    ],
    ids=lambda body: repr(body[:16]),
)
def test_hostile_bodies_that_are_signed_are_verified_without_an_event_id(body: bytes) -> None:
    scheme = HmacScheme(STRIPE_VECTOR.config)
    secret = SigningSecret(STRIPE_VECTOR.secret)
    headers = scheme.sign(secret, body, timestamp=SIGNED_AT, message_id="x")
    answer = scheme.verify(RawDelivery("POST", "/", "", tuple(headers.items()), body), [secret], SIGNED_AT)
    assert answer.verified
    assert answer.event_id is None


def _meaning(case: Vector, value: str) -> str:
    """What of a header counts: not the case of hex, not base64's padding, not the space around it."""
    return value.strip().lower() if case.config.encoding == "hex" else value.strip().rstrip("=")
