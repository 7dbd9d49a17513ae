// A tool call as a card: the name, the arguments set out, and the result. The page runs no tool: whoever reads it
// does, and writes the result in, or declines. Then the model goes on.

import { h, icon } from "./dom.js";
import { highlight } from "./highlight.js";

const DECLINED = "The user declined this call.";

export class CallView {
  /** `answered` is called when the call has got its result. */
  constructor(parent, call, answered) {
    this.call = call;
    this.answered = answered;
    this.name = h("code");
    this.state = h("small");
    this.args = h("pre", { tabindex: "0", "aria-label": "Arguments" });
    this.below = h("div");
    this.drawn = null;
    const element = h("section", { class: "call", "aria-label": "Tool call" },
      h("header", null, icon("tool"), this.name, this.state), this.args, this.below);
    parent.append(element);
  }

  update(streaming) {
    const { call } = this;
    const known = call.result !== null;
    const state = streaming && !known ? "is being written" : known ? (call.result === DECLINED ? "declined" : "answered") : "waits for a result";
    this.name.textContent = call.name || "…";
    this.state.textContent = state;
    const drawn = `${state} ${call.arguments}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.args.replaceChildren(...pretty(call.arguments));
    if (known) this.below.replaceChildren(h("div", { class: "label" }, "Result"), h("pre", { tabindex: "0" }, ...pretty(call.result)));
    else this.below.replaceChildren(...(streaming ? [] : [this.#form()]));
  }

  #form() {
    const field = h("textarea", { rows: 2, placeholder: "What the tool returns, as text or JSON" });
    const give = (result) => {
      this.call.result = result;
      this.update(false);
      this.answered();
    };
    const form = h("form", null,
      h("label", null, "Run it yourself and put in the result. Nothing is run by this page.", field),
      h("div", { class: "row" },
        h("button", { type: "button", class: "button", click: () => give(DECLINED) }, "Decline"),
        h("button", { type: "submit", class: "button main" }, "Send result")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      give(field.value);
    });
    return form;
  }
}

/** JSON set out over lines and coloured; anything else as it is. */
function pretty(text) {
  try {
    const set = JSON.stringify(JSON.parse(text), null, 2);
    return highlight(set, "json").map(({ c, s }) => (c ? h("span", { class: `hl-${c}` }, s) : s));
  } catch {
    return [text];
  }
}
