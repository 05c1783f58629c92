// All collections, and the figures of one.

import { bytes, command, count, empty, fill, h, plural, seconds, setText } from "./dom.js";
import { openCreate } from "./create.js";
import { state } from "./live.js";
import { address } from "./place.js";

/** The figures at the head of a collection; `stats` is undefined until they are known. */
export function tiles(node, stats) {
  const values = [
    ["rows", stats && count(stats.rows), stats?.rows === 1 ? "row" : "rows"],
    ["segments", stats && count(stats.segments), stats?.segments === 1 ? "segment" : "segments"],
    ["memory", stats && bytes(stats.memory.total)],
    ["files", stats && bytes(stats.file_bytes)],
    ["recall", ...recall(stats)],
  ];
  if (node.children.length === 0) {
    fill(node, values.map(([name]) => h("div", { class: "tile", "data-figure": name },
      h("span", { class: "figure" }), h("span", { class: "unit" }, name))));
  }
  values.forEach(([name, value, unit], at) => {
    setText(node.children[at].firstChild, value ?? "–");
    setText(node.children[at].lastChild, unit ?? name);
  });
}

/** What queries find of the 10 nearest, of the column that finds least: of queries that were asked, if there are enough. */
function recall(stats) {
  const share = (one) => one.live ?? one.expected;
  const known = (stats?.recall ?? []).filter((one) => share(one) !== null);
  if (known.length === 0) return [undefined];
  const least = known.reduce((a, b) => (share(b) < share(a) ? b : a));
  const words = least.live === null ? "recall, of a sample" : `recall, of ${count(least.live_queries)} queries asked`;
  return [`${(100 * share(least)).toFixed(1)}%`, words];
}

/** How far indexing is; nothing where all is done. */
export function indexing(node, stats) {
  const { rows_linking: linking, rows_linked: linked, rows_waiting: waiting, seconds_left: left } = stats?.indexing ?? {};
  if (!stats || (linking === 0 && waiting === 0)) {
    if (node.children.length > 0) fill(node);
    return;
  }
  if (node.children.length === 0) {
    fill(node, h("progress", { max: "1", "aria-label": "Indexing" }), h("span", { class: "muted" }));
  }
  const [bar, words] = node.children;
  bar.hidden = linking === 0;
  if (linking > 0) bar.value = linked / linking;
  setText(words, linking > 0
    ? `Indexing ${count(linked)} of ${plural(linking, "row")}${left > 0 ? `, ${seconds(left)} left` : ""}`
    : `${plural(waiting, "row")} not in an index yet: scanned exactly`);
}

const COLUMNS = ["Collection", "Rows", "Segments", "Memory", "Files", "Indexing", "Vectors"];

/** All collections in a table. */
export function overview(main, { server }) {
  const body = h("tbody");
  const table = h("div", { class: "scroll" }, h("table", { class: "grid" },
    h("thead", {}, h("tr", {}, COLUMNS.map((name, at) => h("th", { scope: "col", class: at > 0 && at < 6 ? "number" : null }, name)))),
    body));
  const totals = h("p", { class: "muted" });
  const none = h("div", {});
  const unserved = h("div", {});
  fill(main, h("header", { class: "head" }, h("h1", {}, "Collections"), totals), none, table, unserved);
  const lines = new Map();

  function line(one) {
    const cells = COLUMNS.slice(1, 6).map(() => h("td", { class: "number" }));
    const node = h("tr", { "data-name": one.name },
      h("th", { scope: "row" }, h("a", { href: address(one.name) }, one.name),
        one.aliases.map((alias) => h("span", { class: "chip" }, alias))),
      cells,
      h("td", { class: "muted" }, one.vectors.map(described).join("; ")));
    return { node, cells, uuid: one.uuid };
  }

  function update() {
    const all = state.collections ?? [];
    table.hidden = all.length === 0;
    if (all.length > 0) fill(none);
    else if (none.children.length === 0) fill(none, nothingYet(server));
    for (const name of [...lines.keys()]) {
      if (!all.some((one) => one.name === name && one.uuid === lines.get(name).uuid)) {
        lines.get(name).node.remove();
        lines.delete(name);
      }
    }
    all.forEach((one, at) => {
      if (!lines.has(one.name)) lines.set(one.name, line(one));
      const { node, cells } = lines.get(one.name);
      if (body.children[at] !== node) body.insertBefore(node, body.children[at] ?? null);
      const stats = state.stats.get(one.name);
      const values = stats ? [count(stats.rows), count(stats.segments), bytes(stats.memory.total), bytes(stats.file_bytes), progress(stats.indexing)] : ["–", "–", "–", "–", "–"];
      values.forEach((value, place) => setText(cells[place], value));
    });
    const rows = [...state.stats.values()].reduce((sum, stats) => sum + stats.rows, 0);
    setText(totals, all.length === 0 ? "" : all.every((one) => state.stats.has(one.name))
      ? `${plural(all.length, "collection")}, ${plural(rows, "row")}` : plural(all.length, "collection"));
    if (unserved.children.length !== state.unserved.length) {
      fill(unserved, state.unserved.map((one) => h("div", { class: "problem" },
        h("p", {}, h("strong", {}, one.name), " could not be opened and is not served: ", h("span", { class: "mono" }, one.reason)))));
    }
  }

  update();
  return { update };
}

function progress({ rows_linking: linking, rows_linked: linked, rows_waiting: waiting }) {
  if (linking > 0) return `${Math.floor(100 * linked / linking)}%`;
  return waiting > 0 ? `${count(waiting)} waiting` : "done";
}

/** An index column in a few words. */
export function described(column) {
  const model = column.params.model;
  return `${column.name}: ${column.element} × ${column.dimension}, ${column.metric}${model ? `, model ${model}` : ""}`;
}

function nothingYet(server) {
  return empty("There are no collections yet.",
    h("p", {}, "Index a folder of pictures:"),
    command("voisin index DIR --collection photos"),
    h("p", {}, "or import rows that have vectors:"),
    command("voisin import rows.parquet --collection photos"),
    h("p", {}, "or ", h("button", { type: "button", class: "link", onclick: () => openCreate(server) }, "create a collection"),
      " and write to it over the API."));
}
