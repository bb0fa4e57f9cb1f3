"""An order with all that its document shows, in one statement: it is read for every change that a page hears of."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from services.order_service.db.rows import order_of, payment_of, refund_of
from services.order_service.db.tables import orders
from services.order_service.use_cases.ports import OrderView, RefundRecord
from shared.db.json_rows import with_moments
from shared.db.session import driver_of

_names = ", ".join(f"orders.{column.name}" for column in orders.columns)  # a * would change under a prepared statement

_PICTURE = f"""
    SELECT {_names},
        (SELECT json_agg(line ORDER BY position) FROM order_items AS line WHERE order_id = orders.id) AS lines,
        (SELECT json_agg(payment ORDER BY payment_id) FROM order_payments AS payment WHERE order_id = orders.id)
            AS payments,
        (SELECT json_agg(refund ORDER BY refund_id) FROM refunds AS refund WHERE order_id = orders.id) AS refunds,
        (SELECT number FROM invoices WHERE order_id = orders.id) AS invoice_number
    FROM orders WHERE id = $1
    """  # noqa: S608 - names of columns, no input


class PictureRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def find(self, order_id: str) -> OrderView | None:
        driver = await driver_of(self._connection)
        row = await driver.fetchrow(_PICTURE, order_id)
        if row is None:
            return None
        refunds = [with_moments(refund, "created_at", "updated_at") for refund in row["refunds"] or ()]
        return OrderView(
            order_of(row, row["lines"] or ()),
            tuple(
                payment_of(with_moments(payment, "created_at", "updated_at", "ask_again_at"))
                for payment in row["payments"] or ()
            ),
            tuple(RefundRecord(refund_of(each), each["created_at"], each["updated_at"]) for each in refunds),
            row["invoice_number"],
        )
