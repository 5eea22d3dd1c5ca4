// The search page: state, searching while you type, keys and history.

import { ApiError, curlOf, documentById, info, requestOf, search, stateOf, urlOf } from "./api.js";
import { byId, element, figure } from "./dom.js";
import { closeOthers, renderFacets } from "./facets.js";
import { listenForKeys } from "./keys.js";
import { resultItem } from "./results.js";

const NAMES = { bm25: "BM25", dense: "Dense", hybrid: "Hybrid", sparse: "Sparse", late: "Late" };
const PAUSE_MS = 120; // after the last key
const RERANK_PAUSE_MS = 500; // a reranker is slow
const PAGE = 10;
const MOST = 100;

const defaults = { using: "", k: PAGE };
let state;
let known;
let showFacets = () => {};
let running = null; // AbortController of the search under way
let latest = 0; // number of the newest search; older answers are dropped
let timer = 0;
let entryAge = 0; // when the current history entry was made
let retry = 0;

const query = byId("query");
const results = byId("results");

function say(...nodes) {
  byId("message").replaceChildren(...nodes);
}

function problem(title, text, ...more) {
  say(element("h2", {}, title), element("p", {}, text), ...more);
}

function remember(typing) {
  const url = urlOf(state, defaults);
  if (url === location.search || (url === location.pathname && !location.search)) return;
  const now = Date.now();
  if (typing && now - entryAge < 2500) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  entryAge = now;
}

/** Search soon; a key that follows at once replaces this search. */
function soon(typing = true) {
  clearTimeout(timer);
  const pause = !typing ? 0 : state.rerank ? RERANK_PAUSE_MS : PAUSE_MS;
  timer = setTimeout(() => run({ typing }), pause);
}

