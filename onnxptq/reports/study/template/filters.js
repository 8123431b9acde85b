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

// Shows the groups of a cell or a combination, or, of null, of all; goes there, and remembers the way back.
function choose(entry, from) {
  state.chosen = entry;
  state.from = from;
  hideTip();
  for (const mark of document.querySelectorAll("#heat-map button")) mark.setAttribute("aria-pressed", String(mark.entry === entry));
  drawGroups();
  document.getElementById("groups").scrollIntoView();
  document.getElementById("group-cell").focus({ preventScroll: true });
}

function goBack() {
  const origin = state.from === "scatter" ? "#scatter-plot svg.plot" : '#heat-map button[aria-pressed="true"]';
  const mark = document.querySelector(origin) ?? document.querySelector('#heat-map button[tabindex="0"]');
  mark.scrollIntoView({ block: "center" });
  mark.focus({ preventScroll: true });
}

function redraw() {
  hideTip();
  const places = shownPlaces();
  if (state.chosen && ![...places, ...shownCells()].includes(state.chosen)) {
    // The same place as the filters show it now: another seed, or the mean.
    state.chosen = places.find((entry) => FACTORS.slice(0, -1).every((name) => entry[name] === state.chosen[name])) ?? null;
  }
  drawHeat();
  drawGroups();
  drawScatter();
  drawRanges();
}

// On paper nothing is folded away, and what is too wide for a sheet is cut into blocks.
function paper(on) {
  if (state.paper === on) return;
  state.paper = on;
  for (const part of document.querySelectorAll(on ? "details:not([open])" : "details[data-folded]")) {
    part.open = on;
    part.toggleAttribute("data-folded", on);
  }
  redraw();
}

function theme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const show = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
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
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  document.documentElement.dataset.ready = "yes";
}

start();
