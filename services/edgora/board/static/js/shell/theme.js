// Before the first paint: the theme that the viewer chose last time. No choice: the system's (prefers-color-scheme).
// A classic script, because a module would run after the page was painted once in the wrong colours.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("edgora.theme");
  } catch { /* storage is forbidden: the system's theme it is */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
