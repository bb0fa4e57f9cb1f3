"""PayPal's signature, both ways, against the fact sheet's vector and every tampering (fact sheet §5, §6)."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from services.webhook_ingest.settings import gateway_variables
from services.webhook_ingest.signatures.paypal import (
    LocalScheme,
    PostbackScheme,
    Transmission,
    Unverified,
    certificate_addresses,
    paypal_scheme,
)
from services.webhook_ingest.signatures.paypal_certificates import (
    FETCHES_PER_MINUTE,
    LIVE_HOSTS,
    MOST_CACHED,
    SANDBOX_HOSTS,
    CertificateAddresses,
    Chain,
    ChainCheck,
    FetchedCertificates,
    TrustedRoots,
    parse_chain,
)
from services.webhook_ingest.signatures.paypal_postback import PayPalJudge, spliced
from services.webhook_ingest.signatures.port import (
    EvidenceUnavailable,
    InvalidSchemeConfig,
    PreparingScheme,
    RawDelivery,
    Refusal,
    SigningSecret,
    Trust,
    Verification,
)
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.surroundings import Surroundings
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from tests.support.clock import FakeClock, fake_ports
from tests.unit.webhook_ingest.paypal_world import (
    BODY,
    BODY_SHA256,
    CERT_URL,
    CERTIFICATE,
    CERTIFICATE_SHA256,
    CN,
    RECEIVED_AT,
    SECRET,
    SIGNATURE,
    TRANSMISSION_ID,
    TRANSMISSION_TIME,
    WEBHOOK_ID,
    Authority,
    ListedCertificates,
    Trusting,
    a_delivery,
    headers_of_vector,
    sign,
)

SANDBOX = CertificateAddresses(SANDBOX_HOSTS)
LIVE = CertificateAddresses(LIVE_HOSTS)
BASE = "https://api.sandbox.paypal.com/v1/notifications/certs"


def the_chain(pem: bytes = CERTIFICATE) -> Chain:
    chain = parse_chain(pem)
    assert chain is not None
    return chain


async def verified_by(
    scheme: PreparingScheme, delivery: RawDelivery, secrets: tuple[SigningSecret, ...] = (SECRET,)
) -> Verification:
    prepared = await scheme.prepare(delivery, secrets, RECEIVED_AT)
    return prepared.verify(delivery, secrets, RECEIVED_AT)


def local(chain: Chain | None = None, roots: ChainCheck | None = None) -> tuple[LocalScheme, ListedCertificates]:
    certificates = ListedCertificates(the_chain() if chain is None else chain)
    return LocalScheme(SANDBOX, certificates, roots or Trusting()), certificates


# --- the signature half ----------------------------------------------------------------------------------------------


def test_the_vector_is_the_fact_sheets() -> None:
    assert (len(BODY), hashlib.sha256(BODY).hexdigest()) == (454, BODY_SHA256)
    assert the_chain()[0].fingerprint(SHA256()).hex() == CERTIFICATE_SHA256
    assert zlib.crc32(BODY) == 1464081486
    transmission = Transmission(TRANSMISSION_ID, TRANSMISSION_TIME, SIGNATURE, CERT_URL, "SHA256withRSA")
    assert transmission.message(WEBHOOK_ID, BODY) == (
        b"b7d3a1f0-e6a0-11f0-9c2e-5b7f3c9a0001|2026-01-01T00:00:01Z|WHTEST0000000001A|1464081486"
    )


async def test_the_vector_verifies_and_names_event_type_and_time() -> None:
    scheme, certificates = local()
    verification = await verified_by(scheme, a_delivery())
    assert verification == Verification(
        refusal=None,
        trust=Trust.FULL,
        key_id=SECRET.key_id,
        event_id="WH-TEST-0001",
        event_id_is_signed=True,
        event_type="PAYMENT.CAPTURE.COMPLETED",
        timestamp=RECEIVED_AT.replace(second=1),
    )
    assert (certificates.asked_for, certificates.kept) == ([CERT_URL], [CERT_URL])


async def test_header_names_are_found_in_any_case_and_a_second_webhook_id_may_match() -> None:
    scheme, _ = local()
    headers = {name.lower(): value for name, value in headers_of_vector().items()}
    verification = await verified_by(scheme, a_delivery(headers=headers), (SigningSecret("OTHER1"), SECRET))
    assert (verification.verified, verification.key_id) == (True, SECRET.key_id)


TAMPERED = {
    "a byte of the body": a_delivery(BODY.replace(b"19.99", b"19.98")),
    "a byte more": a_delivery(BODY + b"\n"),
    "another time": a_delivery(headers=headers_of_vector(TRANSMISSION_TIME="2026-01-01T00:00:02Z")),
    "the same time written otherwise": a_delivery(
        headers=headers_of_vector(TRANSMISSION_TIME="2026-01-01T00:00:01+00:00")
    ),
    "another transmission": a_delivery(headers=headers_of_vector(TRANSMISSION_ID=TRANSMISSION_ID[:-1] + "2")),
    "a bit of the signature": a_delivery(headers=headers_of_vector(TRANSMISSION_SIG="A" + SIGNATURE[1:])),
    "another algorithm": a_delivery(headers=headers_of_vector(AUTH_ALGO="SHA1withRSA")),
    "the algorithm in another case": a_delivery(headers=headers_of_vector(AUTH_ALGO="sha256withrsa")),
    "a signature that is not base64": a_delivery(headers=headers_of_vector(TRANSMISSION_SIG="***")),
    "a signature without end": a_delivery(headers=headers_of_vector(TRANSMISSION_SIG="A" * 4000)),
    "a time with a separator": a_delivery(headers=headers_of_vector(TRANSMISSION_TIME="2026|1")),
    "a time that is not ASCII": a_delivery(headers=headers_of_vector(TRANSMISSION_TIME="2026-01-01T00:00:01\xb2")),
}


@pytest.mark.parametrize("delivery", TAMPERED.values(), ids=TAMPERED)
async def test_a_tampered_delivery_is_refused(delivery: RawDelivery) -> None:
    scheme, _ = local()
    assert not (await verified_by(scheme, delivery)).verified


async def test_a_delivery_for_another_listener_is_refused_whatever_it_says_itself() -> None:
    scheme, _ = local()
    headers = headers_of_vector() | {"PAYPAL-WEBHOOK-ID": WEBHOOK_ID}
    verification = await verified_by(scheme, a_delivery(headers=headers), (SigningSecret("WHTEST0000000002B"),))
    assert verification.refusal is Refusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize("name", list(headers_of_vector()))
async def test_each_header_is_needed_exactly_once_and_nothing_is_fetched_without(name: str) -> None:
    scheme, certificates = local()
    missing = {header: value for header, value in headers_of_vector().items() if header != name}
    assert (await verified_by(scheme, a_delivery(headers=missing))).refusal is Refusal.SIGNATURE_MISSING
    twice = (*headers_of_vector().items(), (name.lower(), headers_of_vector()[name]))
    delivery = RawDelivery("POST", "/", "", twice, BODY)
    assert (await verified_by(scheme, delivery)).refusal is Refusal.REPEATED_FIELD
    assert certificates.asked_for == []


@pytest.mark.parametrize("crc", ["57441c4e", "0x57441c4e", "-1464081486", "01464081486"])
async def test_the_checksum_is_an_unsigned_decimal_number(crc: str) -> None:
    key, pem = Authority().issue()
    scheme, _ = local(the_chain(pem))
    wrong = a_delivery(headers=headers_of_vector(TRANSMISSION_SIG=sign(key, BODY, crc=crc)))
    assert not (await verified_by(scheme, wrong)).verified
    right = a_delivery(headers=headers_of_vector(TRANSMISSION_SIG=sign(key, BODY)))
    assert (await verified_by(scheme, right)).verified


async def test_a_checksum_above_two_to_the_31_is_not_negative() -> None:
    body = next(body for number in range(100) if zlib.crc32(body := b'{"n":%d}' % number) > 2**31)
    key, pem = Authority().issue()
    scheme, _ = local(the_chain(pem))
    delivery = a_delivery(body, headers_of_vector(TRANSMISSION_SIG=sign(key, body)))
    assert (await verified_by(scheme, delivery)).verified
    signed = str(zlib.crc32(body) - 2**32)
    delivery = a_delivery(body, headers_of_vector(TRANSMISSION_SIG=sign(key, body, crc=signed)))
    assert not (await verified_by(scheme, delivery)).verified


def test_a_scheme_without_evidence_verifies_nothing() -> None:
    scheme, _ = local()
    assert isinstance(scheme, PreparingScheme)
    assert not scheme.verify(a_delivery(), (SECRET,), RECEIVED_AT).verified
    assert not Unverified().verify(a_delivery(), (SECRET,), RECEIVED_AT).verified


# --- the trust half --------------------------------------------------------------------------------------------------


async def test_the_vectors_certificate_ends_in_no_root_that_we_trust() -> None:
    scheme, certificates = local(roots=TrustedRoots())
    assert (await verified_by(scheme, a_delivery())).refusal is Refusal.SIGNATURE_MISMATCH
    assert certificates.kept == []


AUTHORITY = Authority()
CHAINS = {
    "a good one": (AUTHORITY.issue()[1], True),
    "an expired one": (AUTHORITY.issue(days_until=-1)[1], False),
    "one from the future": (AUTHORITY.issue(days_from=1)[1], False),
    "another name": (AUTHORITY.issue("evil.example")[1], False),
    "a name that only begins well": (AUTHORITY.issue("messageverificationcerts.evil.example")[1], False),
    "a name that only ends well": (AUTHORITY.issue("evil.paypal.com")[1], False),
    "another root": (Authority().issue()[1], False),
    "a root of the same name": (Authority(name=AUTHORITY.name).issue()[1], False),
    "a leaf that brings its own root": ((stranger := Authority()).issue()[1] + stranger.pem, False),
    "a leaf with a useless companion": (AUTHORITY.issue()[1] + CERTIFICATE, True),
}


@pytest.mark.parametrize(("pem", "is_trusted"), CHAINS.values(), ids=CHAINS)
def test_a_chain_is_trusted_by_its_root_its_dates_and_its_name(pem: bytes, is_trusted: bool) -> None:
    assert TrustedRoots(AUTHORITY.pem.decode()).trusts(the_chain(pem), RECEIVED_AT) is is_trusted


def test_an_own_root_that_is_no_certificate_stops_the_service() -> None:
    with pytest.raises(InvalidSchemeConfig, match="PAYPAL_WEBHOOK_CA_FILE"):
        TrustedRoots("not a certificate")


@pytest.mark.parametrize(
    "pem", [b"", b"garbage", CERTIFICATE[:200], CERTIFICATE * 7, CERTIFICATE.replace(b"MIID", b"AAAA")]
)
def test_what_is_no_chain_is_none(pem: bytes) -> None:
    assert parse_chain(pem) is None


# --- the address half ------------------------------------------------------------------------------------------------

REFUSED_URLS = [
    "http://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://paypal.com.evil.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com.evil.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com@evil.com/v1/notifications/certs/CERT-1",
    "https://evil.com@api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com:8443/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com:/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com:port/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com/other/CERT-1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/",
    "https://api.sandbox.paypal.com/v1/notifications/certs/../../x",
    "https://api.sandbox.paypal.com/v1/notifications/certs/..",
    "https://api.sandbox.paypal.com/v1/notifications/certs/%2e%2e/x",
    "https://api.sandbox.paypal.com/v1/notifications/certs/a/b",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1?x=1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1?",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1#x",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1#",
    "https://api.sandbox.paypal.com\\@evil.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/CERT 1",
    "https://API.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com./v1/notifications/certs/CERT-1",
    "https://xapi.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://evil.com/v1/notifications/certs/CERT-1?api.sandbox.paypal.com",
    "https://127.0.0.1/v1/notifications/certs/CERT-1",
    "//api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "file:///v1/notifications/certs/CERT-1",
    "https://[::1/v1/notifications/certs/CERT-1",
    "https://api.paypal.com/v1/notifications/certs/CERT-1",
    " https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    "https://api.sandbox.paypal.com/v1/notifications/certs/" + "C" * 600,
]


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_an_address_that_is_not_paypals_is_refused_without_a_call(url: str) -> None:
    scheme, certificates = local()
    verification = await verified_by(scheme, a_delivery(headers=headers_of_vector(CERT_URL=url)))
    assert verification.refusal is Refusal.SIGNATURE_MALFORMED
    assert certificates.asked_for == []


def test_each_environment_has_its_own_hosts() -> None:
    for host in ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"):
        assert SANDBOX.allows(f"https://{host}/v1/notifications/certs/CERT-TEST-1")
        assert not LIVE.allows(f"https://{host}/v1/notifications/certs/CERT-TEST-1")
    for host in ("api.paypal.com", "api-m.paypal.com"):
        assert LIVE.allows(f"https://{host}/v1/notifications/certs/CERT-360caa42-fca2a594-5a29e601")
        assert not SANDBOX.allows(f"https://{host}/v1/notifications/certs/CERT-TEST-1")
    assert SANDBOX.allows("https://api.sandbox.paypal.com:443/v1/notifications/certs/CERT-TEST-1")


@given(st.text(max_size=80))
def test_no_text_is_an_allowed_address_unless_it_begins_as_one(text: str) -> None:
    for url in (text, f"https://{text}/v1/notifications/certs/C", f"https://api.paypal.com{text}"):
        if LIVE.allows(url):
            assert url.startswith(tuple(f"https://{host}{port}/v1/" for host in LIVE_HOSTS for port in ("", ":443")))


def test_addresses_follow_the_api_and_other_hosts_are_for_development() -> None:
    local_sandbox = "http://127.0.0.1:8000/sandbox/paypal"
    values = GatewayValues({"PAYPAL_CERT_HOSTS": local_sandbox, "PAYPAL_API_BASE": local_sandbox})
    addresses = certificate_addresses(values, production=False)
    assert addresses.allows(f"{local_sandbox}/v1/notifications/certs/CERT-1")
    assert not addresses.allows(f"{local_sandbox}/v1/notifications/certs/../CERT-1")
    assert not addresses.allows("http://127.0.0.1:8000/v1/notifications/certs/CERT-1")
    with pytest.raises(InvalidSchemeConfig, match="PAYPAL_CERT_HOSTS"):
        certificate_addresses(values, production=True)
    with pytest.raises(InvalidSchemeConfig, match="is written"):
        certificate_addresses(GatewayValues({"PAYPAL_CERT_HOSTS": "127.0.0.1:8000"}), production=False)
    sandbox = GatewayValues({"PAYPAL_API_BASE": "https://api-m.sandbox.paypal.com"})
    assert certificate_addresses(sandbox, production=True).hosts == SANDBOX_HOSTS
    assert certificate_addresses(GatewayValues({}), production=True).hosts == LIVE_HOSTS


# --- fetching --------------------------------------------------------------------------------------------------------


class Web:
    """Answers in turn, the last one again and again."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.clock = FakeClock(auto_advance=True)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

    def caller(self) -> HttpCaller:
        ports = fake_ports(clock=self.clock, http_transport=httpx.MockTransport(self))
        return HttpCaller(build_http_client(ports), ports)


