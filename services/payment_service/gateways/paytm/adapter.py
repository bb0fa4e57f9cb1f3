"""Paytm: an order is opened by us, paid on Paytm's page, and asked about by its id.

Quirks and sources: ../paytm.md. Amounts: rupees, text with two decimals. Keys: none, but an order and a refund are
unique by our references. Every call and answer carries a checksum of its body. The browser's way back and the payment
webhook are forms, and no more than a reason to ask; refund webhooks are JSON, signed as a whole.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from urllib.parse import urlencode

from pydantic import Field, SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import AccountSettings, Tools
from services.payment_service.gateways.json_reading import UnexpectedShape, optional_text
from services.payment_service.gateways.listing import bad_cursor
from services.payment_service.gateways.paytm.api import GUARDED_WRITE, PaytmApi
from services.payment_service.gateways.paytm.passbook import START, STEPS, Kind, Passbook, Position, Window
from services.payment_service.gateways.paytm.reading import check_capture, to_rupees
from services.payment_service.gateways.paytm.refunds import Refunds, understood
from services.payment_service.gateways.paytm.retrieving import Retriever
from services.payment_service.gateways.paytm.sessions import session_body
from services.payment_service.gateways.paytm.webhooks import translate
from services.payment_service.gateways.port import (
    Capability,
    CreateSession,
    Delivery,
    Facts,
    GatewayEvent,
    Listed,
    ListPage,
    MoneyCall,
    Outcome,
    Session,
    Snapshot,
    UnreadableWebhook,
)
from services.payment_service.gateways.refusing import WithoutCaptures, WithoutCompletion, WithoutSettlementReports
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, InvalidAmount
from shared.money import Money
from shared.paytm_checksum import key_of
from shared.settings import split_list

TOKEN_LIFE = timedelta(minutes=15)

_NUMBER = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)
_OPENED = "0000"
_OPENED_BEFORE = "0002"
_NO_PASSBOOK = "the passbook is not switched on for this merchant id (PAYTM_PASSBOOK)"


class PaytmSettings(AccountSettings):
    merchant_id: str = Field(description="the MID")
    merchant_key: SecretStr = Field(description="16 bytes; several separated by commas while one is replaced")
    website_name: str = Field(description="WEBSTAGING in test, live what the dashboard shows (often DEFAULT)")
    api_base: str = Field("https://secure.paytmpayments.com", description="the host belongs to the MID")
    checkout_base: str | None = Field(None, description="where browsers reach it, if not there")
    client_id: str | None = Field(None, description="only where the MID has several keys")
    refund_path: str = Field("/refund/apply", description="where refunds are applied for")
    passbook: bool = Field(False, description="whether Paytm has switched the order list on for the MID")
    passbook_order_field: str = Field("merchantOrderId", description="the order's id in a row of that list")
    passbook_refund_field: str = Field("refId", description="the refund's name in a row of that list")


FACTS = Facts(
    name="paytm",
    display_name="Paytm",
    capabilities=frozenset(
        {
            Capability.FORM_POST,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.RETRIEVE,
            Capability.FIND_BY_REFERENCE,
            Capability.LIST_BY_WINDOW,
        }
    ),
    currencies=frozenset({"INR"}),
    # A refId is unique for ever, so a repeated refund is refused and found. A day is as long as anybody has to wait.
    key_valid_for=timedelta(days=1),
    # The status call reads what the refund call wrote; two hours leave room for a bad day.
    absence_proves_after=timedelta(hours=2),
    expires_silently="an order that nobody pays has no record, and only a day later that says something",
    not_offered={
        Capability.REDIRECT: "its page is opened with a form that the browser posts",
        Capability.MANUAL_CAPTURE: "pre-authorization is on request, and its calls are not documented",
        Capability.PARTIAL_CAPTURE: "the money is taken at once",
        Capability.SEVERAL_CAPTURES: "the money is taken at once",
        Capability.VOID: "nothing is held that could be released",
        Capability.CLOSE_SESSION: "no call ends a session; it ends by itself after 15 minutes",
        Capability.DISPUTES: "how disputes are told is not documented",
        Capability.SETTLEMENT_REPORT: "the calls are its vendor's own; the dashboard gives a file",
    },
    blurb="UPI, cards, net banking and the Paytm wallet",
)


class Paytm(WithoutCaptures, WithoutCompletion, WithoutSettlementReports):
    def __init__(self, settings: PaytmSettings, tools: Tools) -> None:
        """Raises ValueError for a key of another length."""
        keys = tuple(map(key_of, split_list(settings.merchant_key.get_secret_value())))
        if not keys:
            raise ValueError("there is no merchant key")
        self.facts = FACTS if settings.passbook else _without_list(FACTS)
        self._settings = settings
        self._clock = tools.ports.clock
        self._api = PaytmApi(
            merchant_id=settings.merchant_id,
            keys=keys,
            api_base=settings.api_base,
            client_id=settings.client_id,
            http=tools.http,
            ports=tools.ports,
        )
        self._passbook = _passbook(settings, self._api)
        self._refunds = Refunds(self._api, settings.refund_path)
        self._retriever = Retriever(self._api, self._refunds, self._passbook, self._clock)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        to_rupees(amount)
        check_capture(capture)

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        to_rupees(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """Our reference is the order's id. Opening it again with the same content answers its token again, so nothing
        has to be looked for after an unknown outcome.

        A token that may be dead is shown to nobody: then the reference is used up (GatewayRejected), and as nobody ever
        saw its page, a new one is as good.
        """
        began_at, body = self._clock.now(), self._body(request)
        query = {"mid": self._api.merchant_id, "orderId": request.reference}
        said = await self._api.call("/theia/api/v1/initiateTransaction", body, GUARDED_WRITE, query=query)
        if said.status == "F":
            if said.after_silence:
                raise GatewayOutcomeUnknown("refused, but an earlier try had no answer")
            raise said.refusal()
        if said.status != "S" or said.code not in (_OPENED, _OPENED_BEFORE):
            raise GatewayOutcomeUnknown("Paytm's answer does not say that the order is open")
        token = understood(lambda: optional_text(said.body, "txnToken"), "token")
        if token is None:
            raise GatewayOutcomeUnknown("Paytm's answer has no token")
        may_be_old = repeated and said.code == _OPENED_BEFORE
        expires_at = (request.attempted_at if may_be_old else began_at) + TOKEN_LIFE
        if expires_at <= began_at:
            raise GatewayRejected("the order's token may be dead; a new order is needed", gateway_code="token_expired")
        return self._session(request.reference, token, expires_at)

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        return await self._retriever.retrieve(references, our_reference=our_reference)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """No call ends a session. Its page is not shown any more and dies within 15 minutes; whoever still pays on it
        is found by webhook or sweep and treated as late (order policy)."""
        snapshot = await self.retrieve((gateway_reference, our_reference), our_reference=our_reference)
        if any(observation.kind is not FactKind.SESSION_OPENED for observation in snapshot.observations):
            return snapshot
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        return Snapshot(snapshot.references, (closed,))

    def _body(self, request: CreateSession) -> dict[str, object]:
        return session_body(request, merchant_id=self._api.merchant_id, website=self._settings.website_name)

    def _session(self, order_id: str, token: str, expires_at: datetime) -> Session:
        """The page wants the merchant and the order in the address too. None of the fields is a secret of ours."""
        merchant_id = self._api.merchant_id
        query = urlencode({"mid": merchant_id, "orderId": order_id})
        base = (self._settings.checkout_base or self._settings.api_base).rstrip("/")
        url = f"{base}/theia/api/v1/showPaymentPage?{query}"
        action = NextAction("form_post", url, {"mid": merchant_id, "orderId": order_id, "txnToken": token})
        opened = Observation(FactKind.SESSION_OPENED, order_id)
        return Session(order_id, action, expires_at, (order_id,), (opened,))

    # --- money and lists -------------------------------------------------------------------------------------------

    async def refund(self, call: MoneyCall) -> Outcome:
        return await self._refunds.apply(call)

    async def find_operation(self, call: MoneyCall) -> Outcome | None:
        """Nothing but refunds is ever sent, so there is nothing else to be found."""
        return await self._refunds.find(call) if call.kind is OperationKind.REFUND else None

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        """Orders with money, or with money under way; each row costs a status call, because rows are not documented."""
        if self._passbook is None:
            raise GatewayRejected(_NO_PASSBOOK, gateway_code="listing_not_offered")
        position = _position(cursor)
        orders = await self._passbook.page(Kind.PAYMENTS, position, Window(since, until))
        entries = [await self._listed(order_id) for order_id in dict.fromkeys(orders)]
        following = position.after(len(orders))
        return ListPage(tuple(entries), f"{following.step}:{following.number}" if following else None)

    async def _listed(self, order_id: str) -> Listed:
        found = await self._retriever.told_of(order_id)
        moments = [each.occurred_at for each in found.observations if each.occurred_at is not None]
        return Listed(found.references, (order_id,), found.observations, min(moments, default=None))

    # --- webhooks --------------------------------------------------------------------------------------------------

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return translate(delivery, self._api.merchant_id)
        except (UnexpectedShape, InvalidAmount) as error:
            raise UnreadableWebhook(str(error)) from error


def _passbook(settings: PaytmSettings, api: PaytmApi) -> Passbook | None:
    if not settings.passbook:
        return None
    return Passbook(api, order_field=settings.passbook_order_field, refund_field=settings.passbook_refund_field)


def _without_list(facts: Facts) -> Facts:
    lacking = Capability.LIST_BY_WINDOW
    return replace(
        facts,
        capabilities=facts.capabilities - {lacking},
        not_offered={**facts.not_offered, lacking: _NO_PASSBOOK},
    )


def _position(cursor: str | None) -> Position:
    """``PENDING:2``. Raises GatewayRejected for what no page of ours gave."""
    if cursor is None:
        return START
    step, _, number = cursor.partition(":")
    if step not in STEPS or not _NUMBER.fullmatch(number):
        raise bad_cursor()
    return Position(step, int(number))
