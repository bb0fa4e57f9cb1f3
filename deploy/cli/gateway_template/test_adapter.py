"""New Pay: what goes out, what each answer means, and which webhooks are genuine.

What every gateway has to do is in tests/conformance, which has found this one by its name. Here belongs what only its
own documentation says: every status, every error, and the test vectors of its signature.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import pytest

from deploy.cli.gateway_template.adapter import DEFINITION, STATUS
from deploy.cli.gateway_template.scheme import REGISTRATION
from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayAdapter,
    MoneyCall,
    OutcomeStatus,
    UnreadableWebhook,
)
from services.webhook_ingest.signatures.port import RawDelivery, Refusal, SigningSecret, Verification
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports

T = TypeVar("T")

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
REFERENCE, OPERATION = "PR00000000000000001A", "OP00000000000000001A"
PRICE = Money(12_345, "KWD")
PAYMENT: Mapping[str, Any] = {
    "id": "pay_1",
    "reference": REFERENCE,
    "status": "open",
    "amount": 12_345,
    "currency": "KWD",
    "refunds": [],
    "page_url": "https://pay.newpay.example/pay_1",
    "created_at": "2026-01-02T12:00:00Z",
    "expires_at": "2026-01-02T13:00:00Z",
}
REFUND = {"id": "ref_1", "reference": OPERATION, "status": "pending", "amount": 12_345, "currency": "KWD"}
REQUEST = CreateSession(
    reference=REFERENCE,
    idempotency_key="att_1",
    payment_id="pay_of_ours",
    order_id="ord_1",
    amount=PRICE,
    capture=CaptureMode.AUTOMATIC,
    description="Tee für zwei",
    customer=Customer("zoe@example.com", "Zoë"),
    items=(),
    return_url="https://shop.example/return",
    cancel_url="https://shop.example/cancel",
    expires_at=datetime(2026, 1, 2, 13, tzinfo=UTC),
    attempted_at=NOW,
)
CALL = MoneyCall(
    kind=OperationKind.REFUND,
    reference=OPERATION,
    idempotency_key="op_1",
    amount=PRICE,
    target="pay_1",
    is_whole=True,
    is_final=False,
    reason=None,
    payment_id="pay_of_ours",
    order_id="ord_1",
    our_reference=REFERENCE,
    capture=CaptureMode.AUTOMATIC,
    references=("pay_1",),
    first_sent_at=NOW,
)


class Gateway:
    """Gives the answers in turn, and keeps what was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers, self.requests = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, body = self.answers.pop(0)
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(body).encode()))

    def ask(self, question: Callable[[GatewayAdapter], Awaitable[T]]) -> T:
        async def asked() -> T:
            ports = replace(system_ports(), http_transport=httpx.MockTransport(self))
            async with build_http_client(ports) as client:
                tools = Tools(HttpCaller(client, ports), ports, "https://shop.example/webhooks", is_production=False)
                return await question(an_adapter(tools))

        return asyncio.run(asked())


def an_adapter(tools: Tools) -> GatewayAdapter:
    values = {"secret_key": "sk_test_1", "api_base": "https://api.newpay.example"}
    return DEFINITION.build(DEFINITION.settings.model_validate(values), tools)


def translated(body: str) -> Any:
    async def asked(adapter: GatewayAdapter) -> Any:
        return adapter.translate_webhook(Delivery("application/json", body, None, NOW))

    return Gateway().ask(asked)


def test_a_session_is_asked_for_as_documented() -> None:
    gateway = Gateway((201, PAYMENT))
    session = gateway.ask(lambda adapter: adapter.create_session(REQUEST, repeated=False))
    [sent] = gateway.requests
    assert (sent.method, sent.url.path) == ("POST", "/v1/payments")
    assert sent.headers["authorization"] == "Bearer sk_test_1"
    asked = json.loads(sent.content)
    assert (asked["reference"], asked["amount"], asked["currency"]) == (REFERENCE, 12_345, "KWD")
    assert (session.gateway_reference, session.next_action.url) == ("pay_1", PAYMENT["page_url"])


def test_after_an_unanswered_call_the_page_that_is_there_is_adopted() -> None:
    gateway = Gateway((200, {"payments": [PAYMENT]}))
    session = gateway.ask(lambda adapter: adapter.create_session(REQUEST, repeated=True))
    assert [sent.method for sent in gateway.requests] == ["GET"]
    assert session.gateway_reference == "pay_1"


