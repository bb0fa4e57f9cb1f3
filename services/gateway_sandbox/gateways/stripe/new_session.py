"""``POST /v1/checkout/sessions``: Stripe's validation, and the book entry of a session that passed it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.gateways.stripe.errors import invalid_parameter, missing_parameter
from services.gateway_sandbox.gateways.stripe.form import Parameters
from services.gateway_sandbox.gateways.stripe.money import check_chargeable, currency_of, to_books
from services.gateway_sandbox.gateways.stripe.objects import capture_mode

_LONGEST_LIFE = timedelta(hours=24)
_SHORTEST_LIFE = timedelta(minutes=30)
_CLOCK_DIFFERENCE = timedelta(seconds=60)  # between a client that counts from its own now, and us
MAX_LINE_ITEMS = 100

_SESSION_PARAMETERS = frozenset(
    {
        "adaptive_pricing",
        "after_expiration",
        "allow_promotion_codes",
        "automatic_tax",
        "billing_address_collection",
        "branding_settings",
        "cancel_url",
        "client_reference_id",
        "consent_collection",
        "currency",
        "custom_fields",
        "custom_text",
        "customer",
        "customer_creation",
        "customer_email",
        "customer_update",
        "discounts",
        "excluded_payment_method_types",
        "expand",
        "expires_at",
        "invoice_creation",
        "line_items",
        "locale",
        "metadata",
        "mode",
        "name_collection",
        "optional_items",
        "origin_context",
        "payment_intent_data",
        "payment_method_collection",
        "payment_method_configuration",
        "payment_method_data",
        "payment_method_options",
        "payment_method_types",
        "permissions",
        "phone_number_collection",
        "redirect_on_completion",
        "return_url",
        "saved_payment_method_options",
        "setup_intent_data",
        "shipping_address_collection",
        "shipping_options",
        "submit_type",
        "subscription_data",
        "success_url",
        "tax_id_collection",
        "ui_mode",
        "wallet_options",
    }
)
_ITEM_PARAMETERS = frozenset(
    {"adjustable_quantity", "dynamic_tax_rates", "price", "price_data", "quantity", "tax_rates", "metadata"}
)
_PRICE_PARAMETERS = frozenset(
    {"currency", "product", "product_data", "recurring", "tax_behavior", "unit_amount", "unit_amount_decimal"}
)
_PRODUCT_PARAMETERS = frozenset({"description", "images", "metadata", "name", "tax_code", "unit_label"})
_INTENT_PARAMETERS = frozenset(
    {
        "application_fee_amount",
        "capture_method",
        "description",
        "metadata",
        "on_behalf_of",
        "receipt_email",
        "setup_future_usage",
        "shipping",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_data",
        "transfer_group",
    }
)
_CAPTURE_METHODS = frozenset({"automatic", "automatic_async", "manual"})


def new_session(parameters: Parameters, books: Books) -> BookEntry:
    """Raises WireError, naming the first parameter that is wrong."""
    parameters.allow_only(_SESSION_PARAMETERS)
    _require_hosted_payment(parameters)
    items, currency = _line_items(parameters)
    total = sum(item["unit_amount"] * item["quantity"] for item in items)
    check_chargeable(total, currency, param="line_items")
    intent = _intent(parameters)
    metadata = parameters.metadata()
    client_reference = parameters.text("client_reference_id", longest=200)
    return BookEntry(
        gateway="stripe",
        gateway_reference=books.new_id("cs_test_", 58),
        reference=client_reference or metadata.get("order_ref") or intent["metadata"].get("order_ref"),
        order_id=metadata.get("order_id") or intent["metadata"].get("order_id"),
        amount_minor=to_books(total, currency, param="line_items"),
        currency=currency,
        capture=capture_mode(intent),
        success_url=_url(parameters, "success_url") or "",
        cancel_url=_url(parameters, "cancel_url"),
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=_expiry(parameters, books.now),
        customer_email=parameters.text("customer_email", longest=800),
        description=intent.pop("description"),
        metadata=metadata,
        details={
            "client_reference_id": client_reference,
            "intent": intent,
            "line_items": items,
            "locale": parameters.text("locale"),
        },
    )


def _require_hosted_payment(parameters: Parameters) -> None:
    if parameters.choice("mode", frozenset({"payment", "setup", "subscription"})) is None:
        raise missing_parameter("mode")
    if parameters.text("mode") != "payment":
        raise invalid_parameter("The sandbox only offers mode=payment.", param="mode")
    if parameters.text("ui_mode") not in (None, "hosted_page"):
        raise invalid_parameter("Invalid ui_mode: must be one of hosted_page", param="ui_mode")
    if parameters.text("success_url") is None:
        raise missing_parameter("success_url")
    if parameters.has("customer") and parameters.has("customer_email"):
        message = "You may only specify one of these parameters: customer, customer_email."
        raise invalid_parameter(message, param="customer")


def _line_items(parameters: Parameters) -> tuple[list[dict[str, Any]], str]:
    items = parameters.objects("line_items")
    if not items:
        raise missing_parameter("line_items")
    if len(items) > MAX_LINE_ITEMS:
        raise invalid_parameter(f"There can be at most {MAX_LINE_ITEMS} line items.", param="line_items")
    read = [_line_item(item) for item in items]
    currencies = {currency for _, currency in read}
    if len(currencies) > 1:
        raise invalid_parameter("All line items must have the same currency.", param="line_items")
    return [item for item, _ in read], currencies.pop()


def _line_item(item: Parameters) -> tuple[dict[str, Any], str]:
    item.allow_only(_ITEM_PARAMETERS)
    price = item.required_nested("price_data")
    price.allow_only(_PRICE_PARAMETERS)
    currency = currency_of(price.required_text("currency"), param=price.name("currency"))
    product = price.required_nested("product_data")
    product.allow_only(_PRODUCT_PARAMETERS)
    unit_amount = price.integer("unit_amount")
    if unit_amount is None:
        raise missing_parameter(price.name("unit_amount"))
    if unit_amount < 0:
        message = "Invalid non-negative integer"
        raise invalid_parameter(message, param=price.name("unit_amount"), code="parameter_invalid_integer")
    quantity = item.integer("quantity")
    if quantity is None:
        raise missing_parameter(item.name("quantity"))
    if not 0 < quantity < 1_000_000:
        message = "Invalid positive integer"
        raise invalid_parameter(message, param=item.name("quantity"), code="parameter_invalid_integer")
    return {"name": product.required_text("name"), "quantity": quantity, "unit_amount": unit_amount}, currency


def _intent(parameters: Parameters) -> dict[str, Any]:
    data = parameters.nested("payment_intent_data") or Parameters({}, "payment_intent_data")
    data.allow_only(_INTENT_PARAMETERS)
    return {
        "capture_method": data.choice("capture_method", _CAPTURE_METHODS) or "automatic_async",
        "description": data.text("description", longest=1000),
        "metadata": data.metadata(),
        "receipt_email": data.text("receipt_email"),
        "setup_future_usage": data.choice("setup_future_usage", frozenset({"off_session", "on_session"})),
        "statement_descriptor_suffix": data.text("statement_descriptor_suffix", longest=22),
    }


def _url(parameters: Parameters, key: str) -> str | None:
    value = parameters.text(key)
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(ord(character) < 33 for character in value):
        raise invalid_parameter("Not a valid URL", param=key, code="url_invalid")
    return value


def _expiry(parameters: Parameters, now: datetime) -> datetime:
    seconds = parameters.integer("expires_at")
    if seconds is None:
        return now + _LONGEST_LIFE
    if not 0 <= seconds < 2**33:
        raise invalid_parameter("Invalid timestamp", param="expires_at", code="parameter_invalid_integer")
    expires_at = datetime.fromtimestamp(seconds, UTC)
    if expires_at > now + _LONGEST_LIFE + _CLOCK_DIFFERENCE:
        message = "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."
        raise invalid_parameter(message, param="expires_at")
    if expires_at < now + _SHORTEST_LIFE - _CLOCK_DIFFERENCE:
        message = "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."
        raise invalid_parameter(message, param="expires_at")
    return expires_at
