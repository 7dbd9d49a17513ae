// Markdown: blocks, inline text, and how both meet input that is hostile or half written.

import assert from "node:assert/strict";
import { test } from "node:test";
import { parseInline, safeHref } from "../../crates/ossia-serve/src/ui/inline.js";
import { parseMarkdown } from "../../crates/ossia-serve/src/ui/markdown.js";

/** Inline trees as short text: [em a], [code b]. */
function short(nodes) {
  const show = (node) => {
    if (node.t === "text") return node.s;
    if (node.t === "br") return "[br]";
    if (node.t === "link") return `[link ${node.href} ${short(node.c)}]`;
    if (node.t === "math") return `[${node.display ? "MATH" : "math"} ${node.s}]`;
    return `[${node.t} ${node.s ?? short(node.c)}]`;
  };
  return nodes.map(show).join("");
}

const inline = [
  ["a *b* c", "a [em b] c"],
  ["**a *b* c**", "[strong a [em b] c]"],
  ["***a***", "[em [strong a]]"],
  ["*a **b*", "*a *[em b]"],
  ["snake_case_name and _so_", "snake_case_name and [em so]"],
  ["2 * 3 * 4", "2 * 3 * 4"],
  ["~~gone~~ ~kept~", "[del gone] ~kept~"],
  ["`a * b` ``c ` d``", "[code a * b][code c ` d]".replace("][", "] [")],
  ["`open", "`open"],
  ["\\*no\\* \\`", "*no* `"],
  ["[t](https://x.org/a_(b) \"T\")", "[link https://x.org/a_(b) t]"],
  ["[*t*](mailto:a@b.c)", "[link mailto:a@b.c [em t]]"],
  ["![alt](https://x.org/i.png)", "[link https://x.org/i.png alt]"],
  ["<https://x.org>", "[link https://x.org https://x.org]"],
  ["see https://x.org/a, and (https://x.org)", "see [link https://x.org/a https://x.org/a], and ([link https://x.org https://x.org])"],
  ["[a [b](https://x.org) c](https://y.org)", "[a [link https://x.org b] c]([link https://y.org https://y.org])"],
  ["a<br>b<br/>c", "a[br]b[br]c"],
  ["a  \nb\\\nc\nd", "a[br]b[br]c\nd"],
  ["&lt;b&gt; &amp; &#65; &#x1F600; &nope;", "<b> & A 😀 &nope;"],
  ["$x^2$ and \\(y\\) and $$z$$", "[math x^2] and [math y] and [MATH z]"],
  ["costs $5 and $6, or US$7", "costs $5 and $6, or US$7"],
  ["$a$b $ c$", "[math a]b $ c$"],
];

for (const [text, wanted] of inline) test(`inline: ${text}`, () => assert.equal(short(parseInline(text)), wanted));

const unsafe = ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:x", " javascript:x", "data:text/html,x", "vbscript:x",
  "file:///etc/passwd", "/v1/keys", "//evil.example", "", "https://", "blob:https://x", "view-source:https://x"];
