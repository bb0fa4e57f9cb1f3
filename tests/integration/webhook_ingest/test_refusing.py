from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.webhook_ingest.domain.models import Arrival
from services.webhook_ingest.signatures.port import RawDelivery
from services.webhook_ingest.use_cases.keep_reject import keep_reject
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event

RATE_LIMIT_HEADERS = [f"{prefix}RateLimit-{name}" for prefix in ("", "X-") for name in ("Limit", "Remaining", "Reset")]
NO_LIMIT = [{"webhook_failed_verifications_per_minute": 100_000}]


async def test_a_missing_signature_is_401_and_leaves_nothing_but_a_reject(ingest: Ingest) -> None:
    answer = await ingest.client.post("/api/v1/webhooks/stripe", content=a_stripe_event())
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["code"] == "signature_missing"
    assert await ingest.count("webhook_deliveries") == 0
    assert await ingest.count("outbox_messages") == 0
    assert await ingest.count("webhook_rejects") == 1


@pytest.mark.parametrize(
    "header", ["", "garbage", "v1=abc", "t=1,v1=", "t=x,v1=00", "t=1767323045", ",,,", "t=1767323045,v0=" + "0" * 64]
)
async def test_a_malformed_signature_is_401(ingest: Ingest, header: str) -> None:
    answer = await ingest.client.post(
        "/api/v1/webhooks/stripe", content=a_stripe_event(), headers={"Stripe-Signature": header}
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("settings_changes", NO_LIMIT)
async def test_every_flipped_byte_of_the_body_is_401(ingest: Ingest) -> None:
    body = a_stripe_event()
    headers = ingest.stripe_headers(body)
    for position in range(len(body)):
        flipped = bytearray(body)
        flipped[position] ^= 1
        answer = await ingest.client.post("/api/v1/webhooks/stripe", content=bytes(flipped), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid")
    assert await ingest.count("webhook_deliveries") == 0


async def test_a_right_signature_that_is_too_old_is_400(ingest: Ingest) -> None:
    body = a_stripe_event()
    headers = ingest.stripe_headers(body)
    ingest.clock.move(301)
    answer = await ingest.client.post("/api/v1/webhooks/stripe", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "timestamp_out_of_tolerance")
    assert await ingest.count("webhook_deliveries") == 0


async def test_an_empty_body_is_400(ingest: Ingest) -> None:
    answer = await ingest.client.post("/api/v1/webhooks/stripe", content=b"", headers=ingest.stripe_headers(b""))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_delivery")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/webhooks/nobody",
        "/api/v1/webhooks/nobody/x",
        "/api/v1/webhooks/STRIPE",
        "//api/v1/webhooks/stripe",
        "/api/v1/webhooks/",
        "/api/v1/webhooks/stripe/%00",
        "/api/v1/webhooks/stripe/%ed%a0%80",
        "/api/v1/webhooks/stripe/a/b",
        "/api/v1/webhooks/stripe/" + "a" * 65,
    ],
)
async def test_an_unknown_gateway_is_404(ingest: Ingest, path: str) -> None:
    answer = await ingest.client.post(f"http://ingest.test{path}", content=b"{}")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("settings_changes", [{"gateway_variables": {}}])
async def test_a_gateway_without_a_secret_does_not_exist(ingest: Ingest) -> None:
    assert (await ingest.post_stripe(a_stripe_event())).status_code == 404


@pytest.mark.parametrize(
    "content_type", ["text/xml", "image/png", "multipart/form-data; boundary=x", "application/jsonp", "json"]
)
async def test_another_content_type_is_415(ingest: Ingest, content_type: str) -> None:
    answer = await ingest.post_stripe(a_stripe_event(), **{"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
async def test_a_compressed_body_is_415(ingest: Ingest, encoding: str) -> None:
    assert (await ingest.post_stripe(a_stripe_event(), **{"Content-Encoding": encoding})).status_code == 415


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain; charset=utf-8",
        "application/vnd.api+json",
        "APPLICATION/JSON",
        "application/jose",
    ],
)
async def test_these_content_types_are_accepted(ingest: Ingest, content_type: str) -> None:
    assert (await ingest.post_stripe(a_stripe_event(), **{"Content-Type": content_type})).status_code == 200


