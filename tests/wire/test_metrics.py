"""Scores: exact for every metric and type, smaller is nearer, in growing and in sealed segments."""

import numpy as np
import pytest

from proxima import (
    BINARY32, BINARY64, FP16, FP32, INT4, INT8, INT16, TYPE_NAMES, accepted, collection, column, hits, insert, knn,
    named, pack, refused, writing,
)
from sealing import all_sealed

NUMBERS = {
    "SquaredEuclidean": lambda rows, q: ((rows - q) ** 2).sum(1),
    "Euclidean": lambda rows, q: np.sqrt(((rows - q) ** 2).sum(1)),
    "InnerProduct": lambda rows, q: -(rows @ q),
    "Cosine": lambda rows, q: 1 - (rows @ q) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(q)),
    "Manhattan": lambda rows, q: np.abs(rows - q).sum(1),
}
BITS = {
    "Hamming": lambda rows, q: np.bitwise_count(rows ^ q).sum(1).astype(float),
    "SquaredEuclidean": lambda rows, q: np.bitwise_count(rows ^ q).sum(1).astype(float),
}
DIMENSION, BIT_DIMENSION, ROWS, TOPK = 16, 256, 220, 10


def vectors_of(data_type, rows, seed):
    """Distinct small vectors that every type of its kind can hold, as numbers or as words."""
    random = np.random.default_rng(seed)
    if data_type in (BINARY32, BINARY64):
        word = {BINARY32: np.uint32, BINARY64: np.uint64}[data_type]
        bits = random.integers(0, 256, (rows, BIT_DIMENSION // 8), np.uint8)
        return np.ascontiguousarray(bits).view(word)
    return random.integers(-8, 8, (rows, DIMENSION)).astype(np.float64)


CASES = [(t, m) for t in (FP32, FP16, INT8, INT16, INT4) for m in NUMBERS]
CASES += [(t, m) for t in (BINARY32, BINARY64) for m in BITS]
EVERY_CASE = pytest.mark.parametrize("data_type, metric", CASES, ids=[f"{TYPE_NAMES[t]}-{m}" for t, m in CASES])


@pytest.fixture(scope="module")
def sealing_server(tmp_path_factory):
    """Seals every 50 rows, and gives every sealed segment of 20 rows a graph."""
    from server import Server

    settings = {"segment.seal_rows_max": 50, "segment.graph_rows_min": 20}
    own = Server(tmp_path_factory.mktemp("metrics") / "data", settings=settings).start()
    yield own
    own.kill()


def load(wire, name, data_type, metric):
    dimension = BIT_DIMENSION if data_type in (BINARY32, BINARY64) else DIMENSION
    params = {"metric_type": metric}
    accepted(wire.create_collection(collection(name, column(dimension=dimension, data_type=data_type, params=params))))
    vectors = vectors_of(data_type, ROWS, seed=1)
    rows = [insert(key, pack(data_type, vector)) for key, vector in enumerate(vectors)]
    accepted(wire.write(writing(name, *rows, metas=[("v", data_type, dimension)])))
    return vectors, dimension


def check(wire, name, data_type, metric, vectors, dimension, is_linear):
    """Every score is the exact one of its row, results ascend, and linear queries find the nearest."""
    expect = (BITS if data_type in (BINARY32, BINARY64) else NUMBERS)[metric]
    tolerance = dict(rel=1e-6, abs=1e-6)
    found_nearest = 0
    queries = vectors_of(data_type, 10, seed=2)
    for query in queries:
        request = knn(name, pack(data_type, query), topk=TOPK, dimension=dimension, data_type=data_type,
                      is_linear=is_linear)
        (result,) = hits(wire.query(request))
        exact = expect(vectors, query)
        scores = [score for _, score in result]
        assert len(result) == TOPK == len({key for key, _ in result})
        assert scores == sorted(scores), "smaller scores come first for every metric"
        for key, score in result:
            assert score == pytest.approx(exact[key], **tolerance), f"score of row {key}"
            if exact[key] == int(exact[key]) and metric != "Cosine":
                assert score == exact[key], "whole scores are exact"
        nearest = np.sort(exact)[:TOPK]
        if is_linear:
            assert scores == pytest.approx(nearest, **tolerance)
        found_nearest += sum(score <= nearest[-1] + 1e-6 for score in scores)
    assert found_nearest / (TOPK * len(queries)) >= 0.95


@EVERY_CASE
def test_scores_of_growing_segments(wire, name, data_type, metric):
    vectors, dimension = load(wire, name, data_type, metric)
    for is_linear in (True, False):
        check(wire, name, data_type, metric, vectors, dimension, is_linear)


@EVERY_CASE
def test_scores_of_sealed_segments_are_the_same(sealing_server, handler, data_type, metric):
    wire, name = sealing_server.wire(), f"{TYPE_NAMES[data_type]}-{metric}-{handler}"
    vectors, dimension = load(wire, name, data_type, metric)
    all_sealed(wire, name, documents=200)
    for is_linear in (True, False):
        check(wire, name, data_type, metric, vectors, dimension, is_linear)


# ----- the documented examples, number by number -----

POINTS = {1: [3, 4], 2: [3, 0], 3: [6, 8], 4: [-3, -4], 5: [0, 0]}
DOCUMENTED = {
    "SquaredEuclidean": [(1, 0.0), (2, 16.0), (3, 25.0), (5, 25.0), (4, 100.0)],
    "Euclidean": [(1, 0.0), (2, 4.0), (3, 5.0), (5, 5.0), (4, 10.0)],
    "InnerProduct": [(3, -50.0), (1, -25.0), (2, -9.0), (5, 0.0), (4, 25.0)],
    "Manhattan": [(1, 0.0), (2, 4.0), (3, 7.0), (5, 7.0), (4, 14.0)],
}


@pytest.mark.parametrize("metric", DOCUMENTED)
def test_documented_scores(wire, name, metric):
    accepted(wire.create_collection(collection(name, column(params={"metric_type": metric}))))
    accepted(wire.write(writing(name, *(insert(k, v) for k, v in POINTS.items()))))
    (result,) = hits(wire.query(knn(name, [3, 4])))
    assert sorted(result, key=lambda hit: (hit[1], hit[0])) == DOCUMENTED[metric]


@pytest.mark.parametrize("metric", DOCUMENTED)
def test_a_query_may_ask_for_another_metric_than_its_columns(wire, name, metric):
    accepted(wire.create_collection(collection(name, column(params={"metric_type": "Cosine"}))))
    accepted(wire.write(writing(name, *(insert(k, v) for k, v in POINTS.items()))))
    (result,) = hits(wire.query(knn(name, [3, 4], params={"metric_type": metric})))
    assert sorted(result, key=lambda hit: (hit[1], hit[0])) == DOCUMENTED[metric]
    for wrong in ("L2", "Hamming"):
        refused(wire.query(knn(name, [3, 4], params={"metric_type": wrong})), -2010)


def test_cosine_is_one_minus_the_cosine(wire, name):
    accepted(wire.create_collection(collection(name, column(params={"metric_type": "Cosine"}))))
    accepted(wire.write(writing(name, *(insert(k, v) for k, v in POINTS.items()))))
    found = dict(hits(wire.query(knn(name, [3, 4])))[0])
    assert found == pytest.approx({1: 0.0, 2: 0.4, 3: 0.0, 4: 2.0, 5: 1.0}, abs=1e-6)


def test_the_default_metric_is_squared_euclidean(wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, insert(1, [3, 4]))))
    assert hits(wire.query(knn(name, [0, 0]))) == [[(1, 25.0)]]


