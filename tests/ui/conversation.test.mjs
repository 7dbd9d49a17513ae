// The stream's events, and conversations: branches, what the server is sent, export and import.

import assert from "node:assert/strict";
import { test } from "node:test";
import { statsOf } from "../../crates/ossia-serve/src/ui/generation.js";
import { rate } from "../../crates/ossia-serve/src/ui/message.js";
import { SseParser } from "../../crates/ossia-serve/src/ui/sse.js";
import * as tree from "../../crates/ossia-serve/src/ui/tree.js";

test("events in any pieces", () => {
  const text = 'data: {"a":1}\n\n: a comment\r\ndata:two\r\ndata: lines\r\n\r\nevent: x\nid: 4\ndata: é😀\n\ndata: [DONE]\n\n';
  const wanted = ['{"a":1}', "two\nlines", "é😀", "[DONE]"];
  for (let size = 1; size < 20; size++) {
    const parser = new SseParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(events, wanted, `pieces of ${size}`);
  }
});

test("an event that is not ended does not count", () => assert.deepEqual(new SseParser().push("data: a\n"), []));

test("an endless line is refused", () => assert.throws(() => new SseParser().push("x".repeat(17 * 1024 * 1024)), /endless/));

test("how fast an answer came is told where it can be known", () => {
  const usage = { prompt_tokens: 82, completion_tokens: 38 };
  const speed = (ms) => statsOf(usage, { start: 0, first: 48, last: 48 + ms }).perSecond;
  assert.equal(speed(0.6), null, "all of it at once");
  assert.equal(speed(1000), 37);
  assert.deepEqual([0.37, 9.94, 9.96, 37.2, 2350].map(rate), ["0.4", "9.9", "10", "37", "2,350"]);
});

function talk() {
  const c = tree.newConversation({ system: "Be brief." });
  const ask = tree.addNode(c, null, { role: "user", content: "Hi", files: [] });
  const answer = tree.addNode(c, ask.id, { role: "assistant", content: "Hello", thinking: "greet", calls: [] });
  return { c, ask, answer };
}

test("branches", () => {
  const { c, ask, answer } = talk();
  const second = tree.addNode(c, ask.id, { role: "assistant", content: "Good day", calls: [] });
  assert.deepEqual(tree.pathOf(c).map((n) => n.content), ["Hi", "Good day"]);
  assert.deepEqual(tree.branchOf(c, second.id), { index: 1, count: 2 });
  tree.switchBranch(c, second.id, -1);
  assert.deepEqual(tree.pathOf(c).at(-1), answer);
  tree.switchBranch(c, answer.id, -1);
  assert.equal(tree.pathOf(c).at(-1), answer, "there is none before the first");
  tree.removeLeaf(c, second.id);
  assert.deepEqual(tree.branchOf(c, answer.id), { index: 0, count: 1 });
});

test("what the server is sent", () => {
  const { c, answer } = talk();
  const next = tree.addNode(c, answer.id, { role: "user", content: "Read", files: [{ name: "a.md", text: "```\nx\n```" }] });
  assert.deepEqual(tree.messagesFor(c, next.id), [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello" },
    { role: "user", content: "File: a.md\n````\n```\nx\n```\n````\n\nRead" },
  ]);
});

test("thinking goes back with its call, and only there", () => {
  const { c, ask } = talk();
  const call = { id: "c1", name: "f", arguments: "{}", result: "42" };
  const node = tree.addNode(c, ask.id, { role: "assistant", content: "", thinking: "use f", calls: [call, { ...call, id: "c2", result: null }] });
  const [, , answer, result, ...rest] = tree.messagesFor(c, node.id);
  assert.equal(answer.reasoning, "use f");
  assert.deepEqual(answer.tool_calls, [{ id: "c1", type: "function", function: { name: "f", arguments: "{}" } }]);
  assert.deepEqual(result, { role: "tool", tool_call_id: "c1", content: "42" });
  assert.deepEqual(rest, []);
});

test("an answer that never came is not sent", () => {
  const { c, ask } = talk();
  const node = tree.addNode(c, ask.id, { role: "assistant", content: "", thinking: "hm", calls: [] });
  assert.deepEqual(tree.messagesFor(c, node.id).map((m) => m.role), ["system", "user"]);
});

test("titles", () => {
  const title = (content, files = []) => {
    const c = tree.newConversation();
    tree.addNode(c, null, { role: "user", content, files });
    return c.title;
  };
  assert.equal(title("  One\ntwo"), "One");
  assert.equal(title("", [{ name: "a.txt" }]), "a.txt");
  assert.equal(title("x".repeat(100)).length, 60);
});

test("export and import keep the tree", () => {
  const { c, ask } = talk();
  tree.addNode(c, ask.id, { role: "assistant", content: "Second", thinking: "", calls: [{ id: "1", name: "f", arguments: "{}", result: "r" }] });
  const [read] = tree.importText(tree.exportText([c]));
  const shape = (conversation) => tree.pathOf(conversation).map((n) => [n.role, n.content, n.calls?.length ?? null]);
  assert.deepEqual(shape(read), shape(c));
  assert.notEqual(read.id, c.id, "an import never overwrites");
  assert.equal(read.system, "Be brief.");
});

const wrong = {
  "not JSON": "{", "a list": "[]", nothing: "null", "another format": '{"format":"x"}', "newer": '{"format":"ossia-conversations","schema":99,"conversations":[]}',
  "no nodes": '{"format":"ossia-conversations","schema":1,"conversations":[{}]}',
};
for (const [name, text] of Object.entries(wrong)) test(`import refuses ${name}`, () => assert.throws(() => tree.importText(text), Error));

test("an import with circles, strangers and wrong types still is a tree", () => {
  const root = { id: "root", children: ["a", "a", "x", 7, "root", "__proto__"], pick: "no" };
  const a = { role: "root", content: 5, children: ["b"], files: [null, { name: 1 }] };
  const b = { role: "assistant", content: "ok", children: ["a", "root"], calls: "no", pick: -9 };
  const text = JSON.stringify({ format: "ossia-conversations", schema: 1, conversations: [{ title: {}, effort: "max", nodes: { root, a, b } }] });
  const [read] = tree.importText(text);
  assert.deepEqual(tree.pathOf(read).map((n) => [n.role, n.content]), [["user", ""], ["assistant", "ok"]]);
  assert.equal(read.effort, "medium");
});
