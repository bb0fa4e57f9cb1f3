"""Keep a bounded copy of a delivery that was refused, for forensics; never at the expense of the answer."""

from __future__ import annotations

import structlog

from services.webhook_ingest.domain.models import Arrival, Reject
from services.webhook_ingest.domain.sanitizing import (
    REJECT_BODY_BYTES,
    REJECT_HEADER_CHARACTERS,
    safe_headers,
    safe_text,
    without_card_numbers,
)
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.use_cases.ports import UnitOfWorkPort
from shared.errors import InfrastructureError
from shared.masking import LONGEST_CARD_NUMBER
from shared.ports import Ports

log = structlog.get_logger()


async def keep_reject(
    arrival: Arrival, gateway: IngestGateway, reason: str, *, uow: UnitOfWorkPort, ports: Ports
) -> None:
    """A database that is down costs the copy and nothing else."""
    reject = _as_reject(arrival, gateway, reason, ports)
    try:
        async with uow() as tx:
            await tx.rejects.keep(reject)
    except InfrastructureError as error:
        log.warning("reject_not_kept", gateway=arrival.gateway, code=error.code)


def _as_reject(arrival: Arrival, gateway: IngestGateway, reason: str, ports: Ports) -> Reject:
    return Reject(
        id=ports.ids.new("rej"),
        gateway=arrival.gateway,
        account=arrival.account,
        reason=reason,
        received_at=arrival.received_at,
        remote_address=arrival.remote_address,
        request_id=arrival.request_id,
        headers=safe_headers(
            arrival.raw.headers, secret_names=gateway.scheme.secret_headers, characters=REJECT_HEADER_CHARACTERS
        ),
        content_type=safe_text(arrival.content_type, 200),
        body=without_card_numbers(arrival.raw.body[: REJECT_BODY_BYTES + LONGEST_CARD_NUMBER * 2])[:REJECT_BODY_BYTES],
        body_digest=arrival.digest,
        body_size=len(arrival.raw.body),
    )
