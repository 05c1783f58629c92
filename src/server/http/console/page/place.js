// Where the reader is: the collection, the view and what is asked there, all of it in the address after `#`.

export const VIEWS = ["search", "browse", "query", "schema"];

/** `#/photos/search?like=5&k=24` as an object. */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, view] = path.split("/");
  let collection = null;
  try {
    collection = name ? decodeURIComponent(name) : null;
  } catch {
    // Not an address that this page made.
  }
  return {
    collection,
    view: VIEWS.includes(view) ? view : VIEWS[0],
    asked: new URLSearchParams(query ?? ""),
  };
}

/** The address of a place; what is asked is left out where it is empty. */
export function address(collection, view = VIEWS[0], asked = {}) {
  if (collection === null) return "#/";
  const set = Object.entries(asked).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
  return `#/${encodeURIComponent(collection)}/${view}${query ? `?${query}` : ""}`;
}

export function go(collection, view, asked) {
  location.hash = address(collection, view, asked);
}

/**
 * Notes what is asked here, without a step back for every move of a slider and without showing the place anew.
 * `beside` is kept with the address over reloads and steps back, but is no part of it.
 */
export function note(asked, beside = null) {
  const { collection, view } = place();
  history.replaceState(beside, "", address(collection, view, asked));
}
