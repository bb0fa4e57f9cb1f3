"""CCAvenue: a form that the shopper's browser posts to its hosted page, and an encrypted API behind it.

Quirks and sources: ../ccavenue.md. Amounts: decimal text with two digits. Keys: none, but a refund's reference is
unique, and an order is confirmed or cancelled once. Webhooks: encrypted without a checksum, so they only make us ask.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

from pydantic import Field, SecretStr, field_validator

from services.payment_service.domain.errors import CapabilityNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, NextAction, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.ccavenue import webhooks
from services.payment_service.gateways.ccavenue.api import CCAvenueApi
from services.payment_service.gateways.ccavenue.money_calls import MoneyCalls
from services.payment_service.gateways.ccavenue.reading import CURRENCIES, to_ccavenue
from services.payment_service.gateways.ccavenue.report import payouts
from services.payment_service.gateways.ccavenue.retrieving import Retriever
from services.payment_service.gateways.ccavenue.sessions import CHECKOUT, checkout_text
from services.payment_service.gateways.definition import AccountSettings, Tools
from services.payment_service.gateways.json_reading import UnexpectedShape
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
    SettlementReport,
    Snapshot,
    UnreadableWebhook,
)
from shared.ccavenue_cipher import CCAvenueCipher, Encryption
from shared.errors import GatewayObjectNotFound
from shared.money import Money
from shared.settings import split_list

_NOT_OFFERED = {
    Capability.REDIRECT: "its page is opened by a form",
    Capability.SEVERAL_CAPTURES: "an order is confirmed once; the rest of it goes back by itself",
    Capability.CLOSE_SESSION: "its page cannot be closed; left alone it ends after 15 minutes",
    Capability.DISPUTES: "it tells of a chargeback in one word, without id, amount or ruling",
}

_CONFIRMS_BY_ITSELF = "this account confirms orders by itself (CCAVENUE_MANUAL_CAPTURE)"

FACTS = Facts(
    name="ccavenue",
    display_name="CCAvenue",
    capabilities=frozenset(Capability) - frozenset(_NOT_OFFERED),
    not_offered=_NOT_OFFERED,
    blurb="Cards, UPI, net banking and wallets",
    currencies=CURRENCIES,
    authorization_valid_for=timedelta(days=12),
    # Not a key, but as good as one: a reference is refunded once, an order confirmed or cancelled once, for ever. A
    # day is as long as we try.
    key_valid_for=timedelta(hours=24),
    # How soon a refund is listed is documented nowhere; two hours leave room for a bad day.
    absence_proves_after=timedelta(hours=2),
)


class CCAvenueSettings(AccountSettings):
    """``api_access_code`` and ``api_working_key``: the API often wants a pair of its own; without them, the same."""

    merchant_id: str = Field(pattern=r"^[0-9]{1,20}$", description="digits; CCAvenue is enabled with all three set")
    access_code: str = Field(pattern=r"^[A-Za-z0-9]{1,64}$", description="of the page; browsers see it")
    working_key: SecretStr = Field(description="32 characters; several, comma-separated, while it is replaced")
    api_access_code: str | None = Field(None, description="of the API, if it has a pair of its own")
    api_working_key: SecretStr | None = None
    encryption: Encryption = Field("cbc", description="cbc, or gcm for newer kits")
    manual_capture: bool = Field(False, description="whether the account leaves confirming orders to us")
    checkout_base: str = Field("https://secure.ccavenue.com", description="https://secure.ccavenue.ae in the Emirates")
    api_base: str = Field("https://api.ccavenue.com", description="https://login.ccavenue.ae in the Emirates")

    @field_validator("encryption", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class CCAvenue:
    """Raises ValueError for a working key that cannot be used."""

    def __init__(self, settings: CCAvenueSettings, tools: Tools) -> None:
        self._settings = settings
        self._randomness = tools.ports.randomness
        self._cipher = _cipher(settings.working_key, settings)
        api_cipher = _cipher(settings.api_working_key or settings.working_key, settings)
        access_code = settings.api_access_code or settings.access_code
        self._api = api = CCAvenueApi(access_code, api_cipher, settings.api_base, tools.http, self._randomness)
        self._retriever = Retriever(api, tools.ports.clock, by_hand=settings.manual_capture)
        self._money = MoneyCalls(api, self._retriever)
        self.facts = FACTS if settings.manual_capture else _without_captures(FACTS)

    def check(self, amount: Money, capture: CaptureMode) -> None:
        to_ccavenue(amount)
        if capture is CaptureMode.MANUAL and not self._settings.manual_capture:
            raise CapabilityNotSupported(f"CCAvenue holds no money here: {_CONFIRMS_BY_ITSELF}")

    def check_operation(self, kind: OperationKind, amount: Money) -> None:
        to_ccavenue(amount)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateSession, *, repeated: bool) -> Session:
        """No call: the browser brings the order along. Repeated, it is the same form again, of which only one is
        shown."""
        text = checkout_text(request, self._settings.merchant_id)
        fields = {
            "encRequest": self._cipher.encrypt(text, self._randomness),
            "access_code": self._settings.access_code,
        }
        action = NextAction("form_post", f"{self._settings.checkout_base.rstrip('/')}{CHECKOUT}", fields)
        opened = Observation(FactKind.SESSION_OPENED, request.reference)
        return Session(request.reference, action, request.expires_at, (request.reference,), (opened,))

    async def retrieve(self, references: tuple[str, ...], *, our_reference: str) -> Snapshot:
        return await self._retriever.retrieve(references, our_reference=our_reference)

    async def close_session(self, gateway_reference: str, *, our_reference: str) -> Snapshot:
        """We stop showing the form; whoever still pays on an open page brings late money (order policy). A page that
        has brought something, or may have, is not closed."""
        closed = Observation(FactKind.CANCELED, gateway_reference, reason="closed_by_us")
        try:
            snapshot = await self._retriever.retrieve((gateway_reference,), our_reference=our_reference)
        except GatewayObjectNotFound:  # nobody has opened it
            return Snapshot((gateway_reference,), (closed,))
        if {observation.kind for observation in snapshot.observations} <= _ONLY_LOOKED_AT:
            return Snapshot(snapshot.references, (*snapshot.observations, closed))
        return snapshot

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

    # --- lists and webhooks ----------------------------------------------------------------------------------------

    async def list_window(self, since: datetime, until: datetime, *, cursor: str | None = None) -> ListPage:
        return await self._retriever.list_window(since, until, cursor)

    async def settlement_report(self, day: date) -> tuple[SettlementReport, ...]:
        return await payouts(self._api, day)

    def translate_webhook(self, delivery: Delivery) -> GatewayEvent:
        try:
            return webhooks.translate(delivery)
        except UnexpectedShape as error:
            raise UnreadableWebhook(str(error)) from error


_ONLY_LOOKED_AT = frozenset({FactKind.SESSION_OPENED, FactKind.DECLINED, FactKind.RELEASED})


def _cipher(secret: SecretStr, settings: CCAvenueSettings) -> CCAvenueCipher:
    """The newest of the keys is the one to write with, and CCAvenue answers under the key that it was asked with."""
    keys = split_list(secret.get_secret_value())
    return CCAvenueCipher(keys[0] if keys else "", settings.encryption)


def _without_captures(facts: Facts) -> Facts:
    missing = (Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE)
    reasons = {**facts.not_offered, **dict.fromkeys(missing, _CONFIRMS_BY_ITSELF)}
    return replace(facts, capabilities=facts.capabilities - frozenset(missing), not_offered=reasons)
