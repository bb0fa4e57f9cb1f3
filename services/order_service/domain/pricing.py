"""What an order costs: the catalogue's prices times the asked quantities, and nothing that the caller says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.order_service.domain.errors import CurrencyMismatch, DuplicateItem, TotalOutOfBounds, UnknownProduct
from services.order_service.domain.models import LineItem, Product
from shared.errors import FieldError
from shared.money import MAX_AMOUNT_MINOR, Money


@dataclass(frozen=True, slots=True)
class RequestedItem:
    sku: str
    quantity: int


def refuse_duplicates(requested: Sequence[RequestedItem]) -> None:
    """Two lines of one product are a mistake of the caller: adding them up could sell more than the shopper saw."""
    seen: set[str] = set()
    for index, item in enumerate(requested):
        if item.sku in seen:
            raise DuplicateItem(
                errors=[FieldError(f"/items/{index}/sku", f"{item.sku} is listed twice", "duplicate_item")]
            )
        seen.add(item.sku)


def price_items(
    requested: Sequence[RequestedItem], catalogue: Mapping[str, Product], currency: str
) -> tuple[LineItem, ...]:
    """Lines in the caller's order. Raises UnknownProduct or CurrencyMismatch with a pointer to each wrong line."""
    unknown = [
        FieldError(f"/items/{index}/sku", f"there is no product {item.sku}", "unknown_product")
        for index, item in enumerate(requested)
        if item.sku not in catalogue
    ]
    if unknown:
        raise UnknownProduct(errors=unknown)
    foreign = [
        FieldError(
            f"/items/{index}/sku", f"{item.sku} is sold in {catalogue[item.sku].price.currency}", "currency_mismatch"
        )
        for index, item in enumerate(requested)
        if catalogue[item.sku].price.currency != currency
    ]
    if foreign:
        raise CurrencyMismatch(
            errors=[FieldError("/currency", f"the order asks for {currency}", "currency_mismatch"), *foreign]
        )
    return tuple(
        LineItem(product.sku, product.name, item.quantity, product.price)
        for item in requested
        for product in (catalogue[item.sku],)
    )


def total_of(items: Sequence[LineItem], currency: str) -> Money:
    """The sum of the lines. A free order is refused (failure O15): nothing would ever confirm it."""
    total = sum((item.total for item in items), Money(0, currency))
    if not 0 < total.amount_minor <= MAX_AMOUNT_MINOR:
        raise TotalOutOfBounds(f"the total of {total} is not between one minor unit and {MAX_AMOUNT_MINOR} of them")
    return total
