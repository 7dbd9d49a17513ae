// What is said under an answer that did not end as it should: kindly, with what can be done about it.

import { h, icon } from "./dom.js";

/** Elements for the node's notice; none if all is well. `context`: the model's, in tokens, or null. */
export function noticeFor(node, actions, context) {
  const redo = { label: "Try again", run: () => actions.redo(node) };
  if (node.state === "stopped") return node.content || node.thinking ? [quiet("Stopped.")] : [notice("Stopped before the first word.", redo)];
  if (node.state === "failed") return [failed(node, redo, actions)];
  if (node.finish === "length") {
    const full = context && node.stats && node.stats.promptTokens + node.stats.tokens >= context;
    if (full) return [notice(`The answer stopped: the context of ${context} tokens is full.`, { label: "New chat", run: actions.newChat })];
    return [notice("The answer stopped at its limit of new tokens.", { label: "Change the limit", run: actions.chatSettings })];
  }
  const empty = !node.content && !node.calls.some(Boolean);
  return empty ? [notice("The model ended without an answer.", redo)] : [];
}

function failed(node, redo, actions) {
  const { kind, message, until } = node.error;
  switch (kind) {
    case "gone":
      return notice("The server does not answer. What you wrote is kept.", redo, true);
    case "broken":
      return notice(`${message} What had come is kept.`, redo, true);
    case "key":
      return notice("This server asks for a valid key.", { label: "Enter the key", run: actions.settings }, true);
    case "full":
      return notice(message, { label: "New chat", run: actions.newChat }, true);
    case "busy":
      return countdown(message, until, node, redo);
    default:
      return notice(message, redo, true);
  }
}

/** Waits until the server wants to be asked again, then asks by itself. */
function countdown(message, until, node, redo) {
  const text = h("p");
  let waits = until - Date.now() > -2000; // a page opened later starts nothing by itself
  const leave = button({ label: "Leave it", run: () => ((waits = false), tick()) });
  const element = h("div", { class: "notice" }, icon("alert"), text, leave, button(redo));
  function tick() {
    const left = Math.ceil((until - Date.now()) / 1000);
    leave.hidden = !waits;
    text.textContent = waits ? `The server is busy. Trying again in ${Math.max(left, 0)} s.` : `The server was busy. ${message}`;
    if (!waits) return;
    if (left > 0) setTimeout(tick, 250);
    else if (element.isConnected) redo.run();
  }
  tick();
  return element;
}

function notice(text, action, wrong) {
  return h("div", { class: wrong ? "notice wrong" : "notice" }, icon("alert"), h("p", null, text), button(action));
}

function quiet(text) {
  return h("div", { class: "notice plain" }, h("p", null, text));
}

function button({ label, run }) {
  return h("button", { type: "button", class: "button", click: run }, label);
}
