// The storefront's entry: a router on the hash, the cart's count in the header, and the way back from a gateway.

import { fill, h } from "/storefront/dom.js";
import { cartCount } from "/storefront/store.js";
import { showCart } from "/storefront/view_cart.js";
import { showCheckout } from "/storefront/view_checkout.js";
import { showOrder, takeBack } from "/storefront/view_order.js";
import { showOrders } from "/storefront/view_orders.js";
import { showShop } from "/storefront/view_shop.js";

const ROUTES = [
  { pattern: /^\/?$/, nav: "shop", title: "Coffee & tea goods", show: showShop },
  { pattern: /^\/cart$/, nav: "cart", title: "Cart", show: showCart },
  { pattern: /^\/checkout$/, nav: "cart", title: "Checkout", show: showCheckout },
  { pattern: /^\/orders$/, nav: "orders", title: "Orders", show: showOrders },
  { pattern: /^\/orders\/([\w-]+)$/, nav: "orders", title: "Order", show: showOrder },
];

const main = document.getElementById("main");
let leave = () => {};
let generation = 0;

/**
 * What a gateway sent the browser back with. It only chooses a friendly sentence; the order document decides.
 * The parameters are removed from the address, so that a reload or a bookmark does not repeat them.
 */
function readArrival() {
  const [path, trailing = ""] = location.hash.slice(1).split("?");
  const query = new URLSearchParams(location.search);
  new URLSearchParams(trailing).forEach((value, name) => query.set(name, value));
  const order = query.get("order_id") ?? query.get("order");
  if (order === null && !query.has("status")) return {};
  const target = order && /^[\w-]+$/.test(order) && !path.startsWith("/orders/") ? `/orders/${order}` : path || "/";
  history.replaceState(null, "", `/#${target}`);
  return { status: query.get("status") ?? "returned" };
}

async function route(arrival = {}) {
  const path = location.hash.slice(1).split("?")[0] || "/";
  const found = ROUTES.find(({ pattern }) => pattern.test(path));
  leave();
  leave = () => {};
  takeBack();
  document.getElementById("toasts").replaceChildren();
  generation += 1;
  const mine = generation;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === found?.nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${found?.title ?? "Not found"} · Seven Ports`;
  // Each page draws into a box of its own: an answer that arrives after the shopper has gone elsewhere draws into a box nobody sees.
  const view = h("div", { class: "view" });
  fill(main, view);
  window.scrollTo(0, 0);
  if (!found) {
    fill(view, h("h1", { tabindex: "-1" }, "No such page"), h("div", { class: "empty panel" }, h("p", {}, "This quay is empty."), h("a", { class: "button button-primary", href: "#/" }, "Back to the shop")));
    return;
  }
  const stop = await found.show(view, path.match(found.pattern)[1], arrival);
  if (typeof stop !== "function") return;
  if (mine === generation) leave = stop;
  else stop();
}

function drawCartCount() {
  const count = cartCount();
  const badge = document.getElementById("cart-count");
  badge.textContent = String(count);
  badge.dataset.empty = String(count === 0);
  badge.setAttribute("aria-label", count === 1 ? "1 item in the cart" : `${count} items in the cart`);
}

function focusTitle() {
  main.querySelector("h1")?.focus({ preventScroll: true });
}

window.addEventListener("hashchange", async () => { const shown = route(readArrival()); focusTitle(); await shown; });
window.addEventListener("cart-changed", drawCartCount);
window.addEventListener("storage", drawCartCount);
window.addEventListener("show-order", (event) => route({ error: event.detail.error, gateway: event.detail.gateway }));
// Coming back with the browser's Back button may restore the page as it was left, with its button still waiting.
window.addEventListener("pageshow", (event) => { if (event.persisted) route(readArrival()); });
window.addEventListener("pagehide", () => { leave(); leave = () => {}; });
document.getElementById("skip").addEventListener("click", () => main.focus());

drawCartCount();
route(readArrival());
