"""Tamara's token: the fact sheet's vectors both ways, and everything that has to be refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.tamara import DEFINITION
from services.gateway_sandbox.gateways.tamara.objects import notification_jwt
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.tamara import TamaraScheme
from services.webhook_ingest.signatures.values import GatewayValues
from shared.randomness import SystemRandomness

SECRET = "tamara-notification-token-for-tests-0001"
OTHER_SECRET = "tamara-notification-token-for-tests-0002"
ISSUED_AT, NOW = 1772355600, 1772355700
HEAD = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9"
CLAIMS = "eyJleHAiOjE3NzIzNTY1MDAsImlhdCI6MTc3MjM1NTYwMCwiaXNzIjoiVGFtYXJhIn0"
VALID = f"{HEAD}.{CLAIMS}.5HJjt4U6FS-O-k1ZhYkfhG81DOBW-6DIkzOaPvVsow4"
WRONG_KEY = f"{HEAD}.{CLAIMS}.dEwxFsbwNS3R4JTR7ZkeRCEclESivez8dDrBDVXf4uM"
UNSIGNED = f"eyJ0eXAiOiJKV1QiLCJhbGciOiJub25lIn0.{CLAIMS}."
OTHER_ISSUER = (
    f"{HEAD}.eyJleHAiOjE3NzIzNTY1MDAsImlhdCI6MTc3MjM1NTYwMCwiaXNzIjoiTm90VGFtYXJhIn0"
    ".ygEQdWh63klcjwDafimTp_T9vDge7y3ns4Liif3nquo"
)
BODY = (
    b'{"order_id":"7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11","order_reference_id":"ord_1001","order_number":"1001",'
    b'"event_type":"order_approved","data":[]}'
)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def delivery(*headers: tuple[str, str], query: str = "", body: bytes = BODY) -> RawDelivery:
    return RawDelivery("POST", "/webhooks/tamara/t_42", query, headers, body)


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def verify(raw: RawDelivery, *secrets: str, now: int = NOW, scheme: TamaraScheme | None = None) -> Verification:
    keys = [SigningSecret(secret) for secret in secrets or (SECRET,)]
    return (scheme or TamaraScheme()).verify(raw, keys, at(now))


def a_token(claims: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


def claims_with(**changes: Any) -> dict[str, Any]:
    return {"exp": ISSUED_AT + 900, "iat": ISSUED_AT, "iss": "Tamara"} | changes


def test_the_fact_sheets_vector_verifies_here_and_by_the_library_alone_and_is_only_a_hint() -> None:
    assert hashlib.sha256(BODY).hexdigest() == "c5d03172cd2941a8376e67a3e55f2d33632383e0f5f6656d868788354195064e"
    answer = verify(delivery(bearer(VALID), query=f"tamaraToken={VALID}"))
    assert (answer.verified, answer.trust, answer.event_type) == (True, Trust.HINT, "order_approved")
    assert answer.timestamp == at(ISSUED_AT)
    assert answer.event_id == "tamara|order_approved|7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11|"
    assert not answer.event_id_is_signed
    assert answer.key_id == SigningSecret(SECRET).key_id
    options: Any = {"verify_exp": False}
    assert jwt.decode(VALID, SECRET, algorithms=["HS256"], options=options)["iss"] == "Tamara"


def test_what_the_sandbox_signs_is_the_vector_to_the_last_character() -> None:
    assert notification_jwt(SECRET, at(ISSUED_AT)) == VALID
    site = Site({"TAMARA_NOTIFICATION_TOKEN": f"{SECRET}, {OTHER_SECRET}"}, "http://x", "Shop", SystemRandomness())
    gateway = DEFINITION.build(site)
    assert gateway is not None
    assert gateway.sign(BODY, at(ISSUED_AT)) == {"Authorization": f"Bearer {VALID}"}
    assert DEFINITION.build(Site({}, "http://x", "Shop", SystemRandomness())) is None


def test_a_body_that_nobody_sent_passes_with_a_token_that_was_seen_so_it_is_never_more_than_a_hint() -> None:
    forged = BODY.replace(b"order_approved", b"order_captured")
    answer = verify(delivery(bearer(VALID), body=forged))
    assert (answer.verified, answer.trust, answer.event_type) == (True, Trust.HINT, "order_captured")


@pytest.mark.parametrize(
    ("token", "now", "refusal"),
    [
        (VALID, ISSUED_AT + 900 + 61, Refusal.TIMESTAMP_OUT_OF_TOLERANCE),
        (VALID, ISSUED_AT - 61, Refusal.TIMESTAMP_OUT_OF_TOLERANCE),
        (WRONG_KEY, NOW, Refusal.SIGNATURE_MISMATCH),
        (UNSIGNED, NOW, Refusal.SIGNATURE_MALFORMED),
        (OTHER_ISSUER, NOW, Refusal.SIGNATURE_MISMATCH),
        (VALID.replace(CLAIMS, CLAIMS[:-1] + "A"), NOW, Refusal.SIGNATURE_MISMATCH),
        (f"{VALID}.x", NOW, Refusal.SIGNATURE_MALFORMED),
        ("no.jwt.here", NOW, Refusal.SIGNATURE_MALFORMED),
        ("é.é.é", NOW, Refusal.SIGNATURE_MALFORMED),
        ("a" * 5000, NOW, Refusal.SIGNATURE_MALFORMED),
        ("..", NOW, Refusal.SIGNATURE_MALFORMED),
    ],
    ids="expired early key none issuer claims parts garbage letters long empty".split(),
)
def test_what_tamara_did_not_sign_now_is_refused(token: str, now: int, refusal: Refusal) -> None:
    assert verify(delivery(bearer(token)), now=now).refusal is refusal
    assert verify(delivery(query=f"tamaraToken={token}"), now=now).refusal is refusal


def test_the_leeway_is_a_minute_and_no_more() -> None:
    assert verify(delivery(bearer(VALID)), now=ISSUED_AT + 900 + 59).verified
    assert verify(delivery(bearer(VALID)), now=ISSUED_AT - 60).verified


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"iat": ISSUED_AT, "iss": "Tamara"}, Refusal.TIMESTAMP_MISSING),
        (claims_with(exp=str(ISSUED_AT + 900)), Refusal.TIMESTAMP_MALFORMED),
        (claims_with(exp=True), Refusal.TIMESTAMP_MALFORMED),
        (claims_with(exp=float("nan")), Refusal.TIMESTAMP_MALFORMED),
        (claims_with(iat="now"), Refusal.TIMESTAMP_MALFORMED),
        (claims_with(iss=None), Refusal.SIGNATURE_MISMATCH),
        (claims_with(iss=["Tamara"]), Refusal.SIGNATURE_MISMATCH),
    ],
)
def test_claims_that_tamara_would_not_make(claims: dict[str, Any], refusal: Refusal) -> None:
    token = jwt.PyJWS().encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")
    assert verify(delivery(bearer(token))).refusal is refusal


def test_a_token_without_an_issuer_or_an_issue_time_passes_as_the_vendors_own_package_lets_it() -> None:
    answer = verify(delivery(bearer(a_token({"exp": ISSUED_AT + 900}))))
    assert (answer.verified, answer.timestamp) == (True, None)


def test_the_algorithm_is_ours_and_not_the_tokens() -> None:
    for algorithm in ("HS384", "HS512"):
        token = a_token(claims_with(), secret=SECRET * 2, algorithm=algorithm)
        assert verify(delivery(bearer(token)), SECRET * 2).refusal is Refusal.SIGNATURE_MALFORMED


def test_the_header_comes_before_the_query_and_neither_may_be_there_twice() -> None:
    assert verify(delivery(query=f"a=1&tamaraToken={VALID}")).verified
    assert verify(delivery(("authorization", f"bearer {VALID}"))).verified
    assert verify(delivery(bearer(WRONG_KEY), query=f"tamaraToken={VALID}")).refusal is Refusal.SIGNATURE_MISMATCH
    assert verify(delivery(("Authorization", "Basic eDp5"), query=f"tamaraToken={VALID}")).verified
    for raw in (delivery(bearer(VALID), bearer(VALID)), delivery(query=f"tamaraToken={VALID}&tamaraToken={VALID}")):
        assert verify(raw).refusal is Refusal.REPEATED_FIELD
    for raw in (delivery(), delivery(("Authorization", "Bearer")), delivery(query="tamaratoken=x")):
        assert verify(raw).refusal is Refusal.SIGNATURE_MISSING


def test_the_old_token_is_accepted_while_it_is_being_replaced_and_a_short_one_never_is() -> None:
    values = GatewayValues({"TAMARA_NOTIFICATION_TOKEN": f"{OTHER_SECRET},{SECRET}"})
    gateway = build_registry(values, production=True)["tamara"]
    answer = gateway.scheme.verify(delivery(bearer(VALID)), gateway.secrets, at(NOW))
    assert answer.key_id == SigningSecret(SECRET).key_id
    assert verify(delivery(bearer(VALID)), "wrong-key").refusal is Refusal.NO_SECRET
    with pytest.raises(InvalidSchemeConfig):
        build_registry(GatewayValues({"TAMARA_NOTIFICATION_TOKEN": "wrong-key"}), production=False)


def test_our_own_header_is_a_second_lock() -> None:
    own = {"TAMARA_WEBHOOK_HEADER": "X-Our-Hook", "TAMARA_WEBHOOK_HEADER_VALUE": "a-static-value-of-ours"}
    gateway = build_registry(GatewayValues({"TAMARA_NOTIFICATION_TOKEN": SECRET, **own}), production=True)["tamara"]
    assert gateway.scheme.secret_headers == {"authorization", "x-our-hook"}

    def refusal(*headers: tuple[str, str]) -> Refusal | None:
        return gateway.scheme.verify(delivery(bearer(VALID), *headers), gateway.secrets, at(NOW)).refusal

    assert refusal(("x-our-hook", "a-static-value-of-ours")) is None
    assert refusal() is Refusal.SIGNATURE_MISSING
    assert refusal(("x-our-hook", "another")) is Refusal.SIGNATURE_MISMATCH
    assert refusal(("x-our-hook", "a"), ("x-our-hook", "a-static-value-of-ours")) is Refusal.REPEATED_FIELD
    for wrong in ({**own, "TAMARA_WEBHOOK_HEADER_VALUE": ""}, {**own, "TAMARA_WEBHOOK_HEADER": "Authorization"}):
        with pytest.raises(InvalidSchemeConfig):
            build_registry(GatewayValues({"TAMARA_NOTIFICATION_TOKEN": SECRET, **wrong}), production=False)


@pytest.mark.parametrize(
    ("body", "event_type", "event_id"),
    [
        (b'{"order_id":"o1","order_status":"approved"}', "order_approved", "tamara|order_approved|o1|"),
        (
            b'{"order_id":"o1","event_type":"order_refunded","data":{"refund_id":"r1","capture_id":"c1"}}',
            "order_refunded",
            "tamara|order_refunded|o1|r1",
        ),
        (b"not json", None, None),
        (b'{"event_type":"order_approved"}', "order_approved", None),
        (b"\xff" * 10, None, None),
    ],
)
def test_what_is_written_down_of_a_body(body: bytes, event_type: str | None, event_id: str | None) -> None:
    answer = verify(delivery(bearer(VALID), body=body))
    assert (answer.verified, answer.event_type, answer.event_id) == (True, event_type, event_id)
