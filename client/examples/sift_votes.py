#!/usr/bin/env python3
"""Which picture is it? Local descriptors vote: SIFT by OpenCV, one row per picture, many vectors per row.

    pip install pyproximabe==0.2.* 'protobuf<4' grpcio requests orjson numpy opencv-python-headless
    python client/examples/sift_votes.py
    python client/examples/sift_votes.py --data FOLDER

FOLDER has the pictures to be found in `train` and those to ask with in `test`. A picture's class is its file's name
up to the last underscore: `003_ant_image_0002.jpg` is of class `003_ant_image`. Without --data, pictures are drawn.

Each descriptor of a test picture votes for the pictures that have one of its k nearest descriptors, once for each
picture. The same vote is counted in plain numpy beside it. Exits with 1 when the two rankings differ anywhere, or the
server refuses something.
"""

import argparse
import pathlib
import sys

import cv2
import numpy as np
from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest

COLLECTION = "sift_votes"
DIMENSION = 128
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def drawn_pictures(classes=8, seed=5):
    """Two lists of (name, grey picture): of every class some to be found, and one to ask with."""
    random = np.random.default_rng(seed)
    train, test = [], []
    for number in range(classes):
        scene = np.full((300, 300), 128, np.uint8)
        for _ in range(40):
            points = random.integers(20, 280, 2) + random.integers(-60, 60, (random.integers(3, 7), 2))
            cv2.fillPoly(scene, [points.astype(np.int32)], int(random.integers(0, 256)))
        for copy in range(4):
            turn = cv2.getRotationMatrix2D((150, 150), random.uniform(-25, 25), random.uniform(0.8, 1.2))
            picture = cv2.warpAffine(scene, turn, (300, 300), borderMode=cv2.BORDER_REFLECT).astype(np.float64)
            picture = picture * random.uniform(0.8, 1.0) + random.normal(0, 4, picture.shape)
            name = f"scene{number}_{copy}.png"
            (test if copy == 0 else train).append((name, np.clip(picture, 0, 255).astype(np.uint8)))
    return train, test


def read_pictures(folder):
    """The pictures of a folder, grey, by name."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise SystemExit(f"{folder}: no pictures there")
    pictures = [(path.name, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in paths]
    for name, picture in pictures:
        if picture is None:
            raise SystemExit(f"{folder / name}: not a picture that OpenCV reads")
    return pictures


def descriptors_of(pictures, count):
    """The names of pictures, and the `count` strongest SIFT descriptors of each."""
    sift = cv2.SIFT_create(nfeatures=count)
    names, descriptors = [], []
    for name, picture in pictures:
        points, found = sift.detectAndCompute(picture, None)
        if found is None:
            print(f"{name} has no descriptors and is left out")
            continue
        strongest = np.argsort([-point.response for point in points], kind="stable")[:count]
        names.append(name)
        descriptors.append(np.ascontiguousarray(found[strongest], dtype="<f4"))
    return names, descriptors


def class_of(name):
    return pathlib.Path(name).stem.rpartition("_")[0]


def succeed(what, status):
    """Stops the walk at the first call that the server refuses."""
    if not status.ok():
        raise SystemExit(f"{what}: {status}")


def create(client, most):
    """One column of descriptors, of which a row has up to `most`, and the picture's name."""
    succeed("create_collection", client.create_collection(CollectionConfig(
        collection_name=COLLECTION,
        index_column_params=[IndexColumnParam("sift", DIMENSION, data_type=DataType.VECTOR_FP32, extra_params={
            "multi": "true", "multi_max": str(most), "metric_type": "SquaredEuclidean"})],
        forward_column_names=["picture"])))


