"""CCAvenue, in India and the Emirates. Facts: ../ccavenue.md."""

from services.payment_service.gateways.ccavenue.adapter import FACTS, CCAvenue, CCAvenueSettings
from services.payment_service.gateways.definition import GatewayDefinition, Sheet

DEFINITION = GatewayDefinition(
    facts=FACTS,
    settings=CCAvenueSettings,
    build=CCAvenue,
    sheet=Sheet(
        regions="India, and the Emirates by hosts of their own",
        amounts="decimal text in major units with two digits; no currency with other digits",
        settlement="payoutSummary and payIdDetails, JSON in major units; a row's sign follows from txn_type",
        documented="CCAvenue's API and integration guides and kits; hosts of the Emirates from public integrations",
        unconfirmed=(
            "AES-256-GCM of newer kits: a setting, CBC unless it is set",
            "wrapping of answers under one name: unwrapped where there is only one",
            "which try is shown of an order number that was used twice: all tries are listed and each is asked about",
            "param_value2 in answers: without it an order is held, and taken by us a little later",
            "fields of orderLookup's rows: only its reference numbers count for a payment, each is asked about",
            "order numbers of up to 30 or 40 characters: ours have 20",
            "what a refund made in the panel is called: by its reference, else by day and amount",
            "a chargeback's end: never told, so that a person closes it",
            "a system refund that no refund explains: read as a capture that was taken back",
            "currencies of the Emirates: AED; nothing with three digits",
            "the zone of times in the Emirates: read as India's, for records only",
        ),
    ),
)

__all__ = ["DEFINITION", "CCAvenue", "CCAvenueSettings"]
