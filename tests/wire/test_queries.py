"""Queries that succeed: what is found, in which order, and what else the answer carries."""

import json

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    FP32, accepted, collection, column, delete, forwards, hits, insert, keys, knn, pack, status_of, update, writing,
)

EXACT_AND_GRAPH = pytest.mark.parametrize("is_linear", [False, True], ids=["graph", "linear"])


@pytest.fixture
def made(wire, name):
    """Keys 1 to 20 at (key, 0), with forward columns a and b."""
    accepted(wire.create_collection(collection(name, forward_names=["a", "b"])))
    rows = [insert(k, [k, 0], values=[f"a{k}", k]) for k in range(1, 21)]
    accepted(wire.write(writing(name, *rows, forward_names=["a", "b"])))
    return name


@EXACT_AND_GRAPH
def test_the_nearest_come_first_with_their_scores_and_forward_values(wire, made, is_linear):
    answer = accepted(wire.query(knn(made, [1, 1], topk=10, is_linear=is_linear)))
    (result,) = answer.results
    assert [(d.primary_key, d.score) for d in result.documents] == [(k, 1.0 + (k - 1) ** 2) for k in range(1, 11)]
    for document in result.documents:
        k = document.primary_key
        assert list(forwards(document).items()) == [("a", ("string_value", f"a{k}")), ("b", ("int64_value", k))]


@EXACT_AND_GRAPH
@pytest.mark.parametrize("topk, found", [(0, 0), (1, 1), (19, 19), (20, 20), (21, 20), (100, 20), (100_000, 20)])
def test_topk_bounds_the_documents_from_none_to_all(wire, made, topk, found, is_linear):
    assert keys(wire.query(knn(made, [0, 0], topk=topk, is_linear=is_linear))) == [list(range(1, found + 1))]


def test_the_largest_topk_is_answered_or_refused_but_takes_no_memory(wire, made):
    answer = wire.query(knn(made, [0, 0], topk=2**32 - 1))
    if status_of(answer).code == 0:
        assert keys(answer) == [list(range(1, 21))]
    else:
        assert status_of(answer).code == -1010
    assert keys(wire.query(knn(made, [0, 0], topk=1))) == [[1]]


@EXACT_AND_GRAPH
def test_a_batch_has_one_result_per_query_vector_in_order(wire, made, is_linear):
    wanted = [7, 3, 20, 3, 11]
    features = b"".join(pack(FP32, [k, 0]) for k in wanted)
    request = knn(made, features, topk=1, batch_count=len(wanted), is_linear=is_linear)
    assert hits(wire.query(request)) == [[(k, 0.0)] for k in wanted]
    request = knn(made, matrix=json.dumps([[k, 0] for k in wanted]), topk=1, batch_count=len(wanted))
    assert hits(wire.query(request)) == [[(k, 0.0)] for k in wanted]


def test_no_query_vectors_have_no_results(wire, made):
    answer = accepted(wire.query(knn(made, b"", batch_count=0)))
    assert len(answer.results) == 0


@pytest.mark.parametrize("matrix", ["[5,0]", "[[5,0]]", " [ 5.0 , 0e0 ] ", "[\n5,\n0]"])
def test_one_vector_as_text_may_be_flat_or_nested(wire, made, matrix):
    assert hits(wire.query(knn(made, matrix=matrix, topk=1))) == [[(5, 0.0)]]


@pytest.mark.parametrize("data_type", [FP32, 0], ids=["FP32", "undefined"])
@pytest.mark.parametrize("dimension", [2, 0])
@pytest.mark.parametrize("form", ["features", "matrix"])
def test_type_and_dimension_left_out_are_the_columns(wire, made, data_type, dimension, form):
    query = {"features": dict(features=[5, 0]), "matrix": dict(matrix="[5,0]")}[form]
    assert keys(wire.query(knn(made, topk=1, data_type=data_type, dimension=dimension, **query))) == [[5]]


# ----- radius -----


@EXACT_AND_GRAPH
@pytest.mark.parametrize("radius, found", [
    (0.5, [10]), (0.9, [10]), (1.0, [9, 10, 11]), (3.9, [9, 10, 11]), (4.0, [8, 9, 10, 11, 12]),
    (0.0, list(range(1, 21))), (-1.0, list(range(1, 21))),
])
def test_radius_keeps_documents_up_to_and_including_it(wire, made, radius, found, is_linear):
    (result,) = keys(wire.query(knn(made, [10, 0], topk=100, radius=radius, is_linear=is_linear)))
    assert sorted(result) == found


def test_radius_and_topk_hold_together(wire, made):
    assert keys(wire.query(knn(made, [10, 0], topk=1, radius=4.0))) == [[10]]


def test_radius_is_compared_with_the_score_of_the_metric(wire, name):
    for metric, radius, found in [("Euclidean", 2.0, [8, 9, 10, 11, 12]), ("Manhattan", 2.0, [8, 9, 10, 11, 12]),
                                  ("InnerProduct", 0.5, list(range(1, 21)))]:
        one = f"{name}-{metric}"
        accepted(wire.create_collection(collection(one, column(params={"metric_type": metric}))))
        accepted(wire.write(writing(one, *(insert(k, [k, 0]) for k in range(1, 21)))))
        (result,) = keys(wire.query(knn(one, [10, 0], topk=100, radius=radius)))
        wire.drop_collection(be.CollectionName(collection_name=one))
        assert sorted(result) == found, metric