for (const url of unsafe) test(`no link to ${JSON.stringify(url)}`, () => {
  assert.equal(safeHref(url), null);
  const linked = short(parseInline(`[x](${url}) <${url}>`));
  assert.ok(!/\[link (?!https:\/\/x)/.test(linked), linked);
});

/** Blocks as short text. */
function outline(blocks) {
  const show = (b) => {
    if (b.t === "list") return `${b.ordered ? `ol${b.start}` : "ul"}${b.loose ? "*" : ""}(${b.items.map((i) => outline(i.blocks)).join(" | ")})`;
    if (b.t === "quote") return `quote(${outline(b.blocks)})`;
    if (b.t === "table") return `table(${[b.head, ...b.rows].map((r) => r.join(",")).join(" / ")})`;
    if (b.t === "code") return `code:${b.lang}${b.closed ? "" : "…"}(${b.text})`;
    if (b.t === "heading") return `h${b.level}(${b.text})`;
    return b.t === "hr" ? "hr" : `${b.t}(${b.text})`;
  };
  return blocks.map(show).join(" ");
}

const blocks = [
  ["# One #\n## Two\n#no", "h1(One) h2(Two) para(#no)"],
  ["a\nb\n\nc", "para(a\nb) para(c)"],
  ["- a\n- b\n  - c\n    - d\n- e", "ul(para(a) | para(b) ul(para(c) ul(para(d))) | para(e))"],
  ["1. a\n   text\n2. b", "ol1(para(a\ntext) | para(b))"],
  ["3) a\n4) b", "ol3(para(a) | para(b))"],
  ["1. a\n  - b\n2. c", "ol1(para(a) ul(para(b)) | para(c))"],
  ["- a\n\n- b", "ul*(para(a) | para(b))"],
  ["- a\n\n  b\n\nc", "ul*(para(a) para(b)) para(c)"],
  ["1. x:\n   ```py\n   y\n   ```\n2. z", "ol1(para(x:) code:py(y) | para(z))"],
  ["text\n- a", "para(text) ul(para(a))"],
  ["born in\n1984. A year", "para(born in\n1984. A year)"],
  ["- [x] done\n- [ ] open", "ul(para(done) | para(open))"],
  ["> a\nlazy\n> - b\n\nc", "quote(para(a\nlazy) ul(para(b))) para(c)"],
  ["```js\na\n\nb\n```\nc", "code:js(a\n\nb) para(c)"],
  ["~~~\n```\n~~~", "code:(```)"],
  ["````md\n```\n````", "code:md(```)"],
  ["```rust,ignore\nopen", "code:rust…(open)"],
  ["---\n***\n- - -", "hr hr hr"],
  ["| a | b |\n|---|:-:|\n| 1 | 2\\|3 | 4 |\n| 5 |\nx", "table(a,b / 1,2|3 / 5,) para(x)"],
  ["text\n| a |\n|---|\n| 1 |", "para(text) table(a / 1)"],
  ["a | b\nnot a table", "para(a | b\nnot a table)"],
  ["$$\nx\n$$\n\\[ y \\]\n$$z$$.", "math(x) math(y) math(z.)"],
  ["$$ open\n\ntext", "para($$ open) para(text)"],
  ["\\begin{align}\na &= b\n\\end{align}", "math(\\begin{align}\na &= b\n\\end{align})"],
  ["a\r\nb\r\n\r\nc", "para(a\nb) para(c)"],
];

for (const [text, wanted] of blocks) test(`blocks: ${JSON.stringify(text)}`, () => assert.equal(outline(parseMarkdown(text)), wanted));

// Each of these made some Markdown parser take quadratic or exponential time, or overflow its stack.
const N = 20_000;
const hostile = {
  stars: "*a ".repeat(N), closers: "a* ".repeat(N), "stars within": "*a _b ".repeat(N), triple: "***a** ".repeat(N),
  "nested emphasis": "*a **b ".repeat(N) + "c** d*".repeat(N), underscores: "_".repeat(N), brackets: "[".repeat(N),
  "brackets closed": "[".repeat(N) + "]".repeat(N), "links open": "[a](".repeat(N), "links nested": "[".repeat(N) + "](https://x)".repeat(N),
  "long address": "[a](" + "b".repeat(N * 5), parentheses: "[a](" + "(".repeat(N), backticks: Array.from({ length: 300 }, (_, i) => "`".repeat(i)).join("a"),
  "backticks again": "`a``b".repeat(N), dollars: "$a ".repeat(N), "dollars tight": "$a".repeat(N), "formulas open": "\\(a".repeat(N),
  "formulas alone": "\\[a\n".repeat(N), quotes: "> ".repeat(N) + "a", "quoted lines": "> a\n".repeat(N), "nested lists": Array.from({ length: 400 }, (_, i) => " ".repeat(i * 2) + "- a").join("\n"),
  "list in one line": "- ".repeat(N) + "a", rules: "* ".repeat(N) + "a", hashes: "# " + "#".repeat(N) + "a", pipes: "|".repeat(N) + "\n" + "|-".repeat(N) + "\n|",
  dashes: "a|b\n" + "-".repeat(N) + "x|", "half tables": "| a |\n".repeat(N), entities: "&#".repeat(N), angles: "<".repeat(N), addresses: "https://".repeat(N),
  "soft breaks": "a\n".repeat(N), "hard breaks": "a  \n".repeat(N), spaces: " ".repeat(N * 5) + "a", fences: "```\n".repeat(N), "blank lines": "- a" + "\n".repeat(N) + "b",
  surrogates: "\ud800*".repeat(N), nul: "\u0000*a*".repeat(N),
};

/** All inline text of the blocks. */
function* texts(list) {
  for (const b of list) {
    if (b.text !== undefined) yield b.text;
    for (const row of b.t === "table" ? [b.head, ...b.rows] : []) yield* row;
    if (b.blocks) yield* texts(b.blocks);
    for (const item of b.items ?? []) yield* texts(item.blocks);
  }
}

const depth = (nodes) => Math.max(0, ...nodes.map((n) => (n.c ? 1 + depth(n.c) : 0)));

for (const [name, text] of Object.entries(hostile)) {
  // The bound is far above what linear work takes (some 20 ms) and far below quadratic work (minutes).
  test(`hostile: ${name}`, { timeout: 10_000 }, () => {
    for (const part of [...texts(parseMarkdown(text)), text]) assert.ok(depth(parseInline(part)) <= 30);
  });
}

test("inline text is never lost", () => {
  const words = (nodes) => nodes.map((n) => n.s ?? (n.c ? words(n.c) : "")).join("");
  for (const text of ["*a **b* c**", "[a] (b) ]c[", "~~a~ b", "** a **", "*[a*](b)", "_a *b_ c*", "![a", "a*\"b\"*c"]) {
    assert.equal(words(parseInline(text)).replace(/[*_~]/g, ""), text.replace(/[*_~]/g, ""));
  }
});
