#!/usr/bin/env python3
"""Image search with a Proxima BE client, from an empty server to pictures that find their neighbours.

    pip install pyproximabe==0.2.* 'protobuf<4' grpcio requests orjson      (and h5py for --features)
    python client/examples/image_search.py
    python client/examples/image_search.py --features train.h5 --topk 5

Without --features it makes up unit vectors and file names. With it, it reads an HDF5 file that holds one
matrix of numbers (a feature per row) and one list of names (the images' paths), in whatever order.
Exits with 1 when an image does not find itself first, or the server refuses something.
"""

import argparse
import math
import random
import sys

from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest

COLLECTION = "image_search"
DIMENSION = 512
BATCH = 10


def made_up_features(count=26, seed=7):
    """Unit vectors in random directions, with names."""
    source = random.Random(seed)
    features = []
    for _ in range(count):
        vector = [source.gauss(0, 1) for _ in range(DIMENSION)]
        length = math.sqrt(sum(x * x for x in vector))
        features.append([x / length for x in vector])
    return [f"made-up/{i:03}.jpg" for i in range(count)], features


def read_features(path):
    """Image paths and features of an HDF5 file."""
    import h5py  # only this way of running needs it

    with h5py.File(path, "r") as file:
        datasets = [file[key] for key in file if isinstance(file[key], h5py.Dataset)]
        matrices = [d for d in datasets if d.ndim == 2 and d.dtype.kind == "f"]
        names = [d for d in datasets if d.ndim == 1 and d.dtype.kind in "SO"]
        if len(matrices) != 1 or len(names) != 1:
            raise SystemExit(f"{path}: expected one matrix of features and one list of names")
        (matrix,), (names,) = matrices, names
        if matrix.shape[1] != DIMENSION or matrix.shape[0] != names.shape[0]:
            raise SystemExit(f"{path}: {matrix.shape} features for {names.shape} names, dimension {DIMENSION} wanted")
        paths = [n.decode() if isinstance(n, bytes) else str(n) for n in names[:]]
        return paths, [[float(x) for x in row] for row in matrix[:]]


def succeed(what, status):
    """Stops the walk at the first call that the server refuses."""
    if not status.ok():
        raise SystemExit(f"{what}: {status}")


def create(client):
    """One vector column, and one forward column that travels with every hit."""
    succeed("create_collection", client.create_collection(CollectionConfig(
        collection_name=COLLECTION,
        index_column_params=[IndexColumnParam("feature", DIMENSION, data_type=DataType.VECTOR_FP32)],
        forward_column_names=["image_path"])))


def write(client, paths, features):
    """Inserts all images, a batch at a time; the primary key is the position."""
    row_meta = WriteRequest.RowMeta(
        index_column_metas=[WriteRequest.IndexColumnMeta("feature", DataType.VECTOR_FP32, DIMENSION)],
        forward_column_names=["image_path"], forward_column_types=[DataType.STRING])
    for start in range(0, len(paths), BATCH):
        rows = [
            WriteRequest.Row(primary_key=key, operation_type=WriteRequest.OperationType.INSERT,
                             index_column_values=[list(features[key])], forward_column_values=[paths[key]])
            for key in range(start, min(start + BATCH, len(paths)))]
        succeed("write", client.write(WriteRequest(COLLECTION, rows, row_meta)))


def nearest(client, feature, topk):
    """The hits of one feature, nearest first."""
    status, response = client.query(
        COLLECTION, "feature", [feature], data_type=DataType.VECTOR_FP32, topk=topk)
    succeed("query", status)
    return response.results[0]


def query_all(client, paths, features, topk):
    """Queries with every image, prints its neighbours, and counts those that find themselves first."""
    found_themselves = 0
    for key, feature in enumerate(features):
        hits = nearest(client, feature, topk)
        print(f"\n{paths[key]}")
        for rank, hit in enumerate(hits, start=1):
            print(f"  {rank}. {hit.forward_column_values['image_path']:<32} {hit.score:.6f}")
        found_themselves += bool(hits) and hits[0].primary_key == key
    return found_themselves


def delete_some(client, paths, features):
    """Deletes a few images and shows that they are gone."""
    doomed = list(range(min(3, len(paths))))
    succeed("delete", client.delete_document_by_keys(COLLECTION, doomed))
    for key in doomed:
        status, document = client.get_document_by_key(COLLECTION, key)
        succeed("get_document_by_key", status)
        hits = nearest(client, features[key], 1)
        gone = document is None and all(hit.primary_key != key for hit in hits)
        instead = hits[0].forward_column_values["image_path"] if hits else "nothing"
        print(f"  {paths[key]}: {'gone, its nearest is now ' + instead if gone else 'STILL THERE'}")
        if not gone:
            return False
    return True


def show(client, paths):
    """One document by its key, and the collection's statistics."""
    status, document = client.get_document_by_key(COLLECTION, len(paths) - 1)
    succeed("get_document_by_key", status)
    if document is not None:
        print(f"  key {document.primary_key} is {document.forward_column_values['image_path']}")
    status, stats = client.stats_collection(COLLECTION)
    succeed("stats_collection", status)
    print(f"  {stats.total_doc_count} documents ever inserted, in {stats.total_segment_count} segment(s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=16000)
    parser.add_argument("--features", metavar="FILE.h5", help="features and names; made up when left out")
    parser.add_argument("--topk", type=int, default=5, help="neighbours per image")
    parser.add_argument("--keep", action="store_true", help="leave the collection on the server")
    arguments = parser.parse_args()

    paths, features = read_features(arguments.features) if arguments.features else made_up_features()
    client = Client(arguments.host, arguments.port)
    create(client)
    try:
        write(client, paths, features)
        print(f"{len(paths)} images written; the {arguments.topk} nearest of each:")
        found = query_all(client, paths, features, arguments.topk)
        print(f"\n{found} of {len(paths)} images find themselves first.\n\nDeleting some:")
        all_gone = delete_some(client, paths, features)
        print("\nLooking around:")
        show(client, paths)
    finally:
        if arguments.keep:
            print(f"\nThe collection {COLLECTION!r} stays on the server.")
        else:
            succeed("drop_collection", client.drop_collection(COLLECTION))
        client.close()
    return 0 if found == len(paths) and all_gone else 1


if __name__ == "__main__":
    sys.exit(main())
