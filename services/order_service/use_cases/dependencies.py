"""What most use cases of this service work with, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from services.order_service.use_cases.ports import PaymentsClient, UnitOfWorkFactory
from shared.ports import Ports


@dataclass(frozen=True, slots=True)
class Shop:
    """Who sells: printed on invoices and mails as it was on the day of the sale."""

    name: str
    address: str = ""
    tax_id: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class OrderRules:
    """The limits that an installation may choose."""

    order_lifetime: timedelta = timedelta(minutes=30)
    max_open_orders_per_email: int = 20
    return_origins: frozenset[str] = frozenset()
    allow_insecure_loopback: bool = False


@dataclass(frozen=True, slots=True)
class Dependencies:
    uow: UnitOfWorkFactory
    payments: PaymentsClient
    ports: Ports
    shop: Shop
    rules: OrderRules
    command_key: bytes | None = field(default=None, repr=False)
    """Signs the commands that ask payment_service to give money back. None: nothing is asked back by itself."""
