"""PhonePe's header: the fact sheet's vectors, both ways, and everything that has to be refused."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.phonepe import DEFINITION
from services.webhook_ingest.signatures.phonepe import REGISTRATION, PhonepeScheme, dedupe_input, digest_of
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
from services.webhook_ingest.signatures.values import GatewayValues
from shared.randomness import SystemRandomness
from tests.unit.webhook_ingest.vectors import SIGNED_AT

USERNAME, PASSWORD, OTHER = "shopuser", "Passw0rd42", "0therPassw0rd"
VECTOR = "80b54dc5032aa9e1bf2612c04d2d0038b53628cf08f701c31e759ed50feb13d9"
WITHOUT_COLON = hashlib.sha256(b"shopuserPassw0rd42").hexdigest()
BODY = (
    b'{"event":"checkout.order.completed","payload":{"merchantId":"TESTMERCHANT1","merchantOrderId":"ord_0001",'
    b'"orderId":"OMO2501011200000000001","state":"COMPLETED","amount":49900,"expireAt":1735714200000,'
    b'"metaInfo":{"udf1":"t_42"},"paymentDetails":[{"transactionId":"OM2501011200000000001",'
    b'"paymentMode":"UPI_INTENT","timestamp":1735713100000,"amount":49900,"state":"COMPLETED"}]}}'
)
DEDUPE_INPUT = "phonepe|checkout.order.completed|OMO2501011200000000001|COMPLETED|1735713100000"


def answered(
    *headers: tuple[str, str],
    body: bytes = BODY,
    secrets: tuple[str, ...] = (PASSWORD,),
    usernames: tuple[str, ...] = (USERNAME,),
) -> Verification:
    delivery = RawDelivery("POST", "/", "", headers, body)
    return PhonepeScheme(usernames).verify(delivery, [SigningSecret(secret) for secret in secrets], SIGNED_AT)


def test_what_is_computed_is_the_vector() -> None:
    assert digest_of(USERNAME, PASSWORD) == VECTOR
    variables = {"PHONEPE_WEBHOOK_USERNAME": f"{USERNAME},other", "PHONEPE_WEBHOOK_PASSWORD": f"{PASSWORD},{OTHER}"}
    sandbox = DEFINITION.build(Site(variables, "http://sandbox.test", "Shop", SystemRandomness()))
    assert sandbox is not None
    assert sandbox.sign(BODY, SIGNED_AT) == {"Authorization": VECTOR}


@pytest.mark.parametrize("value", [VECTOR, VECTOR.upper(), f" {VECTOR} ", f"SHA256 {VECTOR}", f"sha256  {VECTOR}"])
@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_the_vector_is_accepted_and_is_only_a_hint(name: str, value: str) -> None:
    verification = answered((name, value))
    assert verification.verified
    assert (verification.trust, verification.event_type) == (Trust.HINT, "checkout.order.completed")
    assert verification.event_id == hashlib.sha256(DEDUPE_INPUT.encode()).hexdigest()
    assert (verification.event_id_is_signed, verification.timestamp) == (False, None)
    assert verification.key_id == SigningSecret(PASSWORD).key_id


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ((("Authorization", WITHOUT_COLON),), Refusal.SIGNATURE_MISMATCH),
        ((("Authorization", digest_of(USERNAME, OTHER)),), Refusal.SIGNATURE_MISMATCH),
        ((("Authorization", digest_of("shopuser2", PASSWORD)),), Refusal.SIGNATURE_MISMATCH),
        ((("Authorization", VECTOR[:-1]),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", VECTOR + "0"),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", f"Bearer {VECTOR}"),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", f"{USERNAME}:{PASSWORD}"),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", VECTOR + " " * 1000 + "x"),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", "\udcff\x00"),), Refusal.SIGNATURE_MALFORMED),
        ((("Authorization", "  "),), Refusal.SIGNATURE_MISSING),
        ((), Refusal.SIGNATURE_MISSING),
        ((("X-VERIFY", VECTOR),), Refusal.SIGNATURE_MISSING),
        ((("Authorization", VECTOR), ("authorization", VECTOR)), Refusal.REPEATED_FIELD),
    ],
)
def test_any_other_header_is_refused(headers: tuple[tuple[str, str], ...], refusal: Refusal) -> None:
    assert answered(*headers).refusal is refusal


def test_while_username_or_password_is_replaced_both_are_accepted() -> None:
    for username, password in ((USERNAME, PASSWORD), (USERNAME, OTHER), ("newuser", OTHER)):
        header = ("Authorization", digest_of(username, password))
        verification = answered(header, secrets=(PASSWORD, OTHER), usernames=(USERNAME, "newuser"))
        assert verification.key_id == SigningSecret(password).key_id
    assert answered(("Authorization", VECTOR), secrets=()).refusal is Refusal.NO_SECRET


def test_a_tampered_body_still_verifies_and_that_is_why_it_is_a_hint() -> None:
    verification = answered(("Authorization", VECTOR), body=BODY.replace(b"49900", b"99900"))
    assert (verification.verified, verification.trust) == (True, Trust.HINT)
    assert set(REGISTRATION.not_offered) == {Trait.WHOLE_BODY, Trait.TIMESTAMP}


def test_deliveries_of_one_event_have_one_key_and_others_have_others() -> None:
    def key(**changes: object) -> str | None:
        body = json.loads(BODY, parse_int=str)
        return dedupe_input({**body, "payload": {**body["payload"], **changes}})

    assert key() == key(amount="1", merchantId="other") == DEDUPE_INPUT
    keys = {key(), key(state="FAILED"), key(orderId="OMO2"), key(timestamp="1735713100001"), key(refundId="OMR1")}
    assert len(keys) == 5
    assert key(orderId=None) is None
    assert dedupe_input({"event": "checkout.order.completed", "payload": []}) is None


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b'{"event":1}', b"null"]), st.text(max_size=80))
def test_any_body_and_any_header_give_an_answer(body: bytes, header: str) -> None:
    assert answered(("Authorization", header), body=body).verified is False
    verification = answered(("Authorization", VECTOR), body=body)
    assert (verification.verified, verification.trust, verification.event_id) == (True, Trust.HINT, None)


def test_the_settings_build_it_and_copies_leave_the_header_out() -> None:
    made = DEFINITION.secrets(SystemRandomness())
    gateway = build_registry(GatewayValues(made), production=True)["phonepe"]
    assert gateway.scheme.secret_headers == {"authorization"}
    sandbox = DEFINITION.build(Site(made, "http://sandbox.test", "Shop", SystemRandomness()))
    assert sandbox is not None
    headers = tuple(sandbox.sign(BODY, SIGNED_AT).items())
    assert gateway.scheme.verify(RawDelivery("POST", "/", "", headers, BODY), gateway.secrets, SIGNED_AT).verified


@pytest.mark.parametrize(
    ("username", "password"),
    [("", PASSWORD), ("four", PASSWORD), ("shop user", PASSWORD), ("shopuser", "onlyletters"), ("shopuser", "Sh0rt")],
)
def test_credentials_that_cannot_be_phonepes_are_refused_at_the_start(username: str, password: str) -> None:
    values = {"PHONEPE_WEBHOOK_USERNAME": username, "PHONEPE_WEBHOOK_PASSWORD": password}
    with pytest.raises(InvalidSchemeConfig) as refused:
        build_registry(GatewayValues(values), production=False)
    assert password not in str(refused.value)


# --- v1, which is not spoken: its vectors are right, and no scheme of ours takes them --------------------------------

SALT, INDEX = "11111111-2222-3333-4444-555555555555", "1"
PAY = (
    b'{"merchantId":"TESTMERCHANT1","merchantTransactionId":"ord_0001","merchantUserId":"cust_42","amount":49900,'
    b'"redirectUrl":"https://shop.example/r","redirectMode":"REDIRECT","callbackUrl":"https://shop.example/cb",'
    b'"paymentInstrument":{"type":"PAY_PAGE"}}'
)
CALLBACK = (
    b'{"success":true,"code":"PAYMENT_SUCCESS","data":{"merchantId":"TESTMERCHANT1","merchantTransactionId":"ord_0001",'
    b'"transactionId":"T2501011200000000001","amount":49900,"state":"COMPLETED"}}'
)
V1_VECTORS = [
    (
        base64.b64encode(PAY).decode() + "/pg/v1/pay",
        "da2715f77fd660062b541c210189f6d6769ef800eb34019bf72fef63cd590ed3###1",
    ),
    (
        "/pg/v1/status/TESTMERCHANT1/ord_0001",
        "ba86976d2991ec8655003b94021309327f332972c890c360a13a5ef167771224###1",
    ),
    (
        base64.b64encode(CALLBACK).decode(),
        "94602773f31bc5f0ca103f4d035c0d32ebc8116224cb38370cde8d2ebe357cd6###1",
    ),
]


@pytest.mark.parametrize(("text", "x_verify"), V1_VECTORS)
def test_a_v1_checksum_is_as_the_fact_sheet_has_it_and_opens_nothing(text: str, x_verify: str) -> None:
    assert f"{hashlib.sha256((text + SALT).encode()).hexdigest()}###{INDEX}" == x_verify
    body = json.dumps({"response": text}).encode()
    assert answered(("X-VERIFY", x_verify), body=body).refusal is Refusal.SIGNATURE_MISSING
    assert answered(("Authorization", x_verify), body=body).refusal is Refusal.SIGNATURE_MALFORMED
    assert answered(("Authorization", x_verify.partition("#")[0]), body=body).refusal is Refusal.SIGNATURE_MISMATCH


def test_a_v1_callback_that_is_written_anew_has_another_checksum() -> None:
    text, x_verify = V1_VECTORS[2]
    spaced = base64.b64encode(json.dumps(json.loads(base64.b64decode(text))).encode()).decode()
    assert hashlib.sha256((spaced + SALT).encode()).hexdigest() != x_verify.partition("#")[0]
