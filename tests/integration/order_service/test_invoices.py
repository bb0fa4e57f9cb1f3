"""The invoice: once paid, numbered without gaps, readable in Arabic, the same bytes each time."""

from __future__ import annotations

import io

import pytest
from pypdf import PdfReader

from services.order_service.domain.models import PaymentStatus
from services.order_service.invoicing.in_process import InvoicePages
from tests.integration.order_service.conftest import BuildWorld, World


@pytest.fixture
async def world(build_world: BuildWorld) -> World:
    built = await build_world(invoices=InvoicePages())
    await built.has_product()
    return built


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


async def test_an_unpaid_order_has_no_invoice_yet(world: World) -> None:
    order = await world.order()
    await world.open_session(order)
    answer = await world.http.get(f"/api/v1/orders/{order.id}/invoice", headers=order.secret)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_paid_yet")


@pytest.mark.parametrize(
    ("currency", "price", "quantity", "line", "total"),
    [
        ("EUR", 3900, 2, "39.00", "78.00 EUR"),
        ("KWD", 12500, 3, "12.500", "37.500 KWD"),
        ("JPY", 14800, 1, "14,800", "14,800 JPY"),
    ],
)
async def test_the_invoice_shows_every_digit_of_its_currency(
    world: World, currency: str, price: int, quantity: int, line: str, total: str
) -> None:
    await world.has_product("thing", price=price, currency=currency)
    order = await world.paid_order(items=[{"sku": "thing", "quantity": quantity}], currency=currency)
    url = f"/api/v1/orders/{order.id}/invoice"
    answer = await world.http.get(url, headers=order.secret)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    assert answer.headers["content-disposition"] == 'inline; filename="INV-000001.pdf"'
    text = text_of(answer.content)
    assert "INV-000001" in text
    assert line in text
    assert total in text
    assert (await world.http.get(url, headers=order.secret)).content == answer.content
    html = await world.http.get(url, headers=order.secret | {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    assert total in html.text


async def test_names_in_any_script_and_hostile_names_are_printed_as_text(world: World) -> None:
    await world.has_product("set", name="<img src=x onerror=alert(1)> طقم فناجين", stock=5)
    customer = {"email": "a@example.com", "name": "عبد الله <script>"}
    order = await world.paid_order(items=[{"sku": "set", "quantity": 1}], customer=customer)
    url = f"/api/v1/orders/{order.id}/invoice"
    html = (await world.http.get(url, headers=order.secret | {"Accept": "text/html"})).text
    assert "<script>" not in html
    assert "<img" not in html
    assert "<bdi>عبد الله &lt;script&gt;</bdi>" in html
    pdf = (await world.http.get(url, headers=order.secret)).content
    fonts = {name for page in PdfReader(io.BytesIO(pdf)).pages for name in _font_names(page)}
    assert fonts
    assert all("DejaVu" in name for name in fonts)


async def test_the_invoice_stays_as_it_was_when_shop_and_catalogue_change(world: World) -> None:
    order = await world.paid_order()
    await world.has_product(name="Renamed", price=1)
    (payment_id,) = world.payments.sessions
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED, amount_refunded=3900)
    html = await world.http.get(f"/api/v1/orders/{order.id}/invoice", headers=order.secret | {"Accept": "text/html"})
    assert "The moka-pot" in html.text
    assert "39.00 EUR" in html.text


def _font_names(page: object) -> list[str]:
    fonts = page["/Resources"]["/Font"]  # type: ignore[index]
    return [str(font.get_object()["/BaseFont"]) for font in fonts.values()]
