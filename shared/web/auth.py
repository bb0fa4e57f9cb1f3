"""Bearer tokens: who calls, and with which scopes.

A verifier has a JWKS (asymmetric keys only) or, in development alone, one shared key; never both (SEC-17). The
algorithm is fixed by the key and never read from the token (SEC-16).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import isfinite
from typing import Any, Protocol

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Request
from fastapi.security import HTTPBearer

from shared.clock import Clock
from shared.errors import Forbidden, ServiceUnavailable, Unauthenticated
from shared.http import HttpClient, read_bounded
from shared.ports import Ports
from shared.settings import ConfigurationError, ServiceSettings

log = structlog.get_logger()

LEEWAY_SECONDS = 30
SERVICE_TOKEN_SECONDS = 60
JWKS_MAX_BYTES = 64 * 1024
JWKS_FRESH_SECONDS = 600
JWKS_STALE_SECONDS = 24 * 3600
JWKS_REFETCH_SECONDS = 60
JWKS_FIRST_FETCH_WAIT_SECONDS = 5  # while there are no keys at all, nobody can call us
JWKS_TIMEOUT_SECONDS = 3.0
MOST_GOOD_TOKENS = 1000
"""Whose signature is not verified again when the same token comes again: services call each other with one for half a
minute, and a back office with one for its whole life."""
_ALGORITHM_OF_KEY = {"OKP": "EdDSA", "EC": "ES256", "RSA": "RS256"}
_REFUSED_HEADERS = frozenset({"crit", "jwk", "jku", "x5u", "x5c"})  # a token never says how it is to be verified
_REQUIRED_CLAIMS = ["iss", "aud", "exp", "iat", "sub", "jti"]

bearer_scheme = HTTPBearer(auto_error=False, description="JWT with scopes (design.md §3)")


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller that a valid token names."""

    subject: str
    scopes: frozenset[str]

    def has_scope(self, scope: str) -> bool:
        """``orders:*`` grants ``orders:read``."""
        family = scope.partition(":")[0]
        return scope in self.scopes or f"{family}:*" in self.scopes


@dataclass(frozen=True, slots=True)
class VerificationKey:
    algorithm: str
    key: Any = field(repr=False)


class KeySource(Protocol):
    async def find(self, key_id: str | None) -> VerificationKey | None: ...


class StaticKeys:
    """Keys that were given as a document or a shared secret."""

    def __init__(self, keys: Mapping[str | None, VerificationKey]) -> None:
        self._keys = dict(keys)

    async def find(self, key_id: str | None) -> VerificationKey | None:
        return self._keys.get(key_id)


class RemoteKeys:
    """A JWKS behind an https URL: no redirects, bounded, cached, and used for a day more if it goes away (SEC-19)."""

    def __init__(self, url: str, client: HttpClient, clock: Clock) -> None:
        self._url = url
        self._client = client
        self._clock = clock
        self._keys: dict[str | None, VerificationKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()  # who comes while the first fetch is under way waits for it

    async def find(self, key_id: str | None) -> VerificationKey | None:
        age = None if self._fetched_at is None else self._clock.monotonic() - self._fetched_at
        if age is None or age > JWKS_FRESH_SECONDS or key_id not in self._keys:
            async with self._lock:
                await self._refresh()
        if self._fetched_at is None or self._clock.monotonic() - self._fetched_at > JWKS_STALE_SECONDS:
            raise ServiceUnavailable("the keys that verify tokens cannot be fetched")
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        wait = JWKS_REFETCH_SECONDS if self._keys else JWKS_FIRST_FETCH_WAIT_SECONDS
        if self._tried_at is not None and now - self._tried_at < wait:
            return
        self._tried_at = now
        try:
            async with asyncio.timeout(JWKS_TIMEOUT_SECONDS):
                document = await self._fetch()
            self._keys = parse_jwks(document)
            self._fetched_at = now
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, ConfigurationError) as error:
            log.warning("jwks_not_fetched", error=type(error).__name__)

    async def _fetch(self) -> str:
        async with self._client.stream("GET", self._url, follow_redirects=False) as response:
            body = await read_bounded(response, JWKS_MAX_BYTES)
            if response.status_code != 200:
                raise ValueError(f"the JWKS answered {response.status_code}")
        return body.decode()


