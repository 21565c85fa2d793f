// Light and dark: the system's choice until the button is pressed.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  try {
    const kept = localStorage.getItem("likeness-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* a page opened from a disk may have no memory */ }
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => { button.textContent = now() === "dark" ? "Light colours" : "Dark colours"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = now() === "dark" ? "light" : "dark";
      try { localStorage.setItem("likeness-theme", root.dataset.theme); } catch { /* as above */ }
      name();
    });
    dark.addEventListener("change", name);
    name();
  });
})();
