"""What is done quickly has the results of what is done plainly: each rule once more, as slowly as it is written."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from services.webhook_ingest.api.rate_limit import FailureLimiter
from services.webhook_ingest.domain.sanitizing import safe_headers, safe_text, without_card_numbers
from services.webhook_ingest.signatures.schemes import Algorithm, keyed_digest
from shared import masking
from shared.ids import TimeOrderedIds
from shared.masking import MASK, mask_card_numbers
from tests.support.clock import FakeClock, SeededRandomness

PLAIN_RUN = re.compile(r"(?<![0-9A-Za-z_])(?<![0-9]\.)[0-9](?:[ -]?[0-9]){12,}(?![0-9A-Za-z_]|\.[0-9])")
CARDS = ["4242424242424242", "4242 4242 4242 4242", "5555-5555-5555-4444", "378282246310005", "1767323045000", "4 - 2"]

pieces = st.one_of(
    st.sampled_from(CARDS), st.text("0123456789 -._,aZé\u0660\0\x7f\ud800", max_size=8), st.text(max_size=5)
)
texts = st.lists(pieces, max_size=8).map("".join)
headers = st.lists(
    st.tuples(st.sampled_from(["Host", "cookie", "X-Token", "a\0b", "n" * 101]), texts | st.just("v" * 2100)),
    max_size=65,
)


def plainly_masked(text: str) -> str:
    return PLAIN_RUN.sub(masking._mask_run, text)


def plainly_safe(text: str, limit: int) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


@given(texts)
@example("x4242424242424242")
@example("1.4242424242424242")
@example("4242424242424242.5")
@example("٤4242424242424242")
def test_card_numbers_are_masked_where_the_plain_search_finds_them(text: str) -> None:
    assert mask_card_numbers(text) == plainly_masked(text)
    body = text.encode("utf-8", "surrogatepass")
    expected = plainly_masked(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    assert without_card_numbers(body) == expected


@given(texts, st.integers(0, 30))
def test_text_is_made_printable_character_by_character(text: str, limit: int) -> None:
    assert safe_text(text, limit) == plainly_safe(text, limit)


@given(headers)
@example([("a", "42424242"), ("4", "24242424")])
def test_headers_are_cleaned_one_by_one(pairs: Sequence[tuple[str, str]]) -> None:
    expected: list[tuple[str, str]] = []
    room = 60 * 2048
    for name, value in pairs:
        is_secret = name.lower() in ("cookie", "x-token")
        pair = plainly_safe(name, 100), MASK if is_secret else plainly_masked(plainly_safe(value, 2048))
        room -= sum(map(len, pair))
        if room < 0 or len(expected) == 60:
            break
        expected.append(pair)
    assert safe_headers(pairs, secret_names=frozenset({"x-token"})) == tuple(expected)


@given(st.integers(0, 2**32))
def test_an_id_is_its_number_in_base_32(seed: int) -> None:
    made = TimeOrderedIds(FakeClock(), SeededRandomness(seed)).new("pay")
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    value = 0
    for character in made.removeprefix("pay_"):
        value = value * 32 + alphabet.index(character)
    milliseconds = int(FakeClock().now().timestamp() * 1000)
    random_bits = int.from_bytes(SeededRandomness(seed).token_bytes(10), "big")
    assert (len(made), value >> 80, value & (1 << 80) - 1) == (30, milliseconds, random_bits)


async def test_the_look_at_the_limiter_agrees_with_the_count_of_failures() -> None:
    clock = FakeClock()
    limiter = FailureLimiter(2, clock)
    fresh = limiter.untouched("192.0.2.1")
    assert fresh == await limiter.allowance("192.0.2.1")
    for address in ("2001:db8::1", "::ffff:192.0.2.9"):
        await limiter.count_failure(address)
    assert limiter.untouched("192.0.2.1") == fresh
    assert limiter.untouched("2001:db8::2") is None, "its network has a failure"
    assert limiter.untouched("192.0.2.9") is None, "it is the same address in another writing"
    clock.move(60)
    assert (await limiter.allowance("2001:db8::2")) == fresh
    assert limiter.untouched("2001:db8::2") == fresh, "its minute is over, and was looked at"


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=300), st.sampled_from(["sha256", "sha512", "sha1"]))
def test_a_keyed_digest_is_the_librarys(key: bytes, content: bytes, algorithm: Algorithm) -> None:
    assert keyed_digest(key, content, algorithm) == hmac.digest(key, content, algorithm)
