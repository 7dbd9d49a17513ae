// A conversation as data: a tree of messages in which every edit or new answer is a branch, and one path is picked.
// Pure: knows no page, no store, no network. What is written here is what is stored and exported; SCHEMA counts up
// when its shape changes.
//
// conversation: { schema, id, title, named, created, updated, system, tools, effort, temperature, topP, maxTokens,
//                 model, nodes }
// node: { id, parent, children, pick, role: "root" | "user" | "assistant", content, time,
//         files: [{ name, text }]                                                        (user)
//         thinking, thinkMs, calls: [{ id, name, arguments, result }], state, finish, error, stats, model (assistant) }

export const SCHEMA = 1;
const ROOT = "root";
const TITLE_LENGTH = 60;

/** A new id; works on pages without TLS too, where crypto.randomUUID is missing. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** An empty conversation. `defaults` may set the effort, the sampling and the instructions. */
export function newConversation(defaults = {}) {
  const now = Date.now();
  return {
    schema: SCHEMA, id: newId(), title: "New chat", named: false, created: now, updated: now,
    system: "", tools: "", effort: "medium", temperature: null, topP: null, maxTokens: null, model: "", ...defaults,
    nodes: { [ROOT]: { id: ROOT, parent: null, children: [], pick: 0, role: ROOT } },
  };
}

/** Adds a message under `parent` (the root if null) and picks it. */
export function addNode(conversation, parent, fields) {
  const above = conversation.nodes[parent ?? ROOT];
  const node = { id: newId(), parent: above.id, children: [], pick: 0, content: "", time: Date.now(), ...fields };
  conversation.nodes[node.id] = node;
  above.pick = above.children.push(node.id) - 1;
  conversation.updated = node.time;
  if (!conversation.named && node.role === "user" && above.id === ROOT) conversation.title = titleOf(node);
  return node;
}

/** The messages of the picked path, first to last. */
export function pathOf(conversation) {
  const path = [];
  let node = conversation.nodes[ROOT];
  while (node.children.length) {
    node = conversation.nodes[node.children[node.pick] ?? node.children[0]];
    path.push(node);
  }
  return path;
}

/** The messages from the first to this one. */
export function pathTo(conversation, id) {
  const path = [];
  for (let node = conversation.nodes[id]; node && node.id !== ROOT; node = conversation.nodes[node.parent]) {
    path.unshift(node);
  }
  return path;
}

/** Which of its siblings a message is: { index, count }. */
export function branchOf(conversation, id) {
  const { children } = conversation.nodes[conversation.nodes[id].parent];
  return { index: children.indexOf(id), count: children.length };
}

/** Picks the sibling `step` further on. */
export function switchBranch(conversation, id, step) {
  const above = conversation.nodes[conversation.nodes[id].parent];
  const index = above.children.indexOf(id) + step;
  if (index >= 0 && index < above.children.length) above.pick = index;
}

/** Takes out a message that nothing follows (an answer that never began). */
export function removeLeaf(conversation, id) {
  const node = conversation.nodes[id];
  const above = conversation.nodes[node.parent];
  above.children = above.children.filter((child) => child !== id);
  above.pick = Math.max(0, above.children.length - 1);
  delete conversation.nodes[id];
}

/** What the server is sent for the path that ends at `id`. */
export function messagesFor(conversation, id) {
  const messages = [];
  if (conversation.system.trim()) messages.push({ role: "system", content: conversation.system });
  for (const node of pathTo(conversation, id)) {
    if (node.role === "user") messages.push({ role: "user", content: withFiles(node) });
    else messages.push(...assistantMessages(node));
  }
  return messages;
}

