"""What BillDesk accepts, and how it says no."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.gateways.port import WireAnswer, WireCall, WireError
from shared.errors import InvalidAmount
from shared.money import Money

Json = Mapping[str, Any]

IST = timezone(timedelta(hours=5, minutes=30))
INR = "356"

_TRACE_ID = re.compile(r"[A-Za-z0-9]{10,35}")
_STAMP = re.compile(r"[0-9]{14}")
_ORDER_ID = re.compile(r"[A-Za-z0-9]{10,35}")
_AMOUNT = re.compile(r"[0-9]{1,12}\.[0-9]{2}")
_CLOCK_DIFFERENCE = timedelta(minutes=15)

_ORDER_REQUIRED = ("mercid", "orderid", "amount", "order_date", "currency", "ru", "itemcode", "device")
_ORDER_OPTIONAL = ("additional_info", "customer", "invoice", "settlement_lob", "mandate_required")
_DEVICE_REQUIRED = ("init_channel", "ip", "user_agent", "accept_header")
_DEVICE_OPTIONAL = tuple(
    "fingerprintid browser_tz browser_color_depth browser_java_enabled browser_screen_height browser_screen_width "
    "browser_language browser_javascript_enabled".split()
)
_INFO = tuple(f"additional_info{number}" for number in range(1, 11))
_REFUND_REQUIRED = tuple(
    "mercid orderid transactionid transaction_date txn_amount refund_amount currency merc_refund_ref_no".split()
)


# --- saying no ----------------------------------------------------------------------------------------------------


def refused(status: int, error_type: str, code: str, message: str) -> WireError:
    body = {"status": status, "error_type": error_type, "error_code": code, "message": message}
    return WireError(WireAnswer.json(status, body), stored=False)


def invalid(message: str, code: str = "SBXID0001") -> WireError:
    return refused(422, "invalid_data", code, message)


def duplicate(message: str) -> WireError:
    return refused(409, "duplicate_request_error", "TRDRE0001", message)


def unknown(message: str) -> WireError:
    return refused(404, "not_found_error", "SBXNF0001", message)


def unauthorized() -> WireError:
    return refused(401, "unauthorized_error", "SBXUA0001", "The request is not authorized")


def silence() -> WireError:
    """200 and nothing: what a wrong time of the request is reported to give."""
    return WireError(WireAnswer(200, ""), stored=False)


# --- what every call carries --------------------------------------------------------------------------------------


def check_headers(call: WireCall) -> str:
    """The trace id. Raises WireError."""
    for name in ("content-type", "accept"):
        if call.headers.get(name, "").strip().lower() != "application/jose":
            raise refused(415, "invalid_data", "SBXID0002", f"{name} must be application/jose")
    trace_id = call.headers.get("bd-traceid", "")
    if not _TRACE_ID.fullmatch(trace_id):
        raise invalid("BD-Traceid must be 10 to 35 letters and digits")
    return trace_id


def check_stamp(call: WireCall, now: datetime) -> None:
    """``BD-Timestamp`` in IST. Raises WireError."""
    text = call.headers.get("bd-timestamp", "")
    if not _STAMP.fullmatch(text):
        raise silence()
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=IST)
    except ValueError:
        raise silence() from None
    if abs(moment.astimezone(UTC) - now) > _CLOCK_DIFFERENCE:
        raise silence()


def json_of(text: str) -> Json:
    try:
        body = from_json(text.encode())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise invalid("The request is not a JSON object")
    return body


# --- one kind of call each ----------------------------------------------------------------------------------------


def check_order(body: Json, now: datetime) -> None:
    _only(body, _ORDER_REQUIRED, _ORDER_OPTIONAL)
    if not _ORDER_ID.fullmatch(text_of(body, "orderid")):
        raise invalid("orderid is not valid")
    _check_currency(body)
    address = urlsplit(text_of(body, "ru"))
    if address.scheme not in ("http", "https") or not address.netloc:
        raise invalid("ru is not valid")
    text_of(body, "itemcode")
    _check_object(body, "device", _DEVICE_REQUIRED, _DEVICE_OPTIONAL)
    _check_object(body, "additional_info", (), _INFO)
    _check_order_date(text_of(body, "order_date"), now)


def check_refund(body: Json) -> None:
    _only(body, _REFUND_REQUIRED, ("device", "split_payment"))
    for name in _REFUND_REQUIRED:
        text_of(body, name)
    _check_currency(body)


def check_question(body: Json, *one_of: str) -> tuple[str, str]:
    """By which of these ids it is asked: exactly one. Raises WireError."""
    _only(body, ("mercid",), (*one_of, "refund_details"))
    given = [name for name in one_of if name in body]
    if len(given) != 1:
        raise invalid(f"one of {', '.join(one_of)} is required")
    if body.get("refund_details", "true") not in ("true", "false"):
        raise invalid("refund_details is not valid")
    return given[0], text_of(body, given[0])


def amount_of(body: Json, key: str) -> int:
    """In paise. Raises WireError."""
    text = text_of(body, key)
    if not _AMOUNT.fullmatch(text):
        raise invalid(f"{key} must have two decimals")
    try:
        amount_minor = Money.from_major(text, "INR").amount_minor
    except InvalidAmount:
        raise invalid(f"{key} is not valid") from None
    if amount_minor <= 0:
        raise invalid(f"{key} is not valid")
    return amount_minor


def text_of(body: Json, key: str, *, longest: int = 500) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise invalid(f"{key} is not valid")
    return value


def _only(body: Json, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    missing = next((name for name in required if name not in body), None)
    if missing is not None:
        raise invalid(f"{missing} is required")
    unknown_name = next((name for name in body if name not in (*required, *optional)), None)
    if unknown_name is not None:
        raise invalid(f"{unknown_name} is not expected")


def _check_object(body: Json, key: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Texts only, and none of them empty."""
    value = body.get(key, {})
    if not isinstance(value, dict):
        raise invalid(f"{key} is not an object")
    _only(value, required, optional)
    for name in value:
        text_of(value, name)


def _check_currency(body: Json) -> None:
    if body.get("currency") != INR:
        raise invalid("currency is not valid")


def _check_order_date(text: str, now: datetime) -> None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("order_date is not valid") from None
    if moment.tzinfo is None or abs(moment - now) > _CLOCK_DIFFERENCE:
        raise invalid("order_date is not valid")
