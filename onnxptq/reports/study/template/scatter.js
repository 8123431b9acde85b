// Average drop against cross-fitted worst-group drop, one mark a cell. One tab stop; arrow keys go from mark to mark.
// Both axes are stretched around 0 (asinh: even up to a point, then logarithmic): what matters lies below 5 points, and a
// set that fails altogether at 70.

const PLOT = { width: 800, height: 460, left: 62, right: 16, top: 16, bottom: 50 };
const SHAPES = { passed: "circle", failed: "square", undecided: "triangle" };

function drawScatter() {
  const { limits } = state.study;
  const shown = shownCells().filter((cell) => cell.crossfit_drop !== null && cell.average_drop !== null);
  const place = document.getElementById("scatter-plot");
  if (!shown.length) {
    place.replaceChildren(element("p", {}, "No cell shown has a cross-fitted drop."));
    return;
  }
  // As wide as the page lets it be, so that letters keep their size on a phone.
  PLOT.width = Math.max(320, Math.min(800, place.clientWidth));
  PLOT.height = PLOT.width < 500 ? 380 : 460;
  shown.sort((a, b) => b.crossfit_drop - a.crossfit_drop);
  const x = axis(shown.map((cell) => cell.average_drop), limits.average_drop, PLOT.left, PLOT.width - PLOT.right);
  const y = axis(shown.map((cell) => cell.crossfit_drop), limits.crossfit_drop, PLOT.height - PLOT.bottom, PLOT.top);
  const hidden = shown.filter((cell) => cell.verdict === "failed" && cell.averageFine);
  const title = `${count(shown.length, "cell")}: average drop against cross-fitted worst-group drop`;
  const svg = drawing("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, class: "plot", role: "application", tabindex: "0",
    "aria-label": `${title}. Arrow keys go from cell to cell, the largest drop first; Enter shows its groups.` });
  svg.append(...frame(x, y), ...limitLines(x, y));
  const marks = shown.map((cell) => scatterMark(cell, x.at(cell.average_drop), y.at(cell.crossfit_drop)));
  svg.append(...marks.slice().reverse());
  walk(svg, marks, shown);
  const text = `Above the diagonal the worst group loses more than the average. ${hidden.length} of ${count(shown.length, "cell")} `
    + `failed although the average drops by at most ${points(limits.average_drop)} `
    + `point${limits.average_drop === state.study.scale / 100 ? "" : "s"} (the shaded corner): who watches the average alone ships them. `
    + "Both axes are even up to 1 point and logarithmic beyond, so that the corner near 0 can be read.";
  place.replaceChildren(element("p", { id: "scatter-words" }, text), scatterKey(), svg);
}

function axis(values, limit, from, to) {
  const point = state.study.scale / 100;
  const low = Math.min(0, ...values) - point / 4;
  const high = Math.max(limit * 1.5, ...values) * 1.25;
  const stretch = (value) => Math.asinh(value / point);
  const at = (value) => from + ((stretch(value) - stretch(low)) / (stretch(high) - stretch(low))) * (to - from);
  const ticks = [0];
  for (const tick of [1, 2, 5, 10, 20, 50, 100, -1, -2, -5, -10, -20, -50].map((size) => size * point)) {
    const near = ticks.some((other) => Math.abs(at(other) - at(tick)) < 28);
    if (tick > low && tick < high && !near) ticks.push(tick);
  }
  return { low, high, ticks, limit, at };
}

