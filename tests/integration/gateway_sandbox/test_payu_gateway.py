"""Our PayU adapter and scheme, and the sandbox's PayU, over HTTP: what one says the others understand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.payu.hashes import command_hash, form_hash
from services.payment_service.gateways.port import OutcomeStatus
from services.webhook_ingest.signatures.port import Trust
from shared.errors import GatewayObjectNotFound, GatewayRejected, GatewayUnavailable
from shared.money import Money
from tests.support.adapter_calls import CANCEL_URL, OPERATION, REFERENCE, RETURN_URL
from tests.support.payu import INR_500, KEY, SALT, Shop, a_money_call, a_session_request, open_shop
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

INR_100 = Money(10_000, "INR")


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


async def test_a_form_is_opened_paid_told_and_brought_back_with_one_hash(shop: Shop) -> None:
    with pytest.raises(GatewayObjectNotFound):  # nobody has posted it yet
        await shop.look()
    page = await shop.open()
    assert told((await shop.look()).observations) == {("session_opened", REFERENCE, None)}
    assert await shop.open() == page  # the form posted again is the same page
    url, brought = await shop.press(page, "succeed")
    assert url == RETURN_URL
    snapshot = await shop.look()
    assert snapshot.references == (REFERENCE, brought["mihpayid"])
    assert told(snapshot.observations) == {("captured", brought["mihpayid"], INR_500)}
    await until(lambda: len(shop.sandbox.receiver.requests) == 1, what="the webhook")
    assert [(v.refusal, v.trust) for v in shop.verified()] == [(None, Trust.HINT)]
    [event] = shop.told()
    assert (event.event_type, event.our_references, event.must_ask) == ("payment.success", (REFERENCE,), True)
    [delivered] = shop.sandbox.receiver.requests
    assert dict(parse_qsl(delivered.content.decode(), keep_blank_values=True)) == brought


@pytest.mark.parametrize(("button", "reason", "way"), [("fail", "E308", RETURN_URL), ("cancel", "E1605", CANCEL_URL)])
async def test_a_try_that_failed_and_the_one_after_it(shop: Shop, button: str, reason: str, way: str) -> None:
    url, brought = await shop.press(await shop.open(), button)
    assert (url, brought["status"]) == (way, "failure")
    opened, declined = (await shop.look()).observations
    assert (opened.kind, opened.object_reference) == (FactKind.SESSION_OPENED, REFERENCE)
    assert (declined.kind, declined.object_reference) == (FactKind.DECLINED, brought["mihpayid"])
    assert declined.reason == reason
    _, again = await shop.press(await shop.open(), "succeed")  # the same form, posted again
    assert again["txnid"] == brought["txnid"]
    assert again["mihpayid"] != brought["mihpayid"]
    assert told((await shop.look()).observations) == {("captured", again["mihpayid"], INR_500)}
    await until(lambda: len(shop.sandbox.receiver.requests) == 2, what="the webhooks")
    assert [event.references for event in shop.told()] == [(brought["mihpayid"],), (again["mihpayid"],)]


async def test_closing_ends_what_has_failed(shop: Shop) -> None:
    _, brought = await shop.press(await shop.open(), "fail")
    closed = await shop.payu.close_session(REFERENCE, our_reference=REFERENCE)
    assert told(closed.observations) == {
        ("session_opened", REFERENCE, None),
        ("declined", brought["mihpayid"], None),
        ("canceled", REFERENCE, None),
    }


async def test_a_form_that_is_not_ours_opens_nothing(shop: Shop) -> None:
    fields = (await shop.payu.create_session(a_session_request(), repeated=False)).next_action.fields

    def signed(**changes: str) -> dict[str, str]:
        changed = {**fields, **changes}
        return {**changed, "hash": form_hash(changed, SALT)}

    forms = [
        fields | {"amount": "1.00"},
        fields | {"hash": fields["hash"].upper()},
        {name: value for name, value in fields.items() if name != "phone"},
        fields | {"currency": "INR"},
        signed(amount="500"),
        signed(txnid="x" * 26),
        signed(key="TKEY02"),
        signed(firstname="Zoë"),
        fields | {"surl": "javascript:alert(1)"},
    ]
    assert [(await shop.post(form)).status_code for form in forms] == [400] * len(forms)
    assert (await shop.sandbox.books("payu"))["payments"] == []
    await shop.post(fields)
    assert (await shop.post(signed(amount="1.00"))).status_code == 400
    await shop.sandbox.outcome("payu", REFERENCE, "succeed")
    assert (await shop.post(fields)).status_code == 400  # its txnid is used up


async def test_the_api_speaks_only_to_those_who_sign(shop: Shop) -> None:
    await shop.paid()
    url = "/sandbox/payu/merchant/postservice.php"
    good = {"key": KEY, "command": "verify_payment", "var1": REFERENCE}
    good["hash"] = command_hash(KEY, "verify_payment", REFERENCE, SALT)
    for form in (good | {"hash": "0" * 128}, good | {"var1": "ANOTHER"}, good | {"key": "TKEY02"}):
        answer = (await shop.sandbox.client.post(f"{url}?form=2", data=form)).json()
        assert (answer["status"], "transaction_details" in answer) == (0, False)
    assert (await shop.sandbox.client.post(url, data=good)).text.startswith("a:2:")  # PHP's own format
    strange = good | {"command": "drop", "hash": command_hash(KEY, "drop", REFERENCE, SALT)}
    assert "permission" in (await shop.sandbox.client.post(f"{url}?form=2", data=strange)).json()["msg"]
    several = f"{REFERENCE}|ANOTHER"
    form = good | {"var1": several, "hash": command_hash(KEY, "verify_payment", several, SALT)}
    details = (await shop.sandbox.client.post(f"{url}?form=2", data=form)).json()["transaction_details"]
    assert (details[REFERENCE]["status"], details["ANOTHER"]["status"]) == ("success", "Not Found")


async def test_held_money_is_captured_once_or_let_go_once(shop: Shop) -> None:
    held = await shop.paid(CaptureMode.MANUAL)
    assert told((await shop.look()).observations) == {("authorized", held, INR_500)}
    capture = a_money_call(OperationKind.CAPTURE, held)
    await shop.sandbox.faults("payu", {"operation": "capture", "kind": "pending"})
    pending = await shop.payu.capture(capture)
    assert pending.status is OutcomeStatus.PENDING
    assert told((await shop.look()).observations) == {("authorized", held, INR_500)}
    await shop.sandbox.control("payu", f"captures/{pending.gateway_reference}", status="failed")
    failed = await shop.payu.find_operation(capture)
    assert failed is not None
    assert failed.status is OutcomeStatus.FAILED
    again = a_money_call(OperationKind.CAPTURE, held, reference="OP00000000000000002B")
    assert (await shop.payu.capture(again)).status is OutcomeStatus.SUCCEEDED
    assert (await shop.payu.capture(again)).status is OutcomeStatus.SUCCEEDED  # its token is known
    with pytest.raises(GatewayRejected):
        await shop.payu.void(a_money_call(OperationKind.VOID, held, reference="OP00000000000000003C"))
    entry = await shop.entry()
    assert (entry["captured_minor"], entry["refunded_minor"]) == (50_000, 0)


async def test_a_void_lets_go_of_the_hold(shop: Shop) -> None:
    held = await shop.paid(CaptureMode.MANUAL)
    void = a_money_call(OperationKind.VOID, held)
    assert (await shop.payu.void(void)).status is OutcomeStatus.SUCCEEDED
    assert (await shop.payu.void(void)).status is OutcomeStatus.SUCCEEDED
    assert ("canceled", held, None) in told((await shop.look()).observations)
    with pytest.raises(GatewayRejected):
        await shop.payu.capture(a_money_call(OperationKind.CAPTURE, held, reference="OP00000000000000002B"))
    assert (await shop.entry())["captured_minor"] == 0


async def test_refunds_of_ours_and_of_the_dashboard_done_pending_and_failed(shop: Shop) -> None:
    paid = await shop.paid()
    await shop.sandbox.faults("payu", {"operation": "refund", "kind": "timeout_after", "seconds": 0})
    done = await shop.payu.refund(a_money_call(OperationKind.REFUND, paid, INR_100))  # repeated, and found by its token
    assert done.status is OutcomeStatus.SUCCEEDED
    await shop.sandbox.faults("payu", {"operation": "refund", "kind": "pending"})
    second = a_money_call(OperationKind.REFUND, paid, Money(5_000, "INR"), reference="OP00000000000000002B")
    pending = await shop.payu.refund(second)
    assert pending.status is OutcomeStatus.PENDING
    await shop.sandbox.control("payu", f"refunds/{pending.gateway_reference}", status="failed")
    await shop.sandbox.control("payu", f"sessions/{REFERENCE}/refunds", amount_minor=700)
    refunds = {o.kind: o for o in (await shop.look()).observations if o.about == paid}
    amounts = {str(kind): o.amount.amount_minor for kind, o in refunds.items() if o.amount}
    assert amounts["refund_failed"] == 5_000
    assert refunds[FactKind.REFUND_FAILED].operation == "OP00000000000000002B"
    succeeded = [o for o in (await shop.look()).observations if o.kind is FactKind.REFUND_SUCCEEDED]
    assert {(o.operation, o.amount.amount_minor) for o in succeeded if o.amount} == {(OPERATION, 10_000), (None, 700)}
    for code, error in (("105", GatewayRejected), ("214", GatewayUnavailable)):
        await shop.sandbox.faults("payu", {"operation": "refund", "kind": "reject", "code": code})
        with pytest.raises(error):
            await shop.payu.refund(
                a_money_call(OperationKind.REFUND, paid, INR_100, reference=f"OP000000000000000{code}")
            )
    await until(lambda: len(shop.sandbox.receiver.requests) == 4, what="the webhooks")
    assert all(v.verified and v.trust is Trust.HINT for v in shop.verified())
    assert sorted(event.event_type for event in shop.told()) == [
        "payment.success",
        "refund.failure",
        "refund.success",
        "refund.success",
    ]
    await shop.sandbox.control("payu", f"sessions/{REFERENCE}/disputes", amount_minor=50_000)
    await until(lambda: len(shop.sandbox.receiver.requests) == 5, what="the dispute")
    assert shop.verified()[-1].event_type == "dispute.New"


async def test_the_list_and_the_settlement_know_what_was_paid(shop: Shop) -> None:
    paid = await shop.paid()
    await shop.payu.refund(a_money_call(OperationKind.REFUND, paid, INR_100))
    now = datetime.now(UTC)
    page = await shop.payu.list_window(now - timedelta(minutes=30), now)
    [listed] = page.entries
    assert (listed.references, listed.our_references) == ((paid, REFERENCE), (REFERENCE,))
    assert told(listed.observations) == {("captured", paid, INR_500)}
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await shop.sandbox.client.get("/sandbox/control/payu/settlement", params=window)
    capture, refund = answer.json()["Txn_details"].values()
    assert (capture["payuid"], capture["txnid"], capture["requestaction"]) == (paid, REFERENCE, "capture")
    assert (capture["mer_service_fee"], capture["mer_service_tax"]) == ("12.5000", "2.2500")
    assert capture["mer_net_amount"] == "485.2500"
    assert (refund["requestaction"], refund["requestamount"], refund["token"]) == ("refund", "100.00", OPERATION)
    assert refund["mer_net_amount"] == "-100.0000"
