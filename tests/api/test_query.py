"""Queries over the JSON API: what comes back, and every way to ask."""

import grpc
import numpy as np
import pytest

from json_api import VECTORS
from voisin_v1 import VoisinV1, refused


def found(api, at, **query):
    """Per query vector the (key, score) pairs."""
    result = api.ok("POST", f"{at}/query", query)
    return [[(hit["key"], hit["score"]) for hit in hits] for hits in result["results"]]


def test_the_nearest_rows_come_first_with_scores_and_values(api, filled):
    result = api.ok("POST", f"{filled}/query", {"vector": [2.2, 0], "topk": 3, "column": "v"})
    assert [hit["key"] for hit in result["results"][0]] == [2, 3, 1]
    assert result["results"][0][0] == {
        "key": 2, "score": pytest.approx(0.04, rel=1e-5), "values": {"path": "2.jpg", "any": 2}}
    assert (result["exact"], result["rows"]) == (True, 10)
    assert result["elapsed_us"] >= result["queue_us"] >= 0


def test_many_vectors_have_a_list_each(api, filled):
    assert found(api, filled, vectors=[[0, 0], [9, 0]], topk=1) == [[(0, 0.0)], [(9, 0.0)]]
    assert found(api, filled, vectors=[], topk=1) == []
    assert found(api, filled, vectors=[[0, 0], [9, 0]], topk=1, vectors_count=2) == [[(0, 0.0)], [(9, 0.0)]]
    assert found(api, filled, vectors=[], topk=1, vectors_count=0) == []
    assert found(api, filled, positives=[4], topk=1, vectors_count=0) == [[(3, 1.0)]]
    assert found(api, filled, vectors=[[5, 0]], topk=1) == [[(5, 0.0)]]


def test_radius_metric_filter_and_columns_are_as_asked(api, filled):
    assert found(api, filled, vector=[0, 0], topk=9, radius=4) == [[(0, 0.0), (1, 1.0), (2, 4.0)]]
    assert found(api, filled, vector=[0, 0], topk=2, metric="Manhattan") == [[(0, 0.0), (1, 1.0)]]
    assert found(api, filled, vector=[3, 0], topk=1, metric="InnerProduct") == [[(9, -27.0)]]
    assert found(api, filled, vector=[0, 0], topk=2, filter="any in {some}", filter_params={"some": [7, 8, 9]}) == [
        [(7, 49.0), (8, 64.0)]]
    result = api.ok("POST", f"{filled}/query", {"vector": [0, 0], "topk": 1, "forwards": ["any"]})
    assert result["results"][0][0]["values"] == {"any": 0}
    result = api.ok("POST", f"{filled}/query", {"vector": [0, 0], "topk": 1, "forwards": []})
    assert result["results"][0][0]["values"] == {}


def test_search_parameters_are_taken_and_checked(api, filled):
    for params in ({"ef_search": 10}, {"nprobe": 3}, {"refine_k": 2.5}, {"exact": True}, {"recall_target": 0.9}, {}):
        assert found(api, filled, vector=[4, 0], topk=1, params=params) == [[(4, 0.0)]]
    for params, word in (({"ef_search": 0}, "ef_search"), ({"recall_target": 2}, "recall_target"),
                         ({"ef_search": 1, "recall_target": 0.5}, "exclude"), ({"ef": 1}, "ef"),
                         ({"ef_search": "10"}, "10")):
        api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/query", {"vector": [1, 0], "topk": 1, "params": params},
                    word)


@pytest.mark.parametrize("element, kind", [("FP32", 1), ("FP16", 2)])
def test_floats_of_64_bits_are_taken_by_their_name_and_rounded(server, name, element, kind):
    calls, invalid = VoisinV1(server.channel()), grpc.StatusCode.INVALID_ARGUMENT
    rows = np.array([[0.1, 0.2], [0.3, 0.4], [5.0, 6.0]])

    def column(array, element=8, dimension=2):
        return calls.message("VectorColumn", name="v", element=element, dimension=dimension, vectors=array.tobytes())

    def query(array, element=8, dimension=2, **more):
        reply = calls.Query(collection=name, vectors=column(array, element, dimension), topk=1, **more)
        return [(hits.keys[0], hits.scores[0]) for hits in reply.results]

    def write(array, element=8):
        return calls.Write(collection=name, keys=range(len(array)), operation=4, vectors=[column(array, element)])

    info = calls.message("VectorColumnInfo", name="v", element=kind, dimension=2)
    calls.CreateCollection(name=name, vectors=[info])
    assert write(rows).rows_applied == 3
    (stored,) = calls.Read(collection=name, vectors=calls.message("VectorNames", names=["*"]))
    held = np.float32 if element == "FP32" else np.float16
    # By way of 32 bits.
    assert np.array_equal(np.frombuffer(stored.vectors[0].vectors, held).reshape(3, 2), rows.astype(np.float32).astype(held))
    # As many as there are by that name; twice as many by the other, unless the caller says how many are meant.
    assert [key for key, _ in query(rows)] == [0, 1, 2]
    assert query(rows, vectors_count=3) == query(rows.astype(np.float32), 1, vectors_count=3) == query(rows)
    assert len(query(np.zeros((1, 2)), 1)) == 2
    refused(lambda: query(np.zeros((1, 2)), 1, vectors_count=1), invalid, "16 bytes", "vectors_count is 1", "are 8")
    refused(lambda: query(rows, vectors_count=2), invalid, "48 bytes", "vectors_count is 2", "are 32")
    refused(lambda: query(rows, 1, vectors_count=3), invalid, "48 bytes", "are 24")
    refused(lambda: query(np.array([[1e300, 0.0]])), invalid, "1e300", "FP32 does not hold")
    refused(lambda: query(np.array([[np.nan, 0.0]])), invalid, "NaN")
    refused(lambda: query(np.float32([[1, 2, 3]])), invalid, "12 bytes", "no floats of 64 bits")
    assert "1e300" in write(np.array([[1e300, 0.0]])).status.message
    assert "bytes" in write(rows, 1).status.message
    with pytest.raises(grpc.RpcError, match="FP64"):
        calls.CreateCollection(name=name + "-2", vectors=[calls.message("VectorColumnInfo", name="v", element=8, dimension=2)])
    calls.CreateCollection(name=name + "-3", vectors=[calls.message("VectorColumnInfo", name="v", element=3, dimension=2)])
    refused(lambda: calls.Query(collection=name + "-3", vectors=column(rows), topk=1), invalid, "INT8", "FP64")
    calls.DropCollection(name=name + "-3")


