"""PhonePe (v2): orders paid on its page, by UPI, card or net banking. Facts: ../phonepe.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.phonepe.adapter import Phonepe
from services.payment_service.gateways.phonepe.settings import FACTS, PhonepeSettings

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=PhonepeSettings,
    build=Phonepe,
    sheet=Sheet(
        regions="India",
        amounts="whole paise as a number (49900 is 499.00 rupees), 100 at least; no currency is named, it is INR",
        settlement="the dashboard's CSV in rupees, with a map of its columns; the settlement calls are PhonePe's own",
        documented="PhonePe's v2 reference and its Node package 2.0.6; v1 (salt keys, X-VERIFY) is not spoken",
        unconfirmed=(
            "What a repeated create under one id returns: the order is looked for, and never created twice.",
            "Codes of a cancelled and of an expired order: the words in the code are read, and the time.",
            "Fields of disputes: their deliveries are parked for a person.",
            "Whether a dashboard refund carries a name that it can be asked by: one without is not seen.",
            "The smallest refund (100 paise, or 1): sent as it is, PhonePe decides.",
            "Header and text of the newer HMAC mode of webhooks: the user name and password are used.",
            "A list of transactions, cancelling an unpaid order: not offered.",
            "Columns of the settlement file, and whether its amounts are rupees.",
        ),
    ),
)

__all__ = ["DEFINITION", "Phonepe", "PhonepeSettings"]
