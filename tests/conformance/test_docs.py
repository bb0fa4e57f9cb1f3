"""docs/gateways.md is what the code says of itself."""

from __future__ import annotations

from deploy.gateway_sheet import PATH, render
from tests.conformance.table import conformance_table


def test_the_page_about_gateways_is_what_the_gateways_say() -> None:
    written = PATH.read_text(encoding="utf-8")
    assert written == render(conformance_table()), "run `make conformance` and commit what it writes"
