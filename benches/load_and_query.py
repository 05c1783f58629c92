#!/usr/bin/env python3
"""Loads rows through the stock client while threads query, then measures recall.

    python benches/load_and_query.py [--rows 100000 --dimension 128]

Every probe takes a row of a batch that was acknowledged before the probe starts and queries its exact
vector: the row itself must come first, with distance 0. Prints a JSON summary; exits with 1 when a call
failed, a probe missed its row, or recall is below --recall-min.
"""

import argparse
import json
import random
import sys
import threading
import time

import target
from vectors import Clustered, nearest, recall

import numpy as np
from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest

COLUMN = "v"


class Progress:
    """How many rows are acknowledged; written by the loader, read by the probes."""

    def __init__(self):
        self.acknowledged = 0
        self.first = threading.Event()
        self.done = threading.Event()


def load(client, name, rows, batch, progress):
    """Writes all rows in batches and returns each batch's seconds."""
    meta = WriteRequest.RowMeta([WriteRequest.IndexColumnMeta(COLUMN, DataType.VECTOR_FP32, rows.shape[1])])
    seconds = []
    try:
        for start in range(0, len(rows), batch):
            request = WriteRequest(name, [
                WriteRequest.Row(key, WriteRequest.OperationType.INSERT, [rows[key].tobytes()])
                for key in range(start, min(start + batch, len(rows)))], meta)
            began = time.monotonic()
            status = client.write(request)
            seconds.append(time.monotonic() - began)
            if not status.ok():
                raise SystemExit(f"write: {status}")
            progress.acknowledged = min(start + batch, len(rows))
            progress.first.set()
    finally:
        progress.done.set()
        progress.first.set()
    return seconds


class Prober(threading.Thread):
    """Queries rows that are acknowledged, the newest ones most often."""

    def __init__(self, address, name, rows, progress, seed):
        super().__init__(daemon=True)
        host, port = address.rsplit(":", 1)
        self.client = Client(host, int(port), timeout=60)
        self.name_of_collection, self.rows, self.progress = name, rows, progress
        self.random = random.Random(seed)
        self.seconds, self.misses, self.errors = [], [], []

    def run(self):
        self.progress.first.wait()
        while not self.progress.done.is_set():
            known = self.progress.acknowledged
            if known == 0:
                return
            newest = max(0, known - 1000)
            key = self.random.randrange(newest, known) if self.random.random() < 0.7 else self.random.randrange(known)
            try:
                self.probe(key)
            except Exception as error:  # noqa: BLE001 - every failure of any kind is a finding
                self.errors.append(repr(error))
                return

    def probe(self, key):
        began = time.monotonic()
        status, response = self.client.query(
            self.name_of_collection, COLUMN, self.rows[key].tobytes(), data_type=DataType.VECTOR_FP32,
            dimension=self.rows.shape[1], batch_count=1, topk=1)
        self.seconds.append(time.monotonic() - began)
        if not status.ok():
            self.errors.append(str(status))
        elif [(d.primary_key, d.score) for d in response.results[0]] != [(key, 0.0)]:
            self.misses.append(key)


def measure_recall(client, name, rows, queries, k):
    found = []
    for query in queries:
        status, response = client.query(
            name, COLUMN, query.tobytes(), data_type=DataType.VECTOR_FP32, dimension=rows.shape[1], batch_count=1,
            topk=k)
        if not status.ok():
            raise SystemExit(f"query: {status}")
        found.append([d.primary_key for d in response.results[0]])
    return recall(found, nearest(rows, queries, k))


def percentile(values, share):
    return round(1000 * float(np.percentile(values, share)), 3) if values else None


def run(address, arguments):
    host, port = address.rsplit(":", 1)
    client = Client(host, int(port), timeout=120)
    source = Clustered(arguments.dimension, arguments.seed)
    rows, queries = source.draw(arguments.rows), source.draw(arguments.queries)
    name = f"load_and_query_{random.randrange(2**32):08x}"
    status = client.create_collection(CollectionConfig(name, [IndexColumnParam(COLUMN, arguments.dimension)]))
    if not status.ok():
        raise SystemExit(f"create_collection: {status}")
    progress = Progress()
    probers = [Prober(address, name, rows, progress, arguments.seed + n) for n in range(arguments.threads)]
    for prober in probers:
        prober.start()
    began = time.monotonic()
    batches = load(client, name, rows, arguments.batch, progress)
    load_seconds = time.monotonic() - began
    for prober in probers:
        prober.join(120)
    stats, build_seconds = target.wait_until_built(client, name, arguments.settle)
    reached = measure_recall(client, name, rows, queries, 10)
    if not arguments.keep:
        client.drop_collection(name)
    probes = [s for p in probers for s in p.seconds]
    errors = [e for p in probers for e in p.errors]
    misses = [k for p in probers for k in p.misses]
    return {
        "rows": arguments.rows, "dimension": arguments.dimension, "batch": arguments.batch,
        "threads": arguments.threads, "seed": arguments.seed,
        "load_seconds": round(load_seconds, 2), "rows_per_second": round(arguments.rows / load_seconds),
        "write_p50_ms": percentile(batches, 50), "write_p99_ms": percentile(batches, 99),
        "probes_while_loading": len(probes), "probe_p50_ms": percentile(probes, 50),
        "probe_p99_ms": percentile(probes, 99), "missed": len(misses), "missed_keys": misses[:10],
        "errors": len(errors), "first_errors": errors[:3],
        "build_seconds_after_load": round(build_seconds, 2), "segments": stats.total_segment_count,
        "recall_at_10": round(reached, 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target.add_arguments(parser)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--queries", type=int, default=500, help="queries for recall")
    parser.add_argument("--recall-min", type=float, default=0.98)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--keep", action="store_true", help="leave the collection on the server")
    arguments = parser.parse_args()
    with target.serving(arguments) as address:
        summary = run(address, arguments)
    print(json.dumps(summary))
    is_good = not summary["errors"] and not summary["missed"] and summary["recall_at_10"] >= arguments.recall_min
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
