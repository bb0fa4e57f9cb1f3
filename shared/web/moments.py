"""Times as callers may write them: RFC 3339, of an age that every zone and database can hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator


def _only_rfc3339(value: object) -> object:
    """Pydantic would also take a number, and guess whether it counts seconds or milliseconds."""
    if not isinstance(value, str | datetime) or (isinstance(value, str) and "T" not in value.upper()):
        raise ValueError("is not an RFC 3339 time")
    return value


def _of_this_age(value: datetime) -> datetime:
    if not 2000 <= value.year < 2200:  # what lies at the ends of the calendar cannot be turned into UTC
        raise ValueError("not a time of this age")
    return value


MomentIn = Annotated[AwareDatetime, BeforeValidator(_only_rfc3339), AfterValidator(_of_this_age)]
