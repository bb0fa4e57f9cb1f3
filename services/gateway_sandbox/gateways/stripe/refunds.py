"""Stripe's refunds: pending ones, ones that fail after they succeeded, and those that only release a hold."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, IllegalMove, RefundStatus
from services.gateway_sandbox.gateways.bookkeeping import book_refund
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall, WireError
from services.gateway_sandbox.gateways.stripe import errors, objects
from services.gateway_sandbox.gateways.stripe.events import Picture, announce_all
from services.gateway_sandbox.gateways.stripe.expand import expand, expand_list
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_body, parse_pairs
from services.gateway_sandbox.gateways.stripe.objects import STATUS_KEYS, Json
from services.gateway_sandbox.gateways.stripe.reading import amount_of, charged_entry, our_reference, slice_of
from services.gateway_sandbox.gateways.wording import worded
from shared.money import Money

_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
_PARAMETERS = frozenset(
    {
        "amount",
        "charge",
        "currency",
        "customer",
        "expand",
        "instructions_email",
        "metadata",
        "origin",
        "payment_intent",
        "reason",
        "refund_application_fee",
        "reverse_transfer",
    }
)
_WAITING_FOR_THE_BUYER = "requires_action"


async def create_refund(call: WireCall, books: Books) -> WireAnswer:
    parameters = Parameters(parse_body(call.body))
    parameters.allow_only(_PARAMETERS)
    reason = parameters.choice("reason", _REASONS)
    metadata = parameters.metadata()
    entry = await charged_entry(parameters, books, for_update=True)
    amount_minor = await _refundable(parameters, entry, books)
    refund = await _refund(entry, amount_minor, reason, metadata, books, call)
    return WireAnswer.json(200, expand(objects.refund(entry, refund), entry, parameters.texts("expand")))


async def retrieve_refund(call: WireCall, books: Books) -> WireAnswer:
    entry, refund = await _found(call, books)
    query = Parameters(parse_pairs(call.query))
    body = expand(objects.refund(entry, refund), entry, query.texts("expand"))
    return WireAnswer.json(200, worded(body, books, *STATUS_KEYS))


async def cancel_refund(call: WireCall, books: Books) -> WireAnswer:
    """Only while Stripe still waits for the buyer's bank details."""
    entry, refund = await _found(call, books, for_update=True)
    if refund.details.get("wire_status") != _WAITING_FOR_THE_BUYER:
        status = objects.refund(entry, refund)["status"]
        raise errors.refused(f"Only refunds with a status of requires_action can be canceled; this one is {status}.")
    refund.move("failed", entry)
    refund.details["wire_status"] = "canceled"
    await books.save_refund(entry, refund, "refund_canceled")
    _announce_change(entry, refund, books, call)
    parameters = Parameters(parse_body(call.body))
    return WireAnswer.json(200, expand(objects.refund(entry, refund), entry, parameters.texts("expand")))


async def list_refunds(call: WireCall, books: Books) -> WireAnswer:
    query = Parameters(parse_pairs(call.query))
    entry = await charged_entry(query, books)
    bodies = [objects.refund(entry, refund) for refund in await books.refunds_of(entry)]
    bodies += objects.release_refunds(entry)
    bodies.sort(key=lambda body: int(body["created"]), reverse=True)
    shown, has_more = slice_of(bodies, query)
    page = objects.as_list(shown, "/v1/refunds", has_more=has_more)
    page = expand_list(page, [entry] * len(shown), query.texts("expand"))
    return WireAnswer.json(200, worded(page, books, *STATUS_KEYS))


