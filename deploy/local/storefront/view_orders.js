// The orders this browser placed. The list comes from local storage at once, and each line is then brought up to date.

import { listProducts, readOrder } from "/storefront/api.js";
import { ask, fill, h, picture, icon } from "/storefront/dom.js";
import { formatMoney } from "/storefront/money.js";
import { orderNumber, standing } from "/storefront/status.js";
import { forgetOrders, orders, updateOrder } from "/storefront/store.js";

const REFRESHED = 12;

export function showOrders(main) {
  let images = new Map();
  const list = h("ul", { class: "history", "data-testid": "order-history" });
  const draw = () => {
    const known = orders();
    if (known.length === 0) {
      fill(main, h("h1", { tabindex: "-1" }, "Your orders"), h("div", { class: "empty panel", "data-testid": "order-history" }, h("p", {}, "No orders from this browser yet."), h("a", { class: "button button-primary", href: "#/" }, "See what is on the shelves")));
      return false;
    }
    fill(list, known.map((entry) => historyLine(entry, images)));
    return true;
  };
  fill(main, h("h1", { tabindex: "-1" }, "Your orders"),
    h("p", { class: "lede" }, "Orders placed in this browser. They are kept on this device only."), list,
    h("button", { type: "button", class: "link-button", "data-testid": "forget-orders", onclick: async () => { if (await confirmForget()) { forgetOrders(); draw(); } } }, icon("trash"), "Forget these orders on this device"));
  let stopped = false;
  const redraw = () => { if (!stopped) draw(); };
  if (draw()) {
    refresh(redraw, () => stopped);
    // Pictures make the list nicer; without them it still does its job.
    listProducts().then((products) => { images = new Map(products.map((product) => [product.sku, product.image_url])); redraw(); }, () => {});
  }
  return () => { stopped = true; };
}

async function refresh(redraw, isStopped) {
  for (const { id, client_secret: secret } of orders().slice(0, REFRESHED)) {
    if (isStopped()) return;
    try {
      updateOrder(await readOrder(id, secret));
      redraw();
    } catch {
      // The line keeps what was last known.
    }
  }
}

async function confirmForget() {
  const answer = await ask({
    testid: "forget-dialog", title: "Forget these orders?", paragraphs: ["The orders themselves stay as they are, but this browser will not be able to open, pay or cancel them any more."],
    choices: [{ value: "keep", label: "Keep them" }, { value: "forget", label: "Forget them", testid: "confirm-forget", style: "button-danger-solid" }],
  });
  return answer === "forget";
}

function historyLine(entry, images) {
  const now = standing(entry);
  const names = entry.items.map((item) => (item.quantity > 1 ? `${item.name} × ${item.quantity}` : item.name)).join(", ");
  const placed = entry.created_at ? new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" }).format(new Date(entry.created_at)) : "";
  return h("li", { "data-testid": "order-history-item", "data-order-id": entry.id, "data-status": entry.payment_status, "data-order-status": entry.status },
    h("a", { class: "panel history-line", href: `#/orders/${entry.id}` },
      picture(images.get(entry.items[0]?.sku), "", "mini-picture"),
      h("div", { class: "history-text" }, h("p", { class: "history-title" }, names), h("p", { class: "fine" }, `Order ${orderNumber(entry.id)} · ${placed}`)),
      h("div", { class: "history-end" }, h("span", { class: "history-total" }, formatMoney(entry.total)), h("span", { class: "badge", "data-tone": now.tone }, now.label))));
}
