"""Tamara: pay in instalments, in the Gulf. Facts: ../tamara.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.tamara.adapter import Tamara
from services.payment_service.gateways.tamara.settings import TamaraSettings

DEFINITION = GatewayDefinition(
    facts=Tamara.facts,
    settings=TamaraSettings,
    build=lambda settings, tools: Tamara(settings, tools.http),
    sheet=Sheet(
        regions="Saudi Arabia, United Arab Emirates, Bahrain, Kuwait, Oman",
        amounts="objects of a JSON number in major units and a currency; KWD, BHD and OMR with three digits",
        settlement="a report downloaded in the Partners Portal; the headings of its columns are not documented",
        documented="Tamara's API reference and OpenAPI file, its PHP SDK and Magento plugin, state of early 2026",
        unconfirmed=(
            "rounding of three-decimal currencies: all of ISO 4217's digits go out, and nothing is rounded",
            "whether an order reference is unique: looked for first; a second page that nobody was shown expires",
            "whether captures echo their tracking number: sent as our reference; else id, or amount and time, decide",
            "releasing the rest after a first capture: asked for, and a refusal is passed on",
            "other words of `refund_status` than `success`: pending, but for `TAMARA_FAILED_REFUND_WORDS`",
            "how long a hold lasts (21 days by one page, 90 by another): counted as 21",
            "how often and how long webhooks are repeated: payments that are open are asked about anyway",
            "disputes, known from third parties only: not offered",
            "an empty phone number, and an address of `N/A`: sent where the shop tells us none",
        ),
    ),
)

__all__ = ["DEFINITION", "Tamara", "TamaraSettings"]
