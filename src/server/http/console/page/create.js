// Dialogs that change things: a new collection, and dropping one.

import { api } from "./api.js";
import { fill, h, problem, say } from "./dom.js";
import { refresh } from "./live.js";
import { go } from "./place.js";

const TYPES = ["", "string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "float", "double"];
const ELEMENTS = ["FP32", "FP16", "INT8", "INT16", "INT4", "BINARY32", "BINARY64"];
const METRICS = ["Cosine", "SquaredEuclidean", "Euclidean", "InnerProduct", "Manhattan", "Hamming"];
/** What `voisin index` writes beside each vector. */
const OF_PICTURES = [
  ["image_path", "string"], ["thumbnail", "bytes"], ["width", "int64"], ["height", "int64"],
  ["file_bytes", "int64"], ["modified_ms", "int64"],
];

/** Shows a dialog; it is gone when it is closed, and focus goes back to where it was. */
export function openDialog(title, build, attributes = {}) {
  const before = document.activeElement;
  const heading = h("h2", { id: "dialog-title" }, title);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", ...attributes });
  const close = () => dialog.close();
  dialog.append(h("header", { class: "dialog-head" }, heading,
    h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: close }, "×")));
  build(dialog, close);
  dialog.addEventListener("close", () => {
    window.removeEventListener("hashchange", close);
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  // A press beside it is one on the dialog itself, as is one on its scrollbar or its edge: where it is tells.
  dialog.addEventListener("pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const isInside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
    if (event.target === dialog && !isInside) close();
  });
  // A step back leaves what the dialog is about.
  window.addEventListener("hashchange", close);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A named field. */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint ? h("small", { class: "muted" }, hint) : null);
}

const options = (values, words = (value) => value) => values.map((value) => h("option", { value }, words(value)));

export function openCreate(server) {
  openDialog("New collection", (dialog, close) => {
    const usable = server.models.filter((model) => !model.problem);
    const name = h("input", { name: "name", required: true, maxlength: "255", autocomplete: "off", spellcheck: "false", autofocus: true });
    const model = h("select", { name: "model" }, usable.map((one) => h("option", { value: one.name }, `${one.name} (${one.dimension} numbers, ${one.metric})`)));
    const vector = h("input", { name: "vector", value: "feature", required: true, autocomplete: "off" });
    const element = h("select", { name: "element" }, options(ELEMENTS));
    const dimension = h("input", { name: "dimension", type: "number", min: "1", step: "1", value: "512", required: true });
    const metric = h("select", { name: "metric" }, options(METRICS));
    const forwards = h("ul", { class: "columns" });
    const failed = h("div", {});
    const submit = h("button", { type: "submit", class: "primary" }, "Create");

    function column(of = "", type = "") {
      const item = h("li", {},
        h("input", { "aria-label": "Name of the column", value: of, required: true, autocomplete: "off", placeholder: "name" }),
        h("select", { "aria-label": "Type of its values" }, options(TYPES, (type) => type || "any type")),
        h("button", { type: "button", class: "icon", "aria-label": "Remove the column", onclick: () => item.remove() }, "×"));
      item.children[1].value = type;
      return item;
    }

    const kinds = ["pictures", "vectors"].map((kind) => h("input", {
      type: "radio", name: "kind", value: kind, checked: kind === (usable.length > 0 ? "pictures" : "vectors"),
      disabled: kind === "pictures" && usable.length === 0, onchange: () => choose(true),
    }));
    const ofPictures = h("div", { class: "fields" }, field("Model", model, "Dimension and metric follow from it."));
    const ofVectors = h("div", { class: "fields" }, field("Index column", vector), field("Element", element),
      field("Dimension", dimension), field("Metric", metric));
    const isPictures = () => kinds[0].checked;

    function choose(anew) {
      ofPictures.hidden = !isPictures();
      ofVectors.hidden = isPictures();
      for (const input of ofVectors.querySelectorAll("input, select")) input.disabled = isPictures();
      if (anew) fill(forwards, isPictures() ? OF_PICTURES.map((one) => column(...one)) : []);
    }

    async function create(event) {
      event.preventDefault();
      fill(failed);
      submit.disabled = true;
      const index = isPictures()
        ? { name: "embedding", element: "FP32", params: { model: model.value } }
        : { name: vector.value, element: element.value, dimension: Number(dimension.value), metric: metric.value };
      const declared = {
        vectors: [index],
        forwards: [...forwards.children].map(({ children: [input, type] }) => ({ name: input.value, type: type.value || null })),
      };
      try {
        await api.create(name.value, declared);
        close();
        say(`Collection ${name.value} is created.`);
        await refresh();
        go(name.value);
      } catch (error) {
        fill(failed, problem(error));
        submit.disabled = false;
      }
    }

    dialog.append(h("form", { class: "form", onsubmit: create },
      field("Name", name),
      h("fieldset", {}, h("legend", {}, "What it holds"),
        h("label", { class: "choice" }, kinds[0], h("span", {}, "Pictures, embedded by a model of this server"),
          usable.length === 0 ? h("small", { class: "muted" }, "This server has no model that runs.") : null),
        h("label", { class: "choice" }, kinds[1], h("span", {}, "Vectors that you bring"))),
      ofPictures, ofVectors,
      h("fieldset", {}, h("legend", {}, "Forward columns"), forwards,
        h("button", {
          type: "button", class: "small", onclick: () => {
            const item = column();
            forwards.append(item);
            item.firstChild.focus();
          },
        }, "Add a column")),
      failed,
      h("footer", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), submit)));
    choose(true);
  }, { class: "create" });
}

/** Asks for the name before anything is lost. */
export function openDrop(name, rows) {
  openDialog("Drop the collection?", (dialog, close) => {
    const typed = h("input", { name: "confirm", autocomplete: "off", spellcheck: "false", autofocus: true, oninput: () => { submit.disabled = typed.value !== name; } });
    const submit = h("button", { type: "submit", class: "danger", disabled: true }, "Drop it");
    const failed = h("div", {});

    async function drop(event) {
      event.preventDefault();
      if (typed.value !== name) return;
      submit.disabled = true;
      try {
        await api.drop(name);
        close();
        say(`Collection ${name} is dropped.`);
        go(null);
        await refresh();
      } catch (error) {
        fill(failed, problem(error));
        submit.disabled = false;
      }
    }

    dialog.append(h("form", { class: "form", onsubmit: drop },
      h("p", {}, h("strong", {}, name), ` and ${rows} are deleted, with all files. This cannot be undone.`),
      field("Type its name to confirm", typed),
      failed,
      h("footer", { class: "actions" }, h("button", { type: "button", onclick: close }, "Cancel"), submit)));
  });
}
