"""webhook_ingest's transaction: the shared outbox with this service's repositories."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.webhook_ingest.db.repositories import DeliveryRepository, RejectRepository, ReplayRepository
from services.webhook_ingest.db.tables import SERVICE
from shared.db.session import Database
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports


class IngestTransaction(Transaction):
    def __init__(self, connection: AsyncConnection, *, ports: Ports) -> None:
        super().__init__(connection, service=SERVICE, ports=ports)
        self.deliveries = DeliveryRepository(connection)
        self.rejects = RejectRepository(connection)
        self.replays = ReplayRepository(connection)


def build_unit_of_work(database: Database, ports: Ports) -> UnitOfWork[IngestTransaction]:
    return UnitOfWork(database, lambda connection: IngestTransaction(connection, ports=ports))