def write(client, names, descriptors):
    """One row for each picture; its descriptors go as they lie in memory, one after the other."""
    row_meta = WriteRequest.RowMeta(
        index_column_metas=[WriteRequest.IndexColumnMeta("sift", DataType.VECTOR_FP32, DIMENSION)],
        forward_column_names=["picture"], forward_column_types=[DataType.STRING])
    for key, (name, own) in enumerate(zip(names, descriptors)):
        row = WriteRequest.Row(primary_key=key, operation_type=WriteRequest.OperationType.INSERT,
                               index_column_values=[own.tobytes()], forward_column_values=[name])
        succeed("write", client.write(WriteRequest(COLLECTION, [row], row_meta)))


def voted(client, own, k, topk):
    """[(picture, votes)] of the server, most first. The score is minus the votes."""
    status, response = client.query(
        COLLECTION, "sift", own.tobytes(), data_type=DataType.VECTOR_FP32, dimension=DIMENSION, batch_count=len(own),
        topk=topk, extra_params={"aggregation": "votes", "k_per_vector": str(k), "exact": "true"})
    succeed("query", status)
    return [(hit.forward_column_values["picture"], int(-hit.score)) for hit in response.results[0]]


def counted(names, descriptors, own, k, topk):
    """The same by brute force: the k nearest of all descriptors, the set of their pictures, and a count."""
    keys = np.concatenate([np.full(len(stored), key) for key, stored in enumerate(descriptors)])
    stored = np.concatenate(descriptors).astype(np.float64)
    votes, distances = np.zeros(len(names), int), np.zeros(len(names))
    for descriptor in own.astype(np.float64):
        away = ((stored - descriptor) ** 2).sum(axis=1)
        nearest = np.lexsort((keys, away))[:k]
        for key in set(keys[nearest].tolist()):
            votes[key] += 1
            distances[key] += away[nearest][keys[nearest] == key].min()
    ranked = sorted(np.flatnonzero(votes), key=lambda key: (-votes[key], distances[key], key))
    return [(names[key], int(votes[key])) for key in ranked[:topk]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=16000)
    parser.add_argument("--data", type=pathlib.Path, metavar="FOLDER", help="pictures; drawn when left out")
    parser.add_argument("--descriptors", type=int, default=100, help="of each picture, at most")
    parser.add_argument("--k", type=int, default=10, help="nearest descriptors that each descriptor votes for")
    parser.add_argument("--topk", type=int, default=5, help="pictures shown for each test picture")
    parser.add_argument("--keep", action="store_true", help="leave the collection on the server")
    arguments = parser.parse_args()

    train, test = drawn_pictures()
    if arguments.data:
        train, test = read_pictures(arguments.data / "train"), read_pictures(arguments.data / "test")
    names, descriptors = descriptors_of(train, arguments.descriptors)
    asked = list(zip(*descriptors_of(test, arguments.descriptors)))
    everything = len(names)

    client = Client(arguments.host, arguments.port)
    create(client, arguments.descriptors)
    same = by_server = by_numpy = 0
    try:
        write(client, names, descriptors)
        print(f"{everything} pictures with {sum(map(len, descriptors))} descriptors written.")
        for name, own in asked:
            found = voted(client, own, arguments.k, everything)
            expected = counted(names, descriptors, own, arguments.k, everything)
            same += found == expected
            by_server += bool(found) and class_of(found[0][0]) == class_of(name)
            by_numpy += bool(expected) and class_of(expected[0][0]) == class_of(name)
            print(f"\n{name}: {len(own)} descriptors vote\n  {'server':<44} numpy")
            for (picture, votes), (other, count) in list(zip(found, expected))[:arguments.topk]:
                shown = f"{picture:<30} {votes:>3} = {100 * votes / len(own):.0f}%"
                print(f"  {shown:<44} {other:<30} {count:>3}")
            if found != expected:
                print("  THE RANKINGS DIFFER")
    finally:
        if arguments.keep:
            print(f"\nThe collection {COLLECTION!r} stays on the server.")
        else:
            succeed("drop_collection", client.drop_collection(COLLECTION))
        client.close()
    print(f"\n{same} of {len(asked)} rankings are those of numpy. "
          f"The own class comes first for {by_server} of {len(asked)} pictures (numpy: {by_numpy}).")
    return 0 if same == len(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
