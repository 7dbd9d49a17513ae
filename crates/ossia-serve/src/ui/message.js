// One message on the page. `update` brings it up to its node; while an answer streams it is called once per frame, so
// each part is made once and then only changed.

import { copyText, h, icon, iconButton } from "./dom.js";
import { CallView } from "./call.js";
import { chip } from "./files.js";
import { noticeFor } from "./notice.js";
import { MarkdownView } from "./render.js";

const LONG = 1600; // a user's message of more characters is folded

/** A view of a node; `actions`: edit(node, text), redo(node), branch(node, step), call(node), newChat, settings. */
export function messageView(node, actions) {
  return node.role === "user" ? new UserMessage(node, actions) : new AssistantMessage(node, actions);
}

class UserMessage {
  constructor(node, actions) {
    this.node = node;
    this.actions = actions;
    this.element = h("article", { class: "message user", "aria-label": "You" });
    this.#read();
  }

  update(branch) {
    this.branch = branch;
    this.bar?.replaceChildren(...this.#buttons());
  }

  #read() {
    const { node } = this;
    const files = (node.files ?? []).map((file) => chip(file));
    this.bar = h("div", { class: "actions" });
    const bubble = h("div", { class: "bubble" }, node.content);
    this.element.replaceChildren(
      ...(files.length ? [h("div", { class: "files" }, files)] : []),
      ...(node.content ? [bubble] : []),
      this.bar,
    );
    if (node.content.length > LONG) {
      bubble.classList.add("long");
      const all = () => {
        bubble.classList.remove("long");
        more.remove();
      };
      const more = h("button", { type: "button", class: "show-all", click: all }, "Show all of it");
      bubble.after(more);
    }
    if (this.branch) this.update(this.branch);
  }

