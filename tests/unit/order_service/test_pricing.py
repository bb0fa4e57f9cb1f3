"""The catalogue's prices count; what the caller sends is a wish list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.order_service.api.schemas import OrderRequest, PayRequest
from services.order_service.domain.errors import CurrencyMismatch, DuplicateItem, TotalOutOfBounds, UnknownProduct
from services.order_service.domain.models import Product, ReconcilePolicy
from services.order_service.domain.pricing import RequestedItem, price_items, refuse_duplicates, total_of
from shared.money import MAX_AMOUNT_MINOR, Money


def a_product(sku: str = "a", price: int = 100, currency: str = "EUR") -> Product:
    return Product(sku, sku.upper(), "", None, Money(price, currency), 10, 0, ReconcilePolicy.REFUND)


def test_a_line_takes_name_and_price_from_the_catalogue() -> None:
    (line,) = price_items([RequestedItem("a", 3)], {"a": a_product(price=250)}, "EUR")
    assert (line.name, line.unit_price, line.total) == ("A", Money(250, "EUR"), Money(750, "EUR"))


def test_an_unknown_product_is_named_with_its_place() -> None:
    with pytest.raises(UnknownProduct) as refused:
        price_items([RequestedItem("a", 1), RequestedItem("b", 1)], {"a": a_product()}, "EUR")
    assert [error.pointer for error in refused.value.errors] == ["/items/1/sku"]


def test_currencies_do_not_mix() -> None:
    with pytest.raises(CurrencyMismatch):
        price_items([RequestedItem("a", 1)], {"a": a_product(currency="KWD")}, "USD")


def test_a_product_listed_twice_is_refused() -> None:
    with pytest.raises(DuplicateItem):
        refuse_duplicates([RequestedItem("a", 1), RequestedItem("a", 2)])


@pytest.mark.parametrize(("price", "quantity"), [(MAX_AMOUNT_MINOR, 2), (10**10, 1000)])
def test_a_total_beyond_any_payment_is_refused(price: int, quantity: int) -> None:
    with pytest.raises(TotalOutOfBounds):
        total_of(price_items([RequestedItem("a", quantity)], {"a": a_product(price=price)}, "EUR"), "EUR")


def test_a_free_order_is_refused() -> None:
    with pytest.raises(TotalOutOfBounds):
        total_of((), "EUR")


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 1000)), min_size=1, max_size=20))
def test_the_total_is_the_exact_sum_of_its_lines(lines: list[tuple[int, int]]) -> None:
    catalogue = {str(number): a_product(str(number), price) for number, (price, _) in enumerate(lines)}
    items = [RequestedItem(str(number), quantity) for number, (_, quantity) in enumerate(lines)]
    expected = sum(price * quantity for price, quantity in lines)
    assert total_of(price_items(items, catalogue, "EUR"), "EUR") == Money(expected, "EUR")


GOOD = {"items": [{"sku": "a", "quantity": 1}], "currency": "EUR", "customer": {"email": "a@b.example", "name": "A"}}


def test_a_plain_order_is_understood() -> None:
    assert OrderRequest.model_validate(GOOD).items[0].quantity == 1


@pytest.mark.parametrize(
    "quantity",
    [0, -1, 1001, 10**30, 1.0, 1.5, 1e2, True, False, "1", "١", None, [1], {"$gt": 0}, float("nan"), float("inf")],
)
def test_a_quantity_is_a_whole_number_in_bounds(quantity: object) -> None:
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"items": [{"sku": "a", "quantity": quantity}]})


@pytest.mark.parametrize(
    "extra",
    [
        {"total": 1},
        {"amount": 1},
        {"amount_minor": 1},
        {"price": {"amount_minor": 1, "currency": "EUR"}},
        {"status": "confirmed"},
        {"payment_status": "paid"},
        {"customer_id": "someone"},
        {"customer_subject": "someone"},
        {"client_secret": "ocs_mine"},
        {"expires_at": "2099-01-01T00:00:00Z"},
        {"id": "ord_mine"},
        {"version": 99},
        {"attention": None},
        {"discount": 100},
        {"__proto__": {}},
    ],
)
def test_nothing_that_the_server_decides_can_be_sent(extra: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | extra)
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"items": [{"sku": "a", "quantity": 1} | extra]})
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"customer": {"email": "a@b.example", "name": "A"} | extra})


@pytest.mark.parametrize("currency", ["eur", "EU", "EURO", "XXX", "ZZZ", "€", "", None, 978, ["EUR"]])
def test_a_currency_is_an_iso_code(currency: object) -> None:
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"currency": currency})


@pytest.mark.parametrize("items", [[], [{"sku": "a", "quantity": 1}] * 101, None, {}, "a", [None], [{"sku": "a"}]])
def test_an_order_has_one_to_a_hundred_lines(items: object) -> None:
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"items": items})


@pytest.mark.parametrize(
    "customer",
    [
        {"email": "a@b.example\r\nBcc: everybody@example.com", "name": "A"},
        {"email": "a@b.example", "name": "A\nB"},
        {"email": "a@b.example", "name": "A\x00"},
        {"email": "a@b.example", "name": "\ud800"},
        {"email": "a@b.example", "name": ""},
        {"email": "a@b.example", "name": "x" * 201},
        {"email": "not an address", "name": "A"},
        {"email": "a@localhost", "name": "A"},
        {"email": "a" * 250 + "@b.example", "name": "A"},
        {"email": "a@b.example", "name": "A", "phone": "<script>"},
    ],
)
def test_a_customer_that_could_break_a_mail_header_or_a_row_is_refused(customer: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        OrderRequest.model_validate(GOOD | {"customer": customer})


@pytest.mark.parametrize("extra", [{"amount": 1}, {"amount_minor": 1}, {"currency": "USD"}, {"payment_id": "pay_x"}])
def test_a_pay_call_carries_no_money(extra: dict[str, object]) -> None:
    urls = dict.fromkeys(("success_url", "failure_url", "cancel_url"), "https://shop.example/")
    PayRequest.model_validate({"gateway": "stripe", **urls})
    with pytest.raises(ValidationError):
        PayRequest.model_validate({"gateway": "stripe", **urls, **extra})
