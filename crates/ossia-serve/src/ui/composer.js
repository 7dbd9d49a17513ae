// Where messages are written: the field, attached files, how much to think, which model, send and stop. An unsent
// text stays with the page until it is sent.

import { h, icon, iconButton } from "./dom.js";
import { MAX_ALL, MAX_FILES, chip, filesIn, readTextFile } from "./files.js";

const EFFORTS = [["low", "Low"], ["medium", "Medium"], ["high", "High"]];
const FINE = "Answers can be wrong. Check what matters.";

export class Composer {
  /** `actions`: send(text, files), stop, effort(value), model(id), editLast. */
  constructor(form, actions) {
    this.form = form;
    this.actions = actions;
    this.files = [];
    this.running = false;
    this.field = h("textarea", { id: "write", rows: 1, placeholder: "Write a message", "aria-label": "Message", input: () => this.#changed(),
      keydown: (event) => this.#key(event), paste: (event) => this.#take(event, event.clipboardData) });
    this.picker = h("input", { type: "file", multiple: true, hidden: true, change: () => this.#pick() });
    this.chips = h("div", { class: "files", hidden: true });
    this.effort = effortSwitch("effort", (value) => actions.effort(value));
    this.model = h("select", { "aria-label": "Model", hidden: true, change: () => actions.model(this.model.value) });
    this.button = h("button", { type: "submit", class: "send" });
    this.fine = h("p", { class: "fine", role: "status" }, FINE);
    form.append(
      h("div", { class: "box" }, this.chips, this.field,
        h("div", { class: "tools" },
          iconButton("clip", "Attach text files", () => this.picker.click()), this.picker,
          h("span", { class: "think", "aria-hidden": "true" }, "Thinking"), this.effort, this.model, h("span", { class: "gap" }), this.button)),
      this.fine);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#listenForDrops();
    this.#changed();
  }

  /** Sets the switches to the conversation's values. */
  show({ effort, model, models, running }) {
    this.running = running;
    this.effort.querySelectorAll("input").forEach((input) => (input.checked = input.value === effort));
    this.model.replaceChildren(...models.map(({ id }) => h("option", { value: id, selected: id === model }, id)));
    this.model.hidden = models.length < 2;
    this.#changed();
  }

  focus() {
    if (matchMedia("(pointer: coarse)").matches) return; // it would raise the keyboard over the page
    this.field.focus({ preventScroll: true });
  }

  /** Puts a text into the field. */
  write(text) {
    this.field.value = text;
    this.#changed();
    this.focus();
  }

  #submit() {
    if (this.running) return this.actions.stop();
    const text = this.field.value.trim();
    if (!text && !this.files.length) return undefined;
    const { files } = this;
    this.field.value = "";
    this.files = [];
    this.#say(FINE);
    this.#changed();
    return this.actions.send(text, files);
  }

  #changed() {
    const empty = !this.field.value.trim() && !this.files.length;
    const label = this.running ? "Stop (Esc)" : "Send (Enter)";
    const shape = this.running ? "stop" : "up";
    if (this.shape !== shape) this.button.replaceChildren(icon(shape));
    this.shape = shape;
    this.button.classList.toggle("stop", this.running);
    this.button.disabled = empty && !this.running;
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
    this.chips.hidden = !this.files.length;
    this.chips.replaceChildren(...this.files.map((file) => chip(file, () => {
      this.files = this.files.filter((other) => other !== file);
      this.#changed();
    })));
    if (!CSS.supports("field-sizing", "content")) {
      this.field.style.height = "auto";
      this.field.style.height = `${this.field.scrollHeight}px`;
    }
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.running) this.#submit();
    }
    if (event.key === "ArrowUp" && !this.field.value) this.actions.editLast();
  }

  #take(event, transfer) {
    const files = filesIn(transfer);
    if (!files) return;
    event.preventDefault();
    this.add(files);
  }

  #pick() {
    this.add([...this.picker.files]);
    this.picker.value = "";
  }

  /** Attaches files; says which could not be. */
  async add(files) {
    const problems = [];
    for (const file of files) {
      const total = this.files.reduce((sum, { text }) => sum + text.length, 0);
      try {
        if (this.files.length >= MAX_FILES) throw new Error(`At most ${MAX_FILES} files can be attached.`);
        if (total + file.size > MAX_ALL) throw new Error(`${file.name} does not fit: all files together may have 1 MB.`);
        this.files.push(await readTextFile(file));
      } catch (error) {
        problems.push(error.message);
      }
    }
    this.#say(problems.join(" ") || FINE, problems.length > 0);
    this.#changed();
    this.focus();
  }

  #say(text, wrong = false) {
    this.fine.textContent = text;
    this.fine.classList.toggle("wrong", wrong);
  }

  #listenForDrops() {
    const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const over = (on) => (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      this.form.classList.toggle("dropping", on);
    };
    document.addEventListener("dragover", over(true));
    document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(false)(event));
    document.addEventListener("drop", (event) => {
      over(false)(event);
      if (isFile(event)) this.add([...event.dataTransfer.files]);
    });
  }
}

/** The switch between low, medium and high. */
export function effortSwitch(name, onchange) {
  const choices = EFFORTS.map(([value, label]) =>
    h("label", { title: `${label} effort: how long the model thinks before it answers` },
      h("input", { type: "radio", name, value, change: () => onchange(value) }), h("span", null, label)));
  return h("fieldset", { class: "segments", "aria-label": "How much to think" }, choices);
}
