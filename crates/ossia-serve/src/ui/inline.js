// Markdown inside a paragraph: emphasis, code, links, line breaks, formulas. Pure: text in, a small tree out; it never
// fails, and takes time in proportion to the text whatever is unbalanced (delimiters that found no partner once are
// not searched again, as in CommonMark). HTML is text here; only <br> means something.
//
// A node is { t: "text" | "code", s } | { t: "math", s, display } | { t: "br" } | { t: "em" | "strong" | "del", c }
// | { t: "link", href, c } where c are its children.

const MAX_DEPTH = 24; // a tree that is drawn by recursion must not be deeper
const MAX_HREF = 2000;
const PLAIN = /[^\\`*_~[\]!<&$\nhH]+/y;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const BARE_URL = /https?:\/\/[^\s<>"`]+/iy;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp|ndash|mdash|hellip|times|rarr|larr|le|ge|ne));/y;
const NAMED = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", ndash: "–", mdash: "—", hellip: "…",
  times: "×", rarr: "→", larr: "←", le: "≤", ge: "≥", ne: "≠",
};

/** The tree of one paragraph's text. */
export function parseInline(text) {
  return new Inline(text).run();
}

/** The address if a click on it can do no harm, else null. */
export function safeHref(url) {
  return /^(?:https?:\/\/|mailto:)[^\s\u0000-\u001f]+$/i.test(url) && url.length <= MAX_HREF ? url : null;
}

