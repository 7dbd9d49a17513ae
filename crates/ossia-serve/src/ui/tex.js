// A subset of TeX's mathematics as MathML, which browsers draw themselves. Pure: gives a tree of [tag, props,
// ...children] and strings. Total: an unknown command is shown as it was written, what is unbalanced ends where the
// text ends; only what is too long or too deep gives null (the page then shows the source).

import {
  ACCENTS, ENVIRONMENTS, FENCES, FUNCTIONS, INTEGRALS, LARGE, LETTERS, LIMITS, OPERATORS, SPACES, STYLE_COMMANDS, UNDER,
  styled,
} from "./tex-symbols.js";

const MAX_LENGTH = 10_000;
const MAX_DEPTH = 40;
const TOKEN = /\\([a-zA-Z]+\*?|[\s\S]?)|\d+(?:[.,]\d+)*|\s+|[\s\S]/gu;
const TEXT_COMMANDS = new Set(["text", "textrm", "textbf", "textit", "texttt", "textsf", "mbox", "hbox"]);
const IGNORED = new Set(
  `displaystyle textstyle scriptstyle limits nolimits nonumber notag hline big Big bigg Bigg bigl bigr Bigl Bigr
biggl biggr Biggl Biggr bigm middle allowbreak centering`.split(/\s/),
);

/** The formula as a MathML tree, or null. */
export function texToMathml(tex, display) {
  if (tex.length > MAX_LENGTH) return null;
  try {
    const parser = new Parser(tex);
    const body = parser.lines();
    const source = ["annotation", { encoding: "application/x-tex" }, tex];
    return ["math", { display: display ? "block" : "inline" }, ["semantics", null, body, source]];
  } catch (error) {
    if (error instanceof TooDeep) return null;
    throw error;
  }
}

class TooDeep extends Error {}

class Parser {
  constructor(tex) {
    this.tokens = tex.match(TOKEN) ?? [];
    this.at = 0;
    this.depth = 0;
    this.style = null;
  }

  peek() {
    return this.tokens[this.at];
  }

  skipSpace() {
    while (/^\s/.test(this.peek() ?? "")) this.at++;
  }

  /** All of it: one row, or a column of rows if there are line breaks at the top. */
  lines() {
    const rows = this.cells(() => false);
    if (rows.length === 1 && rows[0].length === 1) return rows[0][0];
    return tableOf(rows, "rl");
  }

