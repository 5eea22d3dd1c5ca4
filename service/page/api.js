// Requests to the server, and the state of the page as a request, a URL and a curl command.

/** An error answer of the API. */
export class ApiError extends Error {
  constructor(status, facts) {
    super(facts.message);
    this.status = status;
    this.type = facts.type;
    this.field = facts.field ?? null;
  }
}

async function call(path, options = {}) {
  const response = await fetch(path, options);
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  throw new ApiError(response.status, body?.error ?? { message: `the server answered ${response.status}`, type: "unknown" });
}

/** What can be searched, and how. */
export const info = () => call("/v1/info");

/** A whole document. */
export const documentById = (id) => call(`/v1/documents/${encodeURIComponent(id)}`);

/** Run a search request. */
export const search = (request, signal) =>
  call("/v1/search", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });

const KEYWORDS = new Set(["and", "or", "not", "in", "contains", "exists", "true", "false"]);
const quoted = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

/** A field name as the filter grammar writes it. */
function named(field) {
  if (/^[A-Za-z_][A-Za-z0-9_.-]*$/.test(field) && !KEYWORDS.has(field.toLowerCase())) return field;
  return "`" + field.replaceAll("\\", "\\\\").replaceAll("`", "\\`") + "`";
}

/** The condition that a field has one of the values. */
function condition(field, type, values) {
  if (type === "strings") {
    const tests = values.map((value) => `${named(field)} contains ${quoted(value)}`);
    return tests.length === 1 ? tests[0] : `(${tests.join(" or ")})`;
  }
  if (values.length === 1) return `${named(field)} = ${quoted(values[0])}`;
  return `${named(field)} in [${values.map(quoted).join(", ")}]`;
}

/** The filter expression of chosen facet values and the one that was typed. */
export function filterOf(state) {
  const parts = Object.entries(state.facets)
    .filter(([, values]) => values.length)
    .map(([field, values]) => condition(field, state.types[field], values));
  const typed = state.filter.trim();
  if (typed) parts.push(parts.length ? `(${typed})` : typed);
  return parts.join(" and ");
}

/** The body of POST /v1/search for a state of the page. */
export function requestOf(state) {
  const request = { query: state.query, k: state.k, using: state.using };
  const filter = filterOf(state);
  if (filter) request.filter = filter;
  if (state.rerank) request.rerank = state.rerank;
  return request;
}

/** A shell command that repeats the search. */
export function curlOf(state) {
  const body = JSON.stringify(requestOf(state)).replaceAll("'", "'\\''");
  return `curl -s ${location.origin}/v1/search \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

/** The page's address for a state: everything that differs from a fresh page. */
export function urlOf(state, defaults) {
  const parameters = new URLSearchParams();
  if (state.query) parameters.set("q", state.query);
  if (state.using !== defaults.using) parameters.set("using", state.using);
  if (state.rerank) parameters.set("rerank", state.rerank);
  if (state.filter.trim()) parameters.set("filter", state.filter);
  for (const [field, values] of Object.entries(state.facets))
    for (const value of values) parameters.append(`f.${field}`, JSON.stringify(value));
  if (state.k !== defaults.k) parameters.set("k", String(state.k));
  const text = parameters.toString();
  return text ? `?${text}` : location.pathname;
}

/** The state an address stands for; what it does not know is left out. */
export function stateOf(address, defaults, known) {
  const parameters = new URLSearchParams(address);
  const facets = {};
  for (const [name, value] of parameters) {
    if (!name.startsWith("f.") || !(name.slice(2) in known.types)) continue;
    try {
      (facets[name.slice(2)] ??= []).push(JSON.parse(value));
    } catch {
      continue; // not a value this page wrote
    }
  }
  const using = parameters.get("using");
  const rerank = parameters.get("rerank") ?? "";
  const k = Number(parameters.get("k"));
  return {
    query: parameters.get("q") ?? "",
    using: known.using.includes(using) ? using : defaults.using,
    rerank: known.rerankers.includes(rerank) ? rerank : "",
    filter: parameters.get("filter") ?? "",
    facets,
    types: known.types,
    k: Number.isInteger(k) && k > 0 && k <= 100 ? k : defaults.k,
  };
}