@pytest.mark.parametrize("data_type, dimension", [(BINARY32, 32), (BINARY64, 64)], ids=["BINARY32", "BINARY64"])
@pytest.mark.parametrize("metric", ["Hamming", "SquaredEuclidean", None])
def test_bit_types_count_the_bits_that_differ(wire, name, data_type, dimension, metric):
    params = {"metric_type": metric} if metric else {}
    accepted(wire.create_collection(collection(name, column(dimension=dimension, data_type=data_type, params=params))))
    rows = [insert(n, f"[{n}]") for n in range(1, 21)]
    accepted(wire.write(writing(name, *rows, metas=[("v", data_type, dimension)])))
    request = knn(name, pack(data_type, [1]), topk=20, dimension=dimension, data_type=data_type)
    (result,) = hits(wire.query(request))
    assert dict(result) == {n: float(bin(n ^ 1).count("1")) for n in range(1, 21)}


def test_a_zero_vector_has_an_answer_for_every_metric(wire, name):
    for metric in NUMBERS:
        one = f"{name}-{metric}"
        accepted(wire.create_collection(collection(one, column(params={"metric_type": metric}))))
        accepted(wire.write(writing(one, insert(1, [0, 0]), insert(2, [1, 0]))))
        found = dict(hits(wire.query(knn(one, [0, 0])))[0])
        wire.drop_collection(named(one))
        assert set(found) == {1, 2}
        assert all(np.isfinite(score) for score in found.values()), metric


def test_metric_names_are_case_sensitive(wire, name):
    for wrong in ("squaredeuclidean", "EUCLIDEAN", "innerproduct", "hamming"):
        status = wire.create_collection(collection(name, column(params={"metric_type": wrong})))
        assert -1000 < status.code < 0, wrong
    refused(wire.query(knn(name, [0, 0])), -4002)