async def refund_in_dashboard(entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
    if not entry.captured_minor:
        raise IllegalMove(f"a payment that is {entry.status} has nothing to refund")
    return await _refund(entry, amount_minor, "requested_by_customer", {}, books)


async def settle_refund(entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
    """Stripe has no word for reversed: a refund that comes back has failed, also after it had succeeded."""
    if not refund.move(status, entry):
        return
    refund.details.pop("wire_status", None)
    if status in ("failed", "reversed"):
        refund.details["failure_reason"] = "expired_or_canceled_card"
    await books.save_refund(entry, refund, f"refund_{status}")
    _announce_change(entry, refund, books)


async def _refund(
    entry: BookEntry,
    amount_minor: int,
    reason: str | None,
    metadata: dict[str, str],
    books: Books,
    call: WireCall | None = None,
) -> BookRefund:
    refund = await book_refund(
        entry,
        books.new_id("re_"),
        amount_minor,
        books,
        reference=our_reference(metadata),
        reason=reason,
        metadata=metadata,
        details={"charge": objects.latest_charge_id(entry), **_how_it_waits(books)},
    )
    _announce_new(entry, refund, books, call)
    return refund


def _how_it_waits(books: Books) -> Mapping[str, str | None]:
    if not books.answers_later:
        return {}
    if books.pending_code == _WAITING_FOR_THE_BUYER:
        return {"wire_status": _WAITING_FOR_THE_BUYER, "pending_reason": None}
    return {"wire_status": "pending", "pending_reason": books.pending_code or "processing"}


async def _found(call: WireCall, books: Books, *, for_update: bool = False) -> tuple[BookEntry, BookRefund]:
    identifier = call.path_values["id"]
    entry = await books.find(identifier, for_update=for_update)  # first: the refund is to be read under its lock
    refund = await books.find_refund(identifier)
    if refund is None or entry is None:
        raise errors.missing_resource("refund", identifier, "id")
    return entry, refund


async def _refundable(parameters: Parameters, entry: BookEntry, books: Books) -> int:
    """The amount to refund. Raises WireError."""
    charge = objects.latest_charge_id(entry)
    if not objects.received_minor(entry):
        message = f"This PaymentIntent ({entry.payment_reference}) does not have a successful charge to refund."
        raise errors.refused(message, code="payment_intent_unexpected_state", param="payment_intent")
    if not entry.refundable_minor:
        message = f"Charge {charge} has already been refunded."
        raise errors.refused(message, code="charge_already_refunded", charge=charge)
    if any(dispute.status != "won" for dispute in await books.disputes_of(entry)):
        raise errors.refused(f"Charge {charge} has been charged back.", code="charge_disputed", charge=charge)
    amount_minor = amount_of(parameters, "amount", entry) or entry.refundable_minor
    if amount_minor > entry.refundable_minor:
        raise _too_much(entry, amount_minor)
    return amount_minor


def _too_much(entry: BookEntry, amount_minor: int) -> WireError:
    asked, left = Money(amount_minor, entry.currency), Money(entry.refundable_minor, entry.currency)
    message = f"Refund amount ({asked}) is greater than unrefunded amount on charge ({left})"
    return errors.refused(message, param="amount")


def _announce_new(entry: BookEntry, refund: BookRefund, books: Books, call: WireCall | None) -> None:
    def picture(shown: BookEntry) -> Json:
        return objects.refund(shown, refund)

    pictures: tuple[tuple[str, Picture], ...] = (("refund.created", picture), ("charge.refunded", objects.charge))
    if refund.status == "succeeded":  # the acquirer's reference number arrives
        pictures = (*pictures, ("refund.updated", picture))
    announce_all(entry, books, pictures, call)


def _announce_change(entry: BookEntry, refund: BookRefund, books: Books, call: WireCall | None = None) -> None:
    """``charge.refund.updated`` is the old name of ``refund.updated``; Stripe sends both."""

    def picture(shown: BookEntry) -> Json:
        return objects.refund(shown, refund)

    pictures: tuple[tuple[str, Picture], ...] = (("refund.updated", picture), ("charge.refund.updated", picture))
    if objects.refund(entry, refund)["status"] == "failed":
        pictures = (("refund.failed", picture), *pictures)
    announce_all(entry, books, pictures, call)
