"""A transaction of the reconciler."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.cases import Cases
from services.reconciler.db.mirror import Mirror
from services.reconciler.db.reports import Reports
from services.reconciler.db.repositories import Leases, Pauses, Runs, SweepDays, Watched
from services.reconciler.db.settlement import Settlement
from services.reconciler.db.settlement_files import Files
from shared.db.session import Database
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports


class ReconcilerTransaction(Transaction):
    def __init__(self, connection: AsyncConnection, *, ports: Ports) -> None:
        super().__init__(connection, service="reconciler", ports=ports)
        self.watched = Watched(connection)
        self.runs = Runs(connection)
        self.pauses = Pauses(connection)
        self.sweep_days = SweepDays(connection)
        self.leases = Leases(connection)
        self.mirror = Mirror(connection)
        self.files = Files(connection)
        self.settlement = Settlement(connection)
        self.cases = Cases(connection)
        self.reports = Reports(connection)


def unit_of_work(database: Database, ports: Ports) -> UnitOfWork[ReconcilerTransaction]:
    return UnitOfWork(database, lambda connection: ReconcilerTransaction(connection, ports=ports))
