// The choice of how to pay: one radio card per gateway that takes the currency.

import { h } from "/storefront/dom.js";

export function labelOf(name, displayName = null) {
  const label = displayName ?? name ?? "";
  return label.slice(0, 1).toUpperCase() + label.slice(1);
}

/** Those that can be reached, in words that change exactly when the choice does. */
export function availableNames(gateways) {
  return gateways.filter((gateway) => gateway.available).map((gateway) => gateway.name).join(" ");
}

/** A radio group of those that can be reached; `chosen` is picked at first, or the first of them. */
export function gatewayChoice(gateways, { chosen = null, onChoose = () => {} } = {}) {
  const offered = gateways.filter((gateway) => gateway.available);
  const pick = offered.find((gateway) => gateway.name === chosen) ?? offered[0];
  return h("fieldset", { class: "gateways", "data-testid": "gateways" },
    h("legend", {}, "How would you like to pay?"),
    gateways.length === 0 && h("p", { class: "notice notice-warning" }, "No payment provider takes this currency right now."),
    gateways.length > 0 && offered.length === 0 && h("p", { class: "notice notice-warning", "data-testid": "no-gateway" }, "No payment provider can be reached right now. We keep trying; this page shows them when they are back."),
    offered.map((gateway) => h("label", { class: "gateway", "data-testid": `gateway-${gateway.name}` },
      h("input", { type: "radio", name: "gateway", value: gateway.name, checked: gateway === pick, required: true, onchange: () => onChoose(gateway.name) }),
      h("span", { class: "gateway-mark", "aria-hidden": "true", "data-hue": String(hue(gateway.name)) }, gateway.label.slice(0, 1).toUpperCase()),
      h("span", { class: "gateway-text" }, h("strong", {}, gateway.label), h("small", {}, gateway.blurb)))));
}

function hue(name) {
  return [...name].reduce((total, letter) => (total * 31 + letter.charCodeAt(0)) % 6, 0);
}

export function chosenGateway(container) {
  return container.querySelector('input[name="gateway"]:checked')?.value ?? null;
}
