// The order's state in a shopper's words. The order document decides; money that came late or twice has words of its own.

import { formatMoney } from "/storefront/money.js";

const STANDINGS = {
  paid: { label: "Paid", tone: "good", icon: "check", headline: "Thank you, your order is paid", text: "A confirmation with the invoice is on its way to your inbox." },
  authorized: { label: "Authorized", tone: "good", icon: "check", headline: "Your payment is authorized", text: "The amount is reserved on your card. It is captured when your goods leave the harbour." },
  partially_refunded: { label: "Partly refunded", tone: "calm", icon: "check", headline: "Part of this order was refunded" },
  refunded: { label: "Refunded", tone: "calm", icon: "check", headline: "This order was refunded" },
  disputed: { label: "In dispute", tone: "warn", icon: "alert", headline: "This payment is in dispute", text: "Your bank and the payment provider are looking into it." },
  canceled: { label: "Canceled", tone: "calm", icon: "cross", headline: "This order was canceled", text: "Nothing was charged and the goods are back on the shelf." },
  expired: { label: "Expired", tone: "calm", icon: "clock", headline: "This order expired", text: "It was not paid in time, so the goods went back on the shelf. You are welcome to order again." },
  failed: { label: "Payment failed", tone: "bad", icon: "alert", headline: "The payment did not go through", text: "You were not charged. Your goods are still set aside: try again, or pay another way." },
  pending: { label: "Payment pending", tone: "wait", icon: "clock", headline: "Waiting for your payment", text: "The payment page is open. When you have paid there, this page will say so by itself." },
  unpaid: { label: "Awaiting payment", tone: "wait", icon: "clock", headline: "Your goods are set aside", text: "Pay to make them yours." },
};

const BANKS_TAKE_TIME = "Most banks show it within 5 to 10 days.";

/** What the order is, in one word for the badge and two sentences beside it. The list of orders has no payments to look at. */
export function standing(order) {
  if (order.status === "confirmed") return confirmedStanding(order);
  if (order.status === "canceled" || order.status === "expired") return closedStanding(order);
  return STANDINGS[order.payment_status] ?? STANDINGS.pending;
}

function confirmedStanding(order) {
  const base = STANDINGS[order.payment_status] ?? STANDINGS.paid;
  const kept = keptPayment(order);
  if (!kept) return base;
  if (order.payment_status === "refunded") return { ...base, text: `${amountOf(kept, kept.amount_refunded)} went back to you. ${BANKS_TAKE_TIME}` };
  const pending = kept.amount_refund_pending > 0 ? `${amountOf(kept, kept.amount_refund_pending)} more is on its way back. ` : "";
  if (order.payment_status === "partially_refunded") return { ...base, text: `${amountOf(kept, kept.amount_refunded)} of ${amountOf(kept, kept.amount_captured)} went back to you. ${pending}${BANKS_TAKE_TIME}` };
  if (order.payment_status !== "paid") return base;
  if (pending) return { ...base, label: "Refund pending", tone: "calm", icon: "clock", headline: "A refund is on its way", text: `${amountOf(kept, kept.amount_refund_pending)} is going back to you. We say so here and by e-mail when the payment provider has confirmed it.` };
  if (kept.resolution === "fulfilled") return { ...base, headline: "Your payment came late, and your order is confirmed", text: "The order had closed, but your goods were still there. A confirmation with the invoice is on its way to your inbox." };
  if (kept.status === "partially_captured") return { ...base, text: `${amountOf(kept, kept.amount_captured)} of ${amountOf(kept, kept.amount.amount_minor)} was collected; the rest of the reservation on your card was released.` };
  return base;
}

// Money that reached an order after its end: going back, gone back, or waiting for a person.
function closedStanding(order) {
  const base = STANDINGS[order.status];
  const late = (order.payments ?? []).filter((payment) => hasMoney(payment) || payment.amount_refunded > 0);
  if (late.length === 0) return base;
  const ended = order.status === "canceled" ? "been canceled" : "expired";
  const open = late.filter(hasMoney);
  if (open.length === 0) return { ...base, text: `A payment arrived after the order had ${ended}. ${late.map((payment) => amountOf(payment, payment.amount_refunded)).join(" and ")} went back to you. ${BANKS_TAKE_TIME}` };
  if (open.every(isGoingBack)) return { ...base, label: "Refund pending", tone: "wait", icon: "clock", headline: "Your payment is on its way back", text: `It arrived after the order had ${ended}, and the goods are no longer set aside. ${open.map(goingBack).join(" ")}` };
  return { ...base, label: "Paid late", tone: "warn", icon: "alert", headline: `Your payment arrived after the order had ${ended}` };
}

function amountOf(payment, minor) {
  return formatMoney({ amount_minor: minor, currency: payment.amount.currency });
}

function hasMoney(payment) {
  return ["authorized", "partially_captured", "captured"].includes(payment.status) && (payment.status !== "captured" || payment.amount_captured > payment.amount_refunded);
}

