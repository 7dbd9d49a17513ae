// Drawing: what elements come out, that no markup comes through, and that an answer drawn piece by piece equals the
// same answer drawn at once.

import assert from "node:assert/strict";
import { test } from "node:test";
import { answers } from "./canned.mjs";
import { install, markup } from "./fake-dom.mjs";

install();
const { MarkdownView } = await import("../../crates/ossia-serve/src/ui/render.js");

function draw(text) {
  const element = document.createElement("div");
  new MarkdownView(element).update(text);
  return markup(element);
}

test("elements", () => {
  assert.equal(draw("a *b*"), "<p>a <em>b</em></p>");
  assert.equal(draw("- a\n- b"), "<ul><li><span>a</span></li><li><span>b</span></li></ul>");
  assert.match(draw("[a](https://x.org)"), /<a href="https:\/\/x.org" rel="noopener noreferrer nofollow" target="_blank"/);
  assert.match(draw("|a|\n|-:|\n|1|"), /<th class="to-right">a<\/th>.*<td class="to-right">1<\/td>/);
});

test("no markup comes through", () => {
  for (const text of ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "`<b>`", "```html\n<script>\n```", "$<script>$",
    "| <i> |\n|---|\n| <b onclick=x> |", "# <svg/onload=x>", "> <a href='javascript:x'>", "[<b>](https://x.org)", "```<script>\nx\n```"]) {
    const names = [...draw(text).matchAll(/<([a-zA-Z]+)/g)].map((found) => found[1]);
    for (const name of names) assert.ok(!/^(script|img|b|i|svg|iframe)$/.test(name) || name === "svg" && text.startsWith("```"), `${name} from ${text}`);
    assert.ok(!/ on\w+="/.test(draw(text)));
  }
});

const texts = { ...answers, edges: "- a\n\n- b\n\n1. c\n\n2. d\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n---\n\n* e\n\n**f**\n\n> g\n\n> h\n\n```\ni\n```\n\n$$\nj\n$$\n" };
for (const [name, text] of Object.entries(texts)) {
  test(`piece by piece: ${name}`, () => {
    const element = document.createElement("div");
    const view = new MarkdownView(element);
    // A huge text comes in larger pieces: each comparison draws all of it.
    const step = text.length > 10_000 ? Math.ceil(text.length / 100) : 1;
    for (let end = 1; end < text.length + step; end += step) {
      view.update(text.slice(0, end));
      if (end % 17 === 0 || end >= text.length) assert.equal(markup(element), draw(text.slice(0, end)), `after ${end} characters`);
    }
  });
}

test("what was drawn stays while more comes", () => {
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  view.update("one\n\ntwo\n\n```js\nlet a");
  const [first, , code] = element.childNodes;
  view.update("one\n\ntwo\n\n```js\nlet a = 1;\nlet b");
  assert.equal(element.childNodes[0], first);
  assert.equal(element.childNodes[2], code);
});

test("another text replaces the first", () => {
  const element = document.createElement("div");
  const view = new MarkdownView(element);
  view.update("a\n\nb\n\nc");
  view.update("x");
  assert.equal(markup(element), "<p>x</p>");
});
