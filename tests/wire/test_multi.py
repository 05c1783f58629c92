"""Columns whose rows have several vectors, through the stock client: what is found and how rows are ranked by several
query vectors equals plain numpy, sealed or not, after a restart, and in the files."""

import faiss
import numpy as np
import pyarrow as pa
import pytest
from pyproximabe import CollectionConfig, DataType, IndexColumnParam, WriteRequest

from proxima import FP32, column, collection, accepted, insert, pack, refused, refused_because, writing
from sealing import all_sealed, files_of
from server import eventually

DIMENSION = 16
ROWS = 240
#: Seals every 1,500 vectors; sealed ones are indexed as soon as 2,000 wait for it.
SETTINGS = {"segment.seal_rows_max": 1500, "segment.graph_rows_min": 2000}
INSERT, UPDATE, DELETE = (WriteRequest.OperationType[n] for n in ("INSERT", "UPDATE", "DELETE"))


def pictures(seed):
    """Key -> descriptors: one to forty for each, near some words."""
    random = np.random.default_rng(seed)
    words = random.standard_normal((60, DIMENSION)).astype(np.float32) * 2
    noise = lambda count: random.standard_normal((count, DIMENSION)).astype(np.float32) * 0.4
    return {key: words[random.integers(0, 60, count)] + noise(count)
            for key, count in enumerate(random.integers(1, 41, ROWS))}


def create(client, name, params):
    columns = [IndexColumnParam("sift", DIMENSION, data_type=DataType.VECTOR_FP32, extra_params=params)]
    status = client.create_collection(CollectionConfig(name, columns, ["path"]))
    assert status.ok(), status


def write(client, name, rows):
    """Rows of (operation, key, descriptors), some of them as text."""
    meta = WriteRequest.RowMeta([WriteRequest.IndexColumnMeta("sift", DataType.VECTOR_FP32, DIMENSION)],
                                ["path"], [DataType.STRING])

    def value(key, own):
        return str(own.tolist()) if key % 7 == 0 else own.astype("<f4").tobytes()

    for first in range(0, len(rows), 40):
        batch = [WriteRequest.Row(key, operation, [value(key, own)], [f"{key}.jpg"])
                 for operation, key, own in rows[first:first + 40]]
        status = client.write(WriteRequest(name, batch, meta))
        assert status.ok(), status


def ask(client, name, queries, topk=10, **params):
    status, response = client.query(
        name, "sift", queries.astype("<f4").tobytes(), data_type=DataType.VECTOR_FP32, dimension=DIMENSION,
        batch_count=len(queries), topk=topk, extra_params={k: str(v) for k, v in params.items()})
    assert status.ok(), status
    for result in response.results:
        assert all(d.forward_column_values["path"] == f"{d.primary_key}.jpg" for d in result)
    return [[(d.primary_key, d.score) for d in result] for result in response.results]


class Numpy:
    """The same answers by brute force over all descriptors."""

    def __init__(self, rows):
        self.keys = np.concatenate([np.full(len(own), key) for key, own in rows.items()])
        self.stored = np.concatenate(list(rows.values())).astype(np.float64)

    def distances(self, query):
        return ((self.stored - query.astype(np.float64)) ** 2).sum(1)

    def best(self, query):
        """Key -> the least distance of any of its descriptors."""
        best = {}
        for key, distance in zip(self.keys.tolist(), self.distances(query).tolist()):
            best[key] = min(distance, best.get(key, np.inf))
        return best

    def nearest(self, query, topk):
        return sorted(self.best(query).items(), key=lambda row: (row[1], row[0]))[:topk]

    def votes(self, queries, k, topk, min_votes=1):
        tally = {}
        for query in queries:
            distances = self.distances(query)
            first = {}
            for place in np.lexsort((self.keys, distances))[:k]:
                first.setdefault(int(self.keys[place]), distances[place])
            for key, distance in first.items():
                votes, total = tally.get(key, (0, 0.0))
                tally[key] = votes + 1, total + distance
        ranked = sorted((-votes, total, key) for key, (votes, total) in tally.items() if votes >= min_votes)
        return [(key, float(score)) for score, _, key in ranked[:topk]]

    def ranked(self, queries, topk, together):
        rows = [self.best(query) for query in queries]
        scores = {key: together(row[key] for row in rows) for key in rows[0]}
        return sorted(scores.items(), key=lambda row: (row[1], row[0]))[:topk]


def same(found, expected):
    assert [key for key, _ in found] == [key for key, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=2e-5, atol=1e-4)


def check(client, name, rows, seed, **params):
    model, random = Numpy(rows), np.random.default_rng(seed)
    for count in (1, 2, 25):
        queries = np.array([own[0] for own in random.choice(np.array(list(rows.values()), dtype=object), count)])
        queries = (queries + random.standard_normal(queries.shape) * 0.2).astype(np.float32)
        lists = ask(client, name, queries, **params)
        assert len(lists) == count
        for query, found in zip(queries, lists):
            same(found, model.nearest(query, 10))
        for k, minimum in ((1, 1), (10, 2), (300, 1)):
            [found] = ask(client, name, queries, aggregation="votes", k_per_vector=k, min_votes=minimum, **params)
            assert found == model.votes(queries, k, 10, minimum), f"{count} vectors, {k}"
        [found] = ask(client, name, queries, aggregation="max_sim", **params)
        same(found, model.ranked(queries, 10, sum))
        [found] = ask(client, name, queries, aggregation="min_distance", **params)
        same(found, model.ranked(queries, 10, min))


