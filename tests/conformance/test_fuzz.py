"""Fuzzing of every verifier and translator: no exception that is not ours, and nobody's word makes a payment paid
(SEC-40, SEC-63, W9, W12)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.payment_service.gateways.port import Delivery, GatewayEvent, UnreadableWebhook
from services.webhook_ingest.signatures.port import PreparingScheme, RawDelivery, Trust, Verification
from services.webhook_ingest.signatures.registration import Trait
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from tests.conformance.cases import a_delivery, renamed_body, subjects, unpaid
from tests.conformance.market import Market
from tests.conformance.mutation import HEADER, JUNK, mutations_of

SUBJECTS = subjects()
TRIES = 30
POSTED = 8

pytestmark = pytest.mark.asyncio(loop_scope="package")
_quick = settings(
    max_examples=TRIES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_whatever_arrives_is_verified_or_refused_and_never_an_error(market: Market, gateway: str) -> None:
    subject, ports = SUBJECTS[gateway].here(market), market.payment.ports
    genuine = await a_delivery(market, subject)
    async with build_http_client(ports) as client:
        values = GatewayValues(market.variables)
        entry = build_registry(values, production=False, http=HttpCaller(client, ports))[gateway]
        scheme, now = entry.scheme, genuine.at
        if isinstance(scheme, PreparingScheme):
            raw = RawDelivery("POST", genuine.path, "", tuple(genuine.headers.items()), genuine.body)
            scheme = await scheme.prepare(raw, entry.secrets, now)
    is_signed = subject.why_untrusted(Trait.WHOLE_BODY) is None

    @_quick
    @given(mutations_of(genuine.body), st.dictionaries(st.sampled_from(sorted(genuine.headers)), HEADER, max_size=2))
    def verify(body: bytes, headers: dict[str, str]) -> None:
        raw = RawDelivery("POST", genuine.path, "", tuple({**genuine.headers, **headers}.items()), body)
        verdict = scheme.verify(raw, entry.secrets, now)
        assert isinstance(verdict, Verification)
        if verdict.verified and verdict.trust is Trust.FULL and is_signed:
            assert body == genuine.body, "a body that nobody signed"

    verify()


@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_whatever_is_translated_is_an_event_or_unreadable(market: Market, gateway: str) -> None:
    adapter = market.payment.gateways.get(gateway)
    content_type, payload = await _content_of(market, gateway)
    now = market.payment.ports.clock.now()

    @_quick
    @given(mutations_of(payload.encode()) | JUNK, st.sampled_from([content_type, "text/plain", ""]))
    def translate(body: bytes, kind: str) -> None:
        for text in (redact_body(kind, body), body.decode("utf-8", "replace").replace("\x00", "")):
            try:
                event = adapter.translate_webhook(Delivery(kind, text, None, now))
            except UnreadableWebhook:
                continue
            assert isinstance(event, GatewayEvent)

    translate()


@pytest.mark.parametrize("gateway", SUBJECTS)
async def test_what_was_changed_on_the_way_never_makes_a_payment_paid(market: Market, gateway: str) -> None:
    subject = SUBJECTS[gateway].here(market)
    paid = await market.paid(gateway, subject.money)
    genuine = (await market.deliveries_of(paid))[-1]
    victim = await market.open(gateway, subject.money)
    about_the_victim = renamed_body(genuine.body, paid, victim)
    bodies: list[bytes] = [about_the_victim]

    @settings(_quick, max_examples=POSTED)
    @given(mutations_of(about_the_victim))
    def collect(body: bytes) -> None:
        bodies.append(body)

    collect()
    for body in bodies:
        answer = await market.deliver(replace(genuine, body=body))
        assert answer.status_code in (200, 400, 401, 413), answer.text
    await market.quiet()
    await unpaid(market, victim)


async def _content_of(market: Market, gateway: str) -> tuple[str, str]:
    """A genuine delivery as the adapter gets it: opened, without personal data."""
    await a_delivery(market, SUBJECTS[gateway].here(market))
    await market.quiet()
    rows = await market.ingested(gateway)
    return rows[-1]
