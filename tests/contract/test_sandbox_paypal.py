"""The sandbox's PayPal, called with PayPal's own Python package: code that is not ours reads every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from paypalserversdk.configuration import Configuration, Environment, Server
from paypalserversdk.exceptions.error_exception import ErrorException
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient

from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.paypal_sandbox import CLIENT_ID, CLIENT_SECRET, paypal_credentials
from tests.support.postgres import ServiceDatabase

# The package asks for its own tokens without closing what it asked with; that is theirs to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
async def sandbox(service_database: ServiceDatabase) -> AsyncIterator[RunningSandbox]:
    async with running_sandbox(service_database("gateway_sandbox"), **paypal_credentials()) as running:
        yield running


@pytest.fixture
def client(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package knows two addresses, PayPal's own; here its test address is the sandbox."""
    servers = Configuration.environments[Environment.SANDBOX]
    monkeypatch.setitem(servers, Server.DEFAULT, f"{sandbox.url}/sandbox/paypal")
    credentials = ClientCredentialsAuthCredentials(o_auth_client_id=CLIENT_ID, o_auth_client_secret=CLIENT_SECRET)
    return PaypalServersdkClient(client_credentials_auth_credentials=credentials, environment=Environment.SANDBOX)


async def called(method: Callable[[dict[str, Any]], Any], **options: Any) -> Any:
    """The package blocks, so it works in a thread."""
    answer = await asyncio.get_running_loop().run_in_executor(None, method, options)
    return answer.body


def an_order(intent: str = "CAPTURE") -> dict[str, Any]:
    context = {"return_url": "https://shop.example/done", "cancel_url": "https://shop.example/back"}
    return {
        "intent": intent,
        "purchase_units": [
            {"custom_id": "ORD1001", "invoice_id": "ORD1001-1", "amount": {"currency_code": "USD", "value": "19.99"}}
        ],
        "payment_source": {"paypal": {"experience_context": context}},
    }


async def test_an_order_is_created_approved_captured_and_refunded(sandbox: RunningSandbox, client: Any) -> None:
    prefer = "return=representation"
    order = await called(client.orders.create_order, body=an_order(), paypal_request_id="order-1", prefer=prefer)
    assert (order.status, order.intent) == ("PAYER_ACTION_REQUIRED", "CAPTURE")
    assert [link.rel for link in order.links][:2] == ["self", "payer-action"]
    assert order.purchase_units[0].amount.value == "19.99"

    with pytest.raises(ErrorException) as refused:
        await called(client.orders.capture_order, id=order.id, paypal_request_id="capture-0")
    assert (refused.value.name, refused.value.details[0].issue) == ("UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")
    await sandbox.outcome("paypal", order.id, "succeed")
    assert (await called(client.orders.get_order, id=order.id)).status == "APPROVED"
    done = await called(client.orders.capture_order, id=order.id, paypal_request_id="capture-1", prefer=prefer)
    assert done.status == "COMPLETED"
    (capture,) = done.purchase_units[0].payments.captures
    assert (capture.status, capture.custom_id, capture.final_capture) == ("COMPLETED", "ORD1001", True)

    body = {"amount": {"currency_code": "USD", "value": "5.00"}, "custom_id": "REF1", "note_to_payer": "A cup broke"}
    payments = client.payments
    refund = await called(
        payments.refund_captured_payment, capture_id=capture.id, paypal_request_id="r-1", body=body, prefer=prefer
    )
    assert (refund.status, refund.amount.value, refund.custom_id) == ("COMPLETED", "5.00", "REF1")
    again = await called(
        payments.refund_captured_payment, capture_id=capture.id, paypal_request_id="r-1", body=body, prefer=prefer
    )
    assert again.id == refund.id
    assert (await called(payments.get_refund, refund_id=refund.id)).status == "COMPLETED"
    assert (await called(payments.get_captured_payment, capture_id=capture.id)).status == "PARTIALLY_REFUNDED"


async def test_held_money_is_captured_in_parts_and_voided(sandbox: RunningSandbox, client: Any) -> None:
    prefer = "return=representation"
    order = await called(
        client.orders.create_order, body=an_order("AUTHORIZE"), paypal_request_id="order-2", prefer=prefer
    )
    await sandbox.outcome("paypal", order.id, "succeed")
    held = await called(client.orders.authorize_order, id=order.id, paypal_request_id="auth-1", prefer=prefer)
    (authorization,) = held.purchase_units[0].payments.authorizations
    assert authorization.status == "CREATED"
    assert authorization.expiration_time is not None

    payments = client.payments
    part = {"amount": {"currency_code": "USD", "value": "7.00"}, "final_capture": False, "invoice_id": "CAP1"}
    capture = await called(
        payments.capture_authorized_payment,
        authorization_id=authorization.id,
        paypal_request_id="c-1",
        body=part,
        prefer=prefer,
    )
    assert (capture.status, capture.amount.value, capture.invoice_id) == ("COMPLETED", "7.00", "CAP1")
    shown = await called(payments.get_authorized_payment, authorization_id=authorization.id)
    assert shown.status == "PARTIALLY_CAPTURED"
    with pytest.raises(ErrorException) as early:
        await called(
            payments.reauthorize_payment, authorization_id=authorization.id, paypal_request_id="again", prefer=prefer
        )
    assert early.value.details[0].issue == "REAUTHORIZATION_TOO_SOON"
    voided = await called(payments.void_payment, authorization_id=authorization.id, prefer=prefer)
    assert voided.status == "VOIDED"
    with pytest.raises(ErrorException) as twice:
        await called(payments.void_payment, authorization_id=authorization.id, prefer=prefer)
    assert twice.value.details[0].issue == "PREVIOUSLY_VOIDED"


async def test_transactions_are_searched(sandbox: RunningSandbox, client: Any) -> None:
    order = await called(client.orders.create_order, body=an_order(), paypal_request_id="order-3")
    await sandbox.outcome("paypal", order.id, "succeed")
    await called(client.orders.capture_order, id=order.id, paypal_request_id="capture-3")
    now = datetime.now(UTC)
    found = await called(
        client.transaction_search.search_transactions,
        start_date=(now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        end_date=(now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    (row,) = [detail.transaction_info for detail in found.transaction_details]
    assert (row.transaction_amount.value, row.transaction_event_code, row.custom_field) == ("19.99", "T0006", "ORD1001")
    assert found.total_items == 1


async def test_wrong_credentials_get_no_token(sandbox: RunningSandbox, client: Any) -> None:
    credentials = ClientCredentialsAuthCredentials(o_auth_client_id=CLIENT_ID, o_auth_client_secret="wrong")
    stranger = PaypalServersdkClient(client_credentials_auth_credentials=credentials, environment=Environment.SANDBOX)
    with pytest.raises(Exception, match="OAuthToken is undefined"):
        await called(stranger.orders.get_order, id="X")