function withFiles(node) {
  const files = (node.files ?? []).map(({ name, text }) => {
    const fence = "`".repeat(Math.max(3, ...[...text.matchAll(/`{3,}/g)].map((run) => run[0].length + 1)));
    return `File: ${name}\n${fence}\n${text}\n${fence}`;
  });
  return [...files, node.content].filter(Boolean).join("\n\n");
}

/** An answer and the results of its calls. Thinking goes back only where a call belongs to it: the model was taught so. */
function assistantMessages(node) {
  const calls = (node.calls ?? []).filter((call) => call.result !== null && call.result !== undefined);
  if (!calls.length) return node.content ? [{ role: "assistant", content: node.content }] : [];
  const answer = { role: "assistant", content: node.content || null };
  if (node.thinking) answer.reasoning = node.thinking;
  answer.tool_calls = calls.map((call) => ({
    id: call.id, type: "function", function: { name: call.name, arguments: call.arguments },
  }));
  return [answer, ...calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: call.result }))];
}

/** The title that a first message gives. */
function titleOf(node) {
  const line = (node.content || node.files?.[0]?.name || "").trim().split("\n")[0].replace(/\s+/g, " ");
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1).trimEnd()}…` : line || "New chat";
}

/** Whether any message of the conversation contains the text (lower case). */
export function contains(conversation, needle) {
  if (conversation.title.toLowerCase().includes(needle)) return true;
  return Object.values(conversation.nodes).some((node) => node.content?.toLowerCase().includes(needle));
}

/** The text of an exported file. */
export function exportText(conversations) {
  return JSON.stringify({ format: "ossia-conversations", schema: SCHEMA, conversations }, null, 1);
}

/** The conversations in an exported file; throws an Error whose message is meant for the user. */
export function importText(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  if (file?.format !== "ossia-conversations" || !Array.isArray(file.conversations)) {
    throw new Error("This file holds no conversations exported here.");
  }
  if (file.schema > SCHEMA) throw new Error("This file comes from a newer version of the page.");
  return file.conversations.map(readConversation);
}

// Files come from anywhere: each field is read by type, and the tree is built anew, so that it has no circle.
function readConversation(given) {
  const conversation = newConversation();
  const text = (value) => (typeof value === "string" ? value : "");
  const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
  const nodes = given?.nodes;
  if (typeof nodes !== "object" || !Object.hasOwn(nodes ?? {}, ROOT)) throw new Error("A conversation in this file is broken.");
  Object.assign(conversation, {
    title: text(given.title) || "Imported chat", named: true, system: text(given.system), tools: text(given.tools),
    effort: ["low", "medium", "high"].includes(given.effort) ? given.effort : "medium",
    temperature: number(given.temperature), topP: number(given.topP), maxTokens: number(given.maxTokens),
  });
  const seen = new Set([ROOT]);
  const queue = [[nodes[ROOT], null]];
  for (let next = queue.shift(); next; next = queue.shift()) {
    const [from, parent] = next;
    for (const id of Array.isArray(from.children) ? from.children : []) {
      if (typeof id !== "string" || seen.has(id) || !Object.hasOwn(nodes, id)) continue;
      seen.add(id);
      queue.push([nodes[id], addNode(conversation, parent, readNode(nodes[id], text, number)).id]);
    }
    conversation.nodes[parent ?? ROOT].pick = Math.max(0, number(from.pick) ?? 0);
  }
  conversation.created = number(given.created) ?? conversation.created;
  conversation.updated = number(given.updated) ?? conversation.updated;
  return conversation;
}

function readNode(given, text, number) {
  const time = number(given.time) ?? Date.now();
  const list = (value) => (Array.isArray(value) ? value.filter((item) => item && typeof item === "object") : []);
  if (given.role !== "assistant") {
    const files = list(given.files).map((file) => ({ name: text(file.name), text: text(file.text) }));
    return { role: "user", content: text(given.content), time, files };
  }
  const calls = list(given.calls).map((call) => ({
    id: text(call.id), name: text(call.name), arguments: text(call.arguments),
    result: typeof call.result === "string" ? call.result : null,
  }));
  return {
    role: "assistant", content: text(given.content), time, thinking: text(given.thinking),
    thinkMs: number(given.thinkMs) ?? 0, calls, state: "done", finish: text(given.finish), model: text(given.model),
  };
}
