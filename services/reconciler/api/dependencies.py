"""What routes get from the application."""

from __future__ import annotations

import re
from typing import Annotated, cast

from fastapi import Depends, Path, Request

from services.reconciler.use_cases.ports import Context
from shared.errors import NotFound
from shared.web.auth import Principal, bearer_scheme, require_scope

_RUN_ID = re.compile(r"run_[0-9a-z]{26}")


def get_context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def run_id_of(run_id: Annotated[str, Path(max_length=100)]) -> str:
    """An id that is not one of ours is simply not found, whatever it looks like. Raises NotFound."""
    if _RUN_ID.fullmatch(run_id) is None:
        raise NotFound
    return run_id


documents_bearer = Depends(bearer_scheme)
UseCaseContext = Annotated[Context, Depends(get_context)]
RunId = Annotated[str, Depends(run_id_of)]
Reader = Annotated[Principal, Depends(require_scope("recon:read"))]
Writer = Annotated[Principal, Depends(require_scope("recon:write"))]
