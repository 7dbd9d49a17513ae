// Server-sent events, as chat completions stream them. Takes text in pieces of any size and gives whole events;
// knows no network, so that it can be tested alone.

const MAX_EVENT = 16 * 1024 * 1024; // a line longer than this is no event of ours

/** Cuts a stream of text into the `data` of its events. */
export class SseParser {
  #rest = "";
  #data = [];

  /** Adds text; returns the data of every event that is now complete. */
  push(text) {
    const events = [];
    // A carriage return may be the first half of a line end: it waits for the next piece.
    let buffer = this.#rest + text;
    const keep = buffer.endsWith("\r") ? 1 : 0;
    const lines = buffer.slice(0, buffer.length - keep).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + buffer.slice(buffer.length - keep);
    if (this.#rest.length > MAX_EVENT) throw new Error("the server sent an endless line");
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}

/** Reads a response's body as events: yields each event's data until the body ends. */
export async function* readEvents(body) {
  const parser = new SseParser();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // a reader that is already closed or aborted has nothing left to cancel
  }
}
