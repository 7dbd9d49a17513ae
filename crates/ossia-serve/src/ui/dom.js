// The one place where elements are made. Text becomes text nodes: nothing here or elsewhere parses HTML, so what the
// model or a file says can never become markup (the page's Trusted Types policy would refuse it as well).

const SVG = "http://www.w3.org/2000/svg";
const MATHML = "http://www.w3.org/1998/Math/MathML";

/** An element. Props are attributes; `true` sets an empty one, `false` and null leave it out, functions listen. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** An element of a formula. */
export function math(tag, props, ...children) {
  return fill(document.createElementNS(MATHML, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** One of our icons: strokes on a 24 by 24 field, in the colour of the text. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows an icon only; its label is for screen readers and the tooltip. */
export function iconButton(name, label, onclick, props) {
  const all = { type: "button", class: "icon-button", "aria-label": label, title: label, click: onclick, ...props };
  return h("button", all, icon(name));
}

/** Makes `old` look like `fresh` and touches only what differs, so that selections and open parts stay. */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data.length < fresh.data.length && fresh.data.startsWith(old.data)) {
      old.appendData(fresh.data.slice(old.data.length));
    } else if (old.data !== fresh.data) old.data = fresh.data;
    return undefined;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = [...fresh.childNodes];
  const present = [...old.childNodes];
  wanted.forEach((child, i) => (i < present.length ? morph(present[i], child) : old.append(child)));
  present.slice(wanted.length).forEach((child) => child.remove());
  return undefined;
}

/** Copies text, also on pages without TLS, where browsers offer no clipboard. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** Gives the text to the user as a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const ICONS = {
  sidebar: "M4 5h16v14H4zM9.5 5v14",
  compose: "M20 12.5V19a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1h6.5M18.2 3.8a1.4 1.4 0 0 1 2 2L12.5 13.5 9.5 14.5l1-3z",
  search: "M10.5 4.5a6 6 0 1 1 0 12 6 6 0 0 1 0-12zM15 15l5 5",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  gear: "M10.4 5.9L10.4 3.6L13.6 3.6L13.6 5.9L15.2 6.5L16.8 4.9L19.1 7.2L17.5 8.8L18.1 10.4L20.4 10.4L20.4 13.6L18.1 13.6L17.5 15.2L19.1 16.8L16.8 19.1L15.2 17.5L13.6 18.1L13.6 20.4L10.4 20.4L10.4 18.1L8.8 17.5L7.2 19.1L4.9 16.8L6.5 15.2L5.9 13.6L3.6 13.6L3.6 10.4L5.9 10.4L6.5 8.8L4.9 7.2L7.2 4.9L8.8 6.5zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  moon: "M20 14.5A8.2 8.2 0 0 1 9.5 4 8.2 8.2 0 1 0 20 14.5z",
  copy: "M9 9h10a1 1 0 0 1 1 1v10H10a1 1 0 0 1-1-1zM15 5.5V4H5a1 1 0 0 0-1 1v10h1.5",
  check: "M5 12.5l4.5 4.5L19 7.5",
  pencil: "M4.5 19.5l1-4L16 5a1.7 1.7 0 0 1 2.5 0l.5.5a1.7 1.7 0 0 1 0 2.5L8.5 18.5z",
  redo: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9M19.5 4.5V9H15",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  up: "M12 19V5M6 11l6-6 6 6",
  close: "M6 6l12 12M18 6L6 18",
  trash: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l.8 12.5h9.4L17.5 7M10.3 11v5M13.7 11v5",
  stop: "M8 8h8v8H8z",
  clip: "M19 11.5l-7.3 7.3a4.3 4.3 0 0 1-6.1-6.1l7.5-7.5a2.9 2.9 0 0 1 4.1 4.1l-7.4 7.4a1.4 1.4 0 0 1-2-2l6.5-6.5",
  file: "M7 3.5h7l4 4v12a1 1 0 0 1-1 1H7a1 1 0 0 1-1-1v-15a1 1 0 0 1 1-1zM14 3.5v4h4",
  tool: "M14.5 6.5a4 4 0 0 0-5.2 5.2L4 17l3 3 5.3-5.3a4 4 0 0 0 5.2-5.2l-2.5 2.5-2.5-.5-.5-2.5z",
  help: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17zM9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.7M12 16.5v.2",
  alert: "M12 4 3 19.5h18zM12 10v4.5M12 17v.2",
};
