"""order_service's transaction: the shared outbox and inbox with this service's repositories."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.order_service.db.export import ExportRepository
from services.order_service.db.pictures import PictureRepository
from services.order_service.db.repositories import (
    InvoiceRepository,
    MailboxRepository,
    NotificationRepository,
    OrderPaymentRepository,
    OrderRepository,
    ProductRepository,
    RefundRepository,
    StreamTicketRepository,
)
from shared.db.session import Database
from shared.db.unit_of_work import Transaction, UnitOfWork
from shared.ports import Ports

SERVICE = "order_service"


class OrderTransaction(Transaction):
    def __init__(self, connection: AsyncConnection, *, ports: Ports) -> None:
        super().__init__(connection, service=SERVICE, ports=ports)
        self.products = ProductRepository(connection)
        self.orders = OrderRepository(connection)
        self.payments = OrderPaymentRepository(connection)
        self.refunds = RefundRepository(connection)
        self.invoices = InvoiceRepository(connection)
        self.notifications = NotificationRepository(connection)
        self.pictures = PictureRepository(connection)
        self.tickets = StreamTicketRepository(connection)
        self.export = ExportRepository(connection)
        self.mailbox = MailboxRepository(connection)


def build_unit_of_work(database: Database, ports: Ports) -> UnitOfWork[OrderTransaction]:
    return UnitOfWork(database, lambda connection: OrderTransaction(connection, ports=ports))
