"use strict";
// Small tools that every part of the page shares. Names from the study only ever become text nodes, never HTML.

const FACTORS = ["model", "calibration", "strategy", "method", "target", "runtime", "seed"];
const state = { study: null, filter: {}, metric: "crossfit_drop", chosen: null };

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

function groupWords(name) {
  return name.split("*").map((part) => part.replace(/^(label|corruption)=(?!\d+$)/, "").replace("=", " ")).join(", ");
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}

function extreme(values, which) {
  const known = values.filter((value) => value !== null);
  return known.length ? which(...known) : null;
}

// The cells that the filters leave: indices into the columns of state.study.cells.
function shownCells() {
  const { cells } = state.study;
  return cells.seed.map((_, i) => i).filter((i) => ["model", "target", "runtime", "seed"].every(
    (name) => state.filter[name] === undefined || cells[name][i] === state.filter[name]));
}

// safe, unsafe, undecided or failed, for cells of one place over its seeds; the rule is the page's definition.
function verdictOf(indices) {
  const { cells, limit } = state.study;
  const done = indices.filter((i) => !cells.error[i]);
  if (!done.length) return "failed";
  if (done.some((i) => cells.crossfit_drop_low[i] !== null && cells.crossfit_drop_low[i] > limit)) return "unsafe";
  const sure = (i) => !cells.error[i] && cells.crossfit_drop_high[i] !== null && cells.crossfit_drop_high[i] <= limit;
  return indices.every(sure) ? "safe" : "undecided";
}

const SIGN = { safe: "✓", unsafe: "✗", undecided: "?", failed: "!" };

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

// A colour between the theme's ends, and ink that can be read on it. `share` from 0 to 1; negative for gains.
function heatColours(share) {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
  const from = read("--heat-from");
  const to = read(share < 0 ? "--heat-gain" : "--heat-to");
  const mixed = from.map((value, k) => Math.round(value + (to[k] - value) * Math.min(1, Math.abs(share))));
  const light = mixed.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
  return { background: `rgb(${mixed.join(" ")})`, color: luminance > 0.179 ? "#000" : "#fff" };
}

function scrolling(caption, table) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
}
