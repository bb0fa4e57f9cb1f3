"""docs/gateways.md: what the gateways say of themselves, as one page. Written by `make conformance`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.gateways.definition import GatewayDefinition
from services.payment_service.gateways.port import Capability
from services.webhook_ingest.signatures.registration import Registration
from services.webhook_ingest.signatures.registry import registrations

PATH = Path(__file__).resolve().parents[1] / "docs" / "gateways.md"

_HEAD = """# Gateways

Written by `make conformance` from what each gateway's three parts say of themselves
(`services/payment_service/gateways/<name>/`, `services/webhook_ingest/signatures/<name>.py`,
`services/gateway_sandbox/gateways/<name>/`) and from the conformance suite's own results. Do not edit it: a test
compares it with the code. More about each gateway is in `services/payment_service/gateways/<name>.md`; how to add one
is in the [README](../README.md#adding-a-gateway).
"""

_TITLES: Mapping[Capability, str] = {
    Capability.REDIRECT: "redirect",
    Capability.FORM_POST: "form post",
    Capability.MANUAL_CAPTURE: "hold, then capture",
    Capability.PARTIAL_CAPTURE: "capture a part",
    Capability.SEVERAL_CAPTURES: "several captures",
    Capability.VOID: "void",
    Capability.REFUND: "refund",
    Capability.PARTIAL_REFUND: "refund a part",
    Capability.CLOSE_SESSION: "close page",
    Capability.RETRIEVE: "ask",
    Capability.FIND_BY_REFERENCE: "find by our reference",
    Capability.LIST_BY_WINDOW: "list by window",
    Capability.DISPUTES: "disputes",
    Capability.SETTLEMENT_REPORT: "settlement report",
}


def render(conformance: str) -> str:
    """The whole page; ``conformance`` is the suite's table."""
    definitions, known = gateway_definitions(environ={}), registrations(environ={})
    ordered = [definitions[name] for name in sorted(definitions)]
    sections = [
        _HEAD,
        "## What each can do\n\n" + _matrix(ordered),
        "What is missing is missing at the gateway, or is not documented well enough to be relied on; it is answered "
        "with 422 `capability_not_supported`, never with a silent success.\n\n" + _missing(ordered),
        "## Currencies and amounts\n\n" + _currencies(ordered),
        "## Webhooks\n\n" + _webhooks(ordered, known),
        "## Settlement files\n\n" + _settlement(ordered),
        "## Settings\n\n" + _settings(ordered, known),
        "## Documented and unconfirmed\n\n" + _unconfirmed(ordered),
        "## Conformance\n\n" + conformance,
    ]
    return "\n".join(section.rstrip("\n") + "\n" for section in sections)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _matrix(definitions: Sequence[GatewayDefinition]) -> str:
    rows = [
        [d.facts.display_name, *("yes" if each in d.facts.capabilities else "–" for each in _TITLES)]
        for d in definitions
    ]
    return table(["", *_TITLES.values()], rows)


def _missing(definitions: Sequence[GatewayDefinition]) -> str:
    rows = [
        [d.facts.display_name, "; ".join(f"{each.value}: {d.facts.not_offered[each]}" for each in _lacking(d)) or "–"]
        for d in definitions
    ]
    return table(["", "not offered, and why"], rows)


def _lacking(definition: GatewayDefinition) -> Iterator[Capability]:
    return (each for each in _TITLES if each not in definition.facts.capabilities)


def _currencies(definitions: Sequence[GatewayDefinition]) -> str:
    def listed(definition: GatewayDefinition) -> str:
        found = definition.facts.currencies
        return "any of ISO 4217" if found is None else ", ".join(sorted(found))

    rows = [[d.facts.display_name, d.sheet.regions, listed(d), d.sheet.amounts] for d in definitions]
    return table(["", "regions", "currencies", "amounts on the wire"], rows)


def _webhooks(definitions: Sequence[GatewayDefinition], known: Mapping[str, Registration]) -> str:
    rows = []
    for definition in definitions:
        registration = known.get(definition.name)
        if registration is None:
            continue
        lacking = "; ".join(f"{trait.value}: {why}" for trait, why in registration.not_offered.items())
        answer = registration.acknowledgement
        acknowledged = f"`{answer.body.decode()}`" if answer else "200 with our JSON"
        rows.append([definition.facts.display_name, registration.summary, lacking or "–", acknowledged])
    return (
        "They go to `/api/v1/webhooks/<gateway>`, or `/api/v1/webhooks/<gateway>/<account>` where there are several "
        "accounts. Where the whole body is not signed, a delivery is a hint: it makes us ask the gateway, and nothing "
        "else.\n\n" + table(["", "signature", "what it does not protect", "answer"], rows)
    )


def _settlement(definitions: Sequence[GatewayDefinition]) -> str:
    return table(["", "format"], [[d.facts.display_name, d.sheet.settlement] for d in definitions])


def _settings(definitions: Sequence[GatewayDefinition], known: Mapping[str, Registration]) -> str:
    rows = []
    for definition in definitions:
        fields = definition.settings.model_fields
        optional = [
            f"`{definition.variable(name)}`" + (f" ({field.description})" if field.description else "")
            for name, field in sorted(fields.items())
            if not field.is_required()
        ]
        registration = known.get(definition.name)
        secret = _code(_read_by(registration)) if registration else "–"
        rows.append([definition.facts.display_name, _code(definition.required), "; ".join(optional), secret])
    return (
        "Any of them may name an account (`…__EU`) and may instead name a file (`…_FILE`). A gateway is enabled when "
        "all that it needs is set; an account has webhooks when it has a secret of its own. Of several accounts, the "
        "first whose `…_CURRENCIES` names a payment's currency takes it; else the first that names none.\n\n"
        + table(["", "needs", "may have", "webhooks are verified with"], rows)
    )


def _read_by(registration: Registration) -> list[str]:
    """What verifying takes, without the families of names."""
    return [name for name in dict.fromkeys(registration.names) if not name.endswith("_")]


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _unconfirmed(definitions: Sequence[GatewayDefinition]) -> str:
    parts = []
    for definition in definitions:
        points = "".join(f"- Unconfirmed: {point}\n" for point in definition.sheet.unconfirmed)
        parts.append(f"**{definition.facts.display_name}.** {definition.sheet.documented}\n\n{points}")
    return "\n".join(parts)
