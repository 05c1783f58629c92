"""What query refuses, and in which order."""

import math

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    BINARY32, FP16, FP32, INT8, STRING, accepted, collection, column, insert, keys, knn, pack, refused, status_of,
    unknown_number, writing,
)

DIMENSION = 16
VECTOR = [1] * 8 + [2] * 8


@pytest.fixture
def made(wire, name):
    """One FP32 column `v` of 16 dimensions with one row."""
    accepted(wire.create_collection(collection(name, column(dimension=DIMENSION))))
    accepted(wire.write(writing(name, insert(1, VECTOR), metas=[("v", FP32, DIMENSION)])))
    return name


def ask(made, features=None, **how):
    return knn(made, features, **{"dimension": DIMENSION, **how})


def test_the_checks_come_in_their_documented_order(wire, made):
    request = be.QueryRequest(collection_name="no such collection")
    param = request.knn_param
    param.column_name = "no such column"

    def expect(code):
        answer = wire.query(request)
        refused(answer, code)
        assert len(answer.results) == 0

    expect(-4002)
    request.collection_name = made
    expect(-4003)
    param.column_name = "v"
    expect(-2010)  # neither features nor matrix
    param.features, param.data_type, param.dimension, param.batch_count = b"x", BINARY32, 99, 1
    expect(-2024)
    param.data_type = FP32
    expect(-2010)  # the dimension
    param.dimension = DIMENSION
    expect(-2010)  # the size
    param.features = pack(FP32, VECTOR)
    assert keys(wire.query(request)) == [[]], "topk is 0"


FEATURES = {
    "one byte short": (pack(FP32, VECTOR)[:-1], {}),
    "one byte long": (pack(FP32, VECTOR) + b"\0", {}),
    "three bytes short": (pack(FP32, VECTOR)[:-3], {}),
    "no bytes": (b"", {}),
    "bytes for two, batch of one": (pack(FP32, VECTOR) * 2, {}),
    "bytes for one, batch of two": (pack(FP32, VECTOR), dict(batch_count=2)),
    "bytes for one, batch of none": (pack(FP32, VECTOR), dict(batch_count=0)),
    "a huge batch": (pack(FP32, VECTOR), dict(batch_count=2**32 - 1)),
    "a batch whose size overflows 32 bits": (b"", dict(batch_count=2**26)),
    "twice the dimension": (pack(FP32, VECTOR), dict(dimension=32)),
    "half the dimension": (pack(FP32, VECTOR), dict(dimension=8, batch_count=2)),
}


@pytest.mark.parametrize("fault", FEATURES)
def test_features_that_do_not_add_up_are_refused(wire, made, fault):
    features, how = FEATURES[fault]
    refused(wire.query(ask(made, features, **how)), -2010)


@pytest.mark.parametrize("data_type", [BINARY32, FP16, INT8, STRING, 99])
def test_features_of_another_type_are_refused(wire, handler, made, data_type):
    code = unknown_number(handler, -2024) if data_type == 99 else -2024
    refused(wire.query(ask(made, pack(FP32, VECTOR), data_type=data_type)), code)


MATRICES = {
    "one number short": ("[1,1,1,1,1,1,1,1,2,2,2,2,2,2,2]", {}),
    "one number long": ("[1,1,1,1,1,1,1,1,2,2,2,2,2,2,2,2,2]", {}),
    "one row short": ("[[1,1,1,1,1,1,1,1,2,2,2,2,2,2,2]]", {}),
    "flat with a batch of two": (str(VECTOR), dict(batch_count=2)),
    "flat holding two vectors": (str(VECTOR * 2), dict(batch_count=2)),
    "one row, batch of two": (str([VECTOR]), dict(batch_count=2)),
    "two rows, batch of one": (str([VECTOR] * 2), dict(batch_count=1)),
    "ragged": (str([VECTOR, VECTOR, [3]]), dict(batch_count=3)),
    "rows and numbers mixed": (str([VECTOR, 3]), dict(batch_count=2)),
    "not closed": ("[", {}),
    "truncated": (str([VECTOR, VECTOR])[:-1], dict(batch_count=2)),
    "an object": ("{}", dict(batch_count=3)),
    "a number": ("1", {}),
    "words": ("[" + ",".join(["one"] * DIMENSION) + "]", {}),
    "strings": (str(["1"] * DIMENSION).replace("'", '"'), {}),
    "nulls": ("[" + ",".join(["null"] * DIMENSION) + "]", {}),
    "empty": ("", {}),
    "an empty array": ("[]", {}),
    "an array of an empty array": ("[[]]", {}),
    "three levels": (str([[VECTOR]]), {}),
    "deep nesting": ("[" * 5000 + "]" * 5000, {}),
    "another dimension": (str(VECTOR), dict(dimension=8)),
    "another type": (str(VECTOR), dict(data_type=BINARY32)),
}


