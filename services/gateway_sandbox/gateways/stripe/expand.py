"""``expand[]``: ids become the objects they name, as deep as the path says."""

from __future__ import annotations

from collections.abc import Iterable

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.stripe import objects
from services.gateway_sandbox.gateways.stripe.errors import invalid_parameter
from services.gateway_sandbox.gateways.stripe.objects import Json

_EXPANDABLE = {
    "checkout.session": {"payment_intent", "line_items", "customer", "invoice", "setup_intent", "subscription"},
    "payment_intent": {"latest_charge", "customer", "payment_method", "review"},
    "charge": {"balance_transaction", "customer", "payment_intent", "review"},
    "dispute": {"charge", "payment_intent"},
    "refund": {"balance_transaction", "charge", "payment_intent"},
}


def expand(body: Json, entry: BookEntry, paths: Iterable[str]) -> Json:
    """Raises WireError for a path that Stripe does not expand."""
    for path in paths:
        _expand(body, entry, path.split("."), path)
    return body


def expand_list(page: Json, entries: Iterable[BookEntry], paths: Iterable[str]) -> Json:
    """For lists every path starts with ``data.``."""
    wanted = list(paths)
    for path in wanted:
        if not path.startswith("data."):
            raise _not_expandable(path)
    for body, entry in zip(page["data"], entries, strict=True):
        expand(body, entry, [path.removeprefix("data.") for path in wanted])
    return page


def _expand(body: Json, entry: BookEntry, path: list[str], whole: str) -> None:
    name, rest = path[0], path[1:]
    if name not in _EXPANDABLE.get(body["object"], ()):
        raise _not_expandable(whole)
    value = _named(body, entry, name)
    body[name] = value
    if rest and isinstance(value, dict):
        _expand(value, entry, rest, whole)


def _named(body: Json, entry: BookEntry, name: str) -> Json | str | None:
    value: Json | str | None = body.get(name)
    if name == "line_items":
        return objects.line_items(entry)
    if not isinstance(value, str):
        return value
    match name:
        case "payment_intent":
            return objects.payment_intent(entry)
        case "latest_charge" | "charge":
            return objects.charge(entry, value)
        case "balance_transaction":
            return objects.balance_transaction(value, body)
    return value


def _not_expandable(path: str) -> Exception:
    return invalid_parameter(f"This property cannot be expanded ({path}).", param="expand")
