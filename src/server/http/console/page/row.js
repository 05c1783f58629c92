// One row: its picture, its values and its vectors, in a dialog. And cards, which show rows as pictures.

import { api, pictureAt } from "./api.js";
import { openDialog } from "./create.js";
import { distance, fact, fill, h, problem, shown } from "./dom.js";
import { address } from "./place.js";

/** Numbers of a vector that are shown. */
const NUMBERS_SHOWN = 16;

/** Whether rows of the collection may have a picture that can be shown. */
export function hasPictures(collection, server) {
  const names = collection.forwards.map((column) => column.name);
  return names.includes("thumbnail") || (server.picture_root && names.includes("image_path"));
}

/** The forward columns to ask for: all but the small pictures, which are shown from elsewhere. */
export function columnsShown(collection) {
  return collection.forwards.map((column) => column.name).filter((name) => name !== "thumbnail");
}

/** What a row is called. */
export function title(row) {
  const path = row.values?.image_path ?? row.values?.path ?? row.values?.name ?? row.values?.title;
  return typeof path === "string" && path !== "" ? path : `row ${row.key}`;
}

/** The picture of a row; where there is none, the beginning of its values. */
export function picture(name, row, { collection, server }, size) {
  const frame = h("span", { class: "picture" });
  const instead = () => {
    const values = Object.entries(row.values ?? {}).filter(([, value]) => value !== null).slice(0, 4);
    fill(frame, h("span", { class: "values" }, values.length === 0 ? row.key
      : values.map(([column, value]) => h("span", {}, h("b", {}, column), " ", shown(value)))));
    frame.classList.add("none");
  };
  if (!hasPictures(collection, server)) {
    instead();
  } else {
    frame.append(h("img", { src: pictureAt(name, row.key, size), alt: "", loading: size === "full" ? null : "lazy", decoding: "async", onerror: instead }));
  }
  return frame;
}

/** A row, found or not: the picture searches on from it, the small button shows its values. */
export function card(name, hit, rank, context, onlike) {
  const isHit = hit.score !== undefined;
  const called = title(hit);
  const short = called.split("/").at(-1);
  return h("li", { class: "card", "data-key": hit.key },
    h("button", {
      type: "button", class: "like", onclick: () => onlike(hit.key),
      "aria-label": `${rank}. ${called}${isHit ? `, distance ${distance(hit.score)}` : ""}. Search for more like this`,
    }, picture(name, hit, context), isHit ? h("span", { class: "rank", "aria-hidden": "true" }, String(rank)) : null),
    h("div", { class: "caption" },
      h("span", { class: "name", title: called }, short),
      isHit ? h("span", { class: "score", title: `distance ${hit.score}` }, distance(hit.score)) : null,
      h("button", { type: "button", class: "icon", "aria-label": `Values of ${called}`, title: "Values", onclick: () => openRow(name, hit.key, context) }, "⋯")));
}

export async function openRow(name, key, context) {
  const body = h("div", { class: "row-body" }, h("p", { class: "muted" }, "Loading…"));
  const dialog = openDialog(`Row ${key}`, (dialog) => dialog.append(body), { class: "row" });
  let row;
  try {
    row = await api.row(name, key);
  } catch (error) {
    fill(body, problem(error));
    return;
  }
  const vector = ([column, numbers]) => fact(column, vectorText(numbers));
  fill(body,
    hasPictures(context.collection, context.server) ? h("div", { class: "large" }, picture(name, row, context, "full")) : null,
    h("dl", { class: "facts mono" },
      fact("key", row.key),
      Object.entries(row.values).map(([column, value]) => fact(column, value === null ? h("span", { class: "muted" }, "unset") : shown(value))),
      Object.entries(row.vectors ?? {}).map(vector)),
    h("footer", { class: "actions" },
      h("a", { class: "button primary", href: address(name, "search", { like: row.key }), onclick: () => dialog.close() }, "More like this")));
}

function vectorText(numbers) {
  if (numbers === null) return h("span", { class: "muted" }, "none");
  if (Array.isArray(numbers[0])) return `${numbers.length} vectors of ${numbers[0].length}`;
  const begin = numbers.slice(0, NUMBERS_SHOWN).map(vectorNumber);
  return `${numbers.length} numbers: ${begin.join(", ")}${numbers.length > NUMBERS_SHOWN ? ", …" : ""}`;
}

/** Fractions are rounded; whole numbers are what was written, and each digit of them counts. */
function vectorNumber(number) {
  return typeof number === "number" && !Number.isSafeInteger(number) ? +number.toPrecision(4) : number;
}
