"""What PhonePe can do, and what an account of ours there is told."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SecretStr

from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.port import Capability, Facts

LIVE_API = "https://api.phonepe.com/apis/pg"
LIVE_TOKENS = "https://api.phonepe.com/apis/identity-manager"

FACTS = Facts(
    name="phonepe",
    display_name="PhonePe",
    capabilities=frozenset(
        {
            Capability.REDIRECT,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.RETRIEVE,
            Capability.FIND_BY_REFERENCE,
        }
    ),
    currencies=frozenset({"INR"}),
    # A merchantRefundId is unique, so a refund that is sent again is refused and found. A day is as long as anybody has
    # to wait.
    key_valid_for=timedelta(days=1),
    # The status call reads what the refund call wrote; two hours leave room for a bad day.
    absence_proves_after=timedelta(hours=2),
    not_offered={
        Capability.FORM_POST: "its page is opened by a redirect",
        Capability.MANUAL_CAPTURE: "the standard checkout takes the money at once",
        Capability.PARTIAL_CAPTURE: "the money is taken at once",
        Capability.SEVERAL_CAPTURES: "the money is taken at once",
        Capability.VOID: "nothing is held that could be released",
        Capability.CLOSE_SESSION: "no call cancels an unpaid order; it ends by itself, after an hour at most",
        Capability.LIST_BY_WINDOW: "there is no list of transactions; orders are asked about one by one",
        Capability.DISPUTES: "what a dispute's webhook holds is not documented; a person is called",
        Capability.SETTLEMENT_REPORT: "a settlement is asked for by its id, and no call gives its lines",
    },
    blurb="UPI, cards and net banking",
)


class PhonepeSettings(AccountSettings):
    client_id: str
    client_secret: SecretStr
    client_version: int = Field(1, ge=1, description="1 in the sandbox; live as PhonePe issued it")
    api_base: str = LIVE_API
    token_base: str | None = Field(None, description="where tokens come from, if not from where they usually do")
    merchant_id: str | None = Field(None, description="only for partners, who act for a merchant (X-MERCHANT-ID)")
    retry_on_page: bool = Field(True, description="whether a shopper may try again on the same page after a decline")

    @property
    def tokens_from(self) -> str:
        """Live tokens have a host path of their own; elsewhere they come from where the payments are."""
        if self.token_base is not None:
            return self.token_base.rstrip("/")
        base = self.api_base.rstrip("/")
        return LIVE_TOKENS if base == LIVE_API else base
