// A stand-in for the server, for working on the page and for its browser test: serves the page's files with the real
// headers, and answers chat completions with canned streams. A word in the last message chooses what comes:
// table, code, math, tool, slow, long, huge, busy, full, broken, hostile, empty. No dependencies.
//   node tests/ui/mock.mjs [port]

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { answers, thoughts } from "./canned.mjs";

const FOLDER = new URL("../../crates/ossia-serve/src/ui/", import.meta.url);
const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8", svg: "image/svg+xml" };
const CSP = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
const CONTEXT = 4096;

/** What was asked, latest last; tests look at it. */
export const requests = [];
let busyLeft = 1;

/** Starts the server; `state.down` makes it hang up, `state.key` asks for a key. */
export function start(port = 0, state = {}) {
  const server = createServer((request, response) => {
    if (state.down) return request.socket.destroy();
    return answer(request, response, state).catch(() => response.destroy());
  });
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

async function answer(request, response, state) {
  const path = new URL(request.url, "http://x").pathname;
  if (path === "/" || path.startsWith("/ui/")) return asset(path === "/" ? "index.html" : path.slice(4), response);
  if (path === "/health") return json(response, 200, { status: "ok" });
  if (state.key && request.headers.authorization !== `Bearer ${state.key}`) {
    return json(response, 401, { error: { message: "Incorrect API key.", type: "invalid_request_error", param: null, code: "invalid_api_key" } });
  }
  if (path === "/v1/models") return json(response, 200, { object: "list", data: [{ id: "gpt-oss-20b", object: "model", context_length: CONTEXT }] });
  if (path === "/v1/chat/completions") return chat(request, response);
  return json(response, 404, { error: { message: "No such route." } });
}

async function asset(name, response) {
  const body = await readFile(fileURLToPath(new URL(name, FOLDER)));
  response.writeHead(200, { "content-type": TYPES[name.split(".").pop()], "content-security-policy": CSP, "x-content-type-options": "nosniff" });
  response.end(body);
}

function json(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

async function chat(request, response) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = JSON.parse(Buffer.concat(pieces).toString());
  requests.push(body);
  const last = body.messages.at(-1);
  const words = last.role === "tool" ? "toolresult" : last.content.toLowerCase();
  const has = (word) => words.includes(word);
  if (has("busy") && busyLeft-- > 0) return json(response, 429, { error: { message: "Too many requests." } }, { "retry-after": "2" });
  if (has("full")) {
    return json(response, 400, { error: { message: "This model's context is 4096 tokens. Your prompt has 5120 tokens. Shorten the prompt.", code: "context_length_exceeded" } });
  }
  return stream(body, has, response);
}

async function stream(body, has, response) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (delta, finish = null) => event(response, { choices: [{ index: 0, delta, finish_reason: finish }] });
  const pause = has("slow") ? 60 : has("huge") ? 0 : has("long") ? 3 : 8;
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const thought = body.reasoning_effort === "low" ? "" : has("toolresult") ? thoughts.result : thoughts.usual;
  send({ role: "assistant", content: "" });
  for (const piece of tokens(thought)) {
    send({ reasoning: piece });
    await wait(pause);
  }
  const kind = Object.keys(answers).find(has);
  const text = has("empty") || (has("tool") && !has("toolresult")) ? "" : answers[kind ?? "usual"];
  let count = 0;
  for (const piece of tokens(text)) {
    if (response.destroyed) return;
    send({ content: piece });
    if (pause === 0 && ++count % 50) continue;
    if (has("broken") && ++count > 12) return response.destroy();
    await wait(pause);
  }
  const calls = has("tool") && !has("toolresult");
  if (calls) await callTool(send, wait, pause);
  send({}, calls ? "tool_calls" : "stop");
  const written = tokens(text).length + tokens(thought).length + 4;
  event(response, {
    choices: [],
    usage: {
      prompt_tokens: 312, completion_tokens: written, total_tokens: 312 + written,
      prompt_tokens_details: { cached_tokens: 256 }, completion_tokens_details: { reasoning_tokens: tokens(thought).length },
    },
  });
  response.end("data: [DONE]\n\n");
}

async function callTool(send, wait, pause) {
  const call = (part) => send({ tool_calls: [{ index: 0, ...part }] });
  call({ id: "call_1", type: "function", function: { name: "get_weather", arguments: "" } });
  for (const piece of ['{"city"', ':"Lis', 'bon","days"', ":3,\"units", '":"metric"}']) {
    call({ function: { arguments: piece } });
    await wait(pause);
  }
}

function event(response, data) {
  response.write(`data: ${JSON.stringify({ object: "chat.completion.chunk", model: "gpt-oss-20b", ...data })}\n\n`);
}

function tokens(text) {
  return text.match(/\s*\S{1,6}|\s+/g) ?? [];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await start(Number(process.argv[2] ?? 8123));
  console.log(`http://127.0.0.1:${server.address().port}/`);
}
