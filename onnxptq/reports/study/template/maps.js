// What the heat map and the ranges share: colours in steps, one tab stop with arrow keys inside, blocks of columns on paper.

const PAPER_COLUMNS = 8;
const places = {};

// Which of the colours --step-0 to --step-7: how many bounds lie below the value.
function stepOf(value, bounds) {
  return bounds.filter((bound) => value > bound).length;
}

function stepKey(words) {
  const steps = words.map((text, k) => (text ? [element("span", {}, element("i", { class: `step-${k}`, "aria-hidden": "true" }), text)] : []));
  return element("p", { class: "key" }, ...steps.flat());
}

// Tables of marks: [{ name, marks }], a mark for each head, null where there is none. One table, or several on paper.
function mapTables(caption, corner, heads, rows) {
  const blocks = state.paper ? Math.ceil(heads.length / PAPER_COLUMNS) : 1;
  const size = Math.ceil(heads.length / blocks);
  const tables = [];
  for (let from = 0; from < heads.length; from += size) {
    const part = (values) => values.slice(from, from + size);
    const words = blocks > 1 ? `${caption}; columns ${from + 1} to ${Math.min(from + size, heads.length)} of ${heads.length}` : caption;
    const head = element("tr", {}, element("th", { scope: "col" }, corner), ...part(heads).map((name) => element("th", { scope: "col" }, name)));
    const body = rows.map(({ name, marks }) => element("tr", {}, element("th", { scope: "row" }, name),
      ...part(marks).map((mark) => element("td", {}, mark ?? element("div", { class: "none" }, "–")))));
    const table = element("table", { class: "map", role: "grid" }, element("caption", {}, words), element("thead", {}, head), element("tbody", {}, ...body));
    roving(table, rows.map(({ marks }) => part(marks)), corner);
    tables.push(element("div", { class: "scroll" }, table));
  }
  return tables;
}

// One tab stop for a table: arrow keys, Home and End move the focus, and the place is kept when the table is drawn again.
function roving(table, lines, name) {
  const stop = (row, column) => {
    for (const mark of lines.flat()) if (mark) mark.tabIndex = -1;
    lines[row][column].tabIndex = 0;
  };
  const [row, column] = places[name] ?? [0, 0];
  if (lines[row]?.[column]) stop(row, column);
  else {
    const first = lines.findIndex((line) => line.some(Boolean));
    if (first < 0) return;
    stop(first, lines[first].findIndex(Boolean));
  }
  const find = (mark) => lines.map((line, k) => [k, line.indexOf(mark)]).find(([, k]) => k >= 0);
  table.addEventListener("focusin", (event) => {
    places[name] = find(event.target);
    stop(...places[name]);
  });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1], End: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    let next = null;
    let [r, c] = find(event.target);
    // Past places without a mark; Home and End go on to the edge.
    while (lines[r += step[0]]?.[c += step[1]] !== undefined) {
      next = lines[r][c] ?? next;
      if (next && event.key.startsWith("Arrow")) break;
    }
    next?.focus();
    next?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}
