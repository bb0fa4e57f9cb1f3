"""Tabby: pay in instalments. The shopper is lent the whole amount, which is held for us until we capture it.

Quirks and sources: ../tabby.md. Amounts: decimal strings in major units. Keys: ``reference_id`` of captures and
refunds; sessions have none. Webhooks: a static secret in a header of our choosing, so they are only reasons to ask.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import partial

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    moment_of,
    object_of,
    optional_identifier,
    parse_json_object,
    whole_number,
)
from services.payment_service.gateways.listing import bad_cursor, said
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayEvent,
    Listed,
    ListPage,
    MoneyCall,
    Outcome,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutSettlementReports
from services.payment_service.gateways.tabby import webhooks
from services.payment_service.gateways.tabby.api import UNGUARDED_WRITE, Json, TabbyApi, is_uuid, payment_path
from services.payment_service.gateways.tabby.disputes import disputes_of
from services.payment_service.gateways.tabby.money_calls import MoneyCalls, understood
from services.payment_service.gateways.tabby.reading import (
    list_of,
    observations_of_payment,
    order_reference_of,
    page_of,
)
from services.payment_service.gateways.tabby.sessions import read_session, session_json
from services.payment_service.gateways.tabby.settings import TabbySettings
from shared.errors import GatewayObjectNotFound, InvalidAmount
from shared.http import HttpCaller
from shared.money import Money

LIST_PAGE = 20
"""The most that the list of payments returns at once."""


class Tabby(WithoutSettlementReports):
    def __init__(self, settings: TabbySettings, http: HttpCaller) -> None:
        self._settings = settings
        self._api = TabbyApi(settings.secret_key.get_secret_value(), settings.api_base, http)
        self._money = MoneyCalls(self._api)
        self.facts = settings.facts

    @classmethod
    def build(cls, settings: TabbySettings, tools: Tools) -> Tabby:
        """Raises ValueError for an account whose currencies its region does not have."""
        if not settings.facts.currencies:
            raise ValueError("TABBY_API_BASE is of a region that has none of TABBY_CURRENCIES")
        return cls(settings, tools.http)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        self._check_amount(amount)
        if capture is CaptureMode.MANUAL and self._settings.auto_capture:
            raise CapabilityNotSupported("this Tabby account captures by itself")

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        self._check_amount(amount)

    def _check_amount(self, amount: Money) -> None:
        if amount.currency not in (self.facts.currencies or ()) or amount.amount_minor <= 0:
            raise CurrencyNotSupported(f"Tabby does not take {amount} on this account")

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Nothing keeps a second session from being made, and none can be looked for: after an unanswered call another
        one is opened. The first harms nobody: its address was never told to anybody, and it expires by itself."""
        body = await self._api.post("/api/v2/checkout", session_json(request, self._settings), UNGUARDED_WRITE)
        return understood(lambda: read_session(body, request, self._settings, self._api.now()))

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """Only a payment that carries our reference counts, and only one of this key's mode. A session's id is nobody's
        payment, and is found to be none."""
        for reference in filter(is_uuid, references):
            try:
                payment = await self._api.get(payment_path(reference))
            except GatewayObjectNotFound:
                continue
            if understood(partial(self._is_ours, payment, our_reference)):
                return await self._snapshot(payment)
        raise GatewayObjectNotFound("Tabby knows no payment with our reference")

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """Tabby cannot be told: we stop showing the page, and whoever still pays on it brings late money, which counts
        under the payment's own id."""
        snapshot = await self.retrieve((gateway_reference,), our_reference=our_reference)
        if any(observation.kind is not FactKind.SESSION_OPENED for observation in snapshot.observations):
            return snapshot
        closed = Observation(FactKind.CANCELED, page_of(gateway_reference), reason="closed_by_us")
        return Snapshot(snapshot.references, (*snapshot.observations, closed))

    def _is_ours(self, payment: Json, our_reference: str) -> bool:
        is_other_mode = payment.get("is_test") is (not self._api.is_test)
        return order_reference_of(payment) == our_reference and not is_other_mode

    async def _snapshot(self, payment: Json) -> Snapshot:
        reference = understood(lambda: identifier_of(payment, "id"))
        observations = understood(lambda: self._observations(payment))
        if self._settings.disputes and any(each.kind is FactKind.CAPTURED for each in observations):
            observations = (*observations, *await disputes_of(self._api, reference, payment))
        return Snapshot((reference,), observations)

    def _observations(self, payment: Json) -> tuple[Observation, ...]:
        return tuple(observations_of_payment(payment, takes_by_itself=self._settings.auto_capture))

    # --- money -----------------------------------------------------------------------------------------------------

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def complete(self, call: MoneyCall) -> Outcome:
        return await self._money.complete(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        return await self._money.find(call)

    # --- lists -----------------------------------------------------------------------------------------------------

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        """By day of creation, newest first; only those that brought money are listed.

        A day stands for its first moment, so the end is a day later. New payments push older ones back, so that one may
        come twice, and none is passed over.
        """
        offset = _offset(cursor)
        query = {
            "created_at__gte": f"{since:%Y-%m-%d}",
            "created_at__lte": f"{until + timedelta(days=1):%Y-%m-%d}",
            "limit": str(LIST_PAGE),
            "offset": str(offset),
        }
        body = await self._api.get("/api/v2/payments", query)
        payments = understood(lambda: list_of(body, "payments"))
        total = understood(lambda: whole_number(object_of(body, "pagination"), "total_count"))
        listed = (self._listed(payment) for payment in payments if isinstance(payment, dict))
        entries = tuple(each for each in listed if each is not None and _is_within(each, since, until))
        following = offset + len(payments)
        return ListPage(entries, str(following) if payments and following < total else None)

    def _listed(self, payment: Json) -> Listed | None:
        """What can be read of it; None for what has no name. The account is not ours alone, and what somebody else
        wrote into a payment must hide nothing else."""
        references = said(lambda: (identifier_of(payment, "id"),))
        ours = (
            *said(lambda: (order_reference_of(payment),)),
            *said(lambda: (optional_identifier(object_of(payment, "meta"), "payment_id"),)),
        )
        created_at = next(iter(said(lambda: (moment_of(payment, "created_at"),))), None)
        observations = said(lambda: self._observations(payment))
        return Listed(references, tuple(filter(None, ours)), observations, created_at) if references else None

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error


def _offset(cursor: str | None) -> int:
    """Cursors come back from callers, so they are not believed."""
    if not re.fullmatch(r"[0-9]{1,9}", cursor or "0", re.ASCII):
        raise bad_cursor()
    return int(cursor or "0")


def _is_within(entry: Listed, since: datetime, until: datetime) -> bool:
    """One whose time cannot be read is shown: a list may contain more than its window, never less."""
    return entry.created_at is None or since <= entry.created_at < until
