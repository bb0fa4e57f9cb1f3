// What this browser remembers: the cart, and its own orders with the secret of each. Secrets stay here and travel in a header only.

const CART = "seven-ports.cart";
const ORDERS = "seven-ports.orders";
const MOST_ORDERS = 50;
export const MOST_PER_LINE = 20;

function load(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

function save(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Private windows may refuse storage; the page still works until it is closed.
  }
}

export function cart() {
  const stored = load(CART, null);
  return Array.isArray(stored?.items) ? stored : { currency: null, items: [] };
}

function saveCart(next) {
  save(CART, next.items.length === 0 ? { currency: null, items: [] } : next);
  window.dispatchEvent(new Event("cart-changed"));
}

export function cartCount() {
  return cart().items.reduce((count, item) => count + item.quantity, 0);
}

export function clearCart() {
  saveCart({ currency: null, items: [] });
}

/** Set how many of a product are in the cart; zero takes it out. The caller has made sure that the currency fits. */
export function setQuantity(product, quantity) {
  const current = cart();
  const bounded = Math.max(0, Math.min(quantity, MOST_PER_LINE, product.available_stock));
  const rest = current.items.filter((item) => item.sku !== product.sku);
  const position = current.items.findIndex((item) => item.sku === product.sku);
  if (bounded > 0) rest.splice(position < 0 ? rest.length : position, 0, { sku: product.sku, quantity: bounded });
  saveCart({ currency: product.price.currency, items: rest });
}

export function quantityOf(sku) {
  return cart().items.find((item) => item.sku === sku)?.quantity ?? 0;
}

/** Drop what the catalogue no longer sells in the cart's currency; says how many lines went. */
export function reconcileCart(products) {
  const current = cart();
  const bySku = new Map(products.map((product) => [product.sku, product]));
  const kept = current.items
    .filter((item) => bySku.get(item.sku)?.price.currency === current.currency && bySku.get(item.sku).available_stock > 0)
    .map((item) => ({ sku: item.sku, quantity: Math.min(item.quantity, bySku.get(item.sku).available_stock) }));
  if (JSON.stringify(kept) !== JSON.stringify(current.items)) saveCart({ currency: current.currency, items: kept });
  return current.items.length - kept.length;
}

export function orders() {
  const stored = load(ORDERS, []);
  return Array.isArray(stored) ? stored : [];
}

export function knownOrder(id) {
  return orders().find((entry) => entry.id === id) ?? null;
}

/** Remember an order this browser made, with the secret the server shows only once. */
export function rememberOrder(order, secret) {
  const entry = { id: order.id, client_secret: secret, ...snapshot(order) };
  save(ORDERS, [entry, ...orders().filter((known) => known.id !== order.id)].slice(0, MOST_ORDERS));
}

export function updateOrder(order) {
  save(ORDERS, orders().map((known) => (known.id === order.id ? { ...known, ...snapshot(order) } : known)));
}

export function forgetOrders() {
  save(ORDERS, []);
}

// Only what the history list shows is kept: no name, no e-mail, no address.
function snapshot(order) {
  return {
    created_at: order.created_at, status: order.status, payment_status: order.payment_status, total: order.total,
    items: (order.items ?? []).map(({ sku, name, quantity }) => ({ sku, name, quantity })),
  };
}
