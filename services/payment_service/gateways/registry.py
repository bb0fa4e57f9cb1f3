"""The gateways that are enabled here: each account of ours at each of them, over an adapter of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from services.payment_service.domain.breaker import BreakerState, OperationClass
from services.payment_service.domain.errors import GatewayNotEnabled
from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.gateways.definition import AccountSettings, GatewayDefinition, Tools
from services.payment_service.gateways.guarded import GuardedAdapter
from services.payment_service.gateways.port import GatewayAdapter
from services.payment_service.settings import PaymentSettings
from services.payment_service.use_cases.breakers import BreakerHealth, Breakers
from shared.gateway_variables import account_name, accounts_of, value_for
from shared.http import HttpCaller, HttpClient, build_http_client
from shared.ports import Ports
from shared.settings import ConfigurationError, split_list

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """One account of ours at a gateway; ``name`` None is the one whose variables name no account."""

    gateway: str
    name: str | None
    adapter: GatewayAdapter
    currencies: tuple[str, ...] = ()

    @property
    def guarded_as(self) -> str:
        return guarded_as(self.gateway, self.name)


@dataclass(frozen=True, slots=True)
class Gateways:
    """Every enabled account, each behind breakers of its own and over an HTTP pool of its own, so that one cannot
    starve another (failure H15)."""

    accounts: Mapping[str, tuple[Account, ...]]
    breakers: Breakers
    clients: tuple[HttpClient, ...] = ()

    @property
    def adapters(self) -> Mapping[str, GatewayAdapter]:
        """One for each gateway: that of its first account."""
        return {name: accounts[0].adapter for name, accounts in self.accounts.items()}

    def get(self, name: str, account: str | None = None) -> GatewayAdapter:
        """Raises GatewayNotEnabled."""
        return self._account(name, account).adapter

    def account_for(self, name: str, currency: str) -> str | None:
        """Which account takes a new payment: the first that names its currency, else the first that names none.

        Raises GatewayNotEnabled.
        """
        accounts = self._accounts(name)
        naming = next((each for each in accounts if currency in each.currencies), None)
        return (naming or next((each for each in accounts if not each.currencies), accounts[0])).name

    def account_of(self, name: str, label: str | None) -> str | None:
        """The account that a webhook came for, by the label in its address. Where we have one account only, it is that
        one whatever the label; else a label that is nobody's stays, and no payment is found under it (failure W15)."""
        accounts = self.accounts.get(name, ())
        if len(accounts) == 1:
            return accounts[0].name
        return account_name(label) if label and accounts else None

    def has(self, name: str, account: str | None) -> bool:
        return any(each.name == account for each in self.accounts.get(name, ()))

    def reader_of(self, name: str, label: str | None) -> GatewayAdapter:
        """Raises GatewayNotEnabled."""
        accounts, wanted = self._accounts(name), self.account_of(name, label)
        return next((each for each in accounts if each.name == wanted), accounts[0]).adapter

    def require_available(self, name: str, operation_class: OperationClass, account: str | None = None) -> None:
        """Raises GatewayNotEnabled, or GatewayUnavailable while its breaker is open."""
        self.breakers.require_available(self._account(name, account).guarded_as, operation_class)

    def offers(self) -> Iterator[tuple[tuple[Account, ...], Mapping[OperationClass, BreakerHealth]]]:
        """Each gateway's accounts, with the health of the first one that can open a session."""
        for accounts in self.accounts.values():
            seen = [self.breakers.health(each.guarded_as) for each in accounts]
            well = (health for health in seen if health[OperationClass.SESSION].state is not BreakerState.OPEN)
            yield accounts, next(well, seen[0])

    def __contains__(self, name: str) -> bool:
        return name in self.accounts

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()

    def _accounts(self, name: str) -> tuple[Account, ...]:
        try:
            return self.accounts[name]
        except KeyError:
            raise GatewayNotEnabled(f"the gateway {name!r} is not enabled here") from None

    def _account(self, name: str, account: str | None) -> Account:
        found = next((each for each in self._accounts(name) if each.name == account), None)
        if found is None:
            raise GatewayNotEnabled(f"the gateway {name!r} has no account {account!r} here")
        return found


def guarded_as(gateway: str, account: str | None) -> str:
    """What an account's breakers are called: one that is down says nothing about the others."""
    return gateway if account is None else f"{gateway}:{account}"


def build_gateways(settings: PaymentSettings, ports: Ports, breakers: Breakers) -> Gateways:
    """Raises ConfigurationError, naming variables and no values."""
    accounts: dict[str, tuple[Account, ...]] = {}
    clients: list[HttpClient] = []

    def build(definition: GatewayDefinition, account: str | None, own: AccountSettings) -> Account:
        clients.append(
            build_http_client(
                ports,
                connect_seconds=settings.gateway_connect_timeout_seconds,
                read_seconds=settings.gateway_read_timeout_seconds,
            )
        )
        return _account(definition, account, own, _tools(definition, account, clients[-1], settings, ports), breakers)

    definitions = gateway_definitions()
    first = [name for name in split_list(settings.gateway_order) if name in definitions]
    for name in dict.fromkeys((*first, *definitions)):
        definition = definitions[name]
        enabled = _settings_of(definition, settings.gateway_variables)
        if found := tuple(build(definition, account, own) for account, own in enabled):
            accounts[name] = found
    return Gateways(accounts, breakers, tuple(clients))


def _account(
    definition: GatewayDefinition, account: str | None, settings: AccountSettings, tools: Tools, breakers: Breakers
) -> Account:
    try:
        adapter = definition.build(settings, tools)
    except ValueError as error:
        raise ConfigurationError(f"{definition.name}: {error}") from None
    guarded = GuardedAdapter(
        adapter, guarded_as(definition.name, account), breakers, only_currencies=settings.currencies
    )
    return Account(definition.name, account, guarded, settings.currencies)


def _tools(
    definition: GatewayDefinition, account: str | None, client: HttpClient, settings: PaymentSettings, ports: Ports
) -> Tools:
    own = f"/{account}" if account else ""
    webhook_url = f"{settings.public_base_url.rstrip('/')}/api/v1/webhooks/{definition.name}{own}"
    return Tools(HttpCaller(client, ports), ports, webhook_url, settings.environment == "production")


def _settings_of(
    definition: GatewayDefinition, variables: Mapping[str, str]
) -> Iterator[tuple[str | None, AccountSettings]]:
    for account in (None, *accounts_of(variables, definition.variables)):
        found = {
            field: value
            for field in definition.settings.model_fields
            if (value := value_for(variables, definition.variable(field), account)) is not None
        }
        required = {name for name, field in definition.settings.model_fields.items() if field.is_required()}
        missing = required - set(found)
        if not missing:
            yield account, _validated(definition, found)
        elif missing != required:
            names = [definition.variable(name) for name in sorted(missing)]
            log.warning("gateway_settings_incomplete", gateway=definition.name, account=account, missing=names)


def _validated(definition: GatewayDefinition, found: Mapping[str, str]) -> AccountSettings:
    try:
        return definition.settings.model_validate(found)
    except ValidationError as error:
        lines = [
            f"  {definition.variable(str(each['loc'][0]) if each['loc'] else '')}: {each['msg']}"
            for each in error.errors(include_input=False)
        ]
        raise ConfigurationError("these settings are wrong:\n" + "\n".join(lines)) from None
