// Parts that the views share: elements, choices, colour ramps, packed bytes, and a picture with a canvas laid over it.
"use strict";
const Views = (() => {
  let serial = 0;
  const make = (tag, name, text) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // A row of options of which one is chosen; an option is a text or an element. `node.select(index)` follows the keyboard.
  const choice = (title, options, selected, changed) => {
    const group = make("fieldset", "cv-choice");
    const box = make("span", "cv-options");
    const name = `cv-choice-${serial++}`;
    const inputs = options.map((option, index) => {
      const label = make("label");
      const input = make("input");
      const shown = make("span");
      Object.assign(input, { type: "radio", name, checked: index === selected });
      input.addEventListener("change", () => changed(index));
      shown.append(option instanceof Node ? option : String(option));
      label.append(input, shown);
      box.append(label);
      return input;
    });
    group.append(make("legend", "", title), box);
    group.select = (index) => inputs.forEach((input, place) => { input.checked = place === index; });
    return group;
  };

  const range = (title, [from, to, step], value, changed) => {
    const label = make("label", "ex-range");
    const input = make("input");
    Object.assign(input, { type: "range", min: from, max: to, step, value });
    input.addEventListener("input", () => changed(Number(input.value)));
    label.append(make("span", "", title), input);
    label.input = input;
    return label;
  };

  const select = (title, options, selected, changed) => {
    const label = make("label", "ex-select");
    const input = make("select");
    input.setAttribute("aria-label", title);
    input.append(...options.map((text, index) => new Option(text, index, false, index === selected)));
    input.addEventListener("change", () => changed(Number(input.value)));
    label.append(make("span", "", title), input);
    return label;
  };

  // 256 steps of [red, green, blue, alpha] through some stops.
  const ramp = (stops, alpha) => Array.from({ length: 256 }, (_, step) => {
    const place = (step / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[low].map((from, i) => Math.round(from + (stops[low + 1][i] - from) * (place - low)));
    return [...mixed, Math.round(255 * alpha(step / 255))];
  });
  const HEAT = ramp([[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39],
    [252, 255, 164]], (v) => 0.35 + 0.65 * Math.sqrt(v));
  const CHANGE = ramp([[11, 90, 148], [96, 176, 232], [250, 250, 250], [240, 160, 80], [190, 80, 8]],
    (v) => 0.55 + 0.45 * Math.sqrt(Math.abs(2 * v - 1)));
  const gradient = (colours) => `linear-gradient(90deg, ${[0, 32, 64, 96, 128, 160, 192, 224, 255]
    .map((i) => `rgb(${colours[i].slice(0, 3)})`).join(",")})`;

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const inflate = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // Calls `draw` once before the next frame, however often it is called; its last cost is a measure in the browser's timeline.
  const drawer = (name, draw) => {
    let asked = 0;
    return () => {
      asked ||= requestAnimationFrame(() => {
        const start = performance.now();
        asked = 0;
        draw();
        performance.clearMeasures(name);
        performance.measure(name, { start, end: performance.now() });
      });
    };
  };

  // A picture under a canvas of one pixel a block of patches. acts: point(column, row), leave(), toggle(column, row) on a
  // click; move(columns, rows), lock(), free(), prefix() from the keyboard.
  const stage = (label, acts) => {
    const node = make("div", "ex-stage");
    const [image, canvas, mark, probe] = [make("img"), make("canvas"), make("i", "ex-mark"), make("i", "ex-probe")];
    Object.assign(node, { tabIndex: 0, image, canvas });
    node.setAttribute("role", "application");
    node.setAttribute("aria-label", label);
    image.alt = "";
    image.draggable = false;
    node.append(image, canvas, mark, probe);
    let [columns, rows, block] = [1, 1, 1];
    const at = (event) => {
      const box = node.getBoundingClientRect();
      const place = (from, size, count) => Math.max(0, Math.min(count - 1, Math.floor((from / size) * count)));
      return [Math.floor(place(event.clientX - box.left, box.width, columns) / block),
        Math.floor(place(event.clientY - box.top, box.height, rows) / block)];
    };
    node.addEventListener("pointermove", (event) => acts.point(...at(event)));
    node.addEventListener("pointerleave", () => acts.leave());
    node.addEventListener("click", (event) => acts.toggle(...at(event)));
    node.addEventListener("keydown", (event) => {
      const keys = { ArrowLeft: () => acts.move(-1, 0), ArrowRight: () => acts.move(1, 0), ArrowUp: () => acts.move(0, -1),
        ArrowDown: () => acts.move(0, 1), Enter: acts.lock, " ": acts.lock, Escape: acts.free, c: acts.prefix };
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    node.fit = (grid, side) => {
      [rows, columns, block] = [...grid, side];
      [canvas.width, canvas.height] = [Math.ceil(columns / block), Math.ceil(rows / block)];
      canvas.style.width = `${(100 * canvas.width * block) / columns}%`;
      canvas.style.height = `${(100 * canvas.height * block) / rows}%`;
      node.style.aspectRatio = `${columns} / ${rows}`;
    };
    const show = (frame, place) => {
      frame.hidden = !place;
      if (!place) return;
      frame.style.left = `${(100 * place[0] * block) / columns}%`;
      frame.style.top = `${(100 * place[1] * block) / rows}%`;
      frame.style.width = `${(100 * block) / columns}%`;
      frame.style.height = `${(100 * block) / rows}%`;
    };
    node.mark = (place, locked) => {
      show(mark, place);
      mark.classList.toggle("ex-locked", locked);
    };
    node.probe = (place) => show(probe, place);
    // Fills the canvas from `colour(block) -> [red, green, blue, alpha]`.
    node.paint = (colour, opacity) => {
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const data = context.createImageData(canvas.width, canvas.height);
      for (let i = 0; i < canvas.width * canvas.height; i++) {
        const [red, green, blue, alpha] = colour(i);
        data.data.set([red, green, blue, alpha * opacity], 4 * i);
      }
      context.putImageData(data, 0, 0);
    };
    return node;
  };

  // A figure's JSON in the page's theme: every colour is written #rrggbb or rgba(r,g,b,a), and has a partner in `dark`.
  const hex = (parts) => "#" + parts.map((part) => Number(part).toString(16).padStart(2, "0")).join("");
  const themed = (text, dark) => document.documentElement.dataset.theme !== "dark" ? text : text
    .replace(/#[0-9a-f]{6}/g, (colour) => dark[colour] ?? colour)
    .replace(/rgba\((\d+),(\d+),(\d+),/g, (whole, ...parts) => {
      const partner = dark[hex(parts.slice(0, 3))];
      return partner ? `rgba(${[1, 3, 5].map((i) => parseInt(partner.slice(i, i + 2), 16)).join(",")},` : whole;
    });
  const plotConfig = { displaylogo: false, showSendToCloud: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };

  // Runs the remaining pieces one after another while the browser is idle.
  const idle = window.requestIdleCallback ?? ((act) => setTimeout(act, 50));
  const whenIdle = (pieces) => {
    const next = () => {
      pieces.shift()?.();
      if (pieces.length) idle(next);
    };
    if (document.readyState === "complete") idle(next);
    else addEventListener("load", () => idle(next));
  };

  // Starts a view once it comes near the window, or once the browser is idle.
  const nearby = (selector, start) => {
    const started = new Set();
    const once = (root) => {
      watch.unobserve(root);
      if (started.has(root)) return;
      started.add(root);
      start(root);
    };
    const watch = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && once(entry.target)),
      { rootMargin: "800px" });
    const roots = [...document.querySelectorAll(selector)];
    roots.forEach((root) => watch.observe(root));
    whenIdle(roots.map((root) => () => once(root)));
  };

  const number = (value, signed = false, digits = 3) => {
    const text = value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(digits);
    return (signed && value > 0 ? "+" : "") + text.replaceAll("-", "−");
  };

  return { make, choice, range, select, HEAT, CHANGE, gradient, bytes, inflate, drawer, stage, themed, plotConfig,
    whenIdle, nearby, number };
})();
