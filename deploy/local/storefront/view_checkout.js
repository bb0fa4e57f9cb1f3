// Checkout: who is buying, where it goes, how it is paid. The server prices the order; this page only names products and quantities.

import { createOrder, followNextAction, listGateways, payOrder } from "/storefront/api.js";
import { fill, h, icon, problemNotice } from "/storefront/dom.js";
import { availableNames, chosenGateway, gatewayChoice } from "/storefront/gateways.js";
import { formatMoney } from "/storefront/money.js";
import { countries } from "/storefront/ports.js";
import { clearCart, rememberOrder } from "/storefront/store.js";
import { cartLines, cartTotal, emptyCart, summaryPanel } from "/storefront/view_cart.js";
import { handOver } from "/storefront/view_order.js";

const REFRESH_EVERY = 15000;

// Kept for as long as the page is open, and nowhere else: it is personal data.
const draft = {};

export async function showCheckout(main) {
  const title = () => h("h1", { tabindex: "-1" }, "Checkout");
  fill(main, title(), h("p", { class: "loading" }, "Setting the table…"));
  try {
    const contents = await cartLines();
    if (contents.lines.length === 0) {
      fill(main, title(), emptyCart());
      return undefined;
    }
    const gateways = await listGateways(contents.currency);
    const { form, offer } = checkoutForm(contents, gateways);
    fill(main, title(), h("div", { class: "columns" }, form, summaryPanel(contents)));
    return keepOffering(contents.currency, offer);
  } catch (error) {
    fill(main, title(), problemNotice(error), h("button", { class: "button", type: "button", onclick: () => showCheckout(main) }, "Try again"));
    return undefined;
  }
}

// A provider may go away or come back while somebody types an address.
function keepOffering(currency, offer) {
  const refresh = () => { if (!document.hidden) listGateways(currency).then(offer, () => {}); };
  const timer = window.setInterval(refresh, REFRESH_EVERY);
  document.addEventListener("visibilitychange", refresh);
  return () => { window.clearInterval(timer); document.removeEventListener("visibilitychange", refresh); };
}

function checkoutForm(contents, offeredAtFirst) {
  let gateways = offeredAtFirst;
  const total = formatMoney(cartTotal(contents));
  const problems = h("div", { class: "problems" });
  const pay = h("button", { type: "submit", class: "button button-primary button-wide button-pay", "data-testid": "pay", disabled: !gateways.some((gateway) => gateway.available) }, icon("lock"), `Pay ${total}`);
  const choice = h("div", {});
  const drawChoice = () => fill(choice, gatewayChoice(gateways, { chosen: draft.gateway, onChoose: (name) => { draft.gateway = name; } }));
  drawChoice();
  const form = h("form", { class: "checkout", noValidate: true },
    h("fieldset", { class: "panel" },
      h("legend", {}, "Your details"),
      field("name", "Name", { autocomplete: "name", required: true, maxlength: "120" }),
      field("email", "E-mail", { type: "email", autocomplete: "email", inputmode: "email", required: true, maxlength: "254" }, "The confirmation and the invoice go here."),
      field("phone", "Phone", { type: "tel", autocomplete: "tel", inputmode: "tel", maxlength: "32", pattern: "\\+?[0-9][0-9 \\(\\).\\-]{3,30}", title: "digits, spaces and a leading +" }, null, true)),
    addressPanel(),
    h("div", { class: "panel" },
      choice,
      problems,
      pay,
      h("p", { class: "fine centered" }, "You pay on the provider's own secure page and come back here. We never see your card.")));
  form.addEventListener("input", (event) => {
    draft[event.target.name] = event.target.value;
    if (event.target.getAttribute("aria-invalid") === "true") markField(event.target, event.target.validationMessage);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit({ form, pay, problems, contents, gateways });
  });
  // The choice must not be pulled from under the shopper's finger, so it is drawn anew only when it is another one.
  const offer = (news) => {
    const isAnother = availableNames(news) !== availableNames(gateways);
    if (!isAnother || pay.querySelector(".spinner")) return;
    draft.gateway = chosenGateway(form) ?? draft.gateway;
    gateways = news;
    drawChoice();
    pay.disabled = !gateways.some((gateway) => gateway.available);
  };
  return { form, offer };
}

function field(name, label, attributes, hint = null, optional = false) {
  const input = h("input", { id: `field-${name}`, name, "data-testid": name, type: "text", value: draft[name] ?? "", "aria-describedby": `hint-${name} error-${name}`, ...attributes });
  return h("div", { class: "field" },
    h("label", { for: input.id }, label, optional && h("span", { class: "optional" }, "optional")),
    input,
    hint && h("p", { class: "fine", id: `hint-${name}` }, hint),
    h("p", { class: "field-error", id: `error-${name}` }));
}

