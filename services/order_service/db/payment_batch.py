"""One transaction that settles many orders: it reads for all of them first, answers from memory, and writes at the end.

Its statements are as many for a hundred events as for one, and few: one claims, one locks and reads, one or two write
the events, one writes all the rest. Locks are taken in the order of the single path: orders by id, then products by
SKU, then the counter of the invoices, at the very end. While an order is locked, its payments, reservations, refunds
and events are nobody else's (whoever changes them locks the order first), so that what was read then is true until the
commit. Products belong to many orders; of those, only differences are written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from services.order_service.db import batch_repositories as memory
from services.order_service.db import batch_statements as sql
from services.order_service.db.unit_of_work import OrderTransaction
from services.order_service.domain.models import PaymentSnapshot
from services.order_service.domain.transitions import Standing, standing_of
from shared.db.session import driver_of
from shared.db.unit_of_work import UnitOfWork

_MONEY = frozenset({Standing.HELD, Standing.TAKEN})


class BatchUnitOfWork:
    """``async with batches() as batch: ...`` writes and commits on leaving, and then wakes the waiters."""

    def __init__(self, uow: UnitOfWork[OrderTransaction]) -> None:
        self._uow = uow

    def __call__(self) -> AbstractAsyncContextManager[PaymentBatch]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[PaymentBatch]:
        async with self._uow() as tx:
            batch = PaymentBatch(tx)
            yield batch
            await batch.flush()


class PaymentBatch:
    """Satisfies the use cases' port of that name."""

    def __init__(self, tx: OrderTransaction) -> None:
        self._tx = tx
        self.inbox = tx.inbox
        self.orders = memory.Orders()
        self.payments = memory.Payments()
        self.products = memory.Shelf()
        self.refunds = memory.Refunds()
        self.invoices = memory.Invoices()
        self.notifications = memory.Notifications()
        self.outbox = memory.Events()
        self._hints: dict[tuple[str, str], None] = {}

    def hint(self, channel: str, payload: str = "") -> None:
        self._hints[(channel, payload)] = None

    async def load(self, news: Sequence[PaymentSnapshot], *, refund_ids: Collection[str]) -> None:
        if not news:
            return
        driver = await driver_of(self._tx.connection)
        for row in await driver.fetch(sql.LOCK_AND_READ, list({payment.order_id for payment in news})):
            self.orders.take(row)
            self.products.take(row)
            self.payments.take(row)
        if refund_ids:
            self.refunds.take(await driver.fetch(sql.REFUNDS, sorted(set(refund_ids))))
        if self._may_ask_the_shelf(news):
            # Those of all orders, because locks that are taken later would be out of their order.
            self.products.take_shelf(await driver.fetch(sql.LOCK_SHELF, self.products.skus))

    def _may_ask_the_shelf(self, news: Sequence[PaymentSnapshot]) -> bool:
        """Whether money may have come for an order that is over: what it can still buy is compared under lock."""
        over = self.orders.that_may_be_reopened()
        return any(payment.order_id in over and standing_of(payment) in _MONEY for payment in news) or any(
            standing_of(payment.snapshot) in _MONEY for order_id in over for payment in self.payments.of(order_id)
        )

    async def flush(self) -> None:
        if not self.orders.has_changes and not self.refunds.changed:
            return  # old news only: the claims are all there is to commit
        driver = await driver_of(self._tx.connection)
        await self._tx.outbox.add_many(self.outbox.added)
        statement = memory.Statement()
        self.payments.write(statement)
        if self.payments.new_marks:  # of a row that one statement has changed, it changes no more
            await statement.run(driver)
            payment_ids, moments = zip(*self.payments.new_marks.items(), strict=True)
            await driver.execute(sql.MARK_LEFTOVERS, payment_ids, moments)
            statement = memory.Statement()
        self.orders.write(statement)
        self.refunds.write(statement)
        self.products.write(statement)
        self.notifications.write(statement)
        await statement.run(driver, self.invoices.issued)
        for channel, payload in _joined(self._hints):
            self._tx.hint(channel, payload)


MAX_HINT_CHARACTERS = 7000
"""PostgreSQL takes 7999 bytes."""


def _joined(hints: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of each channel as few as possible: each costs a notification in every process that listens."""
    payloads: dict[str, list[str]] = {}
    for channel, payload in hints:
        texts = payloads.setdefault(channel, [""])
        joined = f"{texts[-1]} {payload}".strip()
        if len(joined) <= MAX_HINT_CHARACTERS:
            texts[-1] = joined
        else:
            texts.append(payload)
    return [(channel, text) for channel, texts in payloads.items() for text in texts]
