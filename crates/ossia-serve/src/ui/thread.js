// The conversation on the page: its messages in order, drawn once each, and the scrolling. While an answer streams
// the end stays in sight, unless the reader has scrolled up; then nothing moves, and a button leads back to the end.

import { copyText, h, icon } from "./dom.js";
import { confirm, messageView } from "./message.js";
import { branchOf, pathOf } from "./tree.js";

const NEAR = 60; // so many pixels from the end still count as the end

const EXAMPLES = [
  ["Explain something", "Why is the sky blue, and sunsets red?"],
  ["Write some code", "Write a Python function that merges overlapping intervals, with tests."],
  ["Compare", "Compare SQLite and PostgreSQL in a table: setup, concurrency, backup."],
  ["Do the mathematics", "Derive the closed form of the sum of the first n squares."],
];

export class Thread {
  /** `actions`: see messageView, and example(text). */
  constructor(scroller, element, actions) {
    Object.assign(this, { scroller, element, actions });
    this.views = new Map();
    this.follow = true;
    this.waiting = false;
    this.pause = 0;
    this.toEnd = h("button", { type: "button", class: "to-end", hidden: true, "aria-label": "To the end", title: "To the end", click: () => this.end() }, icon("down"));
    document.getElementById("below").prepend(this.toEnd);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // The reader's own movement lets go at once, even while text comes in.
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#letGo(), { passive: true });
    scroller.addEventListener("touchmove", () => this.#letGo(), { passive: true });
    element.addEventListener("click", (event) => copyCode(event.target.closest(".copy-code")));
    new ResizeObserver(() => this.follow && this.#jump()).observe(element);
    new ResizeObserver(() => this.follow && this.#jump()).observe(scroller);
  }

  /** Shows a conversation (null: the empty page). */
  show(conversation, context) {
    const path = conversation ? pathOf(conversation) : [];
    const other = conversation?.id !== this.conversation?.id;
    Object.assign(this, { conversation, context });
    if (other) this.views.clear();
    const wanted = path.map((node) => this.#view(node));
    for (const id of this.views.keys()) if (!path.some((node) => node.id === id)) this.views.delete(id);
    const elements = path.length ? wanted.map((view) => view.element) : [welcome(this.actions)];
    if (elements.length !== this.element.children.length || elements.some((e, i) => e !== this.element.children[i])) {
      this.element.replaceChildren(...elements);
    }
    path.forEach((node) => this.#update(node));
    if (other) this.end();
  }

  /** A node changed: draws it with the next frame, or later if drawing is slow (a long piece of code): a quarter of the
      time at most is spent on it, so that the page stays quick. */
  changed(node) {
    if (this.waiting || !this.views.has(node.id)) return;
    this.waiting = true;
    const draw = () => {
      this.waiting = false;
      const start = performance.now();
      this.#update(node);
      this.pause = Math.min(2000, 3 * (performance.now() - start));
    };
    setTimeout(() => requestAnimationFrame(draw), this.pause > 24 ? this.pause : 0);
  }

  /** Goes to the end and stays there. */
  end() {
    this.follow = true;
    this.toEnd.hidden = true;
    this.#jump();
  }

  /** Opens the last message of the user for editing. */
  editLast() {
    const last = pathOf(this.conversation).findLast((node) => node.role === "user");
    if (last) this.views.get(last.id).edit();
  }

  #view(node) {
    let view = this.views.get(node.id);
    if (!view || view.node !== node) this.views.set(node.id, (view = messageView(node, this.actions)));
    return view;
  }

  #update(node) {
    if (!this.conversation?.nodes[node.id]) return;
    this.views.get(node.id)?.update(branchOf(this.conversation, node.id), this.context);
  }

  #jump() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #letGo() {
    if (this.scroller.scrollHeight > this.scroller.clientHeight + NEAR) this.follow = false;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) this.follow = true;
    else if (scrollTop < (this.before ?? 0)) this.follow = false; // by keys or the bar
    this.before = scrollTop;
    this.toEnd.hidden = near || this.follow;
  }
}

async function copyCode(button) {
  if (!button) return;
  await copyText(button.closest("figure").querySelector("code").textContent);
  confirm(button);
}

function welcome({ example }) {
  const examples = EXAMPLES.map(([name, text]) =>
    h("li", null, h("button", { type: "button", click: () => example(text) }, h("b", null, name), h("small", null, text))));
  return h("section", { class: "welcome" }, h("h1", null, "What would you like to think about?"),
    h("p", null, "The model runs on your own server. Nothing you write goes anywhere else."), h("ul", null, examples));
}
