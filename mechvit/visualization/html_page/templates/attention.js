// Attention views: decodes packed patterns, mounts circuitsvis's AttentionHeads when a panel comes into view, and keeps the
// layer and the head of all panels in step.
"use strict";
(() => {
  let serial = 0;
  const { make, choice } = Views;
  // The bundle is stored in the page as text, and compiled (most of a second) when the first view comes near.
  const load = () => {
    const text = document.getElementById("circuitsvis");
    if (window.CircuitsVis || !text) return;
    document.head.append(Object.assign(document.createElement("script"), { textContent: text.textContent }));
  };

  // base64 of little-endian uint16 -> [heads][query][key], rounded to four digits.
  const decode = (text, scale, heads, tokens) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const value = (index) => Math.round((view.getUint16(2 * index, true) / 65535) * scale * 1e4) / 1e4;
    const row = (start) => Array.from({ length: tokens }, (_, key) => value(start + key));
    return Array.from({ length: heads }, (_, head) =>
      Array.from({ length: tokens }, (_, query) => row((head * tokens + query) * tokens)));
  };

  const picture = (panel, grid) => {
    if (!panel.picture) return [];
    const frame = make("div", "cv-picture");
    const image = make("img");
    Object.assign(image, { src: panel.picture, alt: "" });
    const lines = make("i");
    lines.style.backgroundSize = `${100 / grid[1]}% ${100 / grid[0]}%`;
    frame.append(image, lines);
    return [frame];
  };

  const start = (root) => {
    const spec = JSON.parse(root.querySelector("script").textContent);
    const state = { layer: spec.layers.length - 1, set: 0, head: 0 };
    const seen = new Set();
    const decoded = new Map();
    const scaleText = make("b");
    const panels = make("div", "cv-panels");

    const patterns = (index) => {
      const key = `${index}:${state.layer}`;
      if (!decoded.has(key)) {
        const panel = spec.panels[index];
        decoded.set(key, decode(panel.layers[state.layer], panel.scale, spec.heads.length, spec.tokens.length));
      }
      return decoded.get(key);
    };
    const highest = () => {
      let top = 0;
      for (const index of spec.sets[state.set].panels)
        for (const head of patterns(index)) for (const row of head) for (const value of row) if (value > top) top = value;
      return top || 1;
    };

    const thumbnails = (slot) => [...slot.querySelectorAll("h4")].map((tag) => tag.parentElement.parentElement);
    const press = (slot) => thumbnails(slot).forEach((node, head) => {
      if (head === state.head && node.getAttribute("aria-pressed") !== "true") node.click();
      node.setAttribute("aria-pressed", String(head === state.head));
    });
    const choose = (head) => {
      state.head = head;
      panels.querySelectorAll(".cv-slot").forEach(press);
    };
    // Names the parts that circuitsvis leaves without classes, once it has drawn them.
    const dress = (slot) => {
      const drawn = thumbnails(slot);
      if (drawn.length !== spec.heads.length) return false;
      const rows = drawn[0].parentElement.parentElement;
      rows.classList.add("cv-thumbs");
      rows.style.setProperty("--across", String(Math.min(6, Math.max(3, drawn.length))));
      rows.nextElementSibling.classList.add("cv-zoom");
      drawn.forEach((node, head) => {
        node.tabIndex = 0;
        node.setAttribute("role", "button");
        node.setAttribute("aria-label", spec.heads[head]);
        node.addEventListener("click", (event) => event.isTrusted && choose(head));
        node.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          choose(head);
        });
      });
      press(slot);
      return true;
    };
    const mount = (slot) => {
      const index = Number(slot.dataset.panel);
      const place = make("div");
      place.id = `cv-mount-${serial++}`;
      slot.replaceChildren(place);
      slot.dataset.layer = String(spec.layers[state.layer]);
      const watch = new MutationObserver(() => dress(slot) && watch.disconnect());
      watch.observe(place, { childList: true, subtree: true });
      load();
      CircuitsVis.render(place.id, CircuitsVis.AttentionHeads, {
        attention: patterns(index),
        attentionHeadNames: spec.heads,
        tokens: spec.tokens,
        minValue: 0,
        maxValue: state.top,
        maskUpperTri: false,
        positiveColor: "#0b5a94",
        negativeColor: "#0b5a94",
      });
    };
    const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (!entry.isIntersecting) return seen.delete(entry.target);
      seen.add(entry.target);
      if (!entry.target.firstChild) mount(entry.target);
    }), { rootMargin: "200px" });

    const redraw = () => {
      state.top = highest();
      scaleText.textContent = state.top.toFixed(3);
      panels.querySelectorAll(".cv-slot").forEach((slot) => (seen.has(slot) ? mount(slot) : slot.replaceChildren()));
    };
    const lay = () => {
      observer.disconnect();
      seen.clear();
      const chosen = spec.sets[state.set].panels;
      panels.classList.toggle("cv-one", chosen.length === 1);
      panels.replaceChildren(...chosen.map((index) => {
        const panel = spec.panels[index];
        const box = make("figure", "cv-panel");
        const caption = make("figcaption");
        caption.append(...picture(panel, spec.grid), make("span", "", panel.title));
        const slot = make("div", "cv-slot");
        slot.dataset.panel = String(index);
        box.append(...(panel.title || panel.picture ? [caption] : []), slot);
        return box;
      }));
      redraw();
      panels.querySelectorAll(".cv-slot").forEach((slot) => observer.observe(slot));
    };

    const controls = make("div", "cv-controls");
    if (spec.sets.length > 1)
      controls.append(choice("Corruption", spec.sets.map((set) => set.title), 0, (i) => { state.set = i; lay(); }));
    if (spec.layers.length > 1)
      controls.append(choice("Layer", spec.layers, state.layer, (i) => { state.layer = i; redraw(); }));
    const scale = make("span", "cv-scale");
    scale.append("attention 0", make("i"), scaleText);
    controls.append(scale);
    root.append(controls, panels);
    lay();
  };
  document.querySelectorAll(".cv").forEach(start);
})();
