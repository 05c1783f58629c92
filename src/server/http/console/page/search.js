// Pictures in, similar rows out: from a picture that is dropped, pasted or chosen, or from a row.

import { api, pictureAt } from "./api.js";
import { bytes, command, count, empty, fill, h, micros, plural, problem, quoted, setText } from "./dom.js";
import { note, place } from "./place.js";
import { card, columnsShown, hasPictures, openRow } from "./row.js";
import { state } from "./live.js";

const K = { least: 1, most: 200, usual: 24 };
const EF = { least: 0, most: 1000, step: 10 };
/** Rows that are offered to begin with. */
const BEGIN_ROWS = 24;
/** How long a slider must rest before it is followed. */
const REST_MS = 250;

/** The pictures that were searched for last, by collection: so that going to and fro does not lose them. */
const kept = new Map();

export function search(body, context) {
  const { name, collection, server } = context;
  const models = collection.vectors.filter((column) => column.params.model);
  const isOneOfMany = collection.vectors.length > 1;
  /** `column` is named wherever there are several. */
  let { like, k, ef, filter, column } = read(context.asked);
  let picked = kept.get(name) ?? null;
  let running = null;
  let rest = 0;

  // What is searched for.
  const input = h("input", { type: "file", accept: "image/*", id: "picture", class: "hidden-input", onchange: () => take(input.files[0]) });
  const shownPicture = h("div", { class: "query-picture" });
  const drop = h("div", { class: "drop" },
    shownPicture,
    h("div", { class: "drop-words" },
      h("label", { for: "picture", class: "button" }, "Choose a picture", input),
      h("p", { class: "muted" }, "or drop one here, or paste it (Ctrl+V)")));
  const cannot = models.length === 0 ? h("div", { class: "drop hint" },
    shownPicture,
    h("p", {}, "No column of this collection names a model, so a picture cannot be searched for. Search from a row instead, or with a vector (Query).")) : null;

  // How.
  const kValue = h("output", { for: "k" });
  const kSlider = h("input", { type: "range", id: "k", min: K.least, max: K.most, step: "1", ".value": k, oninput: changed });
  const efValue = h("output", { for: "ef" });
  const efSlider = h("input", { type: "range", id: "ef", min: EF.least, max: EF.most, step: EF.step, ".value": ef, oninput: changed });
  const filterBox = h("input", { type: "text", id: "filter", spellcheck: "false", autocomplete: "off", ".value": filter, placeholder: example(collection), "aria-describedby": "filter-problem", onchange: changed });
  const filterProblem = h("div", { id: "filter-problem", class: "filter-problem", role: "alert" });
  const columnSelect = h("select", { id: "column", onchange: changed }, collection.vectors.map((one) => h("option", { value: one.name }, one.name)));

  // What was found.
  const latency = h("p", { class: "latency", role: "status" });
  const results = h("ul", { class: "results", role: "list", "aria-label": "Similar rows" });
  const words = h("div", {});

  fill(body,
    h("div", { class: "search-panel" },
      cannot ?? drop,
      h("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); changed(); } },
        isOneOfMany ? h("label", { class: "control", for: "column" }, h("span", {}, "Column"), columnSelect) : null,
        h("label", { class: "control", for: "k" }, h("span", {}, "Neighbours (k) ", kValue), kSlider),
        h("label", { class: "control", for: "ef" }, h("span", {}, "Candidates (ef) ", efValue), efSlider),
        h("label", { class: "control wide", for: "filter" }, h("span", {}, "Filter"), filterBox),
        filterProblem)),
    h("div", { class: "found" }, latency, words, results));

  function read(asked) {
    const number = (key, usual, least, most) => {
      const value = Number(asked.get(key) ?? usual);
      return Number.isFinite(value) ? Math.min(most, Math.max(least, Math.round(value))) : usual;
    };
    return {
      like: /^[0-9]{1,20}$/.test(asked.get("like") ?? "") ? asked.get("like") : null,
      k: number("k", K.usual, K.least, K.most),
      ef: number("ef", 0, EF.least, EF.most),
      filter: asked.get("filter") ?? "",
      column: isOneOfMany ? (asked.get("column") ?? usualColumn(collection).name) : null,
    };
  }

  function asked() {
    const isUsual = !isOneOfMany || column === usualColumn(collection).name;
    return { like, k: k === K.usual ? "" : k, ef: ef || "", filter, column: isUsual ? "" : column };
  }

  /** Has the select offer the columns that can be searched now, and show the one that is: pictures need a model. */
  function offer() {
    if (!isOneOfMany) return;
    const offered = like === null && picked !== null ? models : collection.vectors;
    if (!offered.some((one) => one.name === column)) {
      column = usualColumn(collection).name;
      note(asked());
    }
    for (const option of columnSelect.options) option.hidden = option.disabled = !offered.some((one) => one.name === option.value);
    columnSelect.value = column;
  }

  function labels() {
    setText(kValue, String(k));
    setText(efValue, ef === 0 ? "auto" : String(ef));
  }

  function changed() {
    k = Number(kSlider.value);
    ef = Number(efSlider.value);
    filter = filterBox.value.trim();
    column = isOneOfMany ? columnSelect.value : null;
    labels();
    note(asked());
    clearTimeout(rest);
    rest = setTimeout(run, REST_MS);
  }

  /** Searches on from a row: a step that the reader can go back from. */
  function onlike(key) {
    like = key;
    const { collection: here, view } = place();
    history.pushState(null, "", `#/${encodeURIComponent(here)}/${view}`);
    note(asked());
    run();
    window.scrollTo({ top: 0 });
  }

  function take(file) {
    if (!file || cannot) return;
    if (file.size > server.picture_bytes_max) {
      refuse(new Error(`The picture has ${bytes(file.size)}; the server takes ${bytes(server.picture_bytes_max)} (setting limits.picture_bytes_max).`));
      return;
    }
    if (file.type && !file.type.startsWith("image/")) {
      refuse(new Error(`“${file.name}” is no picture (${file.type}).`));
      return;
    }
    if (picked) URL.revokeObjectURL(picked.address);
    picked = { file, address: URL.createObjectURL(file) };
    kept.set(name, picked);
    if (like !== null) {
      like = null;
      const { collection: here, view } = place();
      history.pushState(null, "", `#/${encodeURIComponent(here)}/${view}`);
    }
    note(asked());
    run();
    // The same file may be chosen again.
    input.value = "";
  }

  function refuse(error) {
    setText(latency, "");
    fill(results);
    fill(words, problem(error));
  }

  function preview() {
    const remove = h("button", { type: "button", class: "icon", "aria-label": "Clear", title: "Clear", onclick: clear }, "×");
    if (like !== null) {
      fill(shownPicture,
        hasPictures(collection, server) ? h("img", { src: pictureAt(name, like), alt: "", onerror: (event) => event.target.remove() }) : null,
        h("div", { class: "query-name" }, h("span", { class: "muted" }, "Rows like"),
          h("button", { type: "button", class: "link mono", onclick: () => openRow(name, like, context) }, like)), remove);
    } else if (picked) {
      fill(shownPicture, h("img", { src: picked.address, alt: "The picture that is searched for", onerror: (event) => event.target.remove() }),
        h("div", { class: "query-name" }, h("span", { title: picked.file.name }, picked.file.name || "Pasted picture"),
          h("span", { class: "muted" }, bytes(picked.file.size))), remove);
    } else {
      fill(shownPicture);
    }
    shownPicture.hidden = shownPicture.children.length === 0;
    if (cannot) cannot.lastChild.hidden = !shownPicture.hidden;
  }

  function clear() {
    like = null;
    if (picked) URL.revokeObjectURL(picked.address);
    picked = null;
    kept.delete(name);
    note(asked());
    run();
  }

  async function run() {
    clearTimeout(rest);
    running?.abort();
    running = null;
    offer();
    preview();
    if (like === null && picked === null) {
      body.removeAttribute("aria-busy");
      idle();
      return;
    }
    const own = new AbortController();
    running = own;
    body.setAttribute("aria-busy", "true");
    const params = ef === 0 ? {} : { ef_search: Math.max(ef, 1) };
    const searched = collection.vectors.find((one) => one.name === column) ?? collection.vectors[0];
    const wanted = { topk: k, filter, params, forwards: columnsShown(collection), ...(column ? { column } : {}) };
    try {
      const { json, millis } = like !== null
        ? await api.query(name, { ...wanted, positives: [like] }, own.signal)
        : await api.searchByImage(name, picked.file, wanted, own.signal);
      if (own.signal.aborted) return;
      show(json, millis, searched);
    } catch (error) {
      if (own.signal.aborted) return;
      failed(error);
    }
    body.removeAttribute("aria-busy");
  }

  function settled() {
    filterBox.removeAttribute("aria-invalid");
    fill(filterProblem);
    results.classList.remove("stale");
    fill(words);
  }

  function show(answer, millis, searched) {
    settled();
    const hits = answer.results[0] ?? [];
    // Pictures are decoded and embedded before the search, which `elapsed_us` is of.
    const { decode_us: decode, embed_us: embed, search_us: ofSearch } = answer;
    const isPicture = decode !== undefined;
    const inServer = isPicture ? decode + embed + ofSearch : answer.elapsed_us;
    const parts = isPicture ? ` (decode ${micros(decode)}, embed ${micros(embed)}, search ${micros(ofSearch)})` : "";
    fill(latency,
      h("strong", {}, plural(hits.length, "row")), ` of ${count(answer.rows)} · server `, h("strong", {}, micros(inServer)),
      parts, " · round trip ", h("strong", {}, micros(millis * 1000)),
      " · ", h("span", { title: answer.exact ? "Nothing nearer can have been missed." : "An index was walked; a larger ef finds more." }, answer.exact ? "exact" : "approximate"),
      h("span", { class: "muted" }, ` · ${searched.metric}, smaller is nearer`));
    list(hits);
    if (hits.length === 0) {
      fill(words, empty("Nothing was found.", h("p", {}, filter ? "No row passes the filter." : "The collection has no other rows.")));
    }
  }

  /** Shows rows; a reader who was on one of the old ones goes on at the first. */
  function list(rows) {
    const wasHere = results.contains(document.activeElement);
    fill(results, rows.map((row, at) => card(name, row, at + 1, context, onlike)));
    if (wasHere) results.querySelector(".like")?.focus({ preventScroll: true });
  }

  function idle() {
    settled();
    const rows = state.stats.get(name)?.rows;
    if (!rows) {
      setText(latency, "");
      fill(results);
    }
    if (rows === 0) {
      fill(words, empty("The collection has no rows yet.", models.length > 0
        ? [h("p", {}, "Index a folder of pictures:"), command(`voisin index DIR --collection ${quoted(name)}`)]
        : [h("p", {}, "Import rows from a file:"), command(`voisin import rows.parquet --collection ${quoted(name)}`)]));
    } else if (rows > 0) {
      begin();
    }
  }

  /** Offers rows to begin with. */
  async function begin() {
    const own = new AbortController();
    running = own;
    try {
      const rows = await api.rows(name, { filter, forwards: columnsShown(collection) }, BEGIN_ROWS, own.signal);
      if (own.signal.aborted) return;
      const embedding = models.find((one) => one.name === column) ?? models[0];
      fill(latency, models.length > 0
        ? ["Choose, drop or paste a picture: the model ", h("strong", {}, embedding.params.model), " embeds it, and its nearest neighbours come here. Or begin with a row:"]
        : "Click a row to find those like it:");
      list(rows);
      if (rows.length === 0) fill(words, empty("No row passes the filter."));
    } catch (error) {
      if (!own.signal.aborted) failed(error);
    }
  }

  function failed(error) {
    const isFilter = filter !== "" && error.message.startsWith("invalid filter");
    filterBox.setAttribute("aria-invalid", String(isFilter));
    fill(filterProblem, isFilter ? h("pre", {}, error.message) : null);
    if (isFilter) results.classList.add("stale");
    else refuse(error);
  }

  // Pictures come from anywhere on the page.
  const on = (target, type, listener) => {
    target.addEventListener(type, listener);
    return () => target.removeEventListener(type, listener);
  };
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const ends = [
    on(document, "dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      drop.classList.add("over");
    }),
    on(document, "dragleave", (event) => {
      if (event.relatedTarget === null) drop.classList.remove("over");
    }),
    on(document, "drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      drop.classList.remove("over");
      take(event.dataTransfer.files[0]);
    }),
    on(document, "paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      take(file);
    }),
  ];

  labels();
  run();
  const isEmpty = (stats) => stats && stats.rows === 0;
  let wasEmpty = isEmpty(state.stats.get(name));
  return {
    /** A step back, or another address. */
    move(next) {
      ({ like, k, ef, filter, column } = read(next));
      kSlider.value = k;
      efSlider.value = ef;
      filterBox.value = filter;
      labels();
      run();
    },
    update(stats) {
      // From none to some, or back: what to do next is another thing then.
      if (isEmpty(stats) !== wasEmpty && like === null && picked === null) idle();
      wasEmpty = isEmpty(stats);
    },
    end() {
      clearTimeout(rest);
      running?.abort();
      for (const end of ends) end();
    },
  };
}

/** The index column that is searched where none is named: one that can be searched by pictures if there is one. */
export function usualColumn(collection) {
  return collection.vectors.find((column) => column.params.model) ?? collection.vectors[0];
}

/** A filter that could be written for these columns. */
export function example(collection) {
  const of = (types) => collection.forwards.find((column) => types.includes(column.type) && !column.name.startsWith("_"));
  const text = of(["string"]);
  if (text) return `${text.name} like "%.jpg"`;
  const number = of(["int32", "int64", "uint32", "uint64", "float", "double"]);
  return number ? `${number.name} > 100` : "_key < 100";
}
