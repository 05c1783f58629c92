// What the server holds now, asked for again and again while somebody looks.

import { api } from "./api.js";

const PAUSE_MS = 2000;
const PAUSE_INDEXING_MS = 1000;
/** Statistics asked for in one round, of the collections that are in sight. */
const STATS_MAX = 40;

/** The last answers. */
export const state = {
  collections: null,
  unserved: [],
  /** Statistics by name. */
  stats: new Map(),
  /** Why there is no answer. */
  failure: null,
};

const listeners = new Set();
let wanted = () => [];
let timer = 0;
let round = null;

/** Calls back after every round; what is returned ends that. */
export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Says whose statistics are wanted: a function that gives names. */
export function want(names) {
  wanted = names;
}

/** Asks at once; resolves when the answers are there. */
export async function refresh() {
  clearTimeout(timer);
  round?.abort();
  const own = new AbortController();
  round = own;
  try {
    const listed = await api.collections(own.signal);
    state.collections = listed.collections;
    state.unserved = listed.unserved;
    const known = new Set(listed.collections.map((one) => one.name));
    for (const name of state.stats.keys()) if (!known.has(name)) state.stats.delete(name);
    const names = [...new Set(wanted())].filter((name) => known.has(name)).slice(0, STATS_MAX);
    await Promise.all(names.map(async (name) => {
      try {
        state.stats.set(name, await api.stats(name, own.signal));
      } catch (error) {
        // It may be dropped meanwhile, or be altered; the next round tells.
        if (error.status === 0 || error.name === "AbortError") throw error;
      }
    }));
    state.failure = null;
  } catch (error) {
    if (own.signal.aborted) return;
    state.failure = error;
  }
  if (round !== own) return;
  for (const listener of listeners) listener();
  if (!document.hidden) timer = setTimeout(refresh, isIndexing() ? PAUSE_INDEXING_MS : PAUSE_MS);
}

function isIndexing() {
  return [...state.stats.values()].some((stats) => stats.indexing.rows_linking > 0);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) refresh();
});

export function found(name) {
  return state.collections?.find((one) => one.name === name || one.aliases.includes(name)) ?? null;
}
