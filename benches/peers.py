#!/usr/bin/env python3
"""Voisin beside hnswlib, faiss, usearch and zvec: same vectors, same truth, same run, taken in turns.

    pip install -r tests/requirements.txt -r benches/requirements.txt
    python benches/peers.py [--rows 1000000] [--peers hnswlib,faiss] [--data sift-128-euclidean.hdf5]

`voisin bench` makes the vectors and measures itself, over gRPC and in process; the peers run in this
process. Each engine's recall is looked at along one fine ladder of ef_search; then, in every turn, all are
timed around the recalls asked for. What counts is QPS at exactly that recall, on the line between the two
nearest points (the logarithm of QPS over recall), and its ratio to hnswlib in the same turn: on one thread
for what runs on one, on all threads for what runs on all and for Voisin over gRPC with 8 connections.
Prints medians over the turns with the lowest and highest ratio, and saves all of it as JSON and as a plot
(PNG). Absolute figures of a shared machine are noise; ratios of one run are not.
"""

import argparse
import bisect
import importlib.metadata
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import h5py
import matplotlib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

# Eight in a hundred from step to step: between two of them recall is nearly a line.
LADDER = sorted({round(10 * 1.08 ** step) for step in range(58)})
# Points on either side of each recall asked for.
AROUND = 2
# Further points for the plot, in steps of the ladder.
COARSE = 9
CONNECTIONS = 8
M, EF_CONSTRUCTION = 16, 200
ONE, ALL = "one thread", "all threads"
GRPC, INSIDE = "voisin over gRPC", "voisin in process"


def note(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def exact(rows, queries, k):
    """The k nearest by squared Euclidean distance, and how far they are."""
    import faiss

    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    distances, keys = index.search(queries, k)
    return keys, distances


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
    name, dtype = "usearch f32", "f32"

    def __init__(self, rows, threads):
        from usearch.index import Index

        # Its 8-bit type wants components within -1 and 1.
        self.scale = np.float32(1.0 / np.abs(rows).max() if self.dtype == "i8" else 1.0)
        self.index = Index(ndim=rows.shape[1], metric="l2sq", dtype=self.dtype, connectivity=M,
                           expansion_add=EF_CONSTRUCTION)
        self.index.add(np.arange(len(rows)), rows * self.scale, threads=threads)

    def at(self, ef):
        self.index.expansion_search = ef

    def batch(self, queries, k, threads):
        return self.index.search(queries * self.scale, k, threads=threads).keys


class UsearchBytes(Usearch):
    """Scores by its 8 bits alone: it has no second look at the floats."""

    name, dtype = "usearch i8", "i8"


class Zvec:
    """Has no call for many queries, so that each pays for its way through Python."""

    name = "zvec int8"

    def __init__(self, rows, threads):
        import zvec

        self.zvec = zvec
        self.query = getattr(zvec, "Query", None) or zvec.VectorQuery
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
        param = self.zvec.HnswQueryParam(ef=self.ef)
        found = self.index.query(self.query("v", vector=query, param=param), topk=k)
        return [int(document.id) for document in found]

    def batch(self, queries, k, threads):
        if threads == 1:
            return [self._one(query, k) for query in queries]
        found = [None] * len(queries)

        def work(first):
            for i in range(first, len(queries), threads):
                found[i] = self._one(queries[i], k)
        workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return found


PEERS = {"hnswlib": Hnswlib, "faiss": Faiss, "usearch": Usearch, "usearch_i8": UsearchBytes, "zvec": Zvec}


def qps(peer, queries, k, threads, seconds):
    asked, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds or not asked:
        peer.batch(queries, k, threads)
        asked += len(queries)
    return asked / spent


class Voisin:
    """`voisin bench`, against one server or in process on a folder that stays."""

    def __init__(self, binary, data, folder, arguments):
        self.binary, self.data, self.folder, self.arguments = binary, data, folder, arguments

    def bench(self, *options):
        command = [self.binary, "bench", "--data", self.data, "--out", self.folder / "out", "-k", self.arguments.k,
                   "--turns", 1, *options]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"voisin bench: {done.stderr}")
        return json.loads((self.folder / "out" / "bench.json").read_text())

    def points(self, where, efs, seconds):
        """What was seen at each of these ef_search, by number of connections."""
        report = self.bench(*where, "--attach", "--seconds", seconds, "--ef", ",".join(map(str, efs)))
        return report["points"]


