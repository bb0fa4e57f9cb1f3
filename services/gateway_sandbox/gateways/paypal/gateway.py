"""PayPal in the sandbox. Facts: payment_service/gateways/paypal.md; Orders v2 and Payments v2.

Amounts: decimal strings in major units. Keys: ``PayPal-Request-Id`` on POST; a replay answers 200 with the first answer
(PayPal: with the latest state), and no failure of its own is kept under a key. Webhooks: RSA over a CRC32 of the body,
with a certificate that this gateway serves itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    CaptureStatus,
    DisputeStatus,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.bookkeeping import book_dispute
from services.gateway_sandbox.gateways.paypal import errors, objects, reports
from services.gateway_sandbox.gateways.paypal.desk import Desk, capture_to_refund, new_id, refundable_of
from services.gateway_sandbox.gateways.paypal.objects import records_of
from services.gateway_sandbox.gateways.paypal.settlement import settlement_file
from services.gateway_sandbox.gateways.paypal.signing import Signer
from services.gateway_sandbox.gateways.paypal.wire import (
    Json,
    amount_of,
    json_object,
    new_order,
    optional_amount,
    optional_text,
)
from services.gateway_sandbox.gateways.port import (
    Books,
    CheckoutLine,
    CheckoutView,
    PayoutTerms,
    SettlementFile,
    SettlementLine,
    WireAnswer,
    WireCall,
    WireError,
    WireRoute,
)
from services.gateway_sandbox.gateways.wording import worded

_LONGEST_KEY = 108
_TOKEN_SECONDS = 32_400
_HONOR_PERIOD = timedelta(days=3)
_CERTIFICATES = "/v1/notifications/certs/"
_TOKEN_PATH = "/v1/oauth2/token"  # noqa: S105 - a path
_USUAL_REFUSALS = {
    "complete": "INSTRUMENT_DECLINED",
    "capture": "AUTHORIZATION_DENIED",
    "void": "CANNOT_BE_VOIDED",
    "refund": "REFUND_FAILED_INSUFFICIENT_FUNDS",
}
_WITHOUT_KEY = ("/void", "/verify-webhook-signature", _TOKEN_PATH)


class PayPalSandbox:
    """Satisfies SandboxGateway. Without client id and secret any will do, and any bearer token too."""

    name = "paypal"
    payouts = PayoutTerms(("USD", "EUR"), "PPOUT{day:%Y%m%d}{currency}")

    def __init__(
        self,
        *,
        client_id: str | None,
        client_secret: str | None,
        webhook_id: str,
        signing: str,
        public_base_url: str,
        merchant: str,
        api_base: str | None = None,
    ) -> None:
        pages = f"{public_base_url.rstrip('/')}/sandbox/paypal"
        # Browsers and services may reach it at different addresses; a certificate is fetched by a service.
        own = (api_base or pages).rstrip("/")
        self._client_id, self._client_secret = client_id, client_secret
        self._merchant = merchant
        self._desk = Desk(own, f"{pages}/checkout")
        self._signer = Signer(signing, webhook_id=webhook_id, base_url=own)
        self.routes: Sequence[WireRoute] = (
            WireRoute("POST", _TOKEN_PATH, "token", self.issue_token),
            WireRoute("POST", "/v2/checkout/orders", "create_session", self.create_order),
            WireRoute("GET", "/v2/checkout/orders/{id}", "retrieve", self.show_order),
            WireRoute("POST", "/v2/checkout/orders/{id}/capture", "complete", self.capture_order),
            WireRoute("POST", "/v2/checkout/orders/{id}/authorize", "complete", self.authorize_order),
            WireRoute("GET", "/v2/payments/authorizations/{id}", "retrieve", self.show_authorization),
            WireRoute("POST", "/v2/payments/authorizations/{id}/capture", "capture", self.capture_authorization),
            WireRoute("POST", "/v2/payments/authorizations/{id}/void", "void", self.void_authorization),
            WireRoute("POST", "/v2/payments/authorizations/{id}/reauthorize", "reauthorize", self.reauthorize),
            WireRoute("GET", "/v2/payments/captures/{id}", "retrieve", self.show_capture),
            WireRoute("POST", "/v2/payments/captures/{id}/refund", "refund", self.refund_capture),
            WireRoute("GET", "/v2/payments/refunds/{id}", "retrieve", self.show_refund),
            WireRoute("GET", "/v1/customer/disputes", "list", self.list_disputes),
            WireRoute("GET", "/v1/customer/disputes/{id}", "retrieve", self.show_dispute),
            WireRoute("GET", "/v1/reporting/transactions", "list", self.search_transactions),
            WireRoute("POST", "/v1/notifications/verify-webhook-signature", "verify_webhook", self.verify_webhook),
            WireRoute("GET", _CERTIFICATES + "{id}", "certificate", self.show_certificate),
        )

    # --- what every call meets -------------------------------------------------------------------------------------

    def authenticate(self, call: WireCall) -> None:
        if call.path.startswith(_CERTIFICATES):
            return
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if call.path == _TOKEN_PATH:
            if scheme.lower() != "basic" or not self._is_client(value.strip()):
                raise errors.wrong_client()
        elif scheme.lower() != "bearer" or not self._is_token(value.strip()):
            raise errors.no_token()

    def idempotency_key(self, call: WireCall) -> str | None:
        key = call.headers.get("paypal-request-id") if call.method == "POST" else None
        if not key:
            return None
        if len(key) > _LONGEST_KEY:
            raise errors.invalid("INVALID_STRING_MAX_LENGTH", "PayPal-Request-Id")
        return None if call.path.endswith(_WITHOUT_KEY) else key

    def no_such_route(self, call: WireCall) -> WireError:  # noqa: ARG002 - the port's
        return errors.not_found()

    def key_in_use(self) -> WireError:
        return errors.key_in_use()

    def key_reused(self, key: str) -> WireError:  # noqa: ARG002 - the port's
        return errors.refused("DUPLICATE_REQUEST_ID")

    def broken(self, status: int) -> WireAnswer:
        # The sandbox keeps a gateway's own 500 under its key; PayPal keeps none, so it never says 500 here.
        return errors.broken(503 if status == 500 else status)

    def too_busy(self, retry_after_seconds: int) -> WireAnswer:
        return replace(errors.too_busy(), headers={"Retry-After": str(retry_after_seconds)})

    def refusal(self, operation: str, code: str | None) -> WireError:
        return errors.refused(code or _USUAL_REFUSALS[operation], stored=True)

    def finish(
        self,
        call: WireCall,  # noqa: ARG002 - the port's
        answer: WireAnswer,
        request_id: str,
        *,
        replayed: bool,
    ) -> WireAnswer:
        debug_id = hashlib.sha256(request_id.encode()).hexdigest()[:13]
        status = 200 if replayed and answer.status == 201 else answer.status
        headers = {"Content-Type": "application/json", "PayPal-Debug-Id": debug_id, **answer.headers}
        return replace(answer, status=status, headers=headers)

    # --- tokens, certificates, postback ----------------------------------------------------------------------------

    async def issue_token(self, call: WireCall, books: Books) -> WireAnswer:
        if call.body.strip() != b"grant_type=client_credentials":
            body = {"error": "unsupported_grant_type", "error_description": "Grant Type is NULL"}
            raise WireError(WireAnswer.json(400, body), stored=False)
        nonce = books.new_id("", 16)
        body_: Json = {
            "scope": "https://uri.paypal.com/services/payments/payment https://uri.paypal.com/services/disputes/read-seller",
            "access_token": f"A21AA{nonce}{self._proof(nonce)}",
            "token_type": "Bearer",
            "app_id": "APP-SANDBOX",
            "expires_in": _TOKEN_SECONDS,
            "nonce": f"{objects.stamp(books.now)}{nonce}",
        }
        return WireAnswer.json(200, body_)

    def _is_client(self, basic: str) -> bool:
        try:
            client_id, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        wanted = (self._client_id or client_id, self._client_secret or secret)
        return bool(client_id) and hmac.compare_digest(f"{client_id}:{secret}".encode(), ":".join(wanted).encode())

    def _is_token(self, token: str) -> bool:
        if not self._client_secret:
            return bool(token)
        nonce, proof = token[5:21], token[21:]
        return token.startswith("A21AA") and hmac.compare_digest(proof.encode(), self._proof(nonce).encode())

    def _proof(self, nonce: str) -> str:
        """Any process of the sandbox knows a token again, without storing it. It does not expire."""
        return hmac.new((self._client_secret or "").encode(), nonce.encode(), hashlib.sha256).hexdigest()

    async def show_certificate(self, call: WireCall, books: Books) -> WireAnswer:  # noqa: ARG002 - the port's
        if call.path_values["id"] != self._signer.certificate_name:
            raise errors.not_found()
        return WireAnswer(200, self._signer.chain, {"Content-Type": "application/x-pem-file"})

    async def verify_webhook(self, call: WireCall, books: Books) -> WireAnswer:  # noqa: ARG002 - the port's
        """The event's text is cut out of the question as it stands there: parsed and written again it has another
        checksum."""
        body = json_object(call)
        _, found, event = call.body.partition(b'"webhook_event":')
        is_genuine = bool(found) and self._signer.has_signed(body, event.strip()[:-1])
        return WireAnswer.json(200, {"verification_status": "SUCCESS" if is_genuine else "FAILURE"})

    # --- orders ----------------------------------------------------------------------------------------------------

    async def create_order(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call)
        if "payment_source" in body and not call.headers.get("paypal-request-id"):
            raise errors.invalid("PAYPAL_REQUEST_ID_REQUIRED", "PayPal-Request-Id")
        entry = new_order(body, books)
        await books.open(entry)
        return await self._order_answer(201, entry, call, books)

    async def show_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._order(call, books)
        return WireAnswer.json(200, worded(self._desk.order(entry, await records_of(entry, books)), books, "status"))

    async def capture_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._order_to_complete(call, books, CaptureMode.AUTOMATIC)
        if entry.details.get("instrument_declines"):
            return await self._declined(entry, books)
        await self._desk.capture_order(entry, books)
        return await self._order_answer(201, entry, call, books)

    async def authorize_order(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._order_to_complete(call, books, CaptureMode.MANUAL)
        if entry.details.get("instrument_declines"):
            return await self._declined(entry, books)
        await self._desk.authorize_order(entry, books)
        return await self._order_answer(201, entry, call, books)

    async def _declined(self, entry: BookEntry, books: Books) -> WireAnswer:
        """Answered, not raised: that the buyer has to choose again must stay in the books."""
        await self._desk.decline(entry, books)
        return errors.refused("INSTRUMENT_DECLINED").answer

    async def _order(self, call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
        """An order whose time is over without money is unknown: PayPal says 404, as for one that never was."""
        identifier = call.path_values["id"]
        entry = await books.find(identifier, for_update=for_update)
        if entry is None or entry.gateway_reference != identifier:
            raise errors.not_found()
        if entry.status is EntryStatus.EXPIRED and not entry.details.get("authorization"):
            raise errors.not_found()
        return entry

    async def _order_to_complete(self, call: WireCall, books: Books, mode: CaptureMode) -> BookEntry:
        json_object(call)
        entry = await self._order(call, books, for_update=True)
        if entry.capture is not mode:
            raise errors.refused("ACTION_DOES_NOT_MATCH_INTENT")
        if entry.status is not EntryStatus.OPEN:
            is_manual = mode is CaptureMode.MANUAL
            raise errors.refused("ORDER_ALREADY_AUTHORIZED" if is_manual else "ORDER_ALREADY_CAPTURED")
        if not entry.details.get("approved_at"):
            raise errors.refused("ORDER_NOT_APPROVED")
        return entry

    async def _order_answer(self, status: int, entry: BookEntry, call: WireCall, books: Books) -> WireAnswer:
        body = self._desk.order(entry, await records_of(entry, books))
        return WireAnswer.json(status, body if _wants_all(call) else objects.minimal_order(body))

    # --- held money ------------------------------------------------------------------------------------------------

    async def show_authorization(self, call: WireCall, books: Books) -> WireAnswer:
        body = objects.authorization(await self._held(call, books), self._desk.base_url)
        return WireAnswer.json(200, worded(body, books, "status"))

    async def capture_authorization(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call)
        entry = await self._held(call, books, for_update=True)
        if not entry.is_held():
            raise errors.refused(_why_not_held(entry))
        amount_minor = optional_amount(body, entry, entry.capturable_minor)
        is_final = body.get("final_capture", False)
        if not isinstance(is_final, bool):
            raise errors.invalid("INVALID_PARAMETER_SYNTAX", "/final_capture")
        invoice_id = optional_text(body, "invoice_id")
        optional_text(body, "note_to_payer", 255)
        with _refusing("MAX_CAPTURE_AMOUNT_EXCEEDED"):
            record = await self._desk.capture(entry, amount_minor, books, is_final=is_final, invoice_id=invoice_id)
        answer = objects.capture(entry, record, await records_of(entry, books), self._desk.base_url)
        return _answer(201, answer, call)

    async def void_authorization(self, call: WireCall, books: Books) -> WireAnswer:
        entry = await self._held(call, books, for_update=True)
        if not entry.is_held():
            raise errors.refused("PREVIOUSLY_VOIDED" if _is_voided(entry) else "PREVIOUSLY_CAPTURED")
        entry.release()
        await self._desk.release(entry, books, "void")
        if not _wants_all(call):
            return WireAnswer(204, "")
        return WireAnswer.json(200, objects.authorization(entry, self._desk.base_url))

    async def reauthorize(self, call: WireCall, books: Books) -> WireAnswer:
        """Once, after the honor period. The hold keeps its id and its end here."""
        body = json_object(call)
        entry = await self._held(call, books, for_update=True)
        created_at = datetime.fromisoformat(entry.details["authorization"]["created_at"])
        if not entry.is_held():
            raise errors.refused(_why_not_held(entry))
        if books.now < created_at + _HONOR_PERIOD:
            raise errors.refused("REAUTHORIZATION_TOO_SOON")
        if "amount" in body and amount_of(body, "amount", "/amount")[0] > entry.amount_minor * 115 // 100:
            raise errors.refused("REAUTHORIZATION_AMOUNT_EXCEEDED")
        await books.record(entry, "reauthorize", entry.amount_minor)
        return _answer(201, objects.authorization(entry, self._desk.base_url), call)

    async def _held(self, call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
        identifier = call.path_values["id"]
        entry = await books.find(identifier, for_update=for_update)
        authorization = entry.details.get("authorization") if entry is not None else None
        if entry is None or not authorization or authorization["id"] != identifier:
            raise errors.not_found()
        return entry

    # --- captured money --------------------------------------------------------------------------------------------

    async def show_capture(self, call: WireCall, books: Books) -> WireAnswer:
        entry, record = await self._captured(call, books)
        body = objects.capture(entry, record, await records_of(entry, books), self._desk.base_url)
        return WireAnswer.json(200, worded(body, books, "status"))

    async def refund_capture(self, call: WireCall, books: Books) -> WireAnswer:
        body = json_object(call)
        entry, capture = await self._captured(call, books, for_update=True)
        if capture.status != "succeeded":
            raise errors.refused("PENDING_CAPTURE" if capture.status == "pending" else "REFUND_NOT_ALLOWED")
        left_minor = refundable_of(capture, await records_of(entry, books))
        if left_minor == 0:
            raise errors.refused("CAPTURE_FULLY_REFUNDED")
        amount_minor = optional_amount(body, entry, left_minor)
        if amount_minor > left_minor:
            raise errors.refused("REFUND_AMOUNT_EXCEEDED")
        if any(dispute.status != "won" for dispute in await books.disputes_of(entry)):
            raise errors.refused("TRANSACTION_DISPUTED")
        record = await self._desk.refund(
            entry,
            capture,
            amount_minor,
            books,
            custom_id=optional_text(body, "custom_id"),
            invoice_id=optional_text(body, "invoice_id"),
            note=optional_text(body, "note_to_payer", 255),
        )
        return _answer(201, objects.refund(entry, record, self._desk.base_url), call)

    async def show_refund(self, call: WireCall, books: Books) -> WireAnswer:
        record = await books.find_refund(call.path_values["id"])
        entry = await books.find(record.gateway_reference) if record else None
        if record is None or entry is None:
            raise errors.not_found()
        return WireAnswer.json(200, worded(objects.refund(entry, record, self._desk.base_url), books, "status"))

    async def _captured(
        self, call: WireCall, books: Books, *, for_update: bool = False
    ) -> tuple[BookEntry, BookCapture]:
        # The entry's lock first: what it guards is read after it is held.
        entry = await books.find(call.path_values["id"], for_update=for_update)
        record = await books.find_capture(call.path_values["id"])
        if record is None or entry is None:
            raise errors.not_found()
        return entry, record

    # --- lists -----------------------------------------------------------------------------------------------------

    async def list_disputes(self, call: WireCall, books: Books) -> WireAnswer:
        return await reports.list_disputes(call, books, self._desk.base_url)

    async def show_dispute(self, call: WireCall, books: Books) -> WireAnswer:
        return await reports.show_dispute(call, books, self._desk.base_url)

    async def search_transactions(self, call: WireCall, books: Books) -> WireAnswer:
        return await reports.search_transactions(call, books)

    # --- what happens without a call -------------------------------------------------------------------------------

    async def capture_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> None:
        await self._desk.capture(entry, amount_minor, books, is_final=True, invoice_id=None)

    async def settle_capture(self, entry: BookEntry, capture: BookCapture, status: CaptureStatus, books: Books) -> None:
        if capture.move(status, entry):
            await self._desk.settle_capture(entry, capture, books)

    async def expire_hold(self, entry: BookEntry, books: Books) -> None:
        entry.lapse()
        if entry.hold_expires_at is None or entry.hold_expires_at > books.now:  # by the control API, before its time
            entry.hold_expires_at = books.now
        await self._desk.release(entry, books, "expire_hold")

    async def refund_in_dashboard(self, entry: BookEntry, amount_minor: int, books: Books) -> BookRefund:
        capture = capture_to_refund(amount_minor, await records_of(entry, books))
        return await self._desk.refund(entry, capture, amount_minor, books)

    async def settle_refund(self, entry: BookEntry, refund: BookRefund, status: RefundStatus, books: Books) -> None:
        if refund.move(status, entry):
            await books.save_refund(entry, refund, f"refund_{status}")
            self._desk.announce_refund(entry, refund, books)

    async def open_dispute(self, entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
        captures = (await records_of(entry, books)).captures
        if not captures:
            raise IllegalMove("nothing was captured that could be disputed")
        dispute_id, about = f"PP-D-{new_id(books)}", {"capture_id": captures[0].capture_id}
        dispute = await book_dispute(entry, dispute_id, amount_minor, reason or "UNAUTHORISED", books, details=about)
        self._announce_dispute(entry, dispute, books, "CREATED")
        return dispute

    async def close_dispute(self, entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
        if dispute.close(status, books.now):
            await books.save_dispute(entry, dispute, f"dispute_{status}")
            self._announce_dispute(entry, dispute, books, "RESOLVED")

    def _announce_dispute(self, entry: BookEntry, dispute: BookDispute, books: Books, what: str) -> None:
        body = objects.dispute(entry, dispute, self._desk.base_url)
        self._desk.announce(entry, books, f"CUSTOMER.DISPUTE.{what}", "dispute", lambda _shown: body)

    # --- the buyer, time, webhooks ---------------------------------------------------------------------------------

    def checkout(self, entry: BookEntry) -> CheckoutView:
        declined = "Your payment method was declined. Choose another one." if entry.details.get("declined") else None
        return CheckoutView(
            merchant=self._merchant,
            gateway_title="PayPal",
            lines=[_line(item) for item in entry.details.get("items", [])],
            total=objects.money(entry.amount_minor, entry.currency)["value"],
            currency=entry.currency,
            is_manual_capture=entry.capture is CaptureMode.MANUAL,
            cancel_explanation="Goes back to the shop; as with PayPal, the order stays open and no webhook is sent.",
            declined_message=declined,
            instrument=("buyer@example.com", "Test account"),
            decline_label="Pay with a card that is declined",
            pay_explanation=(
                "Approves the payment and goes back; the shop asks for the money then, or learns that it is declined."
            ),
        )

    async def settle(self, entry: BookEntry, outcome: Outcome, books: Books, *, late: bool = False) -> str | None:
        """SUCCEED and FAIL both approve: whether the instrument is declined shows when the money is asked for."""
        match outcome:
            case Outcome.SUCCEED | Outcome.FAIL:
                is_done = entry.status is not EntryStatus.OPEN and outcome is Outcome.SUCCEED
                if not (is_done and entry.captured_minor + entry.capturable_minor):
                    await self._approve(entry, books, declines=outcome is Outcome.FAIL, late=late)
                return _with_token(entry.success_url, entry, payer=True)
            case Outcome.CANCEL:
                return _with_token(entry.cancel_url, entry) if entry.cancel_url else None
            case Outcome.EXPIRE:
                if entry.status is not EntryStatus.EXPIRED:
                    await self.expire(entry, books)
        return None

    async def _approve(self, entry: BookEntry, books: Books, *, declines: bool, late: bool) -> None:
        if late and entry.status is EntryStatus.EXPIRED:
            entry.status = EntryStatus.OPEN  # an approval that PayPal was slow to take in
        if entry.status is not EntryStatus.OPEN:
            raise IllegalMove(f"an order that is {entry.status} cannot be approved")
        await self._desk.approve(entry, books, instrument_declines=declines)

    async def expire(self, entry: BookEntry, books: Books) -> None:
        """Nobody paid, or we did not ask for an approved payment in time: then PayPal tells that it gave it back."""
        entry.end(EntryStatus.EXPIRED)
        was_approved = entry.details.get("approved_at")
        await books.record(entry, "expire")
        if was_approved:
            body = {
                "order_id": entry.gateway_reference,
                "purchase_units": [{"custom_id": entry.details.get("custom_id")}],
            }
            self._desk.announce(
                entry, books, "CHECKOUT.PAYMENT-APPROVAL.REVERSED", "payment-approval", lambda _shown: body
            )

    def sign(self, body: bytes, at: datetime) -> Mapping[str, str]:
        return self._signer.headers(body, at)

    def settlement(self, lines: Sequence[SettlementLine], day: date) -> SettlementFile:
        return settlement_file(lines, day)


@contextmanager
def _refusing(issue: str) -> Iterator[None]:
    try:
        yield
    except (IllegalMove, MoreThanThereIs):
        raise errors.refused(issue) from None


def _wants_all(call: WireCall) -> bool:
    return call.headers.get("prefer", "").replace(" ", "") == "return=representation"


def _answer(status: int, body: Json, call: WireCall) -> WireAnswer:
    shown = body if _wants_all(call) else {key: body[key] for key in ("id", "status", "links")}
    return WireAnswer.json(status, shown)


def _is_voided(entry: BookEntry) -> bool:
    return entry.details["authorization"]["ended_at"] is not None


def _why_not_held(entry: BookEntry) -> str:
    if entry.status is EntryStatus.EXPIRED:
        return "AUTHORIZATION_EXPIRED"
    return "AUTHORIZATION_VOIDED" if _is_voided(entry) else "AUTHORIZATION_ALREADY_CAPTURED"


def _with_token(url: str, entry: BookEntry, *, payer: bool = False) -> str:
    """PayPal names the order ``token`` in the address that the browser comes back to."""
    if not url:
        return url
    separator = "&" if "?" in url else "?"
    return f"{url}{separator}token={entry.gateway_reference}" + ("&PayerID=SANDBOXPAYER1" if payer else "")


def _line(item: Json) -> CheckoutLine:
    return CheckoutLine(str(item["name"]), int(item["quantity"]), str(item["unit_amount"]["value"]))
