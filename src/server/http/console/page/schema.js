// What a collection is declared to hold, where its memory goes, and its end.

import { openDrop } from "./create.js";
import { bytes, fact, fill, h, plural, seconds, setText } from "./dom.js";
import { state } from "./live.js";

const PARTS = [
  ["growing", "rows that are not sealed yet"], ["codes", "codes of sealed vectors"], ["graphs", "links of graphs"],
  ["keys", "where each key's row is"], ["deletes", "delete marks"], ["builds", "indexes being made"],
  ["filters", "sorted forward columns"],
];

export function schema(body, { name, collection }) {
  const params = (column) => Object.entries(column.params).map(([key, value]) => `${key}=${value}`).join(", ");
  const memory = h("tbody", {}, PARTS.map(([, words]) => h("tr", {}, h("th", { scope: "row" }, words), h("td", { class: "number" }))));
  const table = (caption, heads, rows) => h("div", { class: "scroll" }, h("table", { class: "grid" }, h("caption", {}, caption),
    heads.length > 0 ? h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))) : null, rows));

  fill(body,
    table("Index columns", ["Name", "Element", "Dimension", "Metric", "Parameters"], h("tbody", {}, collection.vectors.map((column) =>
      h("tr", {}, h("th", { scope: "row" }, column.name), h("td", {}, column.element), h("td", {}, String(column.dimension)),
        h("td", {}, column.metric), h("td", { class: "mono" }, params(column)))))),
    collection.forwards.length === 0 ? h("p", { class: "muted" }, "No forward columns.")
      : table("Forward columns", ["Name", "Type"], h("tbody", {}, collection.forwards.map((column) =>
        h("tr", {}, h("th", { scope: "row" }, column.name), h("td", {}, column.type ?? h("span", { class: "muted" }, "any")))))),
    table("Memory", [], memory),
    h("dl", { class: "facts" },
      fact("Identity", h("span", { class: "mono" }, collection.uuid)),
      fact("Aliases", collection.aliases.length > 0 ? collection.aliases.join(", ") : "none"),
      fact("Rows expire", collection.ttl ? `${seconds(collection.ttl.milliseconds / 1000)} after ${collection.ttl.column || "their last write"}` : "never"),
      fact("Versions", collection.versions ? "kept in _version" : "not kept"),
      fact("Sealed at", collection.segment_rows_max > 0 ? plural(collection.segment_rows_max, "row") : "the server decides")),
    h("section", { class: "danger-zone", "aria-label": "Drop" },
      h("p", {}, "Dropping the collection deletes its rows and files."),
      h("button", { type: "button", class: "danger", onclick: () => {
        const rows = state.stats.get(name)?.rows;
        openDrop(name, rows === undefined ? "all its rows" : plural(rows, "row"));
      } }, "Drop the collection")));

  return {
    update(stats) {
      if (stats) PARTS.forEach(([part], at) => setText(memory.children[at].lastChild, bytes(stats.memory[part])));
    },
  };
}
