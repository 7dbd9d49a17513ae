// The server's public API, as any client would use it. Every failure becomes an ApiError with a kind that the page
// has words for: "gone" (no server), "key", "busy" (with seconds), "full" (context), "broken" (the stream ended
// early), "refused" (anything else, in the server's words).

import { readEvents } from "./sse.js";
import { setting } from "./settings.js";

export class ApiError extends Error {
  constructor(kind, message, seconds = null) {
    super(message);
    this.kind = kind;
    this.seconds = seconds;
  }
}

/** The models: [{ id, context }], context in tokens or null. */
export async function models() {
  const list = await (await request("/v1/models")).json();
  return list.data.map((model) => ({
    id: model.id,
    context: model.context_length ?? model.context_window ?? model.max_model_len ?? null,
  }));
}

/** Whether the server answers. */
export async function alive() {
  try {
    return (await fetch("/health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** Streams a chat completion: yields the chunks. Aborting the signal ends the generation on the server. */
export async function* streamChat(body, signal) {
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("/v1/chat/completions", { method: "POST", body: JSON.stringify(whole), signal });
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw failure(chunk.error.code === "context_length_exceeded" ? 400 : 500, chunk.error, null);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("broken", "The connection broke before the answer was whole.");
  }
  throw new ApiError("broken", "The answer ended before it was whole.");
}

async function request(path, options = {}) {
  const headers = { "content-type": "application/json" };
  if (setting("key")) headers.authorization = `Bearer ${setting("key")}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("gone", "The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw failure(response.status, body.error ?? {}, response.headers.get("retry-after"));
}

function failure(status, error, retryAfter) {
  const message = typeof error.message === "string" ? error.message : `The server answered ${status}.`;
  if (status === 401) return new ApiError("key", message);
  if (status === 429 || status === 503) return new ApiError("busy", message, Number(retryAfter) || 5);
  if (error.code === "context_length_exceeded") return new ApiError("full", message);
  if (status === 502 || status === 504) return new ApiError("gone", "The server does not answer.");
  return new ApiError("refused", message);
}
