// The calls of /api/v1. Keys are text here: they have 64 bits, and numbers of JavaScript have 53.

const ROOT = "../api/v1";

/** A refusal, or that nobody answered (`status` 0). */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function call(method, path, { body, type, signal, headers } = {}) {
  const began = performance.now();
  let answer;
  let text;
  try {
    answer = await fetch(ROOT + path, {
      method,
      signal,
      cache: "no-store",
      credentials: "same-origin",
      headers: { ...(type ? { "content-type": type } : {}), ...headers },
      body,
    });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "UNREACHABLE", "The server does not answer. Is it running?");
  }
  const millis = performance.now() - began;
  let json = null;
  try {
    json = text === "" ? null : JSON.parse(text);
  } catch {
    throw new Refusal(answer.status, "UNREADABLE", `The answer is no JSON (HTTP ${answer.status}).`);
  }
  if (!answer.ok) {
    const error = json?.error ?? {};
    throw new Refusal(answer.status, error.code ?? "", error.message ?? `HTTP ${answer.status}`);
  }
  return { json, text, millis };
}

const at = (name) => `/collections/${encodeURIComponent(name)}`;

function send(method, path, value, signal) {
  const body = typeof value === "string" ? value : JSON.stringify(value);
  return call(method, path, { body, type: "application/json", signal });
}

export const api = {
  about: async () => (await fetch("about.json", { cache: "no-store" })).json(),
  models: async () => (await call("GET", "/models")).json.models,
  collections: async (signal) => (await call("GET", "/collections", { signal })).json,
  stats: async (name, signal) => (await call("GET", `${at(name)}/stats`, { signal })).json,
  create: (name, declared) => send("PUT", at(name), declared),
  drop: (name) => call("DELETE", at(name)),
  /** `asked` may be text, which is sent as it stands. */
  query: (name, asked, signal) => send("POST", `${at(name)}/query?keys=text`, asked, signal),
  scroll: async (name, asked, signal) => (await send("POST", `${at(name)}/scroll?keys=text`, asked, signal)).json,
  count: async (name, filter, signal) => (await send("POST", `${at(name)}/count`, { filter }, signal)).json.rows,
  row: async (name, key) => (await call("GET", `${at(name)}/rows/${key}?keys=text&vectors=*`)).json,
  searchByImage: (name, picture, asked, signal) => {
    const form = new FormData();
    form.append("request", new Blob([JSON.stringify(asked)], { type: "application/json" }));
    form.append("image", picture, picture.name ?? "picture");
    // No form of another site can send this header.
    return call("POST", `${at(name)}/search-by-image?keys=text`, { body: form, signal, headers: { "x-voisin": "1" } });
  },
};

/** Where the picture of a row is. */
export function pictureAt(name, key, size = "thumbnail") {
  return `../pictures/${encodeURIComponent(name)}/${key}${size === "full" ? "?size=full" : ""}`;
}
