// The button that turns dark to light and back, and remembers it.

import { announce, say } from "../dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

export function currentTheme() {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}

export function themeButton(button) {
  const show = () => {
    const other = currentTheme() === "dark" ? "light" : "dark";
    say(button, other);
    button.setAttribute("aria-label", `use ${other} colours`);
  };
  button.addEventListener("click", () => {
    const next = currentTheme() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("edgora.theme", next);
    } catch { /* not remembered, but shown */ }
    show();
    announce(`${next} colours`);
  });
  dark.addEventListener("change", show);
  show();
}