  /** Rows of cells until `ends` says so. */
  cells(ends) {
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(row(this.atoms((token) => token === "&" || token === "\\\\" || token === "\\cr" || ends(token))));
      const token = this.peek();
      if (token === undefined || ends(token)) break;
      this.at++;
      if (token !== "&") {
        this.optional();
        rows.push([]);
      }
    }
    const last = rows.at(-1);
    if (rows.length > 1 && last.length === 1 && last[0].length === 2) rows.pop();
    return rows;
  }

  /** Atoms with their scripts, until a token that `ends`; a brace that closes nothing is passed over. */
  atoms(ends) {
    if (++this.depth > MAX_DEPTH) throw new TooDeep();
    const nodes = [];
    for (let token = this.peek(); token !== undefined && !ends(token); token = this.peek()) {
      if (token === "}") {
        this.at++;
        continue;
      }
      const atom = this.atom();
      if (atom) nodes.push(this.scripts(atom));
    }
    this.depth--;
    return nodes;
  }

  /** One atom without scripts, or null for what shows nothing. */
  atom() {
    const token = this.tokens[this.at++];
    if (token[0] === "\\") return this.command(token.slice(1));
    if (/^\s/.test(token)) return null;
    if (token === "{") return this.groupAfterBrace();
    if (token === "^" || token === "_") {
      this.at--;
      return ["mrow", null];
    }
    if (/^\d/.test(token)) return ["mn", null, this.letters(token)];
    if (/^\p{L}/u.test(token)) return this.letter(token);
    if (token === "'") return this.primes();
    if (token === "~") return space(0.25);
    if (token === "%") return ["mo", null, "%"];
    if ("()[]|".includes(token)) return fence(token);
    return ["mo", null, { "-": "−", "*": "∗", "&": "" }[token] ?? token];
  }

  letters(text) {
    return this.style ? [...text].map((c) => styled(c, this.style)).join("") : text;
  }

  letter(token) {
    const props = this.style === "rm" || this.style === "bf" ? { mathvariant: "normal" } : null;
    return ["mi", props, this.letters(token)];
  }

  primes() {
    let marks = "′";
    while (this.peek() === "'") marks += (this.at++, "′");
    return ["mo", { class: "prime", lspace: "0", rspace: "0" }, marks];
  }

  groupAfterBrace() {
    const nodes = this.atoms((token) => token === "}");
    this.at++;
    return row(nodes);
  }

  /** What a command applies to: a group or a single atom. */
  argument() {
    this.skipSpace();
    if (++this.depth > MAX_DEPTH) throw new TooDeep();
    const token = this.peek();
    const node = token === undefined || token === "}" || token === "&" ? null : this.atom();
    this.depth--;
    return node ?? ["mrow", null];
  }

  /** The text of a `[…]` if one comes next. */
  optional() {
    if (this.peek() !== "[") return null;
    const near = this.tokens.slice(this.at + 1, this.at + 50);
    const end = near.indexOf("]");
    if (end < 0) return null;
    this.at += end + 2;
    return near.slice(0, end).join("");
  }

  /** The source of a `{…}`, as it is written. */
  raw() {
    this.skipSpace();
    if (this.peek() !== "{") return this.tokens[this.at++] ?? "";
    const from = ++this.at;
    for (let open = 1; this.at < this.tokens.length; this.at++) {
      if (this.peek() === "{") open++;
      if (this.peek() === "}" && --open === 0) break;
    }
    return this.tokens.slice(from, this.at++).join("");
  }

  /** Adds the sub- and superscripts that follow an atom. */
  scripts(atom) {
    let base = atom;
    let [sub, sup] = [null, null];
    let limits = base.limits ?? false;
    for (;;) {
      this.skipSpace();
      const token = this.peek();
      if (token === "\\limits" || token === "\\nolimits") limits = (this.at++, token === "\\limits");
      else if (token === "_" && !sub) sub = (this.at++, this.argument());
      else if (token === "^" && !sup) sup = (this.at++, this.argument());
      else if (token === "'" && !sup) sup = (this.at++, this.primesAfter());
      else break;
    }
    if (base.length === 2 && base[0] === "mrow" && !sub && !sup) return base;
    if (sub && sup) base = [limits ? "munderover" : "msubsup", null, base, sub, sup];
    else if (sub) base = [limits ? "munder" : "msub", null, base, sub];
    else if (sup) base = [limits ? "mover" : "msup", null, base, sup];
    return base;
  }

  primesAfter() {
    const primes = this.primes();
    if (this.peek() !== "^") return primes;
    this.at++;
    return row([primes, this.argument()]);
  }

  command(name) {
    if (LETTERS.has(name)) return ["mi", this.style === "rm" ? { mathvariant: "normal" } : null, LETTERS.get(name)];
    if (LARGE.has(name)) return withLimits(["mo", null, LARGE.get(name)]);
    if (INTEGRALS.has(name)) return ["mo", { largeop: "true" }, INTEGRALS.get(name)];
    if (OPERATORS.has(name)) return ["mo", { stretchy: "false" }, OPERATORS.get(name)];
    if (FUNCTIONS.has(name)) return functionName(name);
    if (LIMITS.has(name)) return withLimits(functionName(name, true));
    if (SPACES.has(name)) return space(SPACES.get(name));
    if (FENCES.has(name)) return fence(FENCES.get(name));
    if (ACCENTS.has(name)) return this.accent("mover", ACCENTS.get(name), name);
    if (UNDER.has(name)) return this.accent("munder", UNDER.get(name), name);
    if (STYLE_COMMANDS.has(name)) return this.inStyle(STYLE_COMMANDS.get(name));
    if (TEXT_COMMANDS.has(name)) return this.text(name);
    if (name === "label") return this.raw(), null;
    if (IGNORED.has(name)) return null;
    return this.construct(name) ?? unknown(name);
  }

  accent(tag, mark, name) {
    const wide = /^(wide|over|under)/.test(name);
    const node = [tag, { accent: "true" }, this.argument(), ["mo", { stretchy: String(wide) }, mark]];
    return name.endsWith("brace") ? withLimits(node) : node;
  }

  inStyle(style) {
    const outer = this.style;
    this.style = style === "it" ? null : style;
    const node = this.argument();
    this.style = outer;
    return node;
  }

  text(name) {
    const styles = { textbf: "bold", textit: "italic", texttt: "mono" };
    const source = this.raw().replace(/\\([ %$&#_{}])/g, "$1").replace(/\$/g, "");
    return ["mtext", styles[name] ? { class: styles[name] } : null, source.replace(/^ | $/g, "\u00a0")];
  }

  /** Commands with arguments; null if there is no such command. */
  construct(name) {
    switch (name) {
      case "frac":
      case "tfrac":
      case "cfrac":
        return ["mfrac", null, this.argument(), this.argument()];
      case "dfrac":
        return ["mstyle", { displaystyle: "true" }, ["mfrac", null, this.argument(), this.argument()]];
      case "binom":
      case "tbinom":
      case "dbinom":
        return fenced("(", ["mfrac", { linethickness: "0" }, this.argument(), this.argument()], ")");
      case "sqrt":
        return this.root();
      case "left":
        return this.leftRight();
      case "right":
        return this.skipFence();
      case "begin":
        return this.environment();
      case "end":
        return this.raw(), ["mrow", null];
      case "operatorname":
      case "operatorname*":
        return name.endsWith("*") ? withLimits(functionName(this.raw(), true)) : functionName(this.raw());
      case "overset":
      case "stackrel":
        return this.over("mover");
      case "underset":
        return this.over("munder");
      case "substack":
        return this.argument();
      case "boxed":
        return ["mrow", { class: "boxed" }, this.argument()];
      case "phantom":
        return ["mphantom", null, this.argument()];
      case "color":
      case "textcolor":
        return this.raw(), this.argument();
      case "tag":
        return ["mtext", { class: "tag" }, `\u2003(${this.raw()})`];
      case "not":
        return this.not();
      case "bmod":
        return ["mo", { lspace: "0.2em", rspace: "0.2em" }, "mod"];
      case "pmod":
        return row([space(0.5), fenced("(", row([["mtext", null, "mod\u00a0"], this.argument()]), ")")]);
      case "\\":
        return ["mspace", { linebreak: "newline" }];
      default:
        return null;
    }
  }

  root() {
    const index = this.optional();
    const radicand = this.argument();
    if (index === null) return ["msqrt", null, radicand];
    return ["mroot", null, radicand, row(new Parser(index).atoms(() => false))];
  }

  over(tag) {
    const mark = this.argument();
    return [tag, null, this.argument(), mark];
  }

  not() {
    const node = this.argument();
    if (typeof node.at(-1) === "string") node.push(node.pop() + "\u0338");
    return node;
  }

  delimiter() {
    this.skipSpace();
    const token = this.tokens[this.at++] ?? ".";
    return FENCES.get(token.replace(/^\\/, "")) ?? (token === "\\|" ? "‖" : token);
  }

  skipFence() {
    this.delimiter();
    return null;
  }

  leftRight() {
    const open = this.delimiter();
    const inside = this.atoms((token) => token === "\\right" || token === "\\\\" || token === "&");
    let close = "";
    if (this.peek() === "\\right") {
      this.at++;
      close = this.delimiter();
    }
    return fenced(open, row(inside), close);
  }

  environment() {
    const name = this.raw().replace(/\*$/, "");
    const [open, close, columns] = ENVIRONMENTS.get(name) ?? ["", "", "c"];
    const given = name === "array" || name === "alignat" || name === "subarray" ? this.raw() : "";
    if (++this.depth > MAX_DEPTH) throw new TooDeep();
    const rows = this.cells((token) => token === "\\end");
    this.depth--;
    if (this.peek() === "\\end") {
      this.at++;
      this.raw();
    }
    const table = tableOf(rows, name === "array" ? given.replace(/[^lcr]/g, "") || "c" : columns);
    return open || close ? fenced(open, table, close) : table;
  }
}

function row(nodes) {
  return nodes.length === 1 && nodes[0] ? nodes[0] : ["mrow", null, ...nodes];
}

function withLimits(node) {
  node.limits = true;
  return node;
}

function functionName(name, limits) {
  const shown = name.replace(/^(lim|arg)(sup|inf|max|min)$/, "$1\u2009$2");
  return ["mo", { movablelimits: limits ? "true" : "false", form: "prefix", lspace: "0", rspace: "0.17em" }, shown];
}

function fence(sign) {
  return ["mo", { stretchy: "false" }, sign];
}

function fenced(open, inside, close) {
  const side = (sign, form) => (sign ? ["mo", { fence: "true", stretchy: "true", form }, sign] : ["mrow", null]);
  return ["mrow", null, side(open, "prefix"), inside, side(close, "postfix")];
}

function space(em) {
  return ["mspace", { width: `${em}em` }];
}

function unknown(name) {
  return ["mtext", { class: "unknown" }, `\\${name}`];
}

function tableOf(rows, columns) {
  const cell = (node, i) => ["mtd", { class: `to-${columns[i % columns.length]}` }, node];
  const spread = columns === "rl" ? "aligned" : null;
  const props = columns === "rl" ? { displaystyle: "true", class: spread } : null;
  return ["mtable", props, ...rows.map((cells) => ["mtr", null, ...cells.map(cell)])];
}
