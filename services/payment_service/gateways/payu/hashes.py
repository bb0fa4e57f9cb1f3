"""PayU's two request hashes: SHA-512 over the values joined by pipes, the salt last (fact sheet: Hashes).

The third one, of what PayU sends back, is verified in webhook_ingest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

HASHED = ("key", "txnid", "amount", "productinfo", "firstname", "email", "udf1", "udf2", "udf3", "udf4", "udf5")
"""In this order; udf6 to udf10 follow, always empty."""

_EMPTY_FIELDS = ("",) * 5


def form_hash(fields: Mapping[str, str], salt: str) -> str:
    """Of the form that opens the payment page. A pipe inside a value would make two forms hash alike."""
    values = [fields.get(name, "") for name in HASHED]
    assert not any("|" in value for value in values), "cleaned before it is hashed"
    return _sha512("|".join((*values, *_EMPTY_FIELDS, salt)))


def command_hash(key: str, command: str, var1: str, salt: str) -> str:
    """Of a call of the API: whatever else it carries, only ``var1`` is covered."""
    return _sha512(f"{key}|{command}|{var1}|{salt}")


def _sha512(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()