def over(web: Web, root: bytes = AUTHORITY.pem) -> LocalScheme:
    return LocalScheme(SANDBOX, FetchedCertificates(web.caller()), TrustedRoots(root.decode()))


KEY, LEAF = AUTHORITY.issue()
SIGNED = a_delivery(headers=headers_of_vector(TRANSMISSION_SIG=sign(KEY, BODY)))


async def test_a_certificate_is_fetched_once_for_its_address_and_again_after_a_day() -> None:
    web = Web(httpx.Response(200, content=LEAF))
    scheme = over(web)
    for _ in range(3):
        assert (await verified_by(scheme, SIGNED)).verified
    assert [str(request.url) for request in web.requests] == [CERT_URL]
    other = headers_of_vector(TRANSMISSION_SIG=sign(KEY, BODY), CERT_URL=f"{BASE}/CERT-TEST-2")
    assert (await verified_by(scheme, a_delivery(headers=other))).verified
    web.clock.move(24 * 3600)
    assert (await verified_by(scheme, SIGNED)).verified
    assert len(web.requests) == 3


async def test_a_kept_certificate_is_still_judged_by_its_dates() -> None:
    scheme = over(Web(httpx.Response(200, content=LEAF)))
    assert (await verified_by(scheme, SIGNED)).verified
    later = RECEIVED_AT.replace(year=2027)
    assert not (await scheme.prepare(SIGNED, (SECRET,), later)).verify(SIGNED, (SECRET,), later).verified


