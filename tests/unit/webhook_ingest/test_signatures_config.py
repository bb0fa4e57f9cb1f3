from __future__ import annotations

from dataclasses import replace

import pytest

from services.webhook_ingest.signatures.generic import generic_scheme, split_template
from services.webhook_ingest.signatures.port import InvalidSchemeConfig, RawDelivery, SigningSecret, Trust
from services.webhook_ingest.signatures.providers import PROVIDERS, STRIPE
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.schemes import HmacScheme, SignatureConfig, SignatureField, TimestampField, sign
from services.webhook_ingest.signatures.values import GatewayValues
from tests.unit.webhook_ingest.vectors import BODY, SECRET, SIGNED_AT, WHSEC

_PLAIN = SignatureConfig(name="plain", signature=SignatureField("X-Signature"))

UNSAFE = {
    "a timestamp that is not signed": replace(_PLAIN, timestamp=TimestampField("X-Time")),
    "a signed time that is not configured": replace(_PLAIN, content=("{timestamp}", "{body}")),
    "a full trust without the body": replace(_PLAIN, content=("{header:X-Id}",)),
    "nothing of the delivery": replace(_PLAIN, content=("constant",), trust=Trust.HINT),
    "no content at all": replace(_PLAIN, content=()),
    "an unknown placeholder": replace(_PLAIN, content=("{body}", "{cookies}")),
    "a placeholder without its name": replace(_PLAIN, content=("{body}", "{header}")),
    "sha1 unasked": replace(_PLAIN, algorithm="sha1"),
    "a URL that is not given": replace(_PLAIN, content=("{url}", "{body}")),
    "a prefix format without a prefix": replace(_PLAIN, signature=SignatureField("X-Signature", format="prefix")),
    "key and value pairs without keys": replace(_PLAIN, signature=SignatureField("X-Signature", format="kv")),
    "an empty key": replace(_PLAIN, signature=SignatureField("X-Signature", format="kv", keys=("",))),
    "a list without a separator": replace(
        _PLAIN, signature=SignatureField("X-Signature", format="list", item_separator="", keys=("v1",))
    ),
    "a signature without a name": replace(_PLAIN, signature=SignatureField("")),
    "a tolerance of zero": replace(STRIPE, timestamp=TimestampField("t", location="kv", tolerance_seconds=0)),
    "a time in the value of a plain signature": replace(
        _PLAIN, content=("{timestamp}", "{body}"), timestamp=TimestampField("t", location="kv")
    ),
    "a trusted static token": replace(_PLAIN, mode="static_token"),
    "a trusted unsigned ping": replace(_PLAIN, mode="fetch_back"),
}


@pytest.mark.parametrize("config", UNSAFE.values(), ids=UNSAFE)
def test_a_configuration_that_proves_nothing_is_refused_when_it_is_built(config: SignatureConfig) -> None:
    with pytest.raises(InvalidSchemeConfig):
        HmacScheme(config)


@pytest.mark.parametrize("name", sorted(set(PROVIDERS) - {"square", "twilio", "braintree"}))
def test_every_provider_row_is_a_safe_configuration(name: str) -> None:
    assert HmacScheme(PROVIDERS[name]).name == name


def test_rows_that_need_what_only_the_merchant_knows_say_so() -> None:
    for name in ("square", "twilio"):
        with pytest.raises(InvalidSchemeConfig, match="registered URL"):
            HmacScheme(PROVIDERS[name])
    with pytest.raises(InvalidSchemeConfig, match="keys"):
        HmacScheme(PROVIDERS["braintree"])


def _registry(*, production: bool = True, **values: str) -> dict[str, object]:
    return dict(build_registry(GatewayValues(values), production=production))


def test_a_gateway_without_a_secret_is_not_enabled() -> None:
    assert _registry() == {}
    assert _registry(WEBHOOK_SECRET="  ", STRIPE_WEBHOOK_SECRET=" , ") == {}
    assert set(_registry(WEBHOOK_SECRET="long-enough-secret-1", STRIPE_WEBHOOK_SECRET="whsec_abc")) == {
        "generic",
        "stripe",
    }


def test_a_short_secret_is_refused_in_production_where_we_choose_it() -> None:
    with pytest.raises(InvalidSchemeConfig, match="WEBHOOK_SECRET must have at least 16 bytes"):
        _registry(WEBHOOK_SECRET="short")
    assert set(_registry(production=False, WEBHOOK_SECRET="short")) == {"generic"}


def test_all_mistakes_are_listed_and_no_secret_is_shown() -> None:
    with pytest.raises(InvalidSchemeConfig) as caught:
        _registry(WEBHOOK_SECRET="hunter2-hunter2-hunter2", GENERIC_SIGNATURE_ALGORITHM="md5")
    assert "GENERIC_SIGNATURE_ALGORITHM" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(InvalidSchemeConfig, match="whsec"):
        _registry(WEBHOOK_SECRET="not base64 at all!", GENERIC_SIGNATURE_SCHEME="standard_webhooks")


def test_several_secrets_are_separated_by_commas() -> None:
    gateway = build_registry(GatewayValues({"STRIPE_WEBHOOK_SECRET": "whsec_new, whsec_old"}), production=True)[
        "stripe"
    ]
    assert [secret.text for secret in gateway.secrets] == ["whsec_new", "whsec_old"]


