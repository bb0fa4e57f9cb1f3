"""MyFatoorah: invoices with a hosted page. Facts: ../myfatoorah.md.

Amounts: JSON numbers in major units of the account's base currency. Keys: none; an invoice carries our reference as
``CustomerReference``, a refund as ``ExternalIdentifier``. Webhooks: HMAC-SHA256 over chosen fields, verified by
webhook_ingest, and never more than a reason to ask. The browser's return brings a ``paymentId``, which is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    optional_web_address,
    parse_json_object,
    whole_number,
)
from services.payment_service.gateways.listing import code_of
from services.payment_service.gateways.myfatoorah import customer, webhooks
from services.payment_service.gateways.myfatoorah.amounts import Account
from services.payment_service.gateways.myfatoorah.api import READ, UNGUARDED_WRITE, Json, MyFatoorahApi
from services.payment_service.gateways.myfatoorah.log import WebhookLog
from services.payment_service.gateways.myfatoorah.money import MoneyCalls, understood
from services.payment_service.gateways.myfatoorah.reading import (
    Invoice,
    is_invoice_id,
    number_or_text,
    observations_of,
    refund_observation,
    user_field,
)
from services.payment_service.gateways.myfatoorah.settings import REGIONS, MyFatoorahSettings
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    ListPage,
    MoneyCall,
    Outcome,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutCompletion, WithoutSettlementReports
from shared.errors import GatewayError, GatewayObjectNotFound, GatewayRejected, InvalidAmount
from shared.money import CURRENCY_EXPONENT, Money

log = structlog.get_logger()

LONGEST_URL = 254

_HOLDING = frozenset({Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE, Capability.VOID})
_WITH_MONEY = frozenset({FactKind.AUTHORIZED, FactKind.CAPTURED})
_STILL_OPEN = frozenset({FactKind.SESSION_OPENED, FactKind.DECLINED})

FACTS = Facts(
    name="myfatoorah",
    display_name="MyFatoorah",
    capabilities=_HOLDING
    | {
        Capability.REDIRECT,
        Capability.REFUND,
        Capability.PARTIAL_REFUND,
        Capability.RETRIEVE,
        Capability.FIND_BY_REFERENCE,
        Capability.LIST_BY_WINDOW,
        Capability.DISPUTES,
    },
    currencies=frozenset(region.currency for region in REGIONS.values()),
    # Requests for refunds are listed as soon as they are filed; two hours leave room for a bad day.
    absence_proves_after=timedelta(hours=2),
    not_offered={
        Capability.FORM_POST: "its page is an address",
        Capability.SEVERAL_CAPTURES: "one capture per invoice; the rest of the hold is dropped",
        Capability.CLOSE_SESSION: "no call cancels an unpaid invoice; its link expires",
        Capability.SETTLEMENT_REPORT: "a deposit is asked for by its reference, which only its webhook tells",
    },
    blurb="KNET, mada, Benefit and cards",
)


class MyFatoorah(WithoutCompletion, WithoutSettlementReports):
    def __init__(self, settings: MyFatoorahSettings, tools: Tools) -> None:
        """Raises ValueError for settings that cannot be used."""
        if settings.currency not in CURRENCY_EXPONENT:
            raise ValueError("MYFATOORAH_BASE_CURRENCY is no currency")
        self._settings = settings
        self._webhook_url = tools.webhook_url
        self._clock = tools.http.clock
        self._account = Account(settings.currency, settings.currency_label)
        self._api = MyFatoorahApi(settings.base, settings.api_token.get_secret_value(), tools.http)
        self._money = MoneyCalls(self._api, self._account, settings.zone, self._clock)
        self._log = WebhookLog(self._api, self._account)
        self.facts = _facts_of(settings)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        self._account.wire(amount)
        if capture is CaptureMode.MANUAL and not self._settings.holds:
            raise CapabilityNotSupported("this MyFatoorah account takes money at once (MYFATOORAH_HOLDS)")

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        self._account.wire(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """An invoice with all methods; one that holds money first names the method, because only that call can ask for
        it.

        There is no key, and an invoice that is found again does not say its address. So a repeated call makes a new
        one, unless money lies on the first: nobody was ever shown the first one's page, and it expires.
        """
        if repeated:
            found = await self._find_paid(request)
            if found is not None:
                return found
        is_held = request.capture is CaptureMode.MANUAL
        path, key = ("ExecutePayment", "PaymentURL") if is_held else ("SendPayment", "InvoiceURL")
        payload = self._invoice_json(request) | (
            await self._hold(request) if is_held else {"NotificationOption": "LNK"}
        )
        data = await self._api.call(path, payload, UNGUARDED_WRITE)
        return understood(lambda: self._session_of(data, key, request))

    def _invoice_json(self, request: CreateSession) -> dict[str, Any]:
        """``CustomerReference`` comes back in answers, ``CustomerIdentifier`` in webhooks of version 2. What is shown
        and what is settled is the same currency, so that nothing is converted."""
        amount = self._account.wire(request.amount)
        held = amount if request.capture is CaptureMode.MANUAL else None
        payload: dict[str, Any] = {
            **customer.fields_of(request.customer),
            "InvoiceValue": amount,
            "DisplayCurrencyIso": request.amount.currency,
            "CallBackUrl": request.return_url,
            "ErrorUrl": request.cancel_url,
            "Language": "EN",
            "CustomerReference": request.reference,
            "CustomerIdentifier": request.reference,
            "UserDefinedField": user_field(request.payment_id, held),
            "ExpiryDate": request.expires_at.astimezone(self._settings.zone).strftime("%Y-%m-%dT%H:%M:%S"),
        }
        if self._webhook_url.startswith("https://") and len(self._webhook_url) <= LONGEST_URL:
            payload["WebhookUrl"] = self._webhook_url
        return payload

    async def _hold(self, request: CreateSession) -> dict[str, Any]:
        """The id of a method differs per account and environment, its code does not."""
        asked = {"InvoiceAmount": self._account.wire(request.amount), "CurrencyIso": request.amount.currency}
        data = await self._api.call("InitiatePayment", asked, READ)
        methods = understood(lambda: entries_of(data, "PaymentMethods"))
        method = next((each for each in methods if each.get("PaymentMethodCode") == self._settings.hold_method), None)
        if method is None:
            raise GatewayRejected("the account has no such method (MYFATOORAH_HOLD_METHOD)", gateway_code="no_method")
        number = understood(lambda: whole_number(method, "PaymentMethodId"))
        return {"PaymentMethodId": number, "ProcessingDetails": {"AutoCapture": False}}

    def _session_of(self, data: Json, key: str, request: CreateSession) -> Session:
        reference, url = number_or_text(data, "InvoiceId"), optional_web_address(data, key)
        if url is None or not is_invoice_id(reference):
            raise UnexpectedShape("the invoice has no page")
        if data.get("CustomerReference") not in (None, "", request.reference):
            raise UnexpectedShape("it is another invoice")
        opened = Observation(FactKind.SESSION_OPENED, reference)
        expires_at = request.expires_at.replace(microsecond=0)
        return Session(reference, NextAction("redirect", url), expires_at, (reference,), (opened,))

    async def _find_paid(self, request: CreateSession) -> Session | None:
        """The invoice of an earlier call, if money lies on it, however that came about."""
        invoice = await self._by_reference(request.reference)
        observations = tuple(observations_of(invoice, self._clock.now())) if invoice is not None else ()
        if invoice is None or not any(observation.kind in _WITH_MONEY for observation in observations):
            return None
        back = NextAction("redirect", request.return_url)
        return Session(invoice.invoice_id, back, request.expires_at, invoice.references, observations)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        """By the invoice's id: our reference finds only the newest invoice that carries it."""
        invoices = await self._invoices(references, our_reference)
        if not invoices:
            raise GatewayObjectNotFound("MyFatoorah knows no invoice with our reference")
        seen: list[str] = []
        observations: list[Observation] = []
        for invoice in invoices:
            seen += invoice.references
            observations += understood(lambda invoice=invoice: observations_of(invoice, self._clock.now()))  # type: ignore[misc]
            observations += await self._returned(invoice)
        return Snapshot(tuple(dict.fromkeys(seen)), tuple(observations))

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """There is no call for it: its page is not shown any more, and whoever still pays on it brings late money
        (order policy)."""
        snapshot = await self.retrieve((gateway_reference,), our_reference=our_reference)
        if any(observation.kind not in _STILL_OPEN for observation in snapshot.observations):
            return snapshot
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (*snapshot.observations, closed))

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        """From the log of webhooks: payments that moved in the window. Invoices that nobody touched are not in it."""
        return await self._log.list_window(since, until, cursor)

    async def _invoices(self, references: tuple[str, ...], our_reference: str) -> list[Invoice]:
        found = []
        for reference in references:
            invoice = await self._by_id(reference) if is_invoice_id(reference) else None
            if invoice is not None and invoice.our_reference == our_reference:
                found.append(invoice)
        if not found:
            newest = await self._by_reference(our_reference)
            found += [newest] if newest is not None else []
        return found

    async def _by_id(self, invoice_id: str) -> Invoice | None:
        try:
            return await self._money.ask(invoice_id, "InvoiceId")
        except GatewayRejected:  # how it says that it knows none is not documented
            return None

    async def _by_reference(self, our_reference: str) -> Invoice | None:
        try:
            invoice = await self._money.ask(our_reference, "CustomerReference")
        except GatewayRejected:
            return None
        return invoice if invoice.our_reference == our_reference else None

    async def _returned(self, invoice: Invoice) -> list[Observation]:
        """Refunds, those made in the portal too, and chargebacks: of money that was taken.

        Both are told beside the invoice, which has said by now what was paid. That must not wait for them: where one
        cannot be read it is told another time.
        """
        paid = next((attempt for attempt in invoice.attempts if attempt.has_paid), None)
        if not invoice.is_paid or paid is None:
            return []
        found = await self._refunded(invoice.invoice_id, paid.payment_id)
        if self._settings.disputes:
            found += await self._log.disputes_of(invoice.invoice_id, self._clock.now())
        return found

    async def _refunded(self, invoice_id: str, payment_id: str) -> list[Observation]:
        try:
            refunds = await self._money.refunds_of(invoice_id)
            return understood(lambda: [refund_observation(each, payment_id, self._account) for each in refunds])
        except GatewayRejected:  # perhaps its way to say that there are none; ours are looked for anyway
            return []
        except GatewayError as error:
            log.warning("refunds_not_read", gateway="myfatoorah", code=code_of(error))
            return []

    # --- money and webhooks ----------------------------------------------------------------------------------------

    async def capture(self, call: MoneyCall) -> Outcome:
        return await self._money.capture(call)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._money.void(call)

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._money.refund(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        if call.kind is OperationKind.COMPLETION:
            return None  # it is never sent, so there is none to be found
        return await self._money.find(call)

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(parse_json_object(delivery.payload))
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error


def _facts_of(settings: MyFatoorahSettings) -> Facts:
    """An account takes its own country's currency; any other would be converted on the way."""
    missing: Mapping[Capability, str] = {}
    if not settings.holds:
        missing = dict.fromkeys(_HOLDING, "this account has no authorize-and-capture")
    if not settings.disputes:
        missing = {**missing, Capability.DISPUTES: "the log of webhooks is not read for this account"}
    return replace(
        FACTS,
        capabilities=FACTS.capabilities - frozenset(missing),
        currencies=frozenset({settings.currency}),
        not_offered={**FACTS.not_offered, **missing},
    )
