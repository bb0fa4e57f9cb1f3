from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial

import pytest
from sqlalchemy import text

from shared.masking import MASK
from tests.integration.webhook_ingest.conftest import STRIPE_SECRET, Ingest, a_stripe_event
from tests.support.waiting import until


async def test_a_verified_delivery_is_stored_with_its_event_and_then_acknowledged(ingest: Ingest) -> None:
    body = a_stripe_event()
    answer = await ingest.post_stripe(body)
    assert answer.status_code == 200
    assert answer.json()["status"] == "accepted"
    (event,) = await ingest.outbox()
    assert event["type"] == "webhook.received.v1"
    assert event["subject"] == event["data"]["delivery_id"] == answer.json()["delivery_id"]
    assert event["sequence"] == 1
    assert event["source"] == "/payrail/webhook_ingest"
    assert event["data"]["gateway"] == "stripe"
    assert event["data"]["event_id"] == "evt_1"
    assert event["data"]["event_type"] == "payment_intent.succeeded"
    assert event["data"]["trust"] == "full"
    assert json.loads(event["data"]["payload"]) == json.loads(body)


async def test_the_same_delivery_again_is_a_duplicate_of_the_first(ingest: Ingest) -> None:
    first = await ingest.post_stripe(a_stripe_event())
    ingest.clock.move(60)  # a retry is signed afresh
    second = await ingest.post_stripe(a_stripe_event())
    assert second.json() == {"status": "duplicate", "delivery_id": first.json()["delivery_id"]}
    assert await ingest.count("webhook_deliveries") == 1
    assert await ingest.count("outbox_messages") == 1