def test_an_account_with_secrets_of_its_own_is_verified_with_those_alone() -> None:
    values = {"STRIPE_WEBHOOK_SECRET": "whsec_main", "STRIPE_WEBHOOK_SECRET__EU_1": "whsec_eu"}
    gateway = build_registry(GatewayValues(values), production=True)["stripe"]
    eu, main = gateway.for_account("eu-1"), gateway.for_account(None)
    assert eu is not None
    assert main is not None
    assert (eu.secrets, main.secrets) == ((SigningSecret("whsec_eu"),), (SigningSecret("whsec_main"),))
    assert gateway.for_account("us") is None


def test_where_all_accounts_have_names_the_address_without_one_is_nobodys() -> None:
    gateway = build_registry(GatewayValues({"STRIPE_WEBHOOK_SECRET__EU": "whsec_eu"}), production=True)["stripe"]
    assert gateway.for_account(None) is None
    assert gateway.for_account("eu") is not None


def test_an_account_has_its_own_settings_too() -> None:
    values = {
        "TABBY_WEBHOOK_SECRET": "a-secret-of-the-main-one",
        "TABBY_WEBHOOK_SECRET__EU": "a-secret-of-another-one",
        "TABBY_WEBHOOK_HEADER__EU": "X-From-Europe",
    }
    gateway = build_registry(GatewayValues(values), production=True)["tabby"]
    eu, main = gateway.for_account("eu"), gateway.for_account(None)
    assert eu is not None
    assert main is not None
    assert eu.scheme.secret_headers == {"x-from-europe"}
    assert main.scheme.secret_headers == {"x-tabby-auth"}


def _generic_verifies(headers: dict[str, str], secret: str = SECRET, /, **settings: str) -> bool:
    scheme = generic_scheme(GatewayValues({f"GENERIC_SIGNATURE_{name}": value for name, value in settings.items()}))
    delivery = RawDelivery("POST", "/", "", tuple(headers.items()), BODY)
    return scheme.verify(delivery, [SigningSecret(secret)], SIGNED_AT).verified


_HEX = "c1c7c78e81bb2d7308c9eef3d53740b58f9be1ec97da65e085da2a2c6cfeb76f"
_BASE64 = "wcfHjoG7LXMIye7z1TdAtY+b4eyX2mXghdoqLGz+t28="


def test_generic_is_a_hex_hmac_sha256_of_the_raw_body_in_x_signature_by_default() -> None:
    assert _generic_verifies({"X-Signature": _HEX})
    assert not _generic_verifies({"X-Signature": _BASE64})


def test_generic_takes_a_scheme_by_name() -> None:
    assert _generic_verifies({"X-Hub-Signature-256": f"sha256={_HEX}"}, SCHEME="github")
    standard = HmacScheme(PROVIDERS["standard_webhooks"])
    assert _generic_verifies(sign(standard, WHSEC, BODY, SIGNED_AT, "msg_1"), WHSEC, SCHEME="standard_webhooks")
    with pytest.raises(InvalidSchemeConfig, match="nonsense"):
        _generic_verifies({}, SCHEME="nonsense")


def test_generic_takes_single_settings() -> None:
    assert _generic_verifies({"X-Shop-Sign": _BASE64}, HEADER="X-Shop-Sign", ENCODING="base64")
    assert _generic_verifies({"X-Signature": f"sha256={_HEX}"}, PREFIX="sha256=")
    assert not _generic_verifies({"X-Signature": _HEX}, PREFIX="sha256=")


def test_generic_with_a_timestamp_header_signs_it_before_the_body() -> None:
    settings = {"TIMESTAMP_HEADER": "X-Time", "TIMESTAMP_TOLERANCE_SECONDS": "60"}
    scheme = generic_scheme(GatewayValues({f"GENERIC_SIGNATURE_{name}": value for name, value in settings.items()}))
    assert scheme.config.content == ("{timestamp}", ".", "{body}")
    assert scheme.config.timestamp == TimestampField("X-Time", tolerance_seconds=60)
    assert _generic_verifies(sign(scheme, SECRET, BODY, SIGNED_AT, "x"), **settings)


def test_generic_can_be_made_to_verify_what_stripe_signs() -> None:
    settings = {
        "HEADER": "Stripe-Signature",
        "FORMAT": "kv",
        "KEYS": "v1",
        "TIMESTAMP_KEY": "t",
        "CONTENT": "{timestamp}.{body}",
    }
    assert _generic_verifies(sign(HmacScheme(STRIPE), SECRET, BODY, SIGNED_AT, "x"), **settings)


def test_generic_deduplicates_by_the_bodys_event_id_where_the_schemes_own_id_is_not_signed() -> None:
    scheme = generic_scheme(GatewayValues({"GENERIC_SIGNATURE_SCHEME": "github"}))
    body = b'{"event_id":"e-1","status":"completed"}'
    headers = {**sign(scheme, SECRET, body, SIGNED_AT, "x"), "X-GitHub-Delivery": "forged"}
    answer = scheme.verify(
        RawDelivery("POST", "/", "", tuple(headers.items()), body), [SigningSecret(SECRET)], SIGNED_AT
    )
    assert (answer.event_id, answer.event_id_is_signed) == ("e-1", True)


def test_a_content_template_is_split_into_placeholders_and_literals() -> None:
    assert split_template("v0:{timestamp}:{body}") == ("v0:", "{timestamp}", ":", "{body}")
    assert split_template("{header:X-Id}.{body}") == ("{header:X-Id}", ".", "{body}")
    assert split_template("{body") == ("{body",)