@pytest.mark.parametrize("fault", MATRICES)
def test_text_that_is_no_matrix_of_the_column_is_refused(wire, made, fault):
    matrix, how = MATRICES[fault]
    refused(wire.query(ask(made, matrix=matrix, **how)), -2010)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_query_vectors_that_are_not_finite_are_refused(wire, made, number):
    answer = wire.query(ask(made, pack(FP32, [number] + VECTOR[1:])))
    assert status_of(answer).code in (-2010, -2019)
    assert status_of(answer).reason.startswith(("Invalid Query", "Invalid Feature"))


def test_a_radius_that_is_not_a_number_is_refused_or_off(wire, made):
    answer = wire.query(ask(made, pack(FP32, VECTOR), radius=math.nan))
    if status_of(answer).code == 0:
        assert keys(answer) == [[1]]
    else:
        assert status_of(answer).code == -2010


def test_a_query_of_no_known_kind_is_refused(wire, made):
    request = ask(made, pack(FP32, VECTOR))
    request.query_type = 5
    assert status_of(wire.query(request)).code in (-1005, -2010)
    assert status_of(wire.query(be.QueryRequest(collection_name=made))).code in (-1005, -2010, -4003)


def test_a_refusal_has_a_latency_and_no_results(wire, made):
    answer = wire.query(ask(made, b"x"))
    refused(answer, -2010)
    assert answer.latency_us > 0
    assert len(answer.results) == 0 and answer.debug_info == ""


def test_the_sdk_refuses_empty_features_before_they_are_sent(client, made):
    from pyproximabe.core.types import ProximaBeException

    with pytest.raises(ProximaBeException, match="Empty features"):
        client.query(made, "v", b"", data_type="VECTOR_FP32", dimension=DIMENSION, batch_count=1)
    with pytest.raises(ProximaBeException, match="Empty dimension"):
        client.query(made, "v", pack(FP32, VECTOR), data_type="VECTOR_FP32", dimension=DIMENSION, batch_count=0)


@pytest.mark.parametrize("params", [
    {"nprobe": "0"}, {"nprobe": "1e3"}, {"ef_search": "0"}, {"ef_search": "65537"}, {"ef_search": "many"},
    {"recall_target": "0"},
    {"recall_target": "1.01"}, {"recall_target": "nan"}, {"recall_target": "most"}, {"refine_k": "0.9"},
    {"refine_k": "101"}, {"refine_k": "nan"}, {"exact": "maybe"}, {"nprobe": "0"}, {"nprobe": "few"},
], ids=lambda params: "=".join(*params.items()))
def test_a_search_parameter_outside_its_range_is_named(wire, made, params):
    (name, value), = params.items()
    answer, detail = wire.with_detail("query", ask(made, VECTOR, params=params))
    refused(answer, -2010)
    assert name in detail and value in detail, detail


def test_candidates_and_a_recall_exclude_each_other(wire, made):
    params = {"ef_search": "10", "recall_target": "0.9"}
    answer, detail = wire.with_detail("query", ask(made, VECTOR, params=params))
    refused(answer, -2010)
    assert "ef_search" in detail and "recall_target" in detail, detail
