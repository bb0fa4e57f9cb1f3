"""Tabby: pay in instalments, in the United Arab Emirates, Saudi Arabia and Kuwait. Facts: ../tabby.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.tabby.adapter import Tabby
from services.payment_service.gateways.tabby.settings import FACTS, TabbySettings

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=TabbySettings,
    build=Tabby.build,
    sheet=Sheet(
        regions="United Arab Emirates and Kuwait (api.tabby.ai), Saudi Arabia (api.tabby.sa)",
        amounts="decimal strings in major units with the currency's own digits: two for AED and SAR, three for KWD",
        settlement="statement from the dashboard; its columns are documented nowhere, so the header map is ours",
        documented="Tabby's API reference, guides and published plugins, state of 2026",
        unconfirmed=(
            "how long a `reference_id` is remembered: trusted for one hour, then only looked for",
            "whether a payment that is not authorised yet can be cancelled: let to expire after 30 minutes",
            "buyers without a phone number, a shipping address or a history: sent empty, or as settings say",
            "whether an account may capture by itself: with `TABBY_AUTO_CAPTURE`, and manual capture is refused then",
            "which characters beyond the listed ones a return address may hold: ours are sent as they are",
            "the list of disputes by date and its `disputes` key: read only with `TABBY_DISPUTES`, live keys only",
            "the columns of the statement file",
        ),
    ),
)

__all__ = ["DEFINITION", "Tabby", "TabbySettings"]
