"""The declarative HMAC interpreter: a configuration says what is signed and where, this file checks it.

The building blocks and the rules are those of the generic-hmac fact sheet (sections 4 and 5). Bodies are never
re-serialised, contents are joined as bytes, received digests are decoded before a constant-time comparison.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from services.webhook_ingest.signatures.fields import FieldProblem, Fields, clean_identifier
from services.webhook_ingest.signatures.port import (
    InvalidSchemeConfig,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
    refused,
)

Mode = Literal["hmac", "static_token", "fetch_back"]
Location = Literal["header", "query", "form", "json"]
ValueFormat = Literal["plain", "prefix", "kv", "list"]
Algorithm = Literal["sha256", "sha512", "sha1"]
Encoding = Literal["hex", "base64", "base64url"]
TimestampUnit = Literal["s", "ms"]
SecretDecoding = Literal["utf8", "hex", "base64", "whsec", "sha1"]

MAX_CANDIDATES = 10
"""Signatures tried per delivery: a rotation needs two; a header of thousands must not cost as many comparisons."""

_TIMESTAMP = re.compile(r"[0-9]{1,13}", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::([^{}]+))?\}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCATION_OF_PLACEHOLDER: Mapping[str, Location] = {
    "header": "header",
    "query": "query",
    "query_lower": "query",
    "form": "form",
    "json": "json",
}
_PLAIN_PLACEHOLDERS = frozenset({"body", "timestamp", "url", "form_sorted"})


@dataclass(frozen=True, slots=True)
class SignatureField:
    """Where the signature is, and how its value is written."""

    name: str
    location: Location = "header"
    format: ValueFormat = "plain"
    prefix: str = ""
    pair_separator: str = ","
    key_separator: str = "="
    item_separator: str = " "
    keys: tuple[str, ...] = ()
    """Accepted versions or keys of ``kv`` and ``list``; any other is skipped, never an error."""


@dataclass(frozen=True, slots=True)
class TimestampField:
    """A signed time. ``tolerance_seconds`` None: retries may keep the first time, so permanent dedupe guards alone."""

    name: str
    location: Literal["kv", "header"] = "header"
    unit: TimestampUnit = "s"
    tolerance_seconds: int | None = 300


@dataclass(frozen=True, slots=True)
class EventField:
    """Where the provider's event id or type is; several names make a composite, joined by colons."""

    location: Literal["header", "json", "form"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignatureConfig:
    """One provider's scheme, as data. The defaults are the usual case; HmacScheme refuses unsafe combinations."""

    name: str
    signature: SignatureField
    content: tuple[str, ...] = ("{body}",)
    mode: Mode = "hmac"
    algorithm: Algorithm = "sha256"
    allow_sha1: bool = False
    encoding: Encoding = "hex"
    secret_decoding: SecretDecoding = "utf8"  # noqa: S105 - how it is written, not what it is
    timestamp: TimestampField | None = None
    event_id: EventField | None = None
    event_type: EventField | None = None
    trust: Trust = Trust.FULL
    registered_url: str | None = None
    """The public URL as the provider knows it; what a proxied request shows differs in scheme, host or slash."""


@dataclass(frozen=True, slots=True)
class ContentPart:
    """One piece of the signed content: a literal, or a placeholder's kind and argument."""

    kind: str
    argument: str = ""
    separator: bytes = b""
    """The literal that follows: a value that contains it would make the joined text ambiguous."""


class _Refused(Exception):
    def __init__(self, reason: Refusal) -> None:
        self.reason = reason
        super().__init__(reason.value)


@dataclass(frozen=True, slots=True)
class _Received:
    """What the delivery claims: candidate digests and the time's text, exactly as received."""

    candidates: tuple[bytes, ...]
    timestamp: str | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)