def vectors(arguments, binary, folder):
    """Rows and queries, in an order of nearness that squared Euclidean distance gives."""
    if arguments.data:
        with h5py.File(arguments.data) as file:
            rows, queries = (np.asarray(file[name][:], np.float32) for name in ("train", "test"))
            distance = file.attrs.get("distance", "euclidean")
        rows, queries = rows[:arguments.rows], queries[:arguments.queries]
        if distance == "angular":
            rows, queries = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30) for x in (rows, queries))
        elif distance != "euclidean":
            raise SystemExit(f"{arguments.data}: its distance is {distance}; euclidean and angular can be compared")
        return rows, queries
    options = ["--kind", arguments.kind, "--queries", arguments.queries, "--make-only", "--keep", folder]
    for name in ("rows", "dimension"):
        if getattr(arguments, name):
            options += [f"--{name}", getattr(arguments, name)]
    subprocess.run([binary, "bench", *map(str, options)], check=True, stdout=subprocess.DEVNULL)
    made = []
    for name in ("base.fvecs", "query.fvecs"):
        raw = np.fromfile(folder / name, np.int32)
        made.append(raw.reshape(-1, raw[0] + 1)[:, 1:].view(np.float32).copy())
        (folder / name).unlink()
    return made


def keep(path, rows, queries, truth, distances):
    """The layout of ann-benchmarks, so that every engine is held against the same neighbours."""
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "euclidean"
        file["train"], file["test"], file["neighbors"] = rows, queries, truth.astype(np.int32)
        file["distances"] = np.sqrt(np.maximum(distances, 0))


def chosen(recalls, targets):
    """The ef_search to time: around each recall asked for, and some more for the plot."""
    # Recall may dip by a row between two steps; what counts is where it is first reached.
    reached = [next((place for place, ef in enumerate(LADDER) if recalls[ef] >= target), len(LADDER) - 1)
               for target in targets]
    around = {place + step for place in reached for step in range(-AROUND, AROUND)}
    # Far beyond the highest recall asked for nothing is compared, and every query takes long.
    coarse = set(range(0, max(reached), COARSE))
    return [LADDER[place] for place in sorted(around | coarse) if 0 <= place < len(LADDER)]


def at_recall(points, target):
    """QPS at this recall, from points of recall and QPS; None when it is not reached."""
    same = {}
    for reached, speed in points:
        same.setdefault(reached, []).append(speed)
    # Not the fastest of those that find the same: that would be luck.
    line = sorted((reached, statistics.median(speeds)) for reached, speeds in same.items())
    place = bisect.bisect_left(line, (target, 0.0))
    if place == len(line):
        return None
    if place == 0 or line[place][0] == target:
        # The shortest search already finds more.
        return line[place][1]
    (low, slow), (high, fast) = line[place - 1], line[place]
    share = (target - low) / (high - low)
    return math.exp((1 - share) * math.log(slow) + share * math.log(fast))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="an HDF5 file of ann-benchmarks instead of made-up vectors")
    parser.add_argument("--kind", choices=["clustered", "features", "copies"], default="clustered")
    parser.add_argument("--rows", type=int, help="by default 100,000, or 9,292 copies, or all of --data")
    parser.add_argument("--dimension", type=int, help="by default that of the kind")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", default="0.95,0.99", metavar="LIST")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", default=",".join(PEERS), metavar="LIST")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench-results/peers.json"),
                        help="the report; the plot goes beside it")
    arguments = parser.parse_args()
    targets = sorted(map(float, arguments.recall.split(",")))
    names = ["hnswlib", *(name for name in arguments.peers.split(",") if name != "hnswlib")]
    if unknown := set(names) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    binary = os.environ.setdefault("VOISIN_BIN", str(ROOT / "target" / "release" / "voisin"))

    with tempfile.TemporaryDirectory(prefix="voisin-peers-") as temporary:
        report = measure(arguments, targets, names, binary, pathlib.Path(temporary))
    sum_up(report, targets)
    show(report, targets)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2))
    plot(report, targets, arguments.out.with_suffix(".png"))
    print(f"saved {arguments.out} and {arguments.out.with_suffix('.png')}")


