"""Which gateways may post here, how each is verified and with which secrets.

A gateway with no secret is not enabled, and an endpoint that is not enabled does not exist (failure XS1). A new
gateway is one module here that exports ``REGISTRATION`` (registration.py): a row of data where HMAC suffices
(schemes.py), code where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.webhook_ingest import signatures
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, SigningSecret
from services.webhook_ingest.signatures.registration import IngestGateway, Registration
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller
from shared.plugins import parts_of

MIN_OWN_SECRET_BYTES = 16
"""SEC-41: the shortest secret where we choose it ourselves."""


def registrations(environ: Mapping[str, str] | None = None) -> dict[str, Registration]:
    """Every gateway that deliveries can come from, enabled or not, by name."""
    found = parts_of(signatures, "REGISTRATION", plugin_module="scheme", environ=environ)
    return {registration.name: registration for registration in found}


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
