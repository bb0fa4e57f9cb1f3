from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import stripe
from standardwebhooks.webhooks import Webhook

from services.webhook_ingest.signatures.port import RawDelivery, Refusal, SigningSecret, Trust
from services.webhook_ingest.signatures.providers import PROVIDERS
from services.webhook_ingest.signatures.schemes import HmacScheme, TimestampField, sign
from tests.unit.webhook_ingest.vectors import (
    BODY,
    HEADER_VECTORS,
    SECRET,
    SIGNED_AT,
    STRIPE_BODY,
    STRIPE_OLD_SECRET,
    STRIPE_OLD_V1,
    STRIPE_SECRET,
    STRIPE_TIMESTAMP,
    STRIPE_V1,
    STRIPE_VECTOR,
    TIMESTAMP,
    VECTORS,
    WHSEC,
    WHSEC_NEXT,
    Vector,
    adyen_body,
    vector,
    verify,
)

every_vector = pytest.mark.parametrize("case", VECTORS, ids=lambda case: case.name)
every_header_vector = pytest.mark.parametrize("case", HEADER_VECTORS, ids=lambda case: case.name)


def _signature_value(case: Vector) -> str:
    name = case.config.signature.name
    return next(value for header, value in case.headers if header == name)


def test_the_common_bodies_are_those_of_the_fact_sheets() -> None:
    assert hashlib.sha256(BODY).hexdigest() == "16662491d6f2586d7cd193712a795f9e5576fc2a210b2735dfde575d7000cf91"
    assert hashlib.sha256(STRIPE_BODY).hexdigest() == "42293e9e8b1950ebe818ea87d1cbf52b1007d8233ce6ad5a4101d8a08575e00d"


@every_vector
def test_every_vector_of_the_fact_sheets_verifies(case: Vector) -> None:
    answer = case.verify()
    assert answer.verified
    assert answer.key_id == SigningSecret(case.secret).key_id
    assert answer.trust is case.config.trust


@every_vector
def test_a_wrong_secret_is_refused(case: Vector) -> None:
    wrong = {"whsec": WHSEC_NEXT, "hex": "ab" * 32}.get(case.config.secret_decoding, "another-secret-of-ours")
    assert case.verify(wrong).refusal is Refusal.SIGNATURE_MISMATCH


@every_vector
def test_either_of_two_secrets_in_rotation_verifies_and_the_matching_one_is_named(case: Vector) -> None:
    other = {"whsec": WHSEC_NEXT, "hex": "ab" * 32}.get(case.config.secret_decoding, "another-secret-of-ours")
    for secrets in ((case.secret, other), (other, case.secret)):
        assert case.verify(*secrets).key_id == SigningSecret(case.secret).key_id


@every_vector
def test_no_secret_verifies_nothing(case: Vector) -> None:
    assert verify(case.config, case.delivery, [], case.at).refusal is Refusal.NO_SECRET
    assert verify(case.config, case.delivery, [""], case.at).refusal is Refusal.NO_SECRET


@pytest.mark.parametrize(
    "case", [case for case in HEADER_VECTORS if "{body}" in case.config.content], ids=lambda case: case.name
)
def test_one_changed_body_byte_is_refused_wherever_it_is(case: Vector) -> None:
    for position in range(len(case.body)):
        changed = bytearray(case.body)
        changed[position] ^= 1
        assert replace(case, body=bytes(changed)).verify().refusal is Refusal.SIGNATURE_MISMATCH


def test_a_changed_signed_field_of_a_body_that_is_not_signed_whole_is_refused() -> None:
    assert replace(vector("adyen"), body=adyen_body(amount=12346)).verify().refusal is Refusal.SIGNATURE_MISMATCH
    assert replace(vector("mercadopago"), query="data.id=123456780").verify().refusal is Refusal.SIGNATURE_MISMATCH
    twilio = vector("twilio")
    assert replace(twilio, body=twilio.body.replace(b"hi", b"ho")).verify().refusal is Refusal.SIGNATURE_MISMATCH
    braintree = vector("braintree")
    assert (
        replace(braintree, body=braintree.body.replace(b"PG5", b"PG6")).verify().refusal is Refusal.SIGNATURE_MISMATCH
    )


