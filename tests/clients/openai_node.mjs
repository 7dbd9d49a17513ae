// OpenAI's Node client: chat, its tool runner, structured answers, Responses, files, errors.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages lie in a folder of their own, not beside this file.
const require = createRequire(`${process.env.CLIENT_HOME}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI, toFile, BadRequestError, AuthenticationError, NotFoundError } = await load("openai");
const { VERSION } = await load("openai/version");
const { zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const client = new OpenAI();
const model = process.env.CLIENT_MODEL ?? "nano";
const sum = [{ role: "user", content: "What is 12 plus 30?" }];
const ask = [{ role: "user", content: "What is the weather in Paris in celsius?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, unit: { type: "string", enum: ["celsius", "fahrenheit"] } },
  required: ["city", "unit"],
};
const described = { name: "get_weather", description: "Weather of a city", parameters };
const result = '{"temperature":21,"sky":"sunny"}';
const Weather = z.object({ city: z.enum(["Paris", "Rome"]), degrees: z.number().int().min(-40).max(50) });

const checks = {
  async chat() {
    const whole = await client.chat.completions.create({ model, messages: sum });
    assert.match(whole.choices[0].message.content, /42/);
    const stream = client.chat.completions.stream({ model, messages: sum, stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
    assert.equal(final.usage.completion_tokens, whole.usage.completion_tokens);
  },
  async toolRunner() {
    const calls = [];
    const run = (given) => { calls.push(given); return result; };
    const tools = [{ type: "function", function: { ...described, parse: JSON.parse, function: run } }];
    for (const stream of [false, true]) {
      const runner = client.chat.completions.runTools({ model, messages: ask, tools, stream });
      assert.match(await runner.finalContent(), /21/);
    }
    assert.deepEqual(calls, [{ city: "Paris", unit: "celsius" }, { city: "Paris", unit: "celsius" }]);
  },
  async structured() {
    const chat = await client.chat.completions.parse({
      model, messages: ask, response_format: zodResponseFormat(Weather, "weather"), max_tokens: 400,
    });
    Weather.parse(chat.choices[0].message.parsed);
    const response = await client.responses.parse({
      model, input: ask, text: { format: zodTextFormat(Weather, "weather") }, max_output_tokens: 400,
    });
    Weather.parse(response.output_parsed);
  },
  async responses() {
    const tools = [{ type: "function", strict: false, ...described }];
    const stream = client.responses.stream({ model, input: ask, tools });
    let next = 0;
    for await (const event of stream) assert.equal(event.sequence_number, next++);
    const first = await stream.finalResponse();
    const call = first.output.at(-1);
    assert.deepEqual([call.type, JSON.parse(call.arguments)], ["function_call", { city: "Paris", unit: "celsius" }]);
    const output = [{ type: "function_call_output", call_id: call.call_id, output: result }];
    const second = await client.responses.create({ model, tools, previous_response_id: first.id, input: output });
    assert.match(second.output_text, /21/);
  },
  async kept() {
    const file = await client.files.create({ file: await toFile(Buffer.from("text"), "a.txt"), purpose: "user_data" });
    assert.equal(await (await client.files.content(file.id)).text(), "text");
    await client.files.delete(file.id);
    const conversation = await client.conversations.create({});
    await client.responses.create({ model, conversation: conversation.id, input: sum });
    assert.equal((await client.conversations.items.list(conversation.id)).data.length, 3);
  },
  async errors() {
    const wrong = (promise, kind) => assert.rejects(promise, (error) => error instanceof kind);
    await wrong(client.chat.completions.create({ model, messages: sum, temperature: 9 }), BadRequestError);
    await wrong(new OpenAI({ apiKey: "sk-wrong" }).models.list(), AuthenticationError);
    await wrong(client.models.retrieve("gpt-7"), NotFoundError);
  },
  async stopped() {
    const stream = await client.chat.completions.create({ model, messages: sum, stream: true });
    for await (const _ of stream) break;
    assert.equal(stream.controller.signal.aborted, true);
    await client.models.list();
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`  ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`  FAILED  ${name}\n${error.stack}`);
  }
}
const total = Object.keys(checks).length;
console.log(`  openai (Node) ${VERSION}: ${total - failed} of ${total} checks`);
process.exit(failed > 0 ? 1 : 0);
