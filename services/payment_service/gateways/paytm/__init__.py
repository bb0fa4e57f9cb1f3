"""Paytm Payment Gateway: orders paid on its page. Facts: ../paytm.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.paytm.adapter import FACTS, Paytm, PaytmSettings

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=PaytmSettings,
    build=Paytm,
    sheet=Sheet(
        regions="India",
        amounts='rupees as text with two decimals ("499.00")',
        settlement="the dashboard's CSV, with a map of its columns; the settlement calls are the vendor's own",
        documented="Paytm's API reference, its checksum packages 1.7.0 (Python) and 1.5.1 (Node)",
        unconfirmed=(
            "How held money is captured and released: pre-authorization is refused.",
            "Names of the rows in the order list: settings, ids only, and off unless PAYTM_PASSBOOK says otherwise.",
            "Code of a cancelled payment (141) and of a refund that is not there: the message is read as well.",
            "Codes of a wrong checksum (2005, 330): the message is read as well; nothing is failed for it.",
            "What becomes of an order that nobody pays: no record, so it counts as expired a day later.",
            "Webhook retries and timeout: deliveries may be lost, the sweep asks.",
            "Columns and signs of the settlement CSV: a map of columns, and the row's type decides the sign.",
        ),
    ),
)

__all__ = ["DEFINITION", "Paytm", "PaytmSettings"]
