// Calls to the shop's API. Errors are problem+json and become `Problem`; a request that may be repeated keeps its Idempotency-Key.

import { labelOf } from "/storefront/gateways.js";

/** The offset between the server's clock and this browser's, so that countdowns do not lie on a wrong clock. */
let clockOffset = 0;

export function serverNow() {
  return Date.now() + clockOffset;
}

/** A failure with the server's own words, and whether trying the same thing again can help. */
export class Problem extends Error {
  constructor(message, { status = 0, code = "", errors = [], requestId = "", retryable = true } = {}) {
    super(message);
    Object.assign(this, { status, code, errors, requestId, retryable });
  }
}

const OFFLINE = "The shop could not be reached. Check your connection and try again; nothing is charged twice.";

async function problemFrom(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy may answer with something that is not JSON; the status alone has to do.
  }
  const fallback = response.status >= 500 ? "The shop is having trouble right now. Please try again in a moment." : `The request was refused (${response.status}).`;
  return new Problem(body.detail ?? body.title ?? fallback, {
    status: response.status, code: body.code ?? "", errors: body.errors ?? [], requestId: body.request_id ?? response.headers.get("x-request-id") ?? "",
    retryable: body.retryable ?? (response.status >= 500 || response.status === 429),
  });
}

async function request(path, { method = "GET", secret = null, key = null, body = null, accept = "application/json", signal = undefined } = {}) {
  const headers = { Accept: accept };
  if (secret) headers["X-Order-Secret"] = secret;
  if (key) headers["Idempotency-Key"] = key;
  if (body !== null) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === null ? undefined : JSON.stringify(body), signal, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(OFFLINE, { code: "unreachable" });
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isFinite(date) && Math.abs(date - Date.now()) > 5000) clockOffset = date - Date.now();
  if (!response.ok) throw await problemFrom(response);
  return response;
}

async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

function randomKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  // Only secure contexts have randomUUID; a phone that opens the demo over plain http on the local network does not.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Run a call that must happen once. The key lives until the server has given a definite answer, also over a reload,
 * so that a repeated click or a lost answer replays the first call instead of making a second one.
 */
async function once(purpose, body, call) {
  const slot = `seven-ports.key.${purpose}`;
  const fingerprint = JSON.stringify(body);
  const saved = JSON.parse(sessionStorage.getItem(slot) ?? "null");
  const key = saved?.fingerprint === fingerprint ? saved.key : randomKey();
  sessionStorage.setItem(slot, JSON.stringify({ key, fingerprint }));
  try {
    const answer = await call(key);
    sessionStorage.removeItem(slot);
    return answer;
  } catch (error) {
    const refused = error instanceof Problem && error.status >= 400 && error.status < 500 && !error.retryable && error.code !== "idempotency_key_in_flight";
    if (refused) sessionStorage.removeItem(slot);
    throw error;
  }
}

const orderPath = (id, rest = "") => `/api/v1/orders/${encodeURIComponent(id)}${rest}`;

export async function listProducts() {
  const products = [];
  let cursor = null;
  do {
    const page = await json(`/api/v1/products${cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""}`);
    products.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && products.length < 1000);
  return products;
}

/** Gateways that are switched on and take this currency. One whose circuit breaker is open is marked, and offered to nobody. */
export async function listGateways(currency) {
  const { data } = await json("/api/v1/gateways");
  return data
    .filter((gateway) => gateway.enabled !== false && (!gateway.currencies || gateway.currencies.includes(currency)))
    .map((gateway) => ({ ...gateway, label: labelOf(gateway.name, gateway.display_name), available: gateway.available !== false }));
}

export function createOrder(body) {
  return once("order", body, (key) => json("/api/v1/orders", { method: "POST", key, body }));
}

export function readOrder(id, secret, signal) {
  return json(orderPath(id), { secret, signal });
}

/** Wait on the server for a version newer than the one we have; answers with whatever it is after 25 seconds. */
export function waitForOrder(id, secret, version, signal) {
  return json(orderPath(id, `?wait=25&since_version=${version}`), { secret, signal });
}

export function payOrder(id, secret, gateway) {
  const back = `${location.origin}/?order=${encodeURIComponent(id)}#/orders/${encodeURIComponent(id)}`;
  const body = { gateway, success_url: back, failure_url: back, cancel_url: back, capture: "automatic" };
  return once(`pay.${id}`, body, (key) => json(orderPath(id, "/pay"), { method: "POST", secret, key, body }));
}

export function cancelOrder(id, secret) {
  return once(`cancel.${id}`, {}, (key) => json(orderPath(id, "/cancel"), { method: "POST", secret, key, body: {} }));
}

export async function streamTicket(id, secret, signal) {
  const { ticket } = await json(orderPath(id, "/stream-tickets"), { method: "POST", secret, signal });
  return ticket;
}

/** The invoice as a PDF blob, whose type we set ourselves so that the browser never reads it as a page. */
export async function fetchInvoice(id, secret) {
  const response = await request(orderPath(id, "/invoice"), { secret, accept: "application/pdf" });
  const name = /filename="?([\w.-]+)"?/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? `invoice-${id}.pdf`;
  return { blob: new Blob([await response.arrayBuffer()], { type: "application/pdf" }), name };
}

/** Send the browser to the gateway, by link or by posting the form it asked for. */
export function followNextAction(action) {
  const target = new URL(action.url, location.href);
  if (!["http:", "https:"].includes(target.protocol)) throw new Problem("The payment page has an address this shop does not open.", { retryable: false });
  if (action.type === "redirect") {
    location.assign(target.href);
    return;
  }
  if (action.type !== "form_post") throw new Problem("This way to pay is not supported by the shop yet. Please choose another.", { retryable: false });
  const form = document.createElement("form");
  form.method = "post";
  form.action = target.href;
  form.hidden = true;
  for (const [name, value] of Object.entries(action.fields ?? {})) {
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}