REFUSED = {
    "no vector": ({"topk": 1}, 400, "vector"),
    "both": ({"topk": 1, "vector": [1, 0], "vectors": [[1, 0]]}, 400, "exclude"),
    "no topk": ({"vector": [1, 0]}, 400, "topk"),
    "topk 0": ({"vector": [1, 0], "topk": 0}, 400, "topk"),
    "a vector too short": ({"vector": [1], "topk": 1}, 400, "1 numbers where 2 belong"),
    "one too long among many": ({"vectors": [[1, 2], [1, 2, 3]], "topk": 1}, 400, "vector 1"),
    "another number of vectors": ({"vectors": [[1, 0], [2, 0]], "topk": 1, "vectors_count": 1}, 400, "vectors_count is 1"),
    "a number of vectors, and none": ({"positives": [1], "topk": 1, "vectors_count": 1}, 400, "vectors_count is 1"),
    "not a list": ({"vectors": {"a": 1}, "topk": 1}, 400, "list"),
    "null": ({"vectors": None, "topk": 1}, 400, "vector"),
    "an unknown metric": ({"vector": [1, 0], "topk": 1, "metric": "L2"}, 400, "L2"),
    "a metric that does not fit": ({"vector": [1, 0], "topk": 1, "metric": "Hamming"}, 400, "Hamming"),
    "an unknown column": ({"vector": [1, 0], "topk": 1, "column": "w"}, 404, "w"),
    "an unknown forward column": ({"vector": [1, 0], "topk": 1, "forwards": ["b"]}, 404, "b"),
    "a filter that is none": ({"vector": [1, 0], "topk": 1, "filter": "any ="}, 400, "any"),
    "a name misspelt": ({"vector": [1, 0], "top_k": 1}, 400, "top_k"),
    "an aggregation of no kind": ({"vector": [1, 0], "topk": 1, "aggregation": {}}, 400, "kind"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_query_that_makes_no_sense_is_refused_in_words(api, filled, what):
    body, status, word = REFUSED[what]
    api.refused(status, {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}[status], "POST", f"{filled}/query", body, word)


def test_the_column_must_be_named_where_there_are_several(api, at):
    api.ok("PUT", at, {"vectors": VECTORS + [{**VECTORS[0], "name": "w"}]}, status=201)
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{at}/query", {"vector": [1, 0], "topk": 1}, "v, w")
    assert found(api, at, column="w", vector=[1, 0], topk=1) == [[]]


def test_answers_equal_numpy(api, at):
    random = np.random.default_rng(5)
    vectors = random.normal(size=(500, 8)).astype(np.float32)
    declared = [{"name": "v", "element": "FP32", "dimension": 8, "metric": "Euclidean"}]
    api.ok("PUT", at, {"vectors": declared}, status=201)
    rows = [{"key": k, "vectors": {"v": v.tolist()}} for k, v in enumerate(vectors)]
    api.ok("POST", f"{at}/rows", {"operation": "insert", "rows": rows})
    queries = random.normal(size=(20, 8)).astype(np.float32)
    lists = found(api, at, vectors=queries.tolist(), topk=10)
    for query, hits in zip(queries, lists):
        distances = np.linalg.norm(vectors - query, axis=1)
        assert [key for key, _ in hits] == np.argsort(distances)[:10].tolist()
        assert [score for _, score in hits] == pytest.approx(np.sort(distances)[:10], rel=1e-5)


def test_a_score_that_json_has_no_number_for_is_named(api, at):
    api.ok("PUT", at, {"vectors": VECTORS}, status=201)
    api.ok("POST", f"{at}/rows", {"operation": "insert", "rows": [{"key": 1, "vectors": {"v": [3e38, 0]}}]})
    assert found(api, at, vector=[-3e38, 0], topk=1) == [[(1, "Infinity")]]
