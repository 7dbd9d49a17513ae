// Draws Markdown as elements. While an answer streams, `MarkdownView` draws only its end again: the last two blocks and
// what touches them without a blank line; text that is still to come can change no other. It changes them in place, so
// nothing flickers and a selection survives.

import { h, icon, math, morph } from "./dom.js";
import { highlight, languageName } from "./highlight.js";
import { parseInline } from "./inline.js";
import { parseMarkdown } from "./markdown.js";
import { texToMathml } from "./tex.js";

/** Keeps an element's content equal to a growing Markdown text. */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.text = "";
    this.drawn = []; // of each drawn block: { from: where its text begins, apart }
  }

  /** Draws `text`; cheap if it only grew since the last call. */
  update(text) {
    if (text === this.text) return;
    const keep = text.startsWith(this.text) ? this.#settled() : 0;
    const from = this.drawn[keep]?.from ?? 0;
    const rest = text.slice(from);
    const starts = lineStarts(rest);
    const blocks = parseMarkdown(rest);
    const present = [...this.element.childNodes].slice(keep);
    this.drawn.length = keep;
    blocks.forEach((block, i) => {
      this.drawn.push({ from: from + starts[block.line], apart: block.apart });
      const fresh = drawBlock(block);
      if (i < present.length) morph(present[i], fresh);
      else this.element.append(fresh);
    });
    present.slice(blocks.length).forEach((node) => node.remove());
    this.text = text;
  }

  /** How many of the drawn blocks can change no more. */
  #settled() {
    let keep = Math.max(0, this.drawn.length - 2);
    while (keep > 0 && !this.drawn[keep].apart) keep--;
    return keep;
  }
}

function lineStarts(text) {
  const starts = [0];
  for (const end of text.matchAll(/\r\n?|\n/g)) starts.push(end.index + end[0].length);
  return starts;
}

function drawBlock(block) {
  switch (block.t) {
    case "heading":
      return h(`h${block.level}`, null, inline(block.text));
    case "code":
      return drawCode(block);
    case "math":
      return h("div", { class: "formula" }, formula(block.text, true));
    case "quote":
      return h("blockquote", null, block.blocks.map(drawBlock));
    case "list":
      return drawList(block);
    case "table":
      return drawTable(block);
    case "hr":
      return h("hr");
    default:
      return h("p", null, inline(block.text));
  }
}

function drawCode({ lang, text }) {
  if (lang === "math" || lang === "latex-math") return h("div", { class: "formula" }, formula(text, true));
  const name = languageName(lang) || lang || "text";
  const copy = h("button", { type: "button", class: "copy-code", "aria-label": "Copy this code" }, icon("copy"), "Copy");
  const tokens = highlight(text, lang).map(({ c, s }) => (c ? h("span", { class: `hl-${c}` }, s) : s));
  return h(
    "figure",
    { class: "code" },
    h("figcaption", null, h("span", null, name), copy),
    h("pre", { tabindex: "0" }, h("code", null, tokens)),
  );
}

function drawList(list) {
  const items = list.items.map(({ task, blocks }) => {
    const box = task === null ? null : h("input", { type: "checkbox", disabled: true, checked: task });
    const tight = !list.loose;
    const children = blocks.map((b) => (tight && b.t === "para" ? h("span", null, inline(b.text)) : drawBlock(b)));
    return h("li", { class: task === null ? null : "task" }, box, children);
  });
  return list.ordered ? h("ol", { start: list.start }, items) : h("ul", null, items);
}

function drawTable({ align, head, rows }) {
  const cell = (tag) => (text, i) => h(tag, { class: align[i] ? `to-${align[i]}` : null }, inline(text));
  const body = rows.map((row) => h("tr", null, row.map(cell("td"))));
  return h(
    "div",
    { class: "table", tabindex: "0" },
    h("table", null, h("thead", null, h("tr", null, head.map(cell("th")))), h("tbody", null, body)),
  );
}

function inline(text) {
  return drawAll(parseInline(text));
}

/** A formula and the punctuation after it stay on one line. */
function drawAll(nodes) {
  const drawn = [];
  nodes.forEach((node, i) => {
    const mark = node.t === "text" && nodes[i - 1]?.t === "math" ? /^[.,;:!?)\]’”]{1,3}/.exec(node.s)?.[0] : null;
    if (!mark) return drawn.push(drawInline(node));
    return drawn.push(h("span", { class: "nowrap" }, drawn.pop(), mark), node.s.slice(mark.length));
  });
  return drawn;
}

function drawInline(node) {
  switch (node.t) {
    case "code":
      return h("code", null, node.s);
    case "math":
      return formula(node.s, node.display);
    case "br":
      return h("br");
    case "link":
      return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow", title: node.href }, drawAll(node.c));
    case "em":
    case "strong":
    case "del":
      return h(node.t, null, drawAll(node.c));
    default:
      return document.createTextNode(node.s);
  }
}

/** A formula, or its source where it is none that we know. */
function formula(tex, display) {
  const tree = texToMathml(tex, display);
  return tree ? drawMath(tree) : h("code", { class: "tex" }, tex);
}

function drawMath(node) {
  if (typeof node === "string") return node;
  const [tag, props, ...children] = node;
  return math(tag, props, children.map(drawMath));
}
