// Feature browser: one latent's page, the images asked for their latents, and the address that leads to each.
"use strict";
(() => {
  const { spec, make, number, signed, percent, named, mapOf, draw, setMode, tile, choice, bars, histogram, list } = Features;
  const detail = document.getElementById("detail");
  const route = { sae: 0, feature: null, image: 0, token: null };
  let condition = 0;
  const dark = () => document.documentElement.dataset.theme === "dark";
  const tinted = (of) => (dark() ? of.dark : of.colour);
  const address = (parts) => `#${Object.entries(parts).map(([key, value]) => `${key}=${value}`).join("&")}`;
  const toFeature = (sae, feature) => address({ sae, feature });
  const conditions = () => spec.conditions.length > 1 && choice("", "condition", spec.conditions.map(({ title }, i) => [i, title]), condition,
    (i) => { condition = i; render(false); detail.querySelector(`[name=condition][value="${i}"]`)?.focus(); });

  const panel = (title, note, ...content) => make("section.panel", {}, make("h3", {}, title), note && make("p.note", {}, note), content);
  const fact = (title, value, note) => make("div", {}, make("dt", {}, title), make("dd", {}, value, note && make("small.clip", { title: note.slice(0, 300) }, note)));
  // A latent in a list, with its top image where it has a page.
  const link = (index, latent, value) => {
    const sae = spec.saes[index];
    const place = sae.pageOf.get(latent);
    return make("a.link", { href: toFeature(index, latent) },
      (place !== undefined && tile(sae, place, 0, 0, 84)) || make("span.blank", { title: "No images were kept" }),
      make("span.clip", {}, `${latent}`, make("small.clip", {}, named(sae.table.label[latent]))), make("b", {}, value));
  };
  // A latent with its strongest images, and a meter of `share` where that is given.
  const card = (index, latent, text, share, value, properties = {}) => {
    const sae = spec.saes[index];
    const place = sae.pageOf.get(latent);
    const meter = make("i");
    meter.style.width = `${100 * Math.max(0, share)}%`;
    return make("a.strong", { href: toFeature(index, latent), ...properties },
      make("span", {}, make("b", {}, String(latent)), make("span.clip.muted", {}, text), make("span.meter", {}, meter), make("span.num", {}, value)),
      place !== undefined && make("span.thumbs", {}, spec.kinds.map((kind, i) => kind === "top" && i < 6 && tile(sae, place, i, 0, 104))));
  };
  const classes = (pairs, shown = signed) => pairs.map(([label, value]) => [named(label), value, shown(value)]);

  // The token whose patch is under the pointer; null for an SAE of CLS alone.
  const under = (event, canvas, sae) => {
    const box = canvas.getBoundingClientRect();
    const [row, column] = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map((part, axis) => Math.min(sae.grid[axis] - 1, Math.max(0, Math.floor(part * sae.grid[axis]))));
    return sae.grid[0] ? sae.special.length + row * sae.grid[1] + column : null;
  };
  const example = (sae, place, i) => {
    const canvas = tile(sae, place, i, condition);
    if (!canvas) return null;
    const page = sae.pages[place];
    const [at, score] = page.examples[i];
    const map = mapOf(sae, place, i, condition);
    const best = map.reduce((most, value, token) => (value > map[most] ? token : most), 0);
    const value = condition === 0 ? score : map[best] * page.top;
    const where = map[best] > 0 && best < sae.special.length ? ` at ${sae.special[best]}` : "";
    const shownValue = make("b", {}, number(value));
    canvas.addEventListener("pointermove", (event) => {
      const token = under(event, canvas, sae);
      if (token !== null) shownValue.textContent = number(map[token] * page.top);
    });
    canvas.addEventListener("pointerleave", () => { shownValue.textContent = number(value); });
    const shown = spec.shown.findIndex(({ image }) => image === at);
    const name = make("span.clip", {}, named(spec.images[at].label));
    name.style.display = "block";
    return make("figure.tile", {}, shown < 0 ? canvas : make("a", { href: address({ sae: route.sae, image: shown }), title: "Ask this image" }, canvas),
      make("figcaption", {}, shownValue, where, spec.kinds[i] === "random" ? " · random" : spec.kinds[i] !== "top" && ` · ${spec.kinds[i]}`, name));
  };

  const featurePage = (latent) => {
    const sae = spec.saes[route.sae];
    const place = sae.pageOf.get(latent);
    const page = sae.pages[place];
    const own = sae.table;
    const corruption = list.corruption();
    const tags = [own.rate[latent] === 0 && "dead", own.rate[latent] > spec.denseAbove && "dense"].filter(Boolean);
    const step = (by, text, title) => {
      const next = list.beside(latent, by);
      return make("button", { type: "button", title, disabled: next === undefined, onclick: () => Features.go(toFeature(route.sae, next)) }, text);
    };
    const top = spec.kinds.filter((kind) => kind === "top").length;
    const tiles = page && spec.kinds.map((_, i) => example(sae, place, i));
    return [
      make("div.head", {}, make("h2", {}, `Latent ${latent}`), tags.map((tag) => make("span.tag", {}, tag)),
        make("nav", {}, make("a.button", { href: address({ sae: route.sae, image: route.image }) }, "Images"), step(-1, "←", "The one above in the table"), step(1, "→", "The one below in the table"))),
      make("p.muted.clip", {}, `${sae.name} · ${sae.kind} · ${sae.hook}, ${sae.tokens === "all" ? "all tokens" : sae.tokens}`),
      make("dl.facts", {},
        fact("Fires on", own.rate[latent] === 0 ? "no token" : `${number(100 * own.rate[latent], 2)}%`, "of tokens"),
        fact("Mean if it fires", number(own.mean[latent])), fact("Highest", number(own.max[latent])),
        fact("Class purity", percent(own.purity[latent]), named(own.label[latent])),
        page && fact("Of top images", percent(page.topLabel[1]), named(page.topLabel[0])),
        fact("Selectivity", number(own.selectivity[latent], 2), page && named(page.selective)),
        spec.corruptions.length > 0 && fact("Moved", percent(own.sensitivity[corruption][latent]), spec.corruptions[corruption].title)),
      !page && make("p.note", {}, "Its images and effects were not kept. Latents were chosen, ", spec.choice,
        ". Ask for this one by its number (features={…} or --features) to see it here."),
      page && [
        make("div.row", {}, make("h3", {}, "Where it is strongest"), make("span.scale", { title: "Activation, one scale for all pictures of this latent" }, "0", make("i"), number(page.top)), conditions()),
        condition > 0 && make("p.note", {}, `Activation on ${spec.conditions[condition].title.toLowerCase()} images, over the clean pictures, on one scale with the clean maps.`),
        make("div.tiles", {}, tiles.slice(0, top)),
        make("div.row", {}, make("h3", {}, "Along the way: quantiles of the images in which it fires, and random ones")),
        make("div.tiles", {}, tiles.slice(top)),
        make("div.panels", {}, panels(sae, page, latent)),
      ],
    ];
  };

  const panels = (sae, page, latent) => [
    page.matches.some(Boolean) && make("section.panel.wide", {}, make("h3", {}, "The same feature elsewhere"),
      make("p.note", {}, "Matched one to one by the cosine of the decoder directions."),
      make("div.cards", {}, page.matches.map((found, index) => found && card(index, found[0],
        `${spec.saes[index].name} · ${named(spec.saes[index].table.label[found[0]])}`, found[1], number(found[1], 2))))),
    panel("Activations", "Clean tokens on which it fires; heights are logarithmic.", histogram(page.histogram, sae.table.max[latent])),
    panel("Classes", "Share of all its activation.", bars([...page.labels.filter(([, share]) => share > 0).map(([label, share]) => [named(label), share, percent(share)])])),
    page.corrupted.length > 0 && panel("Clean against corrupted", "Mean activation over the same tokens; and of the tokens on which it fires clean, how many it keeps.",
      bars([["Clean", page.clean, number(page.clean), tinted(spec.conditions[0])],
        ...page.corrupted.map(({ mean, kept }, i) => [spec.corruptions[i].title, mean, `${number(mean)} · keeps ${percent(kept)}`, tinted(spec.corruptions[i])])], { tick: page.clean })),
    page.raised && panel("Direct effect on the classes", "Logit for one unit of activation in every token that the head reads, through the decoder and the head alone.",
      bars([...classes(page.raised), ...classes([...page.lowered].reverse())])),
    page.ablation && page.ablation.images > 0 && panel("Without it",
      `Ablated on its ${page.ablation.images} top images, everything else as it was: mean change of probability. The label's logit changes by ${signed(page.ablation.logit)}, its probability by ${signed(page.ablation.probability)}; ${percent(page.ablation.changed)} of the predictions change.`,
      bars([...classes(page.ablation.lowered.filter(([, by]) => by < 0)), ...classes([...page.ablation.raised].reverse().filter(([, by]) => by > 0))])),
    panel("Nearest directions", "Of this SAE, by the cosine of their decoder directions.",
      make("div.links", {}, page.nearest.map(([other, cosine]) => link(route.sae, other, number(cosine, 2))))),
  ];

  // The strongest latents at one token of a shown image: [latent, activation].
  const strongest = (sae, image, token) => {
    const start = ((condition * spec.shown.length + image) * sae.nTokens + token) * sae.strongest.top;
    return Array.from({ length: sae.strongest.top }, (_, i) => [sae.strongest.feature[start + i], sae.strongest.activation[start + i]])
      .filter(([latent]) => latent >= 0);
  };
  const centre = (sae) => (sae.nTokens === sae.special.length ? 0
    : sae.special.length + Math.floor(sae.grid[0] / 2) * sae.grid[1] + Math.floor(sae.grid[1] / 2));

  const imagePage = () => {
    const sae = spec.saes[route.sae];
    const shown = spec.shown[route.image];
    const image = spec.images[shown.image];
    const source = condition === 0 ? image.picture : shown.corrupted[condition - 1];
    const token = route.token ?? centre(sae);
    const patch = token - sae.special.length;
    const where = patch < 0 ? sae.special[token] : `row ${Math.floor(patch / sae.grid[1]) + 1}, column ${(patch % sae.grid[1]) + 1}`;
    const canvas = make("canvas.big", { width: 800, height: 800, tabIndex: 0, role: "img" });
    canvas.setAttribute("aria-label", `Image ${image.id}. Token: ${where}. Arrow keys choose another patch.`);
    const plain = () => draw(canvas, source, sae, null, token);
    // While a latent is pointed at: where it is among the strongest of each token.
    const spread = (latent) => {
      const map = new Float32Array(sae.nTokens);
      for (let t = 0; t < sae.nTokens; t++) map[t] = strongest(sae, route.image, t).find(([other]) => other === latent)?.[1] ?? 0;
      const most = Math.max(...map, 1e-12);
      draw(canvas, source, sae, map.map((value) => value / most), token);
    };
    const choose = (next) => Features.go(address({ sae: route.sae, image: route.image, token: next }), ".big");
    canvas.addEventListener("click", (event) => {
      const next = under(event, canvas, sae);
      if (next !== null) choose(next);
    });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!by || !sae.grid[0]) return;
      event.preventDefault();
      event.stopPropagation();
      const here = Math.max(0, patch);
      const [row, column] = [Math.floor(here / sae.grid[1]) + by[0], (here % sae.grid[1]) + by[1]];
      if (row >= 0 && row < sae.grid[0] && column >= 0 && column < sae.grid[1]) choose(sae.special.length + row * sae.grid[1] + column);
    });
    plain();
    const found = strongest(sae, route.image, token);
    const most = Math.max(...found.map(([, value]) => value), 1e-12);
    const guess = sae.predicted?.[condition][route.image];
    return [
      make("div.head", {}, make("h2", {}, "Ask an image"), make("nav", {}, conditions())),
      make("p.muted.clip", {}, `Click a patch to see the latents that write most into it. ${sae.name}.`),
      make("div.strip", {}, spec.shown.map((other, i) => {
        const small = make("a", { href: address({ sae: route.sae, image: i, token }) }, make("img", { src: spec.images[other.image].picture, alt: `Image ${spec.images[other.image].id}` }));
        if (i === route.image) small.setAttribute("aria-current", "true");
        return small;
      })),
      make("div.look", {},
        make("div", {}, canvas,
          make("div.under", {}, make("span.clip", {}, make("b", {}, named(image.label))), sae.special.length > 0 && make("span", {}, sae.special.map((name, i) =>
            make("button", { type: "button", "aria-pressed": String(token === i), onclick: () => choose(i) }, name)))),
          guess && panel("Predicted", null, bars(guess.map(([label, share]) => [named(label), share, percent(share)]), { top: 1 }))),
        make("div.found", {}, make("div.row", {}, make("h3", {}, `Strongest at ${where}`), make("span.note", {}, "activation")),
          found.length ? found.map(([latent, value]) => card(route.sae, latent, named(sae.table.label[latent]), value / most, number(value),
            { onmouseenter: () => spread(latent), onmouseleave: plain, onfocus: () => spread(latent), onblur: plain })) : make("p.note", {}, "No latent fires here."))),
      make("p.note", {}, `${sae.name}: ${sae.size} latents of ${sae.hook}, described on ${spec.nImages} images. ${sae.pages.length} have a page; they were chosen, `, spec.choice, "."),
    ];
  };

  const render = (jump = true) => {
    list.show(route.sae);
    list.mark(route.feature);
    detail.replaceChildren(...(route.feature === null ? imagePage() : featurePage(route.feature)).flat(2).filter(Boolean));
    if (jump) detail.scrollTop = 0;
    const radio = document.querySelector(`#bar [name=sae][value="${route.sae}"]`);
    if (radio) radio.checked = true;
  };
  const within = (text, size, otherwise) => (text !== null && /^\d+$/.test(text) && Number(text) < size ? Number(text) : otherwise);
  let latest = null;
  const read = () => {
    latest = location.hash;
    const asked = new URLSearchParams(location.hash.slice(1));
    const before = route.feature === null && route.token !== null;
    route.sae = within(asked.get("sae"), spec.saes.length, 0);
    route.feature = within(asked.get("feature"), spec.saes[route.sae].size, null);
    const image = within(asked.get("image"), spec.shown.length, route.image);
    route.token = within(asked.get("token"), spec.saes[route.sae].nTokens, null);
    const same = before && route.feature === null && image === route.image;
    route.image = image;
    render(!same);
  };
  // The address changes by script alone: in a notebook's frame a link would lead to the notebook's own address.
  Features.go = (hash, focus) => {
    if (location.hash !== hash) location.hash = hash;
    read();
    if (focus !== null) (focus ? detail.querySelector(focus) : detail)?.focus({ preventScroll: true });
  };
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest("a[href^='#']");
    if (!anchor || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    Features.go(anchor.getAttribute("href"));
  }, true);
  addEventListener("hashchange", () => { if (location.hash !== latest) read(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select") || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); document.querySelector("#list input[type=search]").focus(); }
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = by && route.feature !== null ? list.beside(route.feature, by) : undefined;
    if (next !== undefined) Features.go(toFeature(route.sae, next));
  });

  // The same place in another SAE: the image, or the latent that matches.
  const elsewhere = (index) => {
    const sae = spec.saes[route.sae];
    const match = route.feature !== null && sae.pages[sae.pageOf.get(route.feature)]?.matches[index];
    return match ? toFeature(index, match[0]) : address({ sae: index, image: route.image });
  };
  const theme = make("button", { type: "button", id: "theme", onclick: () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; theme.textContent = dark() ? "Light theme" : "Dark theme"; render(false); } },
    dark() ? "Light theme" : "Dark theme");
  document.getElementById("bar").append(
    ...(spec.saes.length > 1 ? [choice("SAE", "sae", spec.saes.map(({ name }, i) => [i, name]), 0, (i) => Features.go(elsewhere(i), null))] : []),
    choice("Overlay", "overlay", [["heat", "Heat"], ["light", "Spotlight"], ["off", "Off"]], "heat", (mode) => { detail.dataset.overlay = mode; setMode(mode); }), theme);
  detail.classList.toggle("coarse", spec.side <= 96);
  list.refresh();
  read();
})();
