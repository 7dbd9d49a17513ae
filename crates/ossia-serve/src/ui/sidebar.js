// The list of conversations: search, open, rename in place, delete. Shows what it is given; the app does the work.

import { h, icon, iconButton } from "./dom.js";

const DAY = 24 * 3600 * 1000;

export class Sidebar {
  /** `actions`: newChat, search(text) -> Promise<Set of ids>, rename(id, title), remove(id), chosen, close, settings, help, theme. */
  constructor(root, actions) {
    this.actions = actions;
    this.heads = [];
    this.found = null;
    this.search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search conversations", input: () => this.#seek() });
    this.list = h("ul", { class: "chats" });
    this.foot = h("span", { class: "grow" });
    this.theme = iconButton("moon", "Dark or light", actions.theme);
    const mark = h("span", { class: "wordmark" }, "Ossia");
    root.append(
      h("div", { class: "brand" }, mark,
        iconButton("compose", "New chat (Ctrl+Shift+O)", actions.newChat), iconButton("sidebar", "Hide the list", actions.close)),
      h("div", { class: "search" }, icon("search"), this.search),
      h("nav", { class: "chats-nav", "aria-label": "Chats" }, this.list),
      h("div", { class: "side-foot" }, this.foot, iconButton("help", "Keyboard shortcuts (?)", actions.help),
        this.theme, iconButton("gear", "Settings", actions.settings)),
    );
  }

  /** Draws the list. `running` holds the ids of chats that are being answered. */
  show(heads, current, running) {
    Object.assign(this, { heads, current, running });
    if (this.list.querySelector("input")) return; // a name is being written
    const shown = this.found ? heads.filter((head) => this.found.has(head.id)) : heads;
    const rows = [];
    let group = null;
    for (const head of shown) {
      const name = when(head.updated);
      if (name !== group) rows.push(h("li", { class: "when" }, name));
      group = name;
      rows.push(this.#row(head));
    }
    if (!rows.length) rows.push(h("li", { class: "none" }, this.found ? "Nothing found." : "Your chats will be here."));
    this.list.replaceChildren(...rows);
  }

  focusSearch() {
    this.search.focus();
    this.search.select();
  }

  #row(head) {
    const current = head.id === this.current;
    const link = h("a", { href: `#c=${head.id}`, "aria-current": current ? "page" : null, title: head.title, click: this.actions.chosen }, head.title);
    const row = h(
      "li",
      { class: `chat${current ? " current" : ""}${this.running.has(head.id) ? " running" : ""}` },
      link,
      iconButton("pencil", `Rename “${head.title}”`, () => this.#rename(row, head)),
      iconButton("trash", `Delete “${head.title}”`, () => this.actions.remove(head.id)),
    );
    return row;
  }

  #rename(row, head) {
    const field = h("input", { "aria-label": "New name", maxlength: 200 });
    field.value = head.title;
    let open = true; // taking the field away makes it lose the focus: once is enough
    const done = (keep) => {
      if (!open) return;
      open = false;
      field.remove();
      const title = field.value.trim();
      if (keep && title && title !== head.title) this.actions.rename(head.id, title);
      else this.show(this.heads, this.current, this.running);
    };
    field.addEventListener("blur", () => done(true));
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") done(true);
      if (event.key === "Escape") done(false);
    });
    row.replaceChildren(field);
    field.select();
  }

  async #seek() {
    const text = this.search.value.trim();
    const found = text ? await this.actions.search(text) : null;
    if (this.search.value.trim() !== text) return; // more was typed meanwhile
    this.found = found;
    this.show(this.heads, this.current, this.running);
  }
}

function when(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY) return "Yesterday";
  if (time >= midnight - 7 * DAY) return "Last seven days";
  return new Date(time).toLocaleDateString(undefined, { month: "long", year: "numeric" });
}
