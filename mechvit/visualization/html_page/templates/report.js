// The report: draws each figure when it comes near the window, and the others while the browser is idle, in the page's theme;
// those of a closed fold once it is opened, by hand, by a link into it, or for print. Follows the section being read.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = JSON.parse(document.getElementById("dark-colours").textContent);
  const drawn = new Set();
  let paper = null, opened = []; // while the page is printed: its width, and the folds that are opened for it

  const folded = (box) => box.closest("details:not([open])") !== null;

  const draw = (box) => {
    const figure = JSON.parse(Views.themed(document.getElementById(box.dataset.spec).textContent, dark));
    drawn.add(box);
    const size = paper ? { width: paper.width, autosize: false } : { autosize: true };
    return Plotly.react(box, figure.data, { ...figure.layout, ...size }, Views.plotConfig);
  };
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting || folded(entry.target)) return; // folded again since: it has no width
    watch.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "500px" });
  const boxes = [...document.querySelectorAll(".plot")];
  boxes.forEach((box) => watch.observe(box));
  if (boxes.length) {
    watch.unobserve(boxes[0]);
    draw(boxes[0]); // before the views' scripts: the first figure comes soon
  }
  const drawIdle = (some) => Views.whenIdle(some.map((box) => () => {
    if (drawn.has(box) || folded(box)) return;
    watch.unobserve(box);
    draw(box);
  }));
  drawIdle(boxes);
  addEventListener("toggle", ({ target }) => target.open && drawIdle([...target.querySelectorAll(".plot")]), true);

  // Draws again what is seen; what was drawn and folded away since is drawn when it is next seen.
  const redraw = () => drawn.forEach((box) => {
    if (!folded(box)) { draw(box); return; }
    drawn.delete(box);
    watch.observe(box);
  });
  const unfold = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("details");
    if (!fold || fold.open) return;
    fold.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  addEventListener("load", unfold);

  root.addEventListener("theme", ({ detail }) => {
    paper = detail;
    if (paper) {
      opened = [...document.querySelectorAll("details.fold:not([open])")];
      opened.forEach((fold) => { fold.open = true; });
      boxes.forEach(draw);
      return;
    }
    opened.splice(0).forEach((fold) => { fold.open = false; });
    redraw();
  });

  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const reading = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }), { rootMargin: "-20% 0px -70% 0px" });
  addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("main > section").forEach((section) => reading.observe(section));
  });
})();
