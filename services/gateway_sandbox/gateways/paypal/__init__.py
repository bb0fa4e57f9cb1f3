"""PayPal in the sandbox: Orders v2, Payments v2, disputes, reports and signed webhooks."""

from services.gateway_sandbox.gateways.paypal.gateway import PayPalSandbox
from services.gateway_sandbox.gateways.paypal.signing import SigningMaterial, new_signing_material

__all__ = ["PayPalSandbox", "SigningMaterial", "new_signing_material"]
