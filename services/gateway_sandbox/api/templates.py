"""The hosted page's HTML: plain strings, every value escaped, one style sheet allowed by its hash. The
one script posts a form, where a gateway sends the browser back so."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

from services.gateway_sandbox.domain.models import BookEntry, EntryStatus
from services.gateway_sandbox.gateways.port import CheckoutLine, CheckoutView
from services.gateway_sandbox.use_cases.tell_story import StoryLine

_STYLE = """
:root{--ink:#16202e;--soft:#5b6879;--line:#e3e8ef;--paper:#fff;--ground:#f3f5f9;--brand:#3d4bd8;--brand-dark:#2c38b4;
--bad:#b3261e;--bad-ground:#fdeceb;--good:#0b6b43;--good-ground:#e5f5ed;--note-ground:#f7f8fb}
@media(prefers-color-scheme:dark){:root{--ink:#e9edf4;--soft:#9aa7b8;--line:#2b3545;--paper:#171e29;--ground:#0e131b;
--brand:#6f7bff;--brand-dark:#8b95ff;--bad:#ff8a80;--bad-ground:#3a1c1b;--good:#6fdca8;--good-ground:#143324;
--note-ground:#1d2532}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif}
.frame{max-width:960px;margin:0 auto;min-height:100vh;display:grid;grid-template-columns:1fr 1fr;gap:48px;
align-items:start;padding:56px 24px}
.test{display:inline-block;padding:2px 10px;border-radius:999px;background:#ffe7a8;color:#5c4300;font-size:12px;
font-weight:600;
letter-spacing:.04em;text-transform:uppercase}
.merchant{display:flex;align-items:center;gap:12px;margin:0 0 28px;font-weight:600}
.mark{display:grid;place-items:center;width:36px;height:36px;border-radius:10px;background:var(--brand);color:#fff}
.label{color:var(--soft);margin:0}
.total{font-size:40px;line-height:1.15;font-weight:700;margin:4px 0 28px;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.total small{font-size:20px;font-weight:600;color:var(--soft);letter-spacing:0}
ul.lines{list-style:none;margin:0;padding:0;border-top:1px solid var(--line)}
ul.lines li{display:flex;justify-content:space-between;gap:16px;padding:14px 0;border-bottom:1px solid var(--line)}
ul.lines span:first-child{overflow-wrap:anywhere}
ul.story{margin:0 0 18px}
ul.lines small{display:block;color:var(--soft)}
.amount{white-space:nowrap;font-variant-numeric:tabular-nums}
.card{background:var(--paper);border:1px solid var(--line);border-radius:18px;padding:28px;
box-shadow:0 10px 30px rgba(15,23,42,.07)}
h1{font-size:20px;margin:0 0 18px}
.pretend{display:flex;justify-content:space-between;gap:12px;border:1px solid var(--line);border-radius:12px;
padding:14px 16px;margin-bottom:18px;
background:var(--note-ground);font-variant-numeric:tabular-nums}
.pretend span:last-child{color:var(--soft)}
button{width:100%;min-height:48px;border-radius:12px;border:1px solid var(--line);background:transparent;
color:var(--ink);
font:inherit;font-weight:600;cursor:pointer;margin-top:10px;padding:12px 16px}
button:hover{border-color:var(--soft)}
button:focus-visible{outline:3px solid var(--brand);outline-offset:2px}
button.pay{background:var(--brand);border-color:var(--brand);color:#fff;margin-top:0}
button.pay:hover{background:var(--brand-dark);border-color:var(--brand-dark)}
@media(prefers-color-scheme:dark){button.pay{color:#0e131b}}
button.quiet{border-color:transparent;color:var(--soft);font-weight:500}
a.back{display:block;text-align:center;font-weight:600;color:var(--brand);padding:12px 16px}
.note{color:var(--soft);font-size:14px;margin:18px 0 0;padding-top:16px;border-top:1px solid var(--line)}
.note p{margin:0 0 8px}
.banner{border-radius:12px;padding:12px 16px;margin:0 0 18px;font-weight:500}
.bad{background:var(--bad-ground);color:var(--bad)}
.good{background:var(--good-ground);color:var(--good)}
p.reference{font-size:13px;margin-top:14px}
code{font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.alone{max-width:460px;margin:0 auto;padding:72px 24px}
@media(max-width:720px){.frame{grid-template-columns:1fr;gap:24px;align-content:start;padding:24px 16px 40px}
.total{font-size:34px;
margin-bottom:16px}
.merchant{margin-bottom:18px}.card{padding:20px}}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# No form-action: browsers apply it to the redirect that follows a post, and that goes to the shop's own origin.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
)

_SEND = "document.forms[0].submit();"
_SEND_HASH = base64.b64encode(hashlib.sha256(_SEND.encode()).digest()).decode()
FORM_POST_POLICY = f"{CONTENT_SECURITY_POLICY}; script-src 'sha256-{_SEND_HASH}'"
"""For the one page that sends itself on: gateways that post the browser back do it so."""

_DOCUMENT = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
"""
)

_CHECKOUT = Template(
    """<main class="frame">
<section aria-label="Order summary">
<p class="merchant"><span class="mark" aria-hidden="true">$initial</span>$merchant
<span class="test">Test mode</span></p>
<p class="label">Amount to pay</p>
<p class="total" data-testid="amount">$total <small>$currency</small></p>
$lines
<p class="label reference">Reference <code>$reference</code></p>
</section>
<section class="card" aria-label="Payment">
<h1>$heading</h1>
$banner
$actions
</section>
</main>"""
)

_ACTIONS = Template(
    """<div class="pretend"><span>$instrument</span><span>$instrument_note</span></div>
<form method="post" action="/sandbox/$gateway/checkout/$session/outcome">
<input type="hidden" name="token" value="$token">
<button class="pay" name="outcome" value="succeed" data-testid="pay">$pay_label $total $currency</button>
<button name="outcome" value="fail" data-testid="decline">$decline_label</button>
$cancel
</form>
<div class="note">
<p><strong>Pay</strong> $pay_explanation</p>
<p><strong>Cancel</strong> $cancel_explanation</p>
<p><strong>Walk away</strong> Close this tab. Nothing is sent; the session ends by itself at $expires_at.</p>
</div>"""
)

_CANCEL = '<button class="quiet" name="outcome" value="cancel" data-testid="cancel">Cancel and go back</button>'

_HEADINGS = {
    EntryStatus.COMPLETED: "Paid",
    EntryStatus.AUTHORIZED: "Paid",
    EntryStatus.FAILED: "Payment failed",
    EntryStatus.CANCELED: "Payment canceled",
    EntryStatus.EXPIRED: "This session has expired",
}


def checkout_page(entry: BookEntry, view: CheckoutView, story: Sequence[StoryLine] = ()) -> str:
    body = _CHECKOUT.substitute(
        initial=escape(view.merchant[:1]),
        merchant=escape(view.merchant),
        total=escape(view.total),
        currency=escape(view.currency),
        lines=_lines(view.lines),
        reference=escape(entry.reference or entry.gateway_reference),
        heading=escape(_HEADINGS.get(entry.status, f"Pay with {view.gateway_title}")),
        banner=_banner(entry, view) + _story(story),
        actions=_actions(entry, view) if entry.is_payable() else _way_back(entry, view),
    )
    return _document(f"{view.merchant}: checkout", body)


def form_post_page(url: str, fields: Mapping[str, str], merchant: str) -> str:
    """Posts itself to the shop at once; without scripts a button does it."""
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )
    card = (
        f'<main class="alone"><section class="card"><h1>Back to {escape(merchant)}</h1>'
        f'<form method="post" action="{escape(url)}">{inputs}<button class="pay" data-testid="back">Continue</button>'
        f"</form></section></main><script>{_SEND}</script>"
    )
    return _document(f"Back to {merchant}", card)


def message_page(title: str, text: str) -> str:
    card = f'<main class="alone"><section class="card"><h1>{escape(title)}</h1><p>{escape(text)}</p></section></main>'
    return _document(title, card)


def _document(title: str, body: str) -> str:
    return _DOCUMENT.substitute(title=escape(title), style=_STYLE, body=body)


def _lines(lines: Sequence[CheckoutLine]) -> str:
    if not lines:
        return ""
    items = "".join(
        f"<li><span>{escape(line.name)}<small>Quantity {line.quantity}</small></span>"
        f'<span class="amount">{escape(line.amount)}</span></li>'
        for line in lines
    )
    return f'<ul class="lines">{items}</ul>'


def _banner(entry: BookEntry, view: CheckoutView) -> str:
    if entry.status in (EntryStatus.COMPLETED, EntryStatus.AUTHORIZED):
        return (
            '<p class="banner good" role="status" data-testid="paid">This payment is done. You can close this page.</p>'
        )
    if not entry.is_payable():
        text = "Nothing was charged. Go back to the shop to try again."
        return f'<p class="banner bad" role="status" data-testid="ended">{text}</p>'
    if view.declined_message:
        text = escape(view.declined_message)
        return f'<p class="banner bad" role="alert" data-testid="declined">{text}</p>'
    return ""


def _story(story: Sequence[StoryLine]) -> str:
    if not story:
        return ""
    items = "".join(
        f'<li data-testid="{line.kind}"><span>{escape(line.text)}</span>'
        f'<span class="amount">{escape(line.amount)}</span></li>'
        for line in story
    )
    return f'<ul class="lines story" aria-label="What became of this payment">{items}</ul>'


def _way_back(entry: BookEntry, view: CheckoutView) -> str:
    """For whoever opens the page again after it ended; the shop finds out from us how it did."""
    has_won = entry.status in (EntryStatus.COMPLETED, EntryStatus.AUTHORIZED)
    url = entry.success_url if has_won else entry.cancel_url or entry.success_url
    if not url or not url.startswith(("https://", "http://")):
        return ""
    href = escape(url.replace("{CHECKOUT_SESSION_ID}", entry.gateway_reference))
    return f'<a class="back" href="{href}" data-testid="back">Back to {escape(view.merchant)}</a>'


def _actions(entry: BookEntry, view: CheckoutView) -> str:
    paying = (
        "Holds the money; the shop captures it later." if view.is_manual_capture else "Charges the test card at once."
    )
    return _ACTIONS.substitute(
        gateway=escape(entry.gateway),
        session=escape(entry.gateway_reference),
        token=escape(entry.page_token),
        total=escape(view.total),
        currency=escape(view.currency),
        pay_label="Pay again" if view.declined_message else "Pay",
        pay_explanation=escape(view.pay_explanation or paying),
        instrument=escape(view.instrument[0]),
        instrument_note=escape(view.instrument[1]),
        decline_label=escape(view.decline_label),
        cancel=_CANCEL if view.has_way_back else "",
        cancel_explanation=escape(view.cancel_explanation),
        expires_at=escape(f"{entry.expires_at:%H:%M} UTC on {entry.expires_at:%-d %B}"),
    )
