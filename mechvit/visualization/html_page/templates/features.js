// Feature browser: the address leads to a latent (#sae=0&feature=123) or to a patch (#sae=0&image=3&token=17).
"use strict";
(() => {
  const { spec, state, make, setMode, choice, list, address, toFeature } = Features;
  const detail = document.getElementById("detail");
  let latest = null;

  Features.render = (jump) => {
    list.show(state.sae);
    list.mark(state.feature);
    const parts = state.absent ? Features.absentPage(state.absent)
      : state.feature === null ? Features.imagePage() : Features.latentPage(state.feature);
    detail.replaceChildren(...parts.filter(Boolean));
    if (jump) detail.scrollTop = 0;
    const radio = document.querySelector(`#bar [name=sae][value="${state.sae}"]`);
    if (radio) radio.checked = true;
  };
  const within = (text, size, otherwise) => (/^\d+$/.test(text ?? "") && Number(text) < size ? Number(text) : otherwise);
  const read = () => {
    latest = location.hash;
    const asked = new URLSearchParams(location.hash.slice(1));
    const before = { ...state };
    state.sae = within(asked.get("sae"), spec.saes.length, 0);
    const sae = spec.saes[state.sae];
    state.feature = within(asked.get("feature"), sae.size, null);
    state.absent = state.feature === null && /^\d+$/.test(asked.get("feature") ?? "") ? asked.get("feature") : null;
    state.image = within(asked.get("image"), spec.shown.length, before.image);
    state.token = within(asked.get("token"), sae.nTokens, null);
    const moved = before.feature !== state.feature || before.absent !== state.absent || before.image !== state.image;
    Features.render(moved);
    if (moved && matchMedia("(max-width: 1080px)").matches) detail.scrollIntoView(); // it lies below the table there
  };
  // Goes there and focuses what `focus` selects in the details, they themselves, or with null nothing new. The address
  // changes by script alone: in a notebook's frame a link would lead to the notebook's own address.
  Features.go = (hash, focus = "") => {
    if (location.hash !== hash) location.hash = hash;
    read();
    if (focus !== null) (focus ? detail.querySelector(focus) : detail)?.focus({ preventScroll: true });
  };
  addEventListener("hashchange", () => { if (location.hash !== latest) read(); });
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest("a[href^='#']");
    if (!anchor || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    Features.go(anchor.getAttribute("href"));
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select") || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector("#list input[type=search]").focus();
    }
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = by && state.feature !== null ? list.beside(state.feature, by) : undefined;
    if (next !== undefined) Features.go(toFeature(state.sae, next));
  });

  // The same place in another SAE: the image, or the latent that matches.
  const elsewhere = (index) => {
    const sae = spec.saes[state.sae];
    const match = state.feature !== null && sae.pages[sae.pageOf.get(state.feature)]?.matches[index];
    return match ? toFeature(index, match[0]) : address({ sae: index, image: state.image });
  };
  const modes = [["heat", "Heat"], ["light", "Spotlight"], ["off", "Off"]];
  const names = spec.saes.map(({ name }, i) => [i, name]);
  document.getElementById("bar").append(
    ...(names.length > 1 ? [choice("SAE", "sae", names, 0, (i) => Features.go(elsewhere(i), null))] : []),
    choice("Overlay", "overlay", modes, "heat", (mode) => { detail.dataset.overlay = mode; setMode(mode); }));
  detail.classList.toggle("coarse", spec.side <= 96);
  list.refresh();
  read();
})();
