// The demo mailbox: what the shop has sent, newest first, refreshed while the page is in view.

import { fill, h, icon, problemNotice } from "/storefront/dom.js";

const REFRESH_EVERY = 3000;
const list = document.getElementById("mail-list");
const reader = document.getElementById("mail-reader");
let messages = [];
let openId = null;
let shown = "";

async function refresh() {
  try {
    const response = await fetch("/mailbox/messages", { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!response.ok) throw new Error(`The mailbox answered ${response.status}.`);
    messages = (await response.json()).data;
  } catch (error) {
    fill(list, problemNotice({ message: error instanceof TypeError ? "The mailbox could not be reached." : error.message }));
    shown = "";
    return;
  }
  const fingerprint = messages.map((message) => message.message_id).join();
  if (fingerprint !== shown || !list.firstChild) {
    shown = fingerprint;
    draw();
  }
}

function draw() {
  if (messages.length === 0) {
    fill(list, h("li", { class: "empty panel" }, h("p", {}, "No mail yet. Buy something, and the confirmation arrives here.")));
    reader.hidden = true;
    return;
  }
  const current = messages.find((message) => message.message_id === openId) ?? messages[0];
  openId = current.message_id;
  fill(list, messages.map((message) => h("li", {}, h("button", {
    type: "button", class: "mail-item", "data-testid": "mail-item", "aria-current": String(message.message_id === openId), onclick: () => { openId = message.message_id; draw(); reader.scrollIntoView({ block: "nearest" }); },
  }, h("strong", {}, message.subject), h("span", { class: "fine" }, `${message.recipient} · ${when(message.sent_at)}`)))));
  reader.hidden = false;
  fill(reader,
    h("div", { class: "mail-head" }, h("h2", { "data-testid": "mail-subject" }, current.subject), h("p", { class: "fine" }, `From ${current.sender} to ${current.recipient} · ${when(current.sent_at)}`)),
    h("div", { class: "mail-text", "data-testid": "mail-text" }, linked(current.text_body)),
    current.attachment_names.length > 0 && h("ul", { class: "mail-attachments", "data-testid": "mail-attachments", "aria-label": "Attachments" }, current.attachment_names.map((name) => h("li", {}, icon("file"), name))));
}

function when(iso) {
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" }).format(new Date(iso));
}

// Addresses on this shop become links; anything else stays text.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]+)/).map((part) => {
    if (!/^https?:\/\//.test(part)) return part;
    try {
      return new URL(part).origin === location.origin ? h("a", { href: part }, part) : part;
    } catch {
      return part;
    }
  });
}

refresh();
window.setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_EVERY);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
