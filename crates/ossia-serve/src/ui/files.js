// Attached text files: read in the browser, checked, and sent within the message. Nothing is uploaded elsewhere.

import { h, icon, iconButton } from "./dom.js";

export const MAX_FILE = 512 * 1024;
export const MAX_ALL = 1024 * 1024;
export const MAX_FILES = 10;
const LONG_PASTE = 5000; // more characters than this become a file of their own

/** Reads a file as text; throws an Error whose message is meant for the user. */
export async function readTextFile(file) {
  if (file.size > MAX_FILE) throw new Error(`${file.name} is too large (${size(file.size)}; at most ${size(MAX_FILE)}).`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (text.includes("\0")) throw new Error("binary");
    return { name: file.name, text };
  } catch {
    throw new Error(`${file.name} is not a text file.`);
  }
}

/** What was pasted or dropped: files, or a long text as one; null if it is to be pasted as usual. */
export function filesIn(transfer) {
  if (transfer.files.length) return [...transfer.files];
  const text = transfer.getData("text/plain");
  return text.length > LONG_PASTE ? [new File([text], "Pasted text.txt")] : null;
}

/** A file as a chip, with a button to take it off if `remove` is given. */
export function chip(file, remove) {
  return h("span", { class: "chip", title: file.name }, icon("file"), h("b", null, file.name), h("small", null, size(file.text.length)),
    remove ? iconButton("close", `Remove ${file.name}`, remove) : null);
}

function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1024 * 1024 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
