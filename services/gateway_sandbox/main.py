"""The HTTP process."""

from __future__ import annotations

from fastapi import FastAPI

from services.gateway_sandbox.api import checkout_routes, control_routes, gateway_routes
from services.gateway_sandbox.bootstrap import SERVICE, Container
from shared.web.app import create_app

_DESCRIPTION = """
Gateways to develop and test against. Each speaks its own wire format under `/sandbox/<gateway>/`, has a hosted
checkout page, signs and retries webhooks, and keeps books that are compared with Payrail's.
The control API below is for scripts and tests.
"""


def create_application(container: Container) -> FastAPI:
    return create_app(
        service=SERVICE,
        title="Gateway sandbox",
        description=_DESCRIPTION,
        ports=container.ports,
        checks=container.checks,
        # The gateways' own paths come last: they match whatever the page and the control API do not.
        routers=(control_routes.router, checkout_routes.router, gateway_routes.router),
        state={"sandbox": container.sandbox},
    )
