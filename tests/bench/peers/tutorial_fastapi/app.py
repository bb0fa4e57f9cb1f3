"""The handler of the tutorials: FastAPI and the SQLAlchemy ORM; payment and order are updated before the answer.

As FastAPI's documentation has it: a session by dependency, and because the session blocks, a plain ``def`` handler,
which runs in the thread pool. The raw body, which the signature is about, comes from an async dependency.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

_SECRET = os.environ["PEER_SECRET"].encode()
_engine = create_engine(os.environ["PEER_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
_sessions = sessionmaker(_engine)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    total: Mapped[int]
    paid_at: Mapped[datetime | None]


class Payment(Base):
    __tablename__ = "payments"
    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"))
    amount: Mapped[int]
    status: Mapped[str]
    gateway_reference: Mapped[str | None]
    order: Mapped[Order] = relationship()


app = FastAPI()


def database() -> Iterator[Session]:
    with _sessions() as session:
        yield session


async def raw_body(request: Request) -> bytes:
    return await request.body()


@app.post("/webhooks")
def receive(
    request: Request, body: Annotated[bytes, Depends(raw_body)], session: Annotated[Session, Depends(database)]
) -> dict[str, str]:
    expected = hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise HTTPException(401)
    event = json.loads(body)
    payment = session.get(Payment, event["transaction_id"])
    if payment is None:
        raise HTTPException(404)
    if event["status"] == "completed" and payment.status != "paid":
        payment.status = "paid"
        payment.gateway_reference = event["payment_id"]
        payment.order.status = "paid"
        payment.order.paid_at = datetime.now(UTC).replace(tzinfo=None)
        session.commit()
    return {"status": "accepted"}
