// The page's start and its decisions: which conversation is open, what each action does to it, when it is stored.
// Views show and report; the tree, the store and the server are changed from here only.

import { alive, models as askModels } from "./api.js";
import { Composer } from "./composer.js";
import { download, h, iconButton } from "./dom.js";
import { blankAnswer, generate } from "./generation.js";
import { openChatSettings, openHelp, openSettings } from "./panels.js";
import { change, setting, takeKeyFromAddress } from "./settings.js";
import { listen } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { openStore } from "./store.js";
import { Thread } from "./thread.js";
import { announce, toast } from "./toast.js";
import { addNode, exportText, importText, newConversation, pathOf, removeLeaf, switchBranch } from "./tree.js";

const SAVE_EVERY_MS = 2000; // while an answer streams

class App {
  constructor() {
    this.models = [];
    this.runs = new Map(); // conversation id -> { conversation, controller }
    this.current = this.fresh();
    const actions = this.actions();
    this.sidebar = new Sidebar(document.getElementById("sidebar"), actions);
    this.thread = new Thread(document.getElementById("scroller"), document.getElementById("thread"), actions);
    this.composer = new Composer(document.getElementById("composer"), actions);
    this.title = h("h1", { class: "title" });
    const beside = { class: "icon-button beside" }; // shown where the list is not
    document.getElementById("topbar").append(
      iconButton("sidebar", "Show the list of chats (Ctrl+Shift+L)", actions.sidebar, beside), this.title,
      iconButton("sliders", "Settings of this chat", actions.chatSettings),
      iconButton("compose", "New chat (Ctrl+Shift+O)", actions.newChat, beside));
    document.getElementById("scrim").addEventListener("click", () => this.drawer(false));
    listen(actions);
    addEventListener("hashchange", () => this.follow());
    addEventListener("beforeunload", () => this.runs.forEach(({ conversation }) => this.store.save(conversation)));
  }

  async start() {
    takeKeyFromAddress();
    this.setTheme(setting("theme"));
    document.body.classList.toggle("no-sidebar", !setting("sidebar"));
    this.store = await openStore((id) => this.changedElsewhere(id));
    if (!this.store.lasting) toast("This browser keeps nothing: chats are gone when the page closes.");
    await this.follow();
    await this.loadModels();
    this.composer.focus();
  }

  actions() {
    return {
      newChat: () => this.open(null),
      send: (text, files) => this.send(text, files),
      stop: () => this.stop(),
      edit: (node, text) => this.edit(node, text),
      editLast: () => this.thread.editLast(),
      redo: (node) => this.redo(node),
      branch: (node, step) => this.branch(node, step),
      call: (node) => this.answerCall(node),
      example: (text) => this.composer.write(text),
      effort: (effort) => this.update({ effort }),
      model: (model) => this.update({ model }),
      search: (text) => (text ? this.store.search(text) : this.findChat()),
      rename: (id, title) => this.rename(id, title),
      remove: (id) => this.remove(id),
      chosen: () => this.drawer(false),
      close: () => this.toggleSidebar(),
      sidebar: () => this.toggleSidebar(),
      theme: (value) => this.setTheme(value?.type ? (isDark() ? "light" : "dark") : value),
      settings: () => this.settings(),
      chatSettings: () => this.chatSettings(),
      help: openHelp,
      write: () => this.composer.focus(),
    };
  }

  // The open conversation

  fresh() {
    return newConversation({ effort: setting("effort"), system: setting("system") });
  }

