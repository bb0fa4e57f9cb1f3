"""Tokens: what a good one is, and a zoo of bad ones (SEC-16 to SEC-19, XS2 to XS4)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ServiceUnavailable, Unauthenticated
from shared.http import build_http_client
from shared.settings import ConfigurationError, ServiceSettings
from shared.web import auth
from shared.web.auth import (
    SERVICE_TOKEN_SECONDS,
    Principal,
    RemoteKeys,
    ServiceToken,
    StaticKeys,
    TokenVerifier,
    build_signer,
    build_verifier,
    parse_jwks,
)
from tests.support.clock import FakeClock, fake_ports

CLOCK = FakeClock()
NOW = int(CLOCK.now().timestamp())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
STRANGER = ed25519.Ed25519PrivateKey.generate()
SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 - one to be refused
RSA_PEM = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
SHARED = "a-development-key-of-32-bytes-or-more"


def public_jwk(key: Any, key_id: str) -> dict[str, Any]:
    algorithms: dict[type, Any] = {
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
    }
    algorithm = next(each for kind, each in algorithms.items() if isinstance(key, kind))
    return dict(algorithm.to_jwk(key.public_key(), as_dict=True)) | {"kid": key_id, "use": "sig"}


JWKS = json.dumps({"keys": [public_jwk(ED_KEY, "ed"), public_jwk(EC_KEY, "ec"), public_jwk(RSA_KEY, "rsa")]})


def claims(**changes: Any) -> dict[str, Any]:
    good = {"iss": "payrail", "aud": "payrail", "sub": "cus_1", "jti": "jti_1", "iat": NOW, "exp": NOW + 600}
    merged = good | {"scope": "orders:read"} | changes
    return {name: value for name, value in merged.items() if value is not ...}


def a_token(key: Any = ED_KEY, algorithm: str = "EdDSA", kid: Any = "ed", header: Any = None, **changes: Any) -> str:
    headers = {"typ": "at+jwt", "kid": kid} | (header or {})
    headers = {name: value for name, value in headers.items() if value is not ...}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def encode(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, body: Any, sign: Any = lambda _: b"") -> str:
    """A token that no library would make."""
    signed = f"{encode(header)}.{encode(body)}"
    return f"{signed}.{encode(sign(signed.encode()))}"


def hmac_with(key: bytes) -> Any:
    return lambda signed: hmac.new(key, signed, hashlib.sha256).digest()


def a_verifier() -> TokenVerifier:
    return TokenVerifier(
        StaticKeys(parse_jwks(JWKS)), issuer="payrail", audiences=("payrail",), max_lifetime_seconds=900, clock=CLOCK
    )


def _without(name: str) -> str:
    changes: dict[str, Any] = {name: ...}
    return a_token(**changes)


GOOD_HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": "ed"}
DEEP = b"[" * 100_000
ZOO: dict[str, str] = {
    "empty": "",
    "no dots": "nonsense",
    "two parts": "a.b",
    "four parts": a_token() + ".x",
    "not base64": "!!!.!!!.!!!",
    "no ASCII": "ü.ü.ü",
    "a lone surrogate": "\ud800.\ud800.x",
    "a NUL": "\0.\0.\0",
    "header is a list": by_hand([], claims()),
    "header is nested deeply": by_hand(DEEP, claims()),
    "body is nested deeply": by_hand(GOOD_HEADER, DEEP, ED_KEY.sign),
    "body is a list": by_hand(GOOD_HEADER, [], ED_KEY.sign),
    "body is no JSON": by_hand(GOOD_HEADER, b"{", ED_KEY.sign),
    "alg none": by_hand(GOOD_HEADER | {"alg": "none"}, claims()),
    "alg None": by_hand(GOOD_HEADER | {"alg": "None"}, claims()),
    "alg missing": by_hand({"typ": "at+jwt", "kid": "ed"}, claims(), ED_KEY.sign),
    "alg is a list": by_hand(GOOD_HEADER | {"alg": ["EdDSA"]}, claims(), ED_KEY.sign),
    "HS256 with the RSA public key": by_hand(
        {"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, claims(), hmac_with(RSA_PEM)
    ),
    "HS256 with an empty key": by_hand({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, claims(), hmac_with(b"")),
    "HS256 with the shared key": by_hand(
        {"alg": "HS256", "typ": "at+jwt", "kid": "ed"}, claims(), hmac_with(SHARED.encode())
    ),
    "another algorithm of the same RSA key": a_token(RSA_KEY, "PS256", "rsa"),
    "RS512": a_token(RSA_KEY, "RS512", "rsa"),
    "the key of another algorithm": a_token(EC_KEY, "ES256", "ed"),
    "a stranger's key": a_token(STRANGER),
    "no signature": a_token().rsplit(".", 1)[0] + ".",
    "signature cut short": a_token()[:-4],
    "another body under the signature": ".".join(
        [a_token().split(".")[0], encode(claims(sub="admin")), a_token().split(".")[2]]
    ),
    "unknown key id": a_token(kid="other"),
    "no key id": a_token(kid=...),
    "key id is a number": by_hand(GOOD_HEADER | {"kid": 1}, claims(), ED_KEY.sign),
    "key id is a list": by_hand(GOOD_HEADER | {"kid": ["ed"]}, claims(), ED_KEY.sign),
    "header jwk": a_token(STRANGER, header={"jwk": public_jwk(STRANGER, "ed")}),
    "header jwk under a good signature": a_token(header={"jwk": public_jwk(ED_KEY, "ed")}),
    "header jku": a_token(header={"jku": "https://evil.test/jwks"}),
    "header x5u": a_token(header={"x5u": "https://evil.test/cert"}),
    "header x5c": a_token(header={"x5c": ["MII"]}),
    "header crit": a_token(header={"crit": ["exp"]}),
    "header b64 false": by_hand(GOOD_HEADER | {"b64": False, "crit": ["b64"]}, claims(), ED_KEY.sign),
    "typ JWT": a_token(header={"typ": "JWT"}),
    "typ missing": by_hand({"alg": "EdDSA", "kid": "ed"}, claims(), ED_KEY.sign),
    "typ is an ID token's": a_token(header={"typ": "id+jwt"}),
    "wrong issuer": a_token(iss="elsewhere"),
    "issuer in a list": by_hand(GOOD_HEADER, claims(iss=["payrail"]), ED_KEY.sign),
    "wrong audience": a_token(aud="other_service"),
    "audience is empty": a_token(aud=[]),
    "expired": a_token(iat=NOW - 700, exp=NOW - 31),
    "not valid yet": a_token(nbf=NOW + 31),
    "issued in the future": a_token(iat=NOW + 31),
    "lives too long": a_token(exp=NOW + 901),
    "lives for ever by NaN": by_hand(GOOD_HEADER, claims(exp=float("nan")), ED_KEY.sign),
    "lives for ever by infinity": by_hand(GOOD_HEADER, claims(exp=float("inf")), ED_KEY.sign),
    "expiry is a text": by_hand(GOOD_HEADER, claims(exp=str(NOW + 600)), ED_KEY.sign),
    "expiry is true": by_hand(GOOD_HEADER, claims(exp=True), ED_KEY.sign),
    "issue time is a text": by_hand(GOOD_HEADER, claims(iat="now"), ED_KEY.sign),
    "subject is a number": by_hand(GOOD_HEADER, claims(sub=1), ED_KEY.sign),
    "subject is empty": a_token(sub=""),
    "scope is a list": a_token(scope=["ops:*"]),
} | {f"without {name}": _without(name) for name in ("iss", "aud", "sub", "jti", "iat", "exp")}


@pytest.mark.parametrize("name", ZOO)
async def test_a_bad_token_is_refused(name: str) -> None:
    with pytest.raises(Unauthenticated):
        await a_verifier().verify(ZOO[name])


def test_the_zoo_is_large_enough() -> None:
    assert len(ZOO) >= 40


@given(st.one_of(st.text(), st.binary().map(lambda raw: f"{encode(raw)}.{encode(raw)}.{encode(raw)}")))
def test_whatever_is_not_a_token_is_refused_and_nothing_else_happens(token: str) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(a_verifier().verify(token))


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(ED_KEY, "EdDSA", "ed"), (EC_KEY, "ES256", "ec"), (RSA_KEY, "RS256", "rsa")]
)
async def test_a_good_token_names_its_caller(key: Any, algorithm: str, kid: str) -> None:
    principal = await a_verifier().verify(a_token(key, algorithm, kid))
    assert principal == Principal("cus_1", frozenset({"orders:read"}))


@pytest.mark.parametrize("changes", [{"exp": NOW - 29, "iat": NOW - 500}, {"nbf": NOW + 29}, {"aud": ["x", "payrail"]}])
async def test_the_leeway_is_thirty_seconds_and_one_audience_of_several_will_do(changes: dict[str, Any]) -> None:
    assert (await a_verifier().verify(a_token(**changes))).subject == "cus_1"


def test_a_scope_family_grants_its_members_and_no_other() -> None:
    principal = Principal("ops", frozenset({"orders:*", "payments:read"}))
    assert principal.has_scope("orders:write")
    assert principal.has_scope("payments:read")
    assert not principal.has_scope("payments:write")


def oct_jwk() -> dict[str, str]:
    return {"kty": "oct", "k": encode(b"x" * 32), "kid": "oct"}


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keys": 1}',
        '{"keys": ["x"]}',
        '{"keys": [{}]}',
        "[" * 60_000,
        json.dumps({"keys": [oct_jwk()]}),
        json.dumps({"keys": [public_jwk(SHORT_RSA, "short")]}),
        json.dumps({"keys": [public_jwk(ED_KEY, "ed") | {"d": encode(b"x" * 32)}]}),
        json.dumps({"keys": [public_jwk(EC_KEY, "ec") | {"crv": "P-384"}]}),
        json.dumps({"keys": [public_jwk(ED_KEY, "ed") | {"x": "!"}]}),
    ],
    ids=itertools.count(),  # keys are new in every process, and ids must not be
)
def test_a_jwks_with_an_unusable_key_is_refused(document: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_jwks(document)


def test_encryption_keys_in_a_jwks_are_left_out() -> None:
    document = {"keys": [public_jwk(ED_KEY, "ed"), public_jwk(RSA_KEY, "enc") | {"use": "enc", "alg": "RSA-OAEP"}]}
    assert set(parse_jwks(json.dumps(document))) == {"ed"}


def settings(**changes: Any) -> ServiceSettings:
    return ServiceSettings.load(**({"database_url": "postgresql:///x", "environment": "production"} | changes))


def build(**changes: Any) -> TokenVerifier:
    ports = fake_ports(clock=CLOCK)
    client = build_http_client(ports, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    return build_verifier(settings(**changes), service="order_service", ports=ports, client=client)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"jwt_shared_key": SHARED},
        {"jwt_shared_key": SHARED, "jwt_jwks": JWKS},
        {"jwt_shared_key": SHARED, "jwt_jwks": JWKS, "environment": "development"},
        {"jwt_shared_key": SHARED, "jwt_jwks_url": "https://id.test/jwks", "environment": "development"},
        {"jwt_shared_key": "", "environment": "development"},
        {"jwt_shared_key": "x" * 31, "environment": "development"},
        {"jwt_jwks": JWKS, "jwt_jwks_url": "https://id.test/jwks"},
        {"jwt_jwks_url": "http://id.test/jwks"},
        {"jwt_jwks": '{"keys": [{}]}'},
    ],
)
def test_a_verifier_that_would_not_be_safe_is_not_built(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        build(**changes)
    assert SHARED not in str(refusal.value)


async def test_in_development_one_shared_key_signs_and_verifies() -> None:
    changes = {"jwt_shared_key": SHARED, "environment": "development"}
    signer = build_signer(settings(**changes), ports=fake_ports(clock=CLOCK))
    token = signer.sign(subject="cus_1", audience="order_service", scopes="orders:read orders:write")
    principal = await build(**changes).verify(token)
    assert principal.scopes == {"orders:read", "orders:write"}
    with pytest.raises(Unauthenticated):
        await build(**changes).verify(a_token())


async def test_a_service_signs_with_its_own_key() -> None:
    pem = ED_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    signer = build_signer(settings(jwt_signing_key=pem, jwt_signing_key_id="ed"), ports=fake_ports(clock=CLOCK))
    token = signer.sign(subject="order_service", audience="payment_service", scopes="payments:write")
    assert pem not in repr(settings(jwt_signing_key=pem))
    with pytest.raises(Unauthenticated):  # meant for another service
        await build(jwt_jwks=JWKS).verify(token)


class IdentityProvider:
    def __init__(self) -> None:
        self.answer: Any = httpx.Response(200, content=JWKS)
        self.asked = 0
        self.clock = FakeClock()
        client = build_http_client(fake_ports(), transport=httpx.MockTransport(self._answer))
        self.keys = RemoteKeys("https://id.test/jwks", client, self.clock)

    async def _answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, httpx.Response):
            return httpx.Response(self.answer.status_code, headers=self.answer.headers, content=self.answer.content)
        return httpx.Response(200, content=self.answer())


async def test_remote_keys_are_fetched_once_and_kept_for_ten_minutes() -> None:
    provider = IdentityProvider()
    assert await provider.keys.find("ed")
    provider.clock.move(599)
    assert await provider.keys.find("ec")
    assert provider.asked == 1
    provider.clock.move(2)
    assert await provider.keys.find("ec")
    assert provider.asked == 2


async def test_callers_who_come_during_the_first_fetch_wait_for_it() -> None:
    provider = IdentityProvider()
    found = await asyncio.gather(*(provider.keys.find("ed") for _ in range(10)))
    assert all(found)
    assert provider.asked == 1


async def test_an_unknown_key_id_is_looked_for_once_a_minute_at_most() -> None:
    provider = IdentityProvider()
    for _ in range(20):
        assert await provider.keys.find("rotated") is None
    assert provider.asked == 1
    provider.clock.move(61)
    provider.answer = httpx.Response(200, content=json.dumps({"keys": [public_jwk(ED_KEY, "rotated")]}))
    assert await provider.keys.find("rotated")
    assert provider.asked == 2


async def drips() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.1)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(302, headers={"location": "https://evil.test/jwks"}),
        httpx.Response(200, content=b" " * 70_000 + JWKS.encode()),
        httpx.Response(200, content=b"{"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, content=b"[" * 60_000),
        httpx.Response(500),
        httpx.ConnectError("refused"),
    ],
    ids=["redirect", "giant", "no JSON", "no UTF-8", "deep", "error", "away"],
)
async def test_keys_outlive_the_provider_by_a_day_and_no_longer(trouble: Any) -> None:
    provider = IdentityProvider()
    assert await provider.keys.find("ed")
    provider.answer = trouble
    provider.clock.move(23 * 3600)
    assert await provider.keys.find("ed")
    provider.clock.move(2 * 3600)
    with pytest.raises(ServiceUnavailable):
        await provider.keys.find("ed")


async def test_without_any_keys_the_provider_is_asked_again_soon() -> None:
    provider = IdentityProvider()
    good, provider.answer = provider.answer, httpx.ConnectError("away")
    for _ in range(5):
        with pytest.raises(ServiceUnavailable):
            await provider.keys.find("ed")
    assert provider.asked == 1
    provider.answer = good
    provider.clock.move(6)
    assert await provider.keys.find("ed")


async def test_a_provider_that_drips_is_given_up_after_three_seconds() -> None:
    provider = IdentityProvider()
    provider.answer = drips
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(ServiceUnavailable):
        await provider.keys.find("ed")
    assert 2.5 < loop.time() - started < 10


async def test_a_token_that_was_good_before_is_judged_by_the_time_and_the_keys_of_now() -> None:
    """Its signature is not verified again; what can change is looked at each time."""
    clock = FakeClock()
    keys = parse_jwks(JWKS)
    source = StaticKeys(keys)
    verifier = TokenVerifier(source, issuer="payrail", audiences=("payrail",), max_lifetime_seconds=900, clock=clock)
    token = a_token()
    first = await verifier.verify(token)
    assert await verifier.verify(token) == first
    source._keys = parse_jwks(JWKS)  # fetched anew: the same key, and verified anew
    assert await verifier.verify(token) == first
    source._keys = {}  # withdrawn
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)
    source._keys = keys
    clock.move(3600)
    with pytest.raises(Unauthenticated, match="expired"):
        await verifier.verify(token)


async def test_many_tokens_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MOST_GOOD_TOKENS", 2)
    verifier = a_verifier()
    for number in range(5):
        await verifier.verify(a_token(jti=f"jti-{number}"))
    assert len(verifier._good) == 2


def test_a_services_token_is_made_anew_at_half_its_life() -> None:
    clock = FakeClock()
    loaded = settings(jwt_shared_key=SHARED, environment="development")
    signer = build_signer(loaded, ports=fake_ports(clock=clock))
    token = ServiceToken(signer, subject="a", audience="b", scopes="c:read", clock=clock)
    first = token()
    clock.move(SERVICE_TOKEN_SECONDS / 2)
    assert token() == first
    clock.move(1)
    assert token() != first
