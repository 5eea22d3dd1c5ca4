// Late interaction as a heat map: the tokens of the query, and the text shaded where it matched them.

import { codePoints, element, figure } from "./dom.js";
import { matchesOf } from "./explanation.js";

const HINT = "Point at a query token, or move with ← and →, to see what it matched.";
const TERMS = 5; // shared terms of two tokens that are named

/** Make one of the chips the tab stop, and let the arrow keys move between them. */
function moveWithArrows(toolbar, chips) {
  chips.forEach((chip, at) => chip.setAttribute("tabindex", at ? "-1" : "0"));
  toolbar.addEventListener("keydown", (event) => {
    const at = chips.indexOf(document.activeElement);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: chips.length - 1 }[event.key];
    if (at < 0 || next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    chips[Math.max(0, Math.min(chips.length - 1, next))].focus();
  });
  toolbar.addEventListener("focusin", (event) => {
    for (const chip of chips) chip.setAttribute("tabindex", chip === event.target ? "0" : "-1");
  });
}

/** Bring a mark into sight by scrolling its own box, never the page. */
function reveal(box, mark) {
  const outer = box.getBoundingClientRect();
  const inner = mark.getBoundingClientRect();
  if (inner.top < outer.top) box.scrollTop += inner.top - outer.top - 8;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom + 8;
}

function queryChip(query, largest) {
  const bar = element("i", { "aria-hidden": "true" });
  bar.style.width = `${largest > 0 ? Math.max(0, query.value / largest) * 100 : 0}%`;
  const kind = `chip${query.piece ? " piece" : ""}${query.special ? " special" : ""}`;
  const matched = query.matched === null ? "matches nothing" : `matches ${query.matched}`;
  return element(
    "button",
    { type: "button", class: kind, "aria-pressed": "false", "aria-label": `${query.label}, ${figure(query.value)}, ${matched}` },
    element("span", {}, query.label),
    element("span", { class: "count" }, figure(query.value)),
    bar,
  );
}

/** A matched document token; `touches` joins it to the piece before. */
const matchMark = (match, text) => element("mark", { class: `heat heat-${match.level}${match.touches ? " touches" : ""}` }, text);

/** The text with its matches shaded, and the mark of every span. */
function shaded(text, spans) {
  const points = codePoints(text);
  const nodes = [];
  let at = 0;
  const marks = spans.map((span) => {
    if (span.start > at) nodes.push(points.cut(at, span.start));
    const mark = matchMark(span, points.cut(span.start, span.end));
    nodes.push(mark);
    at = span.end;
    return mark;
  });
  nodes.push(points.cut(at, points.length));
  return { nodes, marks };
}

function legendOfHeat() {
  const swatches = [1, 2, 3, 4, 5].map((level) => element("span", { class: `swatch heat-${level}` }));
  return element(
    "p",
    { class: "legend" },
    element("span", {}, "adds little ", element("span", { class: "swatches", "aria-hidden": "true" }, ...swatches), " adds much to the score"),
  );
}

/** What a query token matched, in words, with the terms that the two share. */
function sentenceOf({ label, value, matched, terms }) {
  if (matched === null) return `“${label}” matches nothing`;
  const few = terms.slice(0, TERMS).map((term) => `${term.label} ${figure(term.value)}`);
  if (terms.length > TERMS) few.push(`${terms.length - TERMS} more`);
  return `“${label}” matches “${matched}”: ${figure(value)}${few.length ? ` (${few.join(", ")})` : ""}`;
}

/** The tokens that were matched outside the text. */
function besides(marks) {
  const label = element("span", { class: "fact" }, "matched in the title or a special token:");
  return element("p", { class: "besides" }, label, " ", ...marks.flatMap((mark) => [mark, " "]));
}

/** Everything of a heat map, still without life. */
function draw(part, text, query) {
  const { queries, spans, outside } = matchesOf(part, codePoints(text).length, query);
  const largest = Math.max(0, ...queries.map((token) => token.value));
  const chips = queries.map((token) => queryChip(token, largest));
  const toolbar = element("div", { class: "chips", role: "toolbar", "aria-label": "Query tokens" }, ...chips);
  const readout = element("p", { class: "readout" }, HINT);
  const { nodes, marks } = shaded(text, spans);
  const others = outside.map((match) => matchMark(match, match.label));
  const box = element("p", { class: "heat-text", tabindex: "0", "aria-label": "Text with its matches" }, ...nodes);
  const root = element(
    "div",
    { class: "heat-map" },
    toolbar,
    readout,
    spans.length ? box : null,
    others.length ? besides(others) : null,
    spans.length ? legendOfHeat() : null,
  );
  return { root, toolbar, chips, readout, box, marks: [...marks, ...others], queries, matches: [...spans, ...outside] };
}

function light({ root, chips, marks, readout }, litChips, litMarks, words) {
  root.classList.toggle("lit-one", marks.some((_, at) => litMarks.includes(at)));
  chips.forEach((chip, at) => chip.classList.toggle("lit", litChips.includes(at)));
  marks.forEach((mark, at) => mark.classList.toggle("lit", litMarks.includes(at)));
  readout.textContent = words;
}

function lightQuery(view, at) {
  const { queries, matches, marks, box } = view;
  const found = matches.findIndex((match) => match.queries.includes(at));
  light(view, [at], [found], sentenceOf(queries[at]));
  if (box.contains(marks[found])) reveal(box, marks[found]);
}

function lightMatch(view, at) {
  const { queries, matches } = view;
  const of = matches[at].queries.map((query) => `“${queries[query].label}” ${figure(queries[query].value)}`);
  light(view, matches[at].queries, [at], `best match of ${of.join(", ")}`);
}

/**
 * A part of the form "tokens" over its text, for the text of the query.
 *
 * Pointing at or focusing a query token lights what it matched; pressing it keeps that lit. Pointing at a matched
 * token lights the query tokens it is the best match of.
 */
export function heatMap(part, text, query) {
  const view = draw(part, text, query);
  const { root, toolbar, chips, marks } = view;
  let pressed = -1;
  function rest() {
    const focused = chips.indexOf(document.activeElement);
    const kept = focused >= 0 ? focused : pressed;
    if (kept >= 0) lightQuery(view, kept);
    else light(view, [], [], HINT);
  }
  chips.forEach((chip, at) => {
    for (const event of ["pointerenter", "focus"]) chip.addEventListener(event, () => lightQuery(view, at));
    for (const event of ["pointerleave", "blur"]) chip.addEventListener(event, rest);
    chip.addEventListener("click", () => {
      pressed = pressed === at ? -1 : at;
      chips.forEach((other, number) => other.setAttribute("aria-pressed", String(number === pressed)));
      rest();
    });
  });
  marks.forEach((mark, at) => {
    mark.addEventListener("pointerenter", () => lightMatch(view, at));
    mark.addEventListener("pointerleave", rest);
  });
  moveWithArrows(toolbar, chips);
  return root;
}
