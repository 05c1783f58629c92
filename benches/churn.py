#!/usr/bin/env python3
"""Replaces every row in random order, and compares recall and space with a fresh load of the same rows.

    python benches/churn.py [--rows 200000 --dimension 128 --rounds 1]

Prints a JSON summary; exits with 1 when recall is more than half a point below the fresh load's, or the
segments take more than 1.3 times its space.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import target
from load_and_query import COLUMN, measure_recall
from vectors import Clustered

import numpy as np
from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest

NAME = "churn"


def write(client, operation, keys, rows, batch):
    meta = WriteRequest.RowMeta([WriteRequest.IndexColumnMeta(COLUMN, DataType.VECTOR_FP32, rows.shape[1])])
    for start in range(0, len(keys), batch):
        status = client.write(WriteRequest(NAME, [
            WriteRequest.Row(int(key), operation, [rows[key].tobytes()]) for key in keys[start:start + batch]], meta))
        if not status.ok():
            raise SystemExit(f"write: {status}")


def segment_bytes(folder):
    return sum(file.stat().st_size for file in pathlib.Path(folder).glob("collections/*/segment-*/*"))


def measure(arguments, states, queries):
    """Loads the first of the states, replaces all rows by the next, and so on."""
    with tempfile.TemporaryDirectory(prefix="voisin-churn-") as temporary:
        arguments.folder = pathlib.Path(temporary) / "data"
        with target.serving(arguments) as address:
            host, port = address.rsplit(":", 1)
            client = Client(host, int(port), timeout=120)
            status = client.create_collection(
                CollectionConfig(NAME, [IndexColumnParam(COLUMN, arguments.dimension)]))
            if not status.ok():
                raise SystemExit(f"create_collection: {status}")
            order = np.random.default_rng(arguments.seed)
            operation = WriteRequest.OperationType.INSERT
            for rows in states:
                write(client, operation, order.permutation(len(rows)), rows, arguments.batch)
                operation = WriteRequest.OperationType.UPDATE
            stats, seconds = target.wait_until_built(client, NAME, arguments.settle)
            return {
                "recall_at_10": round(measure_recall(client, NAME, states[-1], queries, 10), 4),
                "segment_bytes": segment_bytes(arguments.folder),
                "segments": stats.total_segment_count,
                "seconds_to_rest": round(seconds, 1),
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1, help="how often every row is replaced")
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--settle", type=float, default=6.0)
    arguments = parser.parse_args()
    arguments.server, arguments.durability = None, "process"
    source = Clustered(arguments.dimension, arguments.seed)
    states = [source.draw(arguments.rows) for _ in range(arguments.rounds + 1)]
    queries = source.draw(arguments.queries)
    replaced, fresh = measure(arguments, states, queries), measure(arguments, states[-1:], queries)
    space = replaced["segment_bytes"] / fresh["segment_bytes"]
    print(json.dumps({"replaced": replaced, "fresh": fresh, "space_ratio": round(space, 3)}))
    return 0 if replaced["recall_at_10"] >= fresh["recall_at_10"] - 0.005 and space <= 1.3 else 1


if __name__ == "__main__":
    sys.exit(main())
