"""Razorpay's wire format: payment links, orders with the hosted checkout, payments, refunds, disputes."""

from services.gateway_sandbox.gateways.razorpay.gateway import RazorpaySandbox

__all__ = ["RazorpaySandbox"]