function isGoingBack(payment) {
  return payment.resolution === "refund_requested" || payment.resolution === "release_requested";
}

function goingBack(payment) {
  return payment.resolution === "release_requested"
    ? `The ${amountOf(payment, payment.amount_authorized)} reserved on your card is being released; nothing is charged.`
    : `${amountOf(payment, payment.amount_captured - payment.amount_refunded)} is being refunded.`;
}

// The payment that the order stands on: the one with money that nobody sends back, or what came back in full.
function keptPayment(order) {
  const paid = (order.payments ?? []).filter((payment) => payment.amount_captured > 0 && !isGoingBack(payment));
  return paid.find((payment) => payment.resolution === "fulfilled") ?? paid.find(hasMoney) ?? paid[0] ?? null;
}

/** Confirmed, so there is an invoice; whatever went back since. */
export function isPaid(order) {
  return order.status === "confirmed";
}

export function isPayable(order) {
  return order.status === "open" && ["unpaid", "pending", "failed"].includes(order.payment_status);
}

const ATTENTION = {
  amount_mismatch: "The amount that arrived is not the amount of this order. A person is looking into it; you do not need to pay again.",
  late_payment: "The payment arrived after the order had closed. A person is looking into it.",
  duplicate_payment: "This order was paid twice. A person is looking into it.",
  unknown_outcome: "The payment provider has not answered clearly yet, and we keep asking. You can try again; nothing is charged twice.",
  orphan_payment: "A payment needs to be matched with this order by a person. You do not need to pay again.",
};

export function attentionText(order) {
  if (!order.attention) return null;
  const strays = (order.payments ?? []).filter((payment) => hasMoney(payment) && isGoingBack(payment));
  if (order.attention === "duplicate_payment" && strays.length > 0) return `This order was paid twice. ${strays.map(goingBack).join(" ")}`;
  if (order.attention === "late_payment" && strays.length > 0) return standing(order).text;
  if (order.attention === "unknown_outcome" && order.status !== "open") return "The payment provider has not answered clearly yet what became of a refund or a capture, and we keep asking. Nothing is done twice.";
  return ATTENTION[order.attention] ?? "A person is looking into this order.";
}

const PAYMENTS = {
  created: { tone: "now", title: "payment page requested" },
  requires_action: { tone: "now", title: "payment page open", text: "Waiting for you to pay there." },
  processing: { tone: "now", title: "processing", text: "The provider is working on it." },
  authorized: { tone: "done", title: "authorized", text: "Reserved on your card, captured when shipped." },
  partially_captured: { tone: "done", title: "partly captured" },
  captured: { tone: "done", title: "paid" },
  failed: { tone: "bad", title: "declined", text: "Nothing was charged." },
  canceled: { tone: "bad", title: "canceled", text: "Nothing was charged." },
  expired: { tone: "bad", title: "payment page timed out", text: "Nothing was charged." },
  conflicted: { tone: "bad", title: "under review", text: "What arrived does not match the order." },
};

export function paymentLabel(payment) {
  const words = PAYMENTS[payment.status] ?? { tone: "now", title: String(payment.status).replaceAll("_", " ") };
  if (payment.outcome_unknown) return { ...words, tone: "now", text: "The provider has not answered clearly; we keep asking." };
  if (payment.amount_disputed > 0) return { ...words, tone: "bad", text: `${amountOf(payment, payment.amount_disputed)} is in dispute.` };
  if (hasMoney(payment) && isGoingBack(payment)) return { ...words, tone: "now", text: goingBack(payment) };
  if (payment.status === "partially_captured") return { ...words, text: `${amountOf(payment, payment.amount_captured)} of ${amountOf(payment, payment.amount.amount_minor)} was collected.` };
  return words;
}

const REFUNDS = {
  pending: { tone: "now", title: "refund on its way" },
  submitted: { tone: "now", title: "refund on its way" },
  unknown: { tone: "now", title: "refund being checked", text: "The provider has not answered clearly; we keep asking." },
  succeeded: { tone: "done", title: "refunded", text: BANKS_TAKE_TIME },
  failed: { tone: "bad", title: "refund did not work", text: "We are looking into it." },
  canceled: { tone: "bad", title: "refund withdrawn" },
  reversed: { tone: "bad", title: "refund came back to us", text: "Your bank did not take it. We are looking into it." },
};

/** A refund as a step of what happened: its tone, title and text. */
export function refundLabel(refund) {
  const words = REFUNDS[refund.status] ?? { tone: "now", title: `refund ${String(refund.status).replaceAll("_", " ")}` };
  return { ...words, title: `${formatMoney(refund.amount)} ${words.title}` };
}

/** The last letters of the id are enough for a person to tell orders apart. */
export function orderNumber(id) {
  return id.slice(-8).toUpperCase();
}
