// Markdown's blocks: headings, paragraphs, lists, quotes, tables, code fences, formulas, rules. Pure: text in, blocks
// out; it never fails and reads each line a bounded number of times. Lenient where models are: list items may be
// indented by any amount, there is no indented code, a fence that is not closed runs to the end.
//
// A block is { t: "heading", level, text } | { t: "para", text } | { t: "code", lang, text, closed } | { t: "hr" }
// | { t: "math", text } | { t: "quote", blocks } | { t: "list", ordered, start, loose, items: [{ task, blocks }] }
// | { t: "table", align, head, rows }; each has `line`, where it begins, and `apart`: no
// other block stands right above it.

const MAX_DEPTH = 12;
const MAX_COLUMNS = 64;
const MAX_MATH_LINES = 200;
const FENCE = /^\s*(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)(.*)$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|$)/;
const QUOTE = /^\s{0,3}>/;
const ENVIRONMENT = /^\s*\\begin\{((?:equation|align|aligned|gather|gathered|multline|split|cases|[pbBvV]?matrix)\*?)\}/;

/** The blocks of a text. */
export function parseMarkdown(text) {
  return blocksOf(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

function blocksOf(lines, depth) {
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    if (!lines[i].trim()) {
      i++;
      continue;
    }
    const [block, next] = blockAt(lines, i, depth);
    Object.assign(block, { line: i, apart: i === 0 || !lines[i - 1].trim() });
    blocks.push(block);
    i = next;
  }
  return blocks;
}

/** The block that begins at line i, and the line after it. */
function blockAt(lines, i, depth) {
  const line = lines[i];
  const heading = HEADING.exec(line);
  if (heading) return [{ t: "heading", level: heading[1].length, text: withoutClosing(heading[2]) }, i + 1];
  const fence = FENCE.exec(line);
  if (fence) return codeAt(lines, i, fence);
  if (RULE.test(line)) return [{ t: "hr" }, i + 1];
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(line)) return quoteAt(lines, i, depth);
    const item = ITEM.exec(line);
    if (item) return listAt(lines, i, item, depth);
  }
  return mathAt(lines, i) ?? tableAt(lines, i) ?? paragraphAt(lines, i, depth);
}

function withoutClosing(text) {
  const trimmed = text.trim();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end--;
  return end === 0 || trimmed[end - 1] === " " ? trimmed.slice(0, end).trim() : trimmed;
}

function codeAt(lines, i, fence) {
  const indent = indentOf(lines[i]);
  const marker = fence[1];
  const text = [];
  let closed = false;
  for (i++; i < lines.length && !closed; i++) {
    const trimmed = lines[i].trim();
    closed = trimmed.length >= marker.length && trimmed === marker[0].repeat(trimmed.length);
    if (!closed) text.push(strip(lines[i], indent));
  }
  const lang = (/^[^\s{,:]+/.exec(fence[2]) ?? [""])[0].toLowerCase();
  return [{ t: "code", lang, text: text.join("\n"), closed }, i];
}

function quoteAt(lines, i, depth) {
  const inside = [];
  for (; i < lines.length; i++) {
    if (QUOTE.test(lines[i])) inside.push(lines[i].replace(/^\s{0,3}> ?/, ""));
    else if (lazy(lines[i], inside[inside.length - 1])) inside.push(lines[i]);
    else break;
  }
  return [{ t: "quote", blocks: blocksOf(inside, depth + 1) }, i];
}

/** A line that goes on with the paragraph above without its marker. */
function lazy(line, above) {
  return Boolean(line.trim() && above?.trim()) && !begins(line) && !FENCE.test(above) && !HEADING.test(above);
}

/** Whether a line begins a block that can interrupt a paragraph. */
function begins(line) {
  const item = ITEM.exec(line);
  const interrupts = item && item[4]?.trim() && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1);
  return Boolean(interrupts) || HEADING.test(line) || FENCE.test(line) || RULE.test(line) || QUOTE.test(line);
}

function listAt(lines, i, first, depth) {
  const base = widthOf(first[1]);
  const ordered = /\d/.test(first[2]);
  const list = { t: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, loose: false, items: [] };
  const mark = first[2].slice(-1);
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || widthOf(item[1]) >= base + 2 || item[2].slice(-1) !== mark || RULE.test(lines[i])) break;
    const [inside, next] = itemLines(lines, i, item, base);
    list.items.push(itemOf(inside, depth));
    i = next;
    let after = i;
    while (after < lines.length && !lines[after].trim()) after++;
    const another = after < lines.length && ITEM.exec(lines[after]);
    const goesOn = another && another[2].slice(-1) === mark && widthOf(another[1]) < base + 2;
    if (after > i && goesOn) list.loose = true;
    if (goesOn) i = after;
  }
  list.loose ||= list.items.some((item) => item.blocks.filter((block) => block.t === "para").length > 1);
  return [list, i];
}

