// The dialogs: settings of the page, settings of one chat, keyboard shortcuts. Each is built when it opens and gone
// when it closes; the browser's own <dialog> keeps the focus inside and closes on Escape.

import { effortSwitch } from "./composer.js";
import { h, iconButton } from "./dom.js";
import { readTools } from "./generation.js";
import { change, setting } from "./settings.js";

function open(title, ...body) {
  document.querySelector("dialog")?.close();
  const dialog = h("dialog", { "aria-label": title, close: () => dialog.remove() },
    h("header", null, h("h2", null, title), iconButton("close", "Close", () => dialog.close())), h("div", { class: "body" }, body));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function field(name, control, hint) {
  return h("label", { class: "field" }, h("span", { class: "name" }, name), control, hint ? h("span", { class: "hint" }, hint) : null);
}

function group(name, control, hint) {
  return h("div", { class: "field", role: "group", "aria-label": name }, h("span", { class: "name" }, name), control,
    hint ? h("span", { class: "hint" }, hint) : null);
}

function button(label, run, look = "") {
  return h("button", { type: "button", class: `button ${look}`, click: run }, label);
}

/** Settings of the page. `why` is said above the key, if it is what is wanted. `actions`: keyChanged, theme(value),
    exportAll, importFile(file), deleteAll. */
export function openSettings(actions, why) {
  const key = h("input", { type: "password", autocomplete: "off", spellcheck: "false", placeholder: "sk-ossia-…" });
  key.value = setting("key");
  const effort = effortSwitch("default-effort", (value) => change({ effort: value }));
  effort.querySelector(`[value="${setting("effort")}"]`).checked = true;
  const system = h("textarea", { rows: 3, placeholder: "For example: Answer briefly, in British English." });
  system.value = setting("system");
  system.addEventListener("input", () => change({ system: system.value }));
  const picker = h("input", { type: "file", accept: ".json,application/json", hidden: true });
  picker.addEventListener("change", () => picker.files[0] && actions.importFile(picker.files[0]));
  const dialog = open("Settings",
    why ? h("p", { class: "wrong", role: "alert" }, why) : null,
    h("form", { submit: (event) => saveKey(event, key, dialog, actions) },
      field("Key", h("span", { class: "beside" }, key, h("button", { type: "submit", class: "button main" }, "Save key")),
        "The server printed it when it first started; “ossia keys” makes more. It is kept in this browser and sent to this server only.")),
    group("Appearance", themeSwitch(actions.theme)),
    group("Thinking in new chats", effort),
    field("Instructions for new chats", system),
    group("Your chats", h("div", { class: "row" }, button("Export all", actions.exportAll), button("Import…", () => picker.click()), picker,
      button("Delete all…", () => confirmAll(dialog, actions), "danger")),
      "Chats are kept in this browser, not on the server."));
  if (why) key.focus();
}

function saveKey(event, key, dialog, actions) {
  event.preventDefault();
  change({ key: key.value.trim() });
  dialog.close();
  actions.keyChanged();
}

function themeSwitch(choose) {
  const choices = [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]].map(([value, label]) =>
    h("label", null, h("input", { type: "radio", name: "theme", value, checked: setting("theme") === value, change: () => choose(value) }), h("span", null, label)));
  return h("fieldset", { class: "segments", "aria-label": "Appearance" }, choices);
}

function confirmAll(dialog, actions) {
  dialog.close();
  const sure = open("Delete all chats?", h("p", null, "This cannot be undone. Export them first if you may want them again."),
    h("div", { class: "foot" }, button("Keep them", () => sure.close()), button("Delete all", () => {
      sure.close();
      actions.deleteAll();
    }, "danger")));
}

/** Settings of one chat; `save(changes)` is called when they are right. */
export function openChatSettings(conversation, save, exportChat) {
  const system = h("textarea", { rows: 4, placeholder: "What the model should know or how it should answer in this chat" });
  system.value = conversation.system;
  const number = (value, props) => {
    const input = h("input", { type: "number", placeholder: "default", ...props });
    input.value = value ?? "";
    return input;
  };
  const temperature = number(conversation.temperature, { min: 0, max: 2, step: 0.05 });
  const topP = number(conversation.topP, { min: 0, max: 1, step: 0.05 });
  const maxTokens = number(conversation.maxTokens, { min: 1, step: 1 });
  const tools = h("textarea", { rows: 3, class: "code-field", spellcheck: "false", placeholder: '[{"name": "get_weather", "description": "…", "parameters": {…}}]' });
  tools.value = conversation.tools;
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const submit = (event) => {
    event.preventDefault();
    try {
      if (tools.value.trim()) readTools(tools.value);
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      return;
    }
    const read = (input) => (input.value === "" ? null : Number(input.value));
    save({ system: system.value, temperature: read(temperature), topP: read(topP), maxTokens: read(maxTokens), tools: tools.value });
    dialog.close();
  };
  const dialog = open("This chat",
    h("form", { submit },
      field("Instructions", system, "Sent before the first message, as the system prompt."),
      h("div", { class: "columns" }, field("Temperature", temperature), field("Top p", topP), field("Most new tokens", maxTokens)),
      field("Tools", tools, "Functions that the model may call, as JSON. You see each call and write its result yourself."),
      wrong,
      h("div", { class: "foot" }, exportChat ? button("Export this chat", exportChat) : null, h("button", { type: "submit", class: "button main" }, "Save"))));
}

const SHORTCUTS = [
  ["Send", "Enter"], ["New line", "Shift Enter"], ["Stop the answer", "Esc"], ["Edit your last message (field empty)", "↑"],
  ["New chat", "Ctrl Shift O"], ["Search chats", "Ctrl K"], ["Show or hide the list", "Ctrl Shift L"], ["Write", "/"], ["This list", "?"],
];

/** The list of shortcuts. */
export function openHelp() {
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const keys = (text) => text.split(" ").map((key) => h("kbd", null, mac && key === "Ctrl" ? "⌘" : key)).flatMap((key) => [key, " "]);
  open("Keyboard", h("dl", null, SHORTCUTS.flatMap(([what, how]) => [h("dt", null, what), h("dd", null, keys(how))])));
}
