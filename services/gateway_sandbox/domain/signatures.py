"""HMAC-SHA256 in the text forms that gateways put into their headers."""

from __future__ import annotations

import hashlib
import hmac


def hmac_sha256_hex(secret: str, content: bytes) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def split_secrets(configured: str) -> tuple[str, ...]:
    """Several secrets are separated by commas while one is being rotated; the first is the current one."""
    return tuple(secret.strip() for secret in configured.split(",") if secret.strip())
