// Where conversations stay: the browser's own database (IndexedDB), on this device only. The list needs heads (id,
// title, time); bodies are read one at a time. Without a database (some private windows) all is kept in memory, and
// `lasting` is false so that the page can say so. Other tabs of the page are told of changes.

import { contains } from "./tree.js";

const DATABASE = "ossia";
const VERSION = 1; // counts up with the layout of the stores below; `upgrade` brings older ones along

/** Opens the store. `onchange(id)` is called when another tab changed a conversation. */
export async function openStore(onchange) {
  try {
    return new DatabaseStore(await open(), onchange);
  } catch {
    return new MemoryStore();
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => upgrade(request.result);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab keeps an older version open"));
  });
}

function upgrade(database) {
  database.createObjectStore("heads", { keyPath: "id" });
  database.createObjectStore("bodies", { keyPath: "id" });
}

function headOf({ id, title, updated }) {
  return { id, title, updated };
}

class DatabaseStore {
  lasting = true;

  constructor(database, onchange) {
    this.database = database;
    database.onversionchange = () => database.close();
    this.channel = new BroadcastChannel(DATABASE);
    this.channel.onmessage = (event) => onchange(event.data);
  }

  /** The heads of all conversations, latest first. */
  async heads() {
    const heads = await this.#ask("readonly", (heads) => heads.getAll());
    return heads.sort((a, b) => b.updated - a.updated);
  }

  /** The conversation, or undefined. */
  load(id) {
    return this.#ask("readonly", (_, bodies) => bodies.get(id));
  }

  /** All conversations, whole. */
  all() {
    return this.#ask("readonly", (_, bodies) => bodies.getAll());
  }

  async save(conversation) {
    await this.#ask("readwrite", (heads, bodies) => {
      heads.put(headOf(conversation));
      return bodies.put(conversation);
    });
    this.channel.postMessage(conversation.id);
  }

  async remove(id) {
    await this.#ask("readwrite", (heads, bodies) => {
      heads.delete(id);
      return bodies.delete(id);
    });
    this.channel.postMessage(id);
  }

  async clear() {
    await this.#ask("readwrite", (heads, bodies) => {
      heads.clear();
      return bodies.clear();
    });
    this.channel.postMessage(null);
  }

  /** The ids of the conversations that contain the text. */
  search(text) {
    const needle = text.toLowerCase();
    const found = new Set();
    return new Promise((resolve, reject) => {
      const request = this.database.transaction("bodies").objectStore("bodies").openCursor();
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor) return resolve(found);
        if (contains(cursor.value, needle)) found.add(cursor.value.id);
        return cursor.continue();
      };
    });
  }

  #ask(mode, work) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(["heads", "bodies"], mode);
      const request = work(transaction.objectStore("heads"), transaction.objectStore("bodies"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  }
}

class MemoryStore {
  lasting = false;
  #bodies = new Map();

  async heads() {
    return [...this.#bodies.values()].map(headOf).sort((a, b) => b.updated - a.updated);
  }
  async load(id) {
    return this.#bodies.get(id);
  }
  async all() {
    return [...this.#bodies.values()];
  }
  async save(conversation) {
    this.#bodies.set(conversation.id, conversation);
  }
  async remove(id) {
    this.#bodies.delete(id);
  }
  async clear() {
    this.#bodies.clear();
  }
  async search(text) {
    const needle = text.toLowerCase();
    return new Set((await this.all()).filter((c) => contains(c, needle)).map((c) => c.id));
  }
}
