"""The way back from the hosted checkout: a signed GET for links, a signed form that posts itself for orders."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from string import Template
from urllib.parse import urlencode

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.domain.signatures import hmac_sha256_hex
from services.gateway_sandbox.gateways.port import WireAnswer
from services.gateway_sandbox.gateways.razorpay import objects
from services.gateway_sandbox.gateways.razorpay.objects import Try

_SCRIPT = "document.forms[0].submit()"
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

# No form-action: the browser applies it to the redirect that follows the post, and that goes to the shop's own origin.
_POLICY = f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; frame-ancestors 'none'"

_POSTING = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Going back to the shop</title></head>
<body><form method="post" action="$action">$inputs<button data-testid="back">Back to the shop</button></form>
<script>$script</script></body></html>
"""
)


def after_link(entry: BookEntry, paid: Try, key_secret: str) -> str | None:
    """Where the browser goes once a link is paid. There is no address for anything else."""
    if not entry.success_url:
        return None
    values = {
        "razorpay_payment_id": paid["id"],
        "razorpay_payment_link_id": entry.gateway_reference,
        "razorpay_payment_link_reference_id": entry.reference or "",
        "razorpay_payment_link_status": objects.link_status(entry),
    }
    signed = "|".join(
        (
            values["razorpay_payment_link_id"],
            values["razorpay_payment_link_reference_id"],
            values["razorpay_payment_link_status"],
            values["razorpay_payment_id"],
        )
    )
    query = urlencode({**values, "razorpay_signature": hmac_sha256_hex(key_secret, signed.encode())})
    return f"{entry.success_url}{'&' if '?' in entry.success_url else '?'}{query}"


def callback_fields(entry: BookEntry, key_secret: str) -> dict[str, str]:
    """What is posted to an order's callback: ids and a signature after success, else the error of the last try."""
    order_id: str = entry.details["order_id"]
    paid = objects.good_try(entry)
    if paid is not None:
        signature = hmac_sha256_hex(key_secret, f"{order_id}|{paid['id']}".encode())
        return {"razorpay_payment_id": paid["id"], "razorpay_order_id": order_id, "razorpay_signature": signature}
    tries = objects.tries_of(entry)
    failure: Mapping[str, str] = tries[-1]["failure"] if tries else objects.DECLINE
    return {f"error[{name}]": str(value) for name, value in failure.items()}


def posting_page(action: str, values: Mapping[str, str]) -> WireAnswer:
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in values.items()
    )
    body = _POSTING.substitute(action=escape(action), inputs=inputs, script=_SCRIPT)
    return WireAnswer(200, body, {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY})