async def test_a_body_over_the_limit_is_413_by_its_claim(ingest: Ingest) -> None:
    answer = await ingest.post_stripe(b"x" * (256 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (await ingest.post_stripe(b'"' + b"x" * (256 * 1024 - 2) + b'"')).status_code == 200


async def test_a_chunked_body_of_ten_megabytes_is_413_without_reading_it_all(ingest: Ingest) -> None:
    sent = 0

    async def ten_megabytes() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(160):
            sent += 65536
            yield b"x" * 65536

    answer = await ingest.client.post(
        "/api/v1/webhooks/stripe", content=ten_megabytes(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert sent <= 6 * 65536
    assert all(name in answer.headers for name in RATE_LIMIT_HEADERS)


async def test_every_answer_says_how_many_failures_are_left(ingest: Ingest) -> None:
    accepted = await ingest.post_stripe(a_stripe_event())
    refused = await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")
    unknown = await ingest.client.post("/api/v1/webhooks/nobody", content=b"{}")
    for answer in (accepted, refused, unknown):
        assert all(name in answer.headers for name in RATE_LIMIT_HEADERS)
        assert answer.headers["RateLimit-Limit"] == "60"
    assert (accepted.headers["RateLimit-Remaining"], refused.headers["X-RateLimit-Remaining"]) == ("60", "59")


async def test_the_sixty_first_failure_in_a_minute_is_429_and_genuine_deliveries_still_come_through(
    ingest: Ingest,
) -> None:
    for _ in range(60):
        assert (await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")).status_code == 401
    ingest.clock.move(20)
    held_off = await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")
    assert (held_off.status_code, held_off.json()["code"], held_off.json()["retryable"]) == (429, "rate_limited", True)
    assert held_off.headers["Retry-After"] == held_off.headers["RateLimit-Reset"] == "40"
    assert held_off.headers["RateLimit-Remaining"] == "0"
    assert (await ingest.post_stripe(a_stripe_event())).status_code == 200
    ingest.clock.move(41)
    assert (await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")).status_code == 401


async def test_a_spoofed_forwarded_address_does_not_escape_the_limit(ingest: Ingest) -> None:
    for number in range(60):
        headers = {"X-Forwarded-For": f"198.51.100.{number}"}
        await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}", headers=headers)
    answer = await ingest.client.post(
        "/api/v1/webhooks/stripe", content=b"{}", headers={"X-Forwarded-For": "192.0.2.1"}
    )
    assert answer.status_code == 429


@pytest.mark.parametrize("settings_changes", [{"trusted_proxy_hops": 1, "webhook_failed_verifications_per_minute": 1}])
async def test_behind_our_proxy_the_address_that_it_saw_counts(ingest: Ingest) -> None:
    async def status(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        return (await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}", headers=headers)).status_code

    assert await status("198.51.100.1") == 401
    assert await status("203.0.113.77, 198.51.100.1") == 429
    assert await status("198.51.100.2") == 401


@pytest.mark.parametrize("settings_changes", NO_LIMIT)
async def test_rejects_are_kept_up_to_a_thousand_and_forgotten_after_a_week(ingest: Ingest) -> None:
    edge = ingest.container.edge
    gateway = ingest.container.gateways["stripe"]

    async def flood(count: int) -> None:
        for number in range(count):
            raw = RawDelivery("POST", "/", "", (("X-Big", "h" * 5000),), b"x" * 20_000)
            arrival = Arrival("stripe", None, raw, "application/json", "192.0.2.1", f"req_{number}", ingest.clock.now())
            await keep_reject(arrival, gateway, "signature_mismatch", uow=edge.uow, ports=edge.ports)
            ingest.clock.move(0.001)

    await asyncio.gather(*(flood(260) for _ in range(4)))
    await ingest.client.post("/api/v1/webhooks/generic", content=b"{}")
    page = (await ingest.client.get("/api/v1/webhook-rejects?gateway=stripe&limit=1", headers=ingest.operator())).json()
    assert page["data"][0]["body_size"] == 20_000
    assert len(page["data"][0]["body_base64"]) <= 8 * 1024
    assert await ingest.count("webhook_rejects") == 1001
    assert await ingest.count("webhook_rejects WHERE gateway = 'stripe'") == 1000


async def test_a_reject_shows_the_precise_reason_to_operators_only(ingest: Ingest) -> None:
    answer = await ingest.client.post(
        "/api/v1/webhooks/stripe",
        content=b'{"card":"4242424242424242"}',
        headers={"Stripe-Signature": "t=1,v1=zz", "Authorization": "Basic c2VjcmV0"},
    )
    assert "malformed" not in answer.text
    page = (await ingest.client.get("/api/v1/webhook-rejects", headers=ingest.operator())).json()
    (reject,) = page["data"]
    assert reject["reason"] == "signature_malformed"
    headers = {header["name"]: header["value"] for header in reject["headers"]}
    assert headers["authorization"] == "[removed]"
    assert headers["stripe-signature"] == "t=1,v1=zz"
