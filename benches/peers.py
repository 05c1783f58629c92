#!/usr/bin/env python3
"""Voisin beside hnswlib, faiss, usearch and zvec: same vectors, same run, taken in turns.

    pip install -r benches/requirements.txt
    python benches/peers.py [--rows 1000000] [--recall 0.95] [--peers hnswlib,faiss]

`voisin bench` makes the vectors and measures itself, over gRPC and in process; the peers run in this
process. Each engine takes the smallest ef_search that reaches the recall asked for. Prints one table with
ratios to hnswlib and saves it as JSON. Absolute figures of a shared machine are noise; ratios of one run are not.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

LADDER = [10, 16, 20, 24, 28, 30, 32, 34, 36, 40, 44, 48, 56, 64, 72, 80, 96, 112, 128, 200, 400]
M, EF_CONSTRUCTION = 16, 200


def read_fvecs(path):
    raw = np.fromfile(path, np.int32)
    return raw.reshape(-1, raw[0] + 1)[:, 1:].view(np.float32).copy()


def exact(rows, queries, k):
    """The k nearest by squared Euclidean distance."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    return index.search(queries, k)[1]


def recall(found, truth):
    return sum(len(set(f) & set(t)) for f, t in zip(found, truth)) / truth.size


class Hnswlib:
    name = "hnswlib"

    def __init__(self, rows, threads):
        import hnswlib

        self.index = hnswlib.Index(space="l2", dim=rows.shape[1])
        self.index.init_index(len(rows), M=M, ef_construction=EF_CONSTRUCTION)
        self.index.add_items(rows, num_threads=threads)

    def at(self, ef):
        self.index.set_ef(ef)

    def batch(self, queries, k, threads):
        return self.index.knn_query(queries, k=k, num_threads=threads)[0]


class Faiss:
    name = "faiss HNSW"

    def __init__(self, rows, threads):
        import faiss

        self.faiss = faiss
        faiss.omp_set_num_threads(threads)
        self.index = faiss.IndexHNSWFlat(rows.shape[1], M)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(rows)

    def at(self, ef):
        self.index.hnsw.efSearch = ef

    def batch(self, queries, k, threads):
        self.faiss.omp_set_num_threads(threads)
        return self.index.search(queries, k)[1]


class Usearch:
    name = "usearch i8"

    def __init__(self, rows, threads):
        from usearch.index import Index

        # Its 8-bit type wants components within -1 and 1.
        self.scale = 1.0 / np.abs(rows).max()
        self.index = Index(ndim=rows.shape[1], metric="l2sq", dtype="i8", connectivity=M,
                           expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(rows)), rows * self.scale, threads=threads)

    def at(self, ef):
        self.index.expansion_search = ef

    def batch(self, queries, k, threads):
        return self.index.search(queries * self.scale, k, threads=threads).keys


class Zvec:
    name = "zvec int8"

    def __init__(self, rows, threads):
        import zvec

        self.zvec = zvec
        zvec.init(query_threads=threads, optimize_threads=threads)
        self.folder = tempfile.TemporaryDirectory(prefix="zvec-")
        schema = zvec.CollectionSchema(name="bench", vectors=zvec.VectorSchema(
            "v", zvec.DataType.VECTOR_FP32, rows.shape[1],
            zvec.HnswIndexParam(metric_type=zvec.MetricType.L2, m=M, ef_construction=EF_CONSTRUCTION,
                                quantize_type=zvec.QuantizeType.INT8)))
        self.index = zvec.create_and_open(path=self.folder.name + "/data", schema=schema)
        for start in range(0, len(rows), 1_000):
            self.index.insert([zvec.Doc(id=str(start + i), vectors={"v": row})
                               for i, row in enumerate(rows[start:start + 1_000])])
        self.index.optimize()

    def at(self, ef):
        self.ef = ef

    def _one(self, query, k):
        found = self.index.query(self.zvec.VectorQuery("v", vector=query,
                                 param=self.zvec.HnswQueryParam(ef=self.ef)), topk=k)
        return [int(document.id) for document in found]

    def batch(self, queries, k, threads):
        if threads == 1:
            return [self._one(query, k) for query in queries]
        found = [None] * len(queries)

        def work(first):
            for i in range(first, len(queries), threads):
                found[i] = self._one(queries[i], k)
        workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        return found


PEERS = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch, "zvec": Zvec}


def qps(peer, queries, k, threads, seconds):
    asked, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        peer.batch(queries, k, threads)
        asked += len(queries)
    return asked / spent


