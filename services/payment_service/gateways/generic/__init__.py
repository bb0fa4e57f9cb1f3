"""The generic hosted-checkout gateway: a small JSON API, and the webhook of existing integrations. Its contract:
generic.md.

Amounts: decimal numbers in major units, parsed as decimals. Keys: ``Idempotency-Key``; sessions, captures and refunds
can also be looked up by our reference. Webhooks: the scheme that ``GENERIC_SIGNATURE_*`` configures, by default hex
HMAC-SHA256 in ``X-Signature``.
"""

from services.payment_service.gateways.generic.adapter import Generic, GenericSettings
from services.payment_service.gateways.generic.reading import STATUS

__all__ = ["STATUS", "Generic", "GenericSettings"]
