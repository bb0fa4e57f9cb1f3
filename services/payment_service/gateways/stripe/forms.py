"""What Stripe is asked, as flat form fields. Every form is the same, byte for byte, when a call is repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from services.payment_service.domain.models import CaptureMode
from services.payment_service.gateways.port import CreateSession, MoneyCall
from services.payment_service.gateways.stripe.amounts import to_stripe_minor
from shared.money import Money

CAPTURE_MARK = "captured_"
"""Prefix of the metadata key by which an intent says that a capture of ours ran: one key for each capture."""

REFUND_MARK = "refund_ref"

_LONGEST_METADATA = 500
_REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
_VOID_REASONS = _REFUND_REASONS | {"abandoned"}


def session_form(request: CreateSession) -> dict[str, str]:
    metadata = {
        "order_ref": request.reference,
        "order_id": request.order_id,
        "payment_id": request.payment_id,
        "capture": request.capture.value,
    }
    form = {
        "mode": "payment",
        "client_reference_id": request.reference,
        "success_url": request.return_url,
        "cancel_url": request.cancel_url,
        "expires_at": str(int(request.expires_at.timestamp())),
        "customer_email": request.customer.email,
        "payment_intent_data[capture_method]": "manual" if request.capture is CaptureMode.MANUAL else "automatic",
        "payment_intent_data[description]": request.description,
    }
    for key, value in metadata.items():
        form[f"metadata[{key}]"] = value  # Stripe does not copy the session's metadata to the intent: set both
        form[f"payment_intent_data[metadata][{key}]"] = value
    for index, (name, quantity, unit_amount) in enumerate(_lines(request)):
        prefix = f"line_items[{index}]"
        form[f"{prefix}[quantity]"] = str(quantity)
        form[f"{prefix}[price_data][currency]"] = request.amount.currency.lower()
        form[f"{prefix}[price_data][unit_amount]"] = str(unit_amount)
        form[f"{prefix}[price_data][product_data][name]"] = name
    return form


def capture_form(call: MoneyCall) -> dict[str, str]:
    """What takes all, or is the last, releases the rest; else the intent stays open to more captures."""
    minor = str(to_stripe_minor(call.amount))
    return {
        "amount_to_capture": minor,
        "final_capture": "true" if call.is_whole or call.is_final else "false",
        f"metadata[{CAPTURE_MARK}{call.reference}]": minor,  # merged into the intent's own metadata
        "metadata[capture_ref]": call.reference,  # the latest one, for people who look into the dashboard
        "expand[0]": "latest_charge",
    }


def void_form(call: MoneyCall) -> dict[str, str]:
    form = {"expand[0]": "latest_charge"}
    return form | ({"cancellation_reason": call.reason} if call.reason in _VOID_REASONS else {})


def refund_form(call: MoneyCall) -> dict[str, str]:
    """Reasons that Stripe does not know go into the metadata."""
    form = {
        "payment_intent": call.target,
        "amount": str(to_stripe_minor(call.amount)),
        **_metadata({REFUND_MARK: call.reference, "payment_id": call.payment_id, "order_id": call.order_id}),
    }
    if call.reason in _REFUND_REASONS:
        return form | {"reason": call.reason}
    return form | (_metadata({"reason": call.reason[:_LONGEST_METADATA]}) if call.reason else {})


def _metadata(values: Mapping[str, str]) -> dict[str, str]:
    return {f"metadata[{key}]": value for key, value in values.items()}


def _lines(request: CreateSession) -> Iterator[tuple[str, int, int]]:
    """The order's lines, if they add up to the amount (Stripe charges their sum); else one line with the amount."""
    total = sum(item.quantity * item.unit_amount_minor for item in request.items)
    if total != request.amount.amount_minor or not 0 < len(request.items) <= 100:
        yield request.description, 1, to_stripe_minor(request.amount)
        return
    for item in request.items:
        yield item.name[:250], item.quantity, to_stripe_minor(Money(item.unit_amount_minor, request.amount.currency))
