"""Razorpay's signature: the fact sheet's vectors, and the official package as the judge, both ways."""

from __future__ import annotations

import hashlib

import pytest
import razorpay
from razorpay.errors import SignatureVerificationError

from services.webhook_ingest.domain.models import dedupe_key
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, RawDelivery, Refusal, Trust, Verification
from services.webhook_ingest.signatures.providers import RAZORPAY
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.schemes import HmacScheme, sign
from services.webhook_ingest.signatures.values import GatewayValues
from tests.unit.webhook_ingest.vectors import SIGNED_AT, verify

SECRET = "rzp_whsec_Test_2026"
KEY_SECRET = "rzp_test_key_secret_000000"
SIGNATURE = "a7d0f075c5e9acca5c0eb0ded0f64c27e0e0abed1d99091939f4f0679127844d"
BODY = (
    b'{"entity":"event","account_id":"acc_TEST0000000001","event":"payment_link.paid","contains":["payment_link",'
    b'"order","payment"],"payload":{"payment_link":{"entity":{"id":"plink_TEST0000000001","reference_id":"ORD-1001",'
    b'"amount":50000,"amount_paid":50000,"currency":"INR","status":"paid","order_id":"order_TEST0000000001","notes":'
    b'{"order_ref":"ORD-1001"}}},"order":{"entity":{"id":"TEST0000000001","amount":50000,"amount_paid":50000,'
    b'"amount_due":0,"currency":"INR","receipt":"ORD-1001","status":"paid"}},"payment":{"entity":{"id":'
    b'"pay_TEST0000000001","entity":"payment","amount":50000,"currency":"INR","status":"captured","order_id":'
    b'"order_TEST0000000001","method":"upi","captured":true,"amount_refunded":0,"refund_status":null,"fee":1180,'
    b'"tax":180,"notes":[]}}},"created_at":1767225600}'
)
OFFICIAL = razorpay.Client(auth=("rzp_test_1", KEY_SECRET))


def answered(body: bytes = BODY, signature: str | None = SIGNATURE, *secrets: str) -> Verification:
    headers = (("x-razorpay-event-id", "evt_1"), *((("x-razorpay-signature", signature),) if signature else ()))
    return verify(RAZORPAY, RawDelivery("POST", "/", "", headers, body), secrets or (SECRET,))


def test_the_body_is_the_fact_sheets() -> None:
    assert len(BODY) == 784
    assert hashlib.sha256(BODY).hexdigest() == "473297f39c8db46be4b840f04b6854725a58e7c8429195e5e81e2a94e758d0ac"


def test_the_fact_sheets_vector_verifies_here_and_at_the_official_package() -> None:
    verification = answered()
    assert verification.verified
    assert (verification.trust, verification.event_type) == (Trust.FULL, "payment_link.paid")
    assert OFFICIAL.utility.verify_webhook_signature(BODY.decode(), SIGNATURE, SECRET)


def test_what_we_sign_the_official_package_accepts() -> None:
    headers = sign(HmacScheme(RAZORPAY), SECRET, BODY, timestamp=SIGNED_AT, message_id="evt_1")
    assert headers["X-Razorpay-Signature"] == SIGNATURE
    assert OFFICIAL.utility.verify_webhook_signature(BODY.decode(), headers["X-Razorpay-Signature"], SECRET)


@pytest.mark.parametrize(
    ("body", "signature", "secret", "refusal"),
    [
        (BODY + b" ", SIGNATURE, SECRET, Refusal.SIGNATURE_MISMATCH),
        (BODY, SIGNATURE, KEY_SECRET, Refusal.SIGNATURE_MISMATCH),
        (BODY.replace(b"50000", b"50001"), SIGNATURE, SECRET, Refusal.SIGNATURE_MISMATCH),
        (BODY, None, SECRET, Refusal.SIGNATURE_MISSING),
        (BODY, "not hex", SECRET, Refusal.SIGNATURE_MALFORMED),
    ],
    ids=["one space more", "the API key's secret", "another amount", "no header", "nonsense"],
)
def test_what_is_not_signed_is_refused(body: bytes, signature: str | None, secret: str, refusal: Refusal) -> None:
    assert answered(body, signature, secret).refusal is refusal
    if signature is not None:
        with pytest.raises(SignatureVerificationError):
            OFFICIAL.utility.verify_webhook_signature(body.decode(), signature, secret)


def test_the_old_secret_is_accepted_while_it_is_being_replaced() -> None:
    values = GatewayValues({"RAZORPAY_WEBHOOK_SECRET": f"rzp_whsec_new_0000000, {SECRET}"})
    gateway = build_registry(values, production=True)["razorpay"]
    delivery = RawDelivery("POST", "/", "", (("X-Razorpay-Signature", SIGNATURE),), BODY)
    assert gateway.scheme.verify(delivery, gateway.secrets, SIGNED_AT).verified


def test_without_a_secret_there_is_no_endpoint_and_a_short_one_is_refused_in_production() -> None:
    assert build_registry(GatewayValues({"RAZORPAY_WEBHOOK_SECRET": " "}), production=True) == {}
    with pytest.raises(InvalidSchemeConfig, match="RAZORPAY_WEBHOOK_SECRET"):
        build_registry(GatewayValues({"RAZORPAY_WEBHOOK_SECRET": "short"}), production=True)


def test_the_event_id_is_noted_but_deliveries_are_told_apart_by_their_bytes() -> None:
    """Nobody signs the id: whoever replays a genuine body under a new id must not get it applied as news, and whoever
    sends a future id must not burn it."""
    verification = answered()
    assert (verification.event_id, verification.event_id_is_signed) == ("evt_1", False)
    assert dedupe_key(verification, hashlib.sha256(BODY).digest()).startswith("sha256:")


@pytest.mark.parametrize(
    ("reference", "signature"),
    [
        ("ORD-1001", "974225eade9c3ec0ce50d592b6cab1d8a74caa0f5ede1e88ec56dd94dcfc17bc"),
        ("", "5363fac997135b42c239c2e4d44f1f93d6153ba65640eb4f5d8712f962186582"),
    ],
)
def test_the_fact_sheets_callback_vectors_are_the_official_packages_too(reference: str, signature: str) -> None:
    """Our side never reads them (the gateway is asked instead); the sandbox makes them."""
    returned = {
        "payment_link_id": "plink_TEST0000000001",
        "payment_link_reference_id": reference,
        "payment_link_status": "paid",
        "razorpay_payment_id": "pay_TEST0000000001",
        "razorpay_signature": signature,
    }
    assert OFFICIAL.utility.verify_payment_link_signature(returned)
    with pytest.raises(SignatureVerificationError):
        OFFICIAL.utility.verify_payment_link_signature(returned | {"payment_link_status": "expired"})


def test_the_fact_sheets_order_vector_is_the_official_packages_too() -> None:
    returned = {
        "razorpay_order_id": "order_TEST0000000001",
        "razorpay_payment_id": "pay_TEST0000000001",
        "razorpay_signature": "cfd9577a80ccdb3c1e379874be35bbd61de1ad96b0549528e175bec765f968ce",
    }
    assert OFFICIAL.utility.verify_payment_signature(returned)
