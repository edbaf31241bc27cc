// Feature browser: reads the page's data, and draws pictures with a latent's activation over them, bars and histograms.
"use strict";
const Features = (() => {
  const spec = JSON.parse(document.getElementById("spec").textContent);
  const state = { sae: 0, feature: null, absent: null, image: 0, token: null, condition: 0 }; // what is looked at
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const integers = (text) => new Int32Array(bytes(text).buffer);

  // make("a.link", { href: "#" }, child, "text"): text is only ever set as text.
  const make = (kind, properties, ...children) => {
    const [tag, ...classes] = kind.split(".");
    const node = document.createElement(tag);
    node.className = classes.join(" ");
    for (const [name, value] of Object.entries(properties ?? {})) {
      if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };
  const number = (value, digits = 3) => {
    if (value === null || !Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const far = Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5;
    const text = far ? value.toExponential(1) : Number(value.toPrecision(digits)).toString();
    return text.replace("-", "−");
  };
  const signed = (value) => (value > 0 ? "+" : "") + number(value);
  const percent = (value) => (value === null || Number.isNaN(value) ? "–" : `${Math.round(100 * value)}%`);
  const named = (label) => (label < 0 ? "–" : spec.classes[label]);
  const caption = ({ label, file }) => (label < 0 ? file || "–" : spec.classes[label]);

  spec.saes.forEach((sae) => {
    for (const name of ["rate", "mean", "max", "purity", "selectivity"]) sae.table[name] = floats(sae.table[name]);
    sae.table.label = integers(sae.table.label);
    sae.table.sensitivity = sae.table.sensitivity.map(floats);
    sae.size = sae.table.rate.length;
    sae.nTokens = sae.special.length + sae.grid[0] * sae.grid[1];
    sae.maps = bytes(sae.maps);
    sae.strongest.feature = integers(sae.strongest.feature);
    sae.strongest.activation = floats(sae.strongest.activation);
    sae.pageOf = new Map(sae.pages.map((page, place) => [page.id, place]));
  });

  // The map of one example: activation / page.top at every token, special ones first.
  const mapOf = (sae, place, example, condition) => {
    const start = ((place * spec.conditions.length + condition) * spec.kinds.length + example) * sae.nTokens;
    return Float32Array.from(sae.maps.subarray(start, start + sae.nTokens), (byte) => byte / 255);
  };

  const decoded = new Map();
  const picture = (source) => {
    if (!decoded.has(source)) {
      const image = new Image();
      image.src = source;
      decoded.set(source, image.decode().then(() => image));
    }
    return decoded.get(source);
  };
  const overlay = { mode: "heat" };
  const drawn = new WeakMap(); // canvas -> how it was drawn, to draw it again in another mode

  // dark violet to yellow (plasma): its lightness alone tells weak from strong, for every kind of colour vision
  const RAMP = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];
  const heat = (value) => {
    const [step, part] = [Math.min(3, Math.floor(4 * value)), 4 * value - Math.min(3, Math.floor(4 * value))];
    const rgb = RAMP[step].map((low, i) => Math.round(low + (RAMP[step + 1][i] - low) * part));
    return `rgba(${rgb},${0.32 + 0.3 * value})`;
  };
  const paint = (canvas, image, sae, map, mark) => {
    const side = canvas.width;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = image.naturalWidth > 96;
    context.filter = map && sae.grid[0] && overlay.mode === "heat" ? "grayscale(1)" : "none";
    context.drawImage(image, 0, 0, side, side);
    context.filter = "none";
    const [rows, columns] = sae.grid;
    const cell = (token) => {
      const patch = token - sae.special.length;
      const [row, column] = [Math.floor(patch / columns), patch % columns];
      const [left, top] = [Math.round((column * side) / columns), Math.round((row * side) / rows)];
      return [left, top, Math.round(((column + 1) * side) / columns) - left, Math.round(((row + 1) * side) / rows) - top];
    };
    if (map && overlay.mode !== "off") {
      for (let token = sae.special.length; token < sae.nTokens; token++) {
        const value = Math.min(1, map[token]);
        if (overlay.mode === "heat" && value > 0) context.fillStyle = heat(value);
        else if (overlay.mode === "light") context.fillStyle = `rgba(8,10,14,${0.66 * (1 - value)})`;
        else continue;
        context.fillRect(...cell(token));
      }
    }
    if (mark >= sae.special.length) {
      const [left, top, width, height] = cell(mark);
      for (const [colour, line] of [["#000", 5], ["#fff", 2.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.strokeRect(left + 1, top + 1, width - 2, height - 2);
      }
    }
  };
  const draw = (canvas, source, sae, map = null, mark = -1) => {
    drawn.set(canvas, [source, sae, map, mark]);
    return picture(source).then((image) => {
      const latest = drawn.get(canvas);
      if (latest && latest[2] === map && latest[3] === mark && latest[0] === source) paint(canvas, image, sae, map, mark);
    });
  };
  const setMode = (mode) => {
    overlay.mode = mode;
    document.querySelectorAll("canvas").forEach((canvas) => draw(canvas, ...drawn.get(canvas)));
  };

  // A canvas of one example of a latent that has a page; null where there is no such example.
  const tile = (sae, place, example, condition, side = 208) => {
    const found = sae.pages[place].examples[example];
    if (!found) return null;
    const canvas = make("canvas", { width: side, height: side, role: "img" });
    const image = spec.images[found[0]];
    canvas.setAttribute("aria-label", `Image ${image.id} with the activation of latent ${sae.pages[place].id} over it`);
    draw(canvas, image.picture, sae, mapOf(sae, place, example, condition));
    return canvas;
  };

  const choice = (title, name, options, selected, changed) => make("fieldset.choice", {},
    title && make("legend", {}, title),
    make("span", {}, options.map(([value, text]) => make("label", {},
      make("input", { type: "radio", name, value, checked: value === selected, onchange: () => changed(value) }),
      make("span.clip", { title: text.slice(0, 300) }, text)))));

  // Rows of [text, value, shown, tint], a tint with a `colour` and its partner in the `dark`; negative bars grow left of the middle where any is negative.
  const bars = (rows, { top = 0, tick = null } = {}) => {
    const both = rows.some(([, value]) => value < 0);
    const largest = top || Math.max(1e-12, ...rows.map(([, value]) => Math.abs(value)));
    return make("div.bars", {}, rows.flatMap(([text, value, shown, tint]) => {
      const width = (Math.min(1, Math.abs(value ?? 0) / largest) * 100) / (both ? 2 : 1);
      const bar = make(value < 0 ? "i.down" : "i");
      bar.style.width = `${width}%`;
      bar.style.left = `${both ? (value < 0 ? 50 - width : 50) : 0}%`;
      if (tint) ["colour", "dark"].forEach((name) => bar.style.setProperty(`--${name}`, tint[name]));
      const marks = [both && 50, tick !== null && (100 * tick) / largest].filter((place) => place !== false);
      const lines = marks.map((place) => { const line = make("u"); line.style.left = `${place}%`; return line; });
      return [make("span.clip", { title: text.slice(0, 300) }, text), make("i", {}, bar, lines), make("b", {}, shown)];
    }));
  };

  const svg = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  // Token counts on a logarithmic height, activation from 0 to `top` on the other axis.
  const histogram = (counts, top) => {
    const [width, height] = [300, 86];
    const most = Math.log10(1 + Math.max(1, ...counts));
    const box = svg("svg", { viewBox: `0 0 ${width} ${height + 2}`, preserveAspectRatio: "none", class: "histogram",
      role: "img", "aria-label": `Histogram of activations from 0 to ${number(top)}` });
    const step = width / counts.length;
    counts.forEach((count, i) => {
      const tall = (Math.log10(1 + count) / most) * height;
      const edges = `${number((i * top) / counts.length)} to ${number(((i + 1) * top) / counts.length)}`;
      box.append(svg("rect", { x: i * step + 0.5, y: height - tall, width: step - 1, height: tall },
        svg("title", {}, `${count} tokens at ${edges}`)));
    });
    box.append(svg("line", { x1: 0, x2: width, y1: height + 0.5, y2: height + 0.5 }));
    const axis = make("div.row.note", {}, make("span", {}, "0"), make("span", {}, `activation, up to ${number(top)}`));
    return make("div", {}, box, axis);
  };

  return { spec, state, make, number, signed, percent, named, caption, mapOf, draw, setMode, tile, choice, bars,
    histogram };
})();