def versions(binary):
    """What was measured, and on what."""
    found = {name: importlib.metadata.version(name) for name in ("hnswlib", "faiss-cpu", "usearch", "zvec", "numpy")}
    found["voisin"] = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    models = (line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found["cpu"] = next(models, "unknown").partition(":")[2].strip()
    return found


def measure(arguments, targets, names, binary, folder):
    from server import Server

    note("vectors and their true neighbours")
    rows, queries = vectors(arguments, binary, folder)
    truth, distances = exact(rows, queries, arguments.k)
    data = folder / "data.hdf5"
    keep(data, rows, queries, truth, distances)
    k, threads = arguments.k, arguments.threads
    report = {"source": str(arguments.data or arguments.kind), "rows": len(rows), "dimension": rows.shape[1],
              "queries": len(queries), "k": k, "threads": threads, "connections": CONNECTIONS,
              "recall_wanted": targets, "versions": versions(binary), "engines": {}}
    engines = report["engines"]
    voisin = Voisin(binary, data, folder, arguments)
    inside = ["--in-process", "--folder", folder / "inside"]

    # One engine at a time builds, alone.
    peers = {}
    for name in names:
        note(f"{name}: building")
        began = time.perf_counter()
        peer = PEERS[name](rows, threads)
        engines[peer.name] = {"build_seconds": time.perf_counter() - began}
        peers[peer.name] = peer
    own = Server(folder / "served", durability="process").start()
    try:
        over = ["--server", own.grpc]
        note(f"{GRPC}: loading")
        loaded = voisin.bench(*over, "--load-only")
        engines[GRPC] = {"build_seconds": loaded["indexed_seconds"], "searchable_seconds": loaded["searchable_seconds"]}
        note(f"{INSIDE}: loading")
        loaded = voisin.bench(*inside, "--load-only")
        engines[INSIDE] = {"build_seconds": loaded["indexed_seconds"],
                           "searchable_seconds": loaded["searchable_seconds"]}

        for name, engine in engines.items():
            note(f"{name}: recall")
            if name in peers:
                recalls = {}
                for ef in LADDER:
                    peers[name].at(ef)
                    recalls[ef] = recall(peers[name].batch(queries, k, threads), truth)
            else:
                where = [*over, "--clients", 1] if name == GRPC else inside
                recalls = {point["ef_search"]: point["recall"] for point in voisin.points(where, LADDER, 0.01)}
            engine.update(recalls=recalls, efs=chosen(recalls, targets), turns=[])

        for turn in range(arguments.turns):
            # Voisin stands beside hnswlib, the first of the peers; every other turn runs backwards.
            order = [(INSIDE, ONE), *((name, ONE) for name in peers),
                     *((name, ALL) for name in reversed(peers)), (GRPC, ALL)]
            seen = {name: {} for name in engines}
            for name, mode in order if turn % 2 == 0 else reversed(order):
                note(f"turn {turn + 1}: {name}, {mode}")
                engine = engines[name]
                if name in peers:
                    speeds = {}
                    for ef in engine["efs"]:
                        peers[name].at(ef)
                        speeds[ef] = qps(peers[name], queries, k, 1 if mode == ONE else threads, arguments.seconds)
                    seen[name][mode] = speeds
                    continue
                where = [*over, "--clients", f"1,{CONNECTIONS}"] if name == GRPC else inside
                points = voisin.points(where, engine["efs"], arguments.seconds)
                many = CONNECTIONS if name == GRPC else 1
                seen[name][mode] = {p["ef_search"]: p["qps"] for p in points if p["clients"] == many}
                single = [p for p in points if p["clients"] == 1]
                seen[name]["p50_us"] = {p["ef_search"]: p["p50_us"] for p in single}
            for name, engine in engines.items():
                engine["turns"].append(seen[name])
        engines[GRPC]["anonymous_bytes"] = anonymous_bytes(own.pid)
    finally:
        own.stop()
    return report


def anonymous_bytes(process):
    """Memory of the process that no file backs."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)


def sum_up(report, targets):
    """QPS of each engine at each recall, and its ratio to hnswlib turn by turn."""
    engines = report["engines"]
    for name, engine in engines.items():
        engine["at"] = {}
        for mode in (ONE, ALL):
            if not all(mode in turn for turn in engine["turns"]):
                continue
            for target in targets:
                def speeds(of):
                    recalls = engines[of]["recalls"]
                    return [at_recall([(recalls[ef], speed) for ef, speed in turn[mode].items()], target)
                            for turn in engines[of]["turns"]]
                mine, base = speeds(name), speeds("hnswlib")
                if None in mine:
                    continue
                figures = {"qps": statistics.median(mine)}
                if None not in base:
                    ratios = [a / b for a, b in zip(mine, base)]
                    figures.update(ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios))
                engine["at"].setdefault(mode, {})[str(target)] = figures
        base = engines["hnswlib"]["build_seconds"]
        engine["build_ratio"] = engine["build_seconds"] / base
    # The same ef_search on both sides: the same work, but for two graphs built apart.
    waits = []
    for here, there in zip(engines[INSIDE]["turns"], engines[GRPC]["turns"]):
        both = sorted(set(here["p50_us"]) & set(there["p50_us"]))
        waits.append(statistics.median([there["p50_us"][ef] - here["p50_us"][ef] for ef in both]) if both else math.nan)
    report["grpc_adds_us"] = statistics.median(waits)


def show(report, targets):
    turns = len(report["engines"][INSIDE]["turns"])
    print(f"{report['rows']} x {report['dimension']}, {report['source']}, {report['queries']} queries, k = {report['k']}")
    print(f"ratios to hnswlib, medians of {turns} turns (lowest to highest)")
    for target in targets:
        for mode in (ONE, ALL):
            threads = "1 thread" if mode == ONE else \
                f"{report['threads']} threads, or {report['connections']} connections over gRPC"
            print(f"\nrecall {target}, {threads}")
            for name, engine in report["engines"].items():
                if not any(mode in turn for turn in engine["turns"]):
                    continue
                figures = engine["at"].get(mode, {}).get(str(target))
                if figures is None:
                    print(f"  {name:20}not reached; {max(engine['recalls'].values()):.4f} at most")
                    continue
                ratio = f"{figures['ratio']:6.2f}  ({figures['ratio_low']:.2f} to {figures['ratio_high']:.2f})" \
                    if "ratio" in figures else ""
                least = min(engine["recalls"].values())
                more = f"  finds {least:.4f} at least" if least > target else ""
                print(f"  {name:20}{figures['qps']:9.0f} QPS  {ratio}{more}")
    print("\nuntil indexed")
    for name, engine in report["engines"].items():
        print(f"  {name:20}{engine['build_seconds']:9.1f} s    {engine['build_ratio']:6.2f}")
    print(f"\none connection: gRPC adds {report['grpc_adds_us']:.0f} us to the median query in process")


def plot(report, targets, path):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lowest = min(targets) - 0.07
    figure, areas = plt.subplots(1, 2, figsize=(14, 6), sharey=True)
    for area, mode in zip(areas, (ONE, ALL)):
        for name, engine in report["engines"].items():
            turns = [turn[mode] for turn in engine["turns"] if mode in turn]
            if not turns:
                continue
            points = sorted((engine["recalls"][ef], statistics.median(turn[ef] for turn in turns))
                            for ef in engine["efs"])
            points = [point for point in points if point[0] >= lowest]
            label = name if points else f"{name}: {max(engine['recalls'].values()):.2f} at most"
            area.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3,
                      linewidth=2.5 if "voisin" in name else 1.2, label=label)
        for target in targets:
            area.axvline(target, color="grey", linewidth=0.8, linestyle=":")
        area.set(title="1 thread" if mode == ONE else
                 f"{report['threads']} threads, gRPC with {report['connections']} connections",
                 xlabel=f"recall@{report['k']}", yscale="log", xlim=(lowest, 1.002))
        area.grid(True, which="both", linewidth=0.3)
        area.legend()
    areas[0].set_ylabel("queries per second")
    figure.suptitle(f"{report['rows']:,} x {report['dimension']}, {report['source']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
