"""Messages to use cases."""

from __future__ import annotations

from services.payment_service.use_cases.apply_webhook import apply_webhook
from services.payment_service.use_cases.ports import Context
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.unit_of_work import InboxClaim


class WebhookHandler:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        await apply_webhook(WebhookReceived.model_validate(envelope.data), claim, self._context)
