"""What must never leave: card numbers, secrets and personal data; and what must arrive unchanged."""

from __future__ import annotations

import json
import string
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import to_rfc3339
from shared.ids import TimeOrderedIds
from shared.logging import mask_fields
from shared.masking import MASK, is_secret_name, mask_card_numbers, redact_body, storable_text
from shared.randomness import SystemRandomness
from tests.support.clock import A_MOMENT, FakeClock, SeededRandomness

CARDS = [
    "4242424242424242",
    "4000056655665556",
    "5555555555554444",
    "2223003122003222",
    "5200828282828210",
    "5105105105105100",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
    "6011000990139424",
    "3056930009020004",
    "36227206271667",
    "6555900000604105",
    "3566002020360505",
    "6200000000000005",
    "6205500000000000004",
    "4222222222222",
    "8171999927660000",
    "9792030000000000",
    "2200000000000004",
]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(
    "text", ["{}", "card {}.", "({})", "pan={}", "{} 12/27", "{} 123", '"{}",', "a\n{}\nb", "{}, and {}"]
)
def test_a_card_number_is_masked_wherever_it_stands(card: str, text: str) -> None:
    masked = mask_card_numbers(text.replace("{}", card))
    assert card not in masked
    assert f"[PAN:…{card[-4:]}]" in masked


@pytest.mark.parametrize(
    "written", ["4242 4242 4242 4242", "4242-4242-4242-4242", "4242 4242 4242 4242 12", "1 4242424242424242"]
)
def test_separators_and_neighbours_do_not_hide_a_card_number(written: str) -> None:
    assert "[PAN:…4242]" in mask_card_numbers(written)


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424241",
        "1763714216000",
        "20260102030405",
        "2026-01-02 03:04:05",
        "2026-11-21T08:36:56.123456Z",
        "12345678901",
        "4242424242424242.50",
        "1000000000000",
        "evt_4242424242424242",
        "x4242424242424242",
        "42424242424242424242",
        "403993715531077186",
    ],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    assert mask_card_numbers(text) == text


@pytest.mark.parametrize("group", ["1 ", "4-", "12345678901 ", "4242 "])
def test_any_number_of_groups_is_looked_through_in_no_time(group: str) -> None:
    """As large as a webhook may be; what is not linear would not come to an end here."""
    text = group * (256 * 1024 // len(group)) + "1"
    masked = mask_card_numbers(text)
    assert len(masked) <= len(text) + 20


def test_each_of_several_card_numbers_in_one_run_is_masked() -> None:
    masked = mask_card_numbers("1 4242 4242 4242 4242 12 5555555555554444-7 378282246310005")
    assert masked == "1 [PAN:…4242] 12 [PAN:…4444]-7 [PAN:…0005]"


@given(st.integers(0, 10**12), st.integers(0, 2**63))
def test_our_ids_references_and_moments_are_never_taken_for_card_numbers(milliseconds: int, seed: int) -> None:
    clock = FakeClock()
    clock.step_wall_clock(milliseconds / 1000)
    ids = TimeOrderedIds(clock, SeededRandomness(seed))
    for text in (ids.new("pay"), ids.new("evt"), ids.new_reference(), to_rfc3339(clock.now())):
        assert mask_card_numbers(text) == text
        assert mask_card_numbers(f"a {text} b") == f"a {text} b"


@given(st.integers(-(10**12) + 1, 10**12))
def test_no_amount_is_taken_for_a_card_number(amount_minor: int) -> None:
    for text in (str(amount_minor), f"{Decimal(amount_minor).scaleb(-2):f}", f'{{"amount":{amount_minor}}}'):
        assert mask_card_numbers(text) == text


@given(st.binary(), st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", ""]))
def test_any_bytes_give_text_that_can_be_stored(body: bytes, content_type: str) -> None:
    text = redact_body(content_type, body)
    assert "\0" not in text
    text.encode("utf-8")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"{",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 70 + b"]" * 70,
        b"",
    ],
)
def test_what_cannot_be_read_with_certainty_gives_nothing(body: bytes) -> None:
    assert redact_body("application/json", body) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**11), 10**11) | st.text(string.ascii_lowercase),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "amount", "kind"]), inner),
    max_leaves=20,
)


