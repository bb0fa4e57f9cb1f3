"""The randomness port: secrets, ids and jitter come from here, so that a seed can replay a run."""

from __future__ import annotations

import random
import secrets
from typing import Protocol


class Randomness(Protocol):
    def token_bytes(self, count: int) -> bytes:
        """Unpredictable bytes, good enough for secrets."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """For jitter; not for secrets."""
        ...


class SystemRandomness:
    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)  # noqa: TID251 - the adapter of the port

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)  # noqa: TID251 - the adapter of the port