FAILURES = {
    "a redirect": httpx.Response(302, headers={"location": "https://evil.example/cert"}),
    "not found": httpx.Response(404),
    "an error": httpx.Response(503),
    "too much": httpx.Response(200, content=LEAF + b"#" * 65536),
    "silence": httpx.ReadTimeout("slow"),
    "no connection": httpx.ConnectError("refused"),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_a_certificate_that_cannot_be_had_is_no_bad_signature(answer: httpx.Response | Exception) -> None:
    web = Web(answer)
    with pytest.raises(EvidenceUnavailable) as raised:
        await over(web).prepare(SIGNED, (SECRET,), RECEIVED_AT)
    assert raised.value.status == 503
    assert {request.url.host for request in web.requests} == {"api.sandbox.paypal.com"}


async def test_what_strangers_name_is_not_kept_and_not_asked_for_without_end() -> None:
    _, untrusted = Authority().issue()
    web = Web(httpx.Response(200, content=untrusted))
    scheme = over(web)
    for number in range(FETCHES_PER_MINUTE):
        delivery = a_delivery(headers=headers_of_vector(CERT_URL=f"{BASE}/CERT-{number}"))
        assert (await verified_by(scheme, delivery)).refusal is Refusal.SIGNATURE_MISMATCH
    with pytest.raises(EvidenceUnavailable, match="too many"):
        await scheme.prepare(SIGNED, (SECRET,), RECEIVED_AT)
    assert len(web.requests) == FETCHES_PER_MINUTE
    web.clock.move(60)
    web.answers = [httpx.Response(200, content=LEAF)]
    assert (await verified_by(scheme, SIGNED)).verified


async def test_no_more_than_a_few_certificates_are_kept() -> None:
    web = Web(httpx.Response(200, content=LEAF))
    certificates = FetchedCertificates(web.caller())
    for number in range(MOST_CACHED + 1):
        certificates.keep(f"{BASE}/CERT-{number}", the_chain(LEAF))
    await certificates.load(f"{BASE}/CERT-{MOST_CACHED}")
    assert web.requests == []
    await certificates.load(f"{BASE}/CERT-0")
    assert len(web.requests) == 1


# --- postback --------------------------------------------------------------------------------------------------------


def says(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body).encode())


