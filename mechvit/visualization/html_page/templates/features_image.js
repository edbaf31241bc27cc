// Feature browser: images whose patches can be selected to list the latents that write most into them.
"use strict";
Features.imagePage = (() => {
  const { spec, state, make, number, percent, named, caption, draw, bars, address, toFeature, conditions, panel, card,
    under } = Features;

  // The strongest latents at one token of a shown image: [latent, activation].
  const strongest = (sae, image, token, condition = state.condition) => {
    const { top, feature, activation } = sae.strongest;
    const start = ((condition * spec.shown.length + image) * sae.nTokens + token) * top;
    return Array.from({ length: top }, (_, i) => [feature[start + i], activation[start + i]])
      .filter(([latent]) => latent >= 0);
  };
  const centre = (sae) => sae.grid[0] &&
    sae.special.length + Math.floor(sae.grid[0] / 2) * sae.grid[1] + Math.floor(sae.grid[1] / 2);
  const place = (sae, token) => {
    const patch = token - sae.special.length;
    return patch < 0 ? [-1, -1] : [Math.floor(patch / sae.grid[1]), patch % sae.grid[1]];
  };
  const choose = (token) => Features.go(address({ sae: state.sae, image: state.image, token }), ".big");

  // The picture; `spread` draws where a latent is among the strongest of each token, `plain` takes that away.
  const picture = (sae, token, where) => {
    const shown = spec.shown[state.image];
    const image = spec.images[shown.image];
    const source = state.condition === 0 ? image.picture : shown.corrupted[state.condition - 1];
    const canvas = make("canvas.big", { width: 800, height: 800, tabIndex: 0, role: "img" });
    canvas.setAttribute("aria-label", `Image ${image.id}. Token: ${where}. Arrow keys choose another patch.`);
    canvas.addEventListener("click", (event) => {
      const next = under(event, canvas, sae);
      if (next !== null) choose(next);
    });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!by || !sae.grid[0]) return;
      event.preventDefault();
      event.stopPropagation();
      const [row, column] = place(sae, Math.max(token, sae.special.length)).map((at, axis) => at + by[axis]);
      if (row < 0 || row >= sae.grid[0] || column < 0 || column >= sae.grid[1]) return;
      choose(sae.special.length + row * sae.grid[1] + column);
    });
    const spread = (latent) => {
      const map = Float32Array.from({ length: sae.nTokens },
        (_, t) => strongest(sae, state.image, t).find(([other]) => other === latent)?.[1] ?? 0);
      const most = Math.max(...map, 1e-12);
      draw(canvas, source, sae, map.map((value) => value / most), token);
    };
    const plain = () => draw(canvas, source, sae, null, token);
    plain();
    return { canvas, spread, plain };
  };

  // The strongest latents of one token under each condition, beside each other.
  const beside = (sae, token) => {
    const columns = spec.conditions.map((_, i) => new Map(strongest(sae, state.image, token, i)));
    const latents = [...new Set(columns.flatMap((column) => [...column.keys()].slice(0, 5)))];
    const cells = (latent) => columns.map((column) => make("td", {}, column.has(latent) ? number(column.get(latent)) : "–"));
    return panel("This token, clean against corrupted",
      `The five strongest of each, by activation; – where it is not among the ${sae.strongest.top} strongest.`,
      make("table.plain", {},
        make("thead", {}, make("tr", {}, ["Latent", ...spec.conditions.map(({ short }) => short)]
          .map((title) => make("th", { scope: "col" }, title)))),
        make("tbody", {}, latents.map((latent) => make("tr", {},
          make("td", {}, make("a", { href: toFeature(state.sae, latent) }, String(latent))), cells(latent))))));
  };

  const strip = (token) => make("div.strip", {}, spec.shown.map((other, i) => {
    const image = spec.images[other.image];
    const link = make("a", { href: address({ sae: state.sae, image: i, token }) },
      make("img", { src: image.picture, alt: `Image ${image.id}` }));
    if (i === state.image) link.setAttribute("aria-current", "true");
    return link;
  }));

  return () => {
    const sae = spec.saes[state.sae];
    const token = state.token ?? centre(sae);
    const [row, column] = place(sae, token);
    const where = row < 0 ? sae.special[token] : `row ${row}, column ${column}`;
    const { canvas, spread, plain } = picture(sae, token, where);
    const found = strongest(sae, state.image, token);
    const most = Math.max(...found.map(([, value]) => value), 1e-12);
    const guess = sae.predicted?.[state.condition][state.image];
    const special = sae.special.map((name, i) =>
      make("button", { type: "button", "aria-pressed": String(token === i), onclick: () => choose(i) }, name));
    return [
      make("div.head", {}, make("h2", {}, "Ask an image"), make("nav", {}, conditions())),
      make("p.muted.clip", {}, `Click a patch to see the latents that write most into it. ${sae.name}.`),
      strip(token),
      make("div.look", {},
        make("div", {}, canvas,
          make("div.under", {}, make("b.clip", {}, caption(spec.images[spec.shown[state.image].image])),
            make("span", {}, special)),
          guess && panel("Predicted", null,
            bars(guess.map(([label, share]) => [named(label), share, percent(share)]), { top: 1 })),
          spec.conditions.length > 1 && beside(sae, token)),
        make("div.found", {},
          make("div.row", {}, make("h3", {}, `Strongest at ${where}`), make("span.note", {}, "activation")),
          found.map(([latent, value]) => card(state.sae, latent, named(sae.table.label[latent]), value / most, number(value),
            { onmouseenter: () => spread(latent), onmouseleave: plain, onfocus: () => spread(latent), onblur: plain })),
          found.length === 0 && make("p.note", {}, "No latent fires here."))),
      make("p.note", {}, `${sae.name}: ${sae.size} latents of ${sae.hook}, described on ${spec.nImages} images. ` +
        `${sae.pages.length} have a page; they were chosen, ${spec.choice}.`),
    ];
  };
})();
