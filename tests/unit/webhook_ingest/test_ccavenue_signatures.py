"""CCAvenue's encryption and its one encrypted field: the fact sheet's vectors both ways, and all that is refused."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.webhook_ingest.signatures.ccavenue import LONGEST_FIELD, CCAvenueScheme
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
from shared.ccavenue_cipher import CannotDecrypt, CCAvenueCipher, Encryption, split_pairs
from tests.unit.webhook_ingest.vectors import SIGNED_AT

KEY = "0123456789ABCDEF0123456789ABCDEF"
OTHER_KEY = "FEDCBA9876543210FEDCBA9876543210"


@dataclass(frozen=True, slots=True)
class KnownBytes:
    """The vector that the fact sheet fixes for its test of GCM."""

    def token_bytes(self, count: int) -> bytes:
        return bytes(range(0x10, 0x10 + count))

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


CHECKOUT = (
    "merchant_id=900001&order_id=ord_0001&currency=INR&amount=499.00&redirect_url=https://shop.example/cca/return"
    "&cancel_url=https://shop.example/cca/cancel&language=EN&merchant_param1=t_42"
)
CHECKOUT_SEALED = (
    "e60ec0698a0b2caa19e2af0270c15119d6c9ae48adaeb31d38995ce1758c3efd2357b4978d31a85a8efbe352fb043b9c"
    "6a6cd65869939f3e657277c739878318d62568ba6fc884577f9bbf7e5e7ef5496c88c75a809aebefa0148e6e1a9057d1"
    "f16c54a71dd2b60893bc20b948ef7b2dbdcf1e9500129a4a063d3684c178fdbcbce0d1068733b80254bf368c084343f9"
    "c3c65cf64106c05f93ac43ef8f61422f82b96c1d4529f9bea273ca6effc63e140286dd4104b956b0197e384f83ac7920"
)
RETURNED = (
    "order_id=ord_0001&tracking_id=313000000001&bank_ref_no=500100000001&order_status=Success&failure_message="
    "&payment_mode=UPI&currency=INR&amount=499.00&merchant_param1=t_42&mer_amount=499.00&trans_date=01/01/2025 12:00:00"
)
RETURNED_SEALED = (
    "e7cf3fde1f436b15d95f1e123563b8b41cd855595bf39a6698d97fab0f2bd571e4a1cec010736ad7696e0d44a1ef566e"
    "de81e3b3d3c5b4e2f0325b822b7484bfcec86c6b94f8cf81b346d4c10168d59450a0ea8e4b3a2a29af56466c8e4df69e"
    "fa9822c2c62eac3372e16fd231b87db697172997c6a8a9f134454e886f28d357b3bb72b309a85135cfb4e383dcb1b5cd"
    "f4f79d364f96c2d64fe25573e1f569f930a443a9f8ca835981605c2a4c327fee42ed826d00b9d770c70bd707f5f42c8e"
    "0821c2f0e11e8320fcb55180d58cb64d720b4e8163a82022c959aa880375eab3"
)
ASKED = '{"order_no":"ord_0001"}'
ASKED_SEALED = "899d6d2886900333d3fa68e62b8f0d78ac8e89561b7a77975fd32e33d1dbf82b"
ASKED_SEALED_GCM = (
    "101112131415161718191a1b1c1d1e1f3451bdaf22fe5eaa5805d5fd17513218c952e9d32275e8bb8f82b4f1c1d69d4847208f3347cd63"
)


def verify(body: bytes, *keys: str, encryption: Encryption = "cbc") -> Verification:
    secrets = [SigningSecret(key) for key in keys or (KEY,)]
    return CCAvenueScheme(encryption).verify(RawDelivery("POST", "/", "", (), body), secrets, SIGNED_AT)


def sealed(text: str, encryption: Encryption = "cbc", key: str = KEY) -> bytes:
    return urlencode({"encResp": CCAvenueCipher(key, encryption).encrypt(text, KnownBytes())}).encode()


# --- the cipher -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "digits", "encryption"),
    [
        (CHECKOUT, CHECKOUT_SEALED, "cbc"),
        (RETURNED, RETURNED_SEALED, "cbc"),
        (ASKED, ASKED_SEALED, "cbc"),
        (ASKED, ASKED_SEALED_GCM, "gcm"),
    ],
    ids=["checkout", "return", "question", "question with gcm"],
)
def test_the_fact_sheets_vectors_both_ways(text: str, digits: str, encryption: Encryption) -> None:
    cipher = CCAvenueCipher(KEY, encryption)
    assert cipher.encrypt(text, KnownBytes()) == digits
    assert cipher.decrypt(digits) == text
    assert cipher.decrypt(digits.upper()) == text


@pytest.mark.parametrize(
    ("digits", "encryption"),
    [
        ("", "cbc"),
        (ASKED_SEALED[:-1], "cbc"),
        (ASKED_SEALED[:-2], "cbc"),
        (ASKED_SEALED[:32], "cbc"),
        (ASKED_SEALED + "00" * 16, "cbc"),
        ("zz" + ASKED_SEALED[2:], "cbc"),
        (ASKED_SEALED[:2] + " " + ASKED_SEALED[3:], "cbc"),
        ("٠" * 32, "cbc"),
        (ASKED_SEALED_GCM[:-1] + "4", "gcm"),
        (ASKED_SEALED_GCM[:62], "gcm"),
        (ASKED_SEALED, "gcm"),
    ],
)
def test_what_nobody_with_the_key_has_written_does_not_decrypt(digits: str, encryption: Encryption) -> None:
    with pytest.raises(CannotDecrypt, match=r"\Acannot be decrypted\Z"):
        CCAvenueCipher(KEY, encryption).decrypt(digits)


def test_another_key_and_text_that_is_no_text_do_not_decrypt() -> None:
    with pytest.raises(CannotDecrypt):
        CCAvenueCipher(OTHER_KEY).decrypt(ASKED_SEALED)
    cipher = CCAvenueCipher(KEY)
    lone = cipher.encrypt("é", KnownBytes())  # two bytes: padded by bytes, not by characters
    assert cipher.decrypt(lone) == "é"
    first = bytearray.fromhex(CCAvenueCipher(KEY).encrypt("A" * 32, KnownBytes()))
    first[0] ^= 0x80  # the first block turns into anything, the second gets one bit of it: no UTF-8
    with pytest.raises(CannotDecrypt):
        cipher.decrypt(first.hex())


@pytest.mark.parametrize(("key", "encryption"), [("", "cbc"), ("  ", "cbc"), ("schlüssel", "cbc"), ("short", "gcm")])
def test_a_working_key_that_cannot_be_used_is_refused(key: str, encryption: Encryption) -> None:
    with pytest.raises(ValueError, match="working key"):
        CCAvenueCipher(key, encryption)
    with pytest.raises(InvalidSchemeConfig):
        CCAvenueScheme(encryption).check_secret(SigningSecret(key))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_any_text_comes_back(text: str) -> None:
    cipher = CCAvenueCipher(KEY)
    assert cipher.decrypt(cipher.encrypt(text, KnownBytes())) == text


def test_pairs_are_split_as_ccavenue_writes_them() -> None:
    text = "order_id=A&url=https://x/?a=b&billing_address=Smith & Co&status_message=null&last=1\r\n"
    assert dict(split_pairs(text)) == {
        "order_id": "A",
        "url": "https://x/?a=b",
        "billing_address": "Smith & Co",
        "status_message": "",
        "last": "1",
    }
    for bad in ("", "order_id", "&order_id=A", "order_id=A&order_id=B"):
        with pytest.raises(ValueError, match="name"):
            split_pairs(bad)


# --- the scheme -----------------------------------------------------------------------------------------------------


def test_the_fact_sheets_delivery_is_opened_and_is_only_a_hint() -> None:
    verification = verify(f"encResp={RETURNED_SEALED}&orderNo=ord_0001".encode())
    assert (verification.refusal, verification.trust, verification.event_type) == (None, Trust.HINT, "Success")
    assert verification.key_id == SigningSecret(KEY).key_id
    assert (verification.event_id, verification.timestamp) == (None, None)
    assert verification.content is not None
    assert verification.content.content_type == "application/x-www-form-urlencoded"
    form = dict(parse_qsl(verification.content.body.decode(), strict_parsing=True))
    assert form["order_id"] == "ord_0001"
    assert (form["tracking_id"], form["mer_amount"]) == ("313000000001", "499.00")
    assert form["trans_date"] == "01/01/2025 12:00:00"


def test_what_a_shopper_typed_about_themselves_does_not_travel_on() -> None:
    text = "order_id=A1&order_status=Success&billing_name=Ada&billing_tel=919000090000&delivery_email=a@b.example"
    verification = verify(sealed(text))
    assert verification.content is not None
    assert verification.content.body == b"order_id=A1&order_status=Success"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", Refusal.SIGNATURE_MISSING),
        (b"{}", Refusal.SIGNATURE_MISSING),
        (b"encResp=", Refusal.SIGNATURE_MISSING),
        (f"encResp={RETURNED_SEALED}&encResp={RETURNED_SEALED}".encode(), Refusal.REPEATED_FIELD),
        (b"encResp=xyz", Refusal.SIGNATURE_MISMATCH),
        (b"encResp=%ff%fe", Refusal.SIGNATURE_MISMATCH),
        (f"encResp={RETURNED_SEALED[:-1]}".encode(), Refusal.SIGNATURE_MISMATCH),
        (f"encResp={RETURNED_SEALED[:-32]}".encode(), Refusal.SIGNATURE_MISMATCH),
        (f"encResp=00{RETURNED_SEALED[2:]}".encode(), Refusal.SIGNATURE_MISMATCH),
        (sealed("order_id=A&order_id=B"), Refusal.SIGNATURE_MISMATCH),
        (sealed("amount=1.00&currency=INR"), Refusal.SIGNATURE_MISMATCH),
        (sealed("order_id=A\x00B"), Refusal.SIGNATURE_MISMATCH),
        (sealed(RETURNED, key=OTHER_KEY), Refusal.SIGNATURE_MISMATCH),
        (b"encResp=" + b"00" * LONGEST_FIELD, Refusal.SIGNATURE_MISMATCH),
    ],
)
def test_everything_else_is_refused_and_most_of_it_in_the_same_words(body: bytes, refusal: Refusal) -> None:
    assert verify(body) == Verification(refusal=refusal)


def test_with_gcm_not_one_nibble_may_differ_and_cbc_is_not_taken() -> None:
    good = sealed(RETURNED, "gcm")
    assert verify(good, encryption="gcm").verified
    assert verify(good, encryption="gcm").trust is Trust.HINT
    for bad in (good[:-1] + (b"0" if good[-1:] != b"0" else b"1"), sealed(RETURNED)):
        assert verify(bad, encryption="gcm").refusal is Refusal.SIGNATURE_MISMATCH


def test_the_old_key_is_accepted_while_it_is_being_replaced() -> None:
    values = GatewayValues({"CCAVENUE_WORKING_KEY": f"{OTHER_KEY}, {KEY}", "CCAVENUE_ENCRYPTION": "CBC"})
    gateway = build_registry(values, production=True)["ccavenue"]
    for key in (KEY, OTHER_KEY):
        delivery = RawDelivery("POST", "/", "", (), sealed(RETURNED, key=key))
        verification = gateway.scheme.verify(delivery, gateway.secrets, SIGNED_AT)
        assert verification.key_id == SigningSecret(key).key_id


def test_a_key_that_gcm_cannot_use_and_an_unknown_encryption_keep_the_service_from_starting() -> None:
    for values in (
        {"CCAVENUE_WORKING_KEY": "short", "CCAVENUE_ENCRYPTION": "gcm"},
        {"CCAVENUE_WORKING_KEY": KEY, "CCAVENUE_ENCRYPTION": "ecb"},
    ):
        with pytest.raises(InvalidSchemeConfig):
            build_registry(GatewayValues(values), production=True)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=96).map(lambda raw: b"encResp=" + raw.hex().encode())))
def test_any_bytes_give_an_answer(body: bytes) -> None:
    for encryption in ("cbc", "gcm"):
        assert verify(body, KEY, OTHER_KEY, encryption=encryption).refusal is not None
