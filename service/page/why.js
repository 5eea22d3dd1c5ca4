// "Why this score?": an explanation as rows, weighted terms and heat maps.

import { codePoints, element, figure } from "./dom.js";
import { formOf, isShown, partsOfForm, passageOf, termsOf } from "./explanation.js";
import { heatMap } from "./heat.js";

const HIDDEN_FACTS = new Set(["passage start", "passage end"]);

function factList(facts) {
  return Object.entries(facts)
    .filter(([name]) => !HIDDEN_FACTS.has(name))
    .flatMap(([name, value]) => [
      element("span", { class: "fact" }, `${name.replaceAll("_", " ")} ${typeof value === "number" ? figure(value) : value}`),
      " ", // where the line may break
    ]);
}

/** A value, its bar as a share of the largest (none where there is nothing to compare), a label and facts. */
function row(value, largest, label, facts) {
  const bar = largest === null ? null : element("span", { class: "part-bar", "aria-hidden": "true" }, element("i"));
  if (bar) bar.firstChild.style.width = `${Math.min(100, (Math.abs(value) / Math.max(1e-9, largest)) * 100)}%`;
  return element(
    "div",
    { class: "part" },
    element("span", { class: "part-value" }, figure(value)),
    bar,
    element("span", { class: "part-label" }, label, " ", ...factList(facts)),
  );
}

const termChip = (text, expansion) =>
  element("span", { class: expansion ? "term expansion" : "term" }, expansion ? element("span", { class: "hidden" }, "expansion: ") : null, text);

function termRow(term, largest) {
  return element("li", {}, row(term.value, largest, termChip(term.label, term.expansion), term.facts));
}

function legendOfTerms({ shown, folded, expansions }) {
  const own = shown.length + folded.length - expansions;
  return element(
    "p",
    { class: "legend" },
    element("span", {}, termChip("word", false), ` in your query (${own})`),
    element("span", {}, element("span", { class: "term expansion" }, "word"), ` expansion: added by the model (${expansions})`),
  );
}

/** Terms, heaviest first, with expansion terms marked and the tail folded away. */
function termList(terms) {
  const largest = Math.max(0, ...terms.shown.map((term) => term.value));
  const rest = terms.folded.reduce((sum, term) => sum + term.value, 0);
  return [
    terms.expansions ? legendOfTerms(terms) : null,
    element("ul", { "aria-label": "Matched terms" }, ...terms.shown.map((term) => termRow(term, largest))),
    terms.folded.length
      ? element(
          "details",
          { class: "tail" },
          element("summary", {}, `${terms.folded.length} more, together ${figure(rest)}`),
          element("ul", { "aria-label": "More matched terms" }, ...terms.folded.map((term) => termRow(term, largest))),
        )
      : null,
  ];
}

/** A part as a list item: its own row, and below it what it is made of. */
function node(part, largest, hit, textOf) {
  const form = formOf(part);
  const parts = part.parts ?? [];
  if (form === "terms") {
    const terms = termsOf(part);
    const head = row(part.value, largest, part.label, { ...part.facts, ...terms.shared });
    return element("li", {}, head, element("div", { class: "detail" }, ...termList(terms)));
  }
  const head = row(part.value, largest, part.label, part.facts ?? {});
  if (form === "tokens") return element("li", {}, head, element("div", { class: "detail" }, heatMap(part, textOf(part), hit.query)));
  const most = parts.length > 1 ? Math.max(...parts.map((child) => Math.abs(child.value))) : null;
  return element("li", {}, head, parts.length ? element("ul", {}, ...parts.map((child) => node(child, most, hit, textOf))) : null);
}

/**
 * The explanation of a hit, which comes with the query, the text and the passage it is about.
 *
 * `whole(hit)` promises the document's text; it is asked for where a list of a fused search matched another passage.
 */
export async function explanationView(hit, whole) {
  const elsewhere = partsOfForm(hit.explanation, "tokens").some((part) => !isShown(passageOf(part, hit), hit));
  const document = elsewhere ? codePoints(await whole(hit)) : null;
  const textOf = (part) => {
    const passage = passageOf(part, hit);
    return isShown(passage, hit) ? hit.text : document.cut(...passage);
  };
  return element("ul", { "aria-label": "Parts of the score" }, node(hit.explanation, null, hit, textOf));
}
