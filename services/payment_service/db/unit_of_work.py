"""A transaction of payment_service."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.repositories import Attempts, Facts, Parked, Payments
from shared.db.session import Database
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports


class PaymentTransaction(Transaction):
    def __init__(self, connection: AsyncConnection, *, ports: Ports) -> None:
        super().__init__(connection, service="payment_service", ports=ports)
        self.payments = Payments(connection)
        self.attempts = Attempts(connection)
        self.facts = Facts(connection)
        self.parked = Parked(connection)


def unit_of_work(database: Database, ports: Ports) -> UnitOfWork[PaymentTransaction]:
    return UnitOfWork(database, lambda connection: PaymentTransaction(connection, ports=ports))
