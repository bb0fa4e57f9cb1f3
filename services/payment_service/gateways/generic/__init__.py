"""The generic hosted-checkout gateway: a small JSON API, and the webhook of existing integrations. Its contract:
generic.md.

Amounts: decimal numbers in major units, parsed as decimals. Keys: ``Idempotency-Key``; sessions, captures and refunds
can also be looked up by our reference. Webhooks: the scheme that ``GENERIC_SIGNATURE_*`` configures, by default hex
HMAC-SHA256 in ``X-Signature``.
"""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.generic.adapter import FACTS, Generic, GenericSettings
from services.payment_service.gateways.generic.reading import STATUS

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=GenericSettings,
    build=lambda settings, tools: Generic(settings, tools.http),
    sheet=Sheet(
        regions="wherever the partner is",
        amounts="JSON numbers in major units with all of the currency's digits",
        settlement="CSV of our own contract, decimals in major units and UTC times",
        documented="our own contract",
        unconfirmed=(),
    ),
)

__all__ = ["DEFINITION", "STATUS", "Generic", "GenericSettings"]
