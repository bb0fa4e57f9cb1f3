"""The event contract as documents: an AsyncAPI 3 document and a JSON Schema per event type, generated from the models.

The models are the source; the documents are committed, so that a change of the contract shows in review as a change of
the contract, and other teams generate their own types from them. ``payrail contracts write`` and ``check`` call this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.contracts.catalogue import CATALOGUE, OWNERS
from shared.contracts.envelope import BATCH_CONTENT_TYPE, CONTENT_TYPE, EventData, EventEnvelope
from shared.contracts.topology import EVENTS_EXCHANGE, QUEUES, TYPES_WITH_A_CONSUMER, Queue

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "contracts"
"""Where the committed documents are."""

ASYNCAPI_PATH = "asyncapi.json"
WRITE_COMMAND = "payrail contracts write"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_BINDING_VERSION = "0.3.0"  # of AsyncAPI's AMQP 0-9-1 bindings

JsonObject = dict[str, Any]


class ContractWouldBreak(Exception):
    """Writing these documents would break consumers; a new major version of the type (``.v2``) would not."""

    def __init__(self, changes: Sequence[str]) -> None:
        self.changes = tuple(changes)
        super().__init__(
            "this breaks consumers; publish a new version of the type beside the old one:\n" + _list(changes)
        )


def render() -> dict[str, str]:
    """Every document by its path within the directory; the same models give the same bytes."""
    documents = {ASYNCAPI_PATH: _text(asyncapi_document())}
    for type_ in CATALOGUE:
        documents[_schema_path(type_)] = _text(event_schema(type_))
    return documents


def write(directory: Path = DIRECTORY, *, allow_breaking: bool = False) -> list[str]:
    """Bring the directory up to date and return the paths that changed; schemas of types that are gone are removed.

    Raises ContractWouldBreak, having written nothing, unless ``allow_breaking`` says that nobody consumes the type yet.
    """
    changes = breaking_differences(directory)
    if changes and not allow_breaking:
        raise ContractWouldBreak(changes)
    documents, changed = render(), []
    for path, text in documents.items():
        target = directory / path
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            changed.append(path)
    for path in _committed_schema_paths(directory):
        if path not in documents:
            (directory / path).unlink()
            changed.append(path)
    return changed


def differences(directory: Path = DIRECTORY) -> list[str]:
    """One sentence for each committed document that is not what the models give."""
    documents, found = render(), []
    for path, text in documents.items():
        committed = directory / path
        if not committed.exists():
            found.append(f"{path} is missing")
        elif committed.read_text(encoding="utf-8") != text:
            found.append(f"{path} differs from the models")
    found += [f"{path} is of no event type" for path in _committed_schema_paths(directory) if path not in documents]
    return found


def breaking_differences(directory: Path = DIRECTORY) -> list[str]:
    """What would break consumers of the committed schemas; see ``breaking_changes`` for the rule."""
    found: list[str] = []
    for path in _committed_schema_paths(directory):
        type_ = Path(path).name.removesuffix(".json")
        if type_ not in CATALOGUE:
            found.append(f"{type_}: the type is gone")
            continue
        committed = json.loads((directory / path).read_text(encoding="utf-8"))
        found += [f"{type_}: {change}" for change in breaking_changes(committed, event_schema(type_))]
    return found


# --- What breaks a consumer -------------------------------------------------------------------------------------------

_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems")


def breaking_changes(old_schema: Mapping[str, Any], new_schema: Mapping[str, Any]) -> list[str]:
    """One sentence for each change that hurts a consumer of the old schema, or one that reads stored events.

    Breaking, because an old consumer meets something that it was promised never to meet:
      * a field is removed (a renamed one is removed and added), or its type changes; null is a type;
      * a required field becomes optional;
      * an enum gets a value: consumers store and switch over the values they know;
      * a bound is widened or dropped, a pattern or format changed or dropped: consumers size their columns by them.
    Breaking, because a new consumer meets old events in its queue, in the outbox or while it catches up:
      * a field is required now, be it new or formerly optional.
    Not breaking: a new optional field (readers ignore what they do not know), and publishing less than was promised
    (an enum value dropped, a bound narrowed, a pattern added), and texts such as descriptions.
    """
    return list(_changes("", old_schema, new_schema, old_schema, new_schema))


def _changes(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], old_root: Mapping[str, Any], new_root: Mapping[str, Any]
) -> Iterator[str]:
    old_forms, new_forms = _forms(old, old_root), _forms(new, new_root)
    if old_forms.keys() != new_forms.keys():
        yield f"{path or 'the event'} was {_types(old_forms)} and is {_types(new_forms)}"
        return
    for type_, before in old_forms.items():
        after = new_forms[type_]
        yield from _value_changes(path, before, after)
        yield from _field_changes(path, before, after, old_root, new_root)
        for keyword in ("items", "additionalProperties"):
            if isinstance(before.get(keyword), dict):
                yield from _changes(f"{path}[]", before[keyword], after.get(keyword, {}), old_root, new_root)


def _field_changes(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], old_root: Mapping[str, Any], new_root: Mapping[str, Any]
) -> Iterator[str]:
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    old_required, new_required = set(old.get("required", ())), set(new.get("required", ()))
    for name in sorted(old_fields.keys() | new_fields.keys()):
        field = f"{path}.{name}" if path else name
        if name not in new_fields:
            yield f"{field} is gone"
            continue
        if name in new_required - old_required:
            yield f"{field} is required now, and stored events may lack it"
        if name in old_fields:
            if name in old_required - new_required:
                yield f"{field} was required and is optional now"
            yield from _changes(field, old_fields[name], new_fields[name], old_root, new_root)


def _value_changes(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    old_values, new_values = _values(old), _values(new)
    if old_values is not None:
        added = ["any value"] if new_values is None else [value for value in new_values if value not in old_values]
        if added:
            yield f"{path} may be {', '.join(map(str, added))} now"
    for keyword in ("pattern", "format"):
        if keyword in old and new.get(keyword) != old[keyword]:
            yield f"{path} had the {keyword} {old[keyword]} and has {new.get(keyword, 'none')} now"
    for keyword in (*_UPPER_BOUNDS, *_LOWER_BOUNDS):
        if keyword in old and _is_wider(keyword, old[keyword], new.get(keyword)):
            yield f"{path} had the {keyword} {old[keyword]} and has {new.get(keyword, 'none')} now"


def _is_wider(keyword: str, old: int, new: int | None) -> bool:
    return new is None or (new > old if keyword in _UPPER_BOUNDS else new < old)


def _values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The values a field may have, where the schema lists them."""
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _forms(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The schema by JSON type: ``string or null`` has two forms. References are followed."""
    if "$ref" in schema:
        return _forms(_resolve(schema["$ref"], root), root)
    forms: dict[str, Mapping[str, Any]] = {}
    for alternative in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        forms.update(_forms(alternative, root))
    if forms:
        return forms
    types = schema.get("type", "any")
    return dict.fromkeys([types] if isinstance(types, str) else types, schema)


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _types(forms: Mapping[str, object]) -> str:
    return " or ".join(sorted(forms))


# --- JSON Schemas -----------------------------------------------------------------------------------------------------


def event_schema(type_: str) -> JsonObject:
    """The JSON Schema (2020-12) of a whole event on the wire: envelope and data, no reference outside the document."""
    model = CATALOGUE[type_]
    schema = _envelope_schema()
    data = model.model_json_schema(mode="validation")
    definitions = data.pop("$defs", {})
    schema["properties"]["type"] = {"const": type_, "type": "string"}
    schema["properties"]["data"] = _without_titles(data)
    if definitions:
        schema["$defs"] = {name: _without_titles(each) for name, each in definitions.items()}
    return {
        "$schema": _DRAFT,
        "$id": f"urn:payrail:event:{type_}",
        **schema,
        "title": type_,
        "description": _description(model),
    }


def _envelope_schema() -> JsonObject:
    """The envelope as it is written, stricter than what is read: an attribute is there or absent, never null."""
    schema = _without_titles(EventEnvelope.model_json_schema(mode="validation"))
    optional = {name for name, field in EventEnvelope.model_fields.items() if field.default is None}
    for name in optional:
        field = schema["properties"][name]
        field.pop("default")
        field.update(next(form for form in field.pop("anyOf") if form["type"] != "null"))
    schema["required"] = [name for name in EventEnvelope.model_fields if name not in optional]
    return schema


def _without_titles(schema: JsonObject) -> JsonObject:
    """Drop the titles that pydantic makes of field names; they say nothing that the names do not."""
    cleaned = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in cleaned:
        cleaned["properties"] = {name: _without_titles(field) for name, field in cleaned["properties"].items()}
    return cleaned


def _description(model: type[EventData]) -> str:
    """The model's own docstring, or that of the nearest base which says something about this kind of event."""
    for each in model.__mro__:
        if each is EventData:
            break
        if each.__doc__:
            return " ".join(each.__doc__.split())
    return model.TYPE


# --- AsyncAPI ---------------------------------------------------------------------------------------------------------


def asyncapi_document() -> JsonObject:
    """AsyncAPI 3.0: a channel per event type and per consumer queue, a send per owner and type, a receive per queue."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Payrail events",
            "version": "1.0.0",
            "description": (
                "What Payrail's services publish, as CloudEvents 1.0 in structured JSON, at least once. `sequence` "
                "counts without gaps per `source` and `subject`; `data` carries the whole state and its `version`, so "
                "nobody adds up deltas. The version in a type is its major version: fields are only ever added to it. "
                f"A message carries one event, as `{CONTENT_TYPE}`, or a JSON array of events of one type, as "
                f"`{BATCH_CONTENT_TYPE}`: the messages `<type>` and `<type>.batch` of each channel."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"broker": _server()},
        "channels": {
            **{type_: _event_channel(type_, model) for type_, model in CATALOGUE.items()},
            **{queue.name: _queue_channel(queue) for queue in QUEUES.values()},
        },
        "operations": {
            **{
                f"{owner}.send.{model.TYPE}": _send_operation(owner, model.TYPE)
                for owner, models in OWNERS.items()
                for model in models
            },
            **{f"{queue.name}.receive": _receive_operation(queue) for queue in QUEUES.values()},
        },
        "components": {
            "messages": {
                **{type_: _message(type_, model) for type_, model in CATALOGUE.items()},
                **{_batch_of(type_): _batch_message(type_, model) for type_, model in CATALOGUE.items()},
            },
            "schemas": {type_: _embedded_schema(type_) for type_ in CATALOGUE},
        },
    }


def _server() -> JsonObject:
    return {
        "host": "{host}",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ; each installation has its own.",
        "variables": {"host": {"description": "host and port, as in RABBITMQ_URL"}},
    }


def _event_channel(type_: str, model: type[EventData]) -> JsonObject:
    exchange = {"name": EVENTS_EXCHANGE, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": type_,
        "description": _description(model),
        "messages": _message_references([type_]),
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _BINDING_VERSION}},
    }


def _queue_channel(queue: Queue) -> JsonObject:
    declared = {"name": queue.name, "durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": queue.name,
        "description": f"A quorum queue; what its consumer gives up on goes to {queue.dead_letter_queue}.",
        "messages": _message_references(queue.types),
        "bindings": {"amqp": {"is": "queue", "queue": declared, "bindingVersion": _BINDING_VERSION}},
    }


def _send_operation(owner: str, type_: str) -> JsonObject:
    mandatory = type_ in TYPES_WITH_A_CONSUMER
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{type_}"},
        "messages": _messages_on(type_, [type_]),
        "summary": f"{owner} publishes {type_}.",
        "tags": [{"name": owner}],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": mandatory, "bindingVersion": _BINDING_VERSION}},
    }


def _receive_operation(queue: Queue) -> JsonObject:
    consumer = queue.name.partition(".")[0]
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{queue.name}"},
        "messages": _messages_on(queue.name, sorted(queue.types)),
        "summary": f"{consumer} applies these.",
        "tags": [{"name": consumer}],
        "bindings": {"amqp": {"ack": True, "bindingVersion": _BINDING_VERSION}},
    }


def _message(type_: str, model: type[EventData]) -> JsonObject:
    return {
        "name": type_,
        "title": model.__name__,
        "summary": _description(model),
        "contentType": CONTENT_TYPE,
        "correlationId": {"location": "$message.payload#/correlationid", "description": "the order's id"},
        "payload": {"$ref": f"#/components/schemas/{type_}"},
        "bindings": {"amqp": {"messageType": type_, "bindingVersion": _BINDING_VERSION}},
    }


def _batch_message(type_: str, model: type[EventData]) -> JsonObject:
    items = {"$ref": f"#/components/schemas/{type_}"}
    return {
        "name": _batch_of(type_),
        "title": f"{model.__name__}, several in one message",
        "summary": f"An array of {type_}; each applies by itself.",
        "contentType": BATCH_CONTENT_TYPE,
        "payload": {"type": "array", "minItems": 1, "items": items},
        "bindings": {"amqp": {"messageType": type_, "bindingVersion": _BINDING_VERSION}},
    }


def _batch_of(type_: str) -> str:
    return f"{type_}.batch"


def _message_references(types: Sequence[str]) -> JsonObject:
    names = [name for type_ in types for name in (type_, _batch_of(type_))]
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _messages_on(channel: str, types: Sequence[str]) -> list[JsonObject]:
    names = [name for type_ in types for name in (type_, _batch_of(type_))]
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]


def _embedded_schema(type_: str) -> JsonObject:
    """The event's schema as a component: the file around it has its own identity and dialect."""
    return {
        key: _moved_references(value, f"#/components/schemas/{type_}/$defs/")
        for key, value in event_schema(type_).items()
        if key not in ("$schema", "$id")
    }


def _moved_references(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {
            key: each.replace("#/$defs/", prefix) if key == "$ref" else _moved_references(each, prefix)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_moved_references(each, prefix) for each in value]
    return value


# --- Files ------------------------------------------------------------------------------------------------------------


def _schema_path(type_: str) -> str:
    return f"schemas/{type_}.json"


def _committed_schema_paths(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.glob("schemas/*.json"))


def _text(document: JsonObject) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
