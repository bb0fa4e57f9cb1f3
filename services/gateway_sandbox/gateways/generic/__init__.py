"""Our own hosted-checkout gateway: JSON in and out, amounts as decimal numbers in major units."""

from services.gateway_sandbox.gateways.generic.gateway import GenericSandbox

__all__ = ["GenericSandbox"]
