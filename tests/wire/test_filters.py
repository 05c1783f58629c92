"""Filters from stock clients: what passes is what Python says of the same values, for every metric, over sealed
and growing segments, deletes and a restart; and every refusal points at what is wrong."""

import json
import math

import numpy as np
import pytest
from pyproximabe import DataType

from proxima import (
    BINARY32, FP16, FP32, INT8, TYPE_NAMES, accepted, collection, column, delete, forwards, hits, insert, keys, knn,
    pack, refused_because, status_of, update, value, writing,
)
from sealing import all_sealed
from test_metrics import BITS, NUMBERS, vectors_of

COLUMNS = ["kind", "size", "price", "flag", "mixed", "big"]
KINDS = ["cat", "dog", "été", "你好", "50%", "a_b", "", None]
ROWS, TOPK = 600, 10
INT_MIN, INT_MAX, UINT_MAX = -2**63, 2**63 - 1, 2**64 - 1


def values_of(key):
    """What a key holds: Python values, None where it is unset. The same for the server and for the oracle."""
    random = np.random.default_rng(key)
    mixed = [int(random.integers(-3, 4)), float(random.integers(-3, 4)) / 2, "x", b"\x00\xff", True, None][key % 6]
    return {
        "kind": KINDS[int(random.integers(len(KINDS)))],
        "size": None if key % 7 == 3 else int(random.integers(0, 1000)),
        "price": [0.1, 0.5, 99.5, math.nan, math.inf, -0.0, None][key % 7],
        "flag": [True, False, None][int(random.integers(3))],
        "mixed": mixed,
        "big": [2**53, 2**53 + 1, INT_MAX, INT_MIN, UINT_MAX, 0][key % 6],
    }


def wire_values(key):
    row = values_of(key)
    big = value(row["big"], "uint64_value" if row["big"] > INT_MAX else "int64_value")
    return [big if name == "big" else value(row[name]) for name in COLUMNS]


def number(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool)


