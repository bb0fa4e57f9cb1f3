"""The committed event contract: what other teams generate their types from is what the models say, and never breaks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from shared.contracts.catalogue import CATALOGUE, read_event
from shared.contracts.commands import (
    OrderCancelRequested,
    OrderConfirmRequested,
    PaymentSyncRequested,
    RefundRequested,
    SettlementBooked,
)
from shared.contracts.documents import (
    DIRECTORY,
    WRITE_COMMAND,
    ContractWouldBreak,
    asyncapi_document,
    breaking_changes,
    breaking_differences,
    differences,
    event_schema,
    render,
    write,
)
from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.order_events import OrderEventData
from shared.contracts.payment_events import (
    CaptureEventData,
    DisputeEventData,
    GatewayHealthChanged,
    PaymentAuthorizationExpiring,
    PaymentEventData,
    RefundEventData,
)
from shared.contracts.reconciliation_events import CaseEventData, ReconciliationCaseResolved, ReconciliationRunCompleted
from shared.contracts.topology import QUEUES
from shared.contracts.webhook_events import WebhookParked, WebhookReceived
from shared.masking import MASK, redact_body
from tests.support.clock import A_MOMENT

A_TYPE = "payment.captured.v1"

A_PAYMENT: Mapping[str, Any] = {
    "payment_id": "pay_01",
    "order_id": "ord_01",
    "gateway": "stripe",
    "status": "captured",
    "version": 3,
    "amount": 12500,
    "currency": "KWD",
    "amount_captured": 12500,
    "occurred_at": A_MOMENT,
}
A_COMMAND: Mapping[str, Any] = {"sender": "reconciler", "command_key": "case_01:confirm_order", "signature": "0f" * 32}
A_CASE: Mapping[str, Any] = {"case_id": "case_01", "kind": "orders", "scenario": "late_payment", "payment_id": "pay_01"}
SAMPLES: Mapping[type[EventData], Mapping[str, Any]] = {
    # A family stands before the one that it is part of.
    CaptureEventData: {
        **A_PAYMENT,
        "capture_id": "cap_01",
        "capture_status": "succeeded",
        "capture_amount": 12500,
        "is_final": True,
    },
    RefundEventData: {**A_PAYMENT, "refund_id": "ref_01", "refund_status": "succeeded", "refund_amount": 500},
    DisputeEventData: {**A_PAYMENT, "dispute_id": "dsp_01", "dispute_status": "open", "dispute_amount": 12500},
    PaymentAuthorizationExpiring: {**A_PAYMENT, "capture_before": A_MOMENT},
    PaymentEventData: A_PAYMENT,
    GatewayHealthChanged: {
        "gateway": "stripe",
        "operation_class": "money",
        "state": "open",
        "previous_state": "closed",
        "retry_after_seconds": 30,
    },
    RefundRequested: {
        "sender": "order_service",
        "command_key": "pay_01:late_payment",
        "signature": "0f" * 32,
        "payment_id": "pay_01",
        "order_id": "ord_01",
        "reason": "late_payment",
    },
    PaymentSyncRequested: {**A_COMMAND, "payment_id": "pay_01"},
    OrderConfirmRequested: {**A_COMMAND, "order_id": "ord_01", "payment": A_PAYMENT},
    OrderCancelRequested: {**A_COMMAND, "order_id": "ord_01", "payment_id": "pay_01", "payment": A_PAYMENT},
    SettlementBooked: {**A_COMMAND, "gateway": "stripe", "file_id": "stf_01", "currency": "KWD", "fees_minor": 250},
    ReconciliationCaseResolved: {**A_CASE, "resolution": "settled", "resolved_by": "run_01"},
    CaseEventData: A_CASE,
    OrderEventData: {
        "order_id": "ord_01",
        "status": "confirmed",
        "payment_status": "paid",
        "version": 2,
        "total": 12500,
        "currency": "KWD",
    },
    WebhookReceived: {
        "delivery_id": "whd_01",
        "gateway": "stripe",
        "trust": "full",
        "received_at": A_MOMENT,
        "content_type": "application/json",
        "payload": "{}",
    },
    WebhookParked: {"delivery_id": "whd_01", "gateway": "stripe", "references": ["cs_1"], "received_at": A_MOMENT},
    ReconciliationRunCompleted: {
        "run_id": "run_01",
        "kind": "sweep",
        "started_at": A_MOMENT,
        "finished_at": A_MOMENT,
        "checked": 3,
        "changed": 1,
        "failed": 0,
    },
}
"""What an event of each family carries; a new family needs a line here."""

PERSONAL_NAMES_WITHOUT_PERSONS: frozenset[str] = frozenset({"signature"})
"""Fields named like personal data or secrets that carry none: a command's signature is worth nothing without its key,
and is for that one command."""


def an_event(type_: str, **changes: Any) -> EventEnvelope:
    model = CATALOGUE[type_]
    sample = next(values for family, values in SAMPLES.items() if issubclass(model, family))
    return EventEnvelope(
        id="evt_01",
        type=type_,
        source="/payrail/tests",
        subject="subject_01",
        time=A_MOMENT,
        sequence=1,
        correlationid="ord_01",
        data=model.model_validate({**sample, **changes}).model_dump(mode="json"),
    )


def fields_of(schema: Any) -> Iterator[str]:
    """The names of all fields, at any depth."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for each in schema.values():
            yield from fields_of(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from fields_of(each)


def references_in(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if isinstance(document.get("$ref"), str):
            yield document["$ref"]
        for each in document.values():
            yield from references_in(each)
    elif isinstance(document, list):
        for each in document:
            yield from references_in(each)


# --- The committed documents ------------------------------------------------------------------------------------------


def test_the_committed_documents_are_what_the_models_give() -> None:
    assert differences() == [], f"the event contract has changed; if that is meant, run `{WRITE_COMMAND}` and commit"


def test_the_models_do_not_break_consumers_of_the_committed_documents() -> None:
    assert breaking_differences() == []


def test_rendering_twice_gives_the_same_bytes() -> None:
    assert render() == render()


def test_writing_makes_a_directory_equal_to_the_models(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / f"{A_TYPE}.json").write_text(json.dumps({**event_schema(A_TYPE), "title": "an older text"}))

    assert f"schemas/{A_TYPE}.json differs from the models" in differences(tmp_path)
    assert "asyncapi.json is missing" in differences(tmp_path)
    assert sorted(write(tmp_path)) == sorted(render())
    assert differences(tmp_path) == []
    assert write(tmp_path) == []


def test_a_schema_of_a_type_that_is_gone_is_reported_and_not_removed_silently(tmp_path: Path) -> None:
    write(tmp_path)
    gone = tmp_path / "schemas" / "payment.forgotten.v1.json"
    gone.write_text((tmp_path / "schemas" / f"{A_TYPE}.json").read_text())

    assert differences(tmp_path) == ["schemas/payment.forgotten.v1.json is of no event type"]
    with pytest.raises(ContractWouldBreak, match=r"payment\.forgotten\.v1: the type is gone"):
        write(tmp_path)
    assert gone.exists()
    assert write(tmp_path, allow_breaking=True) == ["schemas/payment.forgotten.v1.json"]
    assert not gone.exists()


def test_writing_refuses_a_breaking_change_and_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "schemas" / f"{A_TYPE}.json"
    promised = json.loads(path.read_text())
    promised["properties"]["data"]["properties"]["amount_tipped"] = {"type": "integer"}
    path.write_text(json.dumps(promised))
    before = path.read_text()

    with pytest.raises(ContractWouldBreak) as refused:
        write(tmp_path)
    assert refused.value.changes == (f"{A_TYPE}: data.amount_tipped is gone",)
    assert path.read_text() == before


# --- What breaks a consumer -------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]
"""Changes the ``data`` of the event's schema in place."""

BREAKING: Mapping[str, tuple[Change, str]] = {
    "a removed field": (lambda data: data["properties"].pop("reason"), "data.reason is gone"),
    "a changed type": (
        lambda data: data["properties"].update(amount={"type": "string"}),
        "data.amount was integer and is string",
    ),
    "a field that may be null now": (
        lambda data: data["properties"].update(order_id={"anyOf": [{"type": "string"}, {"type": "null"}]}),
        "data.order_id was string and is null or string",
    ),
    "a required field that is optional now": (
        lambda data: data["required"].remove("order_id"),
        "data.order_id was required and is optional now",
    ),
    "an optional field that is required now": (
        lambda data: data["required"].append("reason"),
        "data.reason is required now, and stored events may lack it",
    ),
    "a new required field": (
        lambda data: (data["properties"].update(tip={"type": "integer"}), data["required"].append("tip")),
        "data.tip is required now, and stored events may lack it",
    ),
    "an enum with a new value": (
        lambda data: data["properties"]["status"]["enum"].append("pondering"),
        "data.status may be pondering now",
    ),
    "an enum that is any text now": (
        lambda data: data["properties"]["status"].pop("enum"),
        "data.status may be any value now",
    ),
    "a dropped pattern": (
        lambda data: data["properties"]["currency"].pop("pattern"),
        "data.currency had the pattern ^[A-Z]{3}$ and has none now",
    ),
    "a widened bound": (
        lambda data: data["properties"]["version"].update(minimum=0),
        "data.version had the minimum 1 and has 0 now",
    ),
    "a dropped bound": (
        lambda data: data["properties"]["amount"].pop("maximum"),
        "data.amount had the maximum 1000000000000000000 and has none now",
    ),
}

HARMLESS: Mapping[str, Change] = {
    "a new optional field": lambda data: data["properties"].update(note={"type": "string"}),
    "a dropped enum value": lambda data: data["properties"]["status"]["enum"].remove("expired"),
    "a narrowed bound": lambda data: data["properties"]["version"].update(minimum=2),
    "a new pattern": lambda data: data["properties"]["order_id"].update(pattern="^ord_"),
    "another description": lambda data: data["properties"]["amount"].update(description="the price"),
}


def changed(change: Change) -> dict[str, Any]:
    schema = copy.deepcopy(event_schema(A_TYPE))
    change(schema["properties"]["data"])
    return schema


@pytest.mark.parametrize("kind", BREAKING)
def test_a_breaking_change_is_detected(kind: str) -> None:
    change, sentence = BREAKING[kind]
    assert breaking_changes(event_schema(A_TYPE), changed(change)) == [sentence]


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_harmless_change_is_let_through(kind: str) -> None:
    assert breaking_changes(event_schema(A_TYPE), changed(HARMLESS[kind])) == []


def test_a_renamed_field_is_a_removed_one() -> None:
    def rename(data: dict[str, Any]) -> None:
        data["properties"]["why"] = data["properties"].pop("reason")

    assert breaking_changes(event_schema(A_TYPE), changed(rename)) == ["data.reason is gone"]


def test_changes_inside_lists_and_behind_references_are_seen() -> None:
    old = {
        "type": "object",
        "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
        "$defs": {"Line": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    }
    new = copy.deepcopy(old)
    new["$defs"]["Line"]["properties"] = {}  # type: ignore[index]
    assert breaking_changes(old, new) == ["lines[].sku is gone"]


# --- The schemas and the events ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", CATALOGUE)
def test_an_event_of_every_type_fits_its_committed_schema_and_is_read_back(type_: str) -> None:
    schema = json.loads((DIRECTORY / "schemas" / f"{type_}.json").read_text(encoding="utf-8"))
    jsonschema_rs.meta.validate(schema)
    envelope = an_event(type_)
    jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(json.loads(envelope.to_json()))
    assert isinstance(read_event(EventEnvelope.from_json(envelope.to_json())), CATALOGUE[type_])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("type",), "payment.failed.v1"),
        (("sequence",), 0),
        (("time",), "yesterday"),
        (("data", "amount"), 12.5),
        (("data", "status"), "paid"),
        (("data", "currency"), "kwd"),
    ],
)
def test_a_schema_refuses_what_is_not_its_event(path: tuple[str, ...], value: object) -> None:
    event = json.loads(an_event(A_TYPE).to_json())
    parent = event if len(path) == 1 else event[path[0]]
    parent[path[-1]] = value
    assert not jsonschema_rs.Draft202012Validator(event_schema(A_TYPE), validate_formats=True).is_valid(event)


@pytest.mark.parametrize("type_", CATALOGUE)
def test_no_event_has_a_field_for_personal_data(type_: str) -> None:
    body = json.dumps(dict.fromkeys(fields_of(event_schema(type_)["properties"]["data"]), "something"))
    masked = {
        name for name, value in json.loads(redact_body("application/json", body.encode())).items() if value == MASK
    }
    assert masked <= PERSONAL_NAMES_WITHOUT_PERSONS


# --- AsyncAPI ---------------------------------------------------------------------------------------------------------


def test_every_type_has_one_sender_and_every_queue_one_receiver() -> None:
    operations = asyncapi_document()["operations"].values()
    sent = [each["channel"]["$ref"] for each in operations if each["action"] == "send"]
    received = [each["channel"]["$ref"] for each in operations if each["action"] == "receive"]
    assert sorted(sent) == sorted(f"#/channels/{type_}" for type_ in CATALOGUE)
    assert sorted(received) == sorted(f"#/channels/{name}" for name in QUEUES)


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi_document()
    for reference in set(references_in(document)):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_no_document_names_a_host() -> None:
    assert asyncapi_document()["servers"]["broker"]["host"] == "{host}"
