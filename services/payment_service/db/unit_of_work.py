"""A transaction of payment_service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from services.payment_service.db.batch import BatchTransaction, load
from services.payment_service.db.batch_statements import BatchStatements
from services.payment_service.db.exports import Exports
from services.payment_service.db.ledger import Ledger
from services.payment_service.db.operations import Disputes, Operations
from services.payment_service.db.repositories import Attempts, Facts, Parked, Payments
from services.payment_service.db.timeline import Timeline
from services.payment_service.use_cases.recording_ports import Wanted
from shared.db.session import Database, driver_of
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports


class PaymentTransaction(Transaction):
    def __init__(self, connection: AsyncConnection, *, ports: Ports) -> None:
        super().__init__(connection, service="payment_service", ports=ports)
        self.payments = Payments(connection)
        self.attempts = Attempts(connection)
        self.facts = Facts(connection)
        self.parked = Parked(connection)
        self.operations = Operations(connection)
        self.disputes = Disputes(connection)
        self.timeline = Timeline(connection)
        self.ledger = Ledger(connection)
        self.exports = Exports(connection)
        self._ids = ports.ids

    def new_id(self, prefix: str) -> str:
        return self._ids.new(prefix)

    def new_reference(self) -> str:
        return self._ids.new_reference()

    @asynccontextmanager
    async def together(
        self, consumer: str, message_ids: Sequence[str], wanted: Mapping[str, Wanted]
    ) -> AsyncIterator[BatchTransaction]:
        statements = BatchStatements(await driver_of(self.connection))
        batch = BatchTransaction(self, await load(consumer, message_ids, wanted, statements), statements)
        yield batch
        await batch.write()


def unit_of_work(database: Database, ports: Ports) -> UnitOfWork[PaymentTransaction]:
    return UnitOfWork(database, lambda connection: PaymentTransaction(connection, ports=ports))
