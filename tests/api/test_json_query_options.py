"""Queries beyond the nearest rows over the JSON API, beside plain numpy: radii, rows to query by, groups, vectors that
come with the hits, and other systems' scores.
"""

import numpy as np
import pytest

from json_api import Api, VECTORS

ROWS, DIMENSION = 300, 8


def distances(metric, rows, query):
    """Of each row; smaller is nearer."""
    return {
        "Euclidean": lambda: np.linalg.norm(rows - query, axis=1),
        "Cosine": lambda: 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query),
        "InnerProduct": lambda: -(rows @ query),
        "Manhattan": lambda: np.abs(rows - query).sum(1),
    }[metric]()


#: What other systems show for a distance.
SHAPES = {
    ("elasticsearch", "Euclidean"): lambda d: 1 / (1 + d), ("milvus", "Euclidean"): lambda d: d * d,
    ("elasticsearch", "Cosine"): lambda d: 2 - d, ("milvus", "Cosine"): lambda d: 1 - d,
    ("elasticsearch", "InnerProduct"): lambda d: 1 / (1 + np.exp(d)), ("milvus", "InnerProduct"): lambda d: -d,
    ("elasticsearch", "Manhattan"): lambda d: 1 / (1 + d), ("milvus", "Manhattan"): lambda d: d,
    **{("distance", metric): lambda d: d for metric in ("Euclidean", "Cosine", "InnerProduct", "Manhattan")},
}


@pytest.fixture(scope="module")
def stored():
    return np.random.default_rng(11).uniform(-1, 1, (ROWS, DIMENSION)).astype(np.float32)


@pytest.fixture
def photos(api, at, stored):
    """Row k has vector k of `stored` and a label that ten rows share; every 50th has none."""
    columns = [{"name": "v", "element": "FP32", "dimension": DIMENSION, "metric": "Euclidean"}]
    api.ok("PUT", at, {"vectors": columns, "forwards": [{"name": "label"}]}, status=201)
    rows = [{"key": k, "vectors": {"v": vector.tolist()}, "values": {"label": None if k % 50 == 0 else k % 30}}
            for k, vector in enumerate(stored)]
    assert api.ok("POST", f"{at}/rows", {"operation": "insert", "rows": rows})["rows_applied"] == ROWS
    return at


def ask(api, at, **query):
    return api.ok("POST", f"{at}/query", query)["results"]


def keys(hits):
    return [hit["key"] for hit in hits]


def nearest(rows, query, without=(), k=10):
    order = np.argsort(distances("Euclidean", rows.astype(np.float64), query), kind="stable").tolist()
    return [key for key in order if key not in without][:k]


@pytest.mark.parametrize("topk", [{}, {"topk": 0}, {"topk": 20}], ids=["left out", "0", "20"])
@pytest.mark.parametrize("least", [None, 0.9])
def test_rows_within_radii_are_found_all_of_them_or_the_nearest(api, photos, stored, topk, least):
    query = np.full(DIMENSION, 0.1)
    d = distances("Euclidean", stored.astype(np.float64), query)
    [hits] = ask(api, photos, vector=query.tolist(), radius=1.4, **topk, **({} if least is None else {"radius_min": least}))
    within = [int(key) for key in np.argsort(d) if (least or 0) <= d[key] <= 1.4]
    assert len(within) > 25
    assert keys(hits) == (within[:20] if topk.get("topk") else within)


@pytest.mark.parametrize("metric", ["Euclidean", "Cosine", "InnerProduct", "Manhattan"])
@pytest.mark.parametrize("shape", ["distance", "elasticsearch", "milvus"])
def test_scores_have_the_shape_asked_for(api, photos, stored, metric, shape):
    query = stored[7].astype(np.float64) + 0.1
    [hits] = ask(api, photos, vector=query.tolist(), topk=10, metric=metric, score=shape)
    d = distances(metric, stored.astype(np.float64), query)
    assert keys(hits) == np.argsort(d)[:10].tolist()
    np.testing.assert_allclose([h["score"] for h in hits], SHAPES[shape, metric](np.sort(d)[:10]), atol=1e-5)


def test_rows_are_queried_by_their_keys(api, photos, stored):
    [hits] = ask(api, photos, positives=[17], topk=10)
    assert keys(hits) == nearest(stored, stored[17], {17})
    [hits] = ask(api, photos, positives=["17", 3, 3], topk=10, column="v")
    assert keys(hits) == nearest(stored, stored[[17, 3, 3]].astype(np.float64).mean(0), {17, 3})
    [hits] = ask(api, photos, positives=[17, 3], negatives=[5, 9], topk=10)
    liked, unlike = (stored[some].astype(np.float64).mean(0) for some in ([17, 3], [5, 9]))
    assert keys(hits) == nearest(stored, 2 * liked - unlike, {17, 3, 5, 9})


