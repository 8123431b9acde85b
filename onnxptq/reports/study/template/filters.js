// The filters above the pictures, the theme, and the start of everything.

function drawFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["model", "target", "runtime", "seed"]) {
    const levels = state.study.levels[name];
    if (levels.length < 2) continue;
    // One model at a time: a mean over models is of no use to who ships one. Seeds are draws, and are averaged.
    if (name !== "seed") state.filter[name] = 0;
    const select = element("select", { name, onchange: () => {
      state.filter[name] = select.value === "" ? undefined : Number(select.value);
      redraw();
      announce(`${count(shownCells().length, "cell")} shown.`);
    } }, ...(name === "seed" ? [element("option", { value: "" }, "all (mean)")] : []),
    ...levels.map((level, k) => element("option", { value: k }, String(level))));
    form.append(element("label", {}, name, select));
  }
}

function choose(index, mark) {
  state.chosen = index;
  for (const pressed of document.querySelectorAll('#heat-map button[aria-pressed="true"]')) pressed.setAttribute("aria-pressed", "false");
  if (mark) mark.setAttribute("aria-pressed", "true");
  hideTip();
  drawGroups(true);
}

function redraw() {
  hideTip();
  if (state.chosen !== null && !shownCells().includes(state.chosen)) state.chosen = null;
  drawHeat();
  drawGroups(false);
  drawScatter();
  drawRanges();
}

function theme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const show = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    show();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { show(); redraw(); });
  matchMedia("print").addEventListener("change", redraw);
  show();
}

async function start() {
  state.study = await unpack(document.getElementById("data").textContent);
  drawFilters();
  metricChoice();
  groupControls();
  rangeControls();
  redraw();
  theme();
  window.addEventListener("resize", drawScatter);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  document.documentElement.dataset.ready = "yes";
}

start();