@every_header_vector
def test_a_missing_or_empty_signature_is_refused(case: Vector) -> None:
    name = case.config.signature.name
    assert case.with_header(name, None).verify().refusal is Refusal.SIGNATURE_MISSING
    assert case.with_header(name, "").verify().refusal is Refusal.SIGNATURE_MISSING


def test_a_missing_signature_inside_the_body_is_refused() -> None:
    assert replace(vector("adyen"), body=adyen_body(signature="")).verify().refusal is Refusal.SIGNATURE_MISSING
    assert replace(vector("braintree"), body=b"bt_payload=x").verify().refusal is Refusal.SIGNATURE_MISSING


@every_header_vector
def test_a_truncated_signature_is_refused(case: Vector) -> None:
    value = _signature_value(case)
    for length in range(1, len(value)):
        shorter = value[:length]
        if value.removesuffix("=") == shorter.removesuffix("="):
            continue  # a missing padding sign changes nothing about the digest
        assert not case.with_header(case.config.signature.name, shorter).verify().verified


@every_header_vector
def test_header_names_are_read_in_any_case(case: Vector) -> None:
    for change in (str.lower, str.upper):
        assert replace(case, headers=tuple((change(name), value) for name, value in case.headers)).verify().verified


@pytest.mark.parametrize(
    "case", [case for case in HEADER_VECTORS if case.config.encoding == "hex"], ids=lambda case: case.name
)
def test_an_upper_case_hex_digest_is_accepted(case: Vector) -> None:
    head, separator, digest = _signature_value(case).rpartition("=")
    assert case.with_header(case.config.signature.name, head + separator + digest.upper()).verify().verified


@pytest.mark.parametrize(
    "case", [case for case in HEADER_VECTORS if case.config.encoding == "base64"], ids=lambda case: case.name
)
@pytest.mark.parametrize("stray", ["!", " ", "\n", "-", "=", "é"])
def test_a_base64_digest_with_a_stray_character_is_refused(case: Vector, stray: str) -> None:
    value = _signature_value(case)
    middle = len(value) // 2
    spoilt = case.with_header(case.config.signature.name, value[:middle] + stray + value[middle:])
    assert not spoilt.verify().verified


def test_a_valid_digest_under_an_unaccepted_key_is_refused() -> None:
    assert not STRIPE_VECTOR.with_header("Stripe-Signature", f"t={STRIPE_TIMESTAMP},v0={STRIPE_V1}").verify().verified
    standard = vector("standard_webhooks")
    value = _signature_value(standard)
    assert not standard.with_header("webhook-signature", value.replace("v1,", "v0,")).verify().verified
    assert not standard.with_header("webhook-signature", value.replace("v1,", "v1a,")).verify().verified
    assert (
        not vector("slack")
        .with_header("X-Slack-Signature", _signature_value(vector("slack")).replace("v0=", "v1="))
        .verify()
        .verified
    )


@pytest.mark.parametrize(
    "case",
    [case for case in VECTORS if case.config.timestamp and case.config.timestamp.tolerance_seconds],
    ids=lambda case: case.name,
)
def test_the_tolerance_holds_in_both_directions_with_its_boundary_included(case: Vector) -> None:
    assert case.config.timestamp is not None
    assert case.config.timestamp.tolerance_seconds is not None
    tolerance = case.config.timestamp.tolerance_seconds
    for inside in (-tolerance, 0, tolerance):
        assert case.verify(seconds_later=inside).verified
    for outside in (-tolerance - 1, tolerance + 1):
        assert case.verify(seconds_later=outside).refusal is Refusal.TIMESTAMP_OUT_OF_TOLERANCE


