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

// The steps of the colours, in halves and doublings of the limit: what is within it is grey, what is above it is not.
function heatBounds() {
  const limit = state.study.limits[state.metric] || state.study.scale / 100;
  return [-0.5, 0.5, 1, 2, 4, 8, 16].map((times) => times * limit);
}

function drawHeat() {
  const { levels } = state.study;
  const metric = METRICS[state.metric];
  const rows = new Map();
  for (const entry of shownPlaces()) {
    const row = `${entry.calibration} ${entry.strategy}`;
    if (!rows.has(row)) rows.set(row, { name: setName(entry.calibration, entry.strategy), marks: levels.method.map(() => null) });
    rows.get(row).marks[entry.method] = heatCell(entry, metric);
  }
  const caption = `${metric.name[0].toUpperCase()}${metric.name.slice(1)}, ${metric.unit}${filtered(["model", "target", "runtime", "seed"])}`;
  document.getElementById("heat-map").replaceChildren(...mapTables(caption, "calibration set", levels.method, [...rows.values()]));
  const bounds = heatBounds();
  const words = bounds.map((bound, k) => (k === 2 ? `to ${points(bound)} (the limit)` : `to ${points(bound)}`));
  const gain = state.metric === "flip_rate" ? null : `below ${points(bounds[0])}: a gain`;
  document.getElementById("heat-steps").replaceChildren(stepKey([gain, ...words.slice(1), `above ${points(bounds[6])}`]));
  document.getElementById("heat-key").replaceChildren(
    "✓ passed, ✗ failed, ? undecided, ! broken: by the drop of the worst group, whichever number is shown. ",
    element("span", { class: "screen" }, "Point at a cell, or reach it with Tab and the arrow keys, for its interval; press it to go to its groups."));
}

// Which of several models, targets, runtimes and seeds a picture is about: on paper the filters are not seen.
function filtered(names) {
  const { levels } = state.study;
  const parts = names.filter((name) => levels[name].length > 1).map((name) => (state.filter[name] === undefined
    ? `mean over ${count(levels[name].length, name)}` : `${name} ${levels[name][state.filter[name]]}`));
  return parts.map((part) => `; ${part}`).join("");
}

function heatCell(entry, metric) {
  const value = entry[state.metric];
  const button = element("button", {
    type: "button",
    class: `step-${value === null ? 1 : stepOf(value, heatBounds())}`,
    "data-verdict": entry.verdict,
    "aria-pressed": String(state.chosen === entry),
    "aria-label": `${placeName(entry)}: ${points(value)} ${metric.unit}, ${entry.standing}`,
    onclick: () => choose(entry, "heat"),
  }, `${SIGN[entry.verdict]} ${points(value)}`);
  button.entry = entry;
  return explain(button, heatTip(entry, metric));
}

function heatTip(entry, metric) {
  const { groupNames } = state.study;
  const lines = [`${placeName(entry)}: ${entry.standing}`, `${metric.name}: ${points(entry[state.metric])} ${metric.unit}`];
  const several = entry.seeds.length > 1;
  if (metric.low) {
    const over = several ? `, lowest to highest end of ${entry.seeds.length} seeds` : "";
    lines.push(`95 % interval ${points(entry[metric.low])} to ${points(entry[metric.high])}${over}`);
  } else lines.push("no interval: none is known to cover it");
  if (entry.hurt.length) {
    const names = entry.hurt.slice(0, 3).map((k) => groupNames[k]).join("; ");
    const more = entry.hurt.length > 3 ? ` and ${entry.hurt.length - 3} more` : "";
    lines.push(`loses most: ${names}${more}: ${points(entry.hurtDrop)} points${several ? ", mean over seeds" : ""}`);
  }
  if (entry.failed) lines.push(`${count(entry.failed, "cell")} failed: ${entry.error}`);
  return lines.join("\n");
}
