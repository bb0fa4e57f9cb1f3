"""BillDesk: orders paid on its hosted page, over messages that are signed JOSE both ways. Facts: ../billdesk.md."""

from services.payment_service.gateways.billdesk.adapter import FACTS, BillDesk
from services.payment_service.gateways.billdesk.settings import BillDeskSettings
from services.payment_service.gateways.definition import GatewayDefinition, Sheet

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=BillDeskSettings,
    build=BillDesk,
    sheet=Sheet(
        regions="India",
        amounts="decimal strings in rupees with two digits, currency `356`",
        settlement="files arranged at onboarding; columns are not documented, so their names are settings",
        documented="docs.billdesk.io (orders, transactions, refunds, idempotency), a client's readme, integrations",
        unconfirmed=(
            "auth_status 0398, 0001 and NA: canceled and failed codes are settings, any other code stays processing",
            "when an accepted refund has reached the buyer: pending for BILLDESK_REFUND_FINAL_AFTER_HOURS, then done",
            "which refund_status says that a refund has failed: BILLDESK_REFUND_FAILED_CODES, empty by default",
            "the layout of refund_details: read where it looks like refunds, else left to our own rows",
            "what a second order under the same orderid gives: an order is adopted, a 409 needs a new attempt",
            "whether an orderid's transaction is the latest or the paid one: known transactions are asked for as well",
            "whether BD-Timestamp is ever wanted as seconds: BILLDESK_TIMESTAMP_FORMAT",
            "what the device object is checked for: BILLDESK_DEVICE_IP, as the buyer's own address is not known here",
            "the certificate scheme (PS256, RSA-OAEP): refused at the start",
            "capture, void, closing an order, lists: no such call is known, so none is offered",
        ),
    ),
)

__all__ = ["DEFINITION", "BillDesk", "BillDeskSettings"]
