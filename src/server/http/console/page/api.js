// The calls of /api/v1. Keys are text here: they have 64 bits, and numbers of JavaScript have 53. Words of vectors
// of 64 bits come as numbers, and are read as BigInt.

const ROOT = "../api/v1";

/** A refusal, or that nobody answered (`status` 0). */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function call(method, path, { body, type, signal, headers, read = JSON.parse } = {}) {
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
    json = text === "" ? null : read(text);
  } catch {
    throw new Refusal(answer.status, "UNREADABLE", `The answer is no JSON (HTTP ${answer.status}).`);
  }
  if (!answer.ok) throw refusal(answer.status, json);
  return { json, text, millis };
}

/** Reads JSON whose whole numbers may be too large for a number of JavaScript: those are BigInt then. */
function readExact(text) {
  // A look at every value is slow, so only where there may be one that needs it.
  if (!/[[:,\s]-?[0-9]{16,}[\],}\s]/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value, written) => {
    const isLarge = typeof value === "number" && !Number.isSafeInteger(value);
    // Older browsers do not tell what was written.
    return isLarge && /^-?[0-9]+$/.test(written?.source ?? "") ? BigInt(written.source) : value;
  });
}

/** The first lines of an answer that may be long: it is read no further, and the server stops. */
async function firstLines(path, asked, most, signal) {
  const own = new AbortController();
  const stop = () => own.abort();
  signal?.addEventListener("abort", stop);
  try {
    const answer = await fetch(ROOT + path, {
      method: "POST", signal: own.signal, cache: "no-store", headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
    });
    if (!answer.ok) throw refusal(answer.status, await answer.json());
    const lines = [];
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "", ended = false; !ended && lines.length < most;) {
      const { value, done } = await reader.read();
      ended = done;
      const pieces = (rest + (value ?? "")).split("\n");
      rest = pieces.pop();
      for (const piece of pieces.slice(0, most - lines.length)) {
        const line = JSON.parse(piece);
        if (line.error) throw refusal(answer.status, line);
        lines.push(line);
      }
    }
    return lines;
  } catch (error) {
    if (error instanceof Refusal || signal?.aborted) throw error;
    throw new Refusal(0, "UNREACHABLE", "The server does not answer. Is it running?");
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
}

function refusal(status, json) {
  return new Refusal(status, json?.error?.code ?? "", json?.error?.message ?? `HTTP ${status}`);
}

const at = (name) => `/collections/${encodeURIComponent(name)}`;

function send(method, path, value, signal, read) {
  const body = typeof value === "string" ? value : JSON.stringify(value);
  return call(method, path, { body, type: "application/json", signal, read });
}

export const api = {
  about: async () => (await fetch("about.json", { cache: "no-store" })).json(),
  models: async () => (await call("GET", "/models")).json.models,
  collections: async (signal) => (await call("GET", "/collections", { signal })).json,
  stats: async (name, signal) => (await call("GET", `${at(name)}/stats`, { signal })).json,
  create: (name, declared) => send("PUT", at(name), declared),
  drop: (name) => call("DELETE", at(name)),
  /** `asked` may be text, which is sent as it stands. */
  query: (name, asked, signal) => send("POST", `${at(name)}/query?keys=text`, asked, signal, readExact),
  /** The first rows in key order, of those behind the key `after`. Nothing stays open on the server, as a scroll would. */
  rows: (name, asked, most, signal) => firstLines(`${at(name)}/read?keys=text`, asked, most, signal),
  count: async (name, filter, signal) => (await send("POST", `${at(name)}/count`, { filter }, signal)).json.rows,
  row: async (name, key) => (await call("GET", `${at(name)}/rows/${key}?keys=text&vectors=*`, { read: readExact })).json,
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
