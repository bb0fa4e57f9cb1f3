"""Paytm's checksum: the fact sheet's vectors, and the official package as the judge, both ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paytmchecksum import PaytmChecksum

from services.webhook_ingest.domain.models import dedupe_key
from services.webhook_ingest.signatures.paytm import REGISTRATION, PaytmScheme
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
from shared.paytm_checksum import (
    checksum_of,
    cut_member,
    envelope,
    form_fields,
    form_text,
    has_checksum,
    key_of,
    new_salt,
)
from tests.support.clock import A_MOMENT, SeededRandomness

SECRET, SALT = "TestMerchantKy16", "aB3x"
OTHER_SECRET = "AnotherMerchKy16"
KEY = key_of(SECRET)

INITIATE = (
    '{"requestType":"Payment","mid":"TESTMID0000000000001","websiteName":"WEBSTAGING","orderId":"ord_0001",'
    '"callbackUrl":"https://shop.example/paytm/return","txnAmount":{"value":"499.00","currency":"INR"},'
    '"userInfo":{"custId":"cust_42"}}'
)
STATUS = '{"mid":"TESTMID0000000000001","orderId":"ord_0001"}'
FORM: Mapping[str, str] = {
    "BANKNAME": "",
    "BANKTXNID": "500100000001",
    "CURRENCY": "INR",
    "GATEWAYNAME": "PPBLC",
    "MID": "TESTMID0000000000001",
    "ORDERID": "ord_0001",
    "PAYMENTMODE": "UPI",
    "RESPCODE": "01",
    "RESPMSG": "Txn Success",
    "STATUS": "TXN_SUCCESS",
    "TXNAMOUNT": "499.00",
    "TXNDATE": "2025-01-01 12:00:00.0",
    "TXNID": "20250101111212800110168000000000001",
}
FORM_TEXT = (
    "|500100000001|INR|PPBLC|TESTMID0000000000001|ord_0001|UPI|01|Txn Success|TXN_SUCCESS|499.00|"
    "2025-01-01 12:00:00.0|20250101111212800110168000000000001"
)
FORM_CHECKSUM = (
    "898kuYsdMuJ1n+z3WIzZdWE+C3h0+V2BFl/ayswGlY/Yw5DwzVVEeOvHXafhwJRx7c/JX9jbOQHA/YcvAuqeeQJ0OoXuE6mZI6+8+V9lSI0="
)
VECTORS = {
    INITIATE: (
        "4URbPb6DDIfWLskHt/G5ItAyHRIVZKhudFQ4sJaUpiPlPy1fca6QKbNj2JhA2SYhEaDu/758l6Uk7wTaXKF0XqzmksyM7uCTUPWp19Bt/BA="
    ),
    FORM_TEXT: FORM_CHECKSUM,
    STATUS: (
        "jjyUfje57EFQM1gtQzCUZxUFSPkzD0n2ITQt6FCZnbQU6VR52wwr55pE53Y2kFiiER+/ktp8UYWsVdWJfBZguHeZGBiVAPmnwOppHCbnAtc="
    ),
}
REFUND = {
    "orderId": "ord_0001",
    "txnId": "20250101111212800110168000000000001",
    "refId": "OP00000000000000001A",
    "refundId": "20250102111212801300168000000000002",
    "refundAmount": "100.00",
    "status": "SUCCESS",
}


def verified(body: bytes, *secrets: str) -> Verification:
    delivery = RawDelivery("POST", "/webhooks/paytm", "", (), body)
    return PaytmScheme().verify(delivery, [SigningSecret(each) for each in secrets or (SECRET,)], A_MOMENT)


def a_form(fields: Mapping[str, str] = FORM, checksum: str | None = FORM_CHECKSUM) -> bytes:
    return urlencode({**fields, **({"CHECKSUMHASH": checksum} if checksum is not None else {})}).encode()


def a_signed_form(fields: Mapping[str, str], secret: str = SECRET) -> bytes:
    return a_form(fields, PaytmChecksum.generateSignature(dict(fields), secret))


def a_notice(body: str = json.dumps(REFUND), signature: str | None = None) -> bytes:
    return envelope({"signature": signature or checksum_of(body, KEY, SALT), "version": "v1"}, body).encode()


# --- the checksum --------------------------------------------------------------------------------------------------


def test_the_vectors_are_the_fact_sheets() -> None:
    assert len(INITIATE) == 232
    digest = "4fac0c5dac63740b0787246b28795a2ba87a3324503ceafc9f033560c7d39be7"
    assert hashlib.sha256(f"{INITIATE}|{SALT}".encode()).hexdigest() == digest
    assert form_text(FORM) == FORM_TEXT
    assert list(FORM) == sorted(FORM)


@pytest.mark.parametrize(("text", "checksum"), VECTORS.items())
def test_each_vector_is_what_we_sign_and_what_we_verify(text: str, checksum: str) -> None:
    assert checksum_of(text, KEY, SALT) == checksum
    assert has_checksum(text, KEY, checksum)
    assert not has_checksum(text, key_of(OTHER_SECRET), checksum)


@pytest.mark.parametrize(("text", "checksum"), VECTORS.items())
def test_the_official_package_says_the_same(text: str, checksum: str) -> None:
    assert PaytmChecksum.calculateChecksum(text, SECRET, SALT) == checksum
    assert PaytmChecksum.verifySignature(text, SECRET, checksum)


def test_what_we_sign_with_a_random_salt_the_official_package_accepts_and_the_other_way_round() -> None:
    randomness = SeededRandomness(7)
    salts = [new_salt(randomness) for _ in range(20)]
    assert len(set(salts)) == 20
    assert {len(salt) for salt in salts} == {4}
    for salt in salts:
        assert PaytmChecksum.verifySignature(INITIATE, SECRET, checksum_of(INITIATE, KEY, salt))
        assert has_checksum(INITIATE, KEY, PaytmChecksum.generateSignature(INITIATE, SECRET))
    assert PaytmChecksum.verifySignature(dict(FORM), SECRET, checksum_of(form_text(FORM), KEY, salts[0]))


@pytest.mark.parametrize(
    "checksum",
    [
        "",
        "=",
        VECTORS[STATUS][:-4],
        VECTORS[STATUS][1:] + "A",
        "*" + VECTORS[STATUS][1:],
        "é" * 108,
        "A" * 108,
        VECTORS[STATUS] + "AAAA",
        VECTORS[INITIATE],
    ],
)
def test_what_is_no_checksum_of_it_is_false_and_never_an_exception(checksum: str) -> None:
    assert not has_checksum(STATUS, KEY, checksum)


def test_the_same_json_with_other_blanks_is_another_text() -> None:
    assert not has_checksum(STATUS.replace(":", ": "), KEY, VECTORS[STATUS])


@pytest.mark.parametrize("length", [0, 15, 17, 24, 32])
def test_a_key_of_any_other_length_is_refused_at_the_start(length: int) -> None:
    """AES would take 24 and 32 bytes, for another cipher."""
    with pytest.raises(ValueError, match="16 bytes") as refused:
        key_of("k" * length)
    assert "kkk" not in str(refused.value)
    with pytest.raises(InvalidSchemeConfig):
        build_registry(GatewayValues({"PAYTM_MERCHANT_KEY": "k" * length or " x"}), production=False)


# --- cutting the body out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"head":{"a":"}"},"body":{"b": 1.50 }}', '{"b": 1.50 }'),
        (' {\n"body" : "x\\u0041" ,\t"head":1 } ', '"x\\u0041"'),
        ('{"body":{"body":1}}', '{"body":1}'),
        ("{}", None),
        ('{"head":{}}', None),
        ('{"body":1,"body":1}', None),
        ('{"body":1,"bod\\u0079":2}', None),
        ('{"body":1,}', None),
        ('{"body":1}{}', None),
        ('{"body":1', None),
        ('{"body"', None),
        ("[1]", None),
        ("", None),
        ('{"body":' + "[" * 100_000, None),
    ],
)
def test_the_exact_characters_of_one_member_are_cut_out_or_nothing(text: str, expected: str | None) -> None:
    assert cut_member(text, "body") == expected


# --- forms ---------------------------------------------------------------------------------------------------------


def test_a_genuine_form_is_a_reason_to_ask() -> None:
    found = verified(a_form())
    assert found.verified
    assert (found.trust, found.event_type) == (Trust.HINT, "TXN_SUCCESS")
    assert found.event_id == "ord_0001:20250101111212800110168000000000001:TXN_SUCCESS"
    assert not found.event_id_is_signed


def test_every_field_counts_known_or_not_and_in_any_order() -> None:
    fields = {"ZULU": "ä & ü", **dict(reversed(list(FORM.items()))), "CHILDTXNLIST": '[{"a":"1"}]'}
    assert verified(a_signed_form(fields)).verified
    assert verified(a_form({**FORM, "EXTRA": "1"})).refusal is Refusal.SIGNATURE_MISMATCH


def test_a_checksum_that_was_decoded_twice_is_read_with_its_pluses() -> None:
    raw = urlencode(FORM) + "&CHECKSUMHASH=" + quote(FORM_CHECKSUM, safe="+/=")
    assert b"+" in raw.encode()
    assert verified(raw.encode()).verified


def test_the_word_null_may_have_been_signed_as_itself_or_as_nothing() -> None:
    fields = {**FORM, "BANKNAME": "null"}
    assert verified(a_form(fields, FORM_CHECKSUM)).verified  # as the Python package signs it
    assert verified(a_form(fields, checksum_of(form_text(fields), KEY, SALT))).verified  # as the Node package does


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (a_form({**FORM, "TXNAMOUNT": "1.00"}), Refusal.SIGNATURE_MISMATCH),
        (a_form(checksum=None), Refusal.SIGNATURE_MISSING),
        (a_form(checksum=""), Refusal.SIGNATURE_MISSING),
        (a_form(checksum=FORM_CHECKSUM[:-4]), Refusal.SIGNATURE_MISMATCH),
        (a_form(checksum="not base64"), Refusal.SIGNATURE_MISMATCH),
        (a_form() + b"&STATUS=TXN_SUCCESS", Refusal.CONTENT_AMBIGUOUS),
        (a_form() + b"&CHECKSUMHASH=x", Refusal.CONTENT_AMBIGUOUS),
        (a_form() + b"&BAD=%FF", Refusal.CONTENT_AMBIGUOUS),
        (a_form() + b"&\xff=1", Refusal.CONTENT_AMBIGUOUS),
        (b"&".join(b"a%d=1" % number for number in range(5000)), Refusal.CONTENT_AMBIGUOUS),
        (b"\x00\x01", Refusal.SIGNATURE_MISSING),
        (b"", Refusal.SIGNATURE_MISSING),
    ],
)
def test_any_other_form_is_refused(body: bytes, refusal: Refusal) -> None:
    assert verified(body).refusal is refusal


def test_whoever_gives_the_values_other_names_still_only_makes_us_ask() -> None:
    """The names are not signed: a failed try of 1 rupee could be sent as a success of another order."""
    failed = {"A": "1.00", "B": "TXN_SUCCESS", "C": "victim"}
    renamed = dict(zip(("ORDERID", "STATUS", "TXNAMOUNT"), failed.values(), strict=True))
    found = verified(a_form(renamed, checksum_of(form_text(failed), KEY, SALT)))
    assert (found.verified, found.trust) == (True, Trust.HINT)


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_a_refunds_notice_is_signed_as_a_whole() -> None:
    found = verified(a_notice())
    assert (found.verified, found.trust, found.event_type) == (True, Trust.FULL, "refund.accepted")
    assert (found.event_id, found.event_id_is_signed) == ("OP00000000000000001A:refund.accepted:SUCCESS", True)
    credited = verified(a_notice(json.dumps({**REFUND, "userCreditInitiateTimestamp": "2025-01-02 12:00:00.0"})))
    assert credited.event_type == "refund.credited"
    assert credited.event_id != found.event_id


def test_what_is_added_to_a_notice_beside_its_signed_body_makes_it_a_hint() -> None:
    genuine = verified(a_notice())
    added = verified(a_notice().rstrip()[:-1] + b',"more":1}')
    assert (genuine.trust, added.trust) == (Trust.FULL, Trust.HINT)
    assert dedupe_key(added, b"1") != dedupe_key(genuine, b"1")  # it does not stand in the genuine one's way


def test_the_official_package_signs_notices_that_we_accept() -> None:
    body = json.dumps(REFUND, indent=1)
    assert verified(a_notice(body, PaytmChecksum.generateSignature(body, SECRET))).verified


def test_the_characters_count_and_not_what_they_mean() -> None:
    body = json.dumps(REFUND)
    assert verified(a_notice(body.replace(": ", ":"), checksum_of(body, KEY, SALT))).refusal is (
        Refusal.SIGNATURE_MISMATCH
    )


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b'{"body":{}}', Refusal.SIGNATURE_MISSING),
        (b'{"head":{},"body":{}}', Refusal.SIGNATURE_MISSING),
        (b'{"head":{"signature":5},"body":{}}', Refusal.SIGNATURE_MISSING),
        (b'{"head":[],"body":{}}', Refusal.SIGNATURE_MISSING),
        (b'{"head":{"signature":"x"}}', Refusal.CONTENT_INCOMPLETE),
        (b'{"head":{"signature":"x"},"body":{}}', Refusal.SIGNATURE_MISMATCH),
        (a_notice()[:-1] + b',"body":{}}', Refusal.CONTENT_INCOMPLETE),
        (a_notice()[:-1] + b',"head":{}}', Refusal.SIGNATURE_MISSING),
        (a_notice()[:-1], Refusal.SIGNATURE_MISSING),
        (a_notice() + b"\xff", Refusal.CONTENT_INCOMPLETE),
        (a_notice().replace(b"100.00", b"900.00"), Refusal.SIGNATURE_MISMATCH),
        (b'{"body":' + b"[" * 100_000, Refusal.SIGNATURE_MISSING),
    ],
)
def test_any_other_json_is_refused(body: bytes, refusal: Refusal) -> None:
    assert verified(body).refusal is refusal


# --- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [a_form(), a_notice()])
def test_while_a_key_is_replaced_both_are_good(body: bytes) -> None:
    assert verified(body, OTHER_SECRET).refusal is Refusal.SIGNATURE_MISMATCH
    assert verified(body, OTHER_SECRET, SECRET).key_id == SigningSecret(SECRET).key_id
    assert verified(body, SECRET, OTHER_SECRET).key_id == SigningSecret(SECRET).key_id
    assert verified(body, "short").refusal is Refusal.NO_SECRET


def test_an_account_is_enabled_by_its_merchant_key() -> None:
    registry = build_registry(GatewayValues({"PAYTM_MERCHANT_KEY": f"{OTHER_SECRET},{SECRET}"}), production=True)
    scheme, secrets = registry["paytm"].scheme, registry["paytm"].secrets
    assert scheme.verify(RawDelivery("POST", "/", "", (), a_form()), secrets, A_MOMENT).verified
    assert set(REGISTRATION.not_offered) == {"whole_body", "timestamp"}


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=100).map(lambda text: json.dumps({"head": {"signature": text}, "body": text}).encode()),
        st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5).map(
            lambda form: urlencode(form).encode()
        ),
        st.tuples(st.integers(0, 600), st.integers(1, 255)).map(
            lambda spot: bytes(byte ^ (spot[1] if i == spot[0] else 0) for i, byte in enumerate(a_notice() + b"   "))
        ),
    )
)
def test_no_bytes_at_all_raise_and_nothing_unsigned_is_believed(body: bytes) -> None:
    """What stands beside the signature in the head (a version) is signed by nobody, and read by nobody."""
    found = verified(body)
    assert not found.verified or cut_member(body.decode(), "body") == json.dumps(REFUND)


def test_form_fields_are_a_form_or_a_value_error() -> None:
    assert form_fields(b"a=&b=%2B+x") == {"a": "", "b": "+ x"}
    for raw in (b"a", b"a=1&a=2", b"\xe9=1", b"a=%e9"):
        with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
            form_fields(raw)
