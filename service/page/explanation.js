// What an explanation of the API means, as plain data: nothing here touches the page.

const SHOWN = 8; // terms that are shown before the rest is folded away
const LEVELS = 5; // shades of the heat map

/**
 * How a part is best shown.
 *
 * "terms": the sum over words of BM25 or a learned-sparse model. "tokens": query tokens, each with the document token
 * it matched best. "tree": anything else, as nested rows.
 */
export function formOf(part) {
  const parts = part.parts ?? [];
  const facts = parts.map((child) => child.facts ?? {});
  if (facts.some((own) => "position" in own || "token" in own)) return "tokens";
  if (!parts.length || parts.some((child) => child.parts?.length)) return "tree";
  return facts.every((own) => "term" in own || "df" in own || "document weight" in own) ? "terms" : "tree";
}

/** The facts that all the parts have in common, if there are several parts. */
function sharedFacts(parts) {
  if (parts.length < 2) return {};
  const [first, ...others] = parts.map((part) => part.facts ?? {});
  return Object.fromEntries(Object.entries(first).filter(([name, value]) => others.every((facts) => facts[name] === value)));
}

/**
 * The terms of a part of the form "terms", heaviest first, and what they have in common.
 *
 * The tail is folded away; it never holds a single term, which takes no more room than the fold itself.
 */
export function termsOf(part) {
  const { term: _, ...shared } = sharedFacts(part.parts);
  const terms = part.parts
    .map(({ label, value, facts = {} }) => {
      const own = Object.entries(facts).filter(([name]) => name !== "term" && !(name in shared));
      return { label, value, expansion: facts.term === "expansion", facts: Object.fromEntries(own) };
    })
    .sort((one, other) => other.value - one.value);
  const expansions = terms.filter((term) => term.expansion).length;
  const cut = terms.length > SHOWN + 1 ? SHOWN : terms.length;
  return { shown: terms.slice(0, cut), folded: terms.slice(cut), expansions, shared };
}

/** A number between 1 and 5 for a value between 0 and the largest; 0 for nothing. */
const levelOf = (value, largest) => (value > 0 && largest > 0 ? Math.max(1, Math.ceil((LEVELS * value) / largest)) : 0);

/**
 * Whether each label goes on with the word that the label before it is in, by where they stand in the query.
 *
 * Pieces of a word may be marked with "##" or not; a label that is not in the query, such as "[CLS]", is no piece.
 */
export function areNextPieces(labels, query) {
  const text = query.toLowerCase();
  let end = 0;
  return labels.map((label) => {
    const bare = label.replace(/^##(?=.)/, "").toLowerCase();
    const start = bare ? text.indexOf(bare, end) : -1;
    if (start < 0) return false;
    const touches = start > 0 && start === end && /[\p{L}\p{N}]{2}/u.test(text.slice(start - 1, start + 1));
    end = start + bare.length;
    return touches;
  });
}

/** Matches at places of the text, in its order; pieces that overlap become one. */
function joinedMatches(matches) {
  const spans = [];
  for (const { start, end, value, query } of matches.sort((one, other) => one.start - other.start || one.end - other.end)) {
    const last = spans.at(-1);
    if (last && start < last.end) {
      last.end = Math.max(last.end, end);
      last.value += value;
      last.queries.push(query);
    } else {
      spans.push({ start, end, value, queries: [query], touches: last?.end === start });
    }
  }
  return spans;
}

/**
 * The query tokens of a part of the form "tokens", and the document tokens they matched.
 *
 * `length` is that of the text, in code points. A document token is worth the sum of what its query tokens add to the
 * score. `spans` are those with a place in the text; `touches` says that one begins where the one before it ends, as
 * pieces of a word do. `outside` are those without: words of the title, special tokens. A query token may go on
 * with the word of the one before it (`piece`); `terms` are what it shares with its match, where tokens are over terms.
 */
export function matchesOf(part, length, query = "") {
  const pieces = areNextPieces(part.parts.map((child) => child.label), query);
  const queries = part.parts.map(({ label, value, facts = {}, parts: terms = [] }, at) => {
    const matched = facts.token ?? (facts.position === undefined ? null : `token ${facts.position}`);
    return { label: label.replace(/^##(?=.)/, ""), value, piece: pieces[at], special: /^\[.+\]$/.test(label), matched, terms };
  });
  const inText = [];
  const outside = new Map();
  part.parts.forEach(({ value, facts = {} }, query) => {
    const { start, end } = facts;
    if (Number.isInteger(start) && start >= 0 && start < end && end <= length) {
      inText.push({ start, end, value, query });
    } else if (queries[query].matched !== null) {
      const key = `${facts.position} ${facts.token}`;
      const found = outside.get(key) ?? { label: queries[query].matched, value: 0, queries: [] };
      found.value += value;
      found.queries.push(query);
      outside.set(key, found);
    }
  });
  const spans = joinedMatches(inText);
  const others = [...outside.values()];
  const largest = Math.max(0, ...[...spans, ...others].map((match) => match.value));
  for (const match of [...spans, ...others]) match.level = levelOf(match.value, largest);
  return { queries, spans, outside: others };
}

/** Every part of an explanation that has the form. */
export function partsOfForm(part, form) {
  if (formOf(part) === form) return [part];
  return (part.parts ?? []).flatMap((child) => partsOfForm(child, form));
}

/** The passage that the places in a part of the form "tokens" count from: its own if it names one, else the hit's. */
export function passageOf(part, hit) {
  const start = part.facts?.["passage start"];
  const end = part.facts?.["passage end"];
  return Number.isInteger(start) && Number.isInteger(end) ? [start, end] : hit.passage;
}

/** Whether a passage is the one whose text came with the hit. */
export const isShown = (passage, hit) => passage[0] === hit.passage[0] && passage[1] === hit.passage[1];