TOKEN = {"access_token": "A21AA", "token_type": "Bearer", "expires_in": 32000}


def asking(*answers: httpx.Response | Exception) -> tuple[PostbackScheme, Web]:
    web = Web(*answers)
    judge = PayPalJudge("https://api-m.sandbox.paypal.com", "client", "secret", web.caller())
    return PostbackScheme(SANDBOX, judge), web


async def test_paypal_is_asked_with_the_body_byte_for_byte() -> None:
    odd = b'{ "id": "WH-1", "event_type" : "X", "n": 1.0, "t": "\\u00e9/\xc3\xa9" }\n'
    scheme, web = asking(says(TOKEN), says({"verification_status": "SUCCESS"}))
    verification = await verified_by(scheme, a_delivery(odd))
    assert (verification.verified, verification.event_id, verification.event_type) == (True, "WH-1", "X")
    token, question = web.requests
    assert token.headers["authorization"] == "Basic " + base64.b64encode(b"client:secret").decode()
    assert token.content == b"grant_type=client_credentials"
    assert question.url.path == "/v1/notifications/verify-webhook-signature"
    assert question.headers["authorization"] == "Bearer A21AA"
    assert question.content.endswith(b',"webhook_event":' + odd + b"}")
    claim = {name: value for name, value in json.loads(question.content).items() if name != "webhook_event"}
    assert claim == {
        "auth_algo": "SHA256withRSA",
        "cert_url": CERT_URL,
        "transmission_id": TRANSMISSION_ID,
        "transmission_sig": SIGNATURE,
        "transmission_time": TRANSMISSION_TIME,
        "webhook_id": WEBHOOK_ID,
    }


