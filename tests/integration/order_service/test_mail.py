"""The confirmation: committed with the payment, sent later, exactly one visible, never in the way (failure O12)."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from email.policy import default
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI

from services.order_service.api.mailbox import build_mailbox_router
from services.order_service.clients.mail import MailboxMailer, SmtpMailer
from services.order_service.use_cases.ports import Mailer, MailNotSent
from services.order_service.use_cases.send_notifications import send_due_notifications
from services.order_service.worker import send_mails
from shared.settings import ConfigurationError
from tests.integration.order_service.conftest import World
from tests.support.clock import FakeClock
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS

SENDER = "Moka & Söhne <orders@shop.example>"


class Inbox:
    """A mail server's handler that keeps what it takes, or refuses with a given answer."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.answer: str | None = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.answer is not None:
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.messages.append(email.message_from_bytes(envelope.content, policy=default))
        return "250 OK"


@pytest.fixture
async def inbox() -> AsyncIterator[tuple[Inbox, str]]:
    handler, port = Inbox(), free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, ready_timeout=PATIENCE_SECONDS)
    controller.start()
    yield handler, f"smtp://127.0.0.1:{port}"
    controller.stop()


async def send(world: World, mailer: Mailer) -> None:
    container = world.container
    await send_due_notifications(container.deps, mailer, container.invoices, mail_domain=container.mail_domain)


