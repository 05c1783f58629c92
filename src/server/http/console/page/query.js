// A query as the API takes it, word for word, and its answer.

import { api } from "./api.js";
import { fill, h, micros, problem, shown } from "./dom.js";
import { columnsShown } from "./row.js";
import { usualColumn } from "./search.js";

/** Characters of an answer that are shown. */
const SHOWN_MAX = 300_000;
/** Characters of bytes in base64 that are shown. */
const BYTES_SHOWN_MAX = 64;

/** What was typed last, by collection. */
const kept = new Map();

export function query(body, { name, collection }) {
  const text = h("textarea", { id: "json", spellcheck: "false", rows: "12", "aria-describedby": "json-hint", oninput: changed });
  const run = h("button", { type: "submit", class: "primary" }, "Run");
  const told = h("p", { class: "latency", role: "status" });
  const failed = h("div", {});
  const answer = h("pre", { class: "answer mono", tabindex: "0", "aria-label": "Answer", hidden: true });
  const curl = h("pre", { class: "command", tabindex: "0" });
  let running = null;

  fill(body,
    h("form", { class: "form", onsubmit: ask },
      h("label", { class: "field", for: "json" }, h("span", {}, "Query"), text),
      h("div", { class: "bar" }, run,
        h("span", { id: "json-hint", class: "muted" }, "Ctrl+Enter runs it. All it can say: ", h("a", { href: "../api/v1/openapi.json", target: "_blank", rel: "noopener" }, "the API's document"), "."))),
    h("details", {}, h("summary", {}, "The same with curl"), curl),
    failed, told, answer);

  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      ask();
    }
  });

  function changed() {
    kept.set(name, text.value);
    const api = new URL(`../api/v1/collections/${encodeURIComponent(name)}/query?keys=text`, location.href);
    const compact = text.value.replace(/\s*\n\s*/g, " ").trim();
    // In an address a ' may stand as it is; in the quotes of a shell it ends them.
    const address = String(api).replaceAll("'", "%27");
    curl.textContent = `curl '${address}' -H 'content-type: application/json' -d '${compact.replaceAll("'", "'\\''")}'`;
  }

  async function ask(event) {
    event?.preventDefault();
    running?.abort();
    const own = new AbortController();
    running = own;
    fill(failed);
    fill(told);
    try {
      // The words of the browser name the place in the text; the text itself is what is sent.
      JSON.parse(text.value);
    } catch (error) {
      answer.hidden = true;
      fill(failed, problem(new Error(`This is no JSON: ${error.message}`)));
      return;
    }
    try {
      const { json, text: raw, millis } = await api.query(name, text.value, own.signal);
      const all = pretty(json);
      answer.textContent = all.length > SHOWN_MAX ? `${all.slice(0, SHOWN_MAX)}\n… ${raw.length} characters in all` : all;
      answer.hidden = false;
      fill(told, "server ", h("strong", {}, micros(json.elapsed_us)), " · round trip ", h("strong", {}, micros(millis * 1000)));
    } catch (error) {
      if (own.signal.aborted) return;
      answer.hidden = true;
      fill(failed, problem(error));
    }
  }

  async function suggest() {
    const column = usualColumn(collection);
    let asked = { vector: new Array(column.dimension).fill(0) };
    try {
      const [row] = await api.rows(name, { forwards: [] }, 1);
      if (row) asked = { positives: [row.key] };
    } catch {
      // The reader writes the whole of it.
    }
    if (kept.has(name)) return;
    // One among several has to be named.
    const named = collection.vectors.length > 1 ? { column: column.name } : {};
    const lines = Object.entries({ ...named, ...asked, topk: 10, filter: "", params: {}, forwards: columnsShown(collection) });
    text.value = `{\n${lines.map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`).join(",\n")}\n}`;
    changed();
  }

  if (kept.has(name)) {
    text.value = kept.get(name);
    changed();
  } else {
    suggest();
  }
  return { end: () => running?.abort() };
}

/** JSON with lines, but lists of numbers in one, and of long bytes the beginning. */
function pretty(value, indent = "") {
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    const isPlain = value.every((one) => typeof one === "number" || typeof one === "bigint");
    if (isPlain) return `[${value.join(",")}]`;
    return `[\n${value.map((one) => deeper + pretty(one, deeper)).join(",\n")}\n${indent}]`;
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return "{}";
    if (typeof value.bytes === "string" && value.bytes.length > BYTES_SHOWN_MAX) {
      return `{"bytes": "${value.bytes.slice(0, BYTES_SHOWN_MAX)}…"} (${shown(value)})`;
    }
    const lines = entries.map(([key, one]) => `${deeper}${JSON.stringify(key)}: ${pretty(one, deeper)}`);
    return `{\n${lines.join(",\n")}\n${indent}}`;
  }
  return typeof value === "bigint" ? String(value) : JSON.stringify(value);
}
