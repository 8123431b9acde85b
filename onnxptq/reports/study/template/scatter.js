// Average drop against cross-fitted worst-group drop, one mark a cell. One tab stop; arrow keys go from mark to mark.

const PLOT = { width: 800, height: 460, left: 62, right: 16, top: 16, bottom: 50 };
const SHAPES = { safe: "circle", unsafe: "square", undecided: "triangle" };

function drawScatter() {
  const { cells, limit, averageLimit } = state.study;
  const shown = shownCells().filter((i) => cells.crossfit_drop[i] !== null && cells.average_drop[i] !== null);
  const place = document.getElementById("scatter-plot");
  if (!shown.length) {
    place.replaceChildren(element("p", {}, "No cell shown has a cross-fitted drop."));
    return;
  }
  // As wide as the page lets it be, so that letters keep their size on a phone.
  PLOT.width = Math.max(320, Math.min(800, place.clientWidth));
  PLOT.height = PLOT.width < 500 ? 380 : 460;
  shown.sort((a, b) => cells.crossfit_drop[b] - cells.crossfit_drop[a]);
  const x = axis(shown.map((i) => cells.average_drop[i]), averageLimit, PLOT.left, PLOT.width - PLOT.right);
  const y = axis(shown.map((i) => cells.crossfit_drop[i]), limit, PLOT.height - PLOT.bottom, PLOT.top);
  const hidden = shown.filter((i) => cells.crossfit_drop_low[i] > limit && cells.average_drop[i] <= averageLimit);
  const title = `${count(shown.length, "cell")}: average drop against cross-fitted worst-group drop`;
  const svg = drawing("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, class: "plot", role: "application", tabindex: "0",
    "aria-label": `${title}. Arrow keys go from cell to cell, the largest drop first; Enter shows its groups.` });
  svg.append(...frame(x, y), ...limits(x, y));
  const marks = shown.map((i) => scatterMark(i, x.at(cells.average_drop[i]), y.at(cells.crossfit_drop[i])));
  svg.append(...marks.slice().reverse());
  walk(svg, marks, shown);
  const text = `Above the diagonal the worst group loses more than the average. ${hidden.length} of ${count(shown.length, "cell")} `
    + `${hidden.length === 1 ? "is" : "are"} unsafe although the average drops by at most ${points(averageLimit)} `
    + `point${averageLimit === state.study.scale / 100 ? "" : "s"} (left of the upright line, above the level one): who watches the average alone ships them.`;
  place.replaceChildren(element("p", { id: "scatter-words" }, text), scatterKey(), svg);
}

function axis(values, limit, from, to) {
  const low = Math.min(0, ...values);
  const high = Math.max(limit * 1.5, ...values) * 1.04;
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(tick);
  return { low, high, ticks, limit, at: (value) => from + ((value - low) / (high - low)) * (to - from) };
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

function limits(x, y) {
  const bottom = PLOT.height - PLOT.bottom;
  const end = Math.min(x.high, y.high);
  const start = Math.max(x.low, y.low);
  return [
    drawing("line", { class: "limit", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y.at(y.limit), y2: y.at(y.limit) }),
    drawing("line", { class: "limit", x1: x.at(x.limit), x2: x.at(x.limit), y1: PLOT.top, y2: bottom }),
    drawing("line", { class: "axis", x1: x.at(start), y1: y.at(start), x2: x.at(end), y2: y.at(end) }),
  ];
}

function markShape(verdict, cx, cy) {
  if (SHAPES[verdict] === "circle") return drawing("circle", { cx, cy, r: 5.5 });
  if (SHAPES[verdict] === "square") return drawing("rect", { x: cx - 5, y: cy - 5, width: 10, height: 10 });
  return drawing("path", { d: `M ${cx} ${cy - 6.5} l 6.5 11.5 h -13 z` });
}

function scatterText(i) {
  const { cells, levels } = state.study;
  return [`${setName(cells.calibration[i], cells.strategy[i])}, ${levels.method[cells.method[i]]}, seed ${levels.seed[cells.seed[i]]}: ${verdictOf([i])}`,
    `average drop ${points(cells.average_drop[i])} (${points(cells.average_drop_low[i])} to ${points(cells.average_drop_high[i])})`,
    `cross-fitted worst-group drop ${points(cells.crossfit_drop[i])} (${points(cells.crossfit_drop_low[i])} to ${points(cells.crossfit_drop_high[i])})`,
  ].join("\n");
}

function scatterMark(i, cx, cy) {
  const verdict = verdictOf([i]);
  const mark = markShape(verdict, cx, cy);
  mark.setAttribute("class", `mark ${verdict}`);
  mark.addEventListener("mouseenter", () => showTip(mark, scatterText(i)));
  mark.addEventListener("mouseleave", hideTip);
  mark.addEventListener("click", () => choose(i));
  return mark;
}

function walk(svg, marks, shown) {
  let at = -1;
  const leave = () => { if (at >= 0) marks[at].classList.remove("chosen"); hideTip(); };
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      leave();
      at = at < 0 ? 0 : (at + step + marks.length) % marks.length;
      marks[at].classList.add("chosen");
      showTip(marks[at], scatterText(shown[at]));
      announce(scatterText(shown[at]).replaceAll("\n", "; "));
    } else if (event.key === "Enter" && at >= 0) choose(shown[at]);
  });
  svg.addEventListener("blur", leave);
}

function scatterKey() {
  const items = ["safe", "unsafe", "undecided"].map((verdict) => {
    const mark = markShape(verdict, 8, 8);
    mark.setAttribute("class", verdict);
    return element("span", {}, drawing("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, mark), verdict);
  });
  return element("p", { class: "key" }, ...items, element("span", {}, "dashed: the limits; grey: worst group = average"));
}
