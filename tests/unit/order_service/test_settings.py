"""Settings: defaults that are safe, mistakes that are named."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.order_service.settings import OrderSettings
from shared.settings import ConfigurationError


def settings(**values: Any) -> OrderSettings:
    return OrderSettings.load(**({"database_url": "postgresql://x/y"} | values))


def test_the_shops_own_origin_is_the_only_return_origin_by_default() -> None:
    loaded = settings(public_base_url="http://127.0.0.1:8123")
    assert loaded.rules.return_origins == {"http://127.0.0.1:8123"}
    assert loaded.rules.allow_insecure_loopback is False


def test_listed_origins_replace_it() -> None:
    loaded = settings(return_url_allowed_origins="https://shop.example:443, https://m.shop.example/")
    assert loaded.return_origins == {"https://shop.example", "https://m.shop.example"}


@pytest.mark.parametrize(
    "text", ["*", "shop.example", "https://*.shop.example", "https://shop.example/path", "javascript:x"]
)
def test_what_is_no_origin_is_refused_at_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="RETURN_URL_ALLOWED_ORIGINS"):
        settings(return_url_allowed_origins=text)


def test_the_order_lifetime_is_in_minutes_or_for_tests_in_seconds() -> None:
    assert settings().rules.order_lifetime == timedelta(minutes=30)
    assert settings(order_ttl_minutes=5).rules.order_lifetime == timedelta(minutes=5)
    assert settings(order_ttl_seconds=2.5).rules.order_lifetime == timedelta(seconds=2.5)


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_smtp_url_is_none_as_the_compose_file_passes_it_on(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("SMTP_URL", blank)
    assert settings().smtp_url is None


def test_the_command_key_is_hex_and_long_enough() -> None:
    assert settings(command_signing_key="0f" * 32).command_key == b"\x0f" * 32
    assert settings().command_key is None
    assert settings(command_signing_key=" ").command_key is None


@pytest.mark.parametrize("key", ["0f" * 31, "not hex " * 10])
def test_a_weak_command_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="COMMAND_SIGNING_KEY") as refused:
        settings(command_signing_key=key)
    assert key not in str(refused.value)
