// Sets the theme before the first paint (a plain script in the head: modules run too late). "system" leaves it to
// the style sheet's media query.
try {
  const { theme } = JSON.parse(localStorage.getItem("ossia.settings") ?? "{}");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // No storage: the system's theme.
}
