// Feature browser: one latent's page, and the parts that the images' page shares with it.
"use strict";
Object.assign(Features, (() => {
  const { spec, state, make, number, signed, percent, named, caption, mapOf, tile, choice, bars, histogram, list } = Features;
  const address = (parts) => `#${Object.entries(parts).map(([key, value]) => `${key}=${value}`).join("&")}`;
  const toFeature = (sae, feature) => address({ sae, feature });
  const conditions = () => spec.conditions.length > 1 && choice("", "condition",
    spec.conditions.map(({ title }, i) => [i, title]), state.condition, (i) => {
      state.condition = i;
      Features.render(false);
      document.querySelector(`#detail [name=condition][value="${i}"]`)?.focus();
    });
  const panel = (title, note, ...content) => make("section.panel", {},
    make("h3", {}, title), note && make("p.note", {}, note), content);

  // A latent in a list, with its top image where it has a page.
  const link = (index, latent, value) => {
    const sae = spec.saes[index];
    const place = sae.pageOf.get(latent);
    return make("a.link", { href: toFeature(index, latent) },
      (place !== undefined && tile(sae, place, 0, 0, 84)) || make("span.blank", { title: "No images were kept" }),
      make("span.clip", {}, String(latent), make("small.clip", {}, named(sae.table.label[latent]))),
      make("b", {}, value));
  };
  // A latent with its strongest images and a meter of `share`.
  const card = (index, latent, text, share, value, properties = {}) => {
    const sae = spec.saes[index];
    const place = sae.pageOf.get(latent);
    const meter = make("i");
    meter.style.width = `${100 * Math.max(0, share)}%`;
    const first = spec.kinds.map((kind, i) => [kind, i]).filter(([kind, i]) => kind === "top" && i < 6);
    return make("a.strong", { href: toFeature(index, latent), ...properties },
      make("span", {}, make("b", {}, String(latent)), make("span.clip.muted", {}, text),
        make("span.meter", {}, meter), make("span.num", {}, value)),
      place !== undefined && make("span.thumbs", {}, first.map(([, i]) => tile(sae, place, i, 0, 104))));
  };
  // The token whose patch is under the pointer; null for an SAE of CLS alone.
  const under = (event, canvas, sae) => {
    const box = canvas.getBoundingClientRect();
    const [row, column] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map((part, axis) => Math.min(sae.grid[axis] - 1, Math.max(0, Math.floor(part * sae.grid[axis]))));
    return sae.grid[0] ? sae.special.length + row * sae.grid[1] + column : null;
  };

  // One picture of the latent; pointing at a patch shows its activation.
  const example = (sae, place, i) => {
    const canvas = tile(sae, place, i, state.condition);
    if (!canvas) return null;
    const page = sae.pages[place];
    const [at, score] = page.examples[i];
    const map = mapOf(sae, place, i, state.condition);
    const best = map.reduce((most, value, token) => (value > map[most] ? token : most), 0);
    const highest = number(state.condition === 0 ? score : map[best] * page.top);
    const value = make("b", {}, highest);
    canvas.addEventListener("pointermove", (event) => {
      const token = under(event, canvas, sae);
      if (token !== null) value.textContent = number(map[token] * page.top);
    });
    canvas.addEventListener("pointerleave", () => { value.textContent = highest; });
    const shown = spec.shown.findIndex(({ image }) => image === at);
    const framed = shown < 0 ? canvas
      : make("a", { href: address({ sae: state.sae, image: shown }), title: "Ask this image" }, canvas);
    return make("figure.tile", {}, framed, make("figcaption", {}, value,
      map[best] > 0 && best < sae.special.length && ` at ${sae.special[best]}`,
      spec.kinds[i] !== "top" && ` · ${spec.kinds[i]}`, make("span.clip.block", {}, caption(spec.images[at]))));
  };

  const fact = (title, value, note) => make("div", {}, make("dt", {}, title),
    make("dd", {}, value, note && make("small.clip", { title: note.slice(0, 300) }, note)));
  const facts = (sae, page, latent) => {
    const own = sae.table;
    const corruption = list.corruption();
    return make("dl.facts", {},
      fact("Fires on", own.rate[latent] === 0 ? "no token" : `${number(100 * own.rate[latent], 2)}%`, "of tokens"),
      fact("Mean if it fires", number(own.mean[latent])),
      fact("Highest", number(own.max[latent])),
      fact("Class purity", percent(own.purity[latent]), named(own.label[latent])),
      page && fact("Of top images", percent(page.topLabel[1]), named(page.topLabel[0])),
      fact("Selectivity", number(own.selectivity[latent], 2), page && named(page.selective)),
      spec.corruptions.length > 0 &&
        fact("Moved", percent(own.sensitivity[corruption][latent]), spec.corruptions[corruption].title));
  };

  const toImages = () => make("a.button", { href: address({ sae: state.sae, image: state.image }) }, "Images");
  let steps = []; // the buttons to the neighbours in the table
  // After the table is sorted or filtered anew: a latent may have lost its neighbours, or got some.
  const relisted = () => steps.forEach(({ by, latent, button }) => { button.disabled = list.beside(latent, by) === undefined; });

  const absentPage = (number) => {
    const { name, size } = spec.saes[state.sae];
    return [
      make("div.head", {}, make("h2.clip", {}, `Latent ${number.slice(0, 30)}`), make("nav", {}, toImages())),
      make("p.note", {}, `There is no such latent: ${name.slice(0, 300)} has 0 to ${size - 1}.`),
    ];
  };

  const latentPage = (latent) => {
    const sae = spec.saes[state.sae];
    const place = sae.pageOf.get(latent);
    const page = sae.pages[place];
    const rate = sae.table.rate[latent];
    const tags = [rate === 0 && "dead", rate > spec.denseAbove && "dense"].filter(Boolean);
    steps = [[-1, "←", "above"], [1, "→", "below"]].map(([by, text, where]) => {
      const title = `The latent ${where} in the table`;
      const onclick = () => Features.go(toFeature(state.sae, list.beside(latent, by)));
      return { by, latent, button: make("button", { type: "button", title, "aria-label": title, onclick }, text) };
    });
    relisted();
    const nav = make("nav", {}, toImages(), steps.map(({ button }) => button));
    const where = `${sae.kind} · ${sae.hook}, ${sae.tokens === "all" ? "all tokens" : sae.tokens}`;
    return [
      make("div.head", {}, make("h2", {}, `Latent ${latent}`), tags.map((tag) => make("span.tag", {}, tag)), nav),
      make("p.muted.clip", {}, `${sae.name} · ${where}`),
      facts(sae, page, latent),
      ...(page ? details(sae, place, latent) : [make("p.note", {},
        "Its images and effects were not kept. Latents were chosen, ", spec.choice,
        ". Ask for this one by its number (features={…} or --features) to see it here.")]),
    ];
  };

  const details = (sae, place, latent) => {
    const page = sae.pages[place];
    const tiles = spec.kinds.map((_, i) => example(sae, place, i));
    const top = spec.kinds.filter((kind) => kind === "top").length;
    const { title } = spec.conditions[state.condition];
    return [
      make("div.row", {}, make("h3", {}, "Where it is strongest"),
        make("span.scale", { title: "Activation, one scale for all pictures of this latent" }, "0", make("i"), number(page.top)),
        conditions()),
      state.condition > 0 && make("p.note", {},
        `Activation on ${title.toLowerCase()} images, drawn over the clean pictures, on the scale of the clean maps.`),
      make("div.tiles", {}, tiles.slice(0, top)),
      make("div.row", {}, make("h3", {}, "Weaker examples: at quantiles of the images in which it fires, and at random")),
      make("div.tiles", {}, tiles.slice(top)),
      make("div.panels", {}, elsewhere(page), panels(sae, page, latent)),
    ];
  };

  const elsewhere = (page) => page.matches.some(Boolean) && make("section.panel.wide", {},
    make("h3", {}, "The same feature elsewhere"),
    make("p.note", {}, "Matched one to one by the cosine of the decoder directions; in large SAEs, only pairs that are each other's nearest."),
    make("div.cards", {}, page.matches.map((found, index) => {
      if (!found) return null;
      const [latent, cosine] = found;
      const sae = spec.saes[index];
      return card(index, latent, `${sae.name} · ${named(sae.table.label[latent])}`, cosine, number(cosine, 2));
    })));

  const panels = (sae, page, latent) => {
    const classes = (pairs, shown) => pairs.map(([label, value]) => [named(label), value, shown(value)]);
    const { ablation } = page;
    return [
      panel("Activations", "Clean tokens on which it fires; heights are logarithmic.",
        histogram(page.histogram, sae.table.max[latent])),
      page.labels.length > 0 && panel("Classes", "Share of all its activation.",
        bars([...classes(page.labels.filter(([, share]) => share > 0), percent),
          ...(page.otherLabels > 0.005 ? [["other classes", page.otherLabels, percent(page.otherLabels)]] : [])])),
      page.corrupted.length > 0 && panel("Clean against corrupted",
        "Mean activation over the same tokens; and of the tokens on which it fires clean, how many it keeps.",
        bars([["Clean", page.clean, number(page.clean), spec.conditions[0]],
          ...page.corrupted.map(({ mean, kept }, i) => [spec.corruptions[i].title, mean,
            `${number(mean)} · keeps ${percent(kept)}`, spec.corruptions[i]])], { tick: page.clean })),
      page.raised && panel("Direct effect on the classes",
        "Logit for one unit of activation in every token that the head reads, through the decoder and the head alone.",
        bars(classes([...page.raised, ...[...page.lowered].reverse()], signed))),
      ablation?.images > 0 && panel("Without it",
        `Ablated on its ${ablation.images} top images, everything else unchanged: mean change of probability. ` +
        (ablation.logit === null ? "" :
          `The label's logit changes by ${signed(ablation.logit)}, its probability by ${signed(ablation.probability)}; `) +
        `${percent(ablation.changed)} of the predictions change.`,
        bars(classes([...ablation.lowered.filter(([, by]) => by < 0),
          ...[...ablation.raised].reverse().filter(([, by]) => by > 0)], signed))),
      panel("Nearest directions", "Of this SAE, by the cosine of their decoder directions.",
        make("div.links", {}, page.nearest.map(([other, cosine]) => link(state.sae, other, number(cosine, 2))))),
    ];
  };

  return { address, toFeature, conditions, panel, card, under, latentPage, absentPage, relisted };
})());
