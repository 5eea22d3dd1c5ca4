// One result: title, best passage around the matched words, score, whole text and explanation.

import { codePoints, element, figure } from "./dom.js";
import { explanationView } from "./why.js";

const SNIPPET = 360; // code points

/** Text with the spans marked; spans count from `offset`. */
function marked(points, spans, start, end) {
  const nodes = [];
  let at = start;
  for (const [from, to] of spans) {
    if (to <= start || from >= end) continue;
    if (from > at) nodes.push(points.cut(at, from));
    nodes.push(element("mark", {}, points.cut(Math.max(from, at), Math.min(to, end))));
    at = Math.min(to, end);
  }
  if (at < end) nodes.push(points.cut(at, end));
  return nodes;
}

/** Where the snippet begins: the window that holds the most matched words, a little before the first of them. */
function windowStart(length, spans) {
  if (length <= SNIPPET || !spans.length) return 0;
  let best = 0;
  let start = spans[0][0];
  for (let first = 0, last = 0; first < spans.length; first += 1) {
    while (last < spans.length && spans[last][1] <= spans[first][0] + SNIPPET - 60) last += 1;
    if (last - first > best) [best, start] = [last - first, spans[first][0]];
  }
  return Math.max(0, Math.min(start - 60, length - SNIPPET));
}

/** The start and end of the snippet, moved to spaces so that no word is cut. */
function snippetBounds(points, spans) {
  let start = windowStart(points.length, spans);
  let end = Math.min(points.length, start + SNIPPET);
  if (start > 0) {
    const space = points.cut(start, start + 30).search(/\s/);
    if (space >= 0) start += space + 1;
  }
  if (end < points.length) {
    const tail = points.cut(end - 30, end);
    const space = tail.lastIndexOf(" ");
    if (space >= 0) end -= Array.from(tail.slice(space)).length;
  }
  return [start, end];
}

function snippet(hit) {
  const points = codePoints(hit.text);
  const [start, end] = snippetBounds(points, hit.highlights.text);
  const nodes = marked(points, hit.highlights.text, start, end);
  if (start > 0 || hit.passage[0] > 0) nodes.unshift("… ");
  if (end < points.length) nodes.push(" …");
  return nodes;
}

/** The whole text with the best passage set off and its matches marked. */
function wholeText(text, hit) {
  const points = codePoints(text);
  const [start, end] = hit.passage;
  const spans = hit.highlights.text.map(([from, to]) => [from + start, to + start]);
  const inner = marked(points, spans, start, end);
  const whole = start === 0 && end >= points.length;
  return [
    points.cut(0, start),
    whole ? inner : element("span", { class: "passage" }, ...inner),
    points.cut(end, points.length),
  ].flat();
}

function shownValue(value) {
  return Array.isArray(value) ? value.join(", ") : String(value);
}

function metadataList(metadata) {
  const entries = Object.entries(metadata).filter(([, value]) => value !== null && value !== "");
  if (!entries.length) return null;
  return element(
    "ul",
    { class: "metadata", "aria-label": "Metadata" },
    ...entries.slice(0, 12).map(([name, value]) =>
      element("li", { title: `${name}: ${shownValue(value)}` }, element("span", {}, name), " ", shownValue(value)),
    ),
  );
}

/**
 * A result as a list item.
 *
 * `actions.whole(hit)` promises the whole text, `actions.explain(hit)` the hit with its query and explanation.
 */
export function resultItem(hit, rank, scale, actions) {
  const body = element("p", { class: "text" }, ...snippet(hit));
  const why = element("div", { class: "why", hidden: true });
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("i"));
  bar.firstChild.style.width = `${scale(hit.score) * 100}%`;
  const titlePoints = codePoints(hit.title);
  const title = hit.title ? marked(titlePoints, hit.highlights.title, 0, titlePoints.length) : [hit.id];

  const open = element("button", { type: "button", class: "quiet open", "aria-expanded": "false" }, "Whole text");
  const explain = element("button", { type: "button", class: "quiet explain", "aria-expanded": "false" }, "Why this score?");

  async function toggleWhole() {
    const opening = open.getAttribute("aria-expanded") !== "true";
    if (opening) {
      open.disabled = true;
      try {
        body.replaceChildren(...wholeText(await actions.whole(hit), hit));
      } catch (error) {
        body.replaceChildren(...snippet(hit), element("span", { class: "problem" }, ` ${error.message}`));
        return;
      } finally {
        open.disabled = false;
      }
    } else {
      body.replaceChildren(...snippet(hit));
    }
    body.classList.toggle("whole", opening);
    open.setAttribute("aria-expanded", String(opening));
    open.textContent = opening ? "Less" : "Whole text";
  }

  let explained = false;
  let asking = false;

  async function toggleWhy() {
    if (asking) return;
    if (why.hidden && !explained) {
      asking = true;
      explain.setAttribute("aria-busy", "true"); // not disabled, which would take the focus from it
      try {
        why.replaceChildren(await explanationView(await actions.explain(hit), actions.whole));
        explained = true;
      } catch (error) {
        why.replaceChildren(element("p", { class: "problem", role: "alert" }, error.message));
      } finally {
        asking = false;
        explain.removeAttribute("aria-busy");
      }
    }
    why.hidden = !why.hidden;
    explain.setAttribute("aria-expanded", String(!why.hidden));
  }

  open.addEventListener("click", toggleWhole);
  explain.addEventListener("click", toggleWhy);
  const article = element(
    "article",
    { tabindex: "0", "aria-label": `Result ${rank}: ${hit.title || hit.id}` },
    element(
      "header",
      {},
      element("h2", {}, ...title),
      element("span", { class: "score", title: `score ${hit.score}` }, bar, element("span", {}, figure(hit.score))),
    ),
    hit.title ? element("p", { class: "id" }, hit.id) : null,
    body,
    element("footer", {}, metadataList(hit.metadata), element("span", { class: "actions" }, explain, open)),
    why,
  );
  return element("li", {}, article);
}
