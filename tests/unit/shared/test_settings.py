"""Settings: every mistake at once, no value ever, and files in place of variables (SEC-70, failure L18)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from shared.settings import BaseEnvironment, ConfigurationError, ServiceSettings, settings_for, split_list


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "RABBITMQ_URL", "PORT", "LOG_LEVEL", "PAYRAIL_ENVIRONMENT", "DATABASE_POOL_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_every_mistake_is_listed_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PORT": "canary-port", "LOG_LEVEL": "canary-level", "PAYRAIL_ENVIRONMENT": "canary"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refusal:
        ServiceSettings.load()
    text = str(refusal.value)
    assert all(name in text for name in ("PORT", "LOG_LEVEL", "PAYRAIL_ENVIRONMENT", "DATABASE_URL"))
    assert "canary" not in text
    assert refusal.value.__cause__ is None


def test_the_environment_is_read_and_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:canary@h/d")
    monkeypatch.setenv("PORT", "9000")
    settings = ServiceSettings.load()
    assert (settings.port, settings.environment) == (9000, "production")
    assert "canary" not in repr(settings)
    assert settings.database_url.get_secret_value().endswith("canary@h/d")


def test_a_variable_may_name_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://from-a-file/d\r\n")
    (tmp_path / "environment").write_text("development\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("PAYRAIL_ENVIRONMENT_FILE", str(tmp_path / "environment"))
    settings = ServiceSettings.load()
    assert settings.database_url.get_secret_value() == "postgresql://from-a-file/d"
    assert settings.environment == "development"


@pytest.mark.parametrize("content", [None, b"\xff\xfecanary"])
def test_a_file_that_cannot_be_read_is_a_mistake_with_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(ConfigurationError, match="DATABASE_URL_FILE") as refusal:
        ServiceSettings.load()
    assert "canary" not in str(refusal.value)


def test_a_structured_variable_that_is_no_json_is_a_mistake_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Structured(BaseEnvironment):
        secrets_by_name: dict[str, str] = Field(default_factory=dict)

    monkeypatch.setenv("SECRETS_BY_NAME", "{canary")
    with pytest.raises(ConfigurationError) as refusal:
        Structured.load()
    assert "secrets_by_name" in str(refusal.value).lower()
    assert "canary" not in str(refusal.value)


def test_a_service_may_have_a_database_of_its_own(tmp_path: Path) -> None:
    assert settings_for("order_service", {}) == {}
    own = {"ORDER_SERVICE_DATABASE_URL": "postgresql:///own"}
    assert settings_for("order_service", own) == {"database_url": "postgresql:///own"}
    (tmp_path / "url").write_text("postgresql:///file\n")
    by_file = {"ORDER_SERVICE_DATABASE_URL_FILE": str(tmp_path / "url")}
    assert settings_for("order_service", by_file) == {"database_url": "postgresql:///file"}


def test_a_list_is_split_at_commas() -> None:
    assert split_list(" https://a.test, ,https://b.test,") == ("https://a.test", "https://b.test")
    assert split_list("") == ()
