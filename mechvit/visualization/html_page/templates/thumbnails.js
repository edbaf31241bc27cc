// The thumbnails: one canvas with a tile per head, and below them the rollouts; each shows its map of the query or a number.
// acts: pick(row, cell), colour(value, top, change), cellName(row, cell), measured(terms, row, cell, which), root.
"use strict";
const Thumbnails = (spec, s, data, { pick, colour, cellName, measured, root }) => {
  const { make } = Views;
  const { side, weights, measure, scaleOf, scaleOfAll, largest, patches } = data;
  const layers = spec.layers.length;
  const rows = layers + (spec.rollouts.length ? 1 : 0);
  const cells = (row) => (row < layers ? spec.heads.length : spec.rollouts.length);
  const columns = Math.max(cells(0), cells(rows - 1));
  const thumbs = make("canvas");
  thumbs.tabIndex = 0;
  thumbs.setAttribute("role", "application");
  const board = make("div", "ex-board");
  const chosen = make("i", "ex-chosen");
  board.append(thumbs, chosen);
  const numbers = [...spec.layers.map((layer, row) => [layer, row, -1]), ...spec.heads.map((head, cell) => [head, -1, cell]),
    ...(rows > layers ? [["R", layers, -1]] : [])].map(([text, row, cell]) => {
    const label = make("span", row < 0 ? "ex-head" : "ex-layer", text);
    board.append(label);
    return { label, row, cell };
  });
  const tile = () => ({ wide: side()[1] + 1, high: side()[0] + 1, gap: rows > layers ? 2 : 0 });
  const cellAt = (event) => {
    const [box, { wide, high, gap }] = [thumbs.getBoundingClientRect(), tile()];
    const y = ((event.clientY - box.top) / box.height) * thumbs.height;
    const row = Math.floor(y / high) >= layers ? Math.floor((y - gap) / high) : Math.floor(y / high);
    return [row, Math.floor((((event.clientX - box.left) / box.width) * thumbs.width) / wide)];
  };
  let shown = [], all = 1; // the drawn terms, and the value of the strongest colour of numbers
  const say = (row, cell) =>
    cellName(row, cell) + (s.showing && row < layers ? `: ${measured(shown, row, cell, s.showing - 1)}` : "");
  thumbs.addEventListener("pointermove", (event) => {
    const [row, cell] = cellAt(event);
    thumbs.title = row >= 0 && row < rows && cell >= 0 && cell < cells(row) ? say(row, cell) : "";
  });
  thumbs.addEventListener("click", (event) => pick(...cellAt(event)));
  thumbs.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    pick(s.row + step[0], s.cell + step[1]);
  });
  const draw = (terms) => {
    const { wide, high, gap } = tile();
    const [width, height] = [columns * wide + 1, rows * high + gap + 1];
    if (thumbs.width !== width) thumbs.width = width;
    if (thumbs.height !== height) thumbs.height = height;
    const context = thumbs.getContext("2d", { willReadFrequently: true });
    const drawn = context.createImageData(width, height);
    const change = terms.length > 1;
    shown = terms;
    all = s.showing ? largest(spec.layers.flatMap((_, row) => spec.heads.map((_, cell) =>
      measure(terms, row, cell, s.showing - 1)))) : scaleOfAll(terms);
    let filled = 0;
    for (let row = 0; row < rows; row++)
      for (let cell = 0; cell < cells(row); cell++) {
        const found = s.showing ? null : weights(terms, row, cell);
        const value = s.showing ? measure(terms, row, cell, s.showing - 1) : null;
        if (!found && value === null) continue;
        filled++;
        const shares = found && patches(found);
        const top = s.showing || s.range === 2 ? all : s.range === 1 ? scaleOf(terms, row, cell) : largest(shares);
        const [x, y] = [cell * wide + 1, row * high + 1 + (row >= layers ? gap : 0)];
        for (let i = 0; i < (wide - 1) * (high - 1); i++) {
          const [red, green, blue] = colour(found ? shares[i] : value, top, change);
          drawn.data.set([red, green, blue, 255],
            4 * ((y + Math.floor(i / (wide - 1))) * width + x + (i % (wide - 1))));
        }
      }
    context.putImageData(drawn, 0, 0);
    root.dataset.thumbnails = filled;
    for (const { label, row, cell } of numbers)
      if (row < 0) label.style.left = `${(100 * (cell + 0.5) * wide) / width}%`;
      else label.style.top = `${(100 * ((row + 0.5) * high + (row >= layers ? gap : 0))) / height}%`;
    chosen.style.left = `${(100 * s.cell * wide) / width}%`;
    chosen.style.top = `${(100 * (s.row * high + (s.row >= layers ? gap : 0))) / height}%`;
    chosen.style.width = `${(100 * (wide + 1)) / width}%`;
    chosen.style.height = `${(100 * (high + 1)) / height}%`;
    thumbs.setAttribute("aria-label", `${say(s.row, s.cell)}; arrow keys choose another`);
  };
  return { board, draw, top: () => all };
};
