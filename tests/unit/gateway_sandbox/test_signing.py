"""Vectors of the fact sheets: stripe.md §6, generic-hmac.md §6; and the official package as the judge."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import stripe

from services.gateway_sandbox.domain.signatures import hmac_sha256_hex, split_secrets
from services.gateway_sandbox.gateways.generic import GenericSandbox
from services.gateway_sandbox.gateways.stripe import StripeSandbox

SECRET = "whsec_test_0123456789abcdefABCDEF"
OLD_SECRET = "whsec_test_rotated_OLD_9876543210"
AT = datetime(2026, 1, 1, tzinfo=UTC)
BODY = (
    b'{"id":"evt_test_0001","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_test_0001",'
    b'"object":"payment_intent","amount":1999,"amount_received":1999,"currency":"usd","status":"succeeded",'
    b'"metadata":{"order_ref":"ORD-1001"}}}}'
)
NEW = "8d436d836d0561733f06bf3f180bfedc6430cd6edba5daa670a0560aeb40b3da"
OLD = "0c08d240927c5118c83bbc53aa20e13746f9caf1a8f842f272d91e860b5a166f"


def a_stripe(*secrets: str) -> StripeSandbox:
    return StripeSandbox(webhook_secrets=secrets, public_base_url="http://127.0.0.1", merchant="Shop")


def test_stripe_signs_as_its_fact_sheet_says() -> None:
    assert a_stripe(SECRET).sign(BODY, AT) == {"Stripe-Signature": f"t=1767225600,v1={NEW}"}


def test_stripe_signs_once_per_secret_while_one_is_rotated() -> None:
    assert a_stripe(OLD_SECRET, SECRET).sign(BODY, AT) == {"Stripe-Signature": f"t=1767225600,v1={OLD},v1={NEW}"}


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_the_official_package_accepts_either_secret(secret: str) -> None:
    header = a_stripe(OLD_SECRET, SECRET).sign(BODY, AT)["Stripe-Signature"]
    assert stripe.WebhookSignature.verify_header(BODY.decode(), header, secret, tolerance=None)


def test_every_try_is_signed_with_its_own_time() -> None:
    later = a_stripe(SECRET).sign(BODY, datetime(2026, 1, 1, 1, tzinfo=UTC))["Stripe-Signature"]
    assert later.startswith("t=1767229200,v1=")
    assert NEW not in later


def test_generic_signs_the_raw_body_in_hex() -> None:
    body = b'{"type":"payment.captured","data":{"id":"pay_1001","amount":"12.345","currency":"KWD"}}'
    secrets = ("generic-hmac-test-secret", "an-older-secret")
    gateway = GenericSandbox(api_key=None, webhook_secrets=secrets, public_base_url="http://127.0.0.1", merchant="Shop")
    expected = "c1c7c78e81bb2d7308c9eef3d53740b58f9be1ec97da65e085da2a2c6cfeb76f"
    assert gateway.sign(body, AT) == {"X-Signature": expected}
    assert hmac_sha256_hex(secrets[0], body) == expected


def test_secrets_are_separated_by_commas() -> None:
    assert split_secrets(" one, two ,,") == ("one", "two")
