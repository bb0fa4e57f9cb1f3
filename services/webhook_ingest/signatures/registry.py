"""Which gateways may post here, how each is verified and with which secrets.

A gateway with no secret is not enabled, and an endpoint that is not enabled does not exist (failure XS1). A new
gateway is one row here and, where its scheme needs code, one file beside schemes.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.webhook_ingest.signatures.generic import generic_scheme
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, SignatureScheme, SigningSecret
from services.webhook_ingest.signatures.providers import STRIPE
from services.webhook_ingest.signatures.schemes import HmacScheme
from services.webhook_ingest.signatures.values import GatewayValues

MIN_OWN_SECRET_BYTES = 16
"""SEC-41: the shortest secret where we choose it ourselves."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The exact answer that a gateway insists on, instead of our own JSON (failure W21)."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class IngestGateway:
    """One enabled gateway. Where there are ``account_secrets``, any other account is unknown."""

    name: str
    scheme: SignatureScheme
    secrets: tuple[SigningSecret, ...]
    account_secrets: Mapping[str, tuple[SigningSecret, ...]] = field(default_factory=dict)
    acknowledgement: Acknowledgement | None = None

    def secrets_for(self, account: str | None) -> tuple[SigningSecret, ...] | None:
        """The secrets to verify with, or None for an account that is not ours."""
        if account is None or not self.account_secrets:
            return self.secrets
        return self.account_secrets.get(account_key(account))


@dataclass(frozen=True, slots=True)
class Registration:
    """How one gateway is set up: the variable with its secrets, and what builds its scheme."""

    name: str
    secret_variable: str
    build: Callable[[GatewayValues], SignatureScheme]
    we_choose_the_secret: bool = False
    acknowledgement: Acknowledgement | None = None


REGISTRATIONS: Sequence[Registration] = (
    Registration("generic", "WEBHOOK_SECRET", generic_scheme, we_choose_the_secret=True),
    Registration("stripe", "STRIPE_WEBHOOK_SECRET", lambda _values: HmacScheme(STRIPE)),
)


def build_registry(values: GatewayValues, *, production: bool) -> Mapping[str, IngestGateway]:
    """The enabled gateways by name. Raises InvalidSchemeConfig with every mistake at once and no secret's value."""
    gateways: dict[str, IngestGateway] = {}
    problems: list[str] = []
    for registration in REGISTRATIONS:
        try:
            gateway = _enable(registration, values, production=production)
        except InvalidSchemeConfig as problem:
            problems.append(str(problem))
        else:
            if gateway is not None:
                gateways[gateway.name] = gateway
    if problems:
        raise InvalidSchemeConfig("; ".join(problems))
    return gateways


def account_key(account: str) -> str:
    """An account as it appears in a variable's name: ``eu-1`` is ``STRIPE_WEBHOOK_SECRET__EU_1``."""
    return re.sub(r"[^A-Z0-9]", "_", account.upper())


def _enable(registration: Registration, values: GatewayValues, *, production: bool) -> IngestGateway | None:
    secrets = tuple(map(SigningSecret, values.secrets(registration.secret_variable)))
    prefix = f"{registration.secret_variable}__"
    accounts = {
        variable.removeprefix(prefix): tuple(map(SigningSecret, values.secrets(variable)))
        for variable in values.names_starting_with(prefix)
    }
    accounts = {account: own for account, own in accounts.items() if own}
    if not secrets and not accounts:
        return None
    scheme = registration.build(values)
    for secret in (*secrets, *(secret for own in accounts.values() for secret in own)):
        scheme.check_secret(secret)
        if registration.we_choose_the_secret and production and len(secret.text.encode()) < MIN_OWN_SECRET_BYTES:
            raise InvalidSchemeConfig(
                f"{registration.secret_variable} must have at least {MIN_OWN_SECRET_BYTES} bytes in production"
            )
    return IngestGateway(registration.name, scheme, secrets, accounts, registration.acknowledgement)