function frame(x, y) {
  const bottom = PLOT.height - PLOT.bottom;
  const right = PLOT.width - PLOT.right;
  const parts = [];
  for (const tick of y.ticks) {
    parts.push(drawing("line", { class: "axis", x1: PLOT.left, x2: right, y1: y.at(tick), y2: y.at(tick) }),
      drawing("text", { x: PLOT.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, points(tick)));
  }
  for (const tick of x.ticks) {
    parts.push(drawing("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: PLOT.top, y2: bottom }),
      drawing("text", { x: x.at(tick), y: bottom + 18, "text-anchor": "middle" }, points(tick)));
  }
  const middle = (PLOT.top + bottom) / 2;
  parts.push(drawing("text", { x: (PLOT.left + right) / 2, y: PLOT.height - 8, "text-anchor": "middle" }, "average drop, points"),
    drawing("text", { transform: `translate(16 ${middle}) rotate(-90)`, "text-anchor": "middle" }, "cross-fitted worst-group drop, points"));
  return parts;
}

function limitLines(x, y) {
  const bottom = PLOT.height - PLOT.bottom;
  const end = Math.min(x.high, y.high);
  const start = Math.max(x.low, y.low);
  return [
    drawing("rect", { class: "corner", x: PLOT.left, y: PLOT.top, width: x.at(x.limit) - PLOT.left, height: y.at(y.limit) - PLOT.top }),
    drawing("line", { class: "limit", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y.at(y.limit), y2: y.at(y.limit) }),
    drawing("text", { x: PLOT.width - PLOT.right, y: y.at(y.limit) - 5, "text-anchor": "end" }, `limit ${points(y.limit)}`),
    drawing("line", { class: "limit", x1: x.at(x.limit), x2: x.at(x.limit), y1: PLOT.top, y2: bottom }),
    drawing("text", { x: x.at(x.limit) + 5, y: PLOT.top + 12 }, `limit ${points(x.limit)}`),
    drawing("line", { class: "axis", x1: x.at(start), y1: y.at(start), x2: x.at(end), y2: y.at(end) }),
  ];
}

function markShape(verdict, cx, cy) {
  if (SHAPES[verdict] === "circle") return drawing("circle", { cx, cy, r: 5.5 });
  if (SHAPES[verdict] === "square") return drawing("rect", { x: cx - 5, y: cy - 5, width: 10, height: 10 });
  return drawing("path", { d: `M ${cx} ${cy - 6.5} l 6.5 11.5 h -13 z` });
}

function scatterText(cell) {
  const drop = (name) => `${points(cell[name])} (${points(cell[`${name}_low`])} to ${points(cell[`${name}_high`])})`;
  return [`${placeName(cell)}, ${seedNames(cell)}: ${cell.standing}`, `average drop ${drop("average_drop")}`,
    `cross-fitted worst-group drop ${drop("crossfit_drop")}`].join("\n");
}

function scatterMark(cell, cx, cy) {
  const mark = markShape(cell.verdict, cx, cy);
  mark.setAttribute("class", `mark ${cell.verdict}`);
  mark.addEventListener("mouseenter", () => showTip(mark, scatterText(cell)));
  mark.addEventListener("mouseleave", hideTip);
  mark.addEventListener("click", () => choose(cell, "scatter"));
  return mark;
}

function walk(svg, marks, shown) {
  let at = -1;
  const leave = () => { if (at >= 0) marks[at].classList.remove("chosen"); hideTip(); };
  const enter = () => {
    marks[at].classList.add("chosen");
    showTip(marks[at], scatterText(shown[at]));
    announce(scatterText(shown[at]).replaceAll("\n", "; "));
  };
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      leave();
      at = at < 0 ? 0 : (at + step + marks.length) % marks.length;
      enter();
    } else if (event.key === "Enter" && at >= 0) choose(shown[at], "scatter");
  });
  svg.addEventListener("focus", () => { if (at >= 0) enter(); });
  svg.addEventListener("blur", leave);
}

function scatterKey() {
  const items = ["passed", "failed", "undecided"].map((verdict) => {
    const mark = markShape(verdict, 8, 8);
    mark.setAttribute("class", verdict);
    return element("span", {}, drawing("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, mark), verdict);
  });
  return element("p", { class: "key" }, ...items, element("span", {}, "dashed: the limits; grey diagonal: worst group = average; shaded: the average is within its limit, the worst group is not"));
}
