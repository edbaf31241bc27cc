// The report: draws each figure when it comes near the window, in the page's theme; follows the section being read.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = JSON.parse(document.getElementById("dark-colours").textContent);
  const config = { displaylogo: false, showSendToCloud: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };
  const drawn = new Set();

  // Every colour of a figure is written #rrggbb or rgba(r,g,b,a): swap each for its dark partner.
  const hex = (parts) => "#" + parts.map((part) => Number(part).toString(16).padStart(2, "0")).join("");
  const themed = (text) => root.dataset.theme !== "dark" ? text : text
    .replace(/#[0-9a-f]{6}/g, (colour) => dark[colour] ?? colour)
    .replace(/rgba\((\d+),(\d+),(\d+),/g, (whole, ...parts) => {
      const partner = dark[hex(parts.slice(0, 3))];
      return partner ? `rgba(${[1, 3, 5].map((i) => parseInt(partner.slice(i, i + 2), 16)).join(",")},` : whole;
    });
  const draw = (box) => {
    const figure = JSON.parse(themed(document.getElementById(box.dataset.spec).textContent));
    drawn.add(box);
    return Plotly.react(box, figure.data, figure.layout, config);
  };
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    watch.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "500px" });
  const boxes = [...document.querySelectorAll(".plot")];
  boxes.forEach((box) => watch.observe(box));

  const paint = (theme) => {
    root.dataset.theme = theme;
    drawn.forEach(draw);
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const label = () => { button.textContent = root.dataset.theme === "dark" ? "Light theme" : "Dark theme"; };
  system.addEventListener("change", () => { paint(system.matches ? "dark" : "light"); label(); });
  button.addEventListener("click", () => { paint(root.dataset.theme === "dark" ? "light" : "dark"); label(); });
  label();

  let before = "light";
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    boxes.forEach(draw);
  });
  addEventListener("afterprint", () => paint(before));

  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const reading = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }), { rootMargin: "-20% 0px -70% 0px" });
  document.querySelectorAll("main > section").forEach((section) => reading.observe(section));
})();
