"""How routes reach the container."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from services.gateway_sandbox.use_cases.sandbox import Sandbox


def sandbox_of(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


SandboxDependency = Annotated[Sandbox, Depends(sandbox_of)]