async def test_the_token_is_kept_until_a_minute_before_its_end() -> None:
    scheme, web = asking(says(TOKEN), says({"verification_status": "SUCCESS"}))
    assert (await verified_by(scheme, a_delivery())).verified
    assert (await verified_by(scheme, a_delivery())).verified
    assert len(web.requests) == 3
    web.clock.move(32000 - 60)
    web.answers = [says(TOKEN), says({"verification_status": "SUCCESS"})]
    assert (await verified_by(scheme, a_delivery())).verified
    assert web.requests[3].url.path == "/v1/oauth2/token"


async def test_a_token_that_is_no_good_is_replaced_once() -> None:
    scheme, web = asking(
        says(TOKEN), says({}, 401), says(TOKEN | {"access_token": "new"}), says({"verification_status": "SUCCESS"})
    )
    assert (await verified_by(scheme, a_delivery())).verified
    assert web.requests[-1].headers["authorization"] == "Bearer new"


@pytest.mark.parametrize("answer", [says({"verification_status": "FAILURE"}), says({}), says({}, 400)])
async def test_what_paypal_denies_is_refused(answer: httpx.Response) -> None:
    scheme, _ = asking(says(TOKEN), answer)
    assert (await verified_by(scheme, a_delivery())).refusal is Refusal.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "answers",
    [
        [says({}, 401)],
        [says(TOKEN), says({}, 401)],
        [says(TOKEN), says({}, 503)],
        [says(TOKEN), httpx.ReadTimeout("slow")],
        [says(TOKEN), httpx.Response(200, content=b"<html>")],
        [says({"access_token": "a\n", "expires_in": 9})],
        [httpx.ConnectError("refused")],
    ],
)
async def test_a_question_that_is_not_answered_is_no_bad_signature(answers: list[httpx.Response | Exception]) -> None:
    scheme, _ = asking(*answers)
    with pytest.raises(EvidenceUnavailable):
        await scheme.prepare(a_delivery(), (SECRET,), RECEIVED_AT)


