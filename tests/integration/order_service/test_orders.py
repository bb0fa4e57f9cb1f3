"""Creating, paying and canceling orders through HTTP, on a real database."""

from __future__ import annotations

from services.order_service.domain.models import PaymentStatus
from tests.integration.order_service.conftest import World


async def test_an_order_is_priced_by_the_catalogue_and_holds_its_stock(world: World) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 3}])

    assert order.document["total"] == {"amount_minor": 11700, "currency": "EUR"}
    assert order.document["items"][0]["unit_price"] == {"amount_minor": 3900, "currency": "EUR"}
    assert (order.document["status"], order.document["payment_status"]) == ("open", "unpaid")
    assert await world.stock() == (10, 3)
    assert await world.events(order.id) == ["order.created.v1"]


async def test_an_order_is_paid_and_its_stock_goes_down_once(world: World) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 2}])
    payment_id = await world.open_session(order)
    assert (await world.see(order))["payment_status"] == "pending"

    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)

    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert seen["invoice_number"] == "INV-000001"
    assert await world.stock() == (8, 0)
    assert await world.events(order.id) == ["order.created.v1", "order.paid.v1"]