@given(json_values)
def test_harmless_json_means_the_same_afterwards(value: Any) -> None:
    assert json.loads(redact_body("application/json", json.dumps(value).encode())) == value


@pytest.mark.parametrize(
    "number", ["10.50", "10.5000", "0.1e-7", "1E400", "-0.0", "-0", "123456789012345678901234567890", "1" * 5000]
)
def test_numbers_keep_their_exact_digits(number: str) -> None:
    assert redact_body("application/json", f'{{"amount": {number}}}'.encode()) == f'{{"amount":{number}}}'


def test_a_card_number_is_masked_as_a_text_a_number_and_a_key() -> None:
    body = b'{"a": "4242 4242 4242 4242", "b": 4242424242424242, "4242424242424242": 1}'
    assert "4242 " not in redact_body("application/json", body)
    assert "4242424242424242" not in redact_body("application/json", body)


@pytest.mark.parametrize(
    "key", ["email", "Email", "customer_email", "customerEmail", "customer-email", "cardNumber", "CVC", "clientSecret"]
)
def test_personal_data_and_secrets_go_by_their_name_however_it_is_written(key: str) -> None:
    body = json.dumps({"id": "evt_1", "data": [{key: "canary", "amount": 5}]}).encode()
    assert json.loads(redact_body("application/json", body)) == {"id": "evt_1", "data": [{key: MASK, "amount": 5}]}
    form = redact_body("application/x-www-form-urlencoded; charset=utf-8", f"{key}=canary&amount=5.00".encode())
    assert "canary" not in form
    assert "amount=5.00" in form


def test_escapes_hide_nothing_and_lone_surrogates_stay_escaped() -> None:
    body = rb'{"email\u0041": 1, "\u0065mail": "canary", "x": "\ud800\u0000"}'
    assert redact_body("application/json", body) == rb'{"emailA":1,"email":"[removed]","x":"\ud800\u0000"}'.decode()


@given(st.text())
def test_text_is_made_storable(text: str) -> None:
    stored = storable_text(text + "\0\ud800")
    assert "\0" not in stored
    stored.encode("utf-8")


def logged(**fields: Any) -> str:
    return repr(mask_fields(None, "info", dict(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"client_secret": "canary"},
        {"Authorization": "canary"},
        {"apiKey": "canary"},
        {"body": "canary"},
        {"email": "canary"},
        {"headers": {"x": "canary"}},
        {"request": {"headers": "canary"}},
        {"request": {"deep": [{"password": "canary"}]}},
    ],
)
def test_a_secret_is_not_logged_by_its_name_at_any_depth(fields: dict[str, Any]) -> None:
    assert "canary" not in logged(**fields)


@pytest.mark.parametrize(
    "value",
    [
        "4242424242424242",
        4242424242424242,
        ["4242424242424242"],
        {"a": "4242 4242 4242 4242"},
        ValueError("4242424242424242"),
        b"4242424242424242",
    ],
)
def test_a_card_number_is_not_logged_whatever_carries_it(value: Any) -> None:
    text = logged(value=value)
    assert "4242424242424242" not in text
    assert "[PAN:…4242]" in text


def test_harmless_fields_are_logged_as_they_are() -> None:
    fields = {"event": "paid", "amount_minor": 1050, "seconds": 0.5, "ok": True, "nothing": None, "ids": ["a"]}
    assert mask_fields(None, "info", dict(fields)) == fields


def test_secret_names_are_known_in_every_spelling() -> None:
    assert all(map(is_secret_name, ["X-Order-Secret", "client_secret", "clientSecret", "SET-COOKIE"]))
    assert not is_secret_name("payment_id")


def test_ids_of_real_randomness_increase_and_have_one_length() -> None:
    clock = FakeClock(A_MOMENT)
    ids = TimeOrderedIds(clock, SystemRandomness())
    made = [ids.new("pay") for _ in range(500)]
    clock.step_wall_clock(-3600)
    made += [ids.new("pay") for _ in range(500)]
    assert made == sorted(set(made))
    assert all(len(each) == 30 and set(each[4:]) <= set("0123456789abcdefghjkmnpqrstvwxyz") for each in made)


def test_references_are_twenty_letters_and_digits_and_differ() -> None:
    ids = TimeOrderedIds(FakeClock(), SystemRandomness())
    made = {ids.new_reference() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == 20 and each.isalnum() and each.isupper() for each in made)