def parse_jwks(document: str) -> dict[str | None, VerificationKey]:
    """Public keys by key id. Symmetric, private, short or unknown keys are refused. Raises ConfigurationError."""
    try:
        entries = json.loads(document)["keys"]
        keys: dict[str | None, VerificationKey] = {}
        for entry in entries:
            if entry.get("use") == "enc":
                continue  # identity providers list their encryption keys too (Keycloak does)
            algorithm = _ALGORITHM_OF_KEY[entry["kty"]]
            if "d" in entry or (entry["kty"] == "EC" and entry["crv"] != "P-256") or entry.get("use", "sig") != "sig":
                raise ValueError("not a public signature key of a supported kind")
            key = jwt.PyJWK(entry, algorithm=algorithm).key
            if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
                raise ValueError("an RSA key has at least 2048 bits")
            keys[entry.get("kid")] = VerificationKey(algorithm, key)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        raise ConfigurationError(f"the JWKS is not usable: {type(error).__name__}") from None
    return keys


@dataclass(frozen=True, slots=True)
class _GoodToken:
    """A token whose signature, issuer and audience were found good with this very key. Its times count each time."""

    key_id: str | None
    key: VerificationKey
    claims: Mapping[str, Any] = field(repr=False)
    principal: Principal


class TokenVerifier:
    """Raises Unauthenticated for whatever is not a good token; never anything else for any bytes."""

    def __init__(
        self, keys: KeySource, *, issuer: str, audiences: tuple[str, ...], max_lifetime_seconds: int, clock: Clock
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audiences = audiences
        self._max_lifetime = max_lifetime_seconds
        self._clock = clock
        self._good: dict[str, _GoodToken] = {}

    async def verify(self, token: str) -> Principal:
        known = self._good.get(token)
        if known is not None and await self._keys.find(known.key_id) is known.key:
            self._check_times(known.claims)
            return known.principal
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != "at+jwt" or not _REFUSED_HEADERS.isdisjoint(header):
                raise Unauthenticated("the token is not an access token")
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise Unauthenticated("the token's key is not known")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=list(self._audiences),
                options={"require": _REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            self._check_times(claims)
            subject, scopes = claims["sub"], claims.get("scope", "")
            if not subject or type(scopes) is not str:
                raise Unauthenticated("the token's subject or scope is not usable")
            principal = Principal(subject=str(subject), scopes=frozenset(scopes.split()))
            self._remember(token, _GoodToken(header.get("kid"), key, claims, principal))
            return principal
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise Unauthenticated("the token is not valid") from error

    def _remember(self, token: str, good: _GoodToken) -> None:
        if len(self._good) >= MOST_GOOD_TOKENS:
            self._good.pop(next(iter(self._good)))  # the one that was seen first
        self._good[token] = good

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        # By our own clock port, so that a simulation's time counts here too.
        now = self._clock.now().timestamp()
        issued, expires, not_before = claims["iat"], claims["exp"], claims.get("nbf", claims["iat"])
        # NaN compares false with everything, and so would never expire.
        if not all(
            type(value) is int or (type(value) is float and isfinite(value)) for value in (issued, expires, not_before)
        ):
            raise Unauthenticated("the token's times are not numbers")
        if expires < now - LEEWAY_SECONDS:
            raise Unauthenticated("the token has expired")
        if issued > now + LEEWAY_SECONDS or not_before > now + LEEWAY_SECONDS:
            raise Unauthenticated("the token is not valid yet")
        if expires - issued > self._max_lifetime:
            raise Unauthenticated("the token lives longer than is accepted")


class ServiceToken:
    """A service's token for another, made anew when half of its life is over: a signature for each call is no safer."""

    def __init__(self, signer: TokenSigner, *, subject: str, audience: str, scopes: str, clock: Clock) -> None:
        self._sign: Callable[[], str] = partial(signer.sign, subject=subject, audience=audience, scopes=scopes)
        self._clock = clock
        self._token = ""
        self._made_at: float | None = None

    def __call__(self) -> str:
        now = self._clock.monotonic()
        if self._made_at is None or now - self._made_at > SERVICE_TOKEN_SECONDS / 2:
            self._token, self._made_at = self._sign(), now
        return self._token


class TokenSigner:
    """Makes tokens: of services for each other, and of operators and customers for the CLI."""

    def __init__(self, *, key: Any, algorithm: str, key_id: str | None, issuer: str, ports: Ports) -> None:
        self._key = key
        self._algorithm = algorithm
        self._key_id = key_id
        self._issuer = issuer
        self._ports = ports

    def sign(self, *, subject: str, audience: str, scopes: str, seconds: int = SERVICE_TOKEN_SECONDS) -> str:
        now = self._ports.clock.now()
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=seconds)).timestamp()),
            "jti": self._ports.ids.new("jti"),
            "scope": scopes,
        }
        headers = {"typ": "at+jwt"} | ({"kid": self._key_id} if self._key_id else {})
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers)


