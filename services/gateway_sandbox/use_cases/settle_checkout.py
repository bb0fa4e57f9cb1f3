"""The buyer, or a test in the buyer's place, decides how a hosted checkout ends."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway_sandbox.domain.models import BookEntry, IllegalMove, Outcome
from services.gateway_sandbox.gateways.port import CheckoutView, Departure
from services.gateway_sandbox.use_cases.books import TransactionBooks
from services.gateway_sandbox.use_cases.expire_sessions import expire_due_sessions
from services.gateway_sandbox.use_cases.ports import Entries
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.use_cases.tell_story import StoryLine, tell_story
from shared.errors import Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class CheckoutState:
    """What the page needs: the entry, its view, what became of it, and how the browser leaves an ended checkout."""

    entry: BookEntry
    view: CheckoutView
    story: Sequence[StoryLine] = ()
    departure: Departure | None = None


async def view_checkout(gateway_name: str, session_reference: str, sandbox: Sandbox) -> CheckoutState:
    """Raises NotFound."""
    gateway = sandbox.gateway(gateway_name)
    async with sandbox.uow() as tx:
        books = TransactionBooks(tx, gateway=gateway_name, ports=sandbox.ports)
        await expire_due_sessions(gateway, books, tx)
        entry = await books.find(session_reference)
        if entry is None or entry.gateway_reference != session_reference:
            raise NotFound("There is no such checkout page.")
        story = await tell_story(entry, books)
        has_news = await books.enqueue_announced()
    if has_news:
        sandbox.wake_deliverer()
    return CheckoutState(entry, gateway.checkout(entry), story)


async def decide_on_page(
    gateway_name: str, session_reference: str, outcome: Outcome, page_token: str, sandbox: Sandbox
) -> CheckoutState:
    """A button of the page was pressed. Two presses at once wait for each other, and the second finds it done.

    Raises NotFound, Forbidden when the form did not come from the page.
    """
    state = await view_checkout(gateway_name, session_reference, sandbox)
    if not hmac.compare_digest(state.entry.page_token.encode(), page_token.encode()):
        raise Forbidden("This form did not come from the checkout page; open the page again.")
    try:
        return await settle(gateway_name, session_reference, outcome, sandbox)
    except IllegalMove:  # it ended otherwise meanwhile: the page says how
        return await view_checkout(gateway_name, session_reference, sandbox)


async def settle(
    gateway_name: str, reference: str, outcome: Outcome, sandbox: Sandbox, *, late: bool = False
) -> CheckoutState:
    """Bring a session to its outcome, under its row lock; one that is there already stays as it is.

    Raises NotFound, IllegalMove.
    """
    gateway = sandbox.gateway(gateway_name)
    async with sandbox.uow() as tx:
        books = TransactionBooks(tx, gateway=gateway_name, ports=sandbox.ports)
        await expire_due_sessions(gateway, books, tx)
        entry = await locked_entry(gateway_name, reference, tx.entries)
        departure = await gateway.settle(entry, outcome, books, late=late)
        has_news = await books.enqueue_announced()
    if has_news:
        sandbox.wake_deliverer()
    return CheckoutState(entry, gateway.checkout(entry), departure=departure)


async def locked_entry(gateway_name: str, reference: str, entries: Entries) -> BookEntry:
    """By the gateway's session or payment id, or else the newest session that was opened for our reference."""
    entry = await entries.find(gateway_name, reference, for_update=True)
    if entry is None:
        ours = await entries.find_newest_by_reference(gateway_name, reference)
        entry = await entries.find(gateway_name, ours.gateway_reference, for_update=True) if ours else None
    if entry is None:
        raise NotFound(f"{gateway_name} knows no session, payment or reference {reference!r}")
    return entry
