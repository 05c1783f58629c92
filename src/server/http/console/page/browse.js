// Rows in the order of their keys, page by page. Each page begins behind a key, which the address holds.

import { api } from "./api.js";
import { command, count, empty, fill, h, plural, problem, quoted, say, setText, shown } from "./dom.js";
import { note } from "./place.js";
import { columnsShown, hasPictures, openRow, picture } from "./row.js";
import { example } from "./search.js";

const PAGE_ROWS = 50;
export function browse(body, context) {
  const { name, collection } = context;
  /** `pages` are those so far, of which the last is shown: the key that each begins behind, and how many rows lie before. */
  let { filter, pages } = read(context.asked);
  let last = null;
  let total = null;
  let running = null;

  const columns = columnsShown(collection);
  const withPictures = hasPictures(collection, context.server);
  const filterBox = h("input", { type: "text", id: "filter", spellcheck: "false", autocomplete: "off", ".value": filter, placeholder: example(collection), "aria-describedby": "filter-problem" });
  const filterProblem = h("div", { id: "filter-problem", class: "filter-problem", role: "alert" });
  const where = h("span", { class: "muted", role: "status" });
  const before = h("button", { type: "button", onclick: () => turn(before, -1) }, "Previous");
  const after = h("button", { type: "button", onclick: () => turn(after, 1) }, "Next");
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

  function read(asked) {
    const key = /^[0-9]{1,20}$/.test(asked.get("after") ?? "") ? asked.get("after") : null;
    // The way here is kept beside the address, for Previous after a reload. A link has none: there it leads to the first page.
    const kept = history.state?.pages;
    const way = Array.isArray(kept) && kept.at(-1) === key ? kept : key === null ? [null] : [null, key];
    return { filter: asked.get("filter") ?? "", pages: way.map(page) };
  }

  /** A page behind a key; how many rows lie before is counted when it is shown. */
  function page(after) {
    return { after, rows: after === null ? 0 : null };
  }

  function noted() {
    note({ filter, after: pages.at(-1).after }, { pages: pages.map((one) => one.after) });
  }

  function begin(event) {
    event?.preventDefault();
    filter = filterBox.value.trim();
    again();
  }

  function again() {
    pages = [page(null)];
    total = null;
    noted();
    load();
  }

  /** Buttons that cannot be used keep the focus, which those that are disabled lose. */
  function usable(button, isUsable) {
    button.setAttribute("aria-disabled", String(!isUsable));
  }

  function turn(button, by) {
    if (button.getAttribute("aria-disabled") === "true") return;
    if (by > 0) pages.push({ after: last, rows: pages.at(-1).rows + PAGE_ROWS });
    else pages.pop();
    noted();
    load();
  }

  async function load() {
    running?.abort();
    const own = new AbortController();
    running = own;
    for (const button of [before, after]) usable(button, false);
    try {
      const here = pages.at(-1);
      const [found, counted] = await Promise.all([
        api.rows(name, { filter, forwards: columns, ...(here.after === null ? {} : { after: here.after }) }, PAGE_ROWS + 1, own.signal),
        total ?? api.count(name, filter, own.signal),
      ]);
      // Only now, so that a wrong filter is told as it was written.
      here.rows ??= await countUpTo(here.after, own.signal);
      total = counted;
      if (found.length === 0 && here.after !== null) {
        say("The rows of that page are gone. These are the first.");
        again();
        return;
      }
      show(found.slice(0, PAGE_ROWS), found.length > PAGE_ROWS);
    } catch (error) {
      if (own.signal.aborted) return;
      const isFilter = filter !== "" && error.message.startsWith("invalid filter");
      filterBox.setAttribute("aria-invalid", String(isFilter));
      fill(filterProblem, isFilter ? h("pre", {}, error.message) : null);
      if (!isFilter) fill(words, problem(error, h("div", {}, h("button", { type: "button", onclick: load }, "Try again"))));
    }
  }

  /** How many rows there are up to a key; NaN where a forward column has the name that filters have for keys. */
  async function countUpTo(key, signal) {
    if (collection.forwards.some((column) => column.name === "_key")) return NaN;
    return api.count(name, filter === "" ? `_key <= ${key}` : `(${filter}) and _key <= ${key}`, signal);
  }

  function show(found, isMore) {
    last = found.at(-1)?.key;
    filterBox.removeAttribute("aria-invalid");
    fill(filterProblem);
    const first = pages.at(-1).rows;
    usable(before, pages.length > 1);
    usable(after, isMore);
    table.hidden = found.length === 0;
    fill(words, found.length > 0 ? null : filter
      ? empty("No row passes the filter.")
      : empty("The collection has no rows yet.", h("p", {}, "Fill it from a file:"), command(`voisin import rows.parquet --collection ${quoted(name)}`)));
    const range = Number.isNaN(first) ? "" : `${count(first + 1)}–${count(first + found.length)} of `;
    setText(where, found.length === 0 ? "" : range + plural(total, "row"));
    fill(rows, found.map((row) => h("tr", { onclick: (event) => { if (!event.target.closest("button")) openRow(name, row.key, context); } },
      withPictures ? h("td", { class: "thumb" }, picture(name, row, context)) : null,
      h("th", { scope: "row" }, h("button", { type: "button", class: "link mono", onclick: () => openRow(name, row.key, context) }, row.key)),
      columns.map((column) => h("td", { title: shown(row.values[column]) }, row.values[column] === null ? h("span", { class: "muted" }, "unset") : shown(row.values[column]))))));
  }

  load();
  return {
    move(asked) {
      ({ filter, pages } = read(asked));
      filterBox.value = filter;
      total = null;
      load();
    },
    end: () => running?.abort(),
  };
}
