// The cart, and the summary of it that checkout shows beside the form.

import { listProducts } from "/storefront/api.js";
import { fill, h, icon, picture, problemNotice } from "/storefront/dom.js";
import { formatMoney, sum, times } from "/storefront/money.js";
import { townOf } from "/storefront/ports.js";
import { MOST_PER_LINE, cart, reconcileCart, setQuantity } from "/storefront/store.js";

/** The cart's lines with the catalogue's products, and how many lines had to be dropped. */
export async function cartLines() {
  const products = await listProducts();
  const dropped = reconcileCart(products);
  const bySku = new Map(products.map((product) => [product.sku, product]));
  const { currency, items } = cart();
  return { currency, dropped, lines: items.map(({ sku, quantity }) => ({ product: bySku.get(sku), quantity })) };
}

export function cartTotal({ currency, lines }) {
  return sum(lines.map(({ product, quantity }) => times(product.price, quantity)), currency);
}

export async function showCart(main) {
  fill(main, h("h1", { tabindex: "-1" }, "Your cart"), h("p", { class: "loading" }, "Counting the parcels…"));
  try {
    drawCart(main, await cartLines());
  } catch (error) {
    fill(main, h("h1", { tabindex: "-1" }, "Your cart"), problemNotice(error), h("button", { class: "button", type: "button", onclick: () => showCart(main) }, "Try again"));
  }
}

function drawCart(main, contents) {
  const { currency, lines, dropped } = contents;
  const droppedNotice = dropped > 0 && h("div", { class: "notice notice-warning" }, icon("alert"), h("p", {}, "Something in your cart is no longer available and was taken out."));
  if (lines.length === 0) {
    fill(main, h("h1", { tabindex: "-1" }, "Your cart"), droppedNotice, emptyCart());
    return;
  }
  const total = cartTotal(contents);
  fill(main,
    h("h1", { tabindex: "-1" }, "Your cart"),
    droppedNotice,
    h("div", { class: "columns" },
      h("ul", { class: "panel lines", "data-testid": "cart-lines" }, lines.map((line) => cartLine(line, () => redraw(main, contents)))),
      h("aside", { class: "panel summary", "aria-label": "Summary" },
        h("h2", {}, "Summary"),
        h("dl", { class: "sums" },
          h("div", {}, h("dt", {}, "Goods"), h("dd", {}, formatMoney(total))),
          h("div", {}, h("dt", {}, `Sent from ${townOf(currency)}`), h("dd", {}, "Free")),
          h("div", { class: "sum-total" }, h("dt", {}, "Total"), h("dd", { "data-testid": "cart-total" }, formatMoney(total)))),
        h("a", { class: "button button-primary button-wide", href: "#/checkout", "data-testid": "checkout" }, "Go to checkout", icon("arrow")),
        h("a", { class: "quiet-link", href: "#/" }, "Keep shopping"))));
}

function redraw(main, contents) {
  const quantities = new Map(cart().items.map((item) => [item.sku, item.quantity]));
  const lines = contents.lines.filter(({ product }) => quantities.has(product.sku)).map(({ product }) => ({ product, quantity: quantities.get(product.sku) }));
  const focused = document.activeElement?.dataset?.focusKey;
  drawCart(main, { ...contents, dropped: 0, lines });
  const next = focused && main.querySelector(`[data-focus-key="${CSS.escape(focused)}"]`);
  (next && !next.disabled ? next : main.querySelector("h1")).focus();
}

function cartLine({ product, quantity }, changed) {
  const most = Math.min(MOST_PER_LINE, product.available_stock);
  const change = (next) => { setQuantity(product, next); changed(); };
  const step = (label, sign, next, disabled) => h("button", {
    type: "button", class: "step", "aria-label": `${label} of ${product.name}`, disabled, "data-focus-key": `${label} ${product.sku}`,
    "data-testid": sign === "+" ? "increase" : "decrease", onclick: () => change(next),
  }, sign);
  return h("li", { class: "line", "data-testid": "cart-line", "data-sku": product.sku },
    picture(product.image_url, "", "line-picture"),
    h("div", { class: "line-text" },
      h("h2", {}, product.name),
      h("p", { class: "fine" }, `${formatMoney(product.price)} each`),
      h("div", { class: "line-controls" },
        h("div", { class: "stepper", role: "group", "aria-label": `Quantity of ${product.name}` },
          step("One less", "−", quantity - 1, quantity <= 1),
          h("output", { "data-testid": "quantity", "aria-live": "polite" }, String(quantity)),
          step("One more", "+", quantity + 1, quantity >= most)),
        h("button", { type: "button", class: "link-button", "data-testid": "remove", "aria-label": `Remove ${product.name}`, onclick: () => change(0) }, icon("trash"), "Remove")),
      quantity >= most && most < MOST_PER_LINE && h("p", { class: "fine" }, "That is all we have.")),
    h("p", { class: "line-total" }, formatMoney(times(product.price, quantity))));
}

export function emptyCart() {
  return h("div", { class: "empty panel" },
    h("img", { src: "/storefront/assets/placeholder.svg", alt: "", width: "200", height: "160" }),
    h("p", {}, "Nothing in here yet. The kettle is on."),
    h("a", { class: "button button-primary", href: "#/" }, "See what is on the shelves"));
}

/** A compact list of what is being bought, for checkout. */
export function summaryPanel(contents) {
  const total = cartTotal(contents);
  return h("aside", { class: "panel summary", "aria-label": "Your order" },
    h("h2", {}, "Your order"),
    h("ul", { class: "mini-lines" }, contents.lines.map(({ product, quantity }) => h("li", {},
      picture(product.image_url, "", "mini-picture"),
      h("span", { class: "mini-name" }, product.name, h("small", {}, `Quantity ${quantity}`)),
      h("span", { class: "mini-total" }, formatMoney(times(product.price, quantity)))))),
    h("dl", { class: "sums" }, h("div", { class: "sum-total" }, h("dt", {}, "Total"), h("dd", { "data-testid": "order-total" }, formatMoney(total)))),
    h("a", { class: "quiet-link", href: "#/cart" }, "Change the cart"));
}
