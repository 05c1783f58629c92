// Builds the page from nodes and text, never from markup, and writes numbers for people.

/** An element: attributes, `on…` listeners and properties after a dot; then children, text or nodes. */
export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith(".")) node[name.slice(1)] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
}

/** Puts these children in the place of all that a node has. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
}

/** Changes a text only where it differs, so that what people select or hear is left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says something to everybody, screen readers included; it goes after a while. */
export function say(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { status.textContent = ""; }, 6000);
}

const grouped = new Intl.NumberFormat("en");

export function count(number) {
  return grouped.format(number);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)} ${units[at]}`;
}

export function micros(number) {
  if (number < 1000) return `${Math.round(number)} µs`;
  const millis = number / 1000;
  return millis < 1000 ? `${millis.toFixed(millis < 10 ? 2 : 1)} ms` : `${(millis / 1000).toFixed(2)} s`;
}

export function seconds(number) {
  if (number < 90) return `${Math.max(1, Math.round(number))} s`;
  return number < 5400 ? `${Math.round(number / 60)} min` : `${(number / 3600).toFixed(1)} h`;
}

/** A distance; what JSON has no number for comes as text. */
export function distance(score) {
  if (typeof score !== "number") return String(score);
  const size = Math.abs(score);
  if (size >= 1e15) return score.toExponential(2);
  // Squared distances of whole numbers are long, and their last digits tell rows apart.
  if (size >= 1000 || Number.isInteger(score)) return count(Math.round(score));
  if (size < 1e-4) return score.toExponential(2);
  return size < 1 ? score.toFixed(4) : score.toPrecision(4);
}

/** A forward value in one line. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "object") return String(value);
  if (typeof value.bytes === "string") {
    const padding = value.bytes.endsWith("==") ? 2 : value.bytes.endsWith("=") ? 1 : 0;
    return plural(value.bytes.length / 4 * 3 - padding, "byte");
  }
  const [, inner] = Object.entries(value)[0] ?? [];
  return String(inner ?? "");
}

/** The words of a refusal, in place. */
export function problem(error, ...more) {
  return h("div", { class: "problem", role: "alert" }, h("p", {}, error.message), more);
}

/** Nothing is there: says so, and what to do next. */
export function empty(title, ...more) {
  return h("div", { class: "empty" }, h("h3", {}, title), more);
}

/** A name as a shell takes it. */
export function quoted(name) {
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
}

export function command(text) {
  return h("pre", { class: "command", tabindex: "0" }, text);
}

/** A table row of a name and a value. */
export function fact(name, value) {
  return [h("dt", {}, name), h("dd", {}, value)];
}