#: Filters with what they mean, in Python over a row's values. `None` never compares.
FILTERS = [
    ("size < 100", {}, lambda r, k: r["size"] is not None and r["size"] < 100),
    ("100 <= size <= 500", {}, lambda r, k: r["size"] is not None and 100 <= r["size"] <= 500),
    ("size is null", {}, lambda r, k: r["size"] is None),
    ("not (size < 990)", {}, lambda r, k: r["size"] is not None and r["size"] >= 990),
    ("kind == 'cat' or kind == \"été\"", {}, lambda r, k: r["kind"] in ("cat", "été")),
    ("kind in ['dog', '你好', 5, true]", {}, lambda r, k: r["kind"] in ("dog", "你好")),
    ("kind NOT IN {kinds}", {"kinds": ["cat", "dog"]}, lambda r, k: r["kind"] not in ("cat", "dog", None)),
    ("kind like 'c%' || kind like '%好'", {}, lambda r, k: r["kind"] in ("cat", "你好")),
    (r"kind like '%\%' or kind like 'a\_b'", {}, lambda r, k: r["kind"] in ("50%", "a_b")),
    ("kind like {p}", {"p": "_o_"}, lambda r, k: r["kind"] == "dog"),
    ("kind > 'd'", {}, lambda r, k: r["kind"] is not None and r["kind"] > "d"),
    ("flag", {}, lambda r, k: r["flag"] is True),
    ("!flag && size >= 500", {}, lambda r, k: r["flag"] is False and r["size"] is not None and r["size"] >= 500),
    ("price == 0.1 or price > 100", {}, lambda r, k: r["price"] in (0.1, math.inf)),
    ("price == 0", {}, lambda r, k: r["price"] == 0),
    ("price != 0.5", {}, lambda r, k: r["price"] is not None and r["price"] != 0.5),
    ("size % 10 == 3 and size / 100 == 4", {}, lambda r, k: r["size"] is not None and r["size"] % 10 == 3
     and r["size"] // 100 == 4),
    ("size * 2 + 1 > {least}", {"least": 1500}, lambda r, k: r["size"] is not None and r["size"] * 2 + 1 > 1500),
    ("size / 0 == 0 or size ** 2 == 81", {}, lambda r, k: r["size"] == 9),
    ("mixed == 1", {}, lambda r, k: number(r["mixed"]) and r["mixed"] == 1),
    ("mixed != 1", {}, lambda r, k: number(r["mixed"]) and r["mixed"] != 1),
    ("not (mixed == 1)", {}, lambda r, k: r["mixed"] is not None and not (number(r["mixed"]) and r["mixed"] == 1)),
    ("mixed == true or mixed == 'x'", {}, lambda r, k: r["mixed"] is True or r["mixed"] == "x"),
    ("big == 9007199254740993", {}, lambda r, k: r["big"] == 2**53 + 1),
    ("big > 9223372036854775806.0", {}, lambda r, k: r["big"] > 9223372036854775806.0),
    ("big in [18446744073709551615, -9223372036854775808]", {}, lambda r, k: r["big"] in (UINT_MAX, INT_MIN)),
    ("big + 1 > 0", {}, lambda r, k: 0 < r["big"] + 1 <= UINT_MAX),
    ("_key % 50 == 7", {}, lambda r, k: k % 50 == 7),
    ("_key in {ks}", {"ks": [1, 2, 3, 10**9]}, lambda r, k: k in (1, 2, 3)),
    ("true", {}, lambda r, k: True),
    ("size < 0", {}, lambda r, k: False),
]

CASES = [(FP32, m) for m in NUMBERS] + [(FP16, "SquaredEuclidean"), (INT8, "InnerProduct")]
CASES += [(BINARY32, m) for m in BITS]
EVERY_CASE = pytest.mark.parametrize("data_type, metric", CASES, ids=[f"{TYPE_NAMES[t]}-{m}" for t, m in CASES])


@pytest.fixture(scope="module")
def filter_server(tmp_path_factory):
    """Seals every 200 rows, gives segments of 150 a graph, and orders all columns that filters ask for."""
    from server import Server

    settings = {"segment.seal_rows_max": 200, "segment.graph_rows_min": 150, "segment.filter_index_rows_min": 0}
    own = Server(tmp_path_factory.mktemp("filters") / "data", settings=settings).start()
    yield own
    own.kill()


def load(wire, name, data_type=FP32, metric="SquaredEuclidean"):
    """600 rows in sealed and growing segments, of which some are deleted and some written anew. Every tenth has no
    vector. Returns the vectors by key, and those that are live."""
    vectors = vectors_of(data_type, ROWS, seed=5)
    dimension = 256 if data_type == BINARY32 else vectors.shape[1]
    one = column(dimension=dimension, data_type=data_type, params={"metric_type": metric})
    accepted(wire.create_collection(collection(name, one, column("other"), forward_names=COLUMNS)))

    def write(make, some, with_vector=True):
        meta = ("v", data_type, dimension) if with_vector else ("other", FP32, 2)
        rows = [make(k, pack(data_type, vectors[k]) if with_vector else [k, 0], values=wire_values(k)) for k in some]
        accepted(wire.write(writing(name, *rows, forward_names=COLUMNS, metas=[meta])))

    write(insert, [k for k in range(450) if k % 10])
    write(insert, range(0, 450, 10), with_vector=False)
    all_sealed(wire, name, documents=400)
    write(insert, range(450, ROWS))
    write(update, range(100, 130, 3))
    accepted(wire.write(writing(name, *(delete(k) for k in range(0, ROWS, 9)), metas=[])))
    live = [k for k in range(ROWS) if k % 9 and (k % 10 or k >= 450 or k in range(100, 130, 3))]
    return vectors, live, dimension


def params_of(text, params):
    sent = {"filter": text}
    if params:
        sent["filter_params"] = json.dumps(params)
    return sent


def check(wire, name, data_type, metric, loaded, text, params, passes):
    vectors, live, dimension = loaded
    allowed = [k for k in live if passes(values_of(k), k)]
    score = (BITS if data_type == BINARY32 else NUMBERS)[metric]
    for query in vectors_of(data_type, 3, seed=6):
        expected = sorted(zip(score(vectors[allowed], query), allowed)) if allowed else []
        for is_linear in (True, False):
            request = knn(name, pack(data_type, query), topk=TOPK, dimension=dimension, data_type=data_type,
                          is_linear=is_linear, params=params_of(text, params))
            (found,) = hits(wire.query(request))
            assert len(found) == min(TOPK, len(allowed)), (text, "k means k")
            assert {key for key, _ in found} <= set(allowed), text
            exact = dict((k, s) for s, k in expected)
            for key, found_score in found:
                assert found_score == pytest.approx(exact[key], rel=1e-3 if data_type == FP16 else 1e-5, abs=1e-5)
            if is_linear:
                edge = [s for s, _ in expected[:TOPK]]
                assert [s for _, s in found] == pytest.approx(edge, rel=1e-3 if data_type == FP16 else 1e-5, abs=1e-5)


@EVERY_CASE
def test_every_filter_finds_what_python_says(filter_server, name, data_type, metric):
    wire = filter_server.wire()
    loaded = load(wire, name, data_type, metric)
    some = FILTERS if (data_type, metric) == CASES[0] else FILTERS[::4]
    for text, params, passes in some:
        check(wire, name, data_type, metric, loaded, text, params, passes)


def test_filters_hold_after_a_restart_and_once_columns_are_ordered(start_server, name):
    settings = {"segment.seal_rows_max": 200, "segment.graph_rows_min": 150, "segment.filter_index_rows_min": 0}
    own = start_server(settings=settings)
    loaded = load(own.wire(), name)
    for _ in range(2):
        own.restart()
        wire = own.wire()
        # The first pass asks for the orders, the second finds them made, or being made.
        for text, params, passes in FILTERS + FILTERS:
            check(wire, name, FP32, "SquaredEuclidean", loaded, text, params, passes)


def test_a_filter_holds_for_each_vector_of_a_batch(filter_server, name):
    wire = filter_server.wire()
    vectors, live, dimension = load(wire, name)
    wanted = [k for k in live if values_of(k)["kind"] == "cat"]
    features = b"".join(pack(FP32, vectors[k]) for k in wanted[:20])
    request = knn(name, features, topk=5, dimension=dimension, batch_count=20, params={"filter": "kind == 'cat'"})
    for key, result in zip(wanted, keys(wire.query(request)), strict=False):
        assert result[0] == key and set(result) <= set(wanted) and len(result) == 5


def test_a_filter_and_a_radius_hold_together(filter_server, name):
    wire = filter_server.wire()
    vectors, live, dimension = load(wire, name)
    query = vectors[live[0]]
    distances = {k: float(((vectors[k] - query) ** 2).sum()) for k in live}
    radius = sorted(distances.values())[len(live) // 2]
    expected = {k for k in live if distances[k] <= radius and values_of(k)["flag"] is True}
    request = knn(name, pack(FP32, query), topk=ROWS, dimension=dimension, radius=radius, params={"filter": "flag"})
    (found,) = keys(wire.query(request))
    assert set(found) == expected


def test_the_stock_client_sends_filters(filter_server, name):
    wire = filter_server.wire()
    vectors, live, dimension = load(wire, name)
    client = filter_server.client()
    status, answer = client.query(
        name, "v", [[float(x) for x in vectors[live[0]]]], data_type=DataType.VECTOR_FP32, topk=5,
        extra_params={"filter": "size > {least} and kind == 'dog'", "filter_params": json.dumps({"least": 100})})
    assert status.code == 0, status
    found = answer.results[0]
    assert len(found) == 5
    for hit in found:
        assert hit.forward_column_values["size"] > 100 and hit.forward_column_values["kind"] == "dog"
    client.close()


def test_no_filter_and_an_empty_one_let_all_rows_through(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    accepted(wire.write(writing(name, *(insert(k, [k, 0], values=[k]) for k in range(1, 6)), forward_names=["a"])))
    for params in ({}, {"filter": ""}, {"filter": "true"}):
        assert keys(wire.query(knn(name, [0, 0], params=params))) == [[1, 2, 3, 4, 5]]
    (result,) = accepted(wire.query(knn(name, [0, 0], params={"filter": "a == 2"}))).results
    assert forwards(result.documents[0]) == {"a": ("int64_value", 2)}


@pytest.mark.parametrize("text, words", [
    ("a ==", ["expected a column", "found the end", "at character 5"]),
    ("a == 1 )", ["expected an operator or the end", 'found ")"', "at character 8"]),
    ("a = 1", ['expected "=="', "at character 3"]),
    ("b == 1", ['no forward column "b"', "at character 1"]),
    ("a and 5", ["expected a condition", "at character 7"]),
    ("v == 1", ['"v" is an index column', "at character 1"]),
    ("a == {x}", ["parameter {x} has no value", "at character 6"]),
    ("a like 'x\\\\'", ["lone backslash", "at character 8"]),
    ("a == 'é", ["closing quote", "at character 6"]),
    ("(" * 65 + "a" + ")" * 65, ["deeper than 64"]),
])
def test_a_wrong_filter_is_refused_at_its_character(wire, name, text, words):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    request = knn(name, [0, 0], params={"filter": text})
    refused_because(wire.query(request), -2010, "invalid filter", *words)
    _, detail = wire.with_detail("query", request)
    assert all(word in detail for word in words) and detail.splitlines()[-1].strip() == "^"


def test_parameters_that_do_not_fit_are_refused(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    for params, words in [
        ({"filter": "a == 1", "filter_params": '{"x": 1}'}, "parameter {x} is not in the filter"),
        ({"filter": "a in {x}", "filter_params": '{"x": 1}'}, "asks for a list"),
        ({"filter": "a == {x}", "filter_params": '{"x": [1]}'}, "is a list"),
    ]:
        refused_because(wire.query(knn(name, [0, 0], params=params)), -2010, words)
    for params, words in [
        ({"filter": "a == {x}", "filter_params": "{"}, "not a JSON object"),
        ({"filter": "a == {x}", "filter_params": '{"x": null}'}, "holds null"),
        ({"filter_params": '{"x": 1}'}, "filter is not"),
    ]:
        answer, detail = wire.with_detail("query", knn(name, [0, 0], params=params))
        assert status_of(answer).code == -2010 and words in detail, detail


def test_a_filter_that_is_too_long_is_refused_with_the_limit(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    long = "a == 1" + " " * 65_536
    refused_because(wire.query(knn(name, [0, 0], params={"filter": long})), -1010, "filter", 65_542, 65_536)
