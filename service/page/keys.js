// The keyboard: moving between results, and one key for what the mouse does.

import { byId } from "./dom.js";
import { closeOthers } from "./facets.js";

const TYPED = "input:not([type=radio]):not([type=checkbox]), select, textarea";

function toQuery() {
  byId("query").focus();
  byId("query").select();
}

/** Focus the result that many places on; before the first is the search box. */
function move(step) {
  const articles = [...byId("results").querySelectorAll("article")];
  const next = articles.indexOf(document.activeElement?.closest("article")) + step;
  if (next < 0) byId("query").focus();
  else if (next < articles.length) {
    articles[next].focus({ preventScroll: true });
    articles[next].scrollIntoView({ block: "nearest" });
  }
}

function escape(event, actions) {
  if (document.querySelector(".facet[open]")) closeOthers(byId("facets"));
  else if (event.target === byId("query")) actions.clear();
  else toQuery();
}

/** What a key does here and now, or undefined. */
function actionOf(event, actions) {
  const typing = event.target.matches(TYPED);
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
  if (event.key === "Escape") return () => escape(event, actions);
  if (digit && (event.altKey || !typing)) return () => actions.choose(Number(digit));
  if (event.altKey) return undefined;
  if (event.key === "ArrowDown" && (!typing || event.target === byId("query"))) return () => move(1);
  if (typing) return undefined;
  const article = event.target.closest("article");
  const keys = {
    ArrowUp: () => move(-1),
    j: () => move(1),
    k: () => move(-1),
    "/": toQuery,
    "?": () => byId("keys").showModal(),
    f: actions.filter,
  };
  if (article) keys.e = () => article.querySelector(".explain").click();
  if (article && event.target === article) keys.Enter = () => article.querySelector(".open").click();
  return keys[event.key];
}

/** Obey keys; `actions` has choose(number), clear() and filter(). */
export function listenForKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input[type=radio]") && event.key.startsWith("Arrow")) return; // the switch's own keys
    const action = actionOf(event, actions);
    if (!action) return;
    event.preventDefault();
    action();
  });
}
