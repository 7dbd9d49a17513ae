// Colours code: cuts a text into comments, strings, numbers, keywords and names by one regular expression per
// language. Not a parser: it must be quick and never fail on code that is half written. Every token moves forward and
// no pattern looks back, so the time is in proportion to the text.

import { LANGUAGES, NAMES } from "./languages.js";

const MAX_LENGTH = 200_000; // beyond this, plain

/** Pieces { c: class or null, s: text } that make up the code. */
export function highlight(code, name) {
  const language = LANGUAGES[NAMES.get(name)?.[0]];
  if (!language || code.length > MAX_LENGTH) return [{ c: null, s: code }];
  const pieces = [];
  const pattern = new RegExp(language.pattern.source, language.pattern.flags);
  let at = 0;
  for (let found = pattern.exec(code); found; found = pattern.exec(code)) {
    if (found[0] === "") {
      pattern.lastIndex++;
      continue;
    }
    if (found.index > at) add(pieces, null, code.slice(at, found.index));
    add(pieces, classOf(found, language, code), found[0]);
    at = pattern.lastIndex;
  }
  if (at < code.length) add(pieces, null, code.slice(at));
  return pieces;
}

/** How a language is called, or undefined. */
export function languageName(name) {
  return NAMES.get(name)?.[1];
}

function add(pieces, c, s) {
  const last = pieces[pieces.length - 1];
  if (last && last.c === c) last.s += s;
  else pieces.push({ c, s });
}

function classOf(found, language, code) {
  for (const [group, text] of Object.entries(found.groups)) {
    if (text === undefined) continue;
    if (group !== "name") return group;
    const word = language.anyCase ? text.toLowerCase() : text;
    if (language.keywords.has(word)) return "kw";
    if (language.types.has(word)) return "typ";
    return code[found.index + text.length] === "(" ? "fn" : null;
  }
  return null;
}
