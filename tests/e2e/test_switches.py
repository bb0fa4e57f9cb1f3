"""`DATABASE_URL` and `RABBITMQ_URL` replace the embedded parts of `payrail dev`, and change nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.e2e.shop import Shop
from tests.e2e.stack import EmbeddedStack
from tests.support.rabbitmq import RabbitMQServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("distributed")]


async def test_the_embedded_mode_runs_on_a_given_database_and_a_given_broker(
    create_database: Callable[[], str], vhost_url: str, rabbitmq: RabbitMQServer
) -> None:
    stack = EmbeddedStack({"DATABASE_URL": create_database(), "RABBITMQ_URL": vhost_url})
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, stack.start)
    shop = Shop(stack)
    try:
        order = await shop.order()
        session = await shop.pay(order, "stripe")
        await shop.settle("stripe", session["gateway_reference"])
        await shop.wait_for(order, payment_status="paid")
        ready = (await shop.http.get(f"{stack.order_url}/readyz")).json()
        assert (ready["status"], ready["missing"]) == ("ok", [])
        assert not (stack.directory / "data" / "postgres").exists(), "no PostgreSQL of its own was started"
        queues = rabbitmq.rabbitmqctl("list_queues", "-p", vhost_url.rpartition("/")[2], "name", "--no-table-headers")
        assert "order_service.payments" in queues
    finally:
        await shop.close()
        await loop.run_in_executor(None, stack.process.terminate)


async def test_gateway_settings_of_the_environment_win_over_the_development_ones() -> None:
    secrets = {"WEBHOOK_SECRET": "a-secret-of-the-environment", "STRIPE_WEBHOOK_SECRET": "whsec_environment"}
    stack = EmbeddedStack(secrets)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, stack.start)
    shop = Shop(stack)
    try:
        body = {"payment_id": "gp_x", "order_id": "ord_x", "status": "completed", "amount": 1.00, "currency": "USD"}
        assert (await shop.webhook(body, secret="a-secret-of-the-environment")).status_code == 200
        assert (await shop.webhook(body, secret="any-other-secret-there-may-be")).status_code == 401
        order = await shop.order()
        session = await shop.pay(order, "stripe")
        await shop.settle("stripe", session["gateway_reference"])
        await shop.wait_for(order, payment_status="paid")
    finally:
        await shop.close()
        await loop.run_in_executor(None, stack.close)
