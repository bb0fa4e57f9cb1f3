"""PayU India: hosted checkout. Facts: ../payu.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.payu.adapter import FACTS, Payu, PayuSettings

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=PayuSettings,
    build=lambda settings, tools: Payu(settings, tools.http, tools.ports.clock),
    sheet=Sheet(
        regions="India",
        amounts="rupees as text with two digits",
        settlement="get_settlement_details, JSON; rupees as text with four digits, times of India",
        documented="PayU India's API reference and its Node package payu-websdk 1.3.1, read November 2026",
        unconfirmed=(
            "what the form takes to hold money first: PAYU_PRE_AUTHORIZE, not offered until it is set",
            "whether a part of a hold can be captured: not offered",
            "how long a token is remembered: trusted for one hour, then only looked for",
            "how long the payment page lives: we expire on our side, and what is paid later is late money",
            "which of several tries verify_payment shows: one that failed ends no payment for 24 hours",
            "whether a blank e-mail or phone is taken: a reserved address and PAYU_FALLBACK_PHONE stand in",
            "what verify_payment says after a refund or a void: both are read from the list of actions",
            "the texts of refused credentials: known by the words hash, key and permission",
            "the largest window of a list: asked hour by hour",
            "the sign of refunds in a settlement: taken from `requestaction`",
        ),
    ),
)

__all__ = ["DEFINITION", "Payu", "PayuSettings"]