def test_rows_are_found_and_ranked_as_by_plain_numpy(client, name):
    create(client, name, {"multi": "true"})
    rows = pictures(1)
    write(client, name, [(INSERT, key, own) for key, own in rows.items()])
    check(client, name, rows, 2)
    for key in range(0, ROWS, 9):
        rows[key] = rows[key][::-1][:3] + np.float32(0.5)
    write(client, name, [(UPDATE, key, rows[key]) for key in range(0, ROWS, 9)])
    assert client.delete_document_by_keys(name, list(range(5, ROWS, 10))).ok()
    rows = {key: own for key, own in rows.items() if key % 10 != 5}
    check(client, name, rows, 3)
    described = client.describe_collection(name)[1].collection_config.index_column_params[0]
    assert described.extra_params["multi"] == "true"


@pytest.mark.parametrize("params", [{}, {"index_type": "HNSW"}, {"index_type": "IVF_FLAT", "nlist": "16"}],
                         ids=["default", "HNSW", "IVF_FLAT"])
def test_sealed_rows_answer_the_same_after_a_restart_and_lie_in_open_files(start_server, params):
    own = start_server(settings=SETTINGS)
    client = own.client()
    create(client, "c", {"multi": "true", "multi_max": "40", **params})
    rows = pictures(4)
    write(client, "c", [(INSERT, key, descriptors) for key, descriptors in rows.items()])
    all_sealed(own.wire(), "c", documents=ROWS)
    eventually(lambda: files_of(own, "segment-*/0.faiss"), 60.0, "an index")
    check(client, "c", rows, 5, exact="true")
    own.restart()
    client = own.client()
    check(client, "c", rows, 6, exact="true")

    # By the index: as many, the same scores, and nearly all of the same rows.
    model, random = Numpy(rows), np.random.default_rng(7)
    good = 0
    for key in random.integers(0, ROWS, 30):
        query = rows[int(key)][:1] + random.standard_normal((1, DIMENSION)).astype(np.float32) * 0.2
        [found] = ask(client, "c", query)
        best = model.best(query[0])
        np.testing.assert_allclose([s for _, s in found], [best[k] for k, _ in found], rtol=2e-5, atol=1e-4)
        good += len({k for k, _ in found} & {k for k, _ in model.nearest(query[0], 10)})
        assert len(found) == 10
    assert good / 300 >= 0.95

    # The files: lists of vectors for each row, and an index of all vectors.
    all_sealed(own.wire(), "c", documents=ROWS)
    own.stop()
    read = {}
    for path in files_of(own, "segment-*/rows.arrow"):
        table = pa.ipc.open_file(str(path)).read_all()
        assert table.schema.field("sift").type == pa.large_list(
            pa.field("item", pa.list_(pa.field("item", pa.float32(), False), DIMENSION), False))
        assert table.schema.metadata[b"voisin.format"] == b"2"
        for key, vectors in zip(table["_key"].to_pylist(), table["sift"].to_pylist()):
            read[key] = np.array(vectors, np.float32)
    assert read.keys() == rows.keys()
    assert all(np.array_equal(read[key], rows[key]) for key in rows)
    indexes = [faiss.read_index(str(path)) for path in files_of(own, "segment-*/0.faiss")]
    assert sum(index.ntotal for index in indexes) <= sum(map(len, rows.values()))
    assert max(index.ntotal for index in indexes) >= 2000


def test_what_does_not_fit_is_refused(start_server):
    own = start_server(settings={"limits.row_vectors_max": 5, "limits.query_results_max": 50})
    wire, client = own.wire(), own.client()
    refused(wire.create_collection(collection("bad", column("v", params={"multi": "perhaps"}))), -1004)
    refused(wire.create_collection(collection("bad", column("v", params={"multi_max": "3"}))), -1004)
    accepted(wire.create_collection(collection("c", column("v", params={"multi": "true"}))))
    accepted(wire.create_collection(collection("few", column("v", params={"multi": "True", "multi_max": "2"}))))
    accepted(wire.create_collection(collection("one")))
    vector = pack(FP32, [1, 2])
    accepted(wire.write(writing("c", insert(1, vector * 5), insert(2, vector))))
    accepted(wire.write(writing("few", insert(1, "[[1,2],[3,4]]"))))
    refused_because(wire.write(writing("c", insert(3, vector * 6))), -1010, "limits.row_vectors_max", 6, 5)
    refused(wire.write(writing("few", insert(3, vector * 3))), -2023)
    refused(wire.write(writing("one", insert(3, vector * 2))), -2023)
    for odd in (b"", vector[:4], vector + vector[:4], "[]", "[1,2,3]", "[[1,2],[3]]"):
        refused(wire.write(writing("c", insert(3, odd))), -2023)

    def status(queries, **params):
        return client.query("c", "v", vector * queries, data_type=DataType.VECTOR_FP32, dimension=2,
                            batch_count=queries, topk=2, extra_params=params)[0]

    for params in ({"aggregation": "vote"}, {"aggregation": "votes", "min_votes": "0"},
                   {"aggregation": "max_sim", "min_votes": "1"}, {"min_votes": "1"}, {"k_per_vector": "x"}):
        assert status(1, **params).code == -2010, params
    assert status(9, aggregation="votes", k_per_vector="6").code == -1010
    assert status(8, aggregation="votes", k_per_vector="6").ok()
