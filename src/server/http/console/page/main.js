// Begins the page: the list at the side, and the view that the address asks for.

import { api } from "./api.js";
import { bytes, count, empty, fill, h, plural, setText } from "./dom.js";
import { found, refresh, state, want, watch } from "./live.js";
import { VIEWS, address, place } from "./place.js";
import { openCreate } from "./create.js";
import { browse } from "./browse.js";
import { indexing, overview, tiles } from "./overview.js";
import { query } from "./query.js";
import { schema } from "./schema.js";
import { search } from "./search.js";

const TITLES = { search: "Search", browse: "Browse", query: "Query", schema: "Schema" };
const SHOW = { search, browse, query, schema };

/** What the server said of itself. */
const server = { version: "", picture_root: false, picture_bytes_max: 32 << 20, models: [] };

const main = document.getElementById("main");
const list = document.getElementById("side-list");

/** The view that is shown: where it is, and what ends it. */
let shown = { collection: undefined, view: undefined, uuid: undefined, update: null, end: null };

function show() {
  const { collection, view, asked } = place();
  const known = collection === null ? null : found(collection);
  const uuid = known?.uuid;
  const isSame = shown.collection === collection && shown.view === view && shown.uuid === uuid;
  if (isSame && shown.move) {
    shown.move(asked);
    return;
  }
  shown.end?.();
  shown = { collection, view, uuid };
  document.title = collection === null ? "Voisin" : `${collection} · Voisin`;
  if (state.collections === null) {
    fill(main, state.failure ? null : h("p", { class: "muted" }, "Loading…"));
    shown.uuid = undefined;
  } else if (collection === null) {
    Object.assign(shown, overview(main, { server }));
  } else if (known === null) {
    shown.update = () => {};
    const reason = state.unserved.find((one) => one.name === collection)?.reason;
    fill(main, reason === undefined
      ? empty(`There is no collection “${collection}”.`, h("p", {}, "It may have been dropped. ", h("a", { href: "#/" }, "All collections")))
      : empty(`“${collection}” could not be opened.`, h("p", { class: "mono" }, reason),
        h("p", {}, "The others are served. ", h("code", {}, "voisin verify DIR"), " names every fault of a data folder at rest.")));
  } else {
    collectionView(known, view, asked);
  }
  side();
}

function collectionView(known, view, asked) {
  const figures = h("div", { class: "tiles" });
  const progress = h("div", { class: "indexing" });
  const alias = place().collection === known.name ? null : h("span", { class: "chip" }, `alias of ${known.name}`);
  const tab = (name) => h("a", {
    href: address(place().collection, name),
    class: "tab",
    "aria-current": name === view ? "page" : null,
  }, TITLES[name]);
  const body = h("section", { class: `view ${view}`, "aria-label": TITLES[view] });
  fill(main,
    h("header", { class: "head" }, h("h1", {}, place().collection, alias), figures, progress),
    h("nav", { class: "tabs", "aria-label": "Views of the collection" }, VIEWS.map(tab)),
    body);
  const inner = SHOW[view](body, { name: known.name, collection: known, asked, server });
  const update = () => {
    const stats = state.stats.get(known.name);
    tiles(figures, stats);
    indexing(progress, stats);
    inner?.update?.(stats);
  };
  Object.assign(shown, { update, end: inner?.end, move: inner?.move });
  update();
}

/** The list at the side; its entries are kept, so that focus is. */
function side() {
  const here = place().collection;
  const names = [...(state.collections ?? []).map((one) => one.name), ...state.unserved.map((one) => one.name)];
  const old = new Map([...list.children].map((item) => [item.dataset.name, item]));
  const items = names.map((name) => {
    const item = old.get(name) ?? entry(name);
    const link = item.firstChild;
    if (name === here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    const stats = state.stats.get(name);
    const isUnserved = state.unserved.some((one) => one.name === name);
    setText(link.lastChild, isUnserved ? "not served" : stats ? count(stats.rows) : "");
    item.classList.toggle("bad", isUnserved);
    return item;
  });
  if (items.some((item, at) => list.children[at] !== item) || items.length !== list.children.length) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    if (list.contains(focused)) focused.focus();
  }
  const { memory } = state;
  setText(document.getElementById("server"),
    memory ? `Memory ${bytes(memory.anonymous)} of ${bytes(memory.limit)}` : state.collections ? plural(names.length, "collection") : "");
}

function entry(name) {
  return h("li", { "data-name": name },
    h("a", { href: address(name), title: name }, h("span", { class: "name" }, name), h("span", { class: "rows" })));
}

/** The collections whose figures are in sight. */
function inSight() {
  const { collection } = place();
  const here = collection === null ? null : found(collection)?.name;
  const seen = [...document.querySelectorAll("[data-name]")].filter((node) => {
    const { top, bottom } = node.getBoundingClientRect();
    return bottom >= 0 && top <= innerHeight;
  });
  const names = seen.map((node) => node.dataset.name);
  // On the first round nothing is listed yet.
  const first = names.length === 0 ? (state.collections ?? []).map((one) => one.name) : [];
  return { always: here ? [here] : [], others: [...names, ...first] };
}

function told() {
  const offline = document.getElementById("offline");
  offline.hidden = state.failure === null;
  setText(offline, state.failure === null ? "" : `${state.failure.message} Trying again.`);
  side();
  const { collection, view } = place();
  const uuid = collection === null ? undefined : found(collection)?.uuid;
  // A collection that was created, dropped or made anew is another one.
  if (shown.collection !== collection || shown.view !== view || shown.uuid !== uuid || !shown.update) show();
  else shown.update();
}

function themes() {
  const select = document.getElementById("theme");
  select.value = document.documentElement.dataset.theme ?? "system";
  select.addEventListener("change", () => {
    if (select.value === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = select.value;
    try {
      localStorage.setItem("voisin.theme", select.value);
    } catch {
      // It holds until the page is left.
    }
  });
}

themes();
document.getElementById("create").addEventListener("click", () => openCreate(server));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", () => {
  show();
  refresh();
});
want(inSight);
watch(told);
show();
await Promise.all([
  api.about().then((about) => Object.assign(server, about), () => {}),
  api.models().then((models) => { server.models = models; }, () => {}),
]);
setText(document.getElementById("version"), server.version);
shown.view = undefined;
await refresh();
