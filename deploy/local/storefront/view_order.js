// One order: what it is doing now, followed live; paying again, canceling, and the invoice. The order document is the only truth shown here.

import { cancelOrder, fetchInvoice, followNextAction, listGateways, listProducts, payOrder, readOrder, serverNow } from "/storefront/api.js";
import { ask, fill, h, icon, picture, problemNotice } from "/storefront/dom.js";
import { availableNames, chosenGateway, gatewayChoice, labelOf } from "/storefront/gateways.js";
import { followOrder } from "/storefront/live.js";
import { formatMoney } from "/storefront/money.js";
import { knownOrder, updateOrder } from "/storefront/store.js";
import { attentionText, isPaid, isPayable, orderNumber, paymentLabel, refundLabel, standing } from "/storefront/status.js";

const REFRESH_EVERY = 30000;
const CHECKING_FOR = 20000;

const CHECKING = "We are checking your payment. This usually takes a few seconds; there is no need to pay again.";
const WELCOME_BACK = "Welcome back. We are checking with the payment provider how it ended.";
const NOT_THROUGH = "Your payment has not come through. If it was declined, continue and choose another way to pay there; nothing is charged twice.";

/** Show one order until the returned function is called. `arrival` is what the browser brought back from the gateway. */
export async function showOrder(main, id, arrival = {}) {
  const known = knownOrder(id);
  const title = h("h1", { tabindex: "-1" }, `Order ${orderNumber(id)}`);
  if (!known) {
    fill(main, title, h("div", { class: "empty panel" }, h("p", {}, "This browser does not know that order. Orders can only be seen in the browser that placed them."), h("a", { class: "button button-primary", href: "#/orders" }, "Orders of this browser")));
    return () => {};
  }
  fill(main, title, h("p", { class: "loading" }, "Looking it up…"));
  const page = new OrderPage(id, known.client_secret, arrival);
  try {
    page.order = await readOrder(id, known.client_secret);
  } catch (error) {
    fill(main, title, problemNotice(error), h("button", { class: "button", type: "button", onclick: () => window.dispatchEvent(new Event("hashchange")) }, "Try again"));
    return () => {};
  }
  fill(main, page.element);
  page.start();
  return () => page.stop();
}

class OrderPage {
  constructor(id, secret, arrival) {
    Object.assign(this, { id, secret, gateways: [], images: new Map(), mode: "connecting", chosen: arrival.gateway ?? null, arrivalStatus: arrival.status ?? null, arrivedAt: performance.now(), timers: [] });
    this.status = h("strong", { class: "badge", "data-testid": "order-status" });
    this.headline = h("p", { class: "status-headline" });
    this.explanation = h("p", { class: "status-text" });
    this.liveNote = h("p", { class: "live-note", "data-testid": "live-mode" });
    this.note = h("div", {});
    this.countdown = h("div", { class: "countdown", "data-testid": "countdown", role: "timer" });
    this.problems = h("div", { class: "problems" });
    this.actions = h("div", { class: "order-actions" });
    this.invoicePanel = h("div", {});
    this.timeline = h("ol", { class: "timeline", "data-testid": "timeline" });
    this.items = h("ul", { class: "mini-lines" });
    this.total = h("dd", { "data-testid": "order-total" });
    this.facts = h("dl", { class: "facts" });
    this.mark = h("div", { class: "status-mark", "aria-hidden": "true" });
    this.panel = h("section", { class: "panel status-panel", "aria-label": "Status" },
      h("div", { class: "status-top" }, this.mark, h("div", { class: "status-words", role: "status", "aria-live": "polite", "aria-atomic": "true" }, this.status, this.headline, this.explanation)),
      this.note, this.countdown, this.problems, this.actions, this.invoicePanel, this.liveNote);
    this.element = h("div", {},
      h("a", { class: "quiet-link back-link", href: "#/orders" }, icon("back"), "All orders"),
      h("h1", { tabindex: "-1" }, `Order ${orderNumber(id)}`),
      h("div", { class: "columns" },
        h("div", { class: "stack" }, this.panel, h("section", { class: "panel" }, h("h2", {}, "What happened"), this.timeline)),
        h("aside", { class: "panel summary", "aria-label": "What you ordered" }, h("h2", {}, "What you ordered"), this.items,
          h("dl", { class: "sums" }, h("div", { class: "sum-total" }, h("dt", {}, "Total"), this.total)), this.facts)));
    this.problem = arrival.error ?? null;
  }

