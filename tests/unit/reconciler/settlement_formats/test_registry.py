"""Which format a content is in: known by its columns, and never guessed (failure RC3)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.reconciler.settlement_formats import registry
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, Unreadable
from shared.settings import ConfigurationError
from tests.unit.reconciler.settlement_formats.parsing import table_head

STRIPE = table_head("balance_transaction_id,currency,gross,fee,net,reporting_category,source_id\n")
STATEMENT = table_head("payout_reference,paid_at,amount,currency,bank_reference\n")
STRANGE = table_head("some,columns\n1,2\n")
PAYPAL, OURS = ReadingContext("paypal", ""), ReadingContext("stripe", "")


def refused(head: Head, context: ReadingContext, name: str | None = None) -> Unreadable:
    with pytest.raises(Unreadable) as error:
        registry.recognise(head, context, name=name)
    return error.value


def test_a_gateways_format_is_recognised_and_the_payout_statement_for_any() -> None:
    assert registry.recognise(STRIPE, OURS).name == "stripe_payout_reconciliation"
    assert {registry.recognise(STATEMENT, context).name for context in (OURS, PAYPAL)} == {"payout_statement"}
    assert registry.recognise(STRIPE, OURS, name="stripe_payout_reconciliation").version == 1


def test_another_gateways_file_is_refused_by_whose_it_is() -> None:
    error = refused(STRIPE, PAYPAL)
    assert error.code == "wrong_gateway"
    assert "stripe" in error.detail
    assert refused(STRIPE, PAYPAL, "stripe_payout_reconciliation").code == "wrong_gateway"


def test_a_file_that_nobody_knows_is_refused_with_what_would_be_known() -> None:
    error = refused(STRANGE, OURS)
    assert error.code == "format_unknown"
    for wanted in ("stripe_payout_reconciliation", "balance_transaction_id", "payout_statement", "paid_at"):
        assert wanted in error.detail
    for head in (Head(Layout.JSON, keys=frozenset({"rows"})), Head(Layout.TABLE), Head(Layout.JSON)):
        assert refused(head, OURS).code == "format_unknown"


def test_what_it_is_said_to_be_it_has_to_be() -> None:
    assert refused(STRANGE, OURS, "stripe_payout_reconciliation").code == "format_mismatch"
    assert refused(STRIPE, OURS, "stripe_balance_transactions").code == "format_mismatch"
    assert refused(STRIPE, OURS, "stripes").code == "format_unknown"


def test_two_that_both_know_it_are_not_chosen_between() -> None:
    columns = (
        "balance_transaction_id,currency,gross,fee,net,reporting_category,source_id,payout_reference,paid_at,amount"
    )
    error = refused(table_head(columns + "\n"), OURS)
    assert error.code == "format_ambiguous"
    assert "payout_statement" in error.detail


def test_every_format_has_a_name_of_its_gateway_and_a_line_in_the_readme() -> None:
    readme = (Path(registry.__file__).parent / "README.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", readme))
    for name, format_ in registry.formats({}).items():
        assert name == format_.name
        assert name.startswith(f"{format_.gateway or 'payout'}_")
        assert format_.version >= 1
        assert name in named
        assert format_ in registry.formats_for(format_.gateway or "any")


PLUGIN = """
from services.reconciler.settlement_formats.payout_statement import PayoutStatement
FORMATS = (PayoutStatement(name="{name}", gateway="mine"),)
"""


def a_plugin(folder: Path, package: str, format_name: str) -> dict[str, str]:
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    (folder / package / "settlement.py").write_text(PLUGIN.format(name=format_name))
    return {"PAYRAIL_PLUGINS": package}


def test_a_plugin_may_bring_formats_and_may_not_take_anothers_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry.formats(a_plugin(tmp_path, "plug_formats", "mine_settlement"))
    assert set(found) - set(registry.formats({})) == {"mine_settlement"}
    with pytest.raises(ConfigurationError, match="two formats are called"):
        registry.formats(a_plugin(tmp_path, "plug_format_thief", "payout_statement"))
