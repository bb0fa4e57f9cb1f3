"""Which gateways may post here, how each is verified and with which secrets.

A gateway with no secret is not enabled, and an endpoint that is not enabled does not exist (failure XS1). A new
gateway is one module here that exports ``REGISTRATION`` (registration.py): a row of data where HMAC suffices
(schemes.py), code where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.webhook_ingest import signatures
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, SigningSecret
from services.webhook_ingest.signatures.registration import IngestGateway, Registration
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.gateway_variables import ACCOUNT_SEPARATOR
from shared.http import HttpCaller
from shared.plugins import parts_of

MIN_OWN_SECRET_BYTES = 16
"""SEC-41: the shortest secret where we choose it ourselves."""


def registrations(environ: Mapping[str, str] | None = None) -> dict[str, Registration]:
    """Every gateway that deliveries can come from, enabled or not, by name."""
    return parts_of(signatures, "REGISTRATION", plugin_module="scheme", environ=environ)


def build_registry(
    values: GatewayValues, *, production: bool, http: HttpCaller | None = None
) -> Mapping[str, IngestGateway]:
    """The enabled gateways by name. Raises InvalidSchemeConfig with every mistake at once and no secret's value.

    ``http``: what schemes fetch certificates and judgements with; without it those verify nothing.
    """
    surroundings = Surroundings(production=production, http=http)
    gateways: dict[str, IngestGateway] = {}
    problems: list[str] = []
    for registration in registrations().values():
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


def _enable(registration: Registration, values: GatewayValues, surroundings: Surroundings) -> IngestGateway | None:
    """Secrets are an account's own and are not shared: who has one account's says nothing about another's money."""
    prefix = f"{registration.secret_variable}{ACCOUNT_SEPARATOR}"
    keys = [name.removeprefix(prefix) for name in values.names_starting_with(prefix) if values.secrets(name)]
    accounts = {key: _account(registration, values.for_account(key), surroundings) for key in keys}
    if values.secrets(registration.secret_variable):
        return replace(_account(registration, values.for_account(None), surroundings), accounts=accounts)
    if not accounts:
        return None
    return replace(next(iter(accounts.values())), secrets=(), accounts=accounts)


def _account(registration: Registration, values: GatewayValues, surroundings: Surroundings) -> IngestGateway:
    secrets = tuple(map(SigningSecret, values.secrets(registration.secret_variable)))
    scheme = registration.scheme(values, surroundings)
    for secret in secrets:
        scheme.check_secret(secret)
        is_ours = registration.we_choose_the_secret and surroundings.production
        if is_ours and len(secret.text.encode()) < MIN_OWN_SECRET_BYTES:
            raise InvalidSchemeConfig(
                f"{registration.secret_variable} must have at least {MIN_OWN_SECRET_BYTES} bytes in production"
            )
    return IngestGateway(registration.name, scheme, secrets, acknowledgement=registration.acknowledgement)
