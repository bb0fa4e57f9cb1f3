"""Captures, voids and refunds at the generic gateway, and how to find out what became of one: by our reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.generic.api import MONEY, READ, GenericApi, json_with_amount
from services.payment_service.gateways.generic.reading import money_of, snapshot_of
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
    text_of,
)
from services.payment_service.gateways.looking import answer_or_look
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, InvalidAmount

_OUTCOME: Mapping[str, OutcomeStatus] = {
    "pending": OutcomeStatus.PENDING,
    "succeeded": OutcomeStatus.SUCCEEDED,
    "failed": OutcomeStatus.FAILED,
    "reversed": OutcomeStatus.FAILED,
}
_ENDS_A_HOLD = frozenset({FactKind.CANCELED, FactKind.EXPIRED, FactKind.RELEASED})

Reader = Callable[[Mapping[str, Any], MoneyCall], Outcome | None]


class MoneyCalls:
    def __init__(self, api: GenericApi) -> None:
        self._api = api

    async def capture(self, call: MoneyCall) -> Outcome:
        fields = {"reference": call.reference, "final": call.is_whole or call.is_final}
        return await self._send("captures", json_with_amount(call.amount, fields), call, _outcome_of_capture)

    async def void(self, call: MoneyCall) -> Outcome:
        return await self._send("void", b'{"reference":"%s"}' % call.reference.encode(), call, _outcome_of_void)

    async def refund(self, call: MoneyCall) -> Outcome:
        fields = {"reference": call.reference} | ({"reason": call.reason} if call.reason else {})
        return await self._send("refunds", json_with_amount(call.amount, fields), call, _outcome_of_refund)

    async def find(self, call: MoneyCall) -> Outcome | None:
        """Raises GatewayOutcomeUnknown where the gateway does not even know the payment: that proves nothing."""
        try:
            return await self._find(call)
        except GatewayRejected as error:
            raise GatewayOutcomeUnknown("the gateway refuses to say what became of it") from error

    async def _find(self, call: MoneyCall) -> Outcome | None:
        if call.kind is OperationKind.REFUND:
            refunds = await self._api.entries(_path(call, "refunds"))
            return _read(_outcome_of_refund, _ours(refunds, call), call)
        if call.kind is OperationKind.VOID:
            return _read(_outcome_of_void, await self._session(call), call)
        capture = _ours(await self._api.entries(_path(call, "captures")), call)
        if capture is None:
            return None
        # The session second: so it has what the capture took, and cannot be older than it.
        return _read(_outcome_of_capture, {**await self._session(call), "capture": capture}, call)

    async def _session(self, call: MoneyCall) -> dict[str, Any]:
        return await self._api.call("GET", f"/v1/sessions/{quote(call.target, safe='')}", READ)

    async def _send(self, path: str, payload: bytes, call: MoneyCall, reader: Reader) -> Outcome:
        async def send() -> Outcome:
            key = call.idempotency_key
            body = await self._api.call("POST", _path(call, path), MONEY, payload=payload, key=key)
            outcome = _read(reader, body, call)
            if outcome is None:
                raise GatewayOutcomeUnknown("the gateway's answer does not say that it was done")
            return outcome

        # Which codes other gateways have for "done already" nobody knows, so every refusal is a reason to look.
        return await answer_or_look(
            send, lambda: self.find(call), may_be_done=lambda error: not isinstance(error, GatewayObjectNotFound)
        )


def _read(reader: Reader, body: Mapping[str, Any] | None, call: MoneyCall) -> Outcome | None:
    if body is None:
        return None
    try:
        return reader(body, call)
    except (UnexpectedShape, InvalidAmount, ValueError) as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not understood") from error


def _outcome_of_capture(session: Mapping[str, Any], call: MoneyCall) -> Outcome:
    """The session, with the capture under ``capture``: where a session by itself has its mode.

    What we capture was held, whatever that mode: a session that is done with less taken than held has let the rest go.
    """
    capture = {"currency": call.amount.currency, **object_of(session, "capture")}
    status = _status_of(capture, call)
    snapshot = snapshot_of({**session, "capture": CaptureMode.MANUAL.value})
    return Outcome(
        status,
        identifier_of(capture, "capture_id"),
        _failure_of(capture, status),
        snapshot.references,
        snapshot.observations,
    )


def _outcome_of_void(session: Mapping[str, Any], call: MoneyCall) -> Outcome | None:
    """That the hold is gone is all that a void is about."""
    snapshot = snapshot_of(session)
    if not any(observation.kind in _ENDS_A_HOLD for observation in snapshot.observations):
        return None
    return Outcome(
        OutcomeStatus.SUCCEEDED, call.target, references=snapshot.references, observations=snapshot.observations
    )


def _outcome_of_refund(refund: Mapping[str, Any], call: MoneyCall) -> Outcome:
    status = _status_of({"currency": call.amount.currency, **refund}, call)
    return Outcome(status, identifier_of(refund, "refund_id"), _failure_of(refund, status))


def _status_of(entry: Mapping[str, Any], call: MoneyCall) -> OutcomeStatus:
    """Of another reference or amount, it is not what we asked for."""
    if optional_identifier(entry, "reference") != call.reference or money_of(entry, "amount") != call.amount:
        raise UnexpectedShape("it is another operation")
    status = _OUTCOME.get(text_of(entry, "status").lower())
    if status is None:
        raise UnexpectedShape("a status that is not known")
    return status


def _failure_of(entry: Mapping[str, Any], status: OutcomeStatus) -> str | None:
    if status is not OutcomeStatus.FAILED:
        return None
    return optional_identifier(entry, "failure_code") or text_of(entry, "status").lower()


def _ours(entries: list[dict[str, Any]], call: MoneyCall) -> dict[str, Any] | None:
    return next((entry for entry in entries if entry.get("reference") == call.reference), None)


def _path(call: MoneyCall, what: str) -> str:
    return f"/v1/payments/{quote(call.target, safe='')}/{what}"
