// Feature browser: the table of all latents of one SAE, sorted, searched and filtered.
"use strict";
Features.list = (() => {
  const { spec, make, number, percent, named, tile } = Features;
  const STEP = 100;
  const view = { sae: 0, sort: "max", down: true, search: "", status: "pages", purity: 0, sensitivity: 0,
    corruption: Math.max(0, spec.corruptions.findIndex(({ key }) => key === spec.conditions[1]?.key)), shown: STEP };
  const root = document.getElementById("list");
  const body = make("tbody");
  const head = make("tr");
  const count = make("p.count");
  const more = make("button.more", { type: "button", onclick: () => { view.shown += STEP; rows(); } });
  let order = [];
  let current = -1;

  const sae = () => spec.saes[view.sae];
  const moved = (latent) => (spec.corruptions.length ? sae().table.sensitivity[view.corruption][latent] : NaN);
  const columns = [
    ["", "", null, "text"],
    ["latent", "Latent", (i) => i, "text"],
    ["label", "Class", (i) => (sae().table.label[i] < 0 ? NaN : named(sae().table.label[i])), "text",
      (i) => named(sae().table.label[i])],
    ["rate", "log₁₀ rate", (i) => sae().table.rate[i], "", (i) => number(Math.log10(sae().table.rate[i])),
      "Share of tokens on which the latent fires, as a power of ten"],
    ["mean", "Mean", (i) => sae().table.mean[i], "", (i) => number(sae().table.mean[i]), "Mean activation where it fires"],
    ["max", "Max", (i) => sae().table.max[i], "", (i) => number(sae().table.max[i]), "Highest activation"],
    ["purity", "Purity", (i) => sae().table.purity[i], "", (i) => percent(sae().table.purity[i]),
      "Share of its activation that falls on images of the class named here"],
    ["moved", "Moved", moved, "", (i) => percent(moved(i)), "Corruption sensitivity: mean |corrupted − clean| over the " +
      "sum of both means; 0% unchanged, 100% no token keeps its activation"],
  ].filter(([key]) => key !== "moved" || spec.corruptions.length);

  const status = {
    pages: ["With images", (i) => sae().pageOf.has(i)],
    all: ["All", () => true],
    alive: ["Alive", (i) => sae().table.rate[i] > 0],
    dense: ["Dense", (i) => sae().table.rate[i] > spec.denseAbove],
    dead: ["Dead", (i) => sae().table.rate[i] === 0],
  };
  const matching = () => {
    const words = view.search.trim().toLowerCase();
    const own = sae().table;
    const found = [];
    for (let i = 0; i < sae().size; i++) {
      if (!status[view.status][1](i)) continue;
      if (view.purity > 0 && !(own.purity[i] >= view.purity)) continue;
      if (view.sensitivity > 0 && !(moved(i) >= view.sensitivity)) continue;
      if (words && String(i) !== words && !named(own.label[i]).toLowerCase().includes(words)) continue;
      found.push(i);
    }
    return found;
  };
  const sort = (found) => {
    const value = columns.find(([key]) => key === view.sort)[2];
    const sign = view.down ? -1 : 1;
    const missing = (x) => typeof x === "number" && Number.isNaN(x);
    return found.map((i) => [value(i), i]).sort(([a, i], [b, j]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b) || i - j; // what is not known comes last
      return (a < b ? -sign : a > b ? sign : 0) || i - j;
    }).map(([, i]) => i);
  };

  const row = (latent) => {
    const place = sae().pageOf.get(latent);
    const link = make("a", { href: `#sae=${view.sae}&feature=${latent}` }, String(latent));
    const cell = (key, value, shown) => {
      if (key === "") return place !== undefined && tile(sae(), place, 0, 0, 76);
      if (key === "latent") return link;
      return shown ? shown(latent) : value(latent);
    };
    const line = make(place === undefined ? "tr.plain" : "tr", { onclick: () => Features.go(link.getAttribute("href")) },
      columns.map(([key, , value, style, shown]) => make(style ? `td.${style}` : "td", {}, cell(key, value, shown))));
    line.dataset.latent = latent;
    if (latent === current) line.setAttribute("aria-current", "true");
    return line;
  };
  const rows = () => {
    body.replaceChildren(...order.slice(0, view.shown).map(row));
    more.hidden = order.length <= view.shown;
    more.textContent = `Show ${Math.min(STEP, order.length - view.shown)} more`;
    count.textContent = `${order.length} of ${sae().size} latents`;
  };
  const refresh = () => {
    order = sort(matching());
    view.shown = STEP;
    head.replaceChildren(...columns.map(([key, title, , style, , about]) => {
      const onclick = () => {
        view.down = view.sort === key ? !view.down : key !== "latent" && key !== "label";
        view.sort = key;
        refresh();
        [...head.querySelectorAll("button")].find((button) => button.textContent === title).focus();
      };
      const button = title ? make("button", { type: "button", title: about ?? "", onclick }, title) : make("span.hidden", {}, "Picture");
      const cell = make(style ? `th.${style}` : "th", { scope: "col" }, button);
      if (key === view.sort) cell.setAttribute("aria-sort", view.down ? "descending" : "ascending");
      return cell;
    }));
    rows();
    Features.relisted();
    root.querySelector(".rows").scrollTop = 0;
  };

  const slider = (title, key) => {
    const shown = make("output", {}, "0%");
    const oninput = (event) => {
      view[key] = event.target.value / 100;
      shown.value = `${event.target.value}%`;
      refresh();
    };
    const range = { type: "range", min: 0, max: 100, value: 0, "aria-label": `${title} at least`, oninput };
    return make("label", {}, title, make("input", range), shown);
  };
  const select = (title, options, selected, changed) => make("select",
    { "aria-label": title, onchange: (event) => { changed(event.target.value); refresh(); } },
    options.map(([value, text]) => make("option", { value, selected: value === selected }, text)));
  const search = make("input", { type: "search", placeholder: "Class or number  ( / )", "aria-label": "Search by class or number",
    oninput: () => { view.search = search.value; refresh(); } });
  const table = () => {
    const own = sae().table;
    const titles = ["sae", "latent", "class", "firing_rate", "mean_activation", "max_activation", "class_purity", "selectivity",
      ...spec.corruptions.map(({ key }) => `moved_by_${key}`)];
    return ["latents", Csv.text(titles, order.map((i) => [sae().name, i, own.label[i] < 0 ? "" : named(own.label[i]), own.rate[i],
      own.mean[i], own.max[i], own.purity[i], own.selectivity[i], ...own.sensitivity.map((part) => part[i])]))];
  };
  const corruptions = spec.corruptions.map(({ short }, i) => [i, `moved by ${short.toLowerCase()}`]);
  const chooseCorruption = (i) => { view.corruption = Number(i); Features.render(false); };
  root.append(
    make("div.tools", {}, search,
      select("Which latents", Object.entries(status).map(([key, [text]]) => [key, text]), view.status, (key) => { view.status = key; }),
      corruptions.length > 0 && select("Corruption that the column Moved is about", corruptions, view.corruption, chooseCorruption),
      slider("Purity ≥", "purity"), corruptions.length > 0 && slider("Moved ≥", "sensitivity"), Csv.button("CSV", table)),
    count, make("div.rows", {}, make("table", {}, make("thead", {}, head), body), more));

  return {
    refresh,
    corruption: () => view.corruption,
    show: (index) => { if (index !== view.sae) { view.sae = index; refresh(); } },
    // Marks the row of the latent that the other side of the page shows.
    mark: (latent) => {
      current = latent;
      body.querySelectorAll("tr").forEach((line) => {
        if (Number(line.dataset.latent) === latent) line.setAttribute("aria-current", "true");
        else line.removeAttribute("aria-current");
      });
    },
    // The latent that many places on in the table's order; undefined at its end, and where the table lacks the latent.
    beside: (latent, step) => (order.includes(latent) ? order[order.indexOf(latent) + step] : undefined),
  };
})();
