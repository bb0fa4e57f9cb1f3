"""PayPal: Orders v2 and Payments v2. Quirks and sources: ../paypal.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.paypal.adapter import PayPal
from services.payment_service.gateways.paypal.client import PayPalSettings

DEFINITION = GatewayDefinition(
    facts=PayPal.facts,
    settings=PayPalSettings,
    build=lambda settings, tools: PayPal(settings, tools.http),
    sheet=Sheet(
        regions="some 200 markets; not in INR, nor in any currency of the Gulf",
        amounts="decimal strings in major units; HUF, JPY and TWD whole, no currency with three decimals",
        settlement="settlement report STL by SFTP, CSV with row types, unsigned amounts times 100, CR and DR",
        documented="PayPal's OpenAPI files: Orders v2 2.13, Payments v2 2.5, Webhooks v1 1.11, Disputes v1 1.10",
        unconfirmed=(
            "how soon an order shows what was done under it: for an hour the same key is used again",
            "dispute outcomes DENIED and NONE: read as won",
            "the object of PAYMENT.CAPTURE.REVERSED: a capture is believed, a refund is asked about",
            "how STL writes currencies without decimals: as its example does, times 100",
        ),
    ),
)

__all__ = ["DEFINITION", "PayPal", "PayPalSettings"]
