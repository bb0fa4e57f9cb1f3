"""PayU's reverse hash: the fact sheet's vectors both ways, with and without surcharge, and all that is not one."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhook_ingest.domain.models import dedupe_key
from services.webhook_ingest.signatures.payu import PayuScheme, reverse_hash
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.registration import Trait
from services.webhook_ingest.signatures.registry import build_registry, registrations
from services.webhook_ingest.signatures.values import GatewayValues
from shared.masking import redact_body
from tests.unit.webhook_ingest.vectors import SIGNED_AT

KEY, SALT = "TKEY01", "TSALT0123456789abcdef0123456789"
FORM, JSON = "application/x-www-form-urlencoded", "application/json; charset=utf-8"
SUCCESS = (
    "727bfee599544e635c2c997763065d2c683a92eb239db57c6b4ecd0853811b12e68fa7947995dc763d08bc5b809bc5271602ae5d0041b0df"
    "0302e98c0549ffaf"
)
WITH_CHARGES = (
    "34310d22512b992a570f1f0521e8d7139496bb447445f7bff181efed1d12d292640492c7c5c4df4293634a8517dcd572b9e293d623bc8ceb"
    "56c2102e01349e73"
)
FAILURE = (
    "16b4faad8270c414507543880a6967cec9090ad6f3ea35a4e4bf98ccb4e2636816b19a52b2cefea33c5accf56bb97c02582e6009b6f64c98"
    "a6927045f0b91e2e"
)
FIELDS = {
    "mihpayid": "403993715500000001",
    "status": "success",
    "unmappedstatus": "captured",
    "key": KEY,
    "txnid": "ord_0001",
    "amount": "499.00",
    "productinfo": "Annual plan",
    "firstname": "Asha",
    "email": "asha@example.com",
    "udf1": "t_42",
    "udf2": "",
}
REFUND = {"action": "refund", "status": "success", "request_id": "13", "mihpayid": " 4039 ", "key": KEY, "token": "t"}
DISPUTE = {
    "type": "payments",
    "event": "dispute",
    "cb_id": "7",
    "txn_id": "4039",
    "cb_status": "New",
    "updated_at": "x",
}


def a_body(signature: str | None = SUCCESS, **changes: Any) -> bytes:
    fields = {**FIELDS, "hash": signature, **changes}
    return urlencode({name: value for name, value in fields.items() if value is not None}).encode()


def answered(
    body: bytes, *secrets: str, content_type: str = FORM, keys: frozenset[str] = frozenset({KEY})
) -> Verification:
    delivery = RawDelivery("POST", "/", "", (("Content-Type", content_type),), body)
    return PayuScheme(keys).verify(delivery, [SigningSecret(text) for text in secrets or (SALT,)], SIGNED_AT)


@pytest.mark.parametrize(
    ("changes", "signature"),
    [
        ({}, SUCCESS),
        ({"additionalCharges": "9.98"}, WITH_CHARGES),
        ({"additional_charges": "9.98"}, WITH_CHARGES),
        ({"additionalCharges": "9.98", "additional_charges": "9.98"}, WITH_CHARGES),
        ({"additionalCharges": ""}, SUCCESS),
        ({"status": "failure", "unmappedstatus": "userCancelled"}, FAILURE),
        ({"hash": SUCCESS.upper()}, SUCCESS),
        ({"udf2": None}, SUCCESS),
    ],
)
def test_the_fact_sheets_vectors_verify_and_are_made(changes: dict[str, Any], signature: str) -> None:
    verification = answered(a_body(signature, **changes))
    assert verification.verified
    assert verification.trust is Trust.HINT  # captured or held, and the id, are not covered
    assert verification.key_id == SigningSecret(SALT).key_id
    signed = {name: value.encode() for name, value in {**FIELDS, **changes}.items() if value and name != "hash"}
    assert reverse_hash(signed, SALT.encode()).hex() == signature


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (a_body(amount="499.0"), Refusal.SIGNATURE_MISMATCH),
        (a_body(status="failure"), Refusal.SIGNATURE_MISMATCH),
        (a_body(additionalCharges="9.98"), Refusal.SIGNATURE_MISMATCH),
        (a_body(WITH_CHARGES), Refusal.SIGNATURE_MISMATCH),
        (a_body(WITH_CHARGES, additionalCharges="9.97"), Refusal.SIGNATURE_MISMATCH),
        (a_body(WITH_CHARGES, additionalCharges="9.98", additional_charges="1.00"), Refusal.CONTENT_AMBIGUOUS),
        (a_body(txnid="ord_0002"), Refusal.SIGNATURE_MISMATCH),
        (a_body(udf1="t_43"), Refusal.SIGNATURE_MISMATCH),
        (a_body(key="TKEY02"), Refusal.SIGNATURE_MISMATCH),
        (a_body(key=None), Refusal.SIGNATURE_MISMATCH),
        (a_body(txnid=None), Refusal.CONTENT_INCOMPLETE),
        (a_body(firstname="Asha|Annual plan", productinfo=""), Refusal.CONTENT_AMBIGUOUS),
        (a_body(None), Refusal.SIGNATURE_MISSING),
        (a_body(""), Refusal.SIGNATURE_MISSING),
        (a_body("not hex"), Refusal.SIGNATURE_MALFORMED),
        (a_body(SUCCESS[:-2]), Refusal.SIGNATURE_MALFORMED),
        (a_body() + b"&amount=499.00", Refusal.REPEATED_FIELD),
        (a_body() + b"&hash=" + SUCCESS.encode(), Refusal.REPEATED_FIELD),
        (b"", Refusal.SIGNATURE_MISSING),
        (b"\xff\x00&%%%=%ff", Refusal.SIGNATURE_MISSING),
    ],
)
def test_what_payu_has_not_signed_is_refused(body: bytes, refusal: Refusal) -> None:
    assert answered(body).refusal is refusal


def test_the_fields_that_the_hash_leaves_out_are_why_it_is_only_a_hint() -> None:
    altered = answered(a_body(mihpayid="403993715500000002", unmappedstatus="auth"))
    assert altered.verified
    assert altered.trust is Trust.HINT
    assert {Trait.WHOLE_BODY, Trait.TIMESTAMP} == set(registrations()["payu"].not_offered)


def test_what_was_signed_for_another_key_is_not_for_us() -> None:
    fields = {name: value.encode() for name, value in (FIELDS | {"key": "TKEY02"}).items()}
    body = a_body(reverse_hash(fields, SALT.encode()).hex(), key="TKEY02")
    assert answered(body).refusal is Refusal.SIGNATURE_MISMATCH
    assert answered(body, keys=frozenset({KEY, "TKEY02"})).verified
    assert answered(body, keys=frozenset()).verified  # where no key is set, the salt decides


def test_another_salt_is_refused_and_the_old_one_is_good_while_it_is_being_replaced() -> None:
    assert answered(a_body(), "another-salt").refusal is Refusal.SIGNATURE_MISMATCH
    assert answered(a_body(), "another-salt", SALT).key_id == SigningSecret(SALT).key_id
    assert answered(a_body(), "").refusal is Refusal.NO_SECRET
    delivery = RawDelivery("POST", "/", "", (("Content-Type", FORM),), a_body())
    assert PayuScheme().verify(delivery, (), SIGNED_AT).refusal is Refusal.NO_SECRET


def test_a_payment_may_come_as_json_and_is_then_signed_as_well() -> None:
    body = json.dumps({**FIELDS, "hash": SUCCESS}).encode()
    assert answered(body, content_type=JSON).verified
    assert answered(body.replace(b"499.00", b"1.00"), content_type=JSON).refusal is Refusal.SIGNATURE_MISMATCH
    unsigned = json.dumps(FIELDS).encode()
    assert answered(unsigned, content_type=JSON).refusal is Refusal.SIGNATURE_MISSING
    twice = body[:-1] + b',"amount":"499.00"}'
    assert answered(twice, content_type=JSON).refusal is Refusal.CONTENT_AMBIGUOUS


@pytest.mark.parametrize(
    ("fields", "event_type", "event_id"),
    [
        (REFUND, "refund.success", "13:success:"),
        (REFUND | {"bank_arn": "74"}, "refund.success", "13:success:74"),
        (DISPUTE, "dispute.New", "7:New:x"),
    ],
)
def test_refunds_and_disputes_come_unsigned_and_are_hints(
    fields: dict[str, str], event_type: str, event_id: str
) -> None:
    verification = answered(json.dumps(fields).encode(), content_type=JSON)
    assert verification.verified
    assert (verification.trust, verification.key_id) == (Trust.HINT, None)
    assert (verification.event_type, verification.event_id) == (event_type, event_id)
    assert not verification.event_id_is_signed


@pytest.mark.parametrize(
    ("fields", "content_type"),
    [
        (REFUND | {"key": "TKEY02"}, JSON),
        (REFUND | {"mihpayid": ""}, JSON),
        (REFUND | {"action": "capture"}, JSON),
        (DISPUTE | {"txn_id": None}, JSON),
        ({}, JSON),
        (REFUND, FORM),
    ],
)
def test_nothing_else_comes_unsigned(fields: dict[str, Any], content_type: str) -> None:
    body = json.dumps(fields).encode() if content_type == JSON else urlencode(fields).encode()
    assert answered(body, content_type=content_type).refusal is Refusal.SIGNATURE_MISSING


def test_without_a_salt_nothing_is_taken_not_even_a_hint() -> None:
    delivery = RawDelivery("POST", "/", "", (("Content-Type", JSON),), json.dumps(REFUND).encode())
    assert PayuScheme().verify(delivery, (), SIGNED_AT).refusal is Refusal.NO_SECRET


def test_what_payu_tells_repetitions_apart_by_is_noted_and_not_relied_on() -> None:
    verification = answered(a_body())
    assert verification.event_id == "403993715500000001:success:captured"
    assert verification.event_type == "payment.success"
    assert dedupe_key(verification, b"\x01" * 32).startswith("sha256:")


BUYER = {
    "name_on_card": "ASHA RAO",
    "cardnum": "512345XXXXXX2346",
    "card_no": "512345XXXXXX2346",
    "lastname": "Rao",
    "phone": "9000090000",
    "address1": "12 Main Street",
    "zipcode": "560001",
    "field1": "asha@okbank",
}


@pytest.mark.parametrize("content_type", [FORM, JSON])
def test_of_the_buyer_nothing_travels_on(content_type: str) -> None:
    fields = {**FIELDS, **BUYER, "hash": SUCCESS}
    body = urlencode(fields).encode() if content_type == FORM else json.dumps(fields).encode()
    content = answered(body, content_type=content_type).content
    assert content is not None
    assert content.content_type == FORM
    kept = {"txnid": "ord_0001", "mihpayid": "403993715500000001", "status": "success"}
    assert dict(parse_qsl(content.body.decode())) == kept
    # Nor does masking, which a delivery goes through next, take any of it away.
    assert dict(parse_qsl(redact_body(content.content_type, content.body))) == kept


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (
            REFUND | BUYER | {"merchantTxnId": "ord_0001"},
            {"action": "refund", "merchantTxnId": "ord_0001", "mihpayid": " 4039 ", "status": "success"},
        ),
        (DISPUTE | BUYER | {"txn_id": 4039}, {"event": "dispute", "txn_id": "4039", "cb_status": "New"}),
    ],
)
def test_refunds_and_disputes_travel_on_as_the_question_that_they_are(
    fields: dict[str, Any], kept: dict[str, str]
) -> None:
    content = answered(json.dumps(fields).encode(), content_type=JSON).content
    assert content is not None
    assert dict(parse_qsl(redact_body(content.content_type, content.body))) == kept


def test_a_payments_form_is_never_read_as_a_refund() -> None:
    """What the hash leaves out, anybody who has the form may add to it."""
    content = answered(a_body(action="refund", merchantTxnId="ord_0002", event="dispute", txn_id="4039")).content
    assert content is not None
    assert set(dict(parse_qsl(content.body.decode()))) == {"txnid", "mihpayid", "status"}


def test_accounts_have_their_own_keys_and_salts() -> None:
    values = GatewayValues(
        {"PAYU_SALT": SALT, "PAYU_MERCHANT_KEY": KEY, "PAYU_SALT__EU": "other", "PAYU_MERCHANT_KEY__EU": "TKEY02"}
    )
    gateway = build_registry(values, production=True)["payu"]
    delivery = RawDelivery("POST", "/", "", (("Content-Type", FORM),), a_body())
    assert gateway.scheme.verify(delivery, gateway.secrets, SIGNED_AT).verified
    eu = gateway.for_account("eu")
    assert eu is not None
    assert eu.scheme.verify(delivery, eu.secrets, SIGNED_AT).refusal is Refusal.SIGNATURE_MISMATCH
    assert build_registry(GatewayValues({"PAYU_MERCHANT_KEY": KEY}), production=True) == {}
    assert registrations()["payu"].wants("PAYU_MERCHANT_KEY")
    with pytest.raises(InvalidSchemeConfig, match="PAYU_SALT"):
        build_registry(GatewayValues({"PAYU_SALT": "a|b"}), production=True)


@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.dictionaries(st.sampled_from([*FIELDS, "hash", "additionalCharges"]), st.text(max_size=30)).map(
            lambda fields: urlencode(fields, errors="surrogatepass").encode()
        ),
        st.dictionaries(
            st.sampled_from([*FIELDS, *REFUND, *DISPUTE, "hash"]),
            st.one_of(st.text(max_size=20), st.integers(), st.none(), st.lists(st.none(), max_size=2)),
        ).map(lambda fields: json.dumps(fields).encode()),
        st.integers(1, 50_000).map(lambda depth: b'{"hash":' + b"[" * depth),
    ),
    content_type=st.sampled_from([FORM, JSON, "", "text/plain"]),
)
def test_no_bytes_raise_and_none_become_a_signed_payment(body: bytes, content_type: str) -> None:
    verification = answered(body, content_type=content_type)
    assert verification.trust is Trust.HINT
    assert not verification.verified or verification.key_id is None
