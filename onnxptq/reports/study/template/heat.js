// Heat maps: calibration set × method, one number at a time.

const METRICS = {
  crossfit_drop: { name: "cross-fitted worst-group drop", low: "crossfit_drop_low", high: "crossfit_drop_high", unit: "points" },
  average_drop: { name: "average drop", low: "average_drop_low", high: "average_drop_high", unit: "points" },
  cvar10_drop: { name: "worst tenth of groups (CVaR)", unit: "points" },
  flip_rate: { name: "flips", unit: "%" },
};

function metricChoice() {
  const box = document.getElementById("metric");
  for (const [key, { name }] of Object.entries(METRICS)) {
    const radio = element("input", { type: "radio", name: "metric", value: key, onchange: () => {
      state.metric = key;
      drawHeat();
      announce(`Heat map shows ${name}.`);
    } });
    radio.checked = key === state.metric;
    box.append(element("label", {}, radio, name));
  }
}

function drawHeat() {
  const { cells, levels } = state.study;
  const metric = METRICS[state.metric];
  const rows = new Map();
  for (const i of shownCells()) {
    const row = `${cells.calibration[i]} ${cells.strategy[i]}`;
    if (!rows.has(row)) rows.set(row, levels.method.map(() => []));
    rows.get(row)[cells.method[i]].push(i);
  }
  const values = [...rows.values()].flat().map((indices) => mean(indices.map((i) => cells[state.metric][i])));
  const largest = Math.max(...values.filter((value) => value !== null).map(Math.abs), 2 * state.study.limit);
  const head = element("tr", {}, element("th", { scope: "col" }, "calibration set"),
    ...levels.method.map((method) => element("th", { scope: "col" }, method)));
  const body = element("tbody");
  for (const [row, columns] of rows) {
    const name = setName(...row.split(" ").map(Number));
    const line = element("tr", {}, element("th", { scope: "row" }, name));
    columns.forEach((indices, method) => line.append(heatCell(indices, name, levels.method[method], metric, largest)));
    body.append(line);
  }
  const caption = `${metric.name[0].toUpperCase()}${metric.name.slice(1)}, ${metric.unit}${averaged()}`;
  const table = element("table", { class: "map" }, element("caption", {}, caption), element("thead", {}, head), body);
  document.getElementById("heat-map").replaceChildren(scrolling(caption, table));
  document.getElementById("heat-key").textContent =
    "✓ safe, ✗ unsafe, ? undecided, ! failed: by the cross-fitted drop, whichever number is shown. The darker (in the dark " +
    "theme, the brighter), the larger. Point at a cell, or reach it with Tab, for its interval; press it to see its groups.";
}

// What is averaged over when the filters leave several cells in one place.
function averaged() {
  const { levels } = state.study;
  const over = ["model", "target", "runtime", "seed"].filter((name) => levels[name].length > 1 && state.filter[name] === undefined);
  return over.length ? `; mean over ${over.map((name) => count(levels[name].length, name)).join(", ")}` : "";
}

function heatCell(indices, set, method, metric, largest) {
  const { cells } = state.study;
  if (!indices.length) return element("td", {}, element("div", { class: "none" }, "–"));
  const value = mean(indices.map((i) => cells[state.metric][i]));
  const verdict = verdictOf(indices);
  const button = element("button", {
    type: "button",
    "data-verdict": verdict,
    "aria-pressed": String(state.chosen !== null && indices.includes(state.chosen)),
    "aria-label": `${set}, ${method}: ${points(value)} ${metric.unit}, ${verdict}`,
    onclick: (event) => choose(worstOf(indices), event.currentTarget),
  }, `${SIGN[verdict]} ${points(value)}`);
  Object.assign(button.style, heatColours(value === null ? 0 : value / largest));
  explain(button, heatTip(indices, set, method, metric, value, verdict));
  return element("td", {}, button);
}

function heatTip(indices, set, method, metric, value, verdict) {
  const { cells } = state.study;
  const lines = [`${set}, ${method}: ${verdict}`, `${metric.name}: ${points(value)} ${metric.unit}`];
  if (metric.low) {
    const low = extreme(indices.map((i) => cells[metric.low][i]), Math.min);
    const high = extreme(indices.map((i) => cells[metric.high][i]), Math.max);
    const over = indices.length > 1 ? `, lowest to highest end of ${indices.length} cells` : "";
    lines.push(`95 % interval ${points(low)} to ${points(high)}${over}`);
  } else lines.push("no interval: none is known to cover it");
  const worst = worstOf(indices);
  if (cells.hurt[worst] !== null) {
    lines.push(`loses most: ${groupWords(state.study.groupNames[cells.hurt[worst]])}, ${points(cells.largest_drop[worst])} points`);
  }
  const failed = indices.filter((i) => cells.error[i]);
  if (failed.length) lines.push(`${count(failed.length, "cell")} failed: ${cells.error[failed[0]]}`);
  return lines.join("\n");
}

function worstOf(indices) {
  const { cells } = state.study;
  const rank = (i) => (cells.crossfit_drop[i] === null ? -Infinity : cells.crossfit_drop[i]);
  return indices.reduce((best, i) => (rank(i) > rank(best) ? i : best), indices[0]);
}
