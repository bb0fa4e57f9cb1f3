"""What a scheme that fetches something is built over, besides its settings."""

from __future__ import annotations

from dataclasses import dataclass

from shared.http import HttpCaller


@dataclass(frozen=True, slots=True)
class Surroundings:
    """``http`` None: nothing can be fetched here (a command line that only signs)."""

    production: bool
    http: HttpCaller | None = None
