"""Razorpay: Payment Links and Orders. Facts: ../razorpay.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.razorpay.adapter import Razorpay, RazorpaySettings

DEFINITION = GatewayDefinition(
    facts=Razorpay.facts,
    settings=RazorpaySettings,
    build=lambda settings, tools: Razorpay(settings, tools.http),
    sheet=Sheet(
        regions="India",
        amounts="integers in sub-units; KWD, BHD and OMR times 1000 with a last digit of 0",
        settlement="combined settlement reconciliation, JSON in sub-units; the fee includes its tax",
        documented="Razorpay's API reference and Python package 2.0.1, state of April 2026",
        unconfirmed=(
            "how IQD, JOD, LYD and TND are written: not offered",
            "how long a refund's key lives: trusted for one hour, then only looked for",
            "whether receipts of orders are unique: looked for before a second one is made",
            "whether a hold ends after three or five days: counted as three",
            "whether `captured` stays true after a full refund: a refund of ours proves the capture",
            "spelling and units of the dashboard's CSV files: the reconciliation API is read instead",
        ),
    ),
)

__all__ = ["DEFINITION", "Razorpay", "RazorpaySettings"]