  start() {
    this.drawGoods();
    this.draw();
    this.loadExtras();
    this.follower = followOrder({ id: this.id, secret: this.secret, version: () => this.order.version, onOrder: (order) => this.receive(order), onMode: (mode) => this.setMode(mode) });
    this.timers.push(window.setInterval(() => this.tick(), 1000));
    // A connection can die without a word (a phone asleep, a proxy's timeout); the question costs little.
    this.timers.push(window.setInterval(() => { if (isPayable(this.order)) { this.refresh(); this.refreshGateways(); } }, REFRESH_EVERY));
    this.onVisible = () => { if (!document.hidden) this.refresh(); };
    document.addEventListener("visibilitychange", this.onVisible);
  }

  stop() {
    this.stopped = true;
    this.follower?.stop();
    this.timers.forEach((timer) => window.clearInterval(timer));
    document.removeEventListener("visibilitychange", this.onVisible);
    if (this.invoiceUrl) URL.revokeObjectURL(this.invoiceUrl);
  }

  // Pictures and gateway names make the page nicer; without them it still does its job.
  async loadExtras() {
    const [gateways, products] = await Promise.allSettled([listGateways(this.order.total.currency), listProducts()]);
    if (this.stopped) return;
    if (gateways.status === "fulfilled") this.gateways = gateways.value;
    if (products.status === "fulfilled") this.images = new Map(products.value.map((product) => [product.sku, product.image_url]));
    this.drawGoods();
    this.drawnFor = null;
    this.draw();
  }

  // A provider that cannot be reached is not offered; one that is back is.
  async refreshGateways() {
    try {
      const gateways = await listGateways(this.order.total.currency);
      if (this.stopped) return;
      this.gateways = gateways;
      this.draw();
    } catch {
      // The choice stays as it was.
    }
  }

  async refresh() {
    try {
      this.receive(await readOrder(this.id, this.secret));
    } catch {
      // The live connection, or the next refresh, brings it.
    }
  }

  // Two connections may overlap for a moment; an older version never replaces a newer one.
  receive(order) {
    if (this.stopped || order.version < this.order.version) return;
    // A message stays until the order stands elsewhere: a version that only notes the trouble must not take it away unread.
    const moved = order.status !== this.order.status || order.payment_status !== this.order.payment_status;
    this.order = order;
    if (moved) this.problem = null;
    this.draw();
  }

  setMode(mode) {
    this.mode = mode;
    const words = { stream: "Live: this page updates by itself.", poll: "Checking for news every few seconds.", connecting: "Connecting for live news…", lost: "This order can no longer be followed from here." };
    this.liveNote.dataset.mode = mode;
    fill(this.liveNote, icon("live"), words[mode]);
  }

  gatewayLabel(name) {
    return this.gateways.find((gateway) => gateway.name === name)?.label ?? labelOf(name);
  }

  draw() {
    const { order } = this;
    updateOrder(order);
    const now = standing(order);
    if (this.status.textContent !== now.label) this.status.textContent = now.label;
    if (this.headline.textContent !== now.headline) this.headline.textContent = now.headline;
    const words = attentionText(order) ?? now.text;
    if (this.explanation.textContent !== words) this.explanation.textContent = words;
    this.status.dataset.status = order.payment_status;
    this.status.dataset.orderStatus = order.status;
    this.panel.dataset.tone = now.tone;
    if (this.mark.dataset.icon !== now.icon) {
      this.mark.dataset.icon = now.icon;
      fill(this.mark, icon(now.icon));
    }
    this.drawTimeline();
    this.drawProblem();
    // The choice of a gateway must not be pulled from under the shopper's finger, so the actions are rebuilt only when they change.
    const actionsKey = `${order.status} ${order.payment_status} ${availableNames(this.gateways)} ${order.payments?.at(-1)?.status}`;
    if (this.drawnFor !== actionsKey) {
      this.drawnFor = actionsKey;
      this.drawActions();
    }
    this.tick();
    document.title = `${now.label} · Order ${orderNumber(this.id)} · Seven Ports`;
  }

