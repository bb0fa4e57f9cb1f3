"""PayU's settlement details of a day in India."""

from __future__ import annotations

from datetime import date

from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.payu.api import PayuApi
from services.payment_service.gateways.payu.reading import is_nothing
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.reports import MAX_REPORT_BYTES, Room, exact_json, json_report
from shared.errors import GatewayOutcomeUnknown, GatewayRejected
from shared.http import CallPolicy

FORMAT = "payu_settlement"

_READ = CallPolicy(budget_seconds=60, attempts=2, repeatable=True, max_bytes=MAX_REPORT_BYTES)
"""A whole day comes at once: how its pages are asked for is not documented."""


async def settlement_details(api: PayuApi, day: date) -> tuple[SettlementReport, ...]:
    """``{"status":1,"msg":"…","Txn_details":{"1":{…},"2":{…}}}``, as PayU gives it; rupees are text. Nothing where
    nothing was settled."""
    answer = await api.call("get_settlement_details", day.isoformat(), policy=_READ)
    if not answer.is_ok:
        if is_nothing(answer.body):
            return ()
        if not answer.is_refusal:
            raise GatewayOutcomeUnknown("PayU's settlement is not understood")
        raise GatewayRejected(f"PayU refused the request ({answer.code})", gateway_code=answer.code)
    rows = answer.body.get("Txn_details")
    if rows is not None and not isinstance(rows, dict | list):
        raise GatewayOutcomeUnknown("PayU's settlement is not understood")
    if not rows:
        return ()
    try:
        content = Room().take(exact_json(answer.body))
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("PayU's settlement is not understood") from error
    return (json_report(f"payu-settlement-{day}.json", FORMAT, content),)
