// The choice of how to pay: one radio card per gateway that takes the currency.

import { h } from "/storefront/dom.js";
import { gatewayNote } from "/storefront/ports.js";

/** A radio group; `chosen` is picked at first, or the first gateway that is available. */
export function gatewayChoice(gateways, { chosen = null, onChoose = () => {} } = {}) {
  const pick = gateways.find((gateway) => gateway.name === chosen && gateway.available) ?? gateways.find((gateway) => gateway.available);
  return h("fieldset", { class: "gateways", "data-testid": "gateways" },
    h("legend", {}, "How would you like to pay?"),
    gateways.length === 0 && h("p", { class: "notice notice-warning" }, "No payment provider takes this currency right now."),
    gateways.map((gateway) => h("label", { class: `gateway${gateway.available ? "" : " gateway-off"}`, "data-testid": `gateway-${gateway.name}` },
      h("input", { type: "radio", name: "gateway", value: gateway.name, checked: gateway === pick, disabled: !gateway.available, required: true, onchange: () => onChoose(gateway.name) }),
      h("span", { class: "gateway-mark", "aria-hidden": "true", "data-hue": String(hue(gateway.name)) }, gateway.label.slice(0, 1).toUpperCase()),
      h("span", { class: "gateway-text" }, h("strong", {}, gateway.label), h("small", {}, gateway.available ? gatewayNote(gateway.name) : "Not reachable right now")))));
}

function hue(name) {
  return [...name].reduce((total, letter) => (total * 31 + letter.charCodeAt(0)) % 6, 0);
}

export function chosenGateway(container) {
  return container.querySelector('input[name="gateway"]:checked')?.value ?? null;
}