async function run({ typing = false, remembered = false } = {}) {
  clearTimeout(timer);
  clearTimeout(retry);
  running?.abort();
  const number = (latest += 1);
  if (!remembered) remember(typing);
  document.title = state.query.trim() ? `${state.query.trim()} – Tercet` : "Tercet";
  showFilterError(null);
  if (!state.query.trim()) {
    busy(false);
    welcome();
    return;
  }
  running = new AbortController();
  busy(true);
  const started = performance.now();
  const asked = structuredClone(state);
  try {
    const answer = await search({ ...requestOf(asked), highlight: true }, running.signal);
    if (number !== latest) return;
    show(answer, asked, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError" || number !== latest) return;
    fail(error);
  } finally {
    if (number === latest) busy(false);
  }
}

function busy(on) {
  byId("busy").classList.toggle("on", on);
  results.setAttribute("aria-busy", String(on));
}

function clear() {
  results.replaceChildren();
  byId("summary").hidden = true;
  byId("more").hidden = true;
}

function welcome() {
  clear();
  const tip = (keys, text) => element("li", {}, ...keys.map((key) => element("kbd", {}, key)), " ", text);
  say(
    element("h2", {}, `${figure(known.n_documents)} documents`),
    element("p", {}, "Results appear while you type."),
    element("ul", { class: "tips" }, tip(["↓", "↑"], "move between results"), tip(["1", "2", "3"], "switch the way of searching"), tip(["e"], "explain a score"), tip(["?"], "all keys")),
  );
}

function scaleOf(hits) {
  const scores = hits.map((hit) => hit.score);
  const top = Math.max(...scores);
  const bottom = Math.min(...scores);
  if (bottom >= 0) return (score) => (top > 0 ? score / top : 0);
  return (score) => (top > bottom ? 0.05 + (0.95 * (score - bottom)) / (top - bottom) : 1);
}

function show(answer, asked, roundTrip) {
  const hits = answer.results[0].hits;
  byId("summary").hidden = false;
  const count = hits.length === asked.k ? `Top ${hits.length}` : `${hits.length} result${hits.length === 1 ? "" : "s"}`;
  byId("status").replaceChildren(
    element("strong", {}, count),
    ` · ${nameOf(asked.using)}${asked.rerank ? " + rerank" : ""} · `,
    element("span", { class: "time", title: "on the server" }, `${figure(answer.took_ms)} ms search`),
    " · ",
    element("span", { class: "time", title: "from key to answer, the network included" }, `${figure(roundTrip)} ms round trip`),
  );
  if (!hits.length) {
    results.replaceChildren();
    const filtered = requestOf(asked).filter;
    problem(
      "Nothing found",
      filtered ? "No document passes the filter and matches." : "No document matches. Try other words, or another way of searching.",
      filtered ? element("button", { type: "button", onclick: dropFilters }, "Search without filters") : "",
    );
  } else {
    say();
    const scale = scaleOf(hits);
    const explain = explainer(asked);
    const whole = async (hit) => (await documentById(hit.id)).text;
    results.replaceChildren(...hits.map((hit, at) => resultItem(hit, at + 1, scale, { explain, whole })));
  }
  byId("more").hidden = hits.length < asked.k || asked.k >= MOST;
}

/** The hits of a search with their explanations, asked for once when the first is opened. */
function explainer(asked) {
  let explained = null;
  return async (hit) => {
    explained ??= search({ ...requestOf(asked), explain: true });
    try {
      const hits = (await explained).results[0].hits;
      const same = hits.find((other) => other.id === hit.id);
      if (!same) throw new Error("the collection has changed; search again");
      return { ...same, query: asked.query };
    } catch (error) {
      explained = null;
      throw error;
    }
  };
}

function fail(error) {
  if (error instanceof ApiError && error.field === "filter") {
    byId("filter-row").hidden = false;
    showFilterError(error.message.replace(/^filter: /, ""));
    return;
  }
  clear();
  if (error instanceof ApiError && error.status === 503) {
    problem(error.type === "not_ready" ? "Warming up" : "Busy", error.message);
    retry = setTimeout(() => run({ remembered: true }), 1000);
    return;
  }
  const again = element("button", { type: "button", onclick: () => run({ remembered: true }) }, "Try again");
  if (error instanceof ApiError) problem("That did not work", error.message, again);
  else problem("The server does not answer", "Is it still running?", again);
}

function showFilterError(text) {
  const place = byId("filter-error");
  place.hidden = text === null;
  place.textContent = text ?? "";
  byId("filter").setAttribute("aria-invalid", String(text !== null));
}

function dropFilters() {
  state.filter = "";
  state.facets = {};
  reflect();
  run();
}

const nameOf = (using) => NAMES[using] ?? using;

function renderUsing() {
  known.using.forEach((name, at) => {
    const radio = element("input", { type: "radio", name: "using", value: name, id: `using-${at}` });
    radio.addEventListener("change", () => {
      state.using = name;
      soon(false);
    });
    byId("using").append(radio, element("label", { for: `using-${at}`, title: `Key ${at + 1}` }, nameOf(name)));
  });
}

function renderRerankers() {
  if (!known.rerankers.length) return;
  byId("rerank-label").hidden = false;
  byId("rerank").append(...known.rerankers.map((name) => element("option", { value: name }, name)));
  byId("rerank").addEventListener("change", (event) => {
    state.rerank = event.target.value;
    soon(false);
  });
}

/** Show the state in the controls. */
function reflect() {
  query.value = state.query;
  byId("filter").value = state.filter;
  byId("rerank").value = state.rerank;
  const radio = document.querySelector(`input[name=using][value="${CSS.escape(state.using)}"]`);
  if (radio) radio.checked = true;
  if (state.filter) openFilter(true);
  showFacets();
}

function openFilter(open) {
  byId("filter-row").hidden = !open;
  byId("show-filter").setAttribute("aria-expanded", String(open));
}

function choose(number) {
  const name = known.using[number - 1];
  if (name === undefined || name === state.using) return;
  state.using = name;
  reflect();
  run();
}

function listen() {
  query.addEventListener("input", () => {
    state.query = query.value;
    state.k = PAGE;
    soon();
  });
  byId("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    soon();
  });
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("show-filter").addEventListener("click", () => {
    openFilter(byId("filter-row").hidden);
    if (!byId("filter-row").hidden) byId("filter").focus();
  });
  byId("more").addEventListener("click", () => {
    state.k = Math.min(MOST, state.k + PAGE);
    run();
  });
  byId("show-curl").addEventListener("click", () => {
    byId("curl-text").textContent = curlOf(state);
    byId("copy-curl").textContent = "Copy";
    byId("curl").showModal();
  });
  byId("copy-curl").addEventListener("click", copyCurl);
  byId("show-keys").addEventListener("click", () => byId("keys").showModal());
  listenForKeys({
    choose,
    clear: () => {
      state.query = query.value = "";
      run();
    },
    filter: () => {
      openFilter(true);
      byId("filter").focus();
    },
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".facet")) closeOthers(byId("facets"));
  });
  window.addEventListener("popstate", () => {
    state = stateOf(location.search, defaults, known);
    entryAge = 0;
    reflect();
    run({ remembered: true });
  });
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText(byId("curl-text").textContent);
    byId("copy-curl").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(byId("curl-text")); // no permission: selected, ready for Ctrl+C
    byId("copy-curl").textContent = "Press Ctrl+C";
  }
}

async function start() {
  let facts;
  try {
    facts = await info();
  } catch (error) {
    const loading = error instanceof ApiError && error.type === "not_ready";
    problem(loading ? "Warming up" : "The server does not answer", loading ? "The collection is being loaded." : "Is it still running?");
    setTimeout(start, 700);
    return;
  }
  known = { ...facts, types: Object.fromEntries(facts.fields.map((field) => [field.name, field.type])) };
  defaults.using = facts.default_using;
  state = stateOf(location.search, defaults, known);
  byId("collection").textContent = `${facts.name} · ${figure(facts.n_documents)} documents`;
  query.placeholder = `Search ${facts.name}`;
  byId("filter-help").textContent = facts.fields.length
    ? `Fields: ${facts.fields.map((field) => `${field.name} (${field.type})`).join(", ")}`
    : "The documents have no metadata.";
  renderUsing();
  renderRerankers();
  showFacets = renderFacets(byId("facets"), facts, () => state.facets, (field, values) => {
    state.facets = { ...state.facets, [field]: values };
    soon(false);
  });
  reflect();
  listen();
  run({ remembered: true });
}

start();
