"""What must never leave the place where it was received: personal data, secrets, card numbers (SEC-25, -50, -54)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

MASK = "[removed]"

_PERSONAL_KEYS = frozenset(
    """
    name first_name last_name firstname lastname full_name customer_name cardholder_name card_holder_name holder
    email customer_email receipt_email payer_email email_address
    phone phone_number mobile contact customer_phone customer_contact
    address billing_address shipping_address billing shipping billing_details shipping_details customer_details
    address_line1 address_line2 line1 line2 postal_code zip city customer_address recipient_name
    ip ip_address client_ip customer_ip dob date_of_birth tax_id vpa upi buyer payer card bank_account
    payment_method_details payment_method_data udf1 udf2 udf3 udf4 udf5 notes description
    """.split()
)
"""Keys whose values are removed wherever they stand. None of them is needed to apply a payment."""

_SECRET_KEYS = frozenset(
    "authorization cookie set_cookie client_secret secret password token api_key access_token refresh_token signature "
    "cvv cvc cvn security_code pan card_number x_order_secret stripe_signature x_signature webhook_signature".split()
)

_DIGIT_RUN = re.compile(r"[0-9](?<![0-9A-Za-z_][0-9])(?<![0-9]\.[0-9])(?:[ -]?[0-9]){12,}(?![0-9A-Za-z_]|\.[0-9])")
"""Digits that stand by themselves, in groups parted by single spaces or hyphens. What must not be before the first one
is looked for after it was found: a pattern that begins with a digit is searched for eight times as fast."""

_SEPARATOR = re.compile("([ -])")

LONGEST_CARD_NUMBER = 19
_SHORTEST_CARD_NUMBER = 13
_THIRTEEN_DIGITS = b"0" * _SHORTEST_CARD_NUMBER
_DIGITS_ALIKE = bytes(ord("0") if chr(code) in "0123456789" else ord(".") for code in range(256))

_CARD_NUMBER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|2[2-7])\d{14}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3[0689]\d{12,17}|35\d{14,17}"  # Diners Club, JCB
    r"|(?:5[0678]|6\d)\d{11,17}"  # Maestro, Discover, RuPay, UnionPay
    r"|8[12]\d{14}|968\d{13}|9792\d{12}|220[0-4]\d{12,15}"  # RuPay, mada, Troy, Mir
)
"""First digits and lengths of card schemes. Compact timestamps (20260102…), Unix milliseconds (17…) and the 18 digits
that a gateway gives its payments (4039937155…) have others."""

_MAX_NESTING = 64


class _ExactNumber(str):
    """A JSON number as it was written: re-serialising must not change its digits."""

    __slots__ = ()


def mask_card_numbers(text: str) -> str:
    """Replace what looks like a card number: an issuer's first digits and length (13 to 19), and a valid Luhn sum.

    An expiry date or a security code that follows after a space does not hide it. Payrail's ids and amounts never
    match: they touch a letter or an underscore, or have a decimal point.
    """
    if len(text) < _SHORTEST_CARD_NUMBER or not may_hold_card_number(text.encode("utf-8", "surrogatepass")):
        return text
    return _DIGIT_RUN.sub(_mask_run, text)


def may_hold_card_number(data: bytes) -> bool:
    """Whether thirteen digits follow each other, with or without what parts their groups. Nearly all text answers no,
    in a twentieth of the time that the search by pattern takes."""
    return _THIRTEEN_DIGITS in data.translate(_DIGITS_ALIKE, b" -")


def storable_text(text: str) -> str:
    """Text as a PostgreSQL column takes it and an operator may read it: no NUL, no lone surrogate, no card number."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return mask_card_numbers(clean)


def is_secret_name(name: str) -> bool:
    return _plain(name) in _PLAIN_SECRET_KEYS


def redact_body(content_type: str, body: bytes) -> str:
    """A webhook body as text without personal data, secrets and card numbers.

    JSON numbers keep their exact digits. What cannot be parsed (invalid UTF-8, broken or repeated keys, too deep) gives
    the empty string: the raw bytes stay where they were stored, and nobody guesses at them. Never raises.
    """
    try:
        text = body.decode("utf-8-sig")
        if "x-www-form-urlencoded" in content_type.lower():
            return _redact_form(text)
        parsed = json.loads(
            text,
            parse_float=_ExactNumber,
            parse_int=_ExactNumber,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique_keys,
        )
        return _write(parsed, 0)
    except (ValueError, RecursionError):
        return ""


def _redact_form(text: str) -> str:
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=500)
    return urlencode(
        [(mask_card_numbers(key), MASK if _must_go(key) else mask_card_numbers(value)) for key, value in pairs]
    )


def _must_go(key: str) -> bool:
    return _plain(key) in _KEYS_TO_REMOVE


def _plain(name: str) -> str:
    """``cardNumber``, ``card-number`` and ``card_number`` are one name."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


_PLAIN_SECRET_KEYS = frozenset(map(_plain, _SECRET_KEYS))
_KEYS_TO_REMOVE = frozenset(map(_plain, _PERSONAL_KEYS)) | _PLAIN_SECRET_KEYS


def _write(value: Any, depth: int) -> str:
    if depth > _MAX_NESTING:
        raise ValueError("nested too deeply")
    if isinstance(value, _ExactNumber):
        masked = mask_card_numbers(value)
        return str(value) if masked == value else _text(masked)
    if isinstance(value, str):
        return _text(mask_card_numbers(value))
    if isinstance(value, dict):
        members = (
            f"{_text(mask_card_numbers(key))}:{_text(MASK) if _removed(key, item) else _write(item, depth + 1)}"
            for key, item in value.items()
        )
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    return json.dumps(value)


def _removed(key: str, value: Any) -> bool:
    return value is not None and value != "" and _must_go(key)


def _text(value: str) -> str:
    # ensure_ascii keeps lone surrogates and NUL as escapes, so the result is always storable UTF-8 text (failure W12).
    return json.dumps(value, ensure_ascii=True)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _mask_run(match: re.Match[str]) -> str:
    """Mask every card number in a run of digits: the whole run, or some of its groups. Linear in the run's length:
    anybody may send us any number of groups."""
    pieces = _SEPARATOR.split(match.group())  # groups, and between them what parts them
    written: list[str] = []
    position = 0
    while position < len(pieces):
        found = _card_number_at(pieces, position)
        last = position if found is None else found[0]
        written.append(pieces[position] if found is None else f"[PAN:…{found[1][-4:]}]")
        written += pieces[last + 1 : last + 2]
        position = last + 2
    return "".join(written)


def _card_number_at(pieces: Sequence[str], start: int) -> tuple[int, str] | None:
    """The longest card number that begins with this group: where it ends, and its digits."""
    digits, found = "", None
    for position in range(start, len(pieces), 2):
        digits += pieces[position]
        if len(digits) > LONGEST_CARD_NUMBER:
            break
        if _is_card_number(digits):
            found = (position, digits)
    return found


def _is_card_number(digits: str) -> bool:
    if not _CARD_NUMBER.fullmatch(digits):
        return False
    values = [int(digit) for digit in reversed(digits)]
    doubled = [value * 2 - 9 if value > 4 else value * 2 for value in values[1::2]]
    return (sum(values[::2]) + sum(doubled)) % 10 == 0