@pytest.mark.parametrize("word", ["open", "paid", "failed", "canceled", "expired", "a word that nobody documents"])
def test_every_status_is_a_fact_and_an_unknown_one_is_none(word: str) -> None:
    gateway = Gateway((200, {**PAYMENT, "status": word}))
    snapshot = gateway.ask(lambda adapter: adapter.retrieve(("pay_1",), our_reference=REFERENCE))
    amount = PRICE if word == "paid" else None
    assert [(fact.kind, fact.amount) for fact in snapshot.observations] == (
        [(STATUS[word], amount)] if word in STATUS else []
    )


def test_somebody_elses_payment_is_not_taken_for_ours() -> None:
    gateway = Gateway((200, {**PAYMENT, "status": "paid", "reference": "another"}), (200, {"payments": []}))
    with pytest.raises(GatewayObjectNotFound):
        gateway.ask(lambda adapter: adapter.retrieve(("pay_1",), our_reference=REFERENCE))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, {"error": "unauthorized"}), GatewayUnavailable),
        ((422, {"error": "amount_too_large"}), GatewayRejected),
        ((502, {"error": "internal_error"}), GatewayOutcomeUnknown),
        ((200, "not what it documents"), GatewayOutcomeUnknown),
    ],
)
def test_an_error_says_what_may_have_happened(answer: tuple[int, Any], error: type[Exception]) -> None:
    nothing = (200, {**PAYMENT, "status": "paid"})
    with pytest.raises(error):
        Gateway(answer, *[nothing if answer[0] == 422 else answer] * 2).ask(lambda adapter: adapter.refund(CALL))


@pytest.mark.parametrize("status", ["pending", "succeeded", "failed"])
def test_a_refund_is_found_again_by_our_reference(status: str) -> None:
    gateway = Gateway(
        (201, {**REFUND, "status": status}), (200, {**PAYMENT, "refunds": [{**REFUND, "status": status}]})
    )
    made = gateway.ask(lambda adapter: adapter.refund(CALL))
    found = gateway.ask(lambda adapter: adapter.find_operation(CALL))
    assert made == found
    assert (made.status, made.gateway_reference) == (OutcomeStatus(status), "ref_1")


def test_what_it_cannot_do_is_said_before_any_call() -> None:
    async def checked(adapter: GatewayAdapter) -> None:
        adapter.check(PRICE, CaptureMode.AUTOMATIC)
        with pytest.raises(CapabilityNotSupported):
            adapter.check(PRICE, CaptureMode.MANUAL)
        with pytest.raises(CurrencyNotSupported):
            adapter.check(Money(500, "JPY"), CaptureMode.AUTOMATIC)

    Gateway().ask(checked)


def test_a_webhook_is_the_payment_that_it_tells() -> None:
    body = {"event_id": "evt_1", "type": "payment.paid", "payment": {**PAYMENT, "status": "paid"}}
    event = translated(json.dumps(body))
    assert (event.references, event.our_references) == (("pay_1",), (REFERENCE,))
    assert [(fact.kind, fact.amount) for fact in event.observations] == [(FactKind.CAPTURED, PRICE)]
    with pytest.raises(UnreadableWebhook):
        translated('{"type": "payment.paid", "payment": {"id": 7}}')


# LOOK UP a genuine delivery with its secret, and put it here: what we compute ourselves proves only that we agree.
BODY = b'{"event_id":"evt_1","type":"payment.paid"}'
SIGNATURE = "6d9bea88716348bc2431e1e1c70775bee355b2cf5fddd9245d5bd689653a09ee"


def verdict(body: bytes, secret: str, headers: Mapping[str, str]) -> Verification:
    scheme = REGISTRATION.scheme(GatewayValues({}), Surroundings(production=False, http=None))
    delivery = RawDelivery("POST", "/api/v1/webhooks/newpay", "", tuple(headers.items()), body)
    return scheme.verify(delivery, (SigningSecret(secret),), NOW)


def test_only_what_was_signed_with_our_secret_is_believed() -> None:
    headers = {"NewPay-Signature": SIGNATURE}
    assert verdict(BODY, "a-secret", headers).verified
    assert verdict(BODY + b" ", "a-secret", headers).refusal is Refusal.SIGNATURE_MISMATCH
    assert verdict(BODY, "another-secret", headers).refusal is Refusal.SIGNATURE_MISMATCH
    assert verdict(BODY, "a-secret", {}).refusal is Refusal.SIGNATURE_MISSING