SPLICES = [
    BODY + b',"webhook_id":"ATTACKERS"',
    BODY + b"}",
    b'{"id":"a","id":"b"}',
    b"\xef\xbb\xbf" + BODY,
    b'["id"]',
    b'"id"',
    BODY.decode().encode("utf-16"),
    b'{"id":"WH-1"',
    b"",
]


@pytest.mark.parametrize("body", SPLICES)
async def test_a_body_that_would_change_the_question_is_never_sent(body: bytes) -> None:
    scheme, web = asking(says(TOKEN), says({"verification_status": "SUCCESS"}))
    verification = await verified_by(scheme, a_delivery(body))
    assert verification.refusal in (Refusal.CONTENT_INCOMPLETE, Refusal.CONTENT_AMBIGUOUS)
    assert web.requests == []


async def test_a_foreign_certificate_address_is_not_sent_to_paypal_either() -> None:
    scheme, web = asking(says(TOKEN), says({"verification_status": "SUCCESS"}))
    headers = headers_of_vector(CERT_URL="https://evil.example/v1/notifications/certs/CERT-1")
    assert not (await verified_by(scheme, a_delivery(headers=headers))).verified
    assert web.requests == []


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=5), st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=4))
def test_a_spliced_question_is_one_json_object_with_the_event_in_it(event: dict[str, object]) -> None:
    body = json.dumps(event, ensure_ascii=False).encode()
    question = spliced({"webhook_id": WEBHOOK_ID}, body)
    assert json.loads(question) == {"webhook_id": WEBHOOK_ID, "webhook_event": event}