async def test_fifty_concurrent_copies_are_one_delivery_and_one_event(ingest: Ingest) -> None:
    answers = await asyncio.gather(*(ingest.post_stripe(a_stripe_event()) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 49
    assert len({answer.json()["delivery_id"] for answer in answers}) == 1
    assert await ingest.count("webhook_deliveries") == 1
    assert await ingest.count("outbox_messages") == 1


async def test_many_events_five_times_each_in_any_order_are_stored_once_each(ingest: Ingest) -> None:
    """A machine that is busy with other things answers 503 in its time, and a gateway sends again."""

    async def deliver(body: bytes) -> bool:
        answer = await ingest.post_stripe(body)
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    bodies = [a_stripe_event(f"evt_{number % 100}") for number in range(500)]
    for start in range(0, len(bodies), 50):
        batch = bodies[start : start + 50]
        await asyncio.gather(*(until(partial(deliver, body), within_seconds=60, what="a delivery") for body in batch))
    assert await ingest.count("webhook_deliveries") == 100
    assert await ingest.count("outbox_messages") == 100


async def test_without_an_event_id_the_content_is_what_repeats(ingest: Ingest) -> None:
    first = await ingest.post_generic(b'{"payment_id":"p1","status":"completed","amount":150.00}')
    again = await ingest.post_generic(b'{"payment_id":"p1","status":"completed","amount":150.00}')
    other = await ingest.post_generic(b'{"payment_id":"p1","status":"failed","amount":150.00}')
    assert [answer.json()["status"] for answer in (first, again, other)] == ["accepted", "duplicate", "accepted"]


async def test_the_same_event_id_for_two_accounts_or_gateways_is_two_deliveries(ingest: Ingest) -> None:
    body = a_stripe_event()
    for path in ("/api/v1/webhooks/stripe", "/api/v1/webhooks/stripe/eu", "/api/v1/webhooks/stripe/us"):
        assert (await ingest.post_stripe(body, path=path)).json()["status"] == "accepted"
    assert [event["data"].get("account") for event in await ingest.outbox()] == [None, "eu", "us"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_old_paths_are_kept_with_and_without_their_slash(ingest: Ingest, slash: str) -> None:
    for path in ("/api/v1/order-payments/webhooks/payment", "/api/webhooks/payment", "/api/v1/webhooks/generic"):
        answer = await ingest.post_generic(b'{"payment_id":"' + path.encode() + b'"}', path=path + slash)
        assert answer.json()["status"] == "accepted"
    answer = await ingest.post_stripe(a_stripe_event(), path=f"/api/v1/order-payments/webhooks/stripe{slash}")
    assert answer.json()["status"] == "accepted"
    assert {event["data"]["gateway"] for event in await ingest.outbox()} == {"generic", "stripe"}
    paypal = await ingest.client.post(f"/api/v1/order-payments/webhooks/paypal{slash}", json={})
    assert (paypal.status_code, paypal.json()["code"]) == (404, "unknown_gateway")


async def test_an_alias_and_the_canonical_path_deduplicate_together(ingest: Ingest) -> None:
    body = b'{"event_id":"e1","status":"completed"}'
    first = await ingest.post_generic(body)
    second = await ingest.post_generic(body, path="/api/webhooks/payment")
    assert second.json() == {"status": "duplicate", "delivery_id": first.json()["delivery_id"]}


async def test_unknown_payments_and_unknown_event_types_are_acknowledged_too(ingest: Ingest) -> None:
    answer = await ingest.post_stripe(a_stripe_event(type="something.nobody_has_heard_of"))
    assert answer.json()["status"] == "accepted"


async def test_any_of_the_configured_secrets_verifies_and_the_matching_one_is_recorded(
    ingest: Ingest,
) -> None:
    body = a_stripe_event()
    delivery_id = (await ingest.post_stripe(body)).json()["delivery_id"]
    shown = (await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())).json()
    key_id = hashlib.sha256(b"payrail-key-id:" + STRIPE_SECRET.encode()).hexdigest()[:8]
    assert shown["verification"]["key_id"] == key_id


@pytest.mark.parametrize(
    "settings_changes", [{"gateway_variables": {"STRIPE_WEBHOOK_SECRET": f"whsec_new_one,{STRIPE_SECRET}"}}]
)
async def test_during_a_rotation_both_secrets_are_accepted(ingest: Ingest) -> None:
    old = await ingest.post_stripe(a_stripe_event("evt_1"))
    body = a_stripe_event("evt_2")
    headers = ingest.stripe_headers(body, secret="whsec_new_one")
    new = await ingest.client.post("/api/v1/webhooks/stripe", content=body, headers=headers)
    assert [old.status_code, new.status_code] == [200, 200]


HOSTILE_BODIES = {
    "invalid UTF-8": b"\xff\xfe{}",
    "a byte order mark": b'\xef\xbb\xbf{"id":"evt_bom"}',
    "broken JSON": b'{"id": ',
    "deep nesting": b"[" * 50_000,
    "duplicate keys": b'{"id":"evt_a","id":"evt_b"}',
    "a lone surrogate": b'{"id":"\\ud800","type":"\\udfff"}',
    "an escaped NUL": b'{"id":"evt\\u0000","type":"a\\u0000"}',
    "raw NULs": b"\x00\x00\x00",
    "a huge number": b'{"id":' + b"9" * 5000 + b"}",
    "not an object": b"[1, 2]",
    "infinity": b'{"id":"evt_inf","amount":1e400,"x":NaN}',
}


@pytest.mark.parametrize("body", HOSTILE_BODIES.values(), ids=HOSTILE_BODIES)
async def test_a_hostile_body_is_stored_when_it_is_signed_and_401_when_it_is_not(ingest: Ingest, body: bytes) -> None:
    signed = await ingest.post_stripe(body)
    assert signed.status_code == 200
    delivery_id = signed.json()["delivery_id"]
    shown = await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())
    assert shown.status_code == 200
    assert shown.json()["verification"]["body_sha256"] == hashlib.sha256(body).hexdigest()
    unsigned = await ingest.client.post(
        "/api/v1/webhooks/stripe", content=body, headers={"Content-Type": "application/json"}
    )
    assert unsigned.status_code == 401


async def test_numbers_in_the_event_keep_their_exact_digits(ingest: Ingest) -> None:
    await ingest.post_generic(b'{"payment_id":"p1","amount":150.00,"tiny":0.10000000000000000001}')
    (event,) = await ingest.outbox()
    assert '"amount":150.00' in event["data"]["payload"]
    assert "0.10000000000000000001" in event["data"]["payload"]


async def test_personal_data_stays_in_this_service(ingest: Ingest) -> None:
    await ingest.post_generic(b'{"payment_id":"p1","email":"jo@example.com","metadata":{"phone":"+9659000"}}')
    (event,) = await ingest.outbox()
    assert "jo@example.com" not in json.dumps(event)
    assert "+9659000" not in json.dumps(event)


async def test_a_card_number_is_cut_out_before_anything_is_stored(ingest: Ingest) -> None:
    body = b'{"payment_id":"p1","remark":"card 4242 4242 4242 4242 used"}'
    delivery_id = (await ingest.post_generic(body)).json()["delivery_id"]
    shown = (await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())).json()
    assert "4242 4242" not in shown["body_text"]
    assert "4242]" in shown["body_text"]
    assert shown["verification"]["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert (await ingest.post_generic(body)).json()["status"] == "duplicate"


async def test_a_form_is_accepted_and_its_fields_are_in_the_event(ingest: Ingest) -> None:
    body = b"txnid=abc&status=success&email=jo%40example.com"
    answer = await ingest.post_generic(body, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200
    (event,) = await ingest.outbox()
    assert "txnid=abc" in event["data"]["payload"]
    assert "example.com" not in event["data"]["payload"]


async def test_what_opens_a_door_is_not_stored_with_the_address(ingest: Ingest) -> None:
    await ingest.post_stripe(a_stripe_event(), path="/api/v1/webhooks/stripe?hookToken=canary&kind=1")
    async with ingest.container.database.begin() as connection:
        [query] = (await connection.execute(text("SELECT query FROM webhook_deliveries"))).scalars()
    assert query == f"hookToken={MASK}&kind=1"
