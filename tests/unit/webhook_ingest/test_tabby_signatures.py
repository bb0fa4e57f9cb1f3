"""Tabby's static header: the fact sheet's vectors, both ways, and its key for telling deliveries apart."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.registration import Trait
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.tabby import REGISTRATION, TabbyScheme, dedupe_input
from services.webhook_ingest.signatures.values import GatewayValues
from tests.unit.webhook_ingest.vectors import SIGNED_AT

SECRET = "tabby_wh_3b9f0c7d2e5a48168f4d1c6b7a90e235"
WRONG = "tabby_wh_3b9f0c7d2e5a48168f4d1c6b7a90e236"
BODY = (
    b'{"id":"5f1c2b7e-3d44-4c58-9a0e-8b1f6a2d9c31","created_at":"2026-03-01T09:00:00Z","expires_at":'
    b'"2026-03-01T09:30:00Z","closed_at":null,"status":"authorized","is_test":true,"is_expired":false,"amount":"340.00"'
    b',"currency":"AED","order":{"reference_id":"ord_1001"},"captures":[{"id":"c0a80101-0000-4000-8000-000000000001",'
    b'"amount":"140.00","created_at":"2026-03-02T10:00:00Z","reference_id":"cap_1001_1"}],"refunds":[],"meta":'
    b'{"order_id":"1001","tenant":"t_42"},"token":null}'
)
DEDUPE_INPUT = "tabby|5f1c2b7e-3d44-4c58-9a0e-8b1f6a2d9c31|authorized|c0a80101-0000-4000-8000-000000000001||ord_1001"
DEDUPE_KEY = "b245dad5ac9f631049eed4f43ba49b7346052595ed61846e526f86e29cc5d8fd"


def answered(
    *headers: tuple[str, str], body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,), title: str = "X-Tabby-Auth"
) -> Verification:
    delivery = RawDelivery("POST", "/", "", headers, body)
    return TabbyScheme(title).verify(delivery, [SigningSecret(secret) for secret in secrets], SIGNED_AT)


def test_the_body_is_the_fact_sheets() -> None:
    assert len(BODY) == 471
    assert hashlib.sha256(BODY).hexdigest() == "5b620692c9087506430d4c6320ebb8b449a04d000fc156ab52d370dd9a1b8772"


@pytest.mark.parametrize("title", ["X-Tabby-Auth", "x-tabby-auth", "X-TABBY-AUTH"])
def test_the_vectors_header_is_accepted_and_is_only_a_hint(title: str) -> None:
    verification = answered((title, SECRET))
    assert verification.verified
    assert (verification.trust, verification.event_type) == (Trust.HINT, "authorized")
    assert (verification.event_id, verification.event_id_is_signed) == (DEDUPE_KEY, False)
    assert verification.key_id == SigningSecret(SECRET).key_id


def test_what_we_sign_is_the_vectors_header() -> None:
    signed = TabbyScheme().sign(SigningSecret(SECRET), BODY, timestamp=SIGNED_AT, message_id="any")
    assert signed == {"X-Tabby-Auth": SECRET}


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ((("X-Tabby-Auth", WRONG),), Refusal.SIGNATURE_MISMATCH),
        ((("X-Tabby-Auth", SECRET + " "),), Refusal.SIGNATURE_MISMATCH),
        ((("X-Tabby-Auth", SECRET.upper()),), Refusal.SIGNATURE_MISMATCH),
        ((("X-Tabby-Auth", "\udcff\x00"),), Refusal.SIGNATURE_MISMATCH),
        ((("X-Tabby-Auth", ""),), Refusal.SIGNATURE_MISSING),
        ((), Refusal.SIGNATURE_MISSING),
        ((("X-Other", SECRET),), Refusal.SIGNATURE_MISSING),
        ((("X-Tabby-Auth", SECRET), ("x-tabby-auth", SECRET)), Refusal.REPEATED_FIELD),
        ((("X-Tabby-Auth", WRONG), ("X-Tabby-Auth", SECRET)), Refusal.REPEATED_FIELD),
    ],
)
def test_any_other_header_is_refused(headers: tuple[tuple[str, str], ...], refusal: Refusal) -> None:
    assert answered(*headers).refusal is refusal


def test_while_a_secret_is_rotated_both_are_accepted_and_none_is_none() -> None:
    for secret in (WRONG, SECRET):
        verification = answered(("X-Tabby-Auth", secret), secrets=(SECRET, WRONG))
        assert verification.key_id == SigningSecret(secret).key_id
    assert answered(("X-Tabby-Auth", SECRET), secrets=()).refusal is Refusal.NO_SECRET
    assert answered(("X-Tabby-Auth", ""), secrets=("",)).refusal is Refusal.SIGNATURE_MISSING


def test_a_tampered_body_still_verifies_and_that_is_why_it_is_a_hint() -> None:
    tampered = BODY.replace(b"340.00", b"999.00")
    verification = answered(("X-Tabby-Auth", SECRET), body=tampered)
    assert (verification.verified, verification.trust) == (True, Trust.HINT)
    assert Trait.WHOLE_BODY in REGISTRATION.not_offered


def test_deliveries_of_one_event_have_one_key_whatever_the_order_of_their_lists() -> None:
    body = json.loads(BODY)
    assert dedupe_input(body) == DEDUPE_INPUT
    body["captures"].append({"id": "b0000000-0000-4000-8000-000000000002"})
    several = dedupe_input(body)
    body["captures"].reverse()
    assert several == dedupe_input(body) != DEDUPE_INPUT
    refunded = dedupe_input({**json.loads(BODY), "refunds": [{"id": "r1"}]})
    assert refunded == DEDUPE_INPUT.replace("||", "|r1|")


def test_a_dispute_is_told_apart_by_its_status() -> None:
    body = b'{"dispute_id":"d1","payment_id":"p1","status":"pending","amount":"1.00","currency":"AED"}'
    verification = answered(("X-Tabby-Auth", SECRET), body=body)
    assert verification.event_type == "dispute.pending"
    assert verification.event_id == hashlib.sha256(b"tabby|dispute|d1|pending").hexdigest()


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff\xfe", b'{"id":1}', b"[" * 100_000, b'{"id":"a"}'])
def test_a_body_that_is_none_of_tabbys_has_no_name(body: bytes) -> None:
    verification = answered(("X-Tabby-Auth", SECRET), body=body)
    assert (verification.verified, verification.event_id, verification.event_type) == (True, None, None)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "status", "order", "captures", "reference_id"]), inner, max_size=5)
    ),
    max_leaves=10,
)


@given(st.one_of(st.binary(max_size=200), _JSON.map(lambda value: json.dumps(value).encode())), st.text(max_size=50))
def test_any_body_and_any_header_give_an_answer(body: bytes, header: str) -> None:
    assert answered(("X-Tabby-Auth", header), body=body).verified is (header == SECRET)
    assert answered(("X-Tabby-Auth", SECRET), body=body).trust is Trust.HINT


def test_the_title_is_a_setting_and_its_values_are_left_out_of_copies() -> None:
    registry = build_registry(
        GatewayValues({"TABBY_WEBHOOK_SECRET": f"{SECRET},{WRONG}", "TABBY_WEBHOOK_HEADER": "Shop-Token"}),
        production=True,
    )
    gateway = registry["tabby"]
    assert gateway.scheme.secret_headers == {"shop-token"}
    delivery = RawDelivery("POST", "/", "", (("shop-token", WRONG),), BODY)
    assert gateway.scheme.verify(delivery, gateway.secrets, SIGNED_AT).verified
    assert answered(("X-Tabby-Auth", SECRET), title="Shop-Token").refusal is Refusal.SIGNATURE_MISSING


@pytest.mark.parametrize("title", ["X Tabby", "X-Tabby:", "", "Tabbÿ", "Host", "content-type", "X-Forwarded-For"])
def test_a_title_that_cannot_carry_our_secret_is_refused_at_the_start(title: str) -> None:
    with pytest.raises(InvalidSchemeConfig):
        TabbyScheme(title)


@pytest.mark.parametrize("secret", ["geheimnis-ß-geheimnis", "short", "line\nbreak-and-long-enough"])
def test_a_secret_that_proves_nothing_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(InvalidSchemeConfig):
        build_registry(
            GatewayValues({"TABBY_WEBHOOK_SECRET__UAE": SECRET, "TABBY_WEBHOOK_SECRET": secret}), production=True
        )
