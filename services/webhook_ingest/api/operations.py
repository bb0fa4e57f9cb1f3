"""For operators: what arrived, how it was verified, what became of it, and publishing it again."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query

from services.webhook_ingest.api.dependencies import Edge, get_edge
from services.webhook_ingest.api.schemas import (
    BulkReplayedItem,
    BulkReplayedView,
    BulkReplayRequest,
    DeliveryItem,
    DeliveryPage,
    DeliveryView,
    RejectItem,
    RejectPage,
    ReplayedView,
    ReplayRequest,
)
from services.webhook_ingest.domain.models import DeliveryFilter
from services.webhook_ingest.use_cases.replay_deliveries import (
    BulkReplay,
    ReplayOrder,
    replay_deliveries,
    replay_delivery,
)
from shared.errors import FieldError, InvalidRequest, NotFound
from shared.web.auth import Principal, bearer_scheme, require_scope
from shared.web.moments import MomentIn
from shared.web.problems import problem_responses

router = APIRouter(tags=["operations"], dependencies=[Depends(bearer_scheme)])

MAX_BULK_WINDOW = timedelta(days=31)

EdgeDependency = Annotated[Edge, Depends(get_edge)]
Reader = Annotated[Principal, Depends(require_scope("ops:read"))]
Writer = Annotated[Principal, Depends(require_scope("ops:write"))]
DeliveryPath = Annotated[str, Path(pattern=r"^whd_[0-9a-z]{26}$")]
GatewayQuery = Annotated[str | None, Query(pattern=r"^[a-z0-9_]{1,40}$")]
# Printable ASCII: a NUL or half a character in a filter would be the database's error.
EventTypeQuery = Annotated[str | None, Query(pattern=r"^[\x20-\x7e]{1,200}$")]
LimitQuery = Annotated[int, Query(ge=1, le=200)]


@router.get("/api/v1/webhook-deliveries", responses=problem_responses(401, 403, 422, 503))
async def list_deliveries(
    edge: EdgeDependency,
    _reader: Reader,
    gateway: GatewayQuery = None,
    status: Annotated[Literal["pending", "published"] | None, Query()] = None,
    event_type: EventTypeQuery = None,
    since: Annotated[MomentIn | None, Query(description="received at or after")] = None,
    cursor: Annotated[str | None, Query(pattern=r"^whd_[0-9a-z]{26}$")] = None,
    limit: LimitQuery = 50,
) -> DeliveryPage:
    """Verified deliveries, newest first."""
    criteria = DeliveryFilter(
        gateway=gateway, status=status, event_type=event_type, since=since, before_id=cursor, limit=limit + 1
    )
    async with edge.uow() as tx:
        found = await tx.deliveries.search(criteria)
    page = [DeliveryItem.of(summary) for summary in found[:limit]]
    return DeliveryPage(data=page, next_cursor=page[-1].id if len(found) > limit else None)


@router.get("/api/v1/webhook-deliveries/{delivery_id}", responses=problem_responses(401, 403, 404, 422, 503))
async def show_delivery(edge: EdgeDependency, _reader: Reader, delivery_id: DeliveryPath) -> DeliveryView:
    """One delivery with its raw body, headers, verification and what became of it."""
    async with edge.uow() as tx:
        delivery = await tx.deliveries.find(delivery_id)
        if delivery is None:
            raise NotFound("there is no such delivery")
        events = await tx.deliveries.announcements_of(delivery_id)
        replays = await tx.replays.of_delivery(delivery_id)
    return DeliveryView.of(delivery, events, replays)


@router.post(
    "/api/v1/webhook-deliveries/{delivery_id}/replay",
    responses=problem_responses(400, 401, 403, 404, 410, 413, 422, 503),
)
async def replay_one(
    edge: EdgeDependency, writer: Writer, delivery_id: DeliveryPath, body: ReplayRequest
) -> ReplayedView:
    """Publish a delivery again, or say what would be published. Facts that are known already change nothing.

    A delivery whose contents are not kept any more (WEBHOOK_RETENTION_DAYS) is 410.
    """
    order = ReplayOrder(body.replay_mode, body.reason, writer.subject)
    return ReplayedView.of(await replay_delivery(delivery_id, order, uow=edge.uow, ports=edge.ports))


@router.post("/api/v1/webhook-replays", responses=problem_responses(400, 401, 403, 413, 422, 503))
async def replay_many(edge: EdgeDependency, writer: Writer, body: BulkReplayRequest) -> BulkReplayedView:
    """Publish a time window's deliveries again, oldest first, a bounded number per call."""
    if not body.from_ < body.to or body.to - body.from_ > MAX_BULK_WINDOW:
        problem = FieldError("/to", f"must be after from, by at most {MAX_BULK_WINDOW.days} days")
        raise InvalidRequest("The time window cannot be used.", errors=[problem])
    selection = BulkReplay(body.gateway, body.from_, body.to, body.after, body.limit)
    order = ReplayOrder(body.replay_mode, body.reason, writer.subject)
    done = await replay_deliveries(selection, order, uow=edge.uow, ports=edge.ports)
    items = [BulkReplayedItem(delivery_id=one.delivery_id, event_id=one.event_id) for one in done.replayed]
    return BulkReplayedView(
        mode=body.mode, count=len(items), forgotten=done.forgotten, deliveries=items, next_after=done.next_after
    )


@router.get("/api/v1/webhook-rejects", responses=problem_responses(401, 403, 422, 503))
async def list_rejects(
    edge: EdgeDependency,
    _reader: Reader,
    gateway: GatewayQuery = None,
    cursor: Annotated[str | None, Query(pattern=r"^rej_[0-9a-z]{26}$")] = None,
    limit: LimitQuery = 50,
) -> RejectPage:
    """Deliveries that were refused, newest first: at most a thousand per gateway, for a week."""
    async with edge.uow() as tx:
        found = await tx.rejects.search(gateway=gateway, before_id=cursor, limit=limit + 1)
    page = [RejectItem.of(reject) for reject in found[:limit]]
    return RejectPage(data=page, next_cursor=page[-1].id if len(found) > limit else None)
