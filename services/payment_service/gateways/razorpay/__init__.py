"""Razorpay: Payment Links and Orders. Facts: ../razorpay.md."""

from services.payment_service.gateways.razorpay.adapter import Razorpay, RazorpaySettings

__all__ = ["Razorpay", "RazorpaySettings"]