@pytest.mark.parametrize("case", [case for case in VECTORS if case.config.timestamp], ids=lambda case: case.name)
def test_an_edited_timestamp_breaks_the_signature(case: Vector) -> None:
    for name, value in case.headers:
        for text in (str(TIMESTAMP), str(STRIPE_TIMESTAMP)):
            if text in value:
                edited = case.with_header(name, value.replace(text, text[:-1] + "1"))
                assert edited.verify().refusal is Refusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "text", ["", "-1772355600", "+1772355600", " 1772355600", "1772355600.0", "12345678901234", "١٢", "0x1"]
)
def test_a_timestamp_that_is_not_a_plain_decimal_integer_is_refused(text: str) -> None:
    signed = vector("slack").with_header("X-Slack-Request-Timestamp", text)
    assert signed.verify().refusal in (Refusal.TIMESTAMP_MALFORMED, Refusal.TIMESTAMP_MISSING)


def test_a_forged_delivery_with_an_old_time_is_told_only_that_its_signature_is_wrong() -> None:
    forged = replace(STRIPE_VECTOR, body=b"{}")
    assert forged.verify(seconds_later=10_000).refusal is Refusal.SIGNATURE_MISMATCH


# Standard Webhooks


def test_standard_webhooks_rotation_header_verifies_with_either_secret() -> None:
    both = "v1,n9oooRNzsThBzazLHHbuk3CgeXar7mfsaQiGC46fk48= v1,M/yz3JrKV6Ci2VlDXxAhE4Fy4GM4oOv3SueVS0saMc8="
    rotating = vector("standard_webhooks").with_header("webhook-signature", both)
    assert rotating.verify(WHSEC).verified
    assert rotating.verify(WHSEC_NEXT).verified


def test_standard_webhooks_key_that_was_not_decoded_is_refused() -> None:
    undecoded = "v1,icHDh0LX1fl9dWWpZmN5Ahe52b5YaqZXGI8NX88j0Eo="
    assert not vector("standard_webhooks").with_header("webhook-signature", undecoded).verify().verified


def test_standard_webhooks_unknown_versions_are_skipped() -> None:
    value = _signature_value(vector("standard_webhooks"))
    mixed = vector("standard_webhooks").with_header("webhook-signature", f"v1a,AAAA v9 v2,x {value} v7,")
    assert mixed.verify().verified


def test_standard_webhooks_id_with_a_dot_is_refused_because_the_joined_text_is_ambiguous() -> None:
    scheme = HmacScheme(PROVIDERS["standard_webhooks"])
    content = b"msg.1." + str(TIMESTAMP).encode() + b"." + BODY
    import hmac  # the forged signature is right about the joined bytes

    digest = hmac.digest(base64.b64decode(WHSEC.removeprefix("whsec_")), content, "sha256")
    headers = (
        ("webhook-id", "msg.1"),
        ("webhook-timestamp", str(TIMESTAMP)),
        ("webhook-signature", "v1," + base64.b64encode(digest).decode()),
    )
    answer = scheme.verify(RawDelivery("POST", "/", "", headers, BODY), [SigningSecret(WHSEC)], SIGNED_AT)
    assert answer.refusal is Refusal.CONTENT_AMBIGUOUS


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_a_repeated_timestamp_or_id_header_is_refused(name: str) -> None:
    case = vector("standard_webhooks")
    value = next(value for header, value in case.headers if header == name)
    assert replace(case, headers=(*case.headers, (name, value))).verify().refusal is Refusal.REPEATED_FIELD


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
def test_a_missing_timestamp_or_id_header_is_refused(name: str) -> None:
    refusal = vector("standard_webhooks").with_header(name, None).verify().refusal
    assert refusal in (Refusal.CONTENT_INCOMPLETE, Refusal.TIMESTAMP_MISSING)


