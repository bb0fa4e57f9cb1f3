"""Reading requests as PhonePe does: JSON with documented fields only, whole paise; and its error envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.gateways.port import WireAnswer, WireCall, WireError
from shared.money import MAX_AMOUNT_MINOR

Json = dict[str, Any]

BASE = "/apis/pg-sandbox"
SMALLEST_AMOUNT = 100

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
_SHORT_UDF = re.compile(r"[A-Za-z0-9_@.+ -]{0,50}", re.ASCII)
_UDFS = frozenset(f"udf{number}" for number in range(1, 16))
_SHORT_UDFS = frozenset(f"udf{number}" for number in range(11, 16))
_LONGEST_UDF = 256


def error(status: int, code: str, message: str) -> WireError:
    body = {"success": False, "code": code, "message": message, "context": {}}
    return WireError(WireAnswer.json(status, body), stored=False)


def bad_request(message: str) -> WireError:
    return error(400, "BAD_REQUEST", message)


def unauthorized() -> WireError:
    return error(401, "UNAUTHORIZED", "the client or its token is not known")


def not_found(code: str) -> WireError:
    return error(404, code, "no such object")


def json_body(call: WireCall, required: frozenset[str], optional: frozenset[str] = frozenset()) -> Json:
    """Raises WireError for anything but one object with the documented fields."""
    if call.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise bad_request("the body has to be JSON")
    try:
        body = from_json(call.body)
    except (ValueError, RecursionError):
        raise bad_request("invalid JSON") from None
    return only(body, "body", required, optional)


def only(value: Any, name: str, required: frozenset[str], optional: frozenset[str] = frozenset()) -> Json:
    if not isinstance(value, dict):
        raise bad_request(f"{name} must be an object")
    unknown, missing = sorted(set(value) - required - optional), sorted(required - set(value))
    if unknown or missing:
        raise bad_request(f"{name}.{(unknown or missing)[0]} is {'unknown' if unknown else 'required'}")
    return value


def identifier(body: Mapping[str, Any], key: str) -> str:
    value = body[key]
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise bad_request(f"{key} has 1 to 63 letters, digits, underscores and hyphens")
    return value


def whole(body: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = body[key]
    if type(value) is not int or not least <= value <= most:
        raise bad_request(f"{key} must be a whole number from {least} to {most}")
    return value


def paise(body: Mapping[str, Any]) -> int:
    return whole(body, "amount", SMALLEST_AMOUNT, MAX_AMOUNT_MINOR)


def flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key, False)
    if type(value) is not bool:
        raise bad_request(f"{key} must be true or false")
    return value


def web_address(body: Mapping[str, Any], key: str) -> str:
    """HTTPS, but for a shop that runs beside the sandbox."""
    value = body[key]
    if not isinstance(value, str) or urlsplit(value).scheme not in ("https", "http") or not urlsplit(value).netloc:
        raise bad_request(f"{key} is not an address to return to")
    return value


def meta_info(body: Mapping[str, Any]) -> dict[str, str]:
    found = only(body.get("metaInfo", {}), "metaInfo", frozenset(), _UDFS)
    for key, value in found.items():
        if not isinstance(value, str) or len(value) > _LONGEST_UDF:
            raise bad_request(f"{key} must be text of at most {_LONGEST_UDF} characters")
        if key in _SHORT_UDFS and not _SHORT_UDF.fullmatch(value):
            raise bad_request(f"{key} is too long or has other characters")
    return found


def check_query(call: WireCall, allowed: frozenset[str]) -> None:
    for key, value in call.query:
        if key not in allowed or value not in ("true", "false"):
            raise bad_request(f"{key} is not understood")
