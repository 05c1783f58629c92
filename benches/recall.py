#!/usr/bin/env python3
"""Does a search find the nearest? Every kind of data, metric, index, query, k and filter against exact search.

    pip install -r tests/requirements.txt -r benches/requirements.txt
    python benches/recall.py [--kinds clusters,zeros] [--target 0.95,0.99] [--short] [--out bench-results/recall.json]

A cell is one of these combinations: some queries, answered by a server of its own with all defaults (and, for each
target but 0.95, with that `recall_target`), and compared with scores of all rows in 64 bits. Equal scores count as
found. Beside stand hnswlib and faiss with 16 links and 100 candidates, and what faiss makes of the same inverted lists.
Prints a summary, and saves all cells as JSON, a table (Markdown) and a picture (PNG) beside it.

A cell below its target is *said* where the reply's `expected_recall` is below it too (or, of servers that have no such
field, where a warning about the column was logged), else *silent*; it is *lost* where hnswlib or faiss reaches what
Voisin does not. Exits with 1 unless none is silent, none is lost, and at most one cell of 100 is below and said.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import kinds  # noqa: E402
from kinds import COSINE, HAMMING, IP, L1, L2, L2_ROOT  # noqa: E402
from recall_report import DEFAULT_TARGET, FILTERS, is_met, save, summary_lines  # noqa: E402

KS, KS_LONG = (1, 10, 100), (1, 3, 10, 30, 100)
SHARES = (0.01, 0.1, 0.5, 0.9)
#: Filters that are about a place are asked for from there.
LOCAL = ("near", "far")
FILTERED_QUERIES = ("rows", "midpoints", "noise")
#: What an index kind other than a plain graph is tried with.
OTHER_QUERIES = ("rows", "midpoints", "noise", "examples")
OTHER_FILTERS = (("random", 0.1), ("far", 0.5))
EXAMPLES_MAX = 30
#: Rows near a place, as a share of all.
PLACE = 0.02
M, EF_CONSTRUCTION, EF = 16, 200, 100
INDEXES = {
    "HNSW": {},
    "HNSW_SQ8": {"index_type": "HNSW_SQ8"},
    "IVF_FLAT": {"index_type": "IVF_FLAT"},
    "IVF_SQ8": {"index_type": "IVF_SQ8"},
    "IVF_PQ": {"index_type": "IVF_PQ"},
    "FACTORY": {"index_factory": "IVF64,PQ16x4fs"},
}
#: What the short form makes: few rows, and graphs for them.
SHORT_KINDS = ("clusters", "lengths_lognormal", "near_duplicates_1", "zeros", "bits")
SHORT_ROWS, ROWS = 5_000, 12_000
SHORT_SETTINGS = {"segment.graph_rows_min": 2_000}
SETTLE_SECONDS_MAX, CALM_SECONDS, STUCK_SECONDS = 600.0, 1.0, 45.0
#: Scores are floats of 32 bits: those nearer to each other are equal. A cosine distance is one minus such a float.
EPS, EPS_COSINE = 1e-5, 2.4e-7


# ----- truth -----


def scores(metric, queries, rows):
    """The exact scores of all rows for each query, in 64 bits; smaller is nearer."""
    q, x = queries.astype(np.float64), rows.astype(np.float64)
    if metric == L1:
        out = np.empty((len(q), len(x)))
        for place, one in enumerate(q):
            np.abs(x - one).sum(1, out=out[place])
        return out
    if metric == IP:
        return -(q @ x.T)
    if metric == COSINE:
        q, x = (v / np.where((n := np.linalg.norm(v, axis=1, keepdims=True)) > 0, n, np.inf) for v in (q, x))
        return 1 - q @ x.T
    # Hamming counts the bits that differ, which are squares too.
    middle = x.mean(0)
    q, x = q - middle, x - middle
    out = (q * q).sum(1)[:, None] + (x * x).sum(1) - 2 * (q @ x.T)
    np.maximum(out, 0, out=out)
    return np.sqrt(out) if metric == L2_ROOT else out


class Truth:
    """The exact scores of some queries, and how far the k nearest reach."""

    def __init__(self, metric, queries, rows):
        self.scores = scores(metric, queries.vectors, rows)
        if queries.examples:
            for place, (positives, negatives) in enumerate(queries.examples):
                self.scores[place, positives] = self.scores[place, negatives] = np.inf
        finite = np.where(np.isfinite(self.scores), np.abs(self.scores), 0)
        self.floor = 1e-12 * finite.mean(1) + (EPS_COSINE if metric == COSINE else 0)
        self.edges = {}

    def best(self, among, k_max):
        """For each query the scores of the nearest rows among these, nearest first."""
        among_name, mask = among
        if among_name not in self.edges:
            reachable = self.scores if mask is None else self.scores[:, mask]
            k_max = min(k_max, reachable.shape[1])
            self.edges[among_name] = np.sort(np.partition(reachable, k_max - 1, axis=1)[:, :k_max], axis=1)
        return self.edges[among_name]

    def recalls(self, found, k, among, k_max):
        """For each query the share of the k nearest that was found; `found` has places of rows."""
        best, mask, shares = self.best(among, k_max), among[1], []
        for place, ids in enumerate(found):
            want = min(k, int(np.isfinite(best[place]).sum()))
            if not want:
                shares.append(1.0)
                continue
            edge = best[place, want - 1]
            ids = np.unique(np.asarray(ids)[:k])
            ids = ids if mask is None else ids[mask[ids]]
            near = self.scores[place, ids] <= edge + EPS * abs(edge) + self.floor[place]
            shares.append(min(want, int(near.sum())) / want)
        return np.array(shares)


# ----- peers -----


def load_peers(wanted):
    """The engines beside, by name: those that are installed."""
    found = {}
    for name, make in (("hnswlib", Hnswlib), ("faiss", Faiss)):
        if name in wanted:
            try:
                __import__(name)
                found[name] = make
            except ImportError:
                print(f"{name} is not installed: nothing beside from it", file=sys.stderr)
    return found


def unit(vectors):
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


class Hnswlib:
    def __init__(self, metric, rows):
        import hnswlib

        space = {L2: "l2", L2_ROOT: "l2", IP: "ip", COSINE: "cosine"}.get(metric)
        self.index = None
        if space:
            self.index = hnswlib.Index(space=space, dim=rows.shape[1])
            self.index.init_index(len(rows), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
            self.index.add_items(rows.astype(np.float32), num_threads=1)

    def nearest(self, queries, k, mask=None):
        """Places of rows for each query, or None where it cannot be asked."""
        if self.index is None or mask is not None:
            # Its filters are a call into Python for each candidate.
            return None
        self.index.set_ef(max(EF, k))
        try:
            return self.index.knn_query(queries.astype(np.float32), k=k, num_threads=1)[0].astype(np.int64)
        except RuntimeError:
            # It found fewer than k.
            return np.zeros((len(queries), 0), np.int64)


class Faiss:
    def __init__(self, metric, rows):
        import faiss

        self.faiss, self.metric = faiss, metric
        faiss.omp_set_num_threads(1)
        if metric == HAMMING:
            self.index = faiss.IndexBinaryHNSW(rows.shape[1], M)
        else:
            kind = {IP: faiss.METRIC_INNER_PRODUCT, COSINE: faiss.METRIC_INNER_PRODUCT, L1: faiss.METRIC_L1}
            self.index = faiss.IndexHNSWFlat(rows.shape[1], M, kind.get(metric, faiss.METRIC_L2))
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(self._form(rows))

    def _form(self, vectors):
        if self.metric == HAMMING:
            return np.packbits(vectors, axis=1)
        return unit(vectors) if self.metric == COSINE else np.ascontiguousarray(vectors, np.float32)

    def nearest(self, queries, k, mask=None):
        if self.metric == HAMMING:
            if mask is not None:
                return None
            self.index.hnsw.efSearch = max(EF, k)
            return existing(self.index.search(self._form(queries), k)[1])
        params = self.faiss.SearchParametersHNSW(efSearch=max(EF, k))
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            params.sel = chosen = self.faiss.IDSelectorBitmap(bits)  # noqa: F841 (held while it is used)
        return existing(self.index.search(self._form(queries), k, params=params)[1])


class FaissLists(Faiss):
    """What faiss makes of inverted lists like the server's, as many looked into as it does by itself: one."""

    def __init__(self, metric, rows, description):
        import faiss

        self.faiss, self.metric = faiss, metric
        faiss.omp_set_num_threads(1)
        inner = metric in (IP, COSINE)
        self.index = faiss.index_factory(
            rows.shape[1], description, faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2)
        self.index.train(self._form(rows))
        self.index.add(self._form(rows))

    def nearest(self, queries, k, mask=None):
        return None if mask is not None else existing(self.index.search(self._form(queries), k)[1])