# ----- what never appears -----


@pytest.mark.parametrize("batch_count", [1, 3])
def test_an_empty_collection_has_one_empty_result_per_query_vector(wire, name, batch_count):
    accepted(wire.create_collection(collection(name)))
    for is_linear in (False, True):
        request = knn(name, pack(FP32, [0, 0]) * batch_count, batch_count=batch_count, is_linear=is_linear)
        assert keys(wire.query(request)) == [[]] * batch_count


@EXACT_AND_GRAPH
def test_deleted_documents_never_appear(wire, made, is_linear):
    request = writing(made, *(delete(k) for k in range(1, 16)), metas=[])
    accepted(wire.write(request))
    assert keys(wire.query(knn(made, [1, 0], topk=20, is_linear=is_linear))) == [[16, 17, 18, 19, 20]]
    accepted(wire.write(writing(made, *(delete(k) for k in range(16, 21)), metas=[])))
    assert keys(wire.query(knn(made, [1, 0], topk=20, is_linear=is_linear))) == [[]]


@EXACT_AND_GRAPH
def test_superseded_documents_never_appear(wire, made, is_linear):
    moved = [update(k, [100 + k, 0], values=["moved", k]) for k in range(1, 11)]
    accepted(wire.write(writing(made, *moved, forward_names=["a", "b"])))
    (result,) = hits(wire.query(knn(made, [1, 0], topk=100, is_linear=is_linear)))
    assert dict(result) == {k: float((k - 1 + (100 if k <= 10 else 0)) ** 2) for k in range(1, 21)}
    assert len(result) == 20


def test_documents_at_the_same_distance_all_appear(wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, *(insert(k, [1, 1]) for k in range(30)))))
    (result,) = hits(wire.query(knn(name, [1, 1], topk=30)))
    assert sorted(result) == [(k, 0.0) for k in range(30)]


# ----- several columns -----


def test_every_index_column_is_searched_on_its_own(wire, name):
    columns = [column(c) for c in ("x", "y", "z")]
    accepted(wire.create_collection(collection(name, *columns)))
    metas = [(c, FP32, 2) for c in ("z", "y", "x")]
    rows = [insert(k, [3 * k, 0], [2 * k, 0], [k, 0]) for k in range(1, 11)]
    accepted(wire.write(writing(name, *rows, metas=metas)))
    for c, factor in (("x", 1), ("y", 2), ("z", 3)):
        expected = [(k, float((factor * k) ** 2)) for k in range(1, 11)]
        assert hits(wire.query(knn(name, [0, 0], column_name=c, topk=10))) == [expected]


# ----- parameters -----


@pytest.mark.parametrize("params", [
    {"ef_search": "1"}, {"ef_search": "500"}, {"index_type": "FLAT"}, {"index_type": "HNSW"}, {"colour": "blue"},
    {"nprobe": "7"}, {"index_type": "IVF_PQ"},
    {"recall_target": "0.5"}, {"recall_target": "1"}, {"refine_k": "7.5"}, {"exact": "True"}, {"exact": "false"},
    {"nprobe": "8"},
    {"max_scan_ratio": "0.5", "": ""},
])
def test_known_parameters_are_taken_and_unknown_ones_ignored(wire, made, params):
    assert keys(wire.query(knn(made, [5, 0], topk=1, params=params))) == [[5]]


# ----- latency and debug information -----


def test_every_answer_has_its_latency(wire, made):
    assert accepted(wire.query(knn(made, [1, 0]))).latency_us > 0


def test_without_debug_mode_there_is_no_debug_information(wire, made):
    assert accepted(wire.query(knn(made, [1, 0]))).debug_info == ""


def test_debug_mode_says_where_the_time_went(wire, made):
    answer = accepted(wire.query(knn(made, [1, 0], debug=True)))
    told = json.loads(answer.debug_info)
    assert set(told) >= {"latency", "query_id", "query", "before_process_query", "after_process_query"}
    assert set(told["query"]) >= {"validate", "prepare", "evaluate", "latency"}
    assert set(told["query"]["evaluate"]) >= {"execute", "merge_and_sort", "latency"}
    assert "latency" in told["before_process_query"] and "latency" in told["after_process_query"]
    numbers = [told["latency"], told["query"]["latency"], told["query"]["evaluate"]["execute"]]
    assert all(isinstance(n, int) and n >= 0 for n in numbers), "microseconds"


def test_debug_mode_of_a_refused_query_has_no_last_stage(wire, made):
    answer = wire.query(knn(made, [1, 0], column_name="missing", debug=True))
    assert answer.status.code == -4003
    assert "after_process_query" not in json.loads(answer.debug_info)


def test_the_sdk_adds_its_own_stages_to_the_debug_information(client, made):
    status, response = client.query(made, "v", [[1.0, 0.0]], data_type="VECTOR_FP32", topk=1, debug=True)
    assert status.ok()
    assert "rpc" in json.loads(response.debug_info)["client"]
