// Goes through the page's features in headless Chromium, against the stand-in server: at desktop and phone width, dark
// and light. Needs playwright-core, in a folder named by PLAYWRIGHT, and Chromium (CHROMIUM, else /usr/bin/chromium).
//   PLAYWRIGHT=/some/node_modules/playwright-core node tests/ui/browser.mjs [folder for screenshots]
// Any error on the page's console, a refused policy and a request to elsewhere fail it.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { requests, start } from "./mock.mjs";

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT ?? "playwright-core");
const shots = process.argv[2];
if (shots) mkdirSync(shots, { recursive: true });
const only = process.env.ONLY;

const state = {};
const server = await start(0, state);
const base = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});

const DESKTOP = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };

async function open(options = {}) {
  const context = await browser.newContext({
    viewport: options.phone ? PHONE : DESKTOP, colorScheme: options.dark ? "dark" : "light", deviceScaleFactor: options.phone ? 2 : 1,
    hasTouch: Boolean(options.phone), reducedMotion: "reduce", acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  page.faults = [];
  page.on("console", (message) => message.type() === "error" && !/Failed to load resource/.test(message.text()) && page.faults.push(message.text()));
  page.on("pageerror", (error) => page.faults.push(String(error.stack ?? error)));
  page.on("request", (request) => !request.url().startsWith(base) && !/^(blob|data):/.test(request.url()) && page.faults.push(`asked ${request.url()}`));
  await page.goto(base + (options.at ?? "/"));
  await page.locator("#write").waitFor();
  return page;
}

async function say(page, text) {
  const before = await page.locator(".message").count();
  await page.locator("#write").fill(text);
  await page.locator("#write").press("Enter");
  await page.locator(".message").nth(before + 1).waitFor({ state: "attached" });
}

async function answered(page) {
  await page.locator(".send.stop").waitFor({ state: "detached", timeout: 20_000 });
  await page.locator('.message.assistant:last-of-type[aria-busy="false"]').waitFor();
}

async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png` });
}

const tests = {
  async "the empty page, an answer, its thinking and figures"() {
    const page = await open();
    await shot(page, "welcome");
    await say(page, "Why is the sky blue?");
    await page.locator(".thinking.now").waitFor();
    assert.equal(await page.locator(".thinking .prose").isVisible(), false, "thinking is collapsed");
    await answered(page);
    assert.match(await page.locator(".thinking summary").textContent(), /^Thought for \d/);
    await page.locator(".thinking summary").click();
    assert.match(await page.locator(".thinking .prose").textContent(), /answer directly/);
    assert.match(await page.locator(".stats").textContent(), /tok\/s.*first token.*tokens.*of 4,096 context/);
    assert.equal(await page.title(), "Why is the sky blue? · Ossia");
    await shot(page, "answer");
    return page;
  },
  async "tables, code and mathematics"() {
    const page = await open();
    for (const [word, selector] of [["table", ".prose table"], ["code", ".code .hl-kw"], ["math", "math mfrac"]]) {
      await say(page, `Show me ${word}`);
      await answered(page);
      assert.ok(await page.locator(selector).count());
      await shot(page, word);
    }
    await page.locator(".copy-code").first().click();
    await page.locator(".copy-code.done").waitFor();
    assert.equal(await page.locator("math .unknown").count(), 1);
    await page.locator("#scroller").evaluate((e) => (e.scrollTop = e.scrollHeight * 0.3));
    await shot(page, "code-top");
    return page;
  },
  async "dark, and the theme switch"() {
    const page = await open({ dark: true });
    await say(page, "table");
    await answered(page);
    await shot(page, "dark-table");
    await say(page, "code");
    await answered(page);
    await shot(page, "dark-code");
    await page.getByRole("button", { name: "Dark or light" }).click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
    await page.reload();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
    assert.equal(await page.locator(".message").count(), 4, "the chat is there after a reload");
    return page;
  },
  async "edit, regenerate and branches"() {
    const page = await open();
    await say(page, "First question");
    await answered(page);
    await page.getByRole("button", { name: "Answer again" }).last().click();
    await page.locator(".assistant .branches", { hasText: "2/2" }).waitFor();
    await answered(page);
    await page.getByRole("button", { name: "Version before" }).click();
    await page.locator(".assistant .branches", { hasText: "1/2" }).waitFor();
    await page.locator(".message.user").hover();
    await page.getByRole("button", { name: "Edit this message" }).click();
    await shot(page, "edit");
    await page.getByLabel("Edit your message").fill("Another question: table");
    await page.getByLabel("Edit your message").press("Enter");
    await page.locator(".user .branches", { hasText: "2/2" }).waitFor();
    await answered(page);
    await shot(page, "branches");
    await page.locator(".user").getByRole("button", { name: "Version before" }).click();
    await page.locator(".bubble", { hasText: "First question" }).waitFor();
    assert.deepEqual(requests.at(-1).messages, [{ role: "user", content: "Another question: table" }]);
    return page;
  },
  async "stop, and scrolling that lets go"() {
    const page = await open();
    await say(page, "long");
    await page.locator(".prose li:nth-child(30)").waitFor({ timeout: 20_000 });
    await page.mouse.move(640, 400);
    await page.mouse.wheel(0, -400);
    const before = await page.locator("#scroller").evaluate((e) => e.scrollTop);
    await page.locator(".to-end").waitFor();
    await shot(page, "let-go");
    await page.locator(".prose li:nth-child(36)").waitFor({ timeout: 20_000 });
    assert.ok(Math.abs((await page.locator("#scroller").evaluate((e) => e.scrollTop)) - before) < 5, "stays where the reader is");
    await page.locator(".to-end").click();
    await answered(page);
    await say(page, "slow");
    await page.locator(".thinking.now").last().waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("Stopped.").waitFor();
    assert.match(await page.locator(".thinking summary").last().textContent(), /Thought for/, "a stopped thinking block is closed");
    await shot(page, "stopped");
    return page;
  },
  async "a huge answer leaves the page quick"() {
    const page = await open();
    await page.evaluate(() => {
      window.longest = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((e) => (window.longest = Math.max(window.longest, e.duration)))).observe({ type: "longtask" });
    });
    await say(page, "huge");
    await page.locator(".copy-code").waitFor();
    await page.locator("#write").fill("typed meanwhile");
    await page.getByText("Done.").waitFor({ timeout: 60_000 });
    console.log(`      longest task ${await page.evaluate(() => window.longest)} ms`);
    return page;
  },
  async "tool calls"() {
    const page = await open();
    await page.getByRole("button", { name: "Settings of this chat" }).click();
    await page.getByLabel("Tools").fill('[{"name": "get_weather", "parameters": {"type": "object"}}]');
    await page.getByLabel("Instructions").fill("Be brief.");
    await page.getByLabel("Temperature").fill("0.5");
    await shot(page, "chat-settings");
    await page.getByRole("button", { name: "Save" }).click();
    await say(page, "Use the tool please");
    await answered(page);
    assert.match(await page.locator(".call pre").first().textContent(), /"city": "Lisbon"/);
    await shot(page, "tool");
    await page.locator(".call textarea").fill('{"temps": [21, 22, 24]}');
    await page.getByRole("button", { name: "Send result" }).click();
    await page.getByText("sunny").waitFor();
    await answered(page);
    await shot(page, "tool-done");
    const { messages, tools, temperature } = requests.at(-1);
    assert.deepEqual(messages.map((m) => m.role), ["system", "user", "assistant", "tool"]);
    assert.ok(messages[2].reasoning, "the thinking goes back with its call");
    assert.equal(messages[3].tool_call_id, "call_1");
    assert.equal(tools[0].function.name, "get_weather");
    assert.equal(temperature, 0.5);
    return page;
  },
  async "errors are said kindly"() {
    const page = await open();
    await say(page, "busy");
    await page.getByText(/Trying again in \d s/).waitFor();
    await page.getByRole("button", { name: "Leave it" }).waitFor();
    await shot(page, "busy");
    await page.getByText("Light from the sun").waitFor();
    await answered(page);
    assert.equal(await page.locator(".branches").count(), 0, "the refused answer made room");
    await say(page, "full");
    await page.getByText("Your prompt has 5120 tokens").waitFor();
    await shot(page, "full");
    await say(page, "broken");
    await page.getByText("What had come is kept").waitFor();
    assert.ok((await page.locator(".assistant .prose").last().textContent()).length > 10);
    await say(page, "empty");
    await page.getByText("ended without an answer").waitFor();
    state.down = true;
    await say(page, "hello?");
    await page.locator("#banner").waitFor();
    const [banner, fade] = await page.evaluate(() => [["#banner"], ["#topbar", "::after"]].map(([at, part]) =>
      Number(getComputedStyle(document.querySelector(at), part).zIndex)));
    assert.ok(banner > fade, "the bar's fade lies over what is said");
    await shot(page, "gone");
    state.down = false;
    await page.getByText("The server is back.").waitFor();
    await page.getByRole("button", { name: "Try again" }).last().click();
    await page.locator('.message.assistant:last-of-type[aria-busy="false"] .stats').waitFor();
    return page;
  },
  async "hostile answers stay text"() {
    const page = await open();
    page.on("dialog", () => page.faults.push("a dialog opened"));
    await say(page, "hostile");
    await answered(page);
    assert.equal(await page.locator(".prose script, .prose img, .prose iframe").count(), 0);
    for (const href of await page.locator(".prose a").evaluateAll((links) => links.map((a) => a.href))) assert.match(href, /^https:/);
    await shot(page, "hostile");
    return page;
  },
  async "the key"() {
    state.key = "sk-ossia-right";
    const page = await open();
    await page.getByText("This server asks for a key.").waitFor();
    await shot(page, "key");
    await page.locator('dialog input[type="password"]').fill("sk-ossia-right");
    await page.getByRole("button", { name: "Save key" }).click();
    await page.locator(".side-foot", { hasText: "gpt-oss-20b" }).waitFor();
    const linked = await open({ at: "/#key=sk-ossia-right" });
    await linked.locator(".side-foot", { hasText: "gpt-oss-20b" }).waitFor();
    assert.equal(new URL(linked.url()).hash, "", "the key left the address");
    await linked.context().close();
    state.key = undefined;
    return page;
  },
  async "the list: search, rename, delete with undo, export and import"() {
    const page = await open();
    for (const text of ["Apples are red", "Pears and table"]) {
      await page.keyboard.press("Control+Shift+O");
      await say(page, text);
      await answered(page);
    }
    await page.keyboard.press("Control+k");
    await page.keyboard.type("sqlite");
    await page.locator(".chats .chat").nth(1).waitFor({ state: "detached" });
    assert.equal(await page.locator(".chats .chat").textContent(), "Pears and table");
    await page.locator(".search input").fill("");
    await page.locator(".chats .chat").nth(1).waitFor();
    const apples = page.locator(".chats .chat", { hasText: "Apples" });
    await apples.hover();
    await apples.getByRole("button", { name: /Rename/ }).click();
    await page.getByLabel("New name").fill("Fruit");
    await page.keyboard.press("Enter");
    const fruit = page.locator(".chats .chat", { hasText: "Fruit" });
    await fruit.hover();
    await fruit.getByRole("button", { name: /Delete/ }).click();
    await shot(page, "undo");
    await page.getByRole("button", { name: "Undo" }).click();
    await fruit.waitFor();
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    await shot(page, "settings");
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Export all" }).click()]);
    const text = readFileSync(await file.path(), "utf8");
    assert.equal(JSON.parse(text).conversations.length, 2);
    await page.getByRole("button", { name: "Delete all…" }).click();
    await page.getByRole("button", { name: "Delete all", exact: true }).click();
    await page.locator(".chats .none").waitFor();
    await page.getByRole("button", { name: "Settings", exact: true }).click();
    await page.locator('dialog input[type="file"]').setInputFiles({ name: "chats.json", mimeType: "application/json", buffer: Buffer.from(text) });
    await page.getByText("2 chats imported.").waitFor();
    await page.locator(".chats a", { hasText: "Pears" }).click();
    await page.locator(".prose table").waitFor();
    return page;
  },
  async "attached files"() {
    const page = await open();
    const text = (name, content) => ({ name, mimeType: "text/plain", buffer: Buffer.from(content) });
    const picker = page.locator('#composer input[type="file"]');
    await picker.setInputFiles([text("notes.md", "# Notes\n```x```"), text("data.csv", "a,b\n1,2\n".repeat(300))]);
    await page.locator("#composer .chip").nth(1).waitFor();
    await shot(page, "attached");
    await picker.setInputFiles([{ name: "photo.png", mimeType: "image/png", buffer: Buffer.from([0x89, 0x50, 0, 0xff]) }]);
    await page.getByText("photo.png is not a text file.").waitFor();
    await page.getByRole("button", { name: "Remove data.csv" }).click();
    await page.locator("#write").evaluate((field) => {
      const data = new DataTransfer();
      data.setData("text/plain", "word ".repeat(2000));
      field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    });
    await page.locator(".chip", { hasText: "Pasted text.txt" }).waitFor();
    await page.locator("#thread").evaluate((place) => {
      const data = new DataTransfer();
      data.items.add(new File(["dropped"], "dropped.txt"));
      for (const type of ["dragover", "drop"]) place.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    await page.locator(".chip", { hasText: "dropped.txt" }).waitFor();
    await say(page, "What is in it?");
    await answered(page);
    assert.match(requests.at(-1).messages[0].content, /^File: notes\.md\n````\n# Notes/);
    assert.equal(await page.locator(".message .chip").count(), 3);
    return page;
  },
  async "effort, shortcuts and focus"() {
    const page = await open();
    await page.locator(".segments label", { hasText: "Low" }).click();
    await say(page, "Hello");
    await answered(page);
    assert.equal(requests.at(-1).reasoning_effort, "low");
    assert.equal(await page.locator(".thinking").isVisible(), false);
    await page.locator("#scroller").focus();
    await page.keyboard.press("?");
    await shot(page, "help");
    await page.keyboard.press("Escape");
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "write");
    await page.keyboard.press("ArrowUp");
    await page.getByLabel("Edit your message").waitFor();
    await page.keyboard.press("Escape");
    await page.locator(".bubble").waitFor();
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, textarea, select")].filter((e) => !e.hidden && !e.getAttribute("aria-label") && !e.textContent.trim() && !e.labels?.length).length);
    assert.equal(nameless, 0, "every control has a name");
    return page;
  },
  async "a phone"() {
    const page = await open({ phone: true });
    await shot(page, "phone-welcome");
    await say(page, "math");
    await answered(page);
    await shot(page, "phone-math");
    const wide = () => page.evaluate(() => document.documentElement.scrollWidth > innerWidth || document.getElementById("scroller").scrollWidth > document.getElementById("scroller").clientWidth);
    assert.equal(await wide(), false, "nothing is wider than the screen");
    await say(page, "code");
    await answered(page);
    await shot(page, "phone-code");
    await say(page, "table");
    await answered(page);
    await shot(page, "phone-table");
    assert.equal(await wide(), false, "nothing is wider than the screen");
    await page.getByRole("button", { name: /Show the list/ }).click();
    await page.waitForTimeout(50);
    await shot(page, "phone-list");
    await page.locator(".chats a").click();
    await page.locator("body.drawer").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Settings of this chat" }).click();
    await shot(page, "phone-dialog");
    return page;
  },
  async "a phone in the dark"() {
    const page = await open({ phone: true, dark: true });
    await say(page, "Why is the sky blue?");
    await answered(page);
    await shot(page, "phone-dark");
    return page;
  },
};

let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  if (only && !name.includes(only)) continue;
  try {
    const page = await test();
    assert.deepEqual(page.faults, []);
    await page.context().close();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    state.down = false;
    state.key = undefined;
    console.log(`FAIL  ${name}\n${error.stack}`);
    for (const context of browser.contexts()) {
      const page = context.pages()[0];
      if (page && shots) await page.screenshot({ path: `${shots}/failed-${failed}.png` }).catch(() => {});
      console.log(page?.faults);
      await context.close();
    }
  }
}
await browser.close();
server.closeAllConnections();
server.close();
process.exitCode = failed ? 1 : 0;
