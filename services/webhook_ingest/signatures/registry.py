"""Which gateways may post here, how each is verified and with which secrets.

A gateway with no secret is not enabled, and an endpoint that is not enabled does not exist (failure XS1). A new
gateway is one row here and, where its scheme needs code, one file beside schemes.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.webhook_ingest.signatures.generic import generic_scheme
from services.webhook_ingest.signatures.paypal import paypal_scheme
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, SignatureScheme, SigningSecret
from services.webhook_ingest.signatures.providers import RAZORPAY, STRIPE
from services.webhook_ingest.signatures.schemes import HmacScheme
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller

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
    """How one gateway is set up: the variable with its secrets, and what builds its scheme.

    ``build_preparing``: instead of ``build``, for a scheme that fetches what it verifies with. ``variables``: where the
    names of its other settings begin, if they do not contain WEBHOOK.
    """

    name: str
    secret_variable: str
    build: Callable[[GatewayValues], SignatureScheme] | None = None
    we_choose_the_secret: bool = False
    acknowledgement: Acknowledgement | None = None
    build_preparing: Callable[[GatewayValues, Surroundings], SignatureScheme] | None = None
    variables: tuple[str, ...] = ()

    def scheme(self, values: GatewayValues, surroundings: Surroundings) -> SignatureScheme:
        if self.build_preparing is not None:
            return self.build_preparing(values, surroundings)
        assert self.build is not None, "a registration builds its scheme one way or the other"
        return self.build(values)


REGISTRATIONS: Sequence[Registration] = (
    Registration("generic", "WEBHOOK_SECRET", generic_scheme, we_choose_the_secret=True, variables=("GENERIC_",)),
    Registration("stripe", "STRIPE_WEBHOOK_SECRET", lambda _values: HmacScheme(STRIPE)),
    # The secret is typed into Razorpay's dashboard by us, and after a change retries keep the old one for a day.
    Registration(
        "razorpay", "RAZORPAY_WEBHOOK_SECRET", lambda _values: HmacScheme(RAZORPAY), we_choose_the_secret=True
    ),
    # The webhook's id is what is signed along with the body: one per listener, told to us by PayPal.
    Registration("paypal", "PAYPAL_WEBHOOK_ID", build_preparing=paypal_scheme, variables=("PAYPAL_",)),
)

SETTING_PREFIXES = tuple(prefix for registration in REGISTRATIONS for prefix in registration.variables)
"""Which variables the settings hand over, besides those with WEBHOOK in their name."""


def build_registry(
    values: GatewayValues, *, production: bool, http: HttpCaller | None = None
) -> Mapping[str, IngestGateway]:
    """The enabled gateways by name. Raises InvalidSchemeConfig with every mistake at once and no secret's value.

    ``http``: what schemes fetch certificates and judgements with; without it those verify nothing.
    """
    surroundings = Surroundings(production=production, http=http)
    gateways: dict[str, IngestGateway] = {}
    problems: list[str] = []
    for registration in REGISTRATIONS:
        try:
            gateway = _enable(registration, values, surroundings)
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


def _enable(registration: Registration, values: GatewayValues, surroundings: Surroundings) -> IngestGateway | None:
    secrets = tuple(map(SigningSecret, values.secrets(registration.secret_variable)))
    prefix = f"{registration.secret_variable}__"
    accounts = {
        variable.removeprefix(prefix): tuple(map(SigningSecret, values.secrets(variable)))
        for variable in values.names_starting_with(prefix)
    }
    accounts = {account: own for account, own in accounts.items() if own}
    if not secrets and not accounts:
        return None
    scheme = registration.scheme(values, surroundings)
    for secret in (*secrets, *(secret for own in accounts.values() for secret in own)):
        scheme.check_secret(secret)
        is_ours = registration.we_choose_the_secret and surroundings.production
        if is_ours and len(secret.text.encode()) < MIN_OWN_SECRET_BYTES:
            raise InvalidSchemeConfig(
                f"{registration.secret_variable} must have at least {MIN_OWN_SECRET_BYTES} bytes in production"
            )
    return IngestGateway(registration.name, scheme, secrets, accounts, registration.acknowledgement)
