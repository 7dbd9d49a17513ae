// The keyboard: one table from keys to actions. Single letters work only where nothing is being written.

/** Listens for the page's shortcuts. `actions`: search, newChat, stop, sidebar, write, help. */
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    const action = find(event, actions);
    if (!action || event.defaultPrevented) return;
    event.preventDefault();
    action();
  });
}

function find(event, actions) {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (document.querySelector("dialog[open]")) return null;
  if (command && event.shiftKey) return { o: actions.newChat, l: actions.sidebar }[key] ?? null;
  if (command) return key === "k" ? actions.search : null;
  if (key === "escape") return actions.stop;
  const writing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (writing || event.altKey) return null;
  return { "/": actions.write, "?": actions.help }[key] ?? null;
}
