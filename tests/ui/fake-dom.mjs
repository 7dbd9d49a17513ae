// As much of a document as the renderer needs, for tests without a browser: elements, text, and their source.

class FakeNode {
  childNodes = [];
  parent = null;
  get children() {
    return this.childNodes;
  }
  append(...nodes) {
    for (const node of nodes) {
      const child = typeof node === "string" ? new FakeText(node) : node;
      child.remove();
      child.parent = this;
      this.childNodes.push(child);
    }
  }
  remove() {
    if (this.parent) this.parent.childNodes = this.parent.childNodes.filter((node) => node !== this);
    this.parent = null;
  }
  replaceWith(node) {
    const at = this.parent.childNodes.indexOf(this);
    node.remove();
    node.parent = this.parent;
    this.parent.childNodes[at] = node;
    this.parent = null;
  }
}

class FakeText extends FakeNode {
  nodeType = 3;
  nodeName = "#text";
  constructor(data) {
    super();
    this.data = data;
  }
  appendData(more) {
    this.data += more;
  }
  get source() {
    return this.data.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  }
}

class FakeElement extends FakeNode {
  nodeType = 1;
  map = new Map();
  constructor(name) {
    super();
    this.nodeName = name;
  }
  get attributes() {
    return [...this.map].map(([name, value]) => ({ name, value }));
  }
  setAttribute(name, value) {
    this.map.set(name, value);
  }
  getAttribute(name) {
    return this.map.get(name) ?? null;
  }
  hasAttribute(name) {
    return this.map.has(name);
  }
  removeAttribute(name) {
    this.map.delete(name);
  }
  addEventListener() {}
  get source() {
    const attributes = this.attributes.map(({ name, value }) => ` ${name}="${value}"`).sort().join("");
    return `<${this.nodeName}${attributes}>${this.childNodes.map((node) => node.source).join("")}</${this.nodeName}>`;
  }
}

/** Puts the document where browsers have it. */
export function install() {
  globalThis.Node = { TEXT_NODE: 3 };
  globalThis.document = {
    createElement: (name) => new FakeElement(name),
    createElementNS: (_, name) => new FakeElement(name),
    createTextNode: (data) => new FakeText(data),
  };
}

/** The markup below an element, neighbouring texts joined. */
export function markup(element) {
  return element.childNodes.map((node) => node.source).join("");
}
