// Ranges of each tensor as multiples of the range that the reference set (the study's first) gives: a narrow one clips.
// Over several seeds: the mean, and how far the seeds lie apart, so that one sees what is the set's and what the draw's.

const SHOWN_TENSORS = 20;
const PAPER_TENSORS = 60;
const ranges = { method: 0, all: false };

function rangeEntries() {
  const model = state.filter.model ?? 0;
  const found = state.study.ranges.entries.filter(([m, , , k]) => m === model && k === ranges.method);
  return found.map(([, calibration, strategy, , entry]) => ({ name: setName(calibration, strategy), ...entry }));
}

function rangeControls() {
  const { levels } = state.study;
  const select = element("select", { id: "range-method", onchange: () => {
    ranges.method = Number(select.value);
    drawRanges();
    announce(`Ranges of ${levels.method[ranges.method]}.`);
  } }, ...levels.method.map((method, k) => element("option", { value: k }, method)));
  document.getElementById("range-map").replaceChildren(
    element("p", { class: "screen" }, element("label", {}, "method", select)), element("div", { id: "range-table" }),
    stepKey(["wider than ×1.4", "×1.4 to ×0.9", "to ×0.81", "to ×0.71", "to ×0.5", "to ×0.35", "to ×0.25", "narrower"]));
}

// log2 of width over reference width, by tensor and entry; null where one of them has no width.
function rangeRatios(entries) {
  const lists = state.study.ranges.tensorLists;
  const width = (entry) => new Map(lists[entry.tensors].map((name, k) => [name, {
    low: entry.low[k], high: entry.high[k], width: entry.high[k] - entry.low[k], seeds: entry.seeds.length,
    least: (entry.least?.[k] ?? 1000) / 1000, most: (entry.most?.[k] ?? 1000) / 1000 }]));
  const maps = entries.map(width);
  const rows = [...maps[0].keys()].map((tensor) => {
    const cells = maps.map((map) => map.get(tensor) ?? null);
    const ratios = cells.map((cell) => (cell && cells[0].width > 0 && cell.width > 0 ? Math.log2(cell.width / cells[0].width) : null));
    return { tensor, cells, ratios, most: Math.max(0, ...ratios.map((ratio) => Math.abs(ratio ?? 0))) };
  });
  return rows.sort((a, b) => b.most - a.most);
}

function drawRanges() {
  const entries = rangeEntries();
  const place = document.getElementById("range-table");
  if (entries.length < 2) {
    place.replaceChildren(element("p", {}, "There are no ranges of two calibration sets to compare here."));
    return;
  }
  const rows = rangeRatios(entries);
  const shown = ranges.all ? rows : rows.slice(0, state.paper ? PAPER_TENSORS : SHOWN_TENSORS);
  const method = state.study.levels.method[ranges.method];
  const caption = `Width of each range under ${method}, as a multiple of that of ${entries[0].name}; ${seedWords(entries)}${filtered(["model"])}; `
    + `tensors that differ most first${shown.length < rows.length ? ` (${shown.length} of ${rows.length})` : ""}`;
  const tables = mapTables(caption, "tensor", entries.map((entry) => entry.name), shown.map((row) => ({
    name: row.tensor, marks: row.cells.map((cell, k) => rangeCell(row.tensor, entries[k].name, cell, row.ratios[k])) })));
  const parts = [element("p", { id: "range-words" }, rangeWords(entries, rows)), ...tables];
  if (rows.length > SHOWN_TENSORS) {
    parts.push(element("button", { type: "button", class: "screen", onclick: () => { ranges.all = !ranges.all; drawRanges(); } },
      ranges.all ? `Show the first ${SHOWN_TENSORS}` : `Show all ${rows.length} tensors`));
  }
  place.replaceChildren(...parts);
}

function rangeWords(entries, rows) {
  const middle = entries.map((entry, k) => {
    const sorted = rows.map((row) => row.ratios[k]).filter((ratio) => ratio !== null).sort((a, b) => a - b);
    return { name: entry.name, ratio: sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0 };
  });
  const least = middle.reduce((best, one) => (one.ratio < best.ratio ? one : best));
  const most = middle.reduce((best, one) => (one.ratio > best.ratio ? one : best));
  const base = entries[0].name;
  const narrow = least.ratio < -0.1 ? `${least.name} has the narrowest ranges: half of the tensors get less than ${times(least.ratio)} of what `
    + `${base} gives. Values beyond a range are clipped. ` : `No set has ranges much narrower than ${base}, so little is clipped. `;
  const wide = most.ratio > 0.1 ? `${most.name} has the widest: half of the tensors get more than ${times(most.ratio)}; a wide range makes the steps coarse.` : "";
  return `${narrow}${wide} ${spreadWords(rows)}`.trim();
}

function seedWords(entries) {
  const most = Math.max(...entries.map((entry) => entry.seeds.length));
  return most > 1 ? `mean over ${most} seeds, below it the narrowest and the widest seed` : `seed ${entries[0].seeds[0]}`;
}

// How much of a difference is the draw's: half of all ranges lie closer together than this from seed to seed.
function spreadWords(rows) {
  const spreads = rows.flatMap((row) => row.cells).filter((cell) => cell && cell.seeds > 1 && cell.width > 0)
    .map((cell) => cell.most - cell.least).sort((a, b) => a - b);
  if (!spreads.length) return "";
  const middle = 100 * spreads[Math.floor(spreads.length / 2)];
  return `From seed to seed half of the ranges differ by no more than ${middle.toFixed(1)}\u00a0% of their width.`;
}

function times(ratio) {
  const value = 2 ** ratio;
  return `×${value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(2)}`;
}

// One digit more for what is narrow: its seeds lie close together.
function finely(value) {
  return value >= 10 ? value.toFixed(1) : value >= 0.5 ? value.toFixed(2) : value.toPrecision(3);
}

// Narrow is what harms, so it has the colours of harm. In doublings that are lost.
const LOST = [-0.5, 0.15, 0.3, 0.5, 1, 1.5, 2];

function rangeCell(tensor, set, cell, ratio) {
  if (!cell || ratio === null) return null;
  const [least, most] = [cell.least, cell.most].map((share) => finely(share * 2 ** ratio));
  const apart = cell.seeds > 1 ? `, from ×${least} to ×${most} over ${cell.seeds} seeds` : "";
  const mark = element("div", { class: `cell step-${stepOf(-ratio, LOST)}`, role: "img",
    "aria-label": `${tensor}, ${set}: ${times(ratio)}${apart}, ${cell.low} to ${cell.high}` }, times(ratio));
  if (cell.seeds > 1) mark.append(element("small", {}, `${least}–${most}`));
  const ends = `${cell.low} to ${cell.high}${cell.seeds > 1 ? `, mean over ${cell.seeds} seeds` : ""}`;
  return explain(mark, `${tensor}\n${set}: ${ends}\n${times(ratio)} of the reference${apart}`);
}
