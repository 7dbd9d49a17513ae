// What the page remembers besides conversations: the key, the theme and the defaults of new chats, in localStorage.
// A browser that keeps nothing (private windows, storage switched off) still works; it then forgets.

const NAME = "ossia.settings";
const DEFAULTS = { schema: 1, key: "", theme: "system", effort: "medium", system: "", sidebar: true };

let values = { ...DEFAULTS, ...read() };

function read() {
  try {
    const stored = JSON.parse(localStorage.getItem(NAME) ?? "{}");
    return stored && stored.schema === DEFAULTS.schema ? stored : {};
  } catch {
    return {};
  }
}

/** One setting. */
export function setting(name) {
  return values[name];
}

/** Changes settings and keeps them. */
export function change(changes) {
  values = { ...values, ...changes };
  try {
    localStorage.setItem(NAME, JSON.stringify(values));
  } catch {
    // Kept for this visit only.
  }
}

/** Takes the key out of the address (`#key=…`), so that it stays neither there nor in the history. */
export function takeKeyFromAddress() {
  const found = /(?:^#|&)key=([^&]+)/.exec(location.hash);
  if (!found) return;
  change({ key: decodeURIComponent(found[1]).trim() });
  const rest = location.hash.slice(1).split("&").filter((part) => !part.startsWith("key="));
  history.replaceState(null, "", location.pathname + location.search + (rest.length ? `#${rest.join("&")}` : ""));
}
