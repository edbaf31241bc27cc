// The page's theme: the system's until the button is pressed, and light on paper. Those who draw in colours hear "theme" on
// the root, with { width }, the paper's in pixels, as its detail while the page is printed.
"use strict";
(() => {
  const PRINTED = 680; // between the margins of A4 paper; a letter's are a little further apart
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  let pressed = null, printing = false;
  const paint = () => {
    const theme = pressed ?? (system.matches ? "dark" : "light");
    root.dataset.theme = printing ? "light" : theme;
    button.textContent = theme === "dark" ? "Light theme" : "Dark theme";
    root.dispatchEvent(new CustomEvent("theme", { detail: printing ? { width: PRINTED } : null }));
  };
  const print = (now) => {
    if (printing === now) return;
    printing = now;
    paint();
  };
  button.addEventListener("click", () => {
    pressed = root.dataset.theme === "dark" ? "light" : "dark";
    paint();
  });
  system.addEventListener("change", () => pressed || printing || paint()); // on paper it changes, too
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  paint();
})();
