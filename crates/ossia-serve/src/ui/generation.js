// One answer being written: asks the server, and writes what comes into the answer's node. However it ends (whole,
// stopped, refused, connection lost), the node is left closed: its thinking has a duration, its state is not
// "streaming", and what had come stays.

import { ApiError, streamChat } from "./api.js";
import { messagesFor } from "./tree.js";

/** Below this, seconds, what the browser hands over at once decides how fast an answer seems: no rate is told. */
const SHORTEST_RATE = 0.1;

/** The fields of an answer that has not begun. */
export function blankAnswer(model) {
  return {
    role: "assistant", thinking: "", thinkMs: 0, calls: [], state: "streaming", finish: null, error: null,
    stats: null, model,
  };
}

/** Runs one generation into `node`; `onchange` after each change. Never throws. */
export async function generate(conversation, node, signal, onchange) {
  const clock = { start: performance.now(), first: null, last: null, think: null };
  try {
    const body = requestBody(conversation, node);
    for await (const chunk of streamChat(body, signal)) {
      take(node, chunk, clock);
      onchange();
    }
    node.state = "done";
  } catch (error) {
    node.state = error.name === "AbortError" ? "stopped" : "failed";
    if (node.state === "failed") node.error = describe(error);
  }
  closeThinking(node, clock);
  onchange();
}

function requestBody(conversation, node) {
  const body = { messages: messagesFor(conversation, node.parent), reasoning_effort: conversation.effort };
  if (node.model) body.model = node.model;
  if (conversation.temperature !== null) body.temperature = conversation.temperature;
  if (conversation.topP !== null) body.top_p = conversation.topP;
  if (conversation.maxTokens !== null) body.max_completion_tokens = conversation.maxTokens;
  const tools = conversation.tools.trim() ? readTools(conversation.tools) : [];
  if (tools.length) body.tools = tools;
  return body;
}

/** The tools of a chat from their JSON text: a list of functions, bare or as the API wraps them. */
export function readTools(text) {
  let list;
  try {
    list = JSON.parse(text);
  } catch {
    throw new ApiError("refused", "The tools of this chat are not JSON.");
  }
  if (!Array.isArray(list)) list = [list];
  const tools = list.map((tool) => (tool?.function ? tool : { type: "function", function: tool }));
  if (!tools.every((tool) => typeof tool.function?.name === "string")) {
    throw new ApiError("refused", "Each tool of this chat needs a name.");
  }
  return tools;
}

/** Adds one chunk to the node. */
function take(node, chunk, clock) {
  const now = performance.now();
  if (chunk.usage) node.stats = statsOf(chunk.usage, clock);
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const { reasoning, content, tool_calls: calls } = choice.delta ?? {};
  if (reasoning || content || calls?.length) {
    clock.first ??= now;
    clock.last = now;
  }
  if (reasoning) {
    clock.think ??= now;
    node.thinking += reasoning;
  }
  if (content || calls?.length) closeThinking(node, clock);
  if (content) node.content += content;
  for (const call of calls ?? []) takeCall(node, call);
  if (choice.finish_reason) node.finish = choice.finish_reason;
}

function takeCall(node, part) {
  const call = (node.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "", result: null });
  if (part.id) call.id = part.id;
  if (part.function?.name) call.name = part.function.name;
  if (part.function?.arguments) call.arguments += part.function.arguments;
}

function closeThinking(node, clock) {
  if (clock.think === null) return;
  node.thinkMs += performance.now() - clock.think;
  clock.think = null;
}

/** What is shown under an answer, of its `usage` and the times of its `first` and `last` piece. */
export function statsOf(usage, clock) {
  const seconds = (clock.last - clock.first) / 1000;
  return {
    promptTokens: usage.prompt_tokens,
    cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    tokens: usage.completion_tokens,
    reasoningTokens: usage.completion_tokens_details?.reasoning_tokens ?? 0,
    ttftMs: clock.first === null ? null : clock.first - clock.start,
    perSecond: seconds >= SHORTEST_RATE && usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / seconds : null,
  };
}

function describe(error) {
  if (error instanceof ApiError) {
    const until = error.seconds === null ? null : Date.now() + error.seconds * 1000;
    return { kind: error.kind, message: error.message, until };
  }
  return { kind: "broken", message: "The server's answer could not be read.", until: null };
}
