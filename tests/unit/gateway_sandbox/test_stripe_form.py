from __future__ import annotations

import json
from typing import Any

import pytest

from services.gateway_sandbox.gateways.port import WireError
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_body, parse_pairs


def the_error(caught: pytest.ExceptionInfo[WireError]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(caught.value.answer.body)["error"]
    return error


def test_brackets_nest() -> None:
    body = (
        b"mode=payment&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd&"
        b"metadata[order_ref]=ORD-1001&expand[]=payment_intent&expand[]=line_items"
    )
    assert parse_body(body) == {
        "mode": "payment",
        "line_items": {"0": {"quantity": "1", "price_data": {"currency": "usd"}}},
        "metadata": {"order_ref": "ORD-1001"},
        "expand": {"0": "payment_intent", "1": "line_items"},
    }


def test_percent_encoded_brackets_and_plus_signs_are_decoded() -> None:
    assert parse_body(b"a%5Bb%5D=one+two%26three") == {"a": {"b": "one two&three"}}


def test_lists_are_read_in_the_order_of_their_numbers() -> None:
    parameters = Parameters(parse_pairs([("items[10][n]", "c"), ("items[2][n]", "b"), ("items[0][n]", "a")]))
    assert [item.text("n") for item in parameters.objects("items")] == ["a", "b", "c"]


def test_an_empty_value_counts_as_not_given() -> None:
    parameters = Parameters(parse_body(b"a=&b[c]="))
    assert parameters.text("a") is None
    assert parameters.required_nested("b").text("c") is None


@pytest.mark.parametrize(
    "body", [b"a=1&a[b]=2", b"a[b]=2&a=1", b"a[b=1", b"[a]=1", b"a]=1", b"a" + b"[x]" * 11 + b"=1"]
)
def test_contradicting_or_broken_names_are_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        parse_body(body)


def test_a_complaint_names_the_parameter_by_its_full_path() -> None:
    price = Parameters(parse_body(b"line_items[0][price_data][unit_amount]=12.50"))
    [item] = price.objects("line_items")
    with pytest.raises(WireError) as caught:
        item.required_nested("price_data").integer("unit_amount")
    assert the_error(caught)["param"] == "line_items[0][price_data][unit_amount]"
    assert the_error(caught)["code"] == "parameter_invalid_integer"
    assert not caught.value.stored


@pytest.mark.parametrize("text", ["1.0", "1e3", "0x10", "１", "--1", "9" * 19, "true"])
def test_only_plain_integers_are_integers(text: str) -> None:
    with pytest.raises(WireError):
        Parameters({"amount": text}).integer("amount")


def test_unknown_parameters_are_named() -> None:
    with pytest.raises(WireError) as caught:
        Parameters(parse_body(b"mode=payment&surprise=1")).allow_only(frozenset({"mode"}))
    assert (the_error(caught)["code"], the_error(caught)["param"]) == ("parameter_unknown", "surprise")


@pytest.mark.parametrize(
    "metadata", [{"k" * 41: "v"}, {"k": "v" * 501}, {str(number): "v" for number in range(51)}, {"k": {"nested": "v"}}]
)
def test_metadata_has_limits(metadata: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        Parameters({"metadata": metadata}).metadata()
