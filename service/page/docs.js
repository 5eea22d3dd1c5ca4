// The API's reference, drawn from /openapi.json.

import { byId, element } from "./dom.js";

const EXAMPLES = {
  "/v1/search": { query: "how to read a file line by line", k: 3 },
  "/v1/embeddings": { input: ["a text"] },
};

const named = (reference) => reference.split("/").pop();

function typeOf(schema) {
  if (schema.$ref) return named(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.type ?? "any";
}

function limits(schema) {
  const facts = [];
  if (schema.default !== undefined && schema.default !== null) facts.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.minimum !== undefined) facts.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) facts.push(`to ${schema.maximum}`);
  if (schema.maxItems !== undefined) facts.push(`at most ${schema.maxItems}`);
  return facts.join(", ");
}

function fieldTable(schema, all) {
  const shape = schema.$ref ? all[named(schema.$ref)] : schema;
  if (!shape?.properties) return element("p", {}, element("code", {}, typeOf(schema)));
  const rows = Object.entries(shape.properties).map(([name, field]) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, name)),
      element("td", {}, typeOf(field)),
      element("td", {}, [field.description, limits(field)].filter(Boolean).join(" · ")),
    ),
  );
  return element("table", {}, element("tbody", {}, ...rows));
}

/** Named shapes that a schema leads to, in the order they are met. */
function shapesWithin(schema, all, found = []) {
  for (const match of JSON.stringify(schema).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
    if (found.includes(match[1])) continue;
    found.push(match[1]);
    shapesWithin(all[match[1]], all, found);
  }
  return found;
}

function curl(path, verb) {
  if (verb === "get") return `curl -s ${location.origin}${path}`;
  return `curl -s ${location.origin}${path} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(EXAMPLES[path] ?? {})}'`;
}

function operation(path, verb, facts, all) {
  const taken = facts.requestBody?.content["application/json"]?.schema;
  const given = facts.responses["200"]?.content?.["application/json"]?.schema;
  const errors = Object.keys(facts.responses).filter((status) => status !== "200");
  return element(
    "section",
    {},
    element("h2", {}, element("span", { class: "verb" }, verb.toUpperCase()), element("code", {}, path)),
    element("p", {}, `${facts.summary}. ${facts.description ?? ""}`),
    element("pre", {}, element("code", {}, curl(path, verb))),
    taken ? [element("h3", {}, "Request"), fieldTable(taken, all)] : null,
    given?.$ref
      ? shapesWithin(given, all).map((name) => [element("h3", {}, name), fieldTable(all[name], all)]).flat()
      : null,
    errors.length ? element("p", { class: "help" }, `Errors: ${errors.join(", ")}, all in the shape of ErrorAnswer.`) : null,
  );
}

async function start() {
  const schema = await (await fetch("/openapi.json")).json();
  const all = schema.components?.schemas ?? {};
  const sections = Object.entries(schema.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, facts]) => operation(path, verb, facts, all)),
  );
  const errors = all.ErrorFacts ? element("section", {}, element("h2", {}, "ErrorAnswer"), element("p", {}, "Every error is {\"error\": …} with:"), fieldTable(all.ErrorFacts, all)) : null;
  byId("operations").replaceChildren(...sections, ...(errors ? [errors] : []));
}

start();
