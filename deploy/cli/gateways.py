"""``payrail gateway``: which gateways there are, and the skeleton of a new one.

What ``new`` copies is gateway_template/, a small gateway that works and passes the conformance suite; the names of New
Pay in it are replaced by the new one's.
"""

from __future__ import annotations

import keyword
import os
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.cli.errors import CommandError, explained

if TYPE_CHECKING:
    from services.payment_service.gateways.definition import GatewayDefinition
    from services.webhook_ingest.signatures.registration import Registration

app = typer.Typer(help="The gateways that this installation knows, and new ones.", no_args_is_help=True)


def _output() -> Console:
    """Made when it is used: how wide it is depends on where that is."""
    return Console(highlight=False, soft_wrap=True)


ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = Path(__file__).with_name("gateway_template")
TEMPLATE_PACKAGE = "deploy.cli.gateway_template"

_NAME = re.compile(r"[a-z](?:_?[a-z0-9]){1,19}")
"""Part of variables' names, where two underscores would begin the name of an account."""

_TITLE = re.compile(r"[^\W_][^\"'`\\{}<>|\x00-\x1f]{0,39}")
"""It goes into Python texts, Markdown and pages as it is."""


@app.command(name="list")
def list_() -> None:
    """Show every known gateway: whether the environment enables it, what it can do, how its webhooks are signed."""
    from services.payment_service.gateways.catalogue import gateway_definitions
    from services.payment_service.settings import gateway_variables
    from services.webhook_ingest.settings import gateway_variables as webhook_variables
    from services.webhook_ingest.signatures.registry import registrations

    with explained():
        definitions, known = gateway_definitions(), registrations()
        variables = {**webhook_variables(os.environ), **gateway_variables(os.environ)}
        table = Table(show_lines=True)
        for head in ("gateway", "enabled here", "capabilities", "webhooks"):
            table.add_column(head, overflow="fold")
        for name, definition in sorted(definitions.items()):
            capabilities = ", ".join(sorted(definition.facts.capabilities))
            registration = known.get(name)
            signed = registration.summary if registration else "none"
            table.add_row(
                f"[bold]{name}[/]\n{definition.facts.display_name}",
                enabled_here(definition, registration, variables),
                capabilities,
                signed,
            )
    _output().print(table, soft_wrap=False)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="lower case letters, digits and underscores, e.g. acme_pay")],
    title: Annotated[
        str | None, typer.Option(help="what shoppers read; by default made from the name", show_default=False)
    ] = None,
    plugin: Annotated[
        Path | None,
        typer.Option(help="write a package of its own into this directory, for PAYRAIL_PLUGINS", show_default=False),
    ] = None,
) -> None:
    """Write the skeleton of a gateway: adapter, signature scheme, sandbox format, fact sheet and unit tests.

    It works as it is, in a made-up format, and passes the conformance suite: change it step by step into the real one.
    """
    with explained():
        written = write_gateway(name, title=title, plugin=plugin)
    for path in written:
        _output().print(f"written: {_shown(path)}", markup=False)
    _output().print("\n" + _advice(name, written, plugin), markup=False)


def write_gateway(
    name: str, *, title: str | None = None, plugin: Path | None = None, root: Path | None = None
) -> list[Path]:
    """The files, in the order in which they are to be read. Raises CommandError before anything is written."""
    _check_name(name, is_plugin=plugin is not None)
    title, root = title or name.replace("_", " ").title(), root or ROOT
    if not _TITLE.fullmatch(title):
        raise CommandError("--title is at most 40 characters, without quotes, brackets and backslashes")
    if plugin is None and not (root / "tests" / "conformance").is_dir():
        raise CommandError(
            f"{root} is not a checkout of Payrail; pass --plugin DIRECTORY to write a package of its own"
        )
    places = _places_in_plugin(name, plugin) if plugin is not None else _places_in_repository(name, root)
    taken = [place.path for place in places if place.path.exists()]
    if taken:
        raise CommandError(f"{_shown(taken[0])} exists, and nothing is overwritten; choose another name or remove it")
    texts = {place.path: _text_of(place, name, title, places) for place in places}
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise CommandError(f"{_shown(path)} cannot be written ({why}); choose a directory that can") from None
    return list(texts)


@dataclass(frozen=True, slots=True)
class Place:
    """One file: where it goes, which of the template it is, and by what name Python then knows it."""

    path: Path
    template: str
    module: str = ""


def _places_in_repository(name: str, root: Path) -> list[Place]:
    adapters, signatures, sandboxes = (
        "services/payment_service/gateways",
        "services/webhook_ingest/signatures",
        "services/gateway_sandbox/gateways",
    )
    package = adapters.replace("/", ".") + f".{name}"
    sandbox_package = sandboxes.replace("/", ".") + f".{name}"
    return [
        Place(root / adapters / f"{name}.md", "facts.md"),
        Place(root / adapters / name / "adapter.py", "adapter.py", f"{package}.adapter"),
        Place(root / adapters / name / "__init__.py", "export", f"{package}.adapter"),
        Place(root / signatures / f"{name}.py", "scheme.py", signatures.replace("/", ".") + f".{name}"),
        Place(root / sandboxes / name / "gateway.py", "sandbox.py", f"{sandbox_package}.gateway"),
        Place(root / sandboxes / name / "__init__.py", "export", f"{sandbox_package}.gateway"),
        Place(root / "tests/unit/payment_service" / f"test_{name}_adapter.py", "test_adapter.py"),
    ]


