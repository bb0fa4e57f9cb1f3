"""The embedded mode's mailbox: what would have been sent by e-mail. Mounted by ``make run`` only."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Query

from services.order_service.api.schemas import MailDocument, MailList
from shared.web.problems import problem_responses


def build_mailbox_router(uow: Callable[[], AbstractAsyncContextManager[Any]]) -> APIRouter:
    """``GET /mailbox/messages``, newest first. It shows personal data to anybody: never in production."""
    router = APIRouter(tags=["mailbox"])

    @router.get("/mailbox/messages", responses=problem_responses(422, 503))
    async def get_messages(limit: Annotated[int, Query(ge=1, le=200)] = 50) -> MailList:
        async with uow() as tx:
            rows = await tx.mailbox.newest(limit=limit)
        return MailList(data=[MailDocument.model_validate(row, from_attributes=True) for row in rows])

    return router