/** The lines of one item without its marker and indentation, and the line after them. */
function itemLines(lines, i, item, base) {
  const spaces = widthOf(item[3] ?? " ");
  const indent = widthOf(item[1]) + item[2].length + (spaces > 4 ? 1 : spaces);
  const inside = [item[4] ?? ""];
  let end = i + 1;
  for (let j = i + 1; j < lines.length; j++) {
    const line = lines[j];
    if (!line.trim()) {
      inside.push("");
      continue;
    }
    const width = indentOf(line);
    const nested = width >= indent || (width >= base + 2 && ITEM.test(line));
    if (!nested && !(j === end && lazy(line, inside[inside.length - 1]) && !ITEM.test(line))) break;
    inside.push(strip(line, indent));
    end = j + 1;
  }
  inside.length = end - i;
  return [inside, end];
}

function itemOf(inside, depth) {
  const box = /^\[([ xX])\]\s+/.exec(inside[0]);
  if (box) inside[0] = inside[0].slice(box[0].length);
  return { task: box ? box[1] !== " " : null, blocks: blocksOf(inside, depth + 1) };
}

/** A formula that stands alone: $$…$$, \[…\] or an environment; null if it is not closed before a blank line. */
function mathAt(lines, i) {
  const line = lines[i].trim();
  const environment = ENVIRONMENT.exec(line);
  const opener = line.startsWith("$$") ? "$$" : line.startsWith("\\[") ? "\\[" : environment ? "" : null;
  if (opener === null) return null;
  const closer = environment ? `\\end{${environment[1]}}` : opener === "$$" ? "$$" : "\\]";
  const text = [];
  for (let j = i; j < Math.min(lines.length, i + MAX_MATH_LINES) && lines[j].trim(); j++) {
    const rest = j === i ? line.slice(opener.length) : lines[j];
    const end = rest.indexOf(closer);
    text.push(end < 0 ? rest : rest.slice(0, environment ? end + closer.length : end));
    if (end < 0) continue;
    const after = rest.slice(end + closer.length).trim();
    if (after.length > 1) return null; // a sentence that begins with a formula
    return [{ t: "math", text: text.join("\n").trim() + (/[.,;]/.test(after) ? after : "") }, j + 1];
  }
  return null;
}

function tableAt(lines, i) {
  if (!lines[i].includes("|") || i + 1 >= lines.length || !/^[\s|:-]+$/.test(lines[i + 1])) return null;
  const head = cells(lines[i]);
  const marks = cells(lines[i + 1]);
  if (head.length !== marks.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  const align = marks.map((m) => (m.endsWith(":") ? (m[0] === ":" ? "center" : "right") : m[0] === ":" ? "left" : ""));
  const rows = [];
  for (i += 2; i < lines.length && lines[i].trim() && lines[i].includes("|") && !FENCE.test(lines[i]); i++) {
    const row = cells(lines[i]).slice(0, head.length);
    while (row.length < head.length) row.push("");
    rows.push(row);
  }
  return [{ t: "table", align, head, rows }, i];
}

function cells(line) {
  const found = [];
  let cell = "";
  const row = line.trim().replace(/^\|/, "");
  for (let i = 0; i < row.length; i++) {
    if (row[i] === "\\" && row[i + 1] === "|") cell += row[++i];
    else if (row[i] === "|") {
      found.push(cell.trim());
      cell = "";
    } else cell += row[i];
  }
  if (cell.trim()) found.push(cell.trim());
  return found.slice(0, MAX_COLUMNS);
}

function paragraphAt(lines, i, depth) {
  const text = [lines[i]];
  for (i++; i < lines.length && lines[i].trim(); i++) {
    if (depth < MAX_DEPTH && (begins(lines[i]) || tableAt(lines, i) || mathAt(lines, i))) break;
    text.push(lines[i].trimStart());
  }
  return [{ t: "para", text: text.join("\n").trim() }, i];
}

function widthOf(space) {
  let width = 0;
  for (const c of space) width += c === "\t" ? 4 - (width % 4) : 1;
  return width;
}

function indentOf(line) {
  return widthOf(/^\s*/.exec(line)[0]);
}

/** The line without its first `width` columns of blank. */
function strip(line, width) {
  let i = 0;
  let gone = 0;
  while (gone < width && (line[i] === " " || line[i] === "\t")) gone += line[i++] === "\t" ? 4 - (gone % 4) : 1;
  return " ".repeat(Math.max(0, gone - width)) + line.slice(i);
}