  drawNote() {
    const words = this.noteWords();
    if (this.noteShown === words) return;
    this.noteShown = words;
    if (!words) this.note.replaceChildren();
    else fill(this.note, h("div", { class: "notice notice-info", "data-testid": "checking-note" }, words !== NOT_THROUGH && h("span", { class: "spinner" }), h("p", {}, words)));
  }

  // Who comes back from a page where the payment was declined must not be told to wait: nothing is under way there any more.
  noteWords() {
    const latest = this.order.payments?.at(-1)?.status;
    this.wasProcessing ||= latest === "processing";
    const waiting = isPayable(this.order) && ["unpaid", "pending"].includes(this.order.payment_status);
    if (!waiting || !this.arrivalStatus) return null;
    const isOverdue = performance.now() - this.arrivedAt > CHECKING_FOR;
    if (latest === "requires_action" && (this.wasProcessing || isOverdue)) return NOT_THROUGH;
    return /^(success|succeeded|paid|captured|authorized|processing|pending)$/.test(this.arrivalStatus) ? CHECKING : WELCOME_BACK;
  }

  drawProblem() {
    if (!this.problem) this.problems.replaceChildren();
    else if (this.problemShown !== this.problem || !this.problems.firstChild) fill(this.problems, problemNotice(this.problem, "order-error"));
    this.problemShown = this.problem;
  }

  drawTimeline() {
    const { order } = this;
    const steps = [{ tone: "done", title: "Order placed", at: order.created_at, text: "Your goods are set aside." }];
    for (const payment of order.payments ?? []) {
      const words = paymentLabel(payment);
      steps.push({ tone: words.tone, title: `${this.gatewayLabel(payment.gateway)}: ${words.title}`, at: payment.updated_at ?? payment.created_at, text: words.text });
    }
    if (isPaid(order)) steps.push({ tone: "done", title: "Order confirmed", at: order.confirmed_at, text: order.closed_at ? "It had closed; your late payment still got the goods. The invoice is ready." : "The invoice is ready." });
    else if (order.status === "open") steps.push({ tone: "next", title: "Confirmation and invoice", text: "As soon as the payment is in." });
    else steps.push({ tone: "bad", title: `Order ${order.status}`, at: order.closed_at ?? order.updated_at, text: "The goods are back on the shelf." });
    for (const refund of (order.payments ?? []).flatMap((payment) => payment.refunds ?? [])) steps.push({ ...refundLabel(refund), at: refund.updated_at });
    fill(this.timeline, steps.map((step) => h("li", { class: `step-${step.tone}` },
      h("div", {}, h("p", { class: "step-title" }, step.title), step.text && h("p", { class: "fine" }, step.text)), step.at && h("time", { datetime: step.at }, timeOf(step.at)))));
  }

  drawGoods() {
    const { order } = this;
    fill(this.items, order.items.map((item) => h("li", {},
      picture(this.images.get(item.sku), "", "mini-picture"),
      h("span", { class: "mini-name" }, item.name, h("small", {}, item.unit_price ? `${item.quantity} × ${formatMoney(item.unit_price)}` : `Quantity ${item.quantity}`)),
      item.total && h("span", { class: "mini-total" }, formatMoney(item.total)))));
    this.total.textContent = formatMoney(order.total);
    fill(this.facts,
      h("div", {}, h("dt", {}, "Order number"), h("dd", { class: "mono" }, this.id)),
      order.created_at && h("div", {}, h("dt", {}, "Placed"), h("dd", {}, dateOf(order.created_at))),
      order.customer?.email && h("div", {}, h("dt", {}, "Confirmation to"), h("dd", {}, order.customer.email)));
  }

  drawActions() {
    const { order } = this;
    if (isPaid(order)) {
      fill(this.actions, h("button", { type: "button", class: "button button-primary", "data-testid": "invoice", onclick: (event) => this.openInvoice(event.currentTarget) }, icon("file"), "View invoice"),
        h("a", { class: "button", href: "#/" }, "Keep shopping"));
      return;
    }
    if (!isPayable(order)) {
      fill(this.actions, h("a", { class: "button button-primary", href: "#/" }, "Back to the shop"));
      return;
    }
    const total = formatMoney(order.total);
    const open = order.payment_status === "pending" ? order.payments?.at(-1)?.gateway : null;
    const choice = open ? null : gatewayChoice(this.gateways, { chosen: this.chosen ?? order.payments?.at(-1)?.gateway, onChoose: (name) => { this.chosen = name; } });
    const label = open ? `Continue to ${this.gatewayLabel(open)}` : order.payment_status === "failed" ? `Pay again · ${total}` : `Pay ${total}`;
    fill(this.actions, choice,
      h("div", { class: "button-row" },
        h("button", { type: "button", class: "button button-primary", "data-testid": "pay-again", disabled: !open && !this.gateways.some((gateway) => gateway.available), onclick: (event) => this.pay(event.currentTarget, open ?? chosenGateway(this.actions)) }, icon("lock"), label),
        h("button", { type: "button", class: "button button-danger", "data-testid": "cancel-order", onclick: (event) => this.cancel(event.currentTarget) }, "Cancel order")));
  }

