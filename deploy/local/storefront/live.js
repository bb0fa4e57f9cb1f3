// Live order updates: server-sent events while they work, long-polling while they do not.

import { Problem, streamTicket, waitForOrder } from "/storefront/api.js";

const FAILURES_BEFORE_POLLING = 3;
const POLLS_BEFORE_STREAM_AGAIN = 4;
const LONGEST_PAUSE = 6000;
const LASTING = 5000;

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { window.clearTimeout(timer); resolve(); }, { once: true });
  });
}

// Half fixed, half random, so that many browsers do not come back in step after a restart.
function backoff(failures) {
  const ceiling = Math.min(LONGEST_PAUSE, 500 * 2 ** failures);
  return ceiling / 2 + Math.random() * (ceiling / 2);
}

/**
 * Follow one order until `stop()` is called. `onOrder` gets each document, `onMode` one of
 * "connecting", "stream", "poll" and "lost"; `version` says which version the page shows now.
 */
export function followOrder({ id, secret, version, onOrder, onMode }) {
  const controller = new AbortController();
  const follower = { id, secret, version, onOrder, onMode, signal: controller.signal, lastEventId: "" };
  run(follower).catch((error) => { if (!controller.signal.aborted) onMode(error.status === 404 ? "lost" : "connecting"); });
  return { stop: () => controller.abort() };
}

// Two different troubles: a server that does not answer is tried again until it does; one that answers but whose streams do not last
// (a proxy that keeps them back, say) is asked by long-polling for a while.
async function run(follower) {
  const { signal } = follower;
  let unanswered = 0;
  let brokenStreams = 0;
  follower.onMode("connecting");
  while (!signal.aborted) {
    try {
      const lasted = await streamOnce(follower);
      unanswered = 0;
      brokenStreams = lasted ? 0 : brokenStreams + 1;
      if (brokenStreams >= FAILURES_BEFORE_POLLING && !signal.aborted) {
        await poll(follower);
        brokenStreams = FAILURES_BEFORE_POLLING - 1;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 404) throw error;
      unanswered += 1;
    }
    follower.onMode("connecting");
    await pause(backoff(unanswered + brokenStreams), signal);
  }
}

// A ticket opens one connection, so the browser's own reconnecting would be refused: close on the first error and come back with a new ticket.
async function streamOnce(follower) {
  const { id, secret, signal } = follower;
  const ticket = await streamTicket(id, secret, signal);
  if (signal.aborted) return false;
  const query = new URLSearchParams({ ticket });
  if (follower.lastEventId) query.set("last_event_id", follower.lastEventId);
  return new Promise((resolve) => {
    const source = new EventSource(`/api/v1/orders/${encodeURIComponent(id)}/stream?${query}`);
    let opened = Infinity;
    const finish = () => { source.close(); resolve(performance.now() - opened >= LASTING); };
    const receive = (event) => {
      if (event.lastEventId) follower.lastEventId = event.lastEventId;
      deliver(follower, event.data);
    };
    source.onopen = () => { opened = performance.now(); follower.onMode("stream"); };
    source.onerror = finish;
    source.addEventListener("order", receive);
    signal.addEventListener("abort", finish, { once: true });
  });
}

function deliver(follower, text) {
  const order = JSON.parse(text);
  if (order.id === follower.id) follower.onOrder(order);
}

async function poll(follower) {
  const { id, secret, signal } = follower;
  for (let round = 0; round < POLLS_BEFORE_STREAM_AGAIN && !signal.aborted; round += 1) {
    const started = performance.now();
    const order = await waitForOrder(id, secret, follower.version(), signal);
    follower.onMode("poll");
    follower.onOrder(order);
    // A server that does not hold the request open must not be asked in a tight loop.
    if (performance.now() - started < 1000) await pause(2000, signal);
  }
}
