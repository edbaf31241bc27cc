// The explorer's numbers: patterns decompressed when first needed, their signed sums at a query, and heads' statistics.
// A term is [model, condition, sign]; a row is a layer, and after the last one the rollouts; a cell is a head or a rollout.
"use strict";
const Patterns = (spec, s, arrived) => {
  const SQUARE = Float32Array.from({ length: 256 }, (_, code) => (code / 255) ** 2);
  const layers = spec.layers.length;
  let cache = new Map();
  const picture = () => spec.pictures[s.picture];
  const side = () => spec.grid.map((n) => Math.ceil(n / picture().block));
  const tokens = () => spec.prefix.length + side()[0] * side()[1];
  const panel = ([m, c]) => picture().panels[m][c];

  // Bytes [cell][query][key] of one model, condition and row; null until they are inflated.
  const codes = (term, row) => {
    const [key, here] = [`${term[0]}:${term[1]}:${row}`, cache];
    if (!here.has(key)) {
      here.set(key, null);
      Views.inflate(panel(term).rows[row]).then((found) => {
        here.set(key, found);
        if (here === cache) arrived();
      });
    }
    return here.get(key);
  };
  // The signed sum of some patterns at the query, over all tokens; null until all are inflated.
  const weights = (terms, row, cell) => {
    const [n, total] = [tokens(), new Float32Array(tokens())];
    for (const term of terms) {
      const found = codes(term, row);
      if (!found) return null;
      const scale = term[2] * panel(term).scale[row][cell];
      const [from, step] = s.backward ? [cell * n * n + s.query, n] : [(cell * n + s.query) * n, 1];
      for (let i = 0; i < n; i++) total[i] += scale * SQUARE[found[from + step * i]];
    }
    return total;
  };
  // A head's entropy (0), distance (1), mass of each prefix token (2 ...); null for a rollout.
  const measure = (terms, row, cell, which) => {
    if (row >= layers) return null;
    const read = (found) => [found.entropy[row][cell], found.distance[row][cell], ...found.prefix_mass[row][cell]][which];
    return terms.reduce((total, term) => total + term[2] * read(panel(term)), 0);
  };
  const scaleOf = (terms, row, cell) => Math.max(...terms.map((term) => panel(term).scale[row][cell]));
  const scaleOfAll = (terms) => Math.max(...terms.map((term) => Math.max(...panel(term).scale.slice(0, layers).flat())));
  const largest = (values) => values.reduce((top, value) => Math.max(top, Math.abs(value)), 0) || 1e-9;
  const patches = (values) => values.subarray(spec.prefix.length);

  // Tokens, places [column, row] of blocks, and names.
  const place = (token) => {
    const at = token - spec.prefix.length;
    return at < 0 ? null : [at % side()[1], Math.floor(at / side()[1])];
  };
  const tokenAt = (column, row) => spec.prefix.length + row * side()[1] + column;
  const centre = () => tokenAt(Math.floor(side()[1] / 2), Math.floor(side()[0] / 2));
  const nameOf = (token) => {
    const [at, block] = [place(token), picture().block];
    if (!at) return spec.prefix[token];
    const span = (from, end) => {
      const last = Math.min(from + block, end) - 1;
      return last > from ? `s ${from}–${last}` : ` ${from}`;
    };
    return `row${span(at[1] * block, spec.grid[0])}, column${span(at[0] * block, spec.grid[1])}`;
  };
  // Turns to another picture; the query stays where it is on the picture.
  const turn = (index) => {
    const [before, block] = [place(s.query), picture().block];
    s.picture = index;
    if (before) s.query = tokenAt(...before.map((at) => Math.floor((at * block) / picture().block)));
    cache = new Map();
  };
  return { picture, side, weights, measure, scaleOf, scaleOfAll, largest, patches, place, tokenAt, centre, nameOf, turn };
};