# --- settings --------------------------------------------------------------------------------------------------------


def test_paypal_is_enabled_by_its_webhook_id_and_is_verified_locally_unless_told_otherwise() -> None:
    values = GatewayValues({"PAYPAL_WEBHOOK_ID": WEBHOOK_ID})
    gateway = build_registry(values, production=True)["paypal"]
    assert isinstance(gateway.scheme, LocalScheme)
    assert gateway.secrets == (SECRET,)
    assert "paypal" not in build_registry(GatewayValues({"PAYPAL_CLIENT_ID": "x"}), production=True)


def test_postback_needs_credentials_and_the_way_is_one_of_two() -> None:
    values = {"PAYPAL_WEBHOOK_ID": WEBHOOK_ID, "PAYPAL_WEBHOOK_VERIFICATION": "postback"}
    with pytest.raises(InvalidSchemeConfig, match="PAYPAL_CLIENT_SECRET"):
        build_registry(GatewayValues(values), production=True)
    values |= {"PAYPAL_CLIENT_ID": "client", "PAYPAL_CLIENT_SECRET": "s3cr3t"}
    scheme = build_registry(GatewayValues(values), production=True)["paypal"].scheme
    assert isinstance(scheme, PostbackScheme)
    assert "s3cr3t" not in repr(PayPalJudge.of(GatewayValues(values), None))
    with pytest.raises(InvalidSchemeConfig, match="local or postback"):
        build_registry(GatewayValues(values | {"PAYPAL_WEBHOOK_VERIFICATION": "none"}), production=True)


@pytest.mark.parametrize("webhook_id", ["WEBHOOK_ID", "a|b", "1" * 65, "é"])
def test_what_cannot_be_a_webhook_id_stops_the_service(webhook_id: str) -> None:
    with pytest.raises(InvalidSchemeConfig, match="PAYPAL_WEBHOOK_ID"):
        build_registry(GatewayValues({"PAYPAL_WEBHOOK_ID": webhook_id}), production=True)


async def test_without_a_network_nothing_is_verified() -> None:
    values = GatewayValues({"PAYPAL_WEBHOOK_ID": WEBHOOK_ID})
    scheme = paypal_scheme(values, Surroundings(production=True))
    assert isinstance(scheme, PreparingScheme)
    live = a_delivery(headers=headers_of_vector(CERT_URL="https://api.paypal.com/v1/notifications/certs/CERT-1"))
    with pytest.raises(EvidenceUnavailable):
        await scheme.prepare(live, (SECRET,), RECEIVED_AT)


def test_paypals_variables_reach_the_registry_and_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(AUTHORITY.pem)
    environ = {
        "PAYPAL_WEBHOOK_CA_FILE": str(path),
        "PAYPAL_CLIENT_ID": "c",
        "PAYPAL_API_BASE": "b",
        "DATABASE_URL": "postgresql://secret",
        "PAYPALX": "no",
    }
    found = gateway_variables(environ)
    assert set(found) == {"PAYPAL_WEBHOOK_CA", "PAYPAL_CLIENT_ID", "PAYPAL_API_BASE"}
    assert TrustedRoots(found["PAYPAL_WEBHOOK_CA"]).trusts(the_chain(LEAF), RECEIVED_AT)


def test_the_name_of_the_tests_own_leaf_is_paypals() -> None:
    assert CN in the_chain(LEAF)[0].subject.rfc4514_string()