def test_what_the_reference_library_signs_verifies_here_and_the_other_way_round() -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    reference = Webhook(WHSEC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": reference.sign("msg_1", now, BODY.decode()),
    }
    delivery = RawDelivery("POST", "/", "", tuple(headers.items()), BODY)
    assert verify(PROVIDERS["standard_webhooks"], delivery, [WHSEC], now).verified
    ours = sign(HmacScheme(PROVIDERS["standard_webhooks"]), WHSEC, BODY, now, "msg_2")
    assert reference.verify(BODY, ours) == {
        "type": "payment.captured",
        "data": {"id": "pay_1001", "amount": "12.345", "currency": "KWD"},
    }


# Stripe


def test_stripe_accepts_the_window_of_its_tolerance_only() -> None:
    assert STRIPE_VECTOR.verify(seconds_later=300).verified
    assert STRIPE_VECTOR.verify(seconds_later=300.9).verified
    assert not STRIPE_VECTOR.verify(seconds_later=301).verified


def test_stripe_rotation_header_verifies_with_the_new_secret_and_with_the_old() -> None:
    rotating = STRIPE_VECTOR.with_header("Stripe-Signature", f"t={STRIPE_TIMESTAMP},v1={STRIPE_OLD_V1},v1={STRIPE_V1}")
    assert rotating.verify(STRIPE_SECRET).verified
    assert rotating.verify(STRIPE_OLD_SECRET).verified


def test_stripe_amount_that_was_changed_is_refused() -> None:
    assert not replace(STRIPE_VECTOR, body=STRIPE_BODY.replace(b"1999", b"1998")).verify().verified


def test_stripe_body_that_was_serialised_again_is_refused() -> None:
    import json

    respaced = replace(STRIPE_VECTOR, body=json.dumps(json.loads(STRIPE_BODY)).encode())
    assert not respaced.verify().verified
    claimed = "a6379eb66b5bfb2afc9931235b92d91cf59dba23a568d5c16e46a7949b85475f"
    assert not STRIPE_VECTOR.with_header("Stripe-Signature", f"t={STRIPE_TIMESTAMP},v1={claimed}").verify().verified


@pytest.mark.parametrize(
    "header",
    [
        f"v1={STRIPE_V1}",
        f"t=,v1={STRIPE_V1}",
        f"t={STRIPE_TIMESTAMP}",
        f"t={STRIPE_TIMESTAMP},v1=",
        f"t={STRIPE_TIMESTAMP},v1",
        f"t={STRIPE_TIMESTAMP},v1={STRIPE_V1[:-1]}",
        f"t={STRIPE_TIMESTAMP},v1={STRIPE_V1}0",
        f"t={STRIPE_TIMESTAMP},v1={STRIPE_V1}zz",
        f"t={STRIPE_TIMESTAMP},t=1,v1={STRIPE_V1}",
        f"t=9{STRIPE_TIMESTAMP},v1={STRIPE_V1}",
        f"T={STRIPE_TIMESTAMP},V1={STRIPE_V1}",
        f"t:{STRIPE_TIMESTAMP};v1:{STRIPE_V1}",
        ",,,===,,,",
        "garbage",
        "\x00\xff",
    ],
)
def test_stripe_header_that_is_malformed_is_refused(header: str) -> None:
    assert not STRIPE_VECTOR.with_header("Stripe-Signature", header).verify().verified


def test_stripe_own_library_verifies_what_we_sign_and_signs_what_we_verify() -> None:
    now = datetime.now(UTC)
    ours = sign(HmacScheme(PROVIDERS["stripe"]), STRIPE_SECRET, STRIPE_BODY, now, "unused")
    event = stripe.Webhook.construct_event(STRIPE_BODY, ours["Stripe-Signature"], STRIPE_SECRET)
    assert event["id"] == "evt_test_0001"
    stamp = int(now.timestamp())
    theirs = stripe.WebhookSignature._compute_signature(f"{stamp}.{STRIPE_BODY.decode()}", STRIPE_SECRET)
    delivery = RawDelivery("POST", "/", "", (("Stripe-Signature", f"t={stamp},v1={theirs}"),), STRIPE_BODY)
    assert verify(PROVIDERS["stripe"], delivery, [STRIPE_SECRET], now).verified


