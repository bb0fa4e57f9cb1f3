"""PayPal's signing certificates: where they may come from, how they are fetched, and when they are trusted.

The address of the certificate comes with the delivery, from anybody: it is judged before a byte is sent, never followed
anywhere else, and what it leads to must end in a root that we trust and be named as PayPal names it.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import certifi
from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

from services.webhook_ingest.signatures.port import EvidenceUnavailable, InvalidSchemeConfig
from shared.errors import GatewayError
from shared.http import CallPolicy, HttpCaller

LIVE_HOSTS = frozenset({"api.paypal.com", "api-m.paypal.com"})
SANDBOX_HOSTS = frozenset({"api.sandbox.paypal.com", "api-m.sandbox.paypal.com"})

LARGEST_CERTIFICATE_BYTES = 64 * 1024
MOST_CERTIFICATES_IN_CHAIN = 6
MOST_CACHED = 16
CACHED_FOR_SECONDS = 24 * 3600
"""A certificate that PayPal withdraws goes out of use within a day; its address changes when it is renewed."""

FETCHES_PER_MINUTE = 30
"""Anybody can post addresses at PayPal's hosts: they must not make us ask for all of them."""

FETCH = CallPolicy(budget_seconds=5, attempts=2, repeatable=True)

_NAME_START, _NAME_END = "messageverificationcerts", ".paypal.com"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# One pattern for the whole address, not a parser's opinion: user-info, other ports, queries and fragments do not fit.
_PATH = re.compile(r"/v1/notifications/certs/[A-Za-z0-9._-]{1,200}")
_ADDRESS = re.compile(rf"https://(?P<host>[a-z0-9.-]{{1,100}})(?::443)?{_PATH.pattern}")

Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class CertificateAddresses:
    """Which addresses may be asked for a certificate: exact hosts, never a part of a name.

    ``development_bases`` are whole beginnings (``http://127.0.0.1:8000/sandbox/paypal``) for a sandbox beside us.
    """

    hosts: frozenset[str]
    development_bases: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        if ".." in url:
            return False
        for base in self.development_bases:
            if url.startswith(base) and _PATH.fullmatch(url.removeprefix(base)):
                return True
        match = _ADDRESS.fullmatch(url)
        return match is not None and match["host"] in self.hosts


class CertificateSource(Protocol):
    async def load(self, url: str) -> Chain | None:
        """The certificates there, leaf first; None for what is none. Raises EvidenceUnavailable."""
        ...

    def keep(self, url: str, chain: Chain) -> None:
        """They have proved to be PayPal's: they may be remembered."""
        ...


class FetchedCertificates:
    """Over HTTP, without redirects, bounded in size and time; kept by address while they are in use."""

    def __init__(self, http: HttpCaller | None) -> None:
        self._http = http
        self._cached: OrderedDict[str, tuple[float, Chain]] = OrderedDict()
        self._lock = asyncio.Lock()
        self._minute = 0.0
        self._fetched_this_minute = 0

    async def load(self, url: str) -> Chain | None:
        if self._http is None:
            raise EvidenceUnavailable("no certificate can be fetched here")
        now = self._http.clock.monotonic()
        if (chain := self._from_cache(url, now)) is not None:
            return chain
        async with self._lock:  # one at a time: a burst of deliveries under a new certificate fetches it once
            if (chain := self._from_cache(url, now)) is not None:
                return chain
            self._count_fetch(self._http.clock.monotonic())
            return parse_chain(await self._fetch(self._http, url))

    def keep(self, url: str, chain: Chain) -> None:
        """What strangers lead us to is never kept, so it cannot push out what is in use."""
        if self._http is not None:
            self._cached[url] = (self._http.clock.monotonic() + CACHED_FOR_SECONDS, chain)
            while len(self._cached) > MOST_CACHED:
                self._cached.popitem(last=False)

    def _from_cache(self, url: str, now: float) -> Chain | None:
        until, chain = self._cached.get(url, (0.0, ()))
        if not chain or now >= until:
            return None
        self._cached.move_to_end(url)
        return chain

    def _count_fetch(self, now: float) -> None:
        if now - self._minute >= 60:
            self._minute, self._fetched_this_minute = now, 0
        if self._fetched_this_minute >= FETCHES_PER_MINUTE:
            raise EvidenceUnavailable("too many certificates were asked for", retry_after_seconds=60)
        self._fetched_this_minute += 1

    async def _fetch(self, http: HttpCaller, url: str) -> bytes:
        try:
            answer = await http.send("GET", url, policy=FETCH)
        except GatewayError as error:
            raise EvidenceUnavailable("the certificate could not be fetched") from error
        # Nothing but a plain 200 is a certificate: a redirect would lead away from the host that was checked.
        if answer.status != 200 or len(answer.body) > LARGEST_CERTIFICATE_BYTES:
            raise EvidenceUnavailable("the certificate could not be fetched")
        return answer.body


def parse_chain(pem: bytes) -> Chain | None:
    """Leaf first; None for what is not certificates."""
    blocks = _PEM.findall(pem)
    if not 0 < len(blocks) <= MOST_CERTIFICATES_IN_CHAIN:
        return None
    try:
        return tuple(x509.load_pem_x509_certificate(block) for block in blocks)
    except (ValueError, CryptographyDeprecationWarning):
        return None


class ChainCheck(Protocol):
    def trusts(self, chain: Sequence[x509.Certificate], at: datetime) -> bool: ...


class TrustedRoots:
    """The public roots (certifi's), and one of our own where a setting names it."""

    def __init__(self, own_root_pem: str | None = None) -> None:
        own = parse_chain(own_root_pem.encode()) if own_root_pem else ()
        if own is None:
            raise InvalidSchemeConfig("PAYPAL_WEBHOOK_CA_FILE holds no certificate")
        self._store = Store([*_public_roots(), *own])

    def trusts(self, chain: Sequence[x509.Certificate], at: datetime) -> bool:
        """Signatures, dates and constraints up to a root, and the leaf's name as PayPal's own SDK checks it."""
        if not chain or not _is_named_by_paypal(chain[0]):
            return False
        policy = (
            PolicyBuilder()
            .store(self._store)
            .time(at)
            # It signs messages: what a browser wants of a server's certificate is not what makes it PayPal's.
            .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all())
        )
        try:
            policy.build_client_verifier().verify(chain[0], list(chain[1:]))
        except (VerificationError, ValueError):
            return False
        return True


def _is_named_by_paypal(leaf: x509.Certificate) -> bool:
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        return False
    name = str(names[0].value)
    return name.startswith(_NAME_START) and name.endswith(_NAME_END)


def _public_roots() -> list[x509.Certificate]:
    roots = []
    blocks = _PEM.findall(Path(certifi.where()).read_bytes())
    with warnings.catch_warnings():
        # Some old roots have serial numbers that the library dislikes; they sign nothing of PayPal's.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for block in blocks:
            try:
                roots.append(x509.load_pem_x509_certificate(block))
            except ValueError:
                continue
    return roots
