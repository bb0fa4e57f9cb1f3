"""The ``generic`` gateway's scheme: hex HMAC-SHA256 of the body in X-Signature, unless settings say otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from services.webhook_ingest.signatures.port import InvalidSchemeConfig, Trust
from services.webhook_ingest.signatures.providers import GENERIC, PROVIDERS
from services.webhook_ingest.signatures.registration import Registration, Trait
from services.webhook_ingest.signatures.schemes import (
    Algorithm,
    Encoding,
    EventField,
    HmacScheme,
    SecretDecoding,
    SignatureConfig,
    SignatureField,
    TimestampField,
    TimestampUnit,
    ValueFormat,
)
from services.webhook_ingest.signatures.values import GatewayValues

PREFIX = "GENERIC_SIGNATURE_"


def generic_scheme(values: GatewayValues) -> HmacScheme:
    """Raises InvalidSchemeConfig for an unknown scheme or a combination that proves nothing."""
    name = values.text(PREFIX + "SCHEME") or "generic"
    try:
        row = PROVIDERS[name]
    except KeyError:
        raise InvalidSchemeConfig(f"{PREFIX}SCHEME: {name} is none of {', '.join(sorted(PROVIDERS))}") from None
    return HmacScheme(_with_settings(row, values))


def _with_settings(row: SignatureConfig, values: GatewayValues) -> SignatureConfig:
    content = _content(values, row)
    changed = replace(
        row,
        signature=_signature(row, values),
        algorithm=_choice(values, "ALGORITHM", Algorithm) or row.algorithm,
        allow_sha1=row.allow_sha1 or values.flag(PREFIX + "ALLOW_SHA1"),
        encoding=_choice(values, "ENCODING", Encoding) or row.encoding,
        secret_decoding=_choice(values, "SECRET_DECODING", SecretDecoding) or row.secret_decoding,
        content=content,
        timestamp=_timestamp(row, values),
        event_id=_event_field(values, "EVENT_ID") or _event_id(row),
        event_type=_event_field(values, "EVENT_TYPE") or row.event_type,
        registered_url=values.text(PREFIX + "URL") or f"{values.public_base_url}/api/v1/webhooks/generic",
    )
    return replace(changed, trust=_choice(values, "TRUST", Trust) or changed.trust)


def _signature(row: SignatureConfig, values: GatewayValues) -> SignatureField:
    given: dict[str, Any] = {
        "name": values.text(PREFIX + "HEADER"),
        "format": _choice(values, "FORMAT", ValueFormat),
        "prefix": values.text(PREFIX + "PREFIX"),
        "pair_separator": values.text(PREFIX + "PAIR_SEPARATOR"),
        "key_separator": values.text(PREFIX + "KEY_SEPARATOR"),
        "item_separator": values.text(PREFIX + "ITEM_SEPARATOR"),
        "keys": values.items(PREFIX + "KEYS"),
    }
    changes = {name: value for name, value in given.items() if value}
    if "prefix" in changes:
        changes.setdefault("format", "prefix")  # a prefix alone says the format
    return replace(row.signature, **changes)


def _content(values: GatewayValues, row: SignatureConfig) -> tuple[str, ...]:
    """GENERIC_SIGNATURE_CONTENT is written in one piece, such as ``{timestamp}.{body}``."""
    template = values.text(PREFIX + "CONTENT")
    if template is not None:
        return split_template(template)
    if row.timestamp is None and values.text(PREFIX + "TIMESTAMP_HEADER"):
        return ("{timestamp}", ".", *row.content)  # an unsigned time would prove nothing
    return row.content


def split_template(template: str) -> tuple[str, ...]:
    """``"{timestamp}.{body}"`` as the pieces of a configuration: placeholders and the literals between them."""
    pieces: list[str] = []
    rest = template
    while rest:
        start = rest.find("{")
        end = rest.find("}", start)
        if start < 0 or end < 0:
            return (*pieces, rest)
        pieces += [piece for piece in (rest[:start], rest[start : end + 1]) if piece]
        rest = rest[end + 1 :]
    return tuple(pieces)


def _timestamp(row: SignatureConfig, values: GatewayValues) -> TimestampField | None:
    header = values.text(PREFIX + "TIMESTAMP_HEADER")
    key = values.text(PREFIX + "TIMESTAMP_KEY")
    base = row.timestamp
    if header:
        base = TimestampField(header, location="header")
    elif key:
        base = TimestampField(key, location="kv")
    if base is None:
        return None
    tolerance = values.integer(PREFIX + "TIMESTAMP_TOLERANCE_SECONDS")
    unit = _choice(values, "TIMESTAMP_UNIT", TimestampUnit) or base.unit
    return replace(base, unit=unit, tolerance_seconds=base.tolerance_seconds if tolerance is None else tolerance)


def _event_id(row: SignatureConfig) -> EventField | None:
    """The scheme's own id where it is signed, else the body's ``event_id`` (design.md §3)."""
    own = row.event_id
    if own is None:
        return GENERIC.event_id
    is_signed = own.location != "header" or {f"{{header:{name}}}" for name in own.names} <= set(row.content)
    return own if is_signed else GENERIC.event_id


def _event_field(values: GatewayValues, name: str) -> EventField | None:
    header = values.text(f"{PREFIX}{name}_HEADER")
    if header:
        return EventField("header", (header,))
    paths = values.items(f"{PREFIX}{name}_JSON")
    return EventField("json", paths) if paths else None


def _choice(values: GatewayValues, name: str, choices: Any) -> Any:
    """One of a Literal's (or an enum's) values, or None when the variable is not set."""
    text = values.text(PREFIX + name)
    allowed = [str(value) for value in (get_args(choices) or list(choices))]
    if text is not None and text not in allowed:
        raise InvalidSchemeConfig(f"{PREFIX}{name} must be one of {', '.join(allowed)}")
    return choices(text) if text is not None and choices is Trust else text


REGISTRATION = Registration(
    "generic",
    "WEBHOOK_SECRET",
    generic_scheme,
    we_choose_the_secret=True,
    variables=("GENERIC_SIGNATURE_",),
    summary="HMAC-SHA256 (hex) over the raw body in `X-Signature`, or any scheme that `GENERIC_SIGNATURE_*` describes",
    not_offered={Trait.TIMESTAMP: "no time is signed; each delivery counts once for ever"},
)
