// The group explorer: the groups of one entry, or of all that the filters leave; filtered by text and sorted. Over several
// seeds a row is the mean, with the lowest and the highest seed.

const SHOWN_GROUPS = 20;
const PAPER_GROUPS = 200;
const COLUMNS = [
  { key: "group", name: "group" }, { key: "drop", name: "drop, points", number: true, show: points },
  { key: "low", name: "95 % interval", number: true }, { key: "fp32", name: "FP32", number: true, show: percent },
  { key: "int8", name: "INT8", number: true, show: percent }, { key: "flips", name: "flips", number: true, show: percent },
  { key: "sources", name: "samples", number: true }, { key: "set", name: "calibration set", place: true },
  { key: "method", name: "method", place: true },
];
const explorer = { text: "", judged: true, sort: "drop", descending: true, shown: SHOWN_GROUPS };

function groupRows() {
  const { groupTables, shapes, groupNames, levels } = state.study;
  const rows = [];
  for (const entry of state.chosen ? [state.chosen] : shownPlaces()) {
    if (entry.groups === null) continue;
    const table = groupTables[entry.groups];
    const shape = shapes[table.shape];
    const place = { set: setName(entry.calibration, entry.strategy), method: levels.method[entry.method] };
    shape.names.forEach((name, k) => rows.push({
      ...place, group: groupNames[name], sources: shape.sources[k], judged: shape.judged[k], fp32: shape.fp32[k],
      int8: shape.fp32[k] - table.drop[k], drop: table.drop[k], low: table.drop_low[k], high: table.drop_high[k], flips: table.flips[k],
      least: table.least?.[k], most: table.most?.[k],
    }));
  }
  const words = explorer.text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) => (row.judged || !explorer.judged)
    && words.every((word) => `${row.set} ${row.method} ${row.group}`.toLowerCase().includes(word)));
  const sign = explorer.descending ? -1 : 1;
  return kept.sort((a, b) => {
    const [x, y] = [a[explorer.sort], b[explorer.sort]];
    return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}

function groupControls() {
  const text = element("input", { type: "search", id: "group-filter", placeholder: "cat fog", oninput: () => {
    explorer.text = text.value;
    explorer.shown = SHOWN_GROUPS;
    announce(drawGroups());
  } });
  const all = element("input", { type: "checkbox", onchange: () => {
    explorer.judged = !all.checked;
    announce(drawGroups());
  } });
  document.getElementById("group-explorer").replaceChildren(
    element("p", { id: "group-cell", tabindex: "-1" }),
    element("p", { class: "controls screen", id: "group-ways" },
      element("button", { type: "button", id: "back", onclick: goBack }),
      element("button", { type: "button", id: "every-cell", onclick: () => choose(null, "heat") }, "Groups of every cell shown")),
    element("p", { class: "controls screen" }, element("label", {}, "Containing", text), element("label", {}, all, "also groups with too few samples")),
    element("div", { id: "group-table" }),
  );
}

// Draws the table; returns what it shows, in words.
function drawGroups() {
  const { chosen } = state;
  const rows = groupRows();
  const where = chosen ? `${placeName(chosen)}, ${seedNames(chosen)}: ${chosen.standing}` : "Every cell that is shown above";
  const words = `${where}; ${count(rows.length, "group")}.`;
  document.getElementById("group-cell").replaceChildren(words,
    element("span", { class: "screen" }, chosen ? "" : " Press a cell of the heat map for its groups alone."));
  document.getElementById("back").textContent = `Back to the ${state.from === "scatter" ? "plot" : "heat map"}`;
  document.getElementById("group-ways").hidden = !chosen;
  const columns = COLUMNS.filter((column) => !chosen || !column.place);
  const head = element("tr", { role: "row" }, ...columns.map((column) => element("th", {
    scope: "col", role: "columnheader", class: column.number ? "number" : null,
    "aria-sort": explorer.sort === column.key ? (explorer.descending ? "descending" : "ascending") : "none",
  }, element("button", { type: "button", onclick: () => sortGroups(column) }, column.name))));
  const shown = state.paper ? paperRows(rows) : rows.slice(0, explorer.shown);
  const caption = `Groups: ${state.study.measure} under FP32 and INT8, and what INT8 takes away${rows.some((row) => row.most !== undefined)
    ? "; means over seeds, below the drop its lowest and highest seed, intervals from the lowest to the highest end" : ""}`;
  // Roles are said, since a phone stacks the rows, and what is no table to the eye is none to a screen reader either.
  const table = element("table", { role: "table" }, element("caption", {}, caption), element("thead", { role: "rowgroup" }, head),
    element("tbody", { role: "rowgroup" }, ...shown.map((row) => groupLine(row, columns))));
  const parts = [scrolling(caption, table)];
  const rest = rows.length - shown.length;
  if (rest > 0) {
    parts.push(element("p", { class: "paper muted" }, `${count(rest, "group")} that lose less are not printed; the CSV has all.`));
    parts.push(element("button", { type: "button", class: "screen", onclick: () => { explorer.shown += 200; drawGroups(); } }, `Show more (${rest} not shown)`));
  }
  document.getElementById("group-table").replaceChildren(...parts);
  return words;
}

// All groups of what was pressed; else those that lose more than the limit.
function paperRows(rows) {
  if (state.chosen) return rows;
  const above = rows.filter((row) => row.drop > state.study.limits.crossfit_drop).length;
  const most = Math.min(PAPER_GROUPS, Math.max(SHOWN_GROUPS, above));
  const kept = new Set([...rows].sort((a, b) => b.drop - a.drop).slice(0, most));
  return rows.filter((row) => kept.has(row));
}

function groupLine(row, columns) {
  return element("tr", { role: "row" }, ...columns.map((column) => {
    const value = column.key === "low" ? `${points(row.low)} to ${points(row.high)}`
      : column.show ? column.show(row[column.key]) : String(row[column.key]);
    if (column.key === "group") return element("th", { scope: "row", role: "rowheader" }, row.judged ? value : `${value} (too few)`);
    const cell = element("td", { role: "cell", class: column.number ? "number" : "place", "data-name": column.name }, value);
    if (column.key === "drop" && row.most !== undefined) cell.append(element("small", {}, `${points(row.least)} – ${points(row.most)}`));
    return cell;
  }));
}

function sortGroups(column) {
  explorer.descending = explorer.sort === column.key ? !explorer.descending : Boolean(column.number);
  explorer.sort = column.key;
  drawGroups();
  announce(`Sorted by ${column.name}, ${explorer.descending ? "largest" : "smallest"} first.`);
  const again = [...document.querySelectorAll("#group-table thead button")].find((button) => button.textContent === column.name);
  again.focus();
}