def test_stripe_event_id_and_type_come_from_the_signed_body() -> None:
    answer = STRIPE_VECTOR.verify()
    assert (answer.event_id, answer.event_type, answer.event_id_is_signed) == (
        "evt_test_0001",
        "payment_intent.succeeded",
        True,
    )
    assert answer.trust is Trust.FULL
    assert answer.timestamp == datetime.fromtimestamp(STRIPE_TIMESTAMP, UTC)


# Across schemes


def test_an_id_in_an_unsigned_header_is_recorded_but_never_deduplicated_by() -> None:
    github = vector("github")
    answer = replace(github, headers=(*github.headers, ("X-GitHub-Delivery", "72d3162e"))).verify()
    assert (answer.event_id, answer.event_id_is_signed) == ("72d3162e", False)


def test_a_repeated_signature_header_gives_several_candidates() -> None:
    mollie = replace(vector("github"), config=PROVIDERS["mollie"])
    good = _signature_value(vector("github"))
    headers = (("X-Mollie-Signature", "sha256=" + "0" * 64), ("X-Mollie-Signature", good))
    assert replace(mollie, headers=headers).verify().verified


def test_candidates_beyond_the_cap_are_not_tried() -> None:
    wrong = ",".join(f"v1={number:064x}" for number in range(10))
    flooded = STRIPE_VECTOR.with_header("Stripe-Signature", f"t={STRIPE_TIMESTAMP},{wrong},v1={STRIPE_V1}")
    assert flooded.verify().refusal is Refusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize("name", sorted(name for name, row in PROVIDERS.items() if row.signature.location == "header"))
def test_every_header_scheme_verifies_what_its_own_signer_writes(name: str) -> None:
    row = replace(PROVIDERS[name], registered_url="https://hooks.example.com/")
    secret = {"whsec": WHSEC, "hex": "ab" * 32}.get(row.secret_decoding, SECRET)
    scheme = HmacScheme(row)
    headers = sign(scheme, secret, BODY, SIGNED_AT, "msg_1", query="data.id=9")
    delivery = RawDelivery("POST", "/", "data.id=9", tuple(headers.items()), BODY)
    assert scheme.verify(delivery, [SigningSecret(secret)], SIGNED_AT).verified


def test_a_static_token_proves_the_sender_and_not_the_body() -> None:
    scheme = HmacScheme(PROVIDERS["xendit"])
    delivery = RawDelivery("POST", "/", "", (("X-Callback-Token", "token-of-ours-1234"),), b"anything")
    answer = scheme.verify(delivery, [SigningSecret("token-of-ours-1234")], SIGNED_AT)
    assert answer.verified
    assert answer.trust is Trust.HINT
    assert not scheme.verify(delivery, [SigningSecret("token-of-ours-12345")], SIGNED_AT).verified
    assert scheme.secret_headers == {"x-callback-token"}


def test_a_time_that_no_datetime_can_hold_is_still_verified_where_no_tolerance_is_set() -> None:
    row = replace(PROVIDERS["stripe"], timestamp=TimestampField("t", location="kv", tolerance_seconds=None))
    far = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1)
    headers = sign(HmacScheme(row), SECRET, BODY, far, "x")
    import hmac

    digest = hmac.new(SECRET.encode(), b"9999999999999." + BODY, "sha256").hexdigest()
    assert headers
    delivery = RawDelivery("POST", "/", "", (("Stripe-Signature", f"t=9999999999999,v1={digest}"),), BODY)
    answer = verify(row, delivery, [SECRET])
    assert answer.verified
    assert answer.timestamp is None


def test_secrets_do_not_show_in_a_repr() -> None:
    assert SECRET not in repr(SigningSecret(SECRET))
