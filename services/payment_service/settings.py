"""Every variable that payment_service reads, with its unit and reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.use_cases.ports import OperationRules
from services.payment_service.use_cases.watch_authorizations import AuthorizationPolicy
from shared.command_keys import CommandKeys, senders
from shared.gateway_variables import read_gateway_variables
from shared.settings import ServiceSettings


def gateway_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What the gateways' definitions name, for any account, with ``<NAME>_FILE`` read in. Raises ConfigurationError."""
    known = {variable for definition in gateway_definitions(environ).values() for variable in definition.variables}
    return read_gateway_variables(environ, known.__contains__)


class PaymentSettings(ServiceSettings):
    gateway_variables: dict[str, str] = Field(
        default_factory=lambda: gateway_variables(os.environ),
        repr=False,
        description="the gateways' own settings (<GATEWAY>_…), as found in the environment: docs/gateways.md",
    )

    gateway_order: str = Field(
        "", description="comma-separated names: which gateways a shop offers first; the others follow by name"
    )
    gateway_connect_timeout_seconds: float = Field(3.0, description="an unreachable gateway must not hold a shopper")
    gateway_read_timeout_seconds: float = Field(
        15.0, description="longer than gateways usually take, shorter than patience"
    )
    gateway_breaker_failures_in_a_row: int = Field(5, ge=1, description="so many, and the gateway is not called")
    gateway_breaker_failure_percent: int = Field(50, ge=1, le=100, description="or this share of the recent calls")
    gateway_breaker_minimum_calls: int = Field(10, ge=1, description="with fewer recent calls their share says nothing")
    gateway_breaker_window_seconds: float = Field(30.0, gt=0, description="which calls are recent")
    gateway_breaker_cool_down_seconds: float = Field(
        5.0, gt=0, description="until it is tried again; doubles each time that this fails"
    )
    gateway_breaker_longest_cool_down_seconds: float = Field(
        300.0, gt=0, description="a gateway that is back is noticed within this"
    )
    gateway_breaker_probe_seconds: float = Field(
        30.0, gt=0, description="longer than a call takes; then another caller may try in place of one that died"
    )
    return_budget_seconds: float = Field(
        4.0, description="how long a shopper who comes back waits for the gateway's word"
    )

    amount_mismatch_policy: Literal["hold", "accept"] = Field(
        "hold", description="accept needs a tolerance (design.md §4)"
    )
    amount_mismatch_tolerance_minor: int = Field(0, ge=0, description="minor units by which an amount may differ")
    parked_retention_days: int = Field(
        90, ge=1, le=3650, description="days that parked events are kept after they were applied"
    )
    unclaimed_retention_days: int = Field(
        400,
        ge=30,
        le=3650,
        description="days that a person has to look at an event nobody claims; disputes take a year",
    )
    parked_deadline_hours: float = Field(72.0, gt=0, description="Stripe retries for three days; then a person looks")

    authorization_policy: Literal["none", "capture", "void"] = Field(
        "none", description="what happens to held funds shortly before the hold ends, if nobody has decided"
    )
    authorization_warning_hours: float = Field(24.0, gt=0, description="payment.authorization_expiring so long before")
    authorization_policy_hours: float = Field(6.0, gt=0, description="the policy acts so long before the hold ends")
    operation_lease_seconds: float = Field(
        60.0, ge=2, le=600, description="how long one call may hold an operation; after a kill it is taken up then"
    )
    operation_give_up_hours: float = Field(
        24.0, gt=0, description="an operation that never reached the gateway is canceled after this"
    )
    ledger_check_seconds: float = Field(
        60.0, gt=0, description="how often the ledger is compared with the payments' totals; a round is cheap"
    )
    command_keys: CommandKeys = Field(
        None,
        description="comma-separated <sender>:<hex key>: whose commands are obeyed (order_service:0f…,reconciler:1e…)",
    )

    @property
    def operation_rules(self) -> OperationRules:
        return OperationRules(self.operation_lease_seconds, timedelta(hours=self.operation_give_up_hours))

    @property
    def authorization(self) -> AuthorizationPolicy:
        return AuthorizationPolicy(
            self.authorization_policy,
            timedelta(hours=self.authorization_warning_hours),
            timedelta(hours=self.authorization_policy_hours),
            orders_refuse="order_service" in self.senders,
        )

    @property
    def senders(self) -> Mapping[str, tuple[bytes, ...]]:
        """Whose commands are obeyed, with the keys that sign them."""
        return senders(self.command_keys)

    @property
    def tolerance_minor(self) -> int:
        return self.amount_mismatch_tolerance_minor if self.amount_mismatch_policy == "accept" else 0

    @model_validator(mode="after")
    def _accept_needs_a_tolerance(self) -> PaymentSettings:
        if self.amount_mismatch_policy == "accept" and self.amount_mismatch_tolerance_minor == 0:
            raise ValueError("AMOUNT_MISMATCH_POLICY=accept needs AMOUNT_MISMATCH_TOLERANCE_MINOR above 0")
        return self
