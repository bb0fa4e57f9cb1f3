"""``payrail token``: a JWT for operators, services and customers of an installation."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.errors import explained

OPERATOR_SCOPES = "orders:* payments:* captures:* refunds:* recon:* events:* ops:*"


def token(
    scope: Annotated[
        str, typer.Option(help="scopes, separated by spaces; by default all of an operator's")
    ] = OPERATOR_SCOPES,
    subject: Annotated[str, typer.Option(help="who it is for; a customer's own id for a customer")] = "operator",
    audience: Annotated[str, typer.Option(envvar="JWT_AUDIENCE", help="which services accept it")] = "payrail",
    minutes: Annotated[
        int, typer.Option(min=1, help="how long it lasts; services accept JWT_MAX_LIFETIME_SECONDS at most")
    ] = 15,
) -> None:
    """Print a token signed with JWT_SIGNING_KEY (an Ed25519 key in PEM) or, in development, JWT_SHARED_KEY."""
    from shared.ports import system_ports
    from shared.settings import ServiceSettings
    from shared.web.auth import build_signer

    with explained():
        # Of the settings only those of tokens are needed; a database is not.
        settings = ServiceSettings.load(database_url="postgresql://not-used")
        signer = build_signer(settings, ports=system_ports())
        print(signer.sign(subject=subject, audience=audience, scopes=scope, seconds=minutes * 60))
