"""The runner: takes up operations that are due, one at a time, beside every other worker's.

It sends what was never sent (policies' own operations, and what a gateway could not be reached for), resolves what was
sent and not answered, and follows what a gateway has taken on. ``SKIP LOCKED`` and a lease keep two runners apart.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.domain.operations import Operation, OperationKind
from services.payment_service.domain.unknown_outcome import look_again_at
from services.payment_service.use_cases.drive_operation import advance
from services.payment_service.use_cases.ports import Context
from shared.errors import PayrailError
from shared.metrics import OPERATIONS_UNSETTLED

log = structlog.get_logger()


async def run_one_due(context: Context, *, taken: Callable[[], None] | None = None) -> bool:
    """Take up one operation. False when none is due. A crash leaves its lease to run out.

    ``taken`` is called before its gateway is, which may hang: there may be more to take, for others.
    """
    token = context.ids.new("lse")
    async with context.uow() as tx:
        operation = await tx.operations.take_due(
            context.clock.now(), token=token, seconds=context.operations.lease_seconds
        )
    if operation is None:
        return False
    if taken is not None:
        taken()
    try:
        after = await advance(operation.operation_id, token, context)
    except GatewayNotEnabled:
        log.error("operation_of_disabled_gateway", operation_id=operation.operation_id)
        await _put_off(operation, token, context)
        return True
    except PayrailError:
        raise  # the database is away: its lease runs out
    except Exception:
        # A bug of an adapter must not end the process again and again for the sake of one operation.
        log.exception("operation_not_advanced", operation_id=operation.operation_id)
        await _put_off(operation, token, context)
        return True
    log.info("operation_advanced", operation_id=after.operation_id, kind=after.kind, status=after.status)
    return True


async def complete_approved(payment_id: str, context: Context) -> Operation | None:
    """Complete a payment that its shopper has approved, now, because the shopper waits. None: nothing to complete."""
    async with context.uow() as tx:
        operations = await tx.operations.of_payment(payment_id)
        waiting = [o for o in operations if o.kind is OperationKind.COMPLETION and o.is_unsettled]
        if not waiting:
            return None
        token, operation = context.ids.new("lse"), waiting[-1]
        seconds = context.operations.lease_seconds
        if not await tx.operations.lease(operation.operation_id, token=token, seconds=seconds):
            return operation  # the runner was faster
    return await advance(operation.operation_id, token, context)


async def count_operations(context: Context) -> None:
    async with context.uow() as tx:
        counted = await tx.operations.count_unsettled()
    for status, count in counted.items():
        OPERATIONS_UNSETTLED.labels(status.value).set(count)


async def _put_off(operation: Operation, token: str, context: Context) -> None:
    async with context.uow() as tx:
        if await tx.operations.release(operation.operation_id, token=token):
            await tx.operations.put_off(operation.operation_id, look_again_at(operation, context.clock.now()))