def build_verifier(
    settings: ServiceSettings,
    *,
    service: str,
    ports: Ports,
    client: HttpClient,
) -> TokenVerifier:
    """Raises ConfigurationError where both kinds of key are set, none is, or the shared key is not allowed."""
    asymmetric = [value for value in (settings.jwt_jwks, settings.jwt_jwks_url) if value]
    if settings.jwt_shared_key is not None and asymmetric:
        raise ConfigurationError("JWT_SHARED_KEY and a JWKS are both set: a verifier has one or the other (SEC-17)")
    if settings.jwt_shared_key is None and len(asymmetric) != 1:
        raise ConfigurationError("set exactly one of JWT_JWKS, JWT_JWKS_URL or, in development, JWT_SHARED_KEY")
    keys: KeySource
    if settings.jwt_shared_key is not None:
        keys = StaticKeys({None: VerificationKey("HS256", shared_key(settings))})
    elif settings.jwt_jwks:
        keys = StaticKeys(parse_jwks(settings.jwt_jwks))
    else:
        url = settings.jwt_jwks_url or ""
        if not url.startswith("https://") and settings.environment == "production":
            raise ConfigurationError("JWT_JWKS_URL must be https")
        keys = RemoteKeys(url, client, ports.clock)
    return TokenVerifier(
        keys,
        issuer=settings.jwt_issuer,
        audiences=(settings.jwt_audience, service),
        max_lifetime_seconds=settings.jwt_max_lifetime_seconds,
        clock=ports.clock,
    )


def build_signer(settings: ServiceSettings, *, ports: Ports) -> TokenSigner:
    """The service's own Ed25519 key, or the development key. Raises ConfigurationError where neither is set."""
    if settings.jwt_signing_key is not None:
        key = settings.jwt_signing_key.get_secret_value()
        return TokenSigner(
            key=key, algorithm="EdDSA", key_id=settings.jwt_signing_key_id, issuer=settings.jwt_issuer, ports=ports
        )
    return TokenSigner(
        key=shared_key(settings), algorithm="HS256", key_id=None, issuer=settings.jwt_issuer, ports=ports
    )


def shared_key(settings: ServiceSettings) -> bytes:
    if settings.jwt_shared_key is None:
        raise ConfigurationError("set JWT_SIGNING_KEY (an Ed25519 key in PEM) or, in development, JWT_SHARED_KEY")
    key = settings.jwt_shared_key.get_secret_value().encode()
    if settings.environment == "production":
        raise ConfigurationError("JWT_SHARED_KEY is for development; production verifies against a JWKS (SEC-17)")
    if len(key) < 32:
        raise ConfigurationError("JWT_SHARED_KEY has at least 32 bytes")
    return key


class Authenticator:
    """What a service's routes ask. Lives in ``app.state.authenticator``."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def principal(self, request: Request) -> Principal | None:
        """The caller, or None where no bearer token was sent. Raises Unauthenticated for a bad one."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or not token or len(token) > 8192:
            raise Unauthenticated
        return await self._verifier.verify(token.strip())


async def optional_principal(request: Request) -> Principal | None:
    authenticator: Authenticator = request.app.state.authenticator
    return await authenticator.principal(request)


class RequireScope:
    """A route's dependency: ``Depends(RequireScope("payments:read"))``. Raises Unauthenticated or Forbidden."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        principal = await optional_principal(request)
        if principal is None:
            raise Unauthenticated
        if not principal.has_scope(self.scope):
            raise Forbidden(f"this needs the scope {self.scope}")
        return principal


def require_scope(scope: str) -> RequireScope:
    return RequireScope(scope)