class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.out = [];
    this.delims = []; // runs of * _ ~ that may open
    this.bottom = new Map(); // below this height no opener for such a closer stands
    this.brackets = [];
    this.gone = new Set(); // closers that do not come any more
    this.ticks = null;
  }

  run() {
    while (this.at < this.text.length) this.step();
    return plainOut(this.out);
  }

  step() {
    const plain = this.match(PLAIN);
    if (plain) return this.literal(plain[0]);
    const c = this.text[this.at];
    if (c === "\\") return this.backslash();
    if (c === "`") return this.code();
    if (c === "*" || c === "_" || c === "~") return this.runOf(c);
    if (c === "[") return this.open(1);
    if (c === "!") return this.text[this.at + 1] === "[" ? this.open(2) : this.take(1);
    if (c === "]") return this.close();
    if (c === "<") return this.angle();
    if (c === "&") return this.entity();
    if (c === "$") return this.dollar();
    if (c === "\n") return this.newline();
    return this.bare();
  }

  match(sticky) {
    sticky.lastIndex = this.at;
    return sticky.exec(this.text);
  }

  /** Adds text to the tree and moves on by its length (or by `width`). */
  literal(s, width = s.length) {
    const last = this.out[this.out.length - 1];
    if (last && last.t === "text") last.s += s;
    else this.out.push({ t: "text", s });
    this.at += width;
  }

  take(width) {
    this.literal(this.text.slice(this.at, this.at + width));
  }

  node(node, width) {
    this.out.push(node);
    this.at += width;
  }

  backslash() {
    const next = this.text[this.at + 1];
    if (next === "(" || next === "[") {
      const end = this.find(next === "(" ? "\\)" : "\\]", this.at + 2);
      if (end >= 0) return this.formula(this.at + 2, end, 2, next === "[");
    }
    if (next === "\n") return this.node({ t: "br" }, 2);
    if (next && ESCAPABLE.test(next)) return this.literal(next, 2);
    this.take(1);
  }

  /** Where `closer` comes next, or -1; asked for in vain once, it is not searched again. */
  find(closer, from) {
    if (this.gone.has(closer)) return -1;
    const end = this.text.indexOf(closer, from);
    if (end < 0) this.gone.add(closer);
    return end;
  }

  formula(from, to, closerWidth, display) {
    const s = this.text.slice(from, to).trim();
    this.node({ t: "math", s, display }, to + closerWidth - this.at);
  }

  /** `$x$` as pandoc reads it, so that prices stay prices. */
  dollar() {
    const { text, at } = this;
    if (text[at + 1] === "$") {
      const end = this.find("$$", at + 2);
      return end > at + 2 ? this.formula(at + 2, end, 2, true) : this.take(2);
    }
    let end = this.find("$", at + 1);
    while (end > 0 && text[end - 1] === "\\") end = this.find("$", end + 1);
    const opens = at + 1 < text.length && !/\s/.test(text[at + 1]);
    const closes = end > at + 1 && !/[\s]/.test(text[end - 1]) && !/\d/.test(text[end + 1] ?? "");
    return opens && closes ? this.formula(at + 1, end, 1, false) : this.take(1);
  }

  code() {
    let end = this.at;
    while (this.text[end] === "`") end++;
    const width = end - this.at;
    const close = this.closingTicks(width, end);
    if (close < 0) return this.take(width);
    let s = this.text.slice(end, close).replace(/\n/g, " ");
    if (s.length > 2 && s[0] === " " && s.endsWith(" ") && s.trim()) s = s.slice(1, -1);
    this.node({ t: "code", s }, close + width - this.at);
  }

  /** The next run of exactly `width` backticks: all runs are listed once, each list is walked once. */
  closingTicks(width, from) {
    if (!this.ticks) {
      this.ticks = new Map();
      for (const run of this.text.matchAll(/`+/g)) {
        const list = this.ticks.get(run[0].length) ?? { places: [], next: 0 };
        list.places.push(run.index);
        this.ticks.set(run[0].length, list);
      }
    }
    const list = this.ticks.get(width);
    while (list && list.next < list.places.length && list.places[list.next] < from) list.next++;
    return list?.places[list.next] ?? -1;
  }

  runOf(c) {
    const { text, at } = this;
    let end = at;
    while (text[end] === c) end++;
    const before = text[at - 1] ?? " ";
    const after = text[end] ?? " ";
    const leftFlanking = !isSpace(after) && (!isPunctuation(after) || isSpace(before) || isPunctuation(before));
    const rightFlanking = !isSpace(before) && (!isPunctuation(before) || isSpace(after) || isPunctuation(after));
    const inWord = c === "_" && leftFlanking && rightFlanking;
    const run = { t: "delim", c, n: end - at, whole: end - at };
    run.opens = leftFlanking && (!inWord || isPunctuation(before));
    run.closes = rightFlanking && (!inWord || isPunctuation(after));
    this.at = end;
    if (run.closes) this.closeRun(run);
    if (run.n > 0 && run.opens) this.delims.push({ run, place: this.out.push(run) - 1 });
    else if (run.n > 0) this.literal(c.repeat(run.n), 0);
  }

  closeRun(run) {
    const kind = `${run.c}${run.opens}${run.whole % 3}`;
    while (run.n > 0) {
      const height = this.opener(run, this.bottom.get(kind) ?? 0);
      if (height < 0 || !this.wrap(height, run)) {
        this.bottom.set(kind, this.delims.length);
        return;
      }
    }
  }

  opener(closer, bottom) {
    for (let i = this.delims.length - 1; i >= bottom; i--) {
      const { run } = this.delims[i];
      if (run.c !== closer.c) continue;
      if (run.c === "~" && (run.n < 2 || closer.n < 2)) continue;
      const both = run.closes || closer.opens;
      const sum = run.whole + closer.whole;
      if (both && sum % 3 === 0 && (run.whole % 3 || closer.whole % 3)) continue;
      return i;
    }
    return -1;
  }

  /** Puts all that stands after the opener into one element. False if that would nest too deep. */
  wrap(height, closer) {
    const { run, place } = this.delims[height];
    const inside = this.out.slice(place + 1);
    const depth = 1 + depthOf(inside);
    if (depth > MAX_DEPTH) return false;
    const width = run.n >= 2 && closer.n >= 2 ? 2 : 1;
    const t = run.c === "~" ? "del" : width === 2 ? "strong" : "em";
    run.n -= width;
    closer.n -= width;
    this.cut(run.n > 0 ? height + 1 : height);
    this.out.length = run.n > 0 ? place + 1 : place;
    while (this.brackets.at(-1)?.place > place) this.brackets.pop();
    this.out.push({ t, c: plainOut(inside), depth });
    return true;
  }

  /** Forgets the openers above `height`. */
  cut(height) {
    this.delims.length = height;
    for (const [kind, bottom] of this.bottom) if (bottom > height) this.bottom.set(kind, height);
  }

  open(width) {
    // The bracket stands as its own node, so that what follows it can be cut off again.
    this.brackets.push({ place: this.out.length, height: this.delims.length });
    this.node({ t: "bracket", s: this.text.slice(this.at, this.at + width) }, width);
  }

  close() {
    const bracket = this.brackets.pop();
    const target = bracket && this.destination();
    if (!target) return this.take(1);
    const inside = this.out.slice(bracket.place + 1);
    const depth = 1 + depthOf(inside);
    if (depth > MAX_DEPTH) return this.take(1);
    this.cut(Math.min(bracket.height, this.delims.length));
    this.out.length = bracket.place;
    this.brackets = []; // no links within links
    this.node({ t: "link", href: target.href, c: plainOut(inside), depth }, target.width);
  }

  /** `](address "title")` at this place; null if it is not one, or not a safe one. */
  destination() {
    const { text, at } = this;
    if (text[at + 1] !== "(" || this.find(")", at + 2) < 0) return null;
    const end = Math.min(text.length, at + 2 + MAX_HREF);
    let i = at + 2;
    for (let open = 0; i < end; i++) {
      const c = text[i];
      if (c === "(") open++;
      else if (c === ")" && open-- === 0) break;
      else if (isSpace(c)) break;
    }
    const href = safeHref(text.slice(at + 2, i).replace(/^<|>$/g, ""));
    if (isSpace(text[i] ?? "")) i = this.title(i, end);
    return href && text[i] === ")" ? { href, width: i + 1 - at } : null;
  }

  title(i, end) {
    while (i < end && isSpace(this.text[i])) i++;
    const quote = this.text[i];
    if (quote !== '"' && quote !== "'") return i;
    for (i++; i < end && this.text[i] !== quote; ) i++;
    for (i++; i < end && isSpace(this.text[i]); ) i++;
    return i;
  }

  angle() {
    const br = this.match(/<br\s{0,3}\/?>/iy);
    if (br) return this.node({ t: "br" }, br[0].length);
    const url = this.match(/<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy);
    const href = url && safeHref(url[1]);
    if (href) return this.node({ t: "link", href, c: [{ t: "text", s: url[1] }] }, url[0].length);
    this.take(1);
  }

  entity() {
    const found = this.match(ENTITY);
    if (!found) return this.take(1);
    const code = found[1] ? Number(found[1]) : parseInt(found[2], 16);
    const valid = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000);
    const s = found[3] ? NAMED[found[3]] : valid ? String.fromCodePoint(code) : "\ufffd";
    this.literal(s, found[0].length);
  }

  newline() {
    const last = this.out[this.out.length - 1];
    const hard = last?.t === "text" && last.s.endsWith("  ");
    if (!hard) return this.literal("\n");
    last.s = last.s.trimEnd();
    this.node({ t: "br" }, 1);
  }

  bare() {
    const inWord = /\w/.test(this.text[this.at - 1] ?? "");
    const found = inWord ? null : this.match(BARE_URL);
    if (!found) return this.take(1);
    let url = found[0].slice(0, MAX_HREF).replace(/[.,;:!?'*_~\]]{1,64}$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
    const href = safeHref(url);
    if (!href) return this.take(url.length || 1);
    this.node({ t: "link", href, c: [{ t: "text", s: url }] }, url.length);
  }
}

function isSpace(c) {
  return /\s/.test(c);
}

function isPunctuation(c) {
  return /[\p{P}\p{S}]/u.test(c);
}

function depthOf(nodes) {
  return nodes.reduce((most, node) => Math.max(most, node.depth ?? 0), 0);
}

/** Delimiters and brackets that found no partner are text; neighbouring texts become one. */
function plainOut(nodes) {
  const plain = [];
  for (const node of nodes) {
    const s = node.t === "delim" ? node.c.repeat(node.n) : node.t === "bracket" || node.t === "text" ? node.s : null;
    const last = plain[plain.length - 1];
    if (s === null) plain.push(node);
    else if (last?.t === "text") last.s += s;
    else plain.push({ t: "text", s });
  }
  return plain;
}
