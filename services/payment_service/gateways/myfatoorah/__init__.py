"""MyFatoorah: invoices with a hosted page in the Gulf, Jordan and Egypt. Facts: ../myfatoorah.md."""

from services.payment_service.gateways.definition import GatewayDefinition, Sheet
from services.payment_service.gateways.myfatoorah.adapter import FACTS, MyFatoorah
from services.payment_service.gateways.myfatoorah.settings import MyFatoorahSettings

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=MyFatoorahSettings,
    build=MyFatoorah,
    sheet=Sheet(
        regions="Kuwait, Bahrain, Jordan, Oman, United Arab Emirates, Saudi Arabia, Qatar, Egypt: one account each",
        amounts="JSON numbers in major units out; strings with commas and labels back; three decimals kept exactly",
        settlement="`GetDepositedInvoices` per deposit: JSON, amounts as strings in major units",
        documented="MyFatoorah's API reference and PHP library, state of April 2026",
        unconfirmed=(
            "the zone of a link's expiry: Kuwait's, as in the vendor's samples; `MYFATOORAH_UTC_OFFSET_HOURS`",
            "how the portal writes other currencies than KD and SR: `MYFATOORAH_CURRENCY_LABEL`; unknown ones stop",
            "refunds and captures in a currency that is not the account's: not offered",
            "how long a hold lasts: no end is assumed",
            "what an unknown invoice and an invoice without refunds are answered with: any refusal says nothing",
            "whether the webhook log keeps whole bodies: both forms are read",
            "how booleans are signed in version 1: such deliveries are refused",
            "the signature of supplier events: refused",
            "whether deposits list refunds: the sandbox does, with negative amounts",
        ),
    ),
)

__all__ = ["DEFINITION", "MyFatoorah", "MyFatoorahSettings"]
