"use strict";
// Small tools that every part of the page shares. Names from the study only ever become text nodes, never HTML.

const FACTORS = ["model", "calibration", "strategy", "method", "target", "runtime", "seed"];
const state = { study: null, filter: {}, metric: "crossfit_drop", chosen: null, from: null, paper: false };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawing(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function points(value) {
  if (value === null || value === undefined) return "–";
  const text = ((100 * value) / state.study.scale).toFixed(1);
  return text === "-0.0" ? "0.0" : text.replace("-", "−");
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${points(value)} %`;
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function setName(calibration, strategy) {
  const { levels } = state.study;
  return levels.strategy[strategy] ? `${levels.calibration[calibration]} & ${levels.strategy[strategy]}` : levels.calibration[calibration];
}

function placeName(entry) {
  return `${setName(entry.calibration, entry.strategy)}, ${state.study.levels.method[entry.method]}`;
}

function seedNames(entry) {
  const names = entry.seeds.map((k) => state.study.levels.seed[k]);
  const failed = entry.failed && entry.verdict !== "broken" ? ` (${count(entry.failed, "seed")} failed)` : "";
  if (names.length < 2) return `seed ${names[0]}${failed}`;
  return (names.length > 5 ? `mean over ${names.length} seeds` : `mean over seeds ${names.join(", ")}`) + failed;
}

function isShown(entry) {
  return ["model", "target", "runtime"].every((name) => state.filter[name] === undefined || entry[name] === state.filter[name])
    && (state.filter.seed === undefined || entry.seeds.includes(state.filter.seed));
}

// The cells that the filters leave.
function shownCells() {
  return state.study.cells.filter(isShown);
}

// One entry a place: the cells of the seed that is chosen, or the combinations of all seeds.
function shownPlaces() {
  return state.filter.seed === undefined ? state.study.combinations.filter(isShown) : shownCells();
}

const SIGN = { passed: "✓", failed: "✗", undecided: "?", broken: "!" };

function announce(text) {
  document.getElementById("status").textContent = text;
}

// One tooltip for all marks, on hover and on focus; Escape hides it (WCAG 1.4.13).
const tip = document.getElementById("tip");

function showTip(near, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = near.getBoundingClientRect();
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(box.left, room)) + window.scrollX}px`;
  const below = box.bottom + tip.offsetHeight + 12 < window.innerHeight;
  tip.style.top = `${(below ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + window.scrollY}px`;
}

function hideTip() {
  tip.hidden = true;
}

function explain(mark, text) {
  mark.setAttribute("aria-description", text.replaceAll("\n", "; "));
  for (const event of ["mouseenter", "focus"]) mark.addEventListener(event, () => showTip(mark, text));
  for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, hideTip);
  return mark;
}

function scrolling(caption, table) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}
