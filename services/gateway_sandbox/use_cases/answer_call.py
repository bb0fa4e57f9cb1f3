"""A client calls a gateway's API: authenticate, misbehave as scripted, replay or do the work, answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from services.gateway_sandbox.domain.faults import ANY_CALL, Fault, FaultKind
from services.gateway_sandbox.gateways.port import SandboxGateway, WireAnswer, WireCall, WireError, WireRoute
from services.gateway_sandbox.use_cases.books import TransactionBooks, random_text
from services.gateway_sandbox.use_cases.expire_sessions import expire_due_sessions
from services.gateway_sandbox.use_cases.ports import SandboxTransaction, StoredAnswer
from services.gateway_sandbox.use_cases.sandbox import KeyInFlight, Sandbox
from shared.errors import InfrastructureError

OWN_ERROR_STATUS = 500
"""A gateway's idempotency layer remembers its own 500; a 502, 503 or 504 comes from in front of it and is not kept."""

UNAVAILABLE_STATUS = 503


_NOT_AN_ANSWER = "<html><body>Please stand by.</body></html>"


@dataclass(frozen=True, slots=True)
class _Answered:
    answer: WireAnswer
    replayed: bool = False


async def answer_call(gateway_name: str, call: WireCall, sandbox: Sandbox) -> WireAnswer:
    """What the gateway answers, errors included; never raises for what a caller did. Raises NotFound for no gateway."""
    gateway = sandbox.gateway(gateway_name)
    try:
        gateway.authenticate(call)
        route, call = _route_of(gateway, call)
        answered = await _answer(gateway, route, call, sandbox)
    except WireError as error:
        answered = _Answered(error.answer)
    except InfrastructureError:  # without its database the gateway is down, and says so as it would
        answered = _Answered(gateway.broken(UNAVAILABLE_STATUS))
    request_id = "req_" + random_text(sandbox.ports, 14)
    return gateway.finish(call, answered.answer, request_id, replayed=answered.replayed)


def _route_of(gateway: SandboxGateway, call: WireCall) -> tuple[WireRoute, WireCall]:
    for route in gateway.routes:
        values = route.match(call.method, call.path)
        if values is not None and (route.wants is None or route.wants(call)):
            return route, replace(call, path_values=values)
    raise gateway.no_such_route(call)


async def _answer(gateway: SandboxGateway, route: WireRoute, call: WireCall, sandbox: Sandbox) -> _Answered:
    key = gateway.idempotency_key(call)
    try:
        with sandbox.keys_in_flight.hold(gateway.name, key):
            async with sandbox.uow() as tx:
                fault = await tx.faults.take(gateway.name, (route.operation, *route.also, ANY_CALL))
            early = await _fault_before_work(gateway, fault, sandbox)
            if early is not None and not (early.status == OWN_ERROR_STATUS and key):
                return _Answered(early)
            answered = await _work(gateway, route, call, key, fault, early, sandbox)
    except KeyInFlight:
        raise gateway.key_in_use() from None
    return _fault_after_work(gateway, fault, answered)


async def _fault_before_work(gateway: SandboxGateway, fault: Fault | None, sandbox: Sandbox) -> WireAnswer | None:
    match fault:
        case Fault(kind=FaultKind.DELAY):
            await sandbox.ports.clock.sleep(fault.seconds)
        case Fault(kind=FaultKind.TIMEOUT_BEFORE):
            return WireAnswer(504, "", hold_seconds=fault.seconds)
        case Fault(kind=FaultKind.RATE_LIMIT):
            return gateway.too_busy(fault.retry_after_seconds)
        case Fault(kind=FaultKind.ERROR_5XX, after_work=False):
            return gateway.broken(fault.status)
    return None


def _fault_after_work(gateway: SandboxGateway, fault: Fault | None, answered: _Answered) -> _Answered:
    match fault:
        case Fault(kind=FaultKind.TIMEOUT_AFTER):
            return _Answered(replace(answered.answer, hold_seconds=fault.seconds))
        case Fault(kind=FaultKind.ERROR_5XX, after_work=True):
            return _Answered(gateway.broken(fault.status))
        case Fault(kind=FaultKind.UNPARSABLE):  # what stands before a gateway answers, with a page of its own
            return _Answered(replace(answered.answer, body=_NOT_AN_ANSWER))
    return answered


async def _work(
    gateway: SandboxGateway,
    route: WireRoute,
    call: WireCall,
    key: str | None,
    fault: Fault | None,
    instead: WireAnswer | None,
    sandbox: Sandbox,
) -> _Answered:
    """One transaction: the stored answer, or the work and its answer. ``instead`` is stored without any work."""
    async with sandbox.uow() as tx:
        stored = await _stored_answer(gateway, call, key, tx)
        if stored is not None:
            return _Answered(stored, replayed=True)
        books = TransactionBooks(tx, gateway=gateway.name, ports=sandbox.ports, idempotency_key=key, fault=fault)
        answer, is_kept = (instead, True) if instead else await _handled(gateway, route, call, fault, books, tx)
        if key is not None and is_kept:
            remembered = _remembered(gateway, fault, answer)
            await tx.answers.add(gateway.name, key, StoredAnswer(_fingerprint(call), remembered), books.now)
        has_news = await books.enqueue_announced()
    if has_news:
        sandbox.wake_deliverer()
    return _Answered(answer)


async def _stored_answer(
    gateway: SandboxGateway, call: WireCall, key: str | None, tx: SandboxTransaction
) -> WireAnswer | None:
    if key is None:
        return None
    if not await tx.answers.lock(gateway.name, key):
        raise gateway.key_in_use()
    stored = await tx.answers.find(gateway.name, key)
    if stored is not None and stored.fingerprint != _fingerprint(call):
        raise gateway.key_reused(key)
    return stored.answer if stored is not None else None


async def _handled(
    gateway: SandboxGateway,
    route: WireRoute,
    call: WireCall,
    fault: Fault | None,
    books: TransactionBooks,
    tx: SandboxTransaction,
) -> tuple[WireAnswer, bool]:
    """The handler's answer, and whether it is one to remember; a refusal undoes what the handler had begun."""
    await expire_due_sessions(gateway, books, tx)
    try:
        if fault is not None and fault.kind is FaultKind.REJECT:
            raise gateway.refusal(route.operation, fault.code)
        async with tx.savepoint():
            return await route.handler(call, books), True
    except WireError as error:
        return error.answer, error.stored


def _remembered(gateway: SandboxGateway, fault: Fault | None, answer: WireAnswer) -> WireAnswer:
    match fault:
        case Fault(kind=FaultKind.ERROR_5XX, status=status) if status == OWN_ERROR_STATUS:
            return gateway.broken(status)
    return answer


def _fingerprint(call: WireCall) -> bytes:
    return hashlib.sha256(b"\0".join((call.method.encode(), call.path.encode(), call.body))).digest()
