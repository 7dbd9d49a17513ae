// Uses the page as `ossia serve` serves it, in headless Chromium: an answer, another one, stop, a tool call where the
// model makes one. What a model says is not fixed, so only the page's side is judged. URL is the address the server
// printed (with the key); PLAYWRIGHT and CHROMIUM as in browser.mjs.
//   URL='http://127.0.0.1:8000/#key=…' PLAYWRIGHT=… node tests/ui/real.mjs [folder for screenshots]

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT ?? "playwright-core");
const shots = process.argv[2];
if (shots) mkdirSync(shots, { recursive: true });
const base = new URL(process.env.URL).origin;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 860 }, reducedMotion: "reduce" });
page.setDefaultTimeout(20_000);
const faults = [];
page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
page.on("pageerror", (error) => faults.push(String(error.stack ?? error)));
page.on("request", (request) => !request.url().startsWith(base) && !/^(blob|data):/.test(request.url()) && faults.push(`asked ${request.url()}`));
const shot = (name) => (shots ? page.screenshot({ path: `${shots}/${name}.png` }) : null);

async function say(text) {
  const before = await page.locator(".message").count();
  await page.locator("#write").fill(text);
  await page.locator("#write").press("Enter");
  await page.locator(".message").nth(before + 1).waitFor({ state: "attached" });
  await page.locator(".send.stop").waitFor({ state: "detached", timeout: 120_000 });
}

await page.goto(process.env.URL);
await page.locator(".side-foot .grow, .tools select").first().waitFor();
assert.equal(new URL(page.url()).hash, "", "the key left the address");
await say("What is 12 + 30?");
console.log("answer:", await page.locator(".message.assistant .prose").last().textContent());
await page.locator(".stats").waitFor();
console.log("stats:", await page.locator(".stats").textContent());
await shot("real-answer");
await page.getByRole("button", { name: "Answer again" }).last().click();
await page.locator(".assistant .branches", { hasText: "2/2" }).waitFor();
await page.locator(".send.stop").waitFor({ state: "detached" });
await say("And twice that?");
await shot("real-second");

await page.keyboard.press("Control+Shift+O");
await page.getByRole("button", { name: "Settings of this chat" }).click();
await page.getByLabel("Tools").fill(JSON.stringify([{
  name: "get_weather", description: "Weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
}]));
await page.getByRole("button", { name: "Save" }).click();
await say("What is the weather in Paris?");
await shot("real-tool");
if (await page.locator(".call form").count()) {
  console.log("call:", await page.locator(".call pre").first().textContent());
  await page.locator(".call textarea").fill('{"temperature": 21, "sky": "clear"}');
  await page.getByRole("button", { name: "Send result" }).click();
  await page.locator(".message.assistant").nth(1).waitFor();
  await page.locator(".send.stop").waitFor({ state: "detached" });
  await shot("real-tool-done");
}
await page.reload();
await page.locator(".message").nth(1).waitFor();
assert.deepEqual(faults, []);
await browser.close();
console.log("ok");