class Voisin:
    """`voisin bench`, against one server and in process."""

    def __init__(self, arguments, folder):
        self.binary = os.environ.setdefault("VOISIN_BIN", str(ROOT / "target" / "release" / "voisin"))
        self.folder, self.arguments = folder, arguments

    def bench(self, out, *options):
        options = [self.binary, "bench", "--data", self.folder, "--out", self.folder / out, "-k", self.arguments.k,
                   "--recall", self.arguments.recall, "--seconds", self.arguments.seconds, "--metric",
                   "SquaredEuclidean", *options]
        done = subprocess.run(list(map(str, options)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"voisin bench: {done.stderr}")
        return json.loads((self.folder / out / "bench.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-results/peers.json"))
    arguments = parser.parse_args()

    from server import Server

    def note(text):
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="voisin-peers-") as temporary:
        folder = pathlib.Path(temporary)
        voisin = Voisin(arguments, folder)
        note("making vectors")
        subprocess.run([voisin.binary, "bench", "--kind", "clustered", "--rows", str(arguments.rows), "--dimension",
                        str(arguments.dimension), "--make-only", "--keep", str(folder)], check=True)
        rows, queries = read_fvecs(folder / "base.fvecs"), read_fvecs(folder / "query.fvecs")
        truth = exact(rows, queries, arguments.k)
        report = {"rows": len(rows), "dimension": rows.shape[1], "recall_wanted": arguments.recall, "engines": {}}
        engines = report["engines"]

        own = Server(folder / "data", durability="process").start()
        try:
            note("voisin: loading")
            loaded = voisin.bench("load", "--server", own.grpc, "--load-only")
            engines["voisin over gRPC"] = {"build_seconds": loaded["indexed_seconds"],
                                           "searchable_seconds": loaded["searchable_seconds"], "turns": []}
            peers = []
            for key in arguments.peers.split(","):
                note(f"{key}: building")
                began = time.perf_counter()
                peer = PEERS[key](rows, arguments.threads)
                seconds = time.perf_counter() - began
                for ef in LADDER:
                    peer.at(ef)
                    reached = recall(peer.batch(queries, arguments.k, arguments.threads), truth)
                    if reached >= arguments.recall:
                        break
                engines[peer.name] = {"build_seconds": seconds, "ef_search": ef, "recall": reached, "turns": []}
                peers.append((peer, ef))
            for turn in range(arguments.turns):
                note(f"turn {turn + 1}")
                for peer, ef in peers:
                    peer.at(ef)
                    engines[peer.name]["turns"].append(
                        {threads: qps(peer, queries, arguments.k, threads, arguments.seconds)
                         for threads in (1, arguments.threads)})
                seen = voisin.bench("turn", "--server", own.grpc, "--attach", "--brief", "--turns", 1,
                                    "--clients", "1,8", "--ef", ",".join(map(str, LADDER)))
                last = [point for point in seen["points"]]
                engines["voisin over gRPC"].update(ef_search=last[0]["ef_search"], recall=last[0]["recall"],
                                                   p50_us=last[0]["p50_us"], p99_us_8=last[-1]["p99_us"])
                engines["voisin over gRPC"]["turns"].append({1: last[0]["qps"], arguments.threads: last[-1]["qps"]})
        finally:
            own.stop()
        note("voisin: in process")
        seen = voisin.bench("inside", "--in-process", "--brief", "--turns", arguments.turns,
                            "--ef", ",".join(map(str, LADDER)))
        best = seen["points"][-1]
        engines["voisin in process"] = {"build_seconds": seen["indexed_seconds"], "ef_search": best["ef_search"],
                                        "recall": best["recall"], "turns": [{1: best["qps"]}]}
        if "hnswlib" in arguments.peers:
            # The peer again, right beside that.
            peer, ef = peers[0]
            peer.at(ef)
            engines["voisin in process"]["hnswlib_beside"] = qps(peer, queries, arguments.k, 1, arguments.seconds)

    base = engines.get("hnswlib", {}).get("turns")
    median = lambda turns, threads: statistics.median(turn[threads] for turn in turns if threads in turn)
    print(f"{arguments.rows} x {arguments.dimension}, recall@{arguments.k} >= {arguments.recall}, "
          f"{arguments.threads} threads or 8 connections")
    print(f"{'':20}{'recall':>8}{'ef':>5}{'QPS 1':>9}{'ratio':>7}{'QPS all':>9}{'ratio':>7}{'indexed s':>11}")
    for name, engine in engines.items():
        line = f"{name:20}{engine['recall']:8.4f}{engine['ef_search']:5}"
        for threads in (1, arguments.threads):
            if any(threads in turn for turn in engine["turns"]):
                value = median(engine["turns"], threads)
                beside = engine.get("hnswlib_beside") or (median(base, threads) if base else None)
                engine[f"qps_{threads}"] = value
                line += f"{value:9.0f}" + (f"{value / beside:7.2f}" if beside else f"{'':7}")
            else:
                line += f"{'':16}"
        print(line + f"{engine['build_seconds']:11.1f}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
