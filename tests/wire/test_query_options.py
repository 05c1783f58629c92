"""What stock clients reach of queries beyond the nearest rows: by text parameters."""

import numpy as np
import pytest
from pyproximabe import CollectionConfig, DataType, IndexColumnParam, WriteRequest

from proxima import FP32, accepted, collection, column, hits, insert, knn, refused, writing

ROWS, DIMENSION = 300, 8
METRICS = ("SquaredEuclidean", "Euclidean", "InnerProduct", "Cosine", "Manhattan")


def elasticsearch(metric, rows, query):
    """The formulas of Elasticsearch's script_score examples."""
    dot = rows @ query
    return {
        "SquaredEuclidean": lambda: 1 / (1 + np.linalg.norm(rows - query, axis=1)),
        "Euclidean": lambda: 1 / (1 + np.linalg.norm(rows - query, axis=1)),
        "InnerProduct": lambda: 1 / (1 + np.e ** -dot),
        "Cosine": lambda: dot / np.linalg.norm(rows, axis=1) / np.linalg.norm(query) + 1,
        "Manhattan": lambda: 1 / (1 + np.abs(rows - query).sum(1)),
    }[metric]()


def milvus(metric, rows, query):
    """What Milvus returns for L2, IP and COSINE."""
    dot = rows @ query
    return {
        "SquaredEuclidean": lambda: ((rows - query) ** 2).sum(1),
        "Euclidean": lambda: ((rows - query) ** 2).sum(1),
        "InnerProduct": lambda: dot,
        "Cosine": lambda: dot / np.linalg.norm(rows, axis=1) / np.linalg.norm(query),
        "Manhattan": lambda: np.abs(rows - query).sum(1),
    }[metric]()


def vectors():
    return np.random.default_rng(5).uniform(-1, 1, (ROWS, DIMENSION)).astype(np.float32)


@pytest.fixture
def photos(wire, name):
    """A collection with a label that ten rows share, for every metric by parameter."""
    accepted(wire.create_collection(collection(name, column(dimension=DIMENSION), forward_names=["label"])))
    rows = [insert(key, list(map(float, vector)), values=[f"{key % 30}"]) for key, vector in enumerate(vectors())]
    accepted(wire.write(writing(name, *rows, metas=[("v", FP32, DIMENSION)], forward_names=["label"])))
    return name


def ask(wire, name, query, topk=10, radius=0.0, **params):
    answer = wire.query(knn(name, list(map(float, query)), topk=topk, dimension=DIMENSION, radius=radius,
                            params={key: str(value) for key, value in params.items()}))
    return answer


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [elasticsearch, milvus], ids=["elasticsearch", "milvus"])
def test_scores_of_other_systems_come_nearest_first(wire, photos, metric, shape):
    query = vectors()[7] + np.float32(0.1)
    [plain] = hits(ask(wire, photos, query, metric_type=metric))
    [shaped] = hits(ask(wire, photos, query, metric_type=metric, score=shape.__name__))
    assert [key for key, _ in shaped] == [key for key, _ in plain]
    expected = shape(metric, vectors().astype(np.float64), query.astype(np.float64))
    np.testing.assert_allclose([score for _, score in shaped], [expected[key] for key, _ in shaped], atol=1e-5)


def test_a_stock_client_reads_scores_of_other_systems(client, name):
    config = CollectionConfig(name, [IndexColumnParam("v", 2, data_type=DataType.VECTOR_FP32,
                                                      extra_params={"metric_type": "Cosine"})], [])
    assert client.create_collection(config).ok()
    meta = WriteRequest.RowMeta([WriteRequest.IndexColumnMeta("v", DataType.VECTOR_FP32, 2)])
    rows = [WriteRequest.Row(primary_key=key, operation_type=WriteRequest.OperationType.INSERT,
                             index_column_values=[vector])
            for key, vector in enumerate([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])]
    assert client.write(WriteRequest(name, rows, meta)).ok()
    status, answer = client.query(name, "v", [[2.0, 0.0]], data_type=DataType.VECTOR_FP32, topk=5,
                                  extra_params={"score": "elasticsearch"})
    assert status.ok()
    assert [hit.primary_key for hit in answer.results[0]] == [0, 1, 2]
    assert [hit.score for hit in answer.results[0]] == pytest.approx([2.0, 1.6, 0.0], abs=1e-6)


def test_rows_too_near_are_left_out(wire, photos):
    query = vectors()[7]
    [ranked] = hits(ask(wire, photos, query, topk=ROWS))
    least, most = ranked[20][1], ranked[40][1]
    [between] = hits(ask(wire, photos, query, topk=ROWS, radius=most, radius_min=least))
    assert between == ranked[20:41]
    # Radii are distances, whatever the scores are.
    [shaped] = hits(ask(wire, photos, query, topk=ROWS, radius=most, radius_min=least, score="elasticsearch"))
    assert [key for key, _ in shaped] == [key for key, _ in between]


def test_the_nearest_rows_of_each_label_are_found(wire, photos):
    query = vectors()[7]
    [ranked] = hits(ask(wire, photos, query, topk=ROWS))
    for size in (1, 3):
        groups = {}
        for key, score in ranked:
            rows = groups.setdefault(key % 30, [])
            if len(rows) < size:
                rows.append((key, score))
        for topk in (1, 7, 30, 100):
            [found] = hits(ask(wire, photos, query, topk=topk, group_by="label", group_size=size))
            assert found == [row for rows in list(groups.values())[:topk] for row in rows]


@pytest.mark.parametrize("params, word", [
    ({"score": "golf"}, "golf"),
    ({"radius_min": "near"}, "near"),
    ({"group_size": 2}, "group_by"),
    ({"group_by": "label", "group_size": -1}, "-1"),
])
def test_what_means_nothing_is_refused(wire, photos, params, word):
    answer = ask(wire, photos, vectors()[0], **params)
    refused(answer, -2010)


def test_groups_of_a_column_that_does_not_exist_are_refused(wire, photos):
    refused(ask(wire, photos, vectors()[0], group_by="colour"), -4003)


def test_topk_0_with_a_radius_still_finds_nothing(wire, photos):
    assert hits(ask(wire, photos, vectors()[0], topk=0, radius=100.0)) == [[]]
