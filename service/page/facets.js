// Drop-downs of metadata values, one a field, with counts.

import { element, figure } from "./dom.js";

const SEARCHABLE = 10; // values from which a list gets a search box of its own

/** Whether a field is worth a drop-down: few enough values that choosing one narrows the search. */
function worthwhile(field, n_documents) {
  if (!field.values.length || field.type === "null") return false;
  return field.n_values > 1 && (field.n_values <= 50 || field.values[0][1] > 1) && field.n_values < n_documents;
}

function label(value) {
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** Close every open drop-down but one. */
export function closeOthers(container, kept = null) {
  for (const open of container.querySelectorAll("details[open]")) if (open !== kept) open.open = false;
}

/**
 * Fill a container with drop-downs.
 *
 * `chosen()` gives the current values by field; `change(field, values)` is told of new ones.
 * Returns a function that shows the state after it changed from outside.
 */
export function renderFacets(container, info, chosen, change) {
  const shows = info.fields.filter((field) => worthwhile(field, info.n_documents)).map((field) => {
    const summary = element("summary", {}, field.name);
    const boxes = field.values.map(([value, count]) => {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => {
        const values = boxes.filter((item) => item.box.checked).map((item) => item.value);
        change(field.name, values);
        show();
      });
      const row = element("label", {}, box, element("span", { class: "value" }, label(value)), element("span", { class: "count" }, figure(count)));
      return { box, row, value };
    });
    const list = element("div", { class: "options" }, ...boxes.map((item) => item.row));
    const find = boxes.length > SEARCHABLE ? element("input", { type: "search", placeholder: `Find ${field.name}`, "aria-label": `Find a value of ${field.name}` }) : null;
    find?.addEventListener("input", () => {
      const wanted = find.value.toLowerCase();
      for (const item of boxes) item.row.hidden = !label(item.value).toLowerCase().includes(wanted);
    });
    find?.addEventListener("keydown", (event) => {
      if (event.key === "Enter") event.preventDefault();
    });
    const clear = element("button", { type: "button", class: "quiet", hidden: true, onclick: () => {
      for (const item of boxes) item.box.checked = false;
      change(field.name, []);
      show();
    } }, "Clear");
    const rest = field.n_values > boxes.length ? element("p", { class: "help" }, `the commonest ${boxes.length} of ${figure(field.n_values)}`) : null;
    const details = element("details", { class: "facet" }, summary, element("div", { class: "menu" }, find, list, rest, clear));
    details.addEventListener("toggle", () => {
      if (details.open) closeOthers(container, details);
    });
    container.append(details);

    function show() {
      const values = chosen()[field.name] ?? [];
      for (const item of boxes) item.box.checked = values.includes(item.value);
      summary.textContent = values.length === 1 ? `${field.name}: ${label(values[0])}` : values.length ? `${field.name}: ${values.length}` : field.name;
      details.classList.toggle("active", values.length > 0);
      clear.hidden = values.length === 0;
    }
    show();
    return show;
  });
  return () => shows.forEach((show) => show());
}