function addressPanel() {
  const select = h("select", { id: "field-country", name: "country", "data-testid": "country", autocomplete: "country", "aria-describedby": "error-country" },
    h("option", { value: "" }, "Choose a country"),
    countries().map(({ code, name }) => h("option", { value: code, selected: draft.country === code }, name)));
  return h("details", { class: "panel address", open: Boolean(draft.line1), "data-testid": "shipping-address" },
    h("summary", {}, "Shipping address", h("span", { class: "optional" }, "optional")),
    field("line1", "Address", { autocomplete: "address-line1", maxlength: "200" }),
    field("line2", "Flat, floor, building", { autocomplete: "address-line2", maxlength: "200" }, null, true),
    h("div", { class: "field-pair" },
      field("postal_code", "Postal code", { autocomplete: "postal-code", maxlength: "20" }, null, true),
      field("city", "City", { autocomplete: "address-level2", maxlength: "100" })),
    h("div", { class: "field-pair" },
      field("state", "State or region", { autocomplete: "address-level1", maxlength: "100" }, null, true),
      h("div", { class: "field" }, h("label", { for: "field-country" }, "Country"), select, h("p", { class: "field-error", id: "error-country" }))));
}

function valuesOf(form) {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value).trim()]));
}

// An address is wanted whole or not at all.
function requireWholeAddress(form, values) {
  const parts = ["line1", "line2", "postal_code", "city", "state", "country"];
  const begun = parts.some((name) => values[name]);
  for (const name of ["line1", "city", "country"]) form.elements[name].required = begun;
  if (begun) form.querySelector(".address").open = true;
}

function markField(input, message) {
  input.setAttribute("aria-invalid", String(Boolean(message)));
  const error = document.getElementById(`error-${input.name}`);
  if (error) error.textContent = message;
}

function checkFields(form) {
  const inputs = [...form.elements].filter((element) => element.name && element.type !== "radio" && element.willValidate);
  for (const input of inputs) markField(input, input.validationMessage);
  const wrong = inputs.find((input) => !input.checkValidity());
  wrong?.focus();
  return !wrong;
}

function orderBody(values, { currency, lines }) {
  const customer = { email: values.email, name: values.name };
  if (values.phone) customer.phone = values.phone;
  const body = { items: lines.map(({ product, quantity }) => ({ sku: product.sku, quantity })), currency, customer };
  if (values.line1) {
    body.shipping_address = {};
    for (const name of ["line1", "line2", "city", "postal_code", "state", "country"]) if (values[name]) body.shipping_address[name] = values[name];
  }
  return body;
}

// The server names fields by a pointer or a path; its last part is the name of our input.
function showFieldErrors(form, error) {
  for (const entry of error.errors) {
    const where = entry.pointer ?? entry.field ?? entry.path ?? entry.loc ?? "";
    const name = (Array.isArray(where) ? where : String(where).split(/[./]/)).at(-1);
    const input = form.elements.namedItem(String(name));
    if (input instanceof HTMLElement) markField(input, entry.detail ?? entry.message ?? entry.msg ?? "Please check this.");
  }
}

async function submit({ form, pay, problems, contents, gateways }) {
  const values = valuesOf(form);
  requireWholeAddress(form, values);
  problems.replaceChildren();
  if (!checkFields(form)) return;
  const gateway = chosenGateway(form);
  const label = [...pay.childNodes];
  pay.disabled = true;
  fill(pay, h("span", { class: "spinner" }), "One moment…");
  let order;
  try {
    order = await createOrder(orderBody(values, contents));
  } catch (error) {
    showFieldErrors(form, error);
    fill(problems, problemNotice(error, "checkout-error"));
    fill(pay, label);
    pay.disabled = false;
    return;
  }
  rememberOrder(order, order.client_secret);
  clearCart();
  await goAndPay(order, gateway, gateways.find((candidate) => candidate.name === gateway)?.label ?? gateway);
}

// From here on the order exists, so its own page is where "back" from the gateway, and any trouble, must land.
async function goAndPay(order, gateway, label) {
  history.replaceState(null, "", `#/orders/${order.id}`);
  try {
    const answer = await payOrder(order.id, order.client_secret, gateway);
    handOver(label);
    followNextAction(answer.next_action);
  } catch (error) {
    window.dispatchEvent(new CustomEvent("show-order", { detail: { id: order.id, error, gateway } }));
  }
}
