// Small helpers to build the page. Text always becomes a text node, so nothing a server or a gateway says is ever read as markup.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** Build an element: `h("p", {class: "note", onclick: fn}, "text", child)`. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Replace everything inside an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

const ICONS = {
  check: "M5 12.5l4.5 4.5L19 7.5",
  clock: "M12 7v5l3.5 2M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18",
  cross: "M6.5 6.5l11 11M17.5 6.500l-11 11",
  alert: "M12 8v5M12 16.5v.2M12 3.5L2.5 20h19z",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  arrow: "M5 12h14M13 6l6 6-6 6",
  back: "M19 12H5M11 6l-6 6 6 6",
  file: "M7 3h7l4 4v14H7zM14 3v4h4M10 12h5M10 16h5",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  live: "M12 10.5a1.5 1.5 0 1 0 0 3a1.5 1.5 0 1 0 0-3M8 8a5.6 5.6 0 0 0 0 8M16 8a5.6 5.6 0 0 1 0 8",
};

/** A line icon in the colour of the text around it. */
export function icon(name, className = "icon") {
  const svg = document.createElementNS(SVG_NAMESPACE, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG_NAMESPACE, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A product's picture; anything that is not on our own origin, or fails to load, becomes a parcel. */
export function picture(url, alt, className = "picture") {
  const fallback = "/storefront/assets/placeholder.svg";
  const source = typeof url === "string" && url.startsWith("/") && !url.startsWith("//") ? url : fallback;
  const image = h("img", { class: className, src: source, alt, width: "400", height: "320", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => { if (!image.src.endsWith(fallback)) image.src = fallback; }, { once: true });
  return image;
}

/** A short message that screen readers hear too. */
export function toast(message, action = null) {
  const region = document.getElementById("toasts");
  const item = h("div", { class: "toast" }, h("span", {}, message), action);
  region.replaceChildren(item);
  window.setTimeout(() => item.remove(), 4500);
}

// The server's words about a gateway are for the people who run the shop; a shopper needs to know what to do.
const IN_SHOP_WORDS = {
  gateway_unavailable: "The payment provider cannot be reached right now. Your goods stay set aside: try again in a moment, or pay another way.",
  gateway_outcome_unknown: "The payment provider did not answer clearly. Your goods stay set aside: try again in a moment, or pay another way. Nothing is charged twice.",
  gateway_rejected: "The payment provider did not accept this order. Please choose another way to pay.",
};

/** What went wrong, in the shop's words or the server's `detail`, near the action that caused it. */
export function problemNotice(error, testid = "error") {
  const details = (error.errors ?? []).map((entry) => entry.detail ?? entry.message ?? entry.msg).filter(Boolean);
  return h("div", { class: "notice notice-error", role: "alert", "data-testid": testid, "data-code": error.code ?? "" },
    icon("alert"),
    h("div", {},
      h("p", {}, IN_SHOP_WORDS[error.code] ?? error.message),
      details.length > 0 && h("ul", {}, details.map((text) => h("li", {}, text))),
      error.requestId && h("p", { class: "fine" }, `Reference for support: ${error.requestId}`)));
}

/** Ask a question in a modal; resolves to the chosen value, or null when dismissed. */
export function ask({ title, paragraphs, choices, testid }) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "dialog", "data-testid": testid, "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title" }, title),
      paragraphs.map((text) => h("p", {}, text)),
      h("div", { class: "dialog-actions" }, choices.map((choice) =>
        h("button", { type: "button", class: `button ${choice.style ?? ""}`, "data-testid": choice.testid, onclick: () => dialog.close(choice.value) }, choice.label))));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue || null); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