def existing(ids):
    """Without the -1 of searches that ended short."""
    return ids if (ids >= 0).all() else [one[one >= 0] for one in ids]


def lists_description(name, count, dimension):
    """The server's own index of so many rows in faiss's words."""
    lists = 2 ** round(np.log2(4 * count ** 0.5))
    while lists * 39 > count:
        lists //= 2
    parts = next(m for m in range(1, dimension + 1) if dimension % m == 0 and dimension // m <= 4)
    return {"IVF_FLAT": f"IVF{lists},Flat", "IVF_SQ8": f"IVF{lists},SQ8", "IVF_PQ": f"IVF{lists},PQ{parts}x8np",
            "FACTORY": INDEXES["FACTORY"]["index_factory"]}.get(name)


# ----- the server -----


class Collection:
    """A collection of one kind of data, by one metric, with one kind of index."""

    def __init__(self, calls, data, metric, index, ranks):
        self.calls, self.data, self.metric, self.index, self.ranks = calls, data, metric, index, ranks
        # Warnings name the column.
        self.name = self.column = f"{data.name}_{metric}_{index}".lower()
        bits = data.element == kinds.BITS
        self.dimension = data.rows.shape[1]
        enum = "METRIC_" + re.sub(r"(?<!^)(?=[A-Z])", "_", metric).upper()
        calls.CreateCollection(
            name=self.name, forwards=[{"name": name} for name in ranks],
            vectors=[{"name": self.column, "element": f"ELEMENT_TYPE_{data.element}", "dimension": self.dimension,
                      "metric": enum, "params": {} if bits else INDEXES[index]}])

    def _vectors(self, vectors):
        return {"name": self.column, "element": f"ELEMENT_TYPE_{self.data.element}", "dimension": self.dimension,
                "vectors": kinds.encoded(vectors, self.data.element)}

    def write(self, keys, vectors):
        """Upserts rows, or deletes them where there are no vectors."""
        if vectors is None:
            self._sent(keys=keys.tolist(), operation="OPERATION_DELETE")
            return
        for start in range(0, len(keys), 4_000):
            some = keys[start:start + 4_000]
            forwards = [{"name": name, "values": [{"int64_value": rank} for rank in ranks[some].tolist()]}
                        for name, ranks in self.ranks.items()]
            self._sent(keys=some.tolist(), operation="OPERATION_UPSERT", forwards=forwards,
                       vectors=[self._vectors(vectors[start:start + 4_000])])

    def _sent(self, **fields):
        ack = self.calls.Write(collection=self.name, **fields)
        if ack.HasField("status") or ack.failures:
            raise SystemExit(f"{self.name}: write: {ack.status} {list(ack.failures[:1])}")

    def state(self):
        """What changes while the server works on it, whether rows wait, and whether it says that it is done."""
        stats = self.calls.Stats(collection=self.name)
        indexing = stats.indexing
        # Settled rows may wait for more to come: nothing is about to be done with them.
        has_settled = "settled" in indexing.DESCRIPTOR.fields_by_name
        waits = not indexing.settled if has_settled else bool(indexing.rows_waiting or indexing.rows_linking)
        return (stats.segments, stats.file_bytes, indexing.rows_waiting, indexing.rows_linked), waits

    def ask(self, queries, k, expression, target):
        """Places of rows found for each query, and what the replies claim."""
        params = {} if target == DEFAULT_TARGET else {"recall_target": target}
        fields = {"collection": self.name, "topk": k, "filter": expression, "forwards": {}, "params": params}
        keys = self.data.keys
        if queries.examples:
            replies = [self.calls.Query(
                vectors={"name": self.column}, positives=keys[positives].tolist(), negatives=keys[negatives].tolist(),
                **fields) for positives, negatives in queries.examples]
        else:
            replies = [self.calls.Query(vectors=self._vectors(queries.vectors), **fields)]
        found = [np.array(hits.keys, np.uint64) for reply in replies for hits in reply.results]
        places = [np.searchsorted(keys, one) for one in found]
        for one, place in zip(found, places):
            if not np.array_equal(keys[np.minimum(place, len(keys) - 1)], one):
                raise SystemExit(f"{self.name}: a row is found that is not there")
        return places, claims(replies)


def live(collections_, arguments):
    """Asks what nobody measures: other draws of queries unlike the rows, ten at a time."""
    for one in collections_:
        for turn in range(-(-arguments.live // 10)):
            query = ("midpoints", "noise", "far", "moved")[turn % 4]
            random = np.random.default_rng((arguments.seed, turn, 1_000))
            one.ask(kinds.asked(one.data, query, 10, random), (1, 10, 100)[turn % 3], "", DEFAULT_TARGET)
    threading.Event().wait(arguments.live_seconds)


def claims(replies):
    """What the replies say of themselves; of several what claims least."""
    made = {"exact": all(reply.exact for reply in replies)}
    fields = replies[0].DESCRIPTOR.fields_by_name
    if "expected_recall" in fields:
        made["expected"] = round(min(reply.expected_recall for reply in replies), 5)
    if "recall_source" in fields:
        kind, source = fields["recall_source"].enum_type, replies[0].recall_source
        made["source"] = kind.values_by_number[source].name if kind else source
    return made


def settle(collections_, server):
    """Waits until the server has nothing left to do for these. Returns what is left over, as text."""
    began = changed = time.monotonic()
    pause, before = threading.Event(), None
    while True:
        states = [one.state() for one in collections_]
        now = time.monotonic()
        if [state for state, _ in states] != before:
            before, changed = [state for state, _ in states], now
        waiting = [one.name for one, (_, waits) in zip(collections_, states) if waits]
        if now - changed >= (STUCK_SECONDS if waiting else CALM_SECONDS) or now - began > SETTLE_SECONDS_MAX:
            return f"not settled after {now - began:.0f} s: {', '.join(waiting)}" if waiting else ""
        if not server.is_running:
            raise ConnectionError("the server ended")
        pause.wait(0.2)


def warned(server, column):
    """Whether the server has warned of this column's recall."""
    return any('"WARN"' in line and f'"{column}"' in line and "recall" in line for line in list(server._log))


# ----- cells -----


def plan(index, arguments):
    """(kind of query, filter, share) of all cells of a collection but for their k."""
    cells = [(query, "none", 1.0) for query in kinds.QUERIES] if index == "HNSW" else \
        [(query, "none", 1.0) for query in OTHER_QUERIES]
    if index == "HNSW":
        shares = (0.1, 0.5) if arguments.short else SHARES
        cells += [(query, kind, share) for kind in FILTERS for share in shares
                  for query in (FILTERED_QUERIES[:2] if arguments.short else FILTERED_QUERIES)]
    else:
        cells += [(query, kind, share) for kind, share in OTHER_FILTERS for query in ("rows", "midpoints")]
    return [cell for cell in cells if (not arguments.asked or cell[0] in arguments.asked)
            and (not arguments.filters or cell[1] in arguments.filters)]


def pairs(data, arguments):
    """The metrics and index kinds that this data is tried with."""
    metrics = [metric for metric in data.metrics if not arguments.metrics or metric in arguments.metrics]
    if arguments.short:
        metrics = metrics[:2]
    # Other kinds than plain graphs are of numbers and have no Manhattan metric; one metric will do for them.
    trainable = next((metric for metric in metrics if metric not in (L1, HAMMING)), None)
    found = []
    for metric in metrics:
        for index in arguments.indexes:
            has_bytes = index == "HNSW_SQ8" and data.element in ("INT4", "INT8")
            if index == "HNSW" or metric == trainable and not has_bytes:
                found.append((metric, index))
    return found


class MetricView:
    """What all collections of one metric share: ranks to filter by, queries and their truth, peers."""

    def __init__(self, data, metric, arguments, peers):
        self.data, self.metric, self.arguments = data, metric, arguments
        self.random = np.random.default_rng((arguments.seed, len(data.rows), len(metric)))
        count = len(data.rows)
        anchor = data.rows[self.random.integers(count)][None]
        by_anchor = np.argsort(scores(metric, anchor, data.rows)[0], kind="stable")
        middle = data.rows.astype(np.float64).mean(0)
        by_middle = np.argsort(np.linalg.norm(data.rows - middle, axis=1), kind="stable")
        self.orders = {"random": rank_of(self.random.permutation(count)), "near": rank_of(by_anchor),
                       "outer": rank_of(by_middle)}
        self.place = by_anchor[:max(200, int(count * PLACE))]
        self.sets, self.peers, self.peer_makers, self.found = {}, {}, peers, {}

    def ranks(self):
        """Of each key; 0 where it is not there in the end."""
        made = {}
        for name, order in self.orders.items():
            made[name] = np.zeros(int(max(keys.max() for keys, _ in self.data.steps)) + 1, np.int64)
            made[name][self.data.keys.astype(np.int64)] = order
        return made

    def filter(self, kind, share):
        """The filter's expression, and which rows it lets through under which name."""
        if kind == "none":
            return "", ("", None)
        count = len(self.data.rows)
        bound = max(1, round(share * count))
        if kind in ("random", "near"):
            return f"{kind} < {bound}", (f"{kind} {share}", self.orders[kind] < bound)
        column = "near" if kind == "far" else "outer"
        return f"{column} >= {count - bound}", (f"{kind} {share}", self.orders[column] >= count - bound)

    def queries(self, query, kind):
        """The queries of a cell and their truth, or None where this data has none such."""
        local, filtered = kind in LOCAL and query != "noise", kind != "none"
        name = (query, local, filtered)
        if name not in self.sets:
            count = self.arguments.filter_queries if filtered else self.arguments.queries
            count = min(count, EXAMPLES_MAX) if query == "examples" else count
            # Each set has its own draw, so that leaving one out changes no other.
            random = np.random.default_rng((self.arguments.seed, kinds.QUERIES.index(query), local, filtered))
            made = kinds.asked(self.data, query, count, random, self.place if local else None)
            self.sets[name] = made and (made, Truth(self.metric, made, self.data.rows))
        return name, self.sets[name]

    def beside(self, name, made, among, k_max, ks, engines):
        """Mean recall of each peer at each k."""
        queries, truth = made
        recalls = {}
        for engine, peer in engines.items():
            at = (engine, name, among[0])
            if at not in self.found:
                extra = 3 if queries.examples else 0
                reachable = len(self.data.rows) if among[1] is None else int(among[1].sum())
                found = peer.nearest(queries.vectors, min(k_max + extra, reachable), among[1])
                if found is not None and queries.examples:
                    found = [one[np.isfinite(truth.scores[place, one])] for place, one in enumerate(found)]
                self.found[at] = None if found is None else [
                    float(truth.recalls(found, k, among, k_max).mean()) for k in ks]
            if self.found[at] is not None:
                recalls[engine] = self.found[at]
        return recalls


def rank_of(order):
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def measure_collection(one, view, server, engines, arguments):
    """The cells of one collection."""
    ks, cells = arguments.ks, []
    for query, kind, share in plan(one.index, arguments):
        name, made = view.queries(query, kind)
        if made is None:
            continue
        queries, truth = made
        expression, among = view.filter(kind, share)
        beside = view.beside(name, made, among, max(ks), ks, engines)
        for target in arguments.target:
            for place, k in enumerate(ks):
                found, claim = one.ask(queries, k, expression, target)
                shares = truth.recalls(found, k, among, max(ks))
                cells.append({
                    "data": one.data.name, "metric": one.metric, "index": one.index, "query": query, "filter": kind,
                    "share": share, "k": k, "target": target, "recall": round(float(shares.mean()), 5),
                    "worst": round(float(shares.min()), 4), "queries": len(shares),
                    "error": round(float(shares.std() / len(shares) ** 0.5), 4), **claim,
                    **{engine: round(recalls[place], 4) for engine, recalls in beside.items()}})
    has_claims = bool(cells) and "expected" in cells[0]
    warning = warned(server, one.column)
    for cell in cells:
        cell["warned"] = warning
        expected = cell.get("expected", 0)
        cell["said"] = 0 < expected < cell["target"] - 1e-6 if has_claims else warning
    return cells


def measure_kind(name, arguments, peers, progress):
    """All cells of one kind of data, from a server of its own."""
    from server import Server
    from voisin_v1 import VoisinV1

    data = kinds.KINDS[name].data(name, arguments.rows, arguments.seed)
    settings = SHORT_SETTINGS if arguments.rows < 10_000 else {}
    with tempfile.TemporaryDirectory(prefix="voisin-recall-") as folder:
        server = Server(pathlib.Path(folder) / "data", settings, log_lines_kept=100_000)
        server.start(f"127.0.0.1:{arguments.port}", f"127.0.0.1:{arguments.port and arguments.port + 1}")
        try:
            calls = VoisinV1(server.channel())
            views, collections_ = {}, []
            for metric, index in pairs(data, arguments):
                if metric not in views:
                    views[metric] = MetricView(data, metric, arguments, peers)
                collections_.append(Collection(calls, data, metric, index, views[metric].ranks()))
            notes = []
            for keys, vectors in data.steps:
                for one in collections_:
                    progress.say(f"{name}: writing {one.metric} {one.index}")
                    one.write(keys, vectors)
                progress.say(f"{name}: indexing")
                if note := settle(collections_, server):
                    notes.append(note)
            if arguments.live:
                progress.say(f"{name}: {arguments.live} queries for each")
                live(collections_, arguments)
            cells, graphs = [], {}
            for one in collections_:
                progress.say(f"{name}: {one.metric} {one.index}")
                view = views[one.metric]
                if one.metric not in graphs:
                    graphs = {one.metric: {peer: make(one.metric, data.rows) for peer, make in peers.items()}}
                engines = dict(graphs[one.metric])
                description = lists_description(one.index, len(data.rows), one.dimension)
                if "faiss" in engines and description:
                    engines["faiss_lists"] = FaissLists(one.metric, data.rows, description)
                cells += measure_collection(one, view, server, engines, arguments)
                view.found = {at: found for at, found in view.found.items() if at[0] != "faiss_lists"}
                progress.step()
            return cells, notes
        except Exception as error:
            if server.is_running:
                raise
            print(server.tail(20), file=sys.stderr)
            raise SystemExit(f"{name}: the server ended: {error}") from error
        finally:
            server.stop()


# ----- progress -----


class Progress:
    """A bar on stderr, or a line for each step where that is no terminal."""

    def __init__(self, total):
        self.total, self.done, self.began, self.text = max(1, total), 0, time.monotonic(), ""

    def say(self, text):
        self.text = text
        if sys.stderr.isatty():
            self._draw()

    def step(self):
        self.done += 1
        self._draw()

    def _draw(self):
        filled = 30 * self.done // self.total
        spent = time.monotonic() - self.began
        left = spent / self.done * (self.total - self.done) if self.done else 0
        line = f"[{'#' * filled}{'.' * (30 - filled)}] {self.done}/{self.total}, {spent / 60:.0f} min, " \
               f"{left / 60:.0f} left  {self.text}"
        print(f"\r\033[K{line[:150]}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n",
              file=sys.stderr, flush=True)

    def end(self):
        if sys.stderr.isatty():
            print(file=sys.stderr)


# ----- a run -----


def versions(binary):
    found = {}
    for name in ("hnswlib", "faiss-cpu", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    found["voisin"] = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return found


def names(known):
    def read(text):
        chosen = [name for name in text.split(",") if name]
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return chosen
    return read


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, help="the server (default: VOISIN_BIN, or target/release/voisin)")
    parser.add_argument("--kinds", type=names(kinds.KINDS), metavar="LIST", help="default: all")
    parser.add_argument("--indexes", type=names(INDEXES), metavar="LIST", help="default: all")
    parser.add_argument("--metrics", type=names((L2, L2_ROOT, IP, COSINE, L1, HAMMING)), default=[], metavar="LIST")
    parser.add_argument("--asked", type=names(kinds.QUERIES), default=[], metavar="LIST",
                        help="kinds of query (default: all)")
    parser.add_argument("--filters", type=names(("none", *FILTERS)), default=[], metavar="LIST",
                        help="none among them (default: all)")
    parser.add_argument("--live", type=int, default=0, metavar="QUERIES",
                        help="unlike the rows, to ask before anything is measured: what the server learns from")
    parser.add_argument("--live-seconds", type=float, default=20.0, help="rest after these")
    parser.add_argument("--peers", type=names(("hnswlib", "faiss")), default=["hnswlib", "faiss"], metavar="LIST")
    parser.add_argument("--target", default=str(DEFAULT_TARGET), metavar="LIST", 
                        help="0.95 is what holds where nothing is asked for; 1 scans, which tries the truth here")
    parser.add_argument("--rows", type=int, help=f"of each kind (default: {ROWS:,}, short {SHORT_ROWS:,})")
    parser.add_argument("--queries", type=int, default=100, help="of each cell without a filter")
    parser.add_argument("--filter-queries", type=int, default=30, help="of each cell with a filter")
    parser.add_argument("--long", action="store_true", help="k of 3 and 30 too")
    parser.add_argument("--short", action="store_true", help="less of everything, for a test")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="of the server, and the next one (default: any)")
    parser.add_argument("--before", type=pathlib.Path, help="cells of an earlier run, for the table")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench-results" / "recall.json")
    arguments = parser.parse_args()
    if arguments.queries > kinds.HELD_BACK:
        parser.error(f"--queries is {arguments.queries}; there are {kinds.HELD_BACK} of some kinds")
    arguments.target = [float(target) for target in arguments.target.split(",")]
    arguments.rows = arguments.rows or (SHORT_ROWS if arguments.short else ROWS)
    arguments.kinds = arguments.kinds or list(SHORT_KINDS if arguments.short else kinds.KINDS)
    arguments.indexes = arguments.indexes or (["HNSW", "IVF_SQ8"] if arguments.short else list(INDEXES))
    arguments.ks = KS_LONG if arguments.long else KS
    if arguments.bin:
        os.environ["VOISIN_BIN"] = str(arguments.bin)
    binary = os.environ.setdefault("VOISIN_BIN", str(ROOT / "target" / "release" / "voisin"))

    # So that the server ends with this program.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = " ".join(["benches/recall.py", *sys.argv[1:]])
    report = {"command": words, "rows": arguments.rows, "seed": arguments.seed, "targets": arguments.target,
              "versions": versions(binary), "notes": [], "seconds": {}, "cells": []}
    if arguments.before:
        report["before"] = json.loads(arguments.before.read_text())
    peers = load_peers(arguments.peers)
    progress = Progress(sum(len(pairs(kinds.KINDS[name], arguments)) for name in arguments.kinds))
    for name in arguments.kinds:
        began = time.monotonic()
        try:
            cells, notes = measure_kind(name, arguments, peers, progress)
        except kinds.Missing as why:
            report["notes"].append(f"{name} is left out: {why}")
            continue
        report["cells"] += cells
        report["notes"] += [f"{name}: {note}" for note in notes]
        report["seconds"][name] = round(time.monotonic() - began, 1)
        save(report, arguments.out)
    progress.end()
    for line in summary_lines(report):
        print(line)
    print(f"saved {arguments.out}, {arguments.out.with_suffix('.md')} and {arguments.out.with_suffix('.png')}")
    return 0 if is_met(report) else 1


if __name__ == "__main__":
    sys.exit(main())
