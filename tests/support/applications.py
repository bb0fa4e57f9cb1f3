"""Routes that every test's application has in common are analysed once per worker.

FastAPI reads the signatures of a router's endpoints, and builds what validates them, anew for each application that
the router is included in: a tenth of a second for each of a thousand tests, of what is the same every time. What it
makes of a route depends on the route and on how it is included; that is kept with the route, for the routers that
modules hold. The endpoints, their dependencies and the application's state are those of each application as ever.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import fastapi.routing

_KEPT = "_kept_by_tests"


def pytest_configure() -> None:
    _install()


@cache
def _install() -> None:
    effective = fastapi.routing._EffectiveRouteContext
    build = effective.from_api_route

    def from_api_route(*, original_route: Any, include_context: Any) -> Any:
        if include_context.dependency_overrides_provider.dependency_overrides:
            return build(original_route=original_route, include_context=include_context)
        kept: list[tuple[dict[str, Any], Any]] = original_route.__dict__.setdefault(_KEPT, [])
        how = {name: value for name, value in vars(include_context).items() if name != "dependency_overrides_provider"}
        for known, context in kept:
            if known == how:
                return context
        context = build(original_route=original_route, include_context=include_context)
        kept.append((how, context))
        return context

    effective.from_api_route = staticmethod(from_api_route)  # type: ignore[method-assign]
