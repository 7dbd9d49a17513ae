// Formulas: TeX to MathML, and what is no TeX that we know.

import assert from "node:assert/strict";
import { test } from "node:test";
import { texToMathml } from "../../crates/ossia-serve/src/ui/tex.js";

/** The MathML's body without properties: (mfrac a b). */
function short(node) {
  if (typeof node === "string") return node;
  const [tag, , ...children] = node;
  if (/^(mi|mn|mo|mtext)$/.test(tag)) return children.join("");
  return `(${[tag, ...children.map(short)].join(" ")})`;
}
const body = (tex) => short(texToMathml(tex, true)[2][2]);

const cases = [
  ["x", "x"],
  ["12.5", "12.5"],
  ["a+b", "(mrow a + b)"],
  ["a-b", "(mrow a − b)"],
  ["\\frac{a}{b}", "(mfrac a b)"],
  ["\\frac12", "(mfrac 12 (mrow))"],
  ["\\frac ab", "(mfrac a b)"],
  ["x^2_i", "(msubsup x i 2)"],
  ["x_{i+1}^{n}", "(msubsup x (mrow i + 1) n)"],
  ["f''(x)", "(mrow (msup f ′′) ( x ))"],
  ["\\sqrt{x}", "(msqrt x)"],
  ["\\sqrt[3]{x}", "(mroot x 3)"],
  ["\\alpha\\beta", "(mrow α β)"],
  ["\\sum_{i=1}^n i", "(mrow (munderover ∑ (mrow i = 1) n) i)"],
  ["\\int_0^1 x", "(mrow (msubsup ∫ 0 1) x)"],
  ["\\lim_{x\\to 0} f", "(mrow (munder lim (mrow x → 0)) f)"],
  ["\\int\\limits_0^1", "(munderover ∫ 0 1)"],
  ["\\text{if } x", "(mrow if\u00a0 x)"],
  ["\\mathbb{R}\\mathbf{v}\\mathcal{L}", "(mrow ℝ 𝐯 ℒ)"],
  ["\\hat{x}\\vec v", "(mrow (mover x ^) (mover v →))"],
  ["\\left(\\frac{1}{2}\\right)", "(mrow ( (mfrac 1 2) ))"],
  ["\\left. x \\right|_0", "(msub (mrow (mrow) x |) 0)"],
  ["\\begin{pmatrix}a&b\\\\c&d\\end{pmatrix}", "(mrow ( (mtable (mtr (mtd a) (mtd b)) (mtr (mtd c) (mtd d))) ))"],
  ["\\begin{cases}1&x\\\\0\\end{cases}", "(mrow { (mtable (mtr (mtd 1) (mtd x)) (mtr (mtd 0))) (mrow))"],
  ["a&=b\\\\&=c", "(mtable (mtr (mtd a) (mtd (mrow = b))) (mtr (mtd (mrow)) (mtd (mrow = c))))"],
  ["\\binom{n}{k}", "(mrow ( (mfrac n k) ))"],
  ["\\underbrace{a}_{b}", "(munder (munder a ⏟) b)"],
  ["\\operatorname{softmax}(x)", "(mrow softmax ( x ))"],
  ["\\not= \\%", "(mrow ≠ %)".replace("≠", "=\u0338")],
  ["\\foo{x}", "(mrow \\foo x)"],
  ["{a}_{b}", "(msub a b)"],
];
for (const [tex, wanted] of cases) test(tex, () => assert.equal(body(tex), wanted));

test("the source goes with it, for whoever copies", () => {
  assert.deepEqual(texToMathml("x", false).slice(0, 2), ["math", { display: "inline" }]);
  assert.deepEqual(texToMathml("x^2", false)[2][3], ["annotation", { encoding: "application/x-tex" }, "x^2"]);
});

const broken = ["", "{", "}", "}{", "\\", "\\frac", "\\frac{", "x^", "x_", "^", "_", "^^", "x^a^b", "x__", "\\left(", "\\right)", "\\begin{", "\\begin{matrix}",
  "\\begin{matrix}a&b\\\\", "\\end{x}", "&", "&&\\\\&", "\\sqrt[", "\\sqrt[3", "\\text{", "\\text", "'", "\\not", "\\hat", "\\\\", "\\begin{constructor}x\\end{constructor}",
  "\\operatorname{__proto__}", "\\__proto__", "\\constructor", "\\mathbb", "\\mathbb{constructor}", "<script>", "\\text{<script>}", "\\color{red}", "\u{1d54f}", "\ud800", "\\tag{1}"];
for (const tex of broken) test(`broken: ${tex}`, () => assert.equal(texToMathml(tex, true)[0], "math"));

const N = 3000;
const hostile = ["{".repeat(N), "}".repeat(N), "\\frac".repeat(1800), "^".repeat(N), "x^".repeat(N), "\\sqrt[".repeat(1500), "\\left(".repeat(1500),
  "\\begin{matrix}".repeat(600), "\\hat".repeat(N - 600), "&".repeat(N), "\\\\".repeat(N), "'".repeat(N), "x_{".repeat(N), "\\not".repeat(2000), "\\text{".repeat(1500), "x".repeat(11_000)];
for (const tex of hostile) {
  test(`hostile: ${tex.slice(0, 12)}…`, { timeout: 5000 }, () => {
    const tree = texToMathml(tex, true);
    const depth = (node) => (typeof node === "string" || !node ? 0 : 1 + Math.max(0, ...node.slice(2).map(depth)));
    assert.ok(tree === null || depth(tree) < 400);
  });
}