async def test_a_paid_order_is_confirmed_by_one_mail_with_its_invoice(world: World, inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox
    mailer = SmtpMailer(url, sender=SENDER)
    order = await world.paid_order(customer={"email": "ada@example.com", "name": "Ada „Augusta“, Countess"})
    await send(world, mailer)
    await send(world, mailer)
    (message,) = handler.messages
    assert message["Message-ID"] == f"<order-paid.{order.id}@payrail.invalid>"
    assert message["To"].addresses[0].addr_spec == "ada@example.com"
    assert message["To"].addresses[0].display_name == "Ada „Augusta“, Countess"
    assert message["From"].addresses[0].display_name == "Moka & Söhne"
    assert "INV-000001" in message["Subject"]
    text = message.get_body(("plain",)).get_content()
    assert "39.00 EUR" in text
    assert order.id in text
    assert "39.00 EUR" in message.get_body(("html",)).get_content()
    (attachment,) = message.iter_attachments()
    assert attachment.get_filename() == "INV-000001.pdf"
    assert attachment.get_content().startswith(b"%PDF")
    assert order.document["client_secret"] not in message.as_string()


async def test_an_unpaid_order_gets_no_mail(world: World) -> None:
    await world.open_session(await world.order())
    await send_mails(world.container)
    assert world.mailer.sent == []


async def test_a_mail_server_that_is_down_delays_the_mail_and_nothing_else(world: World, clock: FakeClock) -> None:
    nobody = SmtpMailer(f"smtp://127.0.0.1:{free_port()}", sender=SENDER)
    order = await world.paid_order()
    assert (await world.see(order))["payment_status"] == "paid"
    waits = []
    for _ in range(3):
        before = clock.now()
        await send(world, nobody)
        (row,) = await world.rows("SELECT next_attempt_at, attempts, last_error FROM notifications")
        waits.append(int((row["next_attempt_at"] - before).total_seconds()))
        clock.move(waits[-1])
    assert waits == [10, 20, 40]
    await send_mails(world.container)
    await send_mails(world.container)
    assert [mail.recipient for mail in world.mailer.sent] == ["ada@example.com"]


async def test_a_crash_after_sending_repeats_the_mail_under_the_same_id(world: World, clock: FakeClock) -> None:
    order = await world.paid_order()
    mailbox = MailboxMailer(world.container.uow, sender=SENDER)

    class DiesAfterSending:
        async def send(self, mail: Any) -> None:
            await mailbox.send(mail)
            raise asyncio.CancelledError  # as when its process ends

    await send(world, DiesAfterSending())
    await send(world, mailbox)  # still leased to the one that died
    assert await world.value("SELECT count(*) FROM notifications WHERE sent_at IS NULL") == 1
    clock.move(121)
    await send(world, mailbox)
    assert await world.value("SELECT count(*) FROM notifications WHERE sent_at IS NULL") == 0
    rows = await world.rows("SELECT message_id, recipient FROM mailbox_messages")
    assert rows == [{"message_id": f"<order-paid.{order.id}@payrail.invalid>", "recipient": "ada@example.com"}]


@pytest.mark.parametrize(("answer", "is_permanent"), [("550 no such user", True), ("451 greylisted, come back", False)])
async def test_a_refused_recipient_is_given_up_on_only_when_the_refusal_is_final(
    world: World, inbox: tuple[Inbox, str], answer: str, is_permanent: bool
) -> None:
    handler, url = inbox
    handler.answer = answer
    await world.paid_order()
    await send(world, SmtpMailer(url, sender=SENDER))
    (row,) = await world.rows("SELECT given_up_at, attempts FROM notifications")
    assert (row["given_up_at"] is not None, row["attempts"]) == (is_permanent, 1)


async def test_slow_mails_are_all_sent_within_the_lease_of_their_batch(world: World, clock: FakeClock) -> None:
    """Another replica would take over what is not sent by then, and the customer would get it twice."""
    for _ in range(10):
        await world.paid_order()
    sent: list[str] = []
    all_are_waiting = asyncio.Barrier(10)

    class SlowServer:
        async def send(self, mail: Any) -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await all_are_waiting.wait()  # one after the other, ten slow sendings outlast any lease
            sent.append(mail.message_id)

    await send(world, SlowServer())
    assert len(set(sent)) == len(sent) == 10


async def test_a_mail_that_breaks_its_sender_holds_up_nobody_and_is_given_up_on(world: World, clock: FakeClock) -> None:
    broken, fine = await world.paid_order(), await world.paid_order()

    class BreaksOnOne:
        async def send(self, mail: Any) -> None:
            if broken.id in mail.message_id:
                raise ValueError("a header that no library can write")
            await world.mailer.send(mail)

    for _ in range(31):
        await send(world, BreaksOnOne())
        clock.move(3601)
    assert [fine.id in mail.message_id for mail in world.mailer.sent] == [True]
    (row,) = await world.rows("SELECT attempts, given_up_at, last_error FROM notifications WHERE sent_at IS NULL")
    assert (row["attempts"], row["given_up_at"] is not None, row["last_error"]) == (30, True, "ValueError")


async def test_two_mailers_send_each_mail_once(world: World) -> None:
    for _ in range(5):
        await world.paid_order()
    await asyncio.gather(*(send_mails(world.container) for _ in range(4)))
    assert len({mail.message_id for mail in world.mailer.sent}) == len(world.mailer.sent) == 5


async def test_after_a_day_of_failures_the_mail_is_given_up_on(world: World, clock: FakeClock) -> None:
    await world.paid_order()
    world.mailer.failures = [MailNotSent("down") for _ in range(10)]
    async with world.container.database.begin() as connection:
        await connection.exec_driver_sql("UPDATE notifications SET attempts = 27")
    for _ in range(5):
        await send_mails(world.container)
        clock.move(3601)
    (row,) = await world.rows("SELECT attempts, given_up_at FROM notifications")
    assert (row["attempts"], row["given_up_at"] is not None) == (30, True)


async def test_the_mailbox_shows_what_would_have_been_sent(world: World) -> None:
    order = await world.paid_order()
    await send(world, MailboxMailer(world.container.uow, sender=SENDER))
    application = FastAPI()
    application.include_router(build_mailbox_router(world.container.uow))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url="http://mail.test") as http:
        (mail,) = (await http.get("/mailbox/messages")).json()["data"]
    assert mail["recipient"] == "ada@example.com"
    assert mail["attachment_names"] == ["INV-000001.pdf"]
    assert order.id in mail["html_body"]


@pytest.mark.parametrize("url", ["", "mail.example", "http://mail.example", "smtp://", "smtp:///x"])
def test_a_wrong_smtp_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SMTP_URL"):
        SmtpMailer(url, sender=SENDER)
