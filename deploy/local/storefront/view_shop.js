// The shelves: every product, filtered by kind and by harbour (a harbour trades in one currency).

import { listProducts } from "/storefront/api.js";
import { ask, fill, h, picture, problemNotice, toast } from "/storefront/dom.js";
import { formatMoney } from "/storefront/money.js";
import { CATEGORIES, PORTS, categoryOf, townOf } from "/storefront/ports.js";
import { MOST_PER_LINE, cart, clearCart, quantityOf, setQuantity } from "/storefront/store.js";

const filters = { category: "all", currency: "all" };

export async function showShop(main) {
  const shelves = h("div", { class: "shelves", "aria-busy": "true" }, Array.from({ length: 8 }, () => h("div", { class: "card skeleton" })));
  const controls = h("div", { class: "filters" });
  fill(main, hero(), h("section", { "aria-labelledby": "shelves-title" },
    h("div", { class: "section-head" }, h("h2", { id: "shelves-title" }, "On the shelves"), h("p", { class: "result-count", id: "result-count", role: "status" })),
    controls, shelves));
  try {
    const products = await listProducts();
    drawControls(controls, shelves, products);
    drawShelves(shelves, products);
  } catch (error) {
    fill(shelves, problemNotice(error), h("button", { class: "button", type: "button", onclick: () => showShop(main) }, "Try again"));
  } finally {
    shelves.removeAttribute("aria-busy");
  }
}

function hero() {
  return h("section", { class: "hero" },
    h("div", { class: "hero-text" },
      h("p", { class: "eyebrow" }, "Small lots, slow ships"),
      h("h1", { tabindex: "-1" }, "Coffee and tea from seven ports"),
      h("p", { class: "lede" }, "Seven harbour merchants, one shop. Each sends its own beans, leaves and pots, and sells them in its own currency.")),
    h("img", { class: "hero-picture", src: "/storefront/assets/hero.svg", alt: "", width: "640", height: "460" }));
}

function drawControls(controls, shelves, products) {
  const redraw = () => { drawControls(controls, shelves, products); drawShelves(shelves, products); };
  const chip = (group, value, label, detail = null) => h("button", {
    type: "button", class: "chip", "aria-pressed": String(filters[group] === value), "data-testid": `${group}-filter-${value}`,
    onclick: () => { filters[group] = value; redraw(); controls.querySelector(`[data-testid="${group}-filter-${value}"]`)?.focus(); },
  }, label, detail && h("span", { class: "chip-detail" }, detail));
  const present = Object.keys(PORTS).concat(products.map((product) => product.price.currency).filter((code) => !PORTS[code]))
    .filter((code, index, all) => all.indexOf(code) === index && products.some((product) => product.price.currency === code));
  fill(controls,
    h("div", { class: "chips", role: "group", "aria-label": "Kind of goods" }, chip("category", "all", "Everything"), Object.entries(CATEGORIES).map(([value, label]) => chip("category", value, label))),
    h("div", { class: "chips", role: "group", "aria-label": "Harbour and currency" }, chip("currency", "all", "All ports"), present.map((code) => chip("currency", code, townOf(code), code))));
}

function drawShelves(shelves, products) {
  const shown = products.filter((product) =>
    (filters.category === "all" || categoryOf(product.sku) === filters.category) && (filters.currency === "all" || product.price.currency === filters.currency));
  document.getElementById("result-count").textContent = shown.length === 1 ? "1 product" : `${shown.length} products`;
  if (shown.length === 0) {
    fill(shelves, h("div", { class: "empty" }, h("p", {}, "Nothing of that kind from this harbour today."),
      h("button", { class: "button", type: "button", onclick: () => { document.querySelector('[data-testid="category-filter-all"]').click(); } }, "Show everything from here")));
    return;
  }
  fill(shelves, shown.map(card));
}

function card(product) {
  const stock = product.available_stock;
  const soldOut = stock <= 0;
  const stockNote = soldOut ? "Sold out" : stock <= 5 ? `Only ${stock} left` : null;
  const button = h("button", {
    type: "button", class: "button button-primary button-small", "data-testid": "add-to-cart", "data-sku": product.sku, disabled: soldOut,
    "aria-label": soldOut ? `${product.name} is sold out` : `Add ${product.name} to the cart`, onclick: () => addToCart(product),
  }, soldOut ? "Sold out" : "Add to cart");
  return h("article", { class: `card${soldOut ? " card-sold-out" : ""}`, "data-testid": "product-card", "data-sku": product.sku, "data-currency": product.price.currency, "data-stock": String(stock) },
    h("div", { class: "card-picture" }, picture(product.image_url, ""), stockNote && h("span", { class: "stock-note", "data-testid": "stock-note" }, stockNote)),
    h("div", { class: "card-body" },
      h("p", { class: "origin" }, PORTS[product.price.currency] ? `From ${townOf(product.price.currency)}` : product.price.currency),
      h("h3", { "data-testid": "product-name" }, product.name),
      h("p", { class: "description" }, product.description),
      h("div", { class: "card-foot" }, h("p", { class: "price", "data-testid": "price" }, formatMoney(product.price)), button)));
}

async function addToCart(product) {
  const { currency } = cart();
  const wanted = product.price.currency;
  if (currency && currency !== wanted) {
    const answer = await ask({
      testid: "currency-dialog", title: `A new cart for ${townOf(wanted)}?`,
      paragraphs: [
        `Your cart is from ${townOf(currency)} and is paid in ${currency}. ${product.name} is sold in ${wanted}, and one order has one currency.`,
        "You can keep your cart and buy this separately afterwards, or empty it and start a new one.",
      ],
      choices: [
        { value: "keep", label: "Keep my cart", testid: "keep-cart" },
        { value: "new", label: `Start a ${wanted} cart`, testid: "start-new-cart", style: "button-primary" },
      ],
    });
    if (answer !== "new") return;
    clearCart();
  }
  const before = quantityOf(product.sku);
  setQuantity(product, before + 1);
  const after = quantityOf(product.sku);
  const viewCart = h("a", { href: "#/cart" }, "View cart");
  if (after > before) toast(`${product.name} is in your cart${after > 1 ? ` (${after})` : ""}.`, viewCart);
  else toast(before >= MOST_PER_LINE ? `${MOST_PER_LINE} is the most we sell in one order.` : "That is all we have on the shelf.", viewCart);
}