  /** Opens the conversation that the address names, or a new one. */
  async follow() {
    const id = /(?:^#|&)c=([\w-]+)/.exec(location.hash)?.[1];
    if (id === this.current.id) return this.draw();
    const found = id && (this.runs.get(id)?.conversation ?? (await this.store.load(id)));
    this.current = found || this.fresh();
    if (found) settle(found, this.runs.has(id));
    this.drawer(false);
    return this.draw();
  }

  open(id) {
    const hash = id ? `#c=${id}` : "";
    if (location.hash !== hash) history.pushState(null, "", location.pathname + location.search + hash);
    if (!id && isEmpty(this.current)) this.composer.focus();
    return this.follow().then(() => this.composer.focus());
  }

  /** Draws everything anew; views change only what differs. */
  async draw() {
    const { current } = this;
    const empty = isEmpty(current);
    this.thread.show(empty ? null : current, this.model()?.context ?? null);
    this.title.textContent = empty ? "" : current.title;
    document.title = empty ? "Ossia" : `${current.title} · Ossia`;
    this.composer.show({ effort: current.effort, model: this.model()?.id, models: this.models, running: this.runs.has(current.id) });
    this.sidebar.foot.textContent = this.models.length === 1 ? this.models[0].id : "";
    this.sidebar.show(await this.store.heads(), current.id, this.runs);
  }

  update(changes) {
    Object.assign(this.current, changes);
    return isEmpty(this.current) ? this.draw() : this.keep(this.current);
  }

  async keep(conversation) {
    try {
      await this.store.save(conversation);
    } catch {
      toast("This chat could not be saved: the browser's storage may be full.");
    }
    await this.draw();
  }

  async changedElsewhere(id) {
    if (id === this.current.id && !this.runs.has(id)) {
      const found = await this.store.load(id);
      if (found) this.current = found;
    }
    await this.draw();
  }

  // Messages

  async send(text, files) {
    const conversation = this.current;
    const parent = pathOf(conversation).at(-1)?.id ?? null;
    const node = addNode(conversation, parent, { role: "user", content: text, files });
    history.replaceState(null, "", `${location.pathname}${location.search}#c=${conversation.id}`);
    await this.answer(conversation, node.id);
  }

  async edit(node, text) {
    if (this.runs.has(this.current.id)) this.stop();
    const fresh = addNode(this.current, node.parent, { role: "user", content: text, files: node.files ?? [] });
    await this.answer(this.current, fresh.id);
  }

  /** Another answer beside this one; one that never began makes room. */
  async redo(node) {
    if (this.runs.has(this.current.id)) return;
    const { parent } = node;
    const began = node.content || node.thinking || node.calls.length;
    if (!began && !node.children.length) removeLeaf(this.current, node.id);
    await this.answer(this.current, parent);
  }

  async branch(node, step) {
    switchBranch(this.current, node.id, step);
    await this.keep(this.current);
  }

  async answerCall(node) {
    const whole = node.calls.every((call) => call.result !== null);
    if (whole) await this.answer(this.current, node.id);
    else await this.keep(this.current);
  }

  async answer(conversation, parent) {
    const node = addNode(conversation, parent, blankAnswer(this.model()?.id ?? ""));
    const controller = new AbortController();
    this.runs.set(conversation.id, { conversation, controller });
    await this.keep(conversation);
    this.thread.end();
    announce("The answer is being written.");
    let saved = Date.now();
    await generate(conversation, node, controller.signal, () => {
      this.thread.changed(node);
      if (Date.now() - saved < SAVE_EVERY_MS) return;
      saved = Date.now();
      this.store.save(conversation).catch(() => {}); // the last save says so if it fails
    });
    this.runs.delete(conversation.id);
    await this.finished(conversation, node);
  }

  async finished(conversation, node) {
    conversation.updated = Date.now();
    announce(node.state === "done" ? "The answer is finished." : "The answer was not finished.");
    if (!this.deleted?.has(conversation.id)) await this.keep(conversation);
    if (node.error?.kind === "key") this.settings("The server did not accept the key.");
    if (node.error?.kind === "gone") this.lost();
  }

  stop() {
    this.drawer(false);
    this.runs.get(this.current.id)?.controller.abort();
  }

  // The list

  async rename(id, title) {
    const conversation = await this.byId(id);
    Object.assign(conversation, { title, named: true });
    await this.keep(conversation);
  }

  byId(id) {
    return id === this.current.id ? this.current : (this.runs.get(id)?.conversation ?? this.store.load(id));
  }

  async remove(id) {
    const conversation = await this.byId(id);
    this.deleted = (this.deleted ?? new Set()).add(id);
    this.runs.get(id)?.controller.abort();
    await this.store.remove(id);
    if (id === this.current.id) await this.open(null);
    else await this.draw();
    const undo = async () => {
      this.deleted.delete(id);
      await this.store.save(conversation);
      await this.open(id);
    };
    toast(`“${conversation.title}” was deleted.`, { label: "Undo", run: undo });
  }

  findChat() {
    if (matchMedia("(max-width: 46rem)").matches) this.drawer(true);
    else if (!setting("sidebar")) this.toggleSidebar();
    this.sidebar.focusSearch();
  }

  toggleSidebar() {
    if (matchMedia("(max-width: 46rem)").matches) return this.drawer(!document.body.classList.contains("drawer"));
    change({ sidebar: !setting("sidebar") });
    document.body.classList.toggle("no-sidebar", !setting("sidebar"));
    return undefined;
  }

  drawer(open) {
    document.body.classList.toggle("drawer", open);
  }

  // Settings, files, the server

  settings(why) {
    openSettings({
      keyChanged: () => this.loadModels(),
      theme: (value) => this.setTheme(value),
      exportAll: async () => download(`ossia-chats-${today()}.json`, exportText(await this.store.all())),
      importFile: (file) => this.importFile(file),
      deleteAll: () => this.deleteAll(),
    }, typeof why === "string" ? why : undefined);
  }

  chatSettings() {
    const { current } = this;
    const exportChat = () => download(`ossia-${current.title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40)}.json`, exportText([current]));
    openChatSettings(current, (changes) => this.update(changes), isEmpty(current) ? null : exportChat);
  }

  setTheme(theme) {
    change({ theme });
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  async importFile(file) {
    try {
      const conversations = importText(await file.text());
      for (const conversation of conversations) await this.store.save(conversation);
      document.querySelector("dialog")?.close();
      toast(`${conversations.length} ${conversations.length === 1 ? "chat" : "chats"} imported.`);
      await this.draw();
    } catch (error) {
      toast(error.message);
    }
  }

  async deleteAll() {
    this.runs.forEach(({ controller }) => controller.abort());
    await this.store.clear();
    await this.open(null);
    toast("All chats were deleted.");
  }

  model() {
    return this.models.find((model) => model.id === this.current.model) ?? this.models[0];
  }

  async loadModels() {
    try {
      this.models = await askModels();
      await this.draw();
    } catch (error) {
      if (error.kind === "key") this.settings(setting("key") ? "The server did not accept the key." : "This server asks for a key.");
      else if (error.kind === "gone") this.lost();
      else toast(error.message);
    }
  }

  /** The server is gone: says so, and looks for it until it is back. */
  async lost() {
    const banner = document.getElementById("banner");
    if (!banner.hidden) return;
    banner.textContent = "The server does not answer. Looking for it…";
    banner.hidden = false;
    for (let wait = 1000; !(await alive()); wait = Math.min(wait * 1.5, 10_000)) {
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    banner.hidden = true;
    toast("The server is back.");
    await this.loadModels();
  }
}

function isEmpty(conversation) {
  return pathOf(conversation).length === 0;
}

/** An answer that a closed page left in the middle was stopped. */
function settle(conversation, running) {
  if (running) return;
  for (const node of Object.values(conversation.nodes)) if (node.state === "streaming") node.state = "stopped";
}

function isDark() {
  return getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
}

function today() {
  return new Date().toISOString().slice(0, 10);
}

new App().start();
