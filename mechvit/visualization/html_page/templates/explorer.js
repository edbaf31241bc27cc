// The attention explorer: every panel, thumbnail and number follows one state.
"use strict";
(() => {
  const { make, choice, range, select, HEAT, CHANGE, gradient, drawer, stage, number } = Views;

  const start = (root) => {
    const spec = JSON.parse(root.querySelector("script").textContent);
    const layers = spec.layers.length;
    const rows = layers + (spec.rollouts.length ? 1 : 0);
    const cells = (row) => (row < layers ? spec.heads.length : spec.rollouts.length);
    const s = { picture: 0, corruption: spec.conditions.length > 1 ? 1 : 0, pair: spec.models.length > 1 ? [0, 1] : [0],
      row: layers - 1, cell: 0, query: 0, probe: null, locked: false, backward: false, root: true, range: 0, opacity: 0.85,
      source: 0, showing: 0, before: null };

    const data = Patterns(spec, s, () => redraw());
    const { picture, side, weights, measure, scaleOf, scaleOfAll, largest, patches, place, tokenAt, centre, nameOf } = data;
    const colour = (value, top, change) => {
      const share = Math.min(1, Math.abs(value) / top);
      const unit = s.root ? Math.sqrt(share) : share;
      return change ? CHANGE[Math.round(127.5 + Math.sign(value) * 127.5 * unit)] : HEAT[Math.round(255 * unit)];
    };

    // Displayed panels: one row per model, then their difference; columns clean, corrupted, difference.
    const panels = () => {
      const seen = s.corruption ? [0, s.corruption] : [0];
      const line = (name, terms) => {
        const found = seen.map((c) => ({ title: `${name}, ${spec.conditions[c]}`, terms: terms(c), picture: c }));
        if (seen.length > 1)
          found.push({ title: `${name}, difference`, picture: s.corruption,
            terms: [...terms(s.corruption), ...terms(0).map(([m, c, sign]) => [m, c, -sign])] });
        return found;
      };
      const lines = s.pair.map((m) => line(spec.models[m], (c) => [[m, c, 1]]));
      const [a, b] = s.pair;
      if (s.pair.length > 1)
        lines.push(line(`${spec.models[b]} − ${spec.models[a]}`, (c) => [[b, c, 1], [a, c, -1]]));
      return lines.flat();
    };
    let shown = panels();

    const cellName = (row, cell) => (row < layers
      ? `Layer ${spec.layers[row]}, head ${spec.heads[cell]}` : `Rollout through all layers: ${spec.rollouts[cell]}`);

    // State changes.
    const set = (changes) => {
      Object.assign(s, changes);
      redraw();
    };
    const acts = {
      point: (column, row) => set(s.locked ? { probe: tokenAt(column, row) }
        : { before: s.before ?? s.query, query: tokenAt(column, row), probe: null }),
      leave: () => set(s.locked ? { probe: null } : { query: s.before ?? s.query, before: null }),
      toggle: (column, row) => {
        const token = tokenAt(column, row);
        set(s.locked && s.query === token ? { locked: false } : { locked: true, query: token, before: null, probe: null });
      },
      move: (right, down) => {
        const [column, row] = place(s.query) ?? place(centre());
        const within = (value, end) => Math.max(0, Math.min(end - 1, value));
        set({ query: tokenAt(within(column + right, side()[1]), within(row + down, side()[0])), probe: null, before: null });
      },
      lock: () => set({ locked: !s.locked, before: null }),
      free: () => set({ locked: false, probe: null }),
      prefix: () => spec.prefix.length && set({ query: 0, locked: true, probe: null, before: null }),
    };
    const pick = (row, cell) => {
      const to = Math.max(0, Math.min(rows - 1, row));
      set({ row: to, cell: Math.max(0, Math.min(cells(to) - 1, cell)) });
    };

    // Elements.
    const grid = make("div", "ex-panels");
    const status = make("p", "ex-status");
    status.setAttribute("role", "status");
    const lay = () => {
      shown = panels();
      s.source = Math.min(s.source, shown.length - 1);
      grid.style.setProperty("--across", String(s.corruption ? 3 : 1));
      grid.replaceChildren(...shown.map((panel) => {
        const figure = make("figure", "ex-panel");
        const view = stage(`${panel.title}: arrow keys move the patch, Enter locks it${
          spec.prefix.length ? `, c chooses ${spec.prefix[0]}` : ""}`, acts);
        view.fit(spec.grid, picture().block);
        view.image.src = picture().pictures[panel.picture];
        view.classList.toggle("ex-change", panel.terms.length > 1);
        view.classList.toggle("ex-coarse", spec.grid[1] * spec.patch < 128);
        Object.assign(panel, { view, values: make("p", "ex-values"), numbers: make("p", "ex-numbers") });
        figure.append(make("figcaption", "", panel.title), view, panel.values, panel.numbers);
        return figure;
      }));
      sources.replaceWith(sources = select("of", shown.map((panel) => panel.title), s.source, (source) => set({ source })));
      redraw();
    };

    const measures = ["entropy", "distance", ...spec.prefix.map((name) => `${name} mass`)];
    const units = [" nats", " patches"];
    const measured = (terms, row, cell, i) =>
      `${measures[i]} ${number(measure(terms, row, cell, i), terms.length > 1)}${units[i] ?? ""}`;
    const thumbnails = Thumbnails(spec, s, data, { pick, colour, cellName, measured, root });

    // Panels, and the meaning of their colours.
    const legend = make("p", "ex-legend");
    const scale = (name, colours, from, to) => {
      const [line, bar] = [make("span"), make("i")];
      bar.style.background = gradient(colours);
      line.append(`${name} ${from} `, bar, ` ${to}`);
      return line;
    };
    const scales = (name, top, change, unit = "") => (change
      ? scale(name, CHANGE, `−${number(top)}`, `+${number(top)}${unit}`) : scale(name, HEAT, "0", `${number(top)}${unit}`));
    const numbersOf = ({ terms }) => {
      const say = (value) => number(value, terms.length > 1, terms.length > 1 ? 2 : 3);
      const [entropy, distance, ...mass] = measures.map((_, i) => measure(terms, s.row, s.cell, i));
      if (entropy === null) return "";
      return [`entropy ${say(entropy)} nats`, `distance ${say(distance)} patches (${say(distance * spec.patch)} px)`,
        ...mass.map((value, i) => `${measures[i + 2]} ${say(value)}`)].join("\n");
    };
    const drawPanels = () => {
      const found = shown.map(({ terms }) => weights(terms, s.row, s.cell));
      if (found.includes(null)) return;
      const maps = shown.flatMap(({ terms }, i) => (terms.length === 1 ? [{ terms, values: found[i] }] : []));
      const top = Math.max(...maps.map(({ terms, values }) =>
        (s.range === 2 ? scaleOfAll(terms) : s.range === 1 ? scaleOf(terms, s.row, s.cell) : largest(patches(values)))));
      const changes = found.filter((_, i) => shown[i].terms.length > 1).map((values) => largest(patches(values)));
      const most = s.range ? top : Math.max(0, ...changes);
      shown.forEach((panel, i) => {
        const [values, change] = [found[i], panel.terms.length > 1];
        const shares = patches(values);
        panel.view.paint((block) => colour(shares[block], change ? most : top, change), s.opacity);
        panel.view.mark(place(s.query), s.locked);
        panel.view.probe(s.probe === null ? null : place(s.probe));
        const strongest = shares.reduce((best, value, at) => (Math.abs(value) > Math.abs(shares[best]) ? at : best), 0);
        const asked = s.probe ?? strongest + spec.prefix.length;
        panel.values.textContent = `${number(values[asked], change)} at ${nameOf(asked)}\n${
          spec.prefix.map((name, at) => `${name} ${number(values[at], change)}`).join(" · ")}`;
        panel.numbers.textContent = numbersOf(panel);
      });
      const asked = s.showing - 1;
      const lines = [scales("attention", top, false), changes.length && scales("difference", most, true),
        s.showing && scales(`thumbnails: ${measures[asked]}`, thumbnails.top(), shown[s.source].terms.length > 1, units[asked])];
      legend.replaceChildren(...lines.filter(Boolean));
      root.dataset.drawn = [s.picture, s.corruption, s.row, s.cell, s.query, Number(s.locked)].join(" ");
    };
    const draw = () => {
      thumbnails.draw(shown[s.source].terms);
      drawPanels();
      prefixChoice?.select(s.query < spec.prefix.length ? s.query : -1);
      const how = s.backward ? "attention that comes to" : "attention from";
      status.textContent = `${cellName(s.row, s.cell)}; ${how} ${nameOf(s.query)}${s.locked ? " (locked)" : ""}`;
    };
    const redraw = drawer("explorer redraw", draw);

    // Controls.
    const controls = make("div", "ex-controls");
    const caption = make("p", "ex-title", picture().title);
    const show = (index) => {
      data.turn(index);
      Object.assign(s, { probe: null, before: null });
      caption.textContent = picture().title;
      lay();
    };
    if (spec.pictures.length > 1) {
      const small = spec.pictures.map(({ title, pictures }) => {
        const image = make("img");
        Object.assign(image, { src: pictures[0], alt: title, title });
        return image;
      });
      const strip = choice("Picture", small, 0, show);
      strip.classList.add("ex-strip");
      controls.append(strip);
    }
    if (spec.conditions.length > 2)
      controls.append(choice("Corruption", spec.conditions.slice(1), 0, (i) => { s.corruption = i + 1; lay(); }));
    if (spec.models.length > 2)
      controls.append(...["Model", "beside"].map((title, i) =>
        select(title, spec.models, s.pair[i], (m) => { s.pair[i] = m; lay(); })));
    const prefixChoice = spec.prefix.length
      ? choice("Token", spec.prefix, 0, (query) => set({ query, locked: true, probe: null, before: null })) : null;
    if (prefixChoice) controls.append(prefixChoice);
    else s.query = centre();
    controls.append(
      choice("Patch", ["attends to", "is attended by"], 0, (i) => set({ backward: i === 1 })),
      choice("Scale", ["linear", "square root"], 1, (i) => set({ root: i === 1 })),
      choice("Range", ["this row", "this head", "all heads"], 0, (i) => set({ range: i })),
      range("Overlay", [0, 1, 0.05], s.opacity, (opacity) => set({ opacity })),
      choice("Picture under it", ["shown", "hidden"], 0, (i) => grid.classList.toggle("ex-bare", i === 1)),
    );
    const names = ["entropy_nats", "distance_patches", ...spec.prefix.map((name) => `${name}_mass`)];
    const numbers = () => {
      const lines = spec.models.flatMap((model, m) => spec.conditions.flatMap((condition, c) => spec.layers.flatMap((layer, row) =>
        spec.heads.map((head, cell) => [picture().title, model, condition, layer, head,
          ...names.map((_, i) => measure([[m, c, 1]], row, cell, i))]))));
      return ["heads", Csv.text(["picture", "model", "condition", "layer", "head", ...names], lines)];
    };
    controls.append(Csv.button("Heads’ numbers (CSV)", numbers));
    let sources = make("label");
    const showing = select("Thumbnails show", ["attention", ...measures], 0, (index) => set({ showing: index }));
    const labels = make("div", "ex-labels");
    const aside = make("div", "ex-aside");
    const heading = make("p", "ex-thumbs");
    heading.append(showing, sources);
    aside.append(heading, labels, legend);
    labels.append(thumbnails.board, make("span", "ex-axis", `layers down, heads across${rows > layers ? "; R: rollouts through all layers" : ""}`));
    const body = make("div", "ex-body");
    body.append(aside, grid);
    root.append(caption, controls, status, body);
    lay();
  };
  Views.nearby(".ex:not(.pl)", start);
})();
