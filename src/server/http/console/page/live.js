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
  /** The server's memory, as the last of these told it. */
  memory: null,
  /** Why there is no answer. */
  failure: null,
};

const listeners = new Set();
let wanted = () => ({ always: [], others: [] });
/** When each collection answered last: of those in sight that one round cannot ask, the longest waiting come next. */
const answered = new Map();
let answers = 0;
let timer = 0;
let round = null;

/** Calls back after every round; what is returned ends that. */
export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Says whose statistics are wanted: a function that gives the names `always` asked, and `others` that take turns. */
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
    for (const kept of [state.stats, answered]) {
      for (const name of kept.keys()) if (!known.has(name)) kept.delete(name);
    }
    if (state.stats.size === 0) state.memory = null;
    await Promise.all(nextAsked(known).map(async (name) => {
      try {
        const stats = await api.stats(name, own.signal);
        state.stats.set(name, stats);
        state.memory = stats.server_memory;
      } catch (error) {
        // It may be dropped meanwhile, or be altered; the next round tells.
        if (error.status === 0 || error.name === "AbortError") throw error;
      }
      answers += 1;
      answered.set(name, answers);
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

/** Whom this round asks. */
function nextAsked(known) {
  const { always, others } = wanted();
  const turn = (name) => answered.get(name) ?? 0;
  const inTurn = [...others].sort((one, other) => turn(one) - turn(other));
  return [...new Set([...always, ...inTurn])].filter((name) => known.has(name)).slice(0, STATS_MAX);
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
