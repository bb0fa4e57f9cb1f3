// The order's state in a shopper's words. Money wins: a paid order that expired meanwhile is shown as paid.

const STANDINGS = {
  paid: { label: "Paid", tone: "good", icon: "check", headline: "Thank you, your order is paid", text: "A confirmation with the invoice is on its way to your inbox." },
  authorized: { label: "Authorized", tone: "good", icon: "check", headline: "Your payment is authorized", text: "The amount is held and will be collected when the goods leave the harbour." },
  partially_refunded: { label: "Partly refunded", tone: "calm", icon: "check", headline: "Part of this order was refunded", text: "The money takes a few days to reach your account." },
  refunded: { label: "Refunded", tone: "calm", icon: "check", headline: "This order was refunded", text: "The money takes a few days to reach your account." },
  disputed: { label: "In dispute", tone: "warn", icon: "alert", headline: "This payment is in dispute", text: "Your bank and the payment provider are looking into it." },
  canceled: { label: "Canceled", tone: "calm", icon: "cross", headline: "This order was canceled", text: "Nothing was charged and the goods are back on the shelf." },
  expired: { label: "Expired", tone: "calm", icon: "clock", headline: "This order expired", text: "It was not paid in time, so the goods went back on the shelf. You are welcome to order again." },
  failed: { label: "Payment failed", tone: "bad", icon: "alert", headline: "The payment did not go through", text: "You were not charged. Your goods are still set aside: try again, or pay another way." },
  pending: { label: "Payment pending", tone: "wait", icon: "clock", headline: "Waiting for your payment", text: "The payment page is open. When you have paid there, this page will say so by itself." },
  unpaid: { label: "Awaiting payment", tone: "wait", icon: "clock", headline: "Your goods are set aside", text: "Pay to make them yours." },
};

const MONEY_IN = ["paid", "partially_refunded", "refunded", "disputed"];

/** What the order is, in one word for the badge and two sentences beside it. */
export function standing(order) {
  if (MONEY_IN.includes(order.payment_status)) return STANDINGS[order.payment_status];
  if (order.status === "canceled" || order.status === "expired") return STANDINGS[order.status];
  return STANDINGS[order.payment_status] ?? STANDINGS.pending;
}

export function isPaid(order) {
  return MONEY_IN.includes(order.payment_status);
}

export function isPayable(order) {
  return order.status === "open" && ["unpaid", "pending", "failed"].includes(order.payment_status);
}

const ATTENTION = {
  amount_mismatch: "The amount that arrived is not the amount of this order. A person is looking into it; you do not need to pay again.",
  late_payment: "The payment arrived after the order had closed. A person is looking into it.",
  duplicate_payment: "This order was paid twice. The second payment is on its way back to you.",
  unknown_outcome: "The payment provider has not answered clearly yet, and we keep asking. You can try again; nothing is charged twice.",
  orphan_payment: "A payment needs to be matched with this order by a person. You do not need to pay again.",
};

export function attentionText(order) {
  return order.attention ? ATTENTION[order.attention] ?? "A person is looking into this order." : null;
}

const PAYMENTS = {
  created: { tone: "now", title: "payment page requested" },
  requires_action: { tone: "now", title: "payment page open", text: "Waiting for you to pay there." },
  processing: { tone: "now", title: "processing", text: "The provider is working on it." },
  authorized: { tone: "done", title: "authorized" },
  partially_captured: { tone: "done", title: "partly paid" },
  captured: { tone: "done", title: "paid" },
  failed: { tone: "bad", title: "declined", text: "Nothing was charged." },
  canceled: { tone: "bad", title: "canceled", text: "Nothing was charged." },
  expired: { tone: "bad", title: "payment page timed out", text: "Nothing was charged." },
  conflicted: { tone: "bad", title: "under review", text: "What arrived does not match the order." },
};

export function paymentLabel(status) {
  return PAYMENTS[status] ?? { tone: "now", title: String(status).replaceAll("_", " ") };
}

/** The last letters of the id are enough for a person to tell orders apart. */
export function orderNumber(id) {
  return id.slice(-8).toUpperCase();
}
