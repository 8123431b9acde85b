// The group explorer: the groups of one cell, or of every cell that the filters leave; filtered by text and sorted.

const SHOWN_GROUPS = 20;
const COLUMNS = [
  { key: "group", name: "group" }, { key: "drop", name: "drop, points", number: true, show: points },
  { key: "low", name: "95 % interval", number: true }, { key: "fp32", name: "FP32", number: true, show: percent },
  { key: "int8", name: "INT8", number: true, show: percent }, { key: "flips", name: "flips", number: true, show: percent },
  { key: "set", name: "calibration set" }, { key: "method", name: "method" }, { key: "seed", name: "seed", number: true },
  { key: "sources", name: "samples", number: true },
];
const explorer = { text: "", judged: true, sort: "drop", descending: true, shown: SHOWN_GROUPS };

function groupRows() {
  const { cells, groupTables, shapes, groupNames, levels } = state.study;
  const rows = [];
  for (const i of state.chosen === null ? shownCells() : [state.chosen]) {
    if (cells.groups[i] === null) continue;
    const table = groupTables[cells.groups[i]];
    const shape = shapes[table.shape];
    const place = { set: setName(cells.calibration[i], cells.strategy[i]), method: levels.method[cells.method[i]], seed: levels.seed[cells.seed[i]] };
    shape.names.forEach((name, k) => rows.push({
      ...place, group: groupWords(groupNames[name]), sources: shape.sources[k], judged: shape.judged[k], fp32: shape.fp32[k],
      int8: shape.fp32[k] - table.drop[k], drop: table.drop[k], low: table.drop_low[k], high: table.drop_high[k], flips: table.flips[k],
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
    drawGroups(true);
  } });
  const all = element("input", { type: "checkbox", onchange: () => {
    explorer.judged = !all.checked;
    drawGroups(true);
  } });
  const every = element("button", { type: "button", id: "every-cell", onclick: () => { choose(null); drawGroups(true); } }, "Groups of every cell shown");
  document.getElementById("group-explorer").replaceChildren(
    element("p", { id: "group-cell" }),
    element("p", { class: "controls screen" }, element("label", {}, "Containing", text),
      element("label", {}, all, "also groups with too few samples"), every),
    element("div", { id: "group-table" }),
  );
}

function drawGroups(aloud) {
  const { cells, levels } = state.study;
  const i = state.chosen;
  const rows = groupRows();
  const where = i === null ? "Every cell that is shown above" : `${setName(cells.calibration[i], cells.strategy[i])}, `
    + `${levels.method[cells.method[i]]}, seed ${levels.seed[cells.seed[i]]}`;
  document.getElementById("group-cell").textContent = `${where}: ${count(rows.length, "group")}.`
    + (i === null ? " Press a cell of the heat map for its groups alone." : "");
  document.getElementById("every-cell").hidden = i === null;
  const columns = COLUMNS.filter((column) => i === null || !["set", "method", "seed"].includes(column.key));
  const head = element("tr", {}, ...columns.map((column) => element("th", {
    scope: "col", class: column.number ? "number" : null,
    "aria-sort": explorer.sort === column.key ? (explorer.descending ? "descending" : "ascending") : "none",
  }, element("button", { type: "button", onclick: () => sortGroups(column) }, column.name))));
  const body = element("tbody", {}, ...rows.slice(0, explorer.shown).map((row) => groupLine(row, columns)));
  const caption = "Groups: accuracy under FP32 and INT8, and what INT8 takes away";
  const parts = [scrolling(caption, element("table", {}, element("caption", {}, caption), element("thead", {}, head), body))];
  if (rows.length > explorer.shown) {
    parts.push(element("button", { type: "button", class: "screen", onclick: () => { explorer.shown += 200; drawGroups(false); } },
      `Show more (${rows.length - explorer.shown} not shown)`));
  }
  document.getElementById("group-table").replaceChildren(...parts);
  if (aloud) announce(`${where}: ${count(rows.length, "group")}.`);
}

function groupLine(row, columns) {
  const heading = columns.find((column) => column.key === "group");
  return element("tr", {}, ...columns.map((column) => {
    const value = column.key === "low" ? `${points(row.low)} to ${points(row.high)}`
      : column.show ? column.show(row[column.key]) : String(row[column.key]);
    if (column === heading) return element("th", { scope: "row" }, row.judged ? value : `${value} (too few)`);
    return element("td", { class: column.number ? "number" : null }, value);
  }));
}

function sortGroups(column) {
  explorer.descending = explorer.sort === column.key ? !explorer.descending : Boolean(column.number);
  explorer.sort = column.key;
  drawGroups(false);
  announce(`Sorted by ${column.name}, ${explorer.descending ? "largest" : "smallest"} first.`);
  const again = [...document.querySelectorAll("#group-table thead button")].find((button) => button.textContent === column.name);
  again.focus();
}
