"""What Tabby can do and what an account of ours there is told: its standing facts, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.port import Capability, Facts

HOLD_DAYS = timedelta(days=21)
"""Tabby may capture in full whatever is left uncaptured after this: take it or release it before."""

_BY_HOST: Mapping[str, frozenset[str]] = {
    "api.tabby.ai": frozenset({"AED", "KWD"}),
    "api.tabby.sa": frozenset({"SAR"}),
}
_CHECKOUT_HOSTS = frozenset({"checkout.tabby.ai", "checkout.tabby.sa"})

_NEEDS_MANUAL = frozenset(
    {Capability.MANUAL_CAPTURE, Capability.PARTIAL_CAPTURE, Capability.SEVERAL_CAPTURES, Capability.VOID}
)

FACTS = Facts(
    name="tabby",
    display_name="Tabby",
    capabilities=frozenset(
        {
            Capability.REDIRECT,
            Capability.MANUAL_CAPTURE,
            Capability.PARTIAL_CAPTURE,
            Capability.SEVERAL_CAPTURES,
            Capability.VOID,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.RETRIEVE,
            Capability.LIST_BY_WINDOW,
            Capability.DISPUTES,
        }
    ),
    currencies=frozenset({"AED", "SAR", "KWD"}),
    authorization_valid_for=HOLD_DAYS,
    # How long a reference_id guards against a second run is documented nowhere. An hour is longer than our own retries
    # take; after it an operation is only looked for, in the payment itself, and not sent again.
    key_valid_for=timedelta(hours=1),
    # A payment lists all its captures and refunds and is read from where they are written.
    absence_proves_after=timedelta(hours=1),
    refunds_are_final="a refund is done with the answer to its call",
    not_offered={
        Capability.FORM_POST: "the hosted page is opened by a redirect",
        Capability.CLOSE_SESSION: "an unpaid payment cannot be cancelled; it expires after 30 minutes",
        Capability.FIND_BY_REFERENCE: "payments are found by Tabby's own id; no call asks by ours",
        Capability.SETTLEMENT_REPORT: "no call for statements is documented; the dashboard gives a file",
    },
    blurb="Four payments without interest, on their secure page",
)

_WITHOUT_MANUAL = "this account captures by itself (TABBY_AUTO_CAPTURE)"
_WITHOUT_DISPUTES = "disputes are read once Tabby has enabled them for the account (TABBY_DISPUTES), live only"


class TabbySettings(AccountSettings):
    """One merchant code, which is of one country and so of one currency; another country is another account."""

    secret_key: SecretStr
    merchant_code: str
    api_base: str = "https://api.tabby.ai"
    lang: Literal["en", "ar"] = "en"
    auto_capture: bool = False
    """The account's own setting at Tabby: whether authorised payments are captured without a call of ours."""
    disputes: bool = False
    """Whether Tabby has enabled the disputes API for this account; it has no test mode."""
    item_category: str = "general"
    shipping_city: str = "N/A"
    shipping_address: str = "N/A"
    shipping_zip: str = "00000"
    """Tabby wants an address for everything, and an order of ours has none: a shop may name its own."""

    @property
    def host(self) -> str:
        return urlsplit(self.api_base).hostname or ""

    @property
    def facts(self) -> Facts:
        """Those of this account: its currencies are those of its host, unless it names fewer."""
        currencies = _BY_HOST.get(self.host, FACTS.currencies or frozenset())
        own = currencies & frozenset(self.currencies) if self.currencies else currencies
        lacking: dict[Capability, str] = {}
        if self.auto_capture:
            lacking |= dict.fromkeys(_NEEDS_MANUAL, _WITHOUT_MANUAL)
        if not self.disputes:
            lacking[Capability.DISPUTES] = _WITHOUT_DISPUTES
        return replace(
            FACTS,
            currencies=own,
            capabilities=FACTS.capabilities - frozenset(lacking),
            not_offered={**FACTS.not_offered, **lacking},
        )

    def is_checkout_address(self, url: str) -> bool:
        """Whether a shopper may be sent there. An API of somebody else's (the sandbox) has pages of its own."""
        if not self.host.endswith((".tabby.ai", ".tabby.sa")):
            return True
        parts = urlsplit(url)
        return parts.scheme == "https" and parts.hostname in _CHECKOUT_HOSTS
