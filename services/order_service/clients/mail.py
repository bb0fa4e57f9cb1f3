"""Where mails go: an SMTP server, or a table that the embedded mode shows as a mailbox."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

from services.order_service.use_cases.ports import Mail, MailNotSent
from shared.settings import ConfigurationError

_DEFAULT_PORT = {"smtp": 587, "smtps": 465}


class SmtpMailer:
    """Satisfies Mailer. One connection per mail: confirmations are few, and a kept one dies unnoticed."""

    def __init__(
        self,
        url: str,
        *,
        sender: str,
        starttls: bool | None = None,
        verify_certificate: bool = True,
        timeout_seconds: float = 20.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORT or not parts.hostname:
            raise ConfigurationError("SMTP_URL looks like smtp://user:password@host:587 or smtps://host:465")
        self._host = parts.hostname
        self._port = parts.port or _DEFAULT_PORT[parts.scheme]
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender = sender
        self._implicit_tls = parts.scheme == "smtps"
        self._starttls = False if self._implicit_tls else starttls
        self._tls_context = _tls_context(verify_certificate)
        self._timeout_seconds = timeout_seconds

    async def send(self, mail: Mail) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds * 2):
                await aiosmtplib.send(
                    _message(mail, self._sender),
                    hostname=self._host,
                    port=self._port,
                    username=self._username,
                    password=self._password,
                    use_tls=self._implicit_tls,
                    start_tls=self._starttls,
                    tls_context=self._tls_context,
                    timeout=self._timeout_seconds,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            # A 5xx about the recipient will not change; a 4xx is greylisting and full mailboxes.
            permanent = all(500 <= refused.code < 600 for refused in error.recipients)
            raise MailNotSent("the recipient is refused", permanent=permanent) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ssl.SSLError) as error:
            raise MailNotSent(type(error).__name__) from error


class _MailboxTransaction(Protocol):
    @property
    def mailbox(self) -> Any: ...


class MailboxMailer:
    """Satisfies Mailer: keeps the mail in this service's own database. The same mail twice is one row."""

    def __init__(self, uow: Callable[[], AbstractAsyncContextManager[_MailboxTransaction]], *, sender: str) -> None:
        self._uow = uow
        self._sender = sender

    async def send(self, mail: Mail) -> None:
        values = {
            "message_id": mail.message_id,
            "sender": self._sender,
            "recipient": mail.recipient,
            "subject": mail.subject,
            "text_body": mail.text_body,
            "html_body": mail.html_body,
            "attachment_names": [attachment.name for attachment in mail.attachments],
            "sent_at": mail.sent_at,
        }
        async with self._uow() as tx:
            await tx.mailbox.add(values)


def mail_domain(sender: str) -> str:
    """The right-hand side of our Message-IDs."""
    return parseaddr(sender)[1].rpartition("@")[2] or "payrail.invalid"


def _message(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    name, address = parseaddr(sender)
    message["Message-ID"] = mail.message_id
    message["Date"] = format_datetime(mail.sent_at)
    message["From"] = Address(name, addr_spec=address)
    message["To"] = Address(mail.recipient_name, addr_spec=mail.recipient)
    message["Subject"] = mail.subject
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies, please
    message.set_content(mail.text_body)
    message.add_alternative(mail.html_body, subtype="html")
    for attachment in mail.attachments:
        maintype, _, subtype = attachment.content_type.partition("/")
        message.add_attachment(attachment.content, maintype=maintype, subtype=subtype, filename=attachment.name)
    return message


def _tls_context(verify_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
