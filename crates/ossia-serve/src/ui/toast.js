// Short words at the bottom of the page, and words for screen readers only.

import { h } from "./dom.js";

/** Says `text` for some seconds; with `action` ({ label, run }) it has a button and stays longer. */
export function toast(text, action) {
  const place = document.getElementById("toasts");
  const close = () => element.remove();
  const run = () => {
    close();
    action.run();
  };
  const element = h("div", { class: "toast" }, h("span", null, text));
  if (action) element.append(h("button", { type: "button", click: run }, action.label));
  place.replaceChildren(element);
  setTimeout(close, action ? 9000 : 3500);
}

/** Says `text` to screen readers. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
