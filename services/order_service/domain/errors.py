"""What the business forbids about orders. Each class's sentence is the default ``detail`` of its problem."""

from __future__ import annotations

from shared.errors import Conflict, DomainError, InvalidRequest, NotFound, TooManyRequests


class OrderNotFound(NotFound):
    """There is no such order, or it is not yours."""

    # Somebody else's order and no order at all answer with the same bytes (SEC-13).


class ProductNotFound(NotFound):
    """There is no such product."""


class InvoiceNotReady(Conflict):
    """The invoice exists once the order is paid."""

    code = "not_paid_yet"


class UnknownProduct(InvalidRequest):
    """There is no such product in the catalogue."""

    code = "unknown_product"


class CurrencyMismatch(InvalidRequest):
    """The order's currency is not the currency of every product in it."""

    code = "currency_mismatch"


class DuplicateItem(InvalidRequest):
    """A product is listed more than once; add up its quantities."""

    code = "duplicate_item"


class TotalOutOfBounds(InvalidRequest):
    """The order's total is zero or larger than any single payment may be."""

    code = "total_out_of_bounds"


class ReturnUrlNotAllowed(InvalidRequest):
    """A return URL must belong to one of the shop's own origins."""

    code = "return_url_not_allowed"


class OutOfStock(Conflict):
    """There is not enough stock left."""

    code = "out_of_stock"


class StockBelowReserved(Conflict):
    """Open orders hold more pieces than that; the stock cannot be set below them."""

    code = "stock_below_reserved"


class OrderAlreadyPaid(Conflict):
    """The order is paid, or its payment is authorized."""

    code = "order_already_paid"


class OrderIsCanceled(Conflict):
    """The order is canceled."""

    code = "order_canceled"


class OrderIsExpired(Conflict):
    """The order is expired; its stock is no longer held."""

    code = "order_expired"


class PaymentInProgress(Conflict):
    """A payment of this order is being processed by its gateway; wait for its outcome."""

    code = "payment_in_progress"
    retryable = True


class PaymentUnderReview(Conflict):
    """A payment of this order is held for review; nothing more is collected meanwhile."""

    code = "payment_under_review"


class TooManyOpenOrders(TooManyRequests):
    """This customer has too many unpaid orders; pay or cancel one, or wait until they expire."""

    code = "too_many_open_orders"


class PaymentRefused(DomainError):
    """The payment service refused to open this payment; nothing moved."""

    code = "payment_refused"
    status = 422

    def __init__(self, detail: str | None = None, *, code: str | None = None, status: int | None = None):
        super().__init__(detail)
        # The payment service's own code says more than ours (gateway_not_enabled, currency_not_supported, ...).
        self.code = code or type(self).code  # type: ignore[misc]
        self.status = status or type(self).status  # type: ignore[misc]
