// The patch lens: every patch coloured by the class that it would be given at the chosen layer; panels are linked.
"use strict";
(() => {
  const { make, choice, range, select, HEAT, gradient, inflate, drawer, stage, number, themed, plotConfig } = Views;
  const PALETTE = [[0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [240, 228, 66],
    [117, 80, 190]];
  const OTHER = [150, 150, 150];

  const start = (root) => {
    const spec = JSON.parse(root.querySelector("script").textContent);
    const [top, layers] = [spec.top, spec.layers];
    const patches = spec.grid[0] * spec.grid[1];
    const s = { picture: 0, corruption: spec.conditions.length > 1 ? 1 : 0, layer: layers - 1, focus: 0, patch: null, locked: false,
      opacity: 0.8 };
    const picture = () => spec.pictures[s.picture];
    let cache = new Map();
    const unpack = (m, c) => {
      const [key, here, panel] = [`${m}:${c}`, cache, picture().panels[m][c]];
      if (!here.has(key)) {
        here.set(key, null);
        Promise.all([inflate(panel.classes), inflate(panel.probability)]).then(([classes, codes]) => {
          here.set(key, { classes: new Uint16Array(classes.buffer), codes });
          if (here === cache) redraw();
        });
      }
      return here.get(key);
    };
    const at = (found, patch, rank) => {
      const place = (s.layer * patches + patch) * top + rank;
      return { name: found.classes[place], p: (found.codes[place] / 255) ** 2 };
    };
    // The probability of a class at one patch; 0 if it is not among the strongest.
    const share = (found, patch, name) => {
      for (let rank = 0; rank < top; rank++) if (at(found, patch, rank).name === name) return at(found, patch, rank).p;
      return 0;
    };
    const conditions = () => (s.corruption ? [0, s.corruption] : [0]);
    const panels = () => spec.models.flatMap((model, m) => conditions().map((c) => (
      { title: `${model}, ${spec.conditions[c]}`, m, c })));
    let shown = [];
    let ranked = [];
    // Classes by how many patches they win over all layers of the shown panels, so that colours stay while the layer moves.
    const rank = (found) => {
      const wins = new Map();
      for (const { classes } of found)
        for (let i = 0; i < classes.length; i += top) wins.set(classes[i], (wins.get(classes[i]) ?? 0) + 1);
      return [...wins].sort((a, b) => b[1] - a[1]).map(([name]) => name);
    };
    const tint = (name) => PALETTE[ranked.indexOf(name)] ?? OTHER;

    const set = (changes) => {
      Object.assign(s, changes);
      redraw();
    };
    const patchAt = (column, row) => row * spec.grid[1] + column;
    const place = () => (s.patch === null ? null : [s.patch % spec.grid[1], Math.floor(s.patch / spec.grid[1])]);
    const acts = {
      point: (column, row) => s.locked || set({ patch: patchAt(column, row) }),
      leave: () => s.locked || set({ patch: null }),
      toggle: (column, row) => {
        const patch = patchAt(column, row);
        set(s.locked && s.patch === patch ? { locked: false } : { locked: true, patch });
      },
      move: (right, down) => {
        const [column, row] = place() ?? spec.grid.map((n) => Math.floor(n / 2)).reverse();
        const within = (value, end) => Math.max(0, Math.min(end - 1, value));
        set({ patch: patchAt(within(column + right, spec.grid[1]), within(row + down, spec.grid[0])) });
      },
      lock: () => set({ locked: s.patch !== null && !s.locked }),
      free: () => set({ locked: false, patch: null }),
      prefix: () => {},
    };

    const grid = make("div", "ex-panels pl-panels");
    const status = make("p", "ex-status");
    status.setAttribute("role", "status");
    let focus = make("label");
    const lay = () => {
      shown = panels();
      ranked = [];
      grid.style.setProperty("--across", String(conditions().length));
      grid.style.setProperty("--wide", String(conditions().length * Math.min(2, spec.models.length)));
      grid.replaceChildren(...shown.map((panel) => {
        const figure = make("figure", "ex-panel");
        const view = stage(`${panel.title}: arrow keys move the patch, Enter locks it`, acts);
        view.fit(spec.grid, 1);
        view.image.src = picture().pictures[panel.c];
        view.classList.toggle("ex-coarse", spec.grid[1] * spec.patch < 128);
        Object.assign(panel, { view, list: make("ol", "pl-list") });
        figure.append(make("figcaption", "", panel.title), view, panel.list);
        return figure;
      }));
      redraw();
    };
    // A line of a list: swatch, name, share.
    const line = (name, value) => {
      const item = make("li");
      const swatch = make("i");
      swatch.style.background = `rgb(${tint(name)})`;
      item.append(swatch, make("span", "", spec.names[name]), make("b", "", value));
      return item;
    };
    const draw = () => {
      const found = shown.map(({ m, c }) => unpack(m, c));
      if (found.includes(null)) return;
      if (!ranked.length) {
        ranked = rank(found);
        s.focus = 0;
        focus.replaceWith(focus = select("Colour shows", ["the predicted class",
          ...ranked.slice(0, 50).map((name) => `probability of ${spec.names[name].slice(0, 60)}`)], 0, (i) => set({ focus: i })));
      }
      shown.forEach(({ view, list }, i) => {
        const winners = Array.from({ length: patches }, (_, patch) => at(found[i], patch, 0));
        view.paint((patch) => {
          if (s.focus) return HEAT[Math.round(255 * share(found[i], patch, ranked[s.focus - 1]))];
          return [...tint(winners[patch].name), 255 * (0.25 + 0.75 * winners[patch].p)];
        }, s.opacity);
        view.mark(place(), s.locked);
        const counts = new Map();
        winners.forEach(({ name }) => counts.set(name, (counts.get(name) ?? 0) + 1));
        list.replaceChildren(...(s.patch === null
          ? [...counts].sort((a, b) => b[1] - a[1]).slice(0, 5).map(([name, n]) => line(name, `${n} of ${patches} patches`))
          : Array.from({ length: top }, (_, rank) => at(found[i], s.patch, rank)).map(({ name, p }) => line(name, number(p)))));
      });
      const where = s.patch === null ? "classes that win the most patches"
        : `strongest classes of row ${place()[1]}, column ${place()[0]}${s.locked ? " (locked)" : ""}`;
      status.textContent = `${s.layer ? `After layer ${s.layer - 1}` : "Embedding"} (lens layer ${s.layer}); ${where}`;
      root.dataset.drawn = [s.picture, s.corruption, s.layer, s.focus, s.patch, Number(s.locked)].join(" ");
    };
    const redraw = drawer("patch lens redraw", draw);

    const plot = make("div", "pl-plot");
    const dark = JSON.parse(document.getElementById("dark-colours").textContent);
    const drawPlot = (event) => {
      const figure = JSON.parse(themed(document.getElementById(`figure-${s.picture}`).textContent, dark));
      Plotly.react(plot, figure.data, { autosize: true, ...figure.layout, ...event?.detail }, plotConfig); // paper's width
    };
    document.documentElement.addEventListener("theme", drawPlot);
    const caption = make("p", "ex-title", picture().title);
    const controls = make("div", "ex-controls");
    const show = (index) => {
      Object.assign(s, { picture: index, patch: null, locked: false });
      cache = new Map();
      caption.textContent = picture().title;
      lay();
      drawPlot();
    };
    if (spec.pictures.length > 1) {
      const strip = choice("Picture", spec.pictures.map(({ title, pictures }) =>
        Object.assign(make("img"), { src: pictures[0], alt: title, title })), 0, show);
      strip.classList.add("ex-strip");
      controls.append(strip);
    }
    if (spec.conditions.length > 2)
      controls.append(choice("Corruption", spec.conditions.slice(1), 0, (i) => { s.corruption = i + 1; lay(); }));
    controls.append(
      range("Layer", [0, layers - 1, 1], s.layer, (layer) => set({ layer })), focus,
      range("Overlay", [0, 1, 0.05], s.opacity, (opacity) => set({ opacity })),
      choice("Picture under it", ["shown", "hidden"], 0, (i) => grid.classList.toggle("ex-bare", i === 1)),
    );
    const bar = make("i");
    bar.style.background = gradient(HEAT);
    const scale = make("p", "ex-legend");
    scale.append("probability of one class 0 ", bar, "1");
    const scroll = make("div", "pl-scroll");
    scroll.append(plot);
    if (picture().table) controls.append(Csv.button("Lines above (CSV)", () => ["trajectories", picture().table]));
    root.append(caption, scroll, controls, status, grid, scale);
    lay();
    drawPlot();
  };
  Views.nearby(".pl", start);
})();
