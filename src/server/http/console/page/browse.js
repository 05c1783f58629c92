// Rows in the order of their keys, page by page.

import { api } from "./api.js";
import { command, count, empty, fill, h, plural, problem, quoted, setText, shown } from "./dom.js";
import { note } from "./place.js";
import { columnsShown, hasPictures, openRow, picture } from "./row.js";
import { example } from "./search.js";

const PAGE_ROWS = 50;

export function browse(body, context) {
  const { name, collection } = context;
  let filter = context.asked.get("filter") ?? "";
  /** The key that each page so far begins behind. */
  let pages = [null];
  let last = null;
  let total = null;
  let running = null;

  const columns = columnsShown(collection);
  const withPictures = hasPictures(collection, context.server);
  const filterBox = h("input", { type: "text", id: "filter", spellcheck: "false", autocomplete: "off", ".value": filter, placeholder: example(collection), "aria-describedby": "filter-problem" });
  const filterProblem = h("div", { id: "filter-problem", class: "filter-problem", role: "alert" });
  const where = h("span", { class: "muted", role: "status" });
  const before = h("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const after = h("button", { type: "button", onclick: () => turn(1) }, "Next");
  const rows = h("tbody");
  const table = h("div", { class: "scroll" }, h("table", { class: "grid rows" },
    h("thead", {}, h("tr", {}, withPictures ? h("th", { scope: "col", class: "thumb" }, h("span", { class: "unseen" }, "Picture")) : null,
      h("th", { scope: "col" }, "key"), columns.map((column) => h("th", { scope: "col" }, column)))), rows));
  const words = h("div", {});

  fill(body,
    h("form", { class: "bar", onsubmit: begin },
      h("label", { class: "control wide", for: "filter" }, h("span", {}, "Filter"), filterBox),
      h("button", { type: "submit" }, "Show"),
      h("button", { type: "button", title: "Rows of now", onclick: begin }, "Reload")),
    filterProblem, words, table,
    h("nav", { class: "bar pages", "aria-label": "Pages" }, before, after, where));

  function begin(event) {
    event?.preventDefault();
    filter = filterBox.value.trim();
    note({ filter });
    pages = [null];
    total = null;
    load();
  }

  function turn(by) {
    if (by > 0) pages.push(last);
    else pages.pop();
    load();
  }

  async function load() {
    running?.abort();
    const own = new AbortController();
    running = own;
    before.disabled = after.disabled = true;
    try {
      const behind = pages.at(-1);
      const [found, counted] = await Promise.all([
        api.rows(name, { filter, forwards: columns, ...(behind === null ? {} : { after: behind }) }, PAGE_ROWS + 1, own.signal),
        total ?? api.count(name, filter, own.signal),
      ]);
      total = counted;
      show(found.slice(0, PAGE_ROWS), found.length > PAGE_ROWS);
    } catch (error) {
      if (own.signal.aborted) return;
      const isFilter = filter !== "" && error.message.startsWith("invalid filter");
      filterBox.setAttribute("aria-invalid", String(isFilter));
      fill(filterProblem, isFilter ? h("pre", {}, error.message) : null);
      if (!isFilter) fill(words, problem(error, h("div", {}, h("button", { type: "button", onclick: begin }, "Try again"))));
    }
  }

  function show(found, isMore) {
    last = found.at(-1)?.key;
    filterBox.removeAttribute("aria-invalid");
    fill(filterProblem);
    const first = (pages.length - 1) * PAGE_ROWS;
    before.disabled = pages.length === 1;
    after.disabled = !isMore;
    table.hidden = found.length === 0;
    fill(words, found.length > 0 ? null : filter
      ? empty("No row passes the filter.")
      : empty("The collection has no rows yet.", h("p", {}, "Fill it from a file:"), command(`voisin import rows.parquet --collection ${quoted(name)}`)));
    setText(where, found.length === 0 ? "" : `${count(first + 1)}–${count(first + found.length)} of ${plural(total, "row")}`);
    fill(rows, found.map((row) => h("tr", { onclick: (event) => { if (!event.target.closest("button")) openRow(name, row.key, context); } },
      withPictures ? h("td", { class: "thumb" }, picture(name, row, context)) : null,
      h("th", { scope: "row" }, h("button", { type: "button", class: "link mono", onclick: () => openRow(name, row.key, context) }, row.key)),
      columns.map((column) => h("td", { title: shown(row.values[column]) }, row.values[column] === null ? h("span", { class: "muted" }, "unset") : shown(row.values[column]))))));
  }

  load();
  return {
    move(asked) {
      filterBox.value = asked.get("filter") ?? "";
      begin();
    },
    end: () => running?.abort(),
  };
}
