#!/usr/bin/env python3
"""Scores as Elasticsearch's script_score queries give them, beside numpy: what changes for who comes from there.

    pip install pyproximabe==0.2.* 'protobuf<4' grpcio requests orjson numpy      (and h5py for --features)
    python client/examples/es_metrics.py
    python client/examples/es_metrics.py --features train.h5

Elasticsearch computes its score in a script of the query; here the query names the metric and asks for the score in
that shape, and the hits come with the highest score first. Every picture is compared with every other by all four.
--features is an HDF5 file as image_search.py takes it; without it vectors are made up.
Exits with 1 when a score is more than 1e-5 off, an order differs, or the server refuses something.
"""

import argparse
import sys

import numpy as np
from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest

from image_search import DIMENSION, made_up_features, read_features, succeed

COLLECTION = "es_metrics"
TOLERANCE = 1e-5

# The script of each query, the metric that stands for it, and its score of all rows in numpy.
SCRIPTS = [
    ("cosineSimilarity(params.query, 'feature') + 1.0", "Cosine",
     lambda rows, query: rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query)) + 1.0),
    ("1 / (1 + l1norm(params.query, 'feature'))", "Manhattan",
     lambda rows, query: 1 / (1 + np.abs(rows - query).sum(axis=1))),
    ("1 / (1 + l2norm(params.query, 'feature'))", "Euclidean",
     lambda rows, query: 1 / (1 + np.linalg.norm(rows - query, axis=1))),
    ("sigmoid(1, Math.E, -dotProduct(params.query, 'feature'))", "InnerProduct",
     lambda rows, query: 1 / (1 + np.exp(-(rows @ query)))),
]


def load(client, paths, features):
    """One vector column serves all metrics: a query that names another than the column's scans exactly."""
    succeed("create_collection", client.create_collection(CollectionConfig(
        collection_name=COLLECTION,
        index_column_params=[IndexColumnParam("feature", DIMENSION, data_type=DataType.VECTOR_FP32)],
        forward_column_names=["image_path"])))
    meta = WriteRequest.RowMeta(
        index_column_metas=[WriteRequest.IndexColumnMeta("feature", DataType.VECTOR_FP32, DIMENSION)],
        forward_column_names=["image_path"], forward_column_types=[DataType.STRING])
    rows = [WriteRequest.Row(primary_key=key, operation_type=WriteRequest.OperationType.INSERT,
                             index_column_values=[feature.tolist()], forward_column_values=[path])
            for key, (path, feature) in enumerate(zip(paths, features))]
    succeed("write", client.write(WriteRequest(COLLECTION, rows, meta)))


def compare(client, features, metric, score_of):
    """How far the server's scores of all pictures by all pictures are off at most, and whether the orders agree."""
    status, answer = client.query(
        COLLECTION, "feature", [feature.tolist() for feature in features], data_type=DataType.VECTOR_FP32,
        topk=len(features), extra_params={"metric_type": metric, "score": "elasticsearch"})
    succeed("query", status)
    worst, is_ordered = 0.0, len(answer.results) == len(features)
    for query, hits in zip(features, answer.results):
        expected = score_of(features, query)
        keys = [hit.primary_key for hit in hits]
        worst = max([worst, *(abs(hit.score - expected[hit.primary_key]) for hit in hits)])
        # Pictures whose scores are the same but for rounding may come in any order.
        in_order = expected[keys]
        is_ordered &= sorted(keys) == list(range(len(features))) and bool(np.all(np.diff(in_order) <= TOLERANCE))
    return worst, is_ordered


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=16000)
    parser.add_argument("--features", metavar="FILE.h5", help="features and names; made up when left out")
    arguments = parser.parse_args()

    paths, features = read_features(arguments.features) if arguments.features else made_up_features()
    # As they are stored.
    features = np.asarray(features, dtype=np.float32).astype(np.float64)
    client = Client(arguments.host, arguments.port)
    all_agree = True
    load(client, paths, features)
    try:
        print(f"{len(features)} vectors, each by all:")
        for script, metric, score_of in SCRIPTS:
            worst, is_ordered = compare(client, features, metric, score_of)
            agrees = worst <= TOLERANCE and is_ordered
            all_agree &= agrees
            print(f"  {script:<58} at most {worst:.1e} off, order {'the same' if is_ordered else 'DIFFERS'}")
    finally:
        succeed("drop_collection", client.drop_collection(COLLECTION))
        client.close()
    print("All scores are those of numpy." if all_agree else "SCORES DIFFER.")
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