  tick() {
    const { order } = this;
    this.drawNote();
    const left = isPayable(order) && order.expires_at ? Date.parse(order.expires_at) - serverNow() : null;
    if (left === null) {
      this.countdown.replaceChildren();
      return;
    }
    if (left <= 0 && !this.askedAtExpiry) {
      this.askedAtExpiry = true;
      this.refresh();
    }
    const seconds = Math.max(0, Math.ceil(left / 1000));
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    this.countdown.dataset.soon = String(seconds < 120);
    fill(this.countdown, icon("clock"), seconds > 0 ? h("span", {}, "Reserved for you for another ", h("b", {}, clock)) : h("span", {}, "The reservation has ended; checking…"));
  }

  async act(button, work) {
    const before = [...button.childNodes];
    const buttons = this.actions.querySelectorAll("button");
    buttons.forEach((each) => { each.disabled = true; });
    fill(button, h("span", { class: "spinner" }), "One moment…");
    this.problem = null;
    this.drawProblem();
    try {
      await work();
    } catch (error) {
      // The shopper's picture is out of date (paid meanwhile, expired, ...): fetch the truth before showing why.
      if (error.status === 409 || error.status === 410) await this.refresh();
      this.problem = error.code === "order_already_paid" && isPaid(this.order) ? null : error;
      this.drawProblem();
      if (error.code === "gateway_unavailable") this.refreshGateways();
    } finally {
      fill(button, before);
      this.drawnFor = null;
      this.draw();
    }
  }

  pay(button, gateway) {
    return this.act(button, async () => {
      const answer = await payOrder(this.id, this.secret, gateway);
      handOver(this.gatewayLabel(answer.gateway ?? gateway));
      followNextAction(answer.next_action);
    }).then(() => { if (this.problem) takeBack(); });
  }

  async cancel(button) {
    const answer = await ask({
      testid: "cancel-dialog", title: "Cancel this order?", paragraphs: ["An open payment page is closed and the goods go back on the shelf."],
      choices: [{ value: "keep", label: "Keep the order", testid: "keep-order" }, { value: "cancel", label: "Cancel it", testid: "confirm-cancel", style: "button-danger-solid" }],
    });
    if (answer !== "cancel") return;
    await this.act(button, async () => {
      const order = await cancelOrder(this.id, this.secret);
      if (order?.id === this.id) this.receive(order);
      else await this.refresh();
    });
  }

  openInvoice(button) {
    return this.act(button, async () => {
      const { blob, name } = await fetchInvoice(this.id, this.secret);
      if (this.invoiceUrl) URL.revokeObjectURL(this.invoiceUrl);
      this.invoiceUrl = URL.createObjectURL(blob);
      window.open(this.invoiceUrl, "_blank");
      fill(this.invoicePanel, h("p", { class: "invoice-links" },
        h("a", { href: this.invoiceUrl, target: "_blank", "data-testid": "invoice-open" }, icon("file"), "Open invoice"),
        h("a", { href: this.invoiceUrl, download: name, "data-testid": "invoice-download" }, icon("download"), `Download ${name}`)));
    });
  }
}

/** Cover the page while the browser leaves for the gateway. */
export function handOver(label) {
  takeBack();
  document.body.append(h("div", { class: "hand-over", role: "status", "data-testid": "hand-over" }, h("span", { class: "spinner spinner-large" }), h("p", {}, `Taking you to ${label}…`)));
}

export function takeBack() {
  document.querySelector(".hand-over")?.remove();
}

function timeOf(iso) {
  return new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(new Date(iso));
}

function dateOf(iso) {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" }).format(new Date(iso));
}