def test_rows_and_vectors_are_queried_by_together(api, photos, stored):
    queries = np.random.default_rng(3).uniform(-1, 1, (2, DIMENSION))
    lists = ask(api, photos, vectors=queries.tolist(), positives=[17], topk=10)
    assert [keys(hits) for hits in lists] == [
        nearest(stored, (query + stored[17].astype(np.float64)) / 2, {17}) for query in queries]


@pytest.mark.parametrize("size", [None, 1, 3])
def test_groups_come_nearest_first_with_their_nearest_rows(api, photos, stored, size):
    query = np.full(DIMENSION, 0.1)
    [hits] = ask(api, photos, vector=query.tolist(), topk=6,
                 group={"column": "label"} | ({} if size is None else {"size": size}))
    groups = {}
    for key in nearest(stored, query, k=ROWS):
        groups.setdefault(("none", key) if key % 50 == 0 else key % 30, []).append(key)
    expected = [(group, key) for group, members in enumerate(list(groups.values())[:6]) for key in members[:size or 1]]
    assert [(hit["group"], hit["key"]) for hit in hits] == expected


def test_vectors_come_with_hits(api, photos, stored):
    query = {"vector": stored[0].tolist(), "topk": 5, "forwards": []}
    [plain] = ask(api, photos, **query)
    assert all(set(hit) == {"key", "score", "values"} for hit in plain)
    for names in (["v"], ["*"]):
        [hits] = ask(api, photos, **query, return_vectors=names)
        assert keys(hits) == keys(plain)
        for hit in hits:
            assert set(hit["vectors"]) == {"v"}
            # As many digits as tell 32-bit numbers apart.
            assert np.array_equal(np.float32(hit["vectors"]["v"]), stored[hit["key"]])


def test_vectors_come_with_hits_of_rows_that_have_several_or_none(api, at):
    columns = [{"name": "m", "element": "INT8", "dimension": 2, "params": {"multi": "true"}},
               {"name": "other", "element": "FP16", "dimension": 1}]
    api.ok("PUT", at, {"vectors": columns}, status=201)
    rows = [{"key": 1, "vectors": {"m": [[1, 2], [3, 4]]}}, {"key": 2, "vectors": {"m": [[5, 6]], "other": [0.5]}}]
    api.ok("POST", f"{at}/rows", {"operation": "insert", "rows": rows})
    [hits] = ask(api, at, column="m", vector=[1, 2], topk=9, return_vectors=["other", "m"])
    assert [hit["vectors"] for hit in hits] == [{"other": None, "m": [[1, 2], [3, 4]]}, {"other": [0.5], "m": [[5, 6]]}]


REFUSED = {
    "all rows without a radius": ({"vector": [0] * DIMENSION}, 400, "radius"),
    "a row that is not there": ({"positives": [17, 9999], "topk": 1}, 404, "9999"),
    "negatives alone": ({"negatives": [17], "topk": 1}, 400, "positive"),
    "a key that is none": ({"positives": ["x"], "topk": 1}, 400, "x"),
    "an unknown shape": ({"positives": [1], "topk": 1, "score": "lucene"}, 400, "lucene"),
    "an unknown group column": ({"positives": [1], "topk": 1, "group": {"column": "b"}}, 404, "b"),
    "a group of no column": ({"positives": [1], "topk": 1, "group": {}}, 400, "column"),
    "vectors of an unknown column": ({"positives": [1], "topk": 1, "return_vectors": ["w"]}, 404, "w"),
    "a radius_min that is no number": ({"positives": [1], "topk": 1, "radius_min": "1"}, 400, "radius_min"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused_in_words(api, photos, what):
    body, status, word = REFUSED[what]
    api.refused(status, {400: "INVALID_ARGUMENT", 404: "NOT_FOUND"}[status], "POST", f"{photos}/query", body, word)


def test_everything_within_a_radius_has_a_limit(start_server):
    own = start_server(settings={"limits.query_results_max": 5})
    api = Api(own)
    api.ok("PUT", "/collections/c", {"vectors": VECTORS}, status=201)
    rows = [{"key": k, "vectors": {"v": [k, 0]}} for k in range(10)]
    api.ok("POST", "/collections/c/rows", {"operation": "insert", "rows": rows})
    [hits] = ask(api, "/collections/c", vector=[0, 0], radius=16)
    assert keys(hits) == [0, 1, 2, 3, 4]
    api.refused(413, "OUT_OF_RANGE", "POST", "/collections/c/query", {"vector": [0, 0], "radius": 25},
                "limits.query_results_max")
    api.close()
