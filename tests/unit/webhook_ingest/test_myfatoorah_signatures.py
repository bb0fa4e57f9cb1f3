"""MyFatoorah's signatures: the fact sheet's vectors of both versions, both ways, and what a forger would try."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway_sandbox.gateways.myfatoorah import events
from services.webhook_ingest.signatures.myfatoorah import REGISTRATION, MyFatoorahScheme, sign, signed_of
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.providers import PROVIDERS
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.schemes import HmacScheme
from services.webhook_ingest.signatures.values import GatewayValues
from tests.unit.webhook_ingest.vectors import SIGNED_AT

SECRET = "bXktZmF0b29yYWgtdGVzdC1zZWNyZXQtZm9yLXZlY3RvcnM="

V1_PAYMENT = (
    '{"EventType":1,"Event":"TransactionsStatusChanged","DateTime":"01032026120105","CountryIsoCode":"KWT","Data":{'
    '"InvoiceId":701234,"InvoiceReference":"2026000123","CreatedDate":"01032026120000","CustomerReference":"ord_1001",'
    '"CustomerName":"Sara Test","CustomerMobile":"96590000000","CustomerEmail":null,"TransactionStatus":"SUCCESS",'
    '"PaymentMethod":"KNET","UserDefinedField":"t_42","ReferenceId":"606012345678","TrackId":"01-03-2026_555",'
    '"PaymentId":"0100701234000000001","AuthorizationId":"B12345","InvoiceValueInBaseCurrency":"12.345",'
    '"BaseCurrency":"KWD","InvoiceValueInDisplayCurreny":"12.345","DisplayCurrency":"KWD",'
    '"InvoiceValueInPayCurrency":"12.345","PayCurrency":"KWD"}}'
)
V1_PAYMENT_STRING = (
    "AuthorizationId=B12345,BaseCurrency=KWD,CreatedDate=01032026120000,CustomerEmail=,CustomerMobile=96590000000,"
    "CustomerName=Sara Test,CustomerReference=ord_1001,DisplayCurrency=KWD,InvoiceId=701234,"
    "InvoiceReference=2026000123,InvoiceValueInBaseCurrency=12.345,InvoiceValueInDisplayCurreny=12.345,"
    "InvoiceValueInPayCurrency=12.345,PayCurrency=KWD,PaymentId=0100701234000000001,PaymentMethod=KNET,"
    "ReferenceId=606012345678,TrackId=01-03-2026_555,TransactionStatus=SUCCESS,UserDefinedField=t_42"
)
V1_DEPOSIT = (
    '{"EventType":3,"Event":"BalanceTransferred","Data":{"DepositReference":"2026000077","DepositedAmount":1500.250,'
    '"NumberOfTransactions":12,"DepositFor":"VENDOR","SupplierCode":null}}'
)
V1_REFUND = (
    '{"EventType":2,"Event":"RefundStatusChanged","Data":{"RefundId":5501,"RefundReference":"2026000011",'
    '"CreatedDate":"02032026090000","RefundStatus":"REFUNDED","Amount":5.000,"Comments":"damaged","InvoiceId":701234,'
    '"GatewayReference":{"Rrn":"1"}}}'
)
V2_PAYMENT = (
    '{"Event":{"Code":1,"Name":"PAYMENT_STATUS_CHANGED","CountryIsoCode":"KWT",'
    '"CreationDate":"2026-03-01T09:01:05.120Z","Reference":"WH-000123"},"Data":{"Invoice":{"Id":"701234",'
    '"Status":"PAID","Reference":"2026000123","ExternalIdentifier":null},"Transaction":{"Id":"88001",'
    '"Status":"SUCCESS","PaymentMethod":"KNET","PaymentId":"0100701234000000001"},"Amount":{"BaseCurrency":"KWD",'
    '"ValueInBaseCurrency":"12.345"}}}'
)
V2_PAYMENT_OURS = V2_PAYMENT.replace('"ExternalIdentifier":null', '"ExternalIdentifier":"ord_1001"')
V2_REFUND = (
    '{"Event":{"Code":2,"Name":"REFUND_STATUS_CHANGED"},"Data":{"Refund":{"Id":5501,"Status":"REFUNDED",'
    '"InvoiceId":"9"},"Amount":{"ValueInBaseCurrency":"5.000"},"ReferencedInvoice":{"Id":"701234"}}}'
)

VECTORS = {
    "version 1 payment": (V1_PAYMENT, V1_PAYMENT_STRING, "6+ykE1qxrrHZZZnGKJFyKWR8rBnA03fVwd5PDXC9qmc="),
    "version 1 deposit": (
        V1_DEPOSIT,
        "DepositedAmount=1500.250,DepositFor=VENDOR,DepositReference=2026000077,NumberOfTransactions=12,SupplierCode=",
        "4hTQD5wEYHH/1hfJxX2Rf0pKGxd1ef+czyXW9E4lq4c=",
    ),
    "version 1 refund": (
        V1_REFUND,
        (
            "Amount=5.000,Comments=damaged,CreatedDate=02032026090000,InvoiceId=701234,RefundId=5501,"
            "RefundReference=2026000011,RefundStatus=REFUNDED"
        ),
        "r8SAav/zeRjdvC1NHj/LcOwxb77Th9gU3Ur6t+vr5xs=",
    ),
    "version 2 refund": (
        V2_REFUND,
        "Refund.Id=5501,Refund.Status=REFUNDED,Amount.ValueInBaseCurrency=5.000,ReferencedInvoice.Id=701234",
        "FkC/MbAuntveYhZvwYxI4dz8ZqnHTZH4GTYxcyekFPE=",
    ),
    "version 2 payment": (
        V2_PAYMENT,
        (
            "Invoice.Id=701234,Invoice.Status=PAID,Transaction.Status=SUCCESS,Transaction.PaymentId=0100701234000000001,"
            "Invoice.ExternalIdentifier="
        ),
        "PMHOmr6iZ7YB7AlY9pvk6aTnKRR3iv/8vWFOQt37Ct8=",
    ),
    "version 2 payment with our reference": (
        V2_PAYMENT_OURS,
        (
            "Invoice.Id=701234,Invoice.Status=PAID,Transaction.Status=SUCCESS,Transaction.PaymentId=0100701234000000001,"
            "Invoice.ExternalIdentifier=ord_1001"
        ),
        "g9DTOZGEqBDg2ffrzDfdlbfNCT1rbtx/ca8Ag/PPd0I=",
    ),
}
each_vector = pytest.mark.parametrize(("body", "string", "signature"), VECTORS.values(), ids=VECTORS)


def answered(body: str | bytes, *signatures: str, secrets: tuple[str, ...] = (SECRET,)) -> Verification:
    raw = body.encode() if isinstance(body, str) else body
    headers = tuple(("myfatoorah-signature", signature) for signature in signatures)
    delivery = RawDelivery("POST", "/", "", headers, raw)
    return MyFatoorahScheme().verify(delivery, [SigningSecret(secret) for secret in secrets], SIGNED_AT)


def signed(content: str, secret: str = SECRET) -> str:
    """By a hand of its own, so that the scheme does not judge itself."""
    return base64.b64encode(hmac.new(secret.encode(), content.encode(), hashlib.sha256).digest()).decode()


# --- the vectors ---------------------------------------------------------------------------------------------------


@each_vector
def test_a_vector_is_what_we_sign_and_what_the_sandbox_signs(body: str, string: str, signature: str) -> None:
    assert signed_of(body.encode()).content.decode() == string
    assert sign(SECRET, body.encode()) == {"MyFatoorah-Signature": signature}
    assert events.signature(SECRET, body.encode()) == signature
    assert signed(string) == signature


@each_vector
def test_a_vector_verifies_and_only_version_1_is_more_than_a_hint(body: str, string: str, signature: str) -> None:
    verification = answered(body, signature)
    assert verification.verified
    assert verification.trust is (Trust.HINT if string.startswith(("Invoice.", "Refund.")) else Trust.FULL)
    assert not verification.event_id_is_signed


def test_names_are_sorted_without_regard_to_case() -> None:
    byte_order = "u22lyzoav7BqYt5oSE61Cz7PmW2Dd4m0q+rLPVLfKx0="
    assert answered(V1_DEPOSIT, byte_order).refusal is Refusal.SIGNATURE_MISMATCH


def test_the_secret_is_text_though_it_looks_like_base64() -> None:
    decoded = "vepdDWOcTtq9xGYPIdmyGMQiwbJ3XILvx2GZKiDbUFA="
    assert answered(V2_PAYMENT, decoded).refusal is Refusal.SIGNATURE_MISMATCH


def test_the_generic_gateways_row_agrees_about_payments_of_version_2() -> None:
    headers = HmacScheme(PROVIDERS["myfatoorah"]).sign(
        SigningSecret(SECRET), V2_PAYMENT.encode(), timestamp=SIGNED_AT, message_id=""
    )
    assert headers == sign(SECRET, V2_PAYMENT.encode())


def test_an_event_is_named_by_what_nobody_signs() -> None:
    verification = answered(V2_PAYMENT, VECTORS["version 2 payment"][2])
    assert (verification.event_id, verification.event_type) == ("WH-000123", "PAYMENT_STATUS_CHANGED")
    assert answered(V1_PAYMENT, VECTORS["version 1 payment"][2]).event_type == "TransactionsStatusChanged"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "signatures", "refusal"),
    [
        (V1_PAYMENT, (), Refusal.SIGNATURE_MISSING),
        (V1_PAYMENT, (VECTORS["version 1 payment"][2],) * 2, Refusal.REPEATED_FIELD),
        (V1_PAYMENT, ("not base64!",), Refusal.SIGNATURE_MALFORMED),
        (V1_PAYMENT, ("c2hvcnQ=",), Refusal.SIGNATURE_MALFORMED),
        (V1_PAYMENT, ("Sïg",), Refusal.SIGNATURE_MALFORMED),
        (V1_PAYMENT.replace("12.345", "12.346"), (VECTORS["version 1 payment"][2],), Refusal.SIGNATURE_MISMATCH),
        (V1_DEPOSIT.replace("1500.250", "1500.25"), (VECTORS["version 1 deposit"][2],), Refusal.SIGNATURE_MISMATCH),
        (V2_PAYMENT.replace("701234", "701235"), (VECTORS["version 2 payment"][2],), Refusal.SIGNATURE_MISMATCH),
        (V2_PAYMENT.replace('"Code":1', '"Code":6'), (VECTORS["version 2 payment"][2],), Refusal.SIGNATURE_MISMATCH),
        (V2_PAYMENT.replace('"Code":1', '"Code":4'), (VECTORS["version 2 payment"][2],), Refusal.CONTENT_INCOMPLETE),
        ("{}", (signed(""),), Refusal.CONTENT_INCOMPLETE),
        ("[]", (signed(""),), Refusal.CONTENT_INCOMPLETE),
        ('{"EventType":1,"Data":{}}', (signed(""),), Refusal.CONTENT_INCOMPLETE),
        ('{"EventType":2,"Data":{"GatewayReference":1}}', (signed(""),), Refusal.CONTENT_INCOMPLETE),
        ('{"EventType":1,"Event":{"Code":1},"Data":{"A":"b"}}', (signed("A=b"),), Refusal.CONTENT_AMBIGUOUS),
        ('{"EventType":1,"Data":{"A":"b","a":"c"}}', (signed("A=b,a=c"),), Refusal.CONTENT_AMBIGUOUS),
        ('{"EventType":1,"Data":{"A":"b","A":"c"}}', (signed("A=c"),), Refusal.CONTENT_AMBIGUOUS),
        ('{"EventType":1,"Data":{"A=b,C":"d"}}', (signed("A=b,C=d"),), Refusal.CONTENT_AMBIGUOUS),
        ('{"EventType":1,"Data":{"A":true}}', (signed("A=True"),), Refusal.CONTENT_INCOMPLETE),
        ('{"EventType":1,"Data":{"A":{"b":1}}}', (signed("A="),), Refusal.CONTENT_INCOMPLETE),
        (b"\xff\xfe", (signed(""),), Refusal.CONTENT_INCOMPLETE),
        ("[" * 100_000, (signed(""),), Refusal.CONTENT_INCOMPLETE),
    ],
)
def test_what_is_not_signed_or_can_be_read_in_two_ways_is_refused(
    body: str | bytes, signatures: tuple[str, ...], refusal: Refusal
) -> None:
    assert answered(body, *signatures).refusal is refusal


def test_another_secret_is_refused_and_none_is_no_secret() -> None:
    body, _, signature = VECTORS["version 2 payment"]
    assert answered(body, signature, secrets=("another",)).refusal is Refusal.SIGNATURE_MISMATCH
    assert answered(body, signature, secrets=("",)).refusal is Refusal.NO_SECRET
    with pytest.raises(InvalidSchemeConfig):
        MyFatoorahScheme().check_secret(SigningSecret("  "))


def test_the_old_secret_counts_while_it_is_being_replaced() -> None:
    gateway = build_registry(GatewayValues({REGISTRATION.secret_variable: f"new, {SECRET}"}), production=True)[
        "myfatoorah"
    ]
    body, _, signature = VECTORS["version 1 payment"]
    delivery = RawDelivery("POST", "/", "", (("MyFatoorah-Signature", signature),), body.encode())
    verification = gateway.scheme.verify(delivery, gateway.secrets, SIGNED_AT)
    assert verification.key_id == SigningSecret(SECRET).key_id


def test_arabic_names_are_signed_as_they_read_however_they_are_escaped() -> None:
    body = V1_PAYMENT.replace("Sara Test", "سارة")
    signature = signed(V1_PAYMENT_STRING.replace("Sara Test", "سارة"))
    assert answered(body, signature).verified
    assert answered(json.dumps(json.loads(body)), signature).verified


def test_a_name_that_reads_like_the_next_field_makes_the_delivery_a_hint() -> None:
    """A shopper of that name could have another invoice read out of the same signed string."""
    name = "Sara,CustomerReference=ord_9"
    genuine = V1_PAYMENT.replace("Sara Test", name)
    signature = signed(V1_PAYMENT_STRING.replace("Sara Test", name))
    assert answered(genuine, signature).trust is Trust.HINT


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Event", "EventType", "Data", "Code", "Invoice", "Id", "Refund", "a", "A"]), inner
            )
        ),
        max_leaves=12,
    ),
    st.binary(max_size=40) | st.sampled_from([b"", b"MyFatoorah"]),
)
def test_no_body_and_no_header_is_an_exception(body: Any, header: bytes) -> None:
    text = header.decode("latin-1")
    for raw in (json.dumps(body).encode(), header):
        assert not answered(raw, text).verified
        assert not answered(raw, base64.b64encode(header.ljust(32, b"x")[:32]).decode()).verified
