"""PayPal's deliveries at the ingest endpoint: what is fetched to verify them, and what the answer is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.main import create_application
from shared.messaging.in_process import InProcessBus
from shared.settings import ConfigurationError
from tests.integration.webhook_ingest.conftest import Ingest, settings_for_test
from tests.support.clock import FakeClock, fake_ports
from tests.support.postgres import ServiceDatabase
from tests.unit.webhook_ingest.paypal_world import BODY, WEBHOOK_ID, Authority, headers_of_vector, sign

AUTHORITY = Authority()
KEY, LEAF = AUTHORITY.issue()
VARIABLES = {
    "PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
    "PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com",
    "PAYPAL_WEBHOOK_CA": AUTHORITY.pem.decode(),
}


@dataclass
class PayPalsHost:
    """Serves the certificate, unless a test says otherwise."""

    status: int = 200
    asked_for: list[str] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked_for.append(str(request.url))
        return httpx.Response(self.status, content=LEAF)


@pytest.fixture
def host() -> PayPalsHost:
    return PayPalsHost()


@pytest.fixture
async def ingest(service_database: ServiceDatabase, host: PayPalsHost) -> AsyncIterator[Ingest]:
    clock = FakeClock(auto_advance=True)
    ports = fake_ports(clock=clock, http_transport=httpx.MockTransport(host))
    settings = settings_for_test(service_database("webhook_ingest"), gateway_variables=VARIABLES)
    async with build(settings, ports=ports, bus=InProcessBus(clock)) as container:
        transport = httpx.ASGITransport(app=create_application(container), client=("203.0.113.9", 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
            yield Ingest(container, client, clock, ports)


def signed(**changes: str) -> dict[str, str]:
    headers = headers_of_vector(**{"TRANSMISSION_SIG": sign(KEY, BODY), **changes})
    return {**headers, "Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/api/v1/webhooks/paypal", "/api/v1/order-payments/webhooks/paypal/"])
async def test_a_genuine_delivery_is_stored_once_and_its_certificate_fetched_once(
    ingest: Ingest, host: PayPalsHost, path: str
) -> None:
    first = await ingest.client.post(path, content=BODY, headers=signed())
    assert (first.status_code, first.json()["status"]) == (200, "accepted")
    retried = await ingest.client.post(path, content=BODY, headers=signed())
    assert (retried.status_code, retried.json()["status"]) == (200, "duplicate")
    assert len(host.asked_for) == 1
    (event,) = await ingest.outbox()
    assert (event["data"]["event_id"], event["data"]["trust"]) == ("WH-TEST-0001", "full")
    assert event["data"]["event_type"] == "PAYMENT.CAPTURE.COMPLETED"


async def test_a_certificate_that_cannot_be_fetched_is_503_and_no_failure_of_the_sender(
    ingest: Ingest, host: PayPalsHost
) -> None:
    host.status = 503
    for _ in range(3):
        answer = await ingest.client.post("/api/v1/webhooks/paypal", content=BODY, headers=signed())
        assert (answer.status_code, answer.json()["code"]) == (503, "evidence_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["ratelimit-remaining"] == answer.headers["ratelimit-limit"]
    assert await ingest.count("webhook_rejects") == 0
    host.status = 200
    answer = await ingest.client.post("/api/v1/webhooks/paypal", content=BODY, headers=signed())
    assert answer.status_code == 200


async def test_a_forged_delivery_is_401_and_its_address_is_not_visited(ingest: Ingest, host: PayPalsHost) -> None:
    evil = signed(CERT_URL="https://evil.example/v1/notifications/certs/CERT-1")
    answer = await ingest.client.post("/api/v1/webhooks/paypal", content=BODY, headers=evil)
    assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid")
    assert host.asked_for == []
    tampered = await ingest.client.post(
        "/api/v1/webhooks/paypal", content=BODY.replace(b"19.99", b"99.99"), headers=signed()
    )
    assert tampered.status_code == 401
    unsigned = await ingest.client.post("/api/v1/webhooks/paypal", content=BODY)
    assert (unsigned.status_code, unsigned.json()["code"]) == (401, "signature_missing")
    empty = await ingest.client.post("/api/v1/webhooks/paypal", content=b"", headers=signed())
    assert empty.status_code == 400
    assert await ingest.count("webhook_deliveries") == 0


async def test_production_refuses_other_hosts_for_certificates(service_database: ServiceDatabase) -> None:
    variables = VARIABLES | {"PAYPAL_CERT_HOSTS": "http://127.0.0.1:8000/sandbox/paypal"}
    settings = settings_for_test(
        service_database("webhook_ingest"), gateway_variables=variables, environment="production"
    )
    ports = fake_ports()
    with pytest.raises(ConfigurationError, match="PAYPAL_CERT_HOSTS"):
        async with build(settings, ports=ports, bus=InProcessBus(ports.clock)):
            pass