class HmacScheme:
    """Verifies and signs as one SignatureConfig says. Refuses a configuration that proves nothing (rule 8)."""

    def __init__(self, config: SignatureConfig) -> None:
        self.config = config
        self._parts = compile_content(config.content) if config.mode == "hmac" else ()
        _lint(config, self._parts)
        self._digest_size = hashlib.new(config.algorithm, usedforsecurity=False).digest_size
        self._needs_unique_json_keys = any(part.kind == "json" for part in self._parts)
        self._event_id_is_signed = self._is_signed(config.event_id)
        self._signature_name = config.signature.name.lower()
        self._is_plain = (
            [part.kind for part in self._parts] == ["body"]
            and config.timestamp is None
            and (config.signature.location, config.signature.format) == ("header", "plain")
        )

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def secret_headers(self) -> frozenset[str]:
        is_token = self.config.mode == "static_token" and self.config.signature.location == "header"
        return frozenset({self.config.signature.name.lower()} if is_token else ())

    def check_secret(self, secret: SigningSecret) -> None:
        if not secret.text.strip() or not decode_secret(secret, self.config.secret_decoding):
            raise InvalidSchemeConfig(
                f"{self.name}: a secret is empty or is not written as {self.config.secret_decoding}"
            )

    def verify(self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        fields = Fields(delivery, unique_json_keys=self._needs_unique_json_keys)
        if self._is_plain:
            key_id = self._plainly_matching_key(delivery, secrets)
            if key_id is not None:
                return self._accepted(fields, key_id, None)
        try:
            return self._verify(fields, secrets, received_at)
        except _Refused as refusal:
            return refused(refusal.reason)
        except FieldProblem as problem:
            return refused(problem.reason)

    def sign(
        self, secret: SigningSecret, body: bytes, *, timestamp: datetime, message_id: str, query: str = ""
    ) -> dict[str, str]:
        """The headers a sender of this scheme would add. Raises InvalidSchemeConfig where it is not a header."""
        config = self.config
        if config.signature.location != "header":
            raise InvalidSchemeConfig(
                f"{self.name} carries its signature in the {config.signature.location}, not in a header"
            )
        if config.mode == "static_token":
            return {config.signature.name: secret.text}
        text = self._timestamp_text(timestamp)
        headers = {part.argument: message_id for part in self._parts if part.kind == "header"}
        if config.event_id and config.event_id.location == "header":
            headers.update(dict.fromkeys(config.event_id.names, message_id))
        if config.timestamp and config.timestamp.location == "header":
            headers[config.timestamp.name] = text
        delivery = RawDelivery("POST", "/", query, tuple(headers.items()), body)
        content = self._content(Fields(delivery), text)
        digest = self._digest(decode_secret(secret, config.secret_decoding), content)
        return {**headers, config.signature.name: self._write_value(encode_digest(digest, config.encoding), text)}

    def _verify(self, fields: Fields, secrets: Sequence[SigningSecret], received_at: datetime) -> Verification:
        if self.config.mode == "fetch_back":
            return self._accepted(fields, None, None)
        received = self._read_signature(fields)
        if self.config.mode == "static_token":
            return self._accepted(fields, _matching_token(received.tokens, secrets), None)
        timestamp = self._read_timestamp(fields, received)
        content = self._content(fields, timestamp or "")
        key_id = self._matching_key(received.candidates, content, secrets)
        # Only now: an unsigned claim about the time must not be told apart from any other forgery (rule 7).
        return self._accepted(fields, key_id, self._check_tolerance(timestamp, received_at))

    def _plainly_matching_key(self, delivery: RawDelivery, secrets: Sequence[SigningSecret]) -> str | None:
        """For one signature of the body in one header, which is the usual case. None: not one that matches, and the
        general way says why."""
        texts = [value for name, value in delivery.headers if name == self._signature_name]
        digest = decode_digest(texts[0], self.config.encoding, self._digest_size) if len(texts) == 1 else None
        matched: str | None = None
        if digest is not None:
            for secret in secrets:
                key = decode_secret(secret, self.config.secret_decoding)
                # No early exit here either.
                if key and hmac.compare_digest(self._digest(key, delivery.body), digest) and matched is None:
                    matched = secret.key_id
        return matched

    def _accepted(self, fields: Fields, key_id: str | None, timestamp: datetime | None) -> Verification:
        config = self.config
        return Verification(
            refusal=None,
            trust=config.trust,
            key_id=key_id,
            event_id=_event_value(fields, config.event_id),
            event_id_is_signed=self._event_id_is_signed,
            event_type=_event_value(fields, config.event_type),
            timestamp=timestamp,
        )

    def _is_signed(self, source: EventField | None) -> bool:
        if source is None or self.config.mode != "hmac":
            return False
        kinds = {part.kind for part in self._parts}
        if source.location == "header":
            signed = {part.argument.lower() for part in self._parts if part.kind == "header"}
            return signed.issuperset(name.lower() for name in source.names)
        if "body" in kinds or (source.location == "form" and "form_sorted" in kinds):
            return True
        return {part.argument for part in self._parts if part.kind == source.location}.issuperset(source.names)

    def _read_signature(self, fields: Fields) -> _Received:
        values = [value for value in fields.values(self.config.signature.location, self.config.signature.name) if value]
        if not values:
            raise _Refused(Refusal.SIGNATURE_MISSING)
        if self.config.mode == "static_token":
            return _Received(candidates=(), tokens=tuple(values[:MAX_CANDIDATES]))
        texts, times = _split_values(values, self.config.signature, self._kv_time_name())
        if len(set(times)) > 1:
            raise _Refused(Refusal.REPEATED_FIELD)
        decoded = [decode_digest(text, self.config.encoding, self._digest_size) for text in texts[:MAX_CANDIDATES]]
        candidates = tuple(digest for digest in decoded if digest is not None)
        if not candidates:
            raise _Refused(Refusal.SIGNATURE_MALFORMED)
        return _Received(candidates, times[0] if times else None)

    def _kv_time_name(self) -> str | None:
        timestamp = self.config.timestamp
        return timestamp.name if timestamp and timestamp.location == "kv" else None

    def _read_timestamp(self, fields: Fields, received: _Received) -> str | None:
        timestamp = self.config.timestamp
        if timestamp is None:
            return None
        text = received.timestamp if timestamp.location == "kv" else fields.single("header", timestamp.name)
        if not text:
            raise _Refused(Refusal.TIMESTAMP_MISSING)
        if not _TIMESTAMP.fullmatch(text):
            raise _Refused(Refusal.TIMESTAMP_MALFORMED)
        return text

    def _check_tolerance(self, text: str | None, received_at: datetime) -> datetime | None:
        timestamp = self.config.timestamp
        if timestamp is None or text is None:
            return None
        units = 1 if timestamp.unit == "s" else 1000
        now = (received_at - _EPOCH) // timedelta(milliseconds=1000 // units)
        tolerance = timestamp.tolerance_seconds
        if tolerance is not None and abs(now - int(text)) > tolerance * units:
            raise _Refused(Refusal.TIMESTAMP_OUT_OF_TOLERANCE)
        try:
            return _EPOCH + timedelta(milliseconds=int(text) * (1000 // units))
        except OverflowError:  # thirteen digits of seconds are the year 318857, which a datetime cannot hold
            return None

    def _content(self, fields: Fields, timestamp: str) -> bytes:
        return b"".join(self._render(part, fields, timestamp) for part in self._parts)

    def _render(self, part: ContentPart, fields: Fields, timestamp: str) -> bytes:
        match part.kind:
            case "literal":
                return part.argument.encode()
            case "body":
                return fields.body
            case "timestamp":
                return timestamp.encode()
            case "url":
                return (self.config.registered_url or "").encode()
            case "form_sorted":
                return fields.form_sorted()
            case "json":
                return fields.json_text(part.argument)
            case _:
                return _named_value(part, fields)

    def _matching_key(self, candidates: Sequence[bytes], content: bytes, secrets: Sequence[SigningSecret]) -> str:
        keys = [(secret, decode_secret(secret, self.config.secret_decoding)) for secret in secrets if secret.text]
        usable = [(secret, key) for secret, key in keys if key]
        if not usable:
            raise _Refused(Refusal.NO_SECRET)
        matched: str | None = None
        for secret, key in usable:
            expected = self._digest(key, content)
            for candidate in candidates:
                # No early exit: how many secrets there are and which one matched does not show in the time taken.
                if hmac.compare_digest(expected, candidate) and matched is None:
                    matched = secret.key_id
        if matched is None:
            raise _Refused(Refusal.SIGNATURE_MISMATCH)
        return matched

    def _digest(self, key: bytes, content: bytes) -> bytes:
        return keyed_digest(key, content, self.config.algorithm)

    def _timestamp_text(self, moment: datetime) -> str:
        unit_ms = 1 if self.config.timestamp and self.config.timestamp.unit == "ms" else 1000
        return str((moment - _EPOCH) // timedelta(milliseconds=unit_ms))

    def _write_value(self, digest: str, timestamp: str) -> str:
        where = self.config.signature
        match where.format:
            case "plain":
                return digest
            case "prefix":
                return where.prefix + digest
            case "list":
                return f"{where.keys[0]}{where.key_separator}{digest}"
            case "kv":
                time_name = self._kv_time_name()
                pairs = [(time_name, timestamp)] if time_name else []
                pairs.append((where.keys[0], digest))
                return where.pair_separator.join(f"{key}{where.key_separator}{value}" for key, value in pairs)


def compile_content(content: Sequence[str]) -> tuple[ContentPart, ...]:
    """``"{header:webhook-id}"`` becomes a part; anything that is not exactly one known placeholder is a literal."""
    parts: list[ContentPart] = []
    for position, text in enumerate(content):
        kind, argument = _placeholder(text)
        following = "".join(content[position + 1 : position + 2])
        separator = following.encode() if _placeholder(following)[0] == "literal" else b""
        parts.append(ContentPart(kind, argument, separator))
    return tuple(parts)


def _placeholder(text: str) -> tuple[str, str]:
    match = _PLACEHOLDER.fullmatch(text)
    if match is None:
        return "literal", text
    kind, argument = match.group(1), match.group(2)
    if kind in _LOCATION_OF_PLACEHOLDER and argument:
        return kind, argument
    if kind in _PLAIN_PLACEHOLDERS and not argument:
        return kind, ""
    raise InvalidSchemeConfig(f"unknown placeholder {text} in the signed content")


def _lint(config: SignatureConfig, parts: Sequence[ContentPart]) -> None:
    kinds = {part.kind for part in parts}
    problems = [*_lint_signature(config.signature, config.mode), *_lint_mode(config, kinds)]
    if config.algorithm == "sha1" and not config.allow_sha1:
        problems.append("sha1 needs allow_sha1: it is for providers that offer nothing better")
    if "url" in kinds and not config.registered_url:
        problems.append("{url} needs the registered URL")
    if (config.timestamp is not None) != ("timestamp" in kinds) and config.mode == "hmac":
        problems.append(
            "a timestamp and {timestamp} in the signed content go together: an unsigned time proves nothing"
        )
    if config.timestamp and config.timestamp.location == "kv" and config.signature.format != "kv":
        problems.append("a timestamp inside the signature's value needs the format kv")
    if config.timestamp and config.timestamp.tolerance_seconds is not None and config.timestamp.tolerance_seconds <= 0:
        problems.append("the timestamp tolerance must be a positive number of seconds")
    if problems:
        raise InvalidSchemeConfig(f"signature scheme {config.name}: " + "; ".join(problems))


def _lint_mode(config: SignatureConfig, kinds: set[str]) -> list[str]:
    if config.mode != "hmac":
        return [] if config.trust is Trust.HINT else [f"the mode {config.mode} signs no body, so its trust is hint"]
    if not kinds - {"literal", "url"}:
        return ["the signed content has nothing of the delivery in it"]
    if not kinds & {"body", "form_sorted"} and config.trust is not Trust.HINT:
        return ["without {body} in the signed content the trust is hint"]
    return []


def _lint_signature(where: SignatureField, mode: Mode) -> list[str]:
    if mode == "fetch_back":
        return []
    problems = [] if where.name else ["the signature has no name"]
    if mode == "static_token" and where.format != "plain":
        problems.append("a static token is compared whole, as plain")
    if where.format == "prefix" and not where.prefix:
        problems.append("the format prefix needs a prefix")
    if where.format in ("kv", "list") and not all((where.keys, where.key_separator, *where.keys)):
        problems.append(f"the format {where.format} needs its accepted keys and a separator")
    if (where.format == "kv" and not where.pair_separator) or (where.format == "list" and not where.item_separator):
        problems.append(f"the format {where.format} needs a separator between its items")
    return problems


def _named_value(part: ContentPart, fields: Fields) -> bytes:
    location: Location = _LOCATION_OF_PLACEHOLDER[part.kind]
    text = fields.single(location, part.argument)
    if text is None:
        raise _Refused(Refusal.CONTENT_INCOMPLETE)
    if part.kind == "query_lower":
        text = text.lower()
    value = _header_bytes(text) if location == "header" else text.encode("utf-8", "surrogateescape")
    if location != "form" and part.separator and part.separator in value:
        raise _Refused(Refusal.CONTENT_AMBIGUOUS)
    return value


def _header_bytes(text: str) -> bytes:
    """The bytes that stood on the wire; a header that did not come from a wire may hold anything."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _split_values(values: Sequence[str], where: SignatureField, time_name: str | None) -> tuple[list[str], list[str]]:
    """The candidate digests' texts and the times in every value of the signature field."""
    if where.format == "plain":
        return list(values), []
    if where.format == "prefix":
        return [value[len(where.prefix) :] for value in values if value.startswith(where.prefix)], []
    separator = where.item_separator if where.format == "list" else where.pair_separator
    items = [item.strip() for value in values for item in value.split(separator)]
    pairs = [item.partition(where.key_separator) for item in items]
    texts = [text for key, separator, text in pairs if separator and key in where.keys]
    times = [text for key, separator, text in pairs if separator and time_name is not None and key == time_name]
    return texts, times


def _matching_token(tokens: Sequence[str], secrets: Sequence[SigningSecret]) -> str:
    usable = [secret for secret in secrets if secret.text]
    if not usable:
        raise _Refused(Refusal.NO_SECRET)
    matched: str | None = None
    for secret in usable:
        expected = hashlib.sha256(secret.text.encode("utf-8", "surrogatepass")).digest()
        for token in tokens:
            # Digests have equal lengths, so the comparison does not tell how long the secret is.
            received = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
            if hmac.compare_digest(expected, received) and matched is None:
                matched = secret.key_id
    if matched is None:
        raise _Refused(Refusal.SIGNATURE_MISMATCH)
    return matched


def _event_value(fields: Fields, source: EventField | None) -> str | None:
    if source is None:
        return None
    if source.location == "json" and len(source.names) == 1:  # nearly always: the same in fewer steps
        try:
            text = fields.json_value(source.names[0])
        except FieldProblem:
            return None
        return clean_identifier(text) if text else None
    values = [fields.optional(source.location, name) for name in source.names]
    if not all(values):
        return None
    return clean_identifier(":".join(value for value in values if value))


def decode_digest(text: str, encoding: Encoding, size: int) -> bytes | None:
    """The digest's bytes, or None for a text that is not strictly that encoding of exactly that many bytes."""
    if len(text) > 4 * size:
        return None
    try:
        digest = _DIGEST_DECODERS[encoding](text.encode("ascii"))
    except (ValueError, binascii.Error):  # UnicodeEncodeError is a ValueError
        return None
    is_canonical = encoding == "hex" or encode_digest(digest, encoding).rstrip("=") == text.rstrip("=")
    return digest if len(digest) == size and is_canonical else None


def encode_digest(digest: bytes, encoding: Encoding) -> str:
    if encoding == "hex":
        return digest.hex()
    encode = base64.b64encode if encoding == "base64" else base64.urlsafe_b64encode
    return encode(digest).decode()


def _decode_hex(text: bytes) -> bytes:
    return binascii.unhexlify(text)


def _decode_base64(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _decode_base64url(text: bytes) -> bytes:
    if b"+" in text or b"/" in text:
        raise ValueError("not the URL-safe alphabet")
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


_DIGEST_DECODERS: Mapping[Encoding, Callable[[bytes], bytes]] = {
    "hex": _decode_hex,
    "base64": _decode_base64,
    "base64url": _decode_base64url,
}


def decode_secret(secret: SigningSecret, decoding: SecretDecoding) -> bytes:
    """The key's bytes; empty when the text is not what the scheme says it is (an empty key is never used)."""
    return _decode_secret(secret.text, decoding)


@lru_cache(maxsize=1024)  # settings bound how many there are
def _decode_secret(text: str, decoding: SecretDecoding) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        match decoding:
            case "utf8":
                return raw
            case "hex":
                return _decode_hex(raw)
            case "base64":
                return _decode_base64(raw)
            case "whsec":
                return _decode_base64(raw.removeprefix(b"whsec_"))
            case "sha1":
                return hashlib.sha1(raw, usedforsecurity=False).digest()
    except (ValueError, binascii.Error):
        return b""


def keyed_digest(key: bytes, content: bytes, algorithm: Algorithm) -> bytes:
    """HMAC (RFC 2104). Both blocks that the key fills are digested once and copied. OpenSSL's own function looks for
    the algorithm and digests them again each time, which takes as long as a body of 1 KB."""
    inner, outer = _keyed(key, algorithm)
    inner, outer = inner.copy(), outer.copy()
    inner.update(content)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=1024)  # settings bound how many keys there are
def _keyed(key: bytes, algorithm: Algorithm) -> tuple[hashlib._Hash, hashlib._Hash]:
    size = hashlib.new(algorithm, usedforsecurity=False).block_size
    block = (key if len(key) <= size else hashlib.new(algorithm, key).digest()).ljust(size, b"\0")
    inner, outer = bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)
    return hashlib.new(algorithm, inner), hashlib.new(algorithm, outer)


def sign(
    scheme: HmacScheme, secret: str, body: bytes, timestamp: datetime, message_id: str, *, query: str = ""
) -> dict[str, str]:
    """What ``payrail webhook send`` and the tests add to a delivery so that ``scheme`` verifies it."""
    return scheme.sign(SigningSecret(secret), body, timestamp=timestamp, message_id=message_id, query=query)