def _places_in_plugin(name: str, directory: Path) -> list[Place]:
    package = directory.resolve() / name
    parts = ("adapter", "scheme", "sandbox")
    return [
        Place(package / "facts.md", "facts.md"),
        *(Place(package / f"{part}.py", f"{part}.py", f"{name}.{part}") for part in parts),
        Place(package / "__init__.py", "package"),
        Place(package / f"test_{name}_adapter.py", "test_adapter.py"),
    ]


def _text_of(place: Place, name: str, title: str, places: Sequence[Place]) -> str:
    if place.template == "export":
        exported = f'from {place.module} import DEFINITION\n\n__all__ = ["DEFINITION"]\n'
        return f'"""{title}: what the rest of the service knows of it."""\n\n{exported}'
    if place.template == "package":
        return f'"""{title}, a gateway for Payrail: named in PAYRAIL_PLUGINS, it is found by its modules\' names."""\n'
    modules = {f"{TEMPLATE_PACKAGE}.{Path(each.template).stem}": each.module for each in places if each.module}
    camel_case = "".join(part.capitalize() for part in name.split("_"))
    names = {"NEWPAY": name.upper(), "NewPay": camel_case, "newpay": name, "New Pay": title}
    replaced = modules | names
    text = (TEMPLATE / place.template).read_text(encoding="utf-8")
    text = re.sub("|".join(map(re.escape, replaced)), lambda found: replaced[found[0]], text)
    return _with_sorted_imports(text) if place.template == "test_adapter.py" else text


def _with_sorted_imports(text: str) -> str:
    """Our own imports in the order of their modules' names, one of which is new: as `ruff check` wants them."""
    before, third_party, rest = text.partition("import pytest\n")
    block, end, after = rest.partition("\n\nT = ")
    statements = sorted(block.strip().removeprefix("from ").split("\nfrom "))
    return before + third_party + "\n" + "\n".join(f"from {each}" for each in statements) + end + after


def _check_name(name: str, *, is_plugin: bool) -> None:
    """Raises CommandError."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise CommandError(
            f"{name!r} cannot be a gateway's name: use 2 to 20 lower case letters, digits and single underscores, "
            "beginning with a letter, and no word of Python's, for example acme_pay"
        )
    if name in _taken_names():
        raise CommandError(
            f"the name {name} is taken; choose another, `payrail gateway list` shows those that are known"
        )
    if is_plugin and find_spec(name) is not None:
        raise CommandError(
            f"there is a Python package {name} already, which the plug-in would hide; choose another name"
        )


def _taken_names() -> set[str]:
    """Gateways, and the modules beside them that a gateway's would hide."""
    from services.gateway_sandbox import gateways as sandboxes
    from services.gateway_sandbox.gateways.registry import sandbox_definitions
    from services.payment_service import gateways as adapters
    from services.payment_service.gateways.catalogue import gateway_definitions
    from services.webhook_ingest import signatures
    from services.webhook_ingest.signatures.registry import registrations

    packages = (adapters, signatures, sandboxes)
    modules = {found.name for package in packages for found in pkgutil.iter_modules(package.__path__)}
    return modules | set(gateway_definitions()) | set(registrations()) | set(sandbox_definitions())


def enabled_here(definition: GatewayDefinition, registration: Registration | None, variables: Mapping[str, str]) -> str:
    """``yes``, with the accounts that have names; else what is missing, so that nobody has to look it up."""
    from shared.gateway_variables import accounts_of, value_for

    def missing(account: str | None) -> list[str]:
        return [each for each in definition.required if value_for(variables, each, account) is None]

    accounts = accounts_of(variables, definition.variables)
    enabled = [account for account in accounts if not missing(account)]
    if missing(None) and not enabled:
        return f"no; it needs {', '.join(missing(None))}"
    unsigned = registration is not None and not any(
        variable.partition("__")[0] == registration.secret_variable for variable in variables
    )
    names = f" ({', '.join(enabled)})" if enabled else ""
    return f"yes{names}" + (f"; webhooks need {registration.secret_variable}" if registration and unsigned else "")


def _advice(name: str, written: list[Path], plugin: Path | None) -> str:
    sheet, test = _shown(written[0]), _shown(written[-1])
    known = "" if plugin is None else f"PYTHONPATH={_shown(plugin.resolve())} PAYRAIL_PLUGINS={name} "
    lines = [
        "It works as it is, in a made-up format. Its conformance cases need no writing: the suite has found it.",
        "Next:",
        f"  1. fill in the fact sheet {sheet} from the gateway's documentation",
        "  2. change sandbox and adapter to it, one call at a time; LOOK UP marks the places",
        f"  3. keep it green:  {known}pytest tests/conformance -k {name}",
        f"                     {known}pytest {test}",
        f"  4. buy with it:    {known}make run",
    ]
    if plugin is None:
        lines += [
            "  5. name its variables in deploy/make-secrets.sh, for the containers of `docker compose`",
            "  6. write it into docs/gateways.md:  make conformance",
        ]
    return "\n".join(lines)


def _shown(path: Path) -> str:
    """From where we are, if that is shorter to read."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
