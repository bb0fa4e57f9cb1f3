"""BillDesk's JOSE: the fact sheet's vectors both ways, PyJWT and jwcrypto as judges, and what is refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from services.webhook_ingest.domain.models import dedupe_key
from services.webhook_ingest.signatures.billdesk import REGISTRATION
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared import jose

SIGNING, ENCRYPTION = "BDTestSigningKey0123456789ABCDEF", "BDTestEncryptKey0123456789ABCDEF"
CLIENT, KEY_ID = "testclient01", "testkey01"
IV = bytes(range(12))
QUESTION = b'{"mercid":"TESTMERC1","orderid":"ord0000000001"}'
PAID = (
    b'{"objectid":"transaction","transactionid":"TXN000000000001","orderid":"ord0000000001","mercid":"TESTMERC1",'
    b'"transaction_date":"2025-01-01T12:00:00+05:30","amount":"499.00","currency":"356","auth_status":"0300",'
    b'"transaction_error_code":"TRS0000","transaction_error_type":"success"}'
)
VECTOR_1 = (
    "eyJhbGciOiJIUzI1NiIsImNsaWVudGlkIjoidGVzdGNsaWVudDAxIn0."
    "eyJtZXJjaWQiOiJURVNUTUVSQzEiLCJvcmRlcmlkIjoib3JkMDAwMDAwMDAwMSJ9."
    "ZiTItLdxFkhmgEpGTEe6fpkivMBbL1XGTYeITCBlkPg"
)
VECTOR_2 = (
    "eyJhbGciOiJIUzI1NiIsImNsaWVudGlkIjoidGVzdGNsaWVudDAxIn0."
    "eyJvYmplY3RpZCI6InRyYW5zYWN0aW9uIiwidHJhbnNhY3Rpb25pZCI6IlRYTjAwMDAwMDAwMDAwMSIsIm9yZGVyaWQiOiJvcmQwMDAwMDAwMDAx"
    "IiwibWVyY2lkIjoiVEVTVE1FUkMxIiwidHJhbnNhY3Rpb25fZGF0ZSI6IjIwMjUtMDEtMDFUMTI6MDA6MDArMDU6MzAiLCJhbW91bnQiOiI0OTku"
    "MDAiLCJjdXJyZW5jeSI6IjM1NiIsImF1dGhfc3RhdHVzIjoiMDMwMCIsInRyYW5zYWN0aW9uX2Vycm9yX2NvZGUiOiJUUlMwMDAwIiwidHJhbnNh"
    "Y3Rpb25fZXJyb3JfdHlwZSI6InN1Y2Nlc3MifQ."
    "pb88LGWiG4iMb3cG-0rPyxZMll6CiZ6kGl8V3IFCFMc"
)
VECTOR_3_ENCRYPTED = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwia2lkIjoidGVzdGtleTAxIiwiY2xpZW50aWQiOiJ0ZXN0Y2xpZW50MDEifQ.."
    "AAECAwQFBgcICQoL."
    "6XywvHVk4TDEjNTIOXH1wOW_fhbRj1QAjkpz93CZgU4uRk558e2gQqlnl0tTScW6."
    "GfW7K0trMBKN90wWdC2Ptw"
)
VECTOR_3 = (
    "eyJhbGciOiJIUzI1NiIsImtpZCI6InRlc3RrZXkwMSIsImNsaWVudGlkIjoidGVzdGNsaWVudDAxIn0."
    "ZXlKaGJHY2lPaUprYVhJaUxDSmxibU1pT2lKQk1qVTJSME5OSWl3aWEybGtJam9pZEdWemRHdGxlVEF4SWl3aVkyeHBaVzUwYVdRaU9pSjBaWE4w"
    "WTJ4cFpXNTBNREVpZlEuLkFBRUNBd1FGQmdjSUNRb0wuNlh5d3ZIVms0VERFak5USU9YSDF3T1dfZmhiUmoxUUFqa3B6OTNDWmdVNHVSazU1OGUy"
    "Z1FxbG5sMHRUU2NXNi5HZlc3SzB0ck1CS045MHdXZEMyUHR3."
    "5Cm8_yiVBMDLY0mACTxwPWeTZPW4J5oncoYXlQ4LqKM"
)
AT = datetime(2025, 1, 1, 7, tzinfo=UTC)
SIGNED = {"BILLDESK_SIGNING_KEY": SIGNING, "BILLDESK_CLIENT_ID": CLIENT}
ENCRYPTED = {**SIGNED, "BILLDESK_ENCRYPTION_KEY": ENCRYPTION, "BILLDESK_KEY_ID": KEY_ID}


def verified(
    body: str | bytes, *secrets: str, values: dict[str, str] = ENCRYPTED, content_type: str = "application/jose"
) -> Verification:
    scheme = REGISTRATION.scheme(GatewayValues(values), None)  # type: ignore[arg-type]  # it fetches nothing
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    delivery = RawDelivery("POST", "/", "", (("Content-Type", content_type),), raw)
    return scheme.verify(delivery, [SigningSecret(each) for each in secrets or (SIGNING,)], AT)


def content_of(verification: Verification) -> bytes:
    assert verification.verified, verification.refusal
    assert verification.content is not None
    assert verification.content.content_type == "application/json"
    return verification.content.body


def a_token(content: bytes, key: str = SIGNING, **header: Any) -> str:
    """As anybody would sign, with PyJWT."""
    headers = {"typ": "", "clientid": CLIENT, **header}
    return jwt.PyJWS().encode(content, key.encode(), algorithm="HS256", headers=headers)


def judged_key(secret: str) -> JWK:
    return JWK(kty="oct", k=base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode())


def opened_by_jwcrypto(token: str, *, is_encrypted: bool) -> bytes:
    """Raises JWException."""
    signed = JWS()
    signed.deserialize(token, judged_key(SIGNING), alg="HS256")
    if not is_encrypted:
        return bytes(signed.payload)
    sealed = JWE(algs=["dir", "A256GCM"])
    sealed.deserialize(signed.payload.decode(), judged_key(ENCRYPTION))
    return bytes(sealed.payload)


def made_by_jwcrypto(content: bytes, *, is_encrypted: bool) -> str:
    """With an initialization vector of its own choice."""
    names = {"kid": KEY_ID, "clientid": CLIENT}
    if is_encrypted:
        header = {"alg": "dir", "enc": "A256GCM", **names}
        sealed = JWE(content, json.dumps(header), algs=["dir", "A256GCM"], recipient=judged_key(ENCRYPTION))
        content = sealed.serialize(compact=True).encode()
    signed = JWS(content)
    signed.add_signature(judged_key(SIGNING), protected=json.dumps({"alg": "HS256", **names}))
    return str(signed.serialize(compact=True))


def a_header(**header: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


# --- the vectors, both ways ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "content"), [(VECTOR_1, QUESTION), (VECTOR_2, PAID), (VECTOR_3, QUESTION)])
def test_the_vectors_verify_and_are_opened(token: str, content: bytes) -> None:
    assert content_of(verified(token)) == content
    assert content_of(verified(f"\r\n {token}\n")) == content


@pytest.mark.parametrize(("token", "content"), [(VECTOR_1, QUESTION), (VECTOR_2, PAID)])
def test_what_we_sign_is_the_vector_and_the_judge_agrees(token: str, content: bytes) -> None:
    assert jose.sign({"clientid": CLIENT}, content, SIGNING.encode()) == token
    assert jwt.PyJWS().decode(token, SIGNING.encode(), algorithms=["HS256"]) == content
    assert a_token(content) == token


def test_what_we_encrypt_is_the_vector() -> None:
    header = {"kid": KEY_ID, "clientid": CLIENT}
    encrypted = jose.encrypt(header, QUESTION, ENCRYPTION.encode(), IV)
    assert encrypted == VECTOR_3_ENCRYPTED
    assert jose.sign(header, encrypted.encode(), SIGNING.encode()) == VECTOR_3


def test_jwcrypto_opens_the_vectors() -> None:
    """A second judge, and the only one of the encryption: PyJWT knows signatures alone."""
    assert opened_by_jwcrypto(VECTOR_1, is_encrypted=False) == QUESTION
    assert opened_by_jwcrypto(VECTOR_2, is_encrypted=False) == PAID
    assert opened_by_jwcrypto(VECTOR_3, is_encrypted=True) == QUESTION
    alone = JWE(algs=["dir", "A256GCM"])
    alone.deserialize(VECTOR_3_ENCRYPTED, judged_key(ENCRYPTION))
    assert alone.payload == QUESTION
    with pytest.raises(JWException):  # a judge that lets anything pass would be none
        opened_by_jwcrypto(VECTOR_3[:-3] + "AAA", is_encrypted=True)


@given(content=st.binary(min_size=1, max_size=200), iv=st.binary(min_size=12, max_size=12))
def test_what_we_make_jwcrypto_opens(content: bytes, iv: bytes) -> None:
    """Of one byte or more: jwcrypto takes an empty content for a failure."""
    header = {"kid": KEY_ID, "clientid": CLIENT}
    encrypted = jose.encrypt(header, content, ENCRYPTION.encode(), iv)
    signed = jose.sign(header, encrypted.encode(), SIGNING.encode())
    assert opened_by_jwcrypto(signed, is_encrypted=True) == content
    assert opened_by_jwcrypto(jose.sign(header, content, SIGNING.encode()), is_encrypted=False) == content


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_what_jwcrypto_makes_we_open(is_encrypted: bool) -> None:
    for content in (QUESTION, PAID):
        assert content_of(verified(made_by_jwcrypto(content, is_encrypted=is_encrypted))) == content


def test_a_success_is_fully_trusted_and_told_apart_by_what_it_says() -> None:
    verification = verified(VECTOR_2)
    assert (verification.trust, verification.event_type) == (Trust.FULL, "transaction.0300")
    again = verified(a_token(PAID.replace(b'"currency":"356",', b'"currency":"356","ru":"NA",')))
    assert dedupe_key(verification, b"1") == dedupe_key(again, b"2") == "id:transaction:TXN000000000001:0300"
    later = verified(a_token(b'{"objectid":"refund","refundid":"RF1","refund_status":"0799"}'))
    assert (later.event_id, later.event_type) == ("refund:RF1:0799", "refund.0799")
    nameless = verified(a_token(b'{"objectid":"refund","refundid":"","refund_status":"0799"}'))
    assert dedupe_key(nameless, b"\x01") == "sha256:01"


# --- where the token is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transaction_response", "encrypted_response"])
def test_the_token_may_be_a_field_of_a_form_or_of_json(name: str) -> None:
    form = urlencode({"orderid": "ord0000000001", name: VECTOR_3, "terminal_state": "Y"})
    assert content_of(verified(form, content_type="application/x-www-form-urlencoded")) == QUESTION
    assert content_of(verified(json.dumps({name: VECTOR_1}), content_type="application/json")) == QUESTION


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ("", Refusal.SIGNATURE_MISSING),
        ("orderid=ord0000000001&status=cancelled", Refusal.SIGNATURE_MISSING),
        (PAID.decode(), Refusal.SIGNATURE_MISSING),
        (f"transaction_response={VECTOR_1}&transaction_response={VECTOR_2}", Refusal.REPEATED_FIELD),
        (f"transaction_response={VECTOR_1}&encrypted_response={VECTOR_2}", Refusal.CONTENT_AMBIGUOUS),
        (f'{{"transaction_response":"{VECTOR_1}","transaction_response":"x"}}', Refusal.CONTENT_AMBIGUOUS),
        ("{not json", Refusal.CONTENT_INCOMPLETE),
    ],
)
def test_no_token_or_more_than_one_is_refused(body: str, refusal: Refusal) -> None:
    assert verified(body).refusal is refusal


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [VECTOR_2, VECTOR_3])
def test_any_flipped_character_is_refused(token: str) -> None:
    """The last letter of a part too, whose unused bits would otherwise be a second way to write the same bytes."""
    for position, letter in enumerate(token):
        other = chr(ord(letter) ^ 1)
        if not other.isalnum():
            other = "B" if letter == "A" else "A"
        flipped = token[:position] + other + token[position + 1 :]
        assert not verified(flipped).verified, position


@pytest.mark.parametrize(
    ("token", "refusal"),
    [
        (VECTOR_1[:-1], Refusal.SIGNATURE_MALFORMED),
        (VECTOR_1.rpartition(".")[0], Refusal.SIGNATURE_MALFORMED),
        (VECTOR_1.rpartition(".")[0] + ".", Refusal.SIGNATURE_MISMATCH),
        (a_header(alg="none") + "." + VECTOR_1.split(".")[1] + ".", Refusal.SIGNATURE_MALFORMED),
        (VECTOR_1 + ".e30", Refusal.SIGNATURE_MALFORMED),
        (VECTOR_1 + "=", Refusal.SIGNATURE_MALFORMED),
        (VECTOR_3_ENCRYPTED, Refusal.SIGNATURE_MALFORMED),  # encrypted, and signed by nobody
        ("eyJ\ud800", Refusal.SIGNATURE_MALFORMED),
    ],
)
def test_what_is_cut_or_unsigned_is_refused(token: str, refusal: Refusal) -> None:
    assert verified(token).refusal is refusal


@pytest.mark.parametrize("algorithm", ["none", "HS384", "HS512", "hs256", "RS256", "PS256", "dir", None, 256])
def test_the_algorithm_is_pinned_before_any_key_is_used(algorithm: Any) -> None:
    header = a_header(alg=algorithm, clientid=CLIENT)
    assert verified(f"{header}.e30.{VECTOR_1.split('.')[2]}").refusal is Refusal.SIGNATURE_MALFORMED


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"])
def test_a_header_with_a_key_or_rules_of_its_own_is_refused_although_it_is_signed(name: str) -> None:
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", name: ["x"]}).encode()).rstrip(b"=").decode()
    signed = jose.sign({name: "x"}, QUESTION, SIGNING.encode())
    assert verified(signed).refusal is Refusal.SIGNATURE_MALFORMED
    assert verified(f"{header}.e30.e30").refusal is Refusal.SIGNATURE_MALFORMED


def test_another_secret_and_the_wrong_one_of_ours_are_refused() -> None:
    assert verified(VECTOR_1, ENCRYPTION).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(VECTOR_1, SIGNING[::-1]).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(VECTOR_3, values={**ENCRYPTED, "BILLDESK_ENCRYPTION_KEY": SIGNING}).refusal
    assert verified(VECTOR_3, values=SIGNED).refusal is Refusal.SIGNATURE_MISMATCH  # no key to open it with


def test_another_client_or_key_id_is_refused_and_an_absent_one_is_not() -> None:
    assert verified(a_token(QUESTION, clientid="another")).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(a_token(QUESTION, clientid=["x"])).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(a_token(QUESTION, kid="another")).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(a_token(QUESTION, kid="HMAC")).verified
    assert verified(jose.sign({}, QUESTION, SIGNING.encode())).verified
    inner = jose.encrypt({"kid": "another"}, QUESTION, ENCRYPTION.encode(), IV)
    assert verified(a_token(inner.encode())).refusal is Refusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("header", "iv"), [({"enc": "A128GCM"}, IV), ({"alg": "RSA-OAEP-256"}, IV), ({"zip": "DEF"}, IV), ({}, IV + b"\0")]
)
def test_what_is_encrypted_in_another_way_is_refused_although_it_is_signed(header: dict[str, str], iv: bytes) -> None:
    inner = jose.encrypt(header, QUESTION, ENCRYPTION.encode(), iv)
    assert verified(a_token(inner.encode())).refusal is Refusal.SIGNATURE_MALFORMED


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"[]", Refusal.CONTENT_INCOMPLETE),
        (b"", Refusal.CONTENT_INCOMPLETE),
        (b"\xff{}", Refusal.CONTENT_INCOMPLETE),
        (b'{"a":' * 100_000, Refusal.CONTENT_INCOMPLETE),
        (b'{"auth_status":"0399","auth_status":"0300"}', Refusal.CONTENT_AMBIGUOUS),
    ],
)
def test_signed_nonsense_is_refused(content: bytes, refusal: Refusal) -> None:
    assert verified(a_token(content)).refusal is refusal


# --- settings -----------------------------------------------------------------------------------------------------


def test_the_old_keys_are_accepted_while_they_are_being_replaced() -> None:
    values = {
        **ENCRYPTED,
        "BILLDESK_SIGNING_KEY": f"BDNewSigningKey, {SIGNING}",
        "BILLDESK_ENCRYPTION_KEY": f"{ENCRYPTION[::-1]},{ENCRYPTION}",
    }
    gateway = build_registry(GatewayValues(values), production=True)["billdesk"]
    delivery = RawDelivery("POST", "/", "", (), VECTOR_3.encode())
    verification = gateway.scheme.verify(delivery, gateway.secrets, AT)
    assert content_of(verification) == QUESTION
    assert verification.key_id == SigningSecret(SIGNING).key_id


def test_each_account_has_its_own_keys_and_names() -> None:
    values = {**SIGNED, "BILLDESK_SIGNING_KEY__SHOP2": "another-key", "BILLDESK_CLIENT_ID__SHOP2": "client02"}
    assert all(REGISTRATION.wants(name) for name in values)
    gateway = build_registry(GatewayValues(values), production=False)["billdesk"]
    token = jose.sign({"clientid": "client02"}, QUESTION, b"another-key")
    delivery = RawDelivery("POST", "/", "", (), token.encode())
    own = gateway.for_account("shop2")
    assert own is not None
    assert own.scheme.verify(delivery, own.secrets, AT).verified
    assert not gateway.scheme.verify(delivery, gateway.secrets, AT).verified
    assert gateway.scheme.verify(delivery, (), AT).refusal is Refusal.NO_SECRET


@pytest.mark.parametrize("wrong", [{"BILLDESK_ENCRYPTION_KEY": "too short"}, {"BILLDESK_SIGNING_KEY": "schlüssel"}])
def test_keys_that_cannot_be_keys_are_refused_at_the_start(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidSchemeConfig):
        build_registry(GatewayValues({**SIGNED, **wrong}), production=True)


# --- anything at all ----------------------------------------------------------------------------------------------


@given(st.one_of(st.binary(max_size=300), st.text('eyJ.-_{}=&":A0', max_size=120).map(str.encode)))
def test_any_bytes_give_a_refusal_and_never_an_exception(body: bytes) -> None:
    assert not verified(body).verified
    assert not verified(b"transaction_response=" + body).verified


@given(st.binary(max_size=200))
def test_any_signed_content_gives_an_answer(content: bytes) -> None:
    assert verified(a_token(content)).refusal in (None, Refusal.CONTENT_INCOMPLETE, Refusal.CONTENT_AMBIGUOUS)
