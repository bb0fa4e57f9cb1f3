"""What gateways themselves list, through payment_service: which of them can, and their pages for a window."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.reconciler.use_cases.mirror_ports import GatewayPage, ListedAtGateway
from shared.clock import to_rfc3339
from shared.contracts.envelope import MoneyData
from shared.correlation import current_correlation
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, InvalidAmount, PayrailError, ServiceUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.money import Money

LIST_BY_WINDOW = "list_by_window"
MAX_REFERENCE = 255

# What an observation of each kind does to the money that is there, as payment_service names them.
_HELD, _TAKEN = "authorized", "captured"
_UNDONE = {"capture_reversed": _TAKEN, "released": _HELD}
_ENDED = frozenset({"failed", "canceled", "expired"})


class _Gateway(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=64)
    capabilities: list[str]


class _Gateways(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Gateway]


class _Observation(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: str
    object_reference: str = ""
    amount: MoneyData | None = None


class _Listed(BaseModel):
    model_config = ConfigDict(extra="ignore")

    payment_id: str | None
    references: list[str]
    our_references: list[str] = []
    created_at: AwareDatetime | None = None
    observations: list[_Observation]

    def listed(self) -> ListedAtGateway:
        """Raises InvalidAmount."""
        money = _money(self.observations)
        references, ours = _usable(self.references), _usable(self.our_references)
        return ListedAtGateway(self.payment_id, references, ours, money, self.created_at)


class _Page(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Listed]
    next_cursor: str | None = Field(None, max_length=500)


class _Problem(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: str = Field(max_length=100)


A = TypeVar("A", bound=BaseModel)

_OUR_TROUBLE = ("service_unavailable", "database_unavailable")


class HttpGatewayListsClient:
    """Satisfies GatewayListsClient. A page is asked for once: the next run looks at the same window again."""

    def __init__(self, caller: HttpCaller, *, base_url: str, token: Callable[[], str], budget_seconds: float) -> None:
        self._caller = caller
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._policy = CallPolicy(budget_seconds=budget_seconds, attempts=1, reads_problems=True)

    async def gateways_with_lists(self) -> tuple[str, ...]:
        answer = await self._get("/api/v1/gateways", {})
        if answer.status != 200:
            raise ServiceUnavailable(f"payment_service answered {answer.status} to the list of gateways")
        gateways = _read(_Gateways, answer).data
        return tuple(sorted(each.name for each in gateways if LIST_BY_WINDOW in each.capabilities))

    async def page(
        self, gateway: str, account: str, since: datetime, until: datetime, cursor: str | None
    ) -> GatewayPage:
        params = {"since": to_rfc3339(since), "until": to_rfc3339(until)}
        params |= {"account": account} if account else {}
        params |= {"cursor": cursor} if cursor is not None else {}
        answer = await self._get(f"/api/v1/gateways/{gateway}/payments", params)
        if answer.status != 200:
            raise _problem(answer)
        page = _read(_Page, answer)
        try:
            return GatewayPage(tuple(each.listed() for each in page.data), page.next_cursor)
        except InvalidAmount as error:
            raise GatewayOutcomeUnknown("the gateway's list has amounts that are not understood") from error

    async def _get(self, path: str, params: dict[str, str]) -> HttpAnswer:
        headers = {"authorization": f"Bearer {self._token()}"}
        correlation = current_correlation()
        if correlation is not None:
            headers["x-request-id"] = correlation.request_id
        try:
            answer = await self._caller.send(
                "GET", self._base_url + path, policy=self._policy, headers=headers, params=params
            )
        except GatewayUnavailable as error:  # the caller's word for "never reached, or told to slow down"
            raise ServiceUnavailable("payment_service cannot be reached, or limits our rate") from error
        if answer.status in (401, 403):
            raise ServiceUnavailable("payment_service does not take our token")
        return answer


def _usable(references: list[str]) -> tuple[str, ...]:
    """Whatever else stands there names nothing that we know, and no database takes it."""
    return tuple(each for each in references if 0 < len(each) <= MAX_REFERENCE and "\x00" not in each)


def _problem(answer: HttpAnswer) -> PayrailError:
    try:
        code = _read(_Problem, answer).code
    except GatewayOutcomeUnknown:
        return GatewayOutcomeUnknown()
    if code in _OUR_TROUBLE:
        return ServiceUnavailable("payment_service cannot work now")
    return GatewayUnavailable(f"payment_service has no list of this gateway now: {code}")


def _read(model: type[A], answer: HttpAnswer) -> A:
    try:
        return model.model_validate(json.loads(answer.body, parse_float=Decimal))
    except (ValueError, ValidationError) as error:
        raise GatewayOutcomeUnknown("payment_service's answer is not understood") from error


def _money(observations: list[_Observation]) -> Money | None:
    """What is there by the newest word about each of the gateway's objects: captures added up, else what is held.

    Refunds are no matter here: money that came and went back is a payment that nobody knew all the same.
    """
    found: dict[tuple[str, str], Money] = {}
    for each in observations:
        if each.kind in (_HELD, _TAKEN) and each.amount is not None and each.amount.amount_minor > 0:
            found[(each.kind, each.object_reference)] = Money(each.amount.amount_minor, each.amount.currency)
        elif each.kind in _UNDONE:
            found.pop((_UNDONE[each.kind], each.object_reference), None)
    is_ended = any(each.kind in _ENDED for each in observations)  # what was only held is held no more
    for kind in (_TAKEN,) if is_ended else (_TAKEN, _HELD):
        amounts = [money for (what, _), money in found.items() if what == kind]
        if amounts:
            total = sum(each.amount_minor for each in amounts if each.currency == amounts[0].currency)
            return Money(total, amounts[0].currency)
    return None
