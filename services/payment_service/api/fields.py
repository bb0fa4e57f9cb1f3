"""Fields that several of this service's documents share."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

GatewayName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,31}$")]


def _storable(value: str) -> str:
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("a character that cannot be stored")
    return value


def _web_address(value: str) -> str:
    if not urlsplit(value).hostname:  # raises ValueError for what is no address at all
        raise ValueError("no host")
    return value


Storable = AfterValidator(_storable)
"""For every text that reaches the database: PostgreSQL takes neither NUL nor a lone surrogate."""

OptionalStorable = AfterValidator(lambda value: value if value is None else _storable(value))

Text = Annotated[str, StringConstraints(min_length=1, max_length=250, strip_whitespace=True), Storable]
Url = Annotated[
    str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s]+$"), Storable, AfterValidator(_web_address)
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MoneyIn(Strict):
    amount_minor: Annotated[int, Field(ge=1, le=MAX_AMOUNT_MINOR)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

    @field_validator("currency")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CURRENCY_EXPONENT:
            raise ValueError("not an ISO 4217 currency")
        return value

    def to_money(self) -> Money:
        return Money(self.amount_minor, self.currency)


class MoneyOut(BaseModel):
    amount_minor: int
    currency: str

    @classmethod
    def of(cls, money: Money) -> MoneyOut:
        return cls(amount_minor=money.amount_minor, currency=money.currency)