  #buttons() {
    const { node, actions } = this;
    return [
      copyButton(() => node.content),
      iconButton("pencil", "Edit this message", () => this.edit()),
      branchSwitch(this.branch, (step) => actions.branch(node, step)),
    ].filter(Boolean);
  }

  /** Turns the message into a field; sending makes a new branch. */
  edit() {
    const field = h("textarea", { "aria-label": "Edit your message", rows: 3 });
    field.value = this.node.content;
    const send = () => {
      const text = field.value.trim();
      if (text || this.node.files?.length) this.actions.edit(this.node, text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#read();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
      event.stopPropagation();
    });
    const buttons = h("div", { class: "row" }, h("span", { class: "hint" }, "What was here stays as another branch."),
      h("button", { type: "button", class: "button", click: () => this.#read() }, "Cancel"),
      h("button", { type: "button", class: "button main", click: send }, "Send"));
    this.bar = null;
    this.element.replaceChildren(h("div", { class: "editor" }, field, buttons));
    field.focus();
  }
}

class AssistantMessage {
  constructor(node, actions) {
    this.node = node;
    this.actions = actions;
    this.calls = [];
    const thought = h("div", { class: "prose" });
    this.thought = new MarkdownView(thought);
    this.summary = h("span");
    this.thinking = h("details", { class: "thinking", hidden: true, toggle: () => this.#think() },
      h("summary", null, icon("right"), this.summary), thought);
    this.prose = h("div", { class: "prose" });
    this.text = new MarkdownView(this.prose);
    this.waiting = h("div", { class: "waiting", "aria-label": "Waiting for the first word" }, h("i"), h("i"), h("i"));
    this.cards = h("div");
    this.notice = h("div");
    this.bar = h("div", { class: "actions" });
    this.element = h("article", { class: "message assistant", "aria-label": "Answer" },
      this.thinking, this.prose, this.waiting, this.cards, this.notice, this.bar);
  }

  /** `context`: the model's context in tokens or null, for the meter. */
  update(branch, context) {
    const { node } = this;
    const streaming = node.state === "streaming";
    const calls = node.calls.filter(Boolean);
    this.waiting.hidden = !streaming || Boolean(node.content || node.thinking || calls.length);
    this.#think();
    this.prose.hidden = !node.content;
    this.text.update(node.content);
    calls.forEach((call, i) => {
      this.calls[i] ??= new CallView(this.cards, call, () => this.actions.call(node));
      this.calls[i].update(streaming);
    });
    this.element.setAttribute("aria-busy", String(streaming));
    if (streaming) return;
    this.notice.replaceChildren(...noticeFor(node, this.actions, context));
    const goesOn = calls.length > 0 && calls.every((call) => call.result !== null);
    this.bar.replaceChildren(...this.#buttons(branch), ...(goesOn ? [] : statsLine(node.stats, context)));
  }

  #think() {
    const { node } = this;
    this.thinking.hidden = !node.thinking;
    if (!node.thinking) return;
    const now = node.state === "streaming" && !node.content && !node.calls.length;
    this.thinking.classList.toggle("now", now);
    this.summary.textContent = now ? "Thinking…" : `Thought for ${seconds(node.thinkMs)}`;
    if (this.thinking.open) this.thought.update(node.thinking);
  }

  #buttons(branch) {
    const { node, actions } = this;
    return [
      node.content ? copyButton(() => node.content) : null,
      node.state === "failed" ? null : iconButton("redo", "Answer again", () => actions.redo(node)),
      branchSwitch(branch, (step) => actions.branch(node, step)),
    ].filter(Boolean);
  }
}

function copyButton(text) {
  const button = iconButton("copy", "Copy", async () => {
    await copyText(text());
    confirm(button);
  });
  return button;
}

/** Shows for a moment that a copy was made. */
export function confirm(button) {
  const old = button.querySelector(".icon");
  button.classList.add("done");
  old.replaceWith(icon("check"));
  setTimeout(() => {
    button.classList.remove("done");
    button.querySelector(".icon")?.replaceWith(old);
  }, 1500);
}

function branchSwitch({ index, count }, go) {
  if (count < 2) return null;
  return h("span", { class: "branches", role: "group", "aria-label": `Version ${index + 1} of ${count}` },
    iconButton("left", "Version before", () => go(-1), { disabled: index === 0 }),
    `${index + 1}/${count}`,
    iconButton("right", "Version after", () => go(1), { disabled: index === count - 1 }));
}

/** 3.2 s, 75 s -> 1 min 15 s. */
export function seconds(ms) {
  if (ms < 95) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.round(ms / 1000);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Tokens a second: with tenths where they matter. */
export function rate(perSecond) {
  return perSecond < 9.95 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString("en");
}

function statsLine(stats, context) {
  if (!stats) return [];
  const number = (value) => Math.round(value).toLocaleString("en");
  const used = stats.promptTokens + stats.tokens;
  const parts = [];
  if (stats.perSecond) parts.push(h("span", { title: "Tokens a second" }, `${rate(stats.perSecond)} tok/s`));
  if (stats.ttftMs !== null) parts.push(h("span", { title: "Time to the first token" }, `first token ${short(stats.ttftMs)}`));
  const cached = stats.cachedTokens ? `, ${number(stats.cachedTokens)} of the prompt were still cached` : "";
  const thought = stats.reasoningTokens ? `, ${number(stats.reasoningTokens)} of them thinking` : "";
  parts.push(h("span", { title: `${number(stats.promptTokens)} tokens read${cached}; ${number(stats.tokens)} written${thought}` },
    `${number(stats.tokens)} tokens`));
  if (context) parts.push(contextMeter(used, context, number));
  return [h("span", { class: "stats" }, parts)];
}

function contextMeter(used, context, number) {
  const share = Math.min(1, used / context);
  const bar = h("i");
  bar.style.width = `${Math.max(3, share * 100)}%`;
  return h("span", { title: `${number(used)} of ${number(context)} tokens of context used` },
    h("span", { class: share > 0.85 ? "meter tight" : "meter", "aria-hidden": "true" }, bar),
    `${number(used)} of ${number(context)} context`);
}

function short(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
