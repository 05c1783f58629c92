"""Every vector type, written as bytes and as text, queried as bytes and as text."""

import numpy as np
import pytest

from proxima import (
    BINARY32, BINARY64, FP16, FP32, INT4, INT8, INT16, TYPE_NAMES, accepted, collection, column, float32, hits, insert,
    knn, pack, refused, stored, text, writing,
)

# type -> (dimension, four vectors as the text form has them). The extremes of each type are among them,
# and no vector is its own reverse, so that a swapped order of elements shows.
CASES = {
    FP32: (3, [[1.5, -2.25, 3], [0, 0, 0], [1e10, -1e10, 1e-10], [-4096.5, 2, 1]]),
    FP16: (3, [[1.5, -2.25, 3], [0, 0, 0], [1024, -1024, 0.25], [-512.5, 2, 1]]),
    INT8: (3, [[1, -2, 3], [0, 0, 0], [127, -128, 5], [-128, 127, 1]]),
    INT16: (3, [[1, -2, 3], [0, 0, 0], [300, -300, 5], [-1000, 1000, 1]]),
    INT4: (4, [[1, -2, 3, 7], [0, 0, 0, 0], [7, -8, 5, -1], [-8, 7, 1, 2]]),
    BINARY32: (64, [[1, 2], [0, 0], [0xFFFFFFFF, 0x80000000], [0x0F0F0F0F, 7]]),
    BINARY64: (128, [[1, 2], [0, 0], [2**64 - 1, 2**63], [0x0F0F0F0F0F0F0F0F, 7]]),
}
EVERY_TYPE = pytest.mark.parametrize("data_type", CASES, ids=TYPE_NAMES.get)


def squared_distance(data_type, left, right):
    """The documented default score, computed in double precision; bits that differ for bit types."""
    if data_type in (BINARY32, BINARY64):
        return float(sum(bin(a ^ b).count("1") for a, b in zip(left, right)))
    return float(np.sum((np.asarray(left, np.float64) - np.asarray(right, np.float64)) ** 2))


@pytest.fixture
def made(wire, name, data_type):
    """A collection of the type with each vector written twice: as bytes (key i) and as text (10 + i)."""
    dimension, vectors = CASES[data_type]
    accepted(wire.create_collection(collection(name, column(data_type=data_type, dimension=dimension))))
    rows = [insert(i, pack(data_type, v)) for i, v in enumerate(vectors)]
    rows += [insert(10 + i, text(v)) for i, v in enumerate(vectors)]
    accepted(wire.write(writing(name, *rows, metas=[("v", data_type, dimension)])))
    return name


@EVERY_TYPE
@pytest.mark.parametrize("is_linear", [False, True], ids=["graph", "linear"])
def test_bytes_and_text_are_the_same_vector_and_scores_are_exact(wire, made, data_type, is_linear):
    dimension, vectors = CASES[data_type]
    for query in vectors:
        request = knn(made, pack(data_type, query), dimension=dimension, data_type=data_type, is_linear=is_linear)
        found = dict(hits(wire.query(request))[0])
        for i, vector in enumerate(vectors):
            expected = squared_distance(data_type, query, vector)
            assert found[i] == found[10 + i], "bytes and text differ"
            assert found[i] == pytest.approx(expected, rel=1e-6), f"{query} to {vector}"
            if expected < 2**24 and expected == int(expected):
                assert found[i] == expected, "small whole scores are exact"


@EVERY_TYPE
def test_a_matrix_is_the_same_query_as_bytes(wire, made, data_type):
    dimension, vectors = CASES[data_type]
    if data_type in (BINARY32, BINARY64):
        for matrix in (text(vectors[0]), text([1] * dimension)):
            refused(wire.query(knn(made, matrix=matrix, dimension=dimension, data_type=data_type)), -2010)
        return
    for query in vectors:
        by_bytes = knn(made, pack(data_type, query), dimension=dimension, data_type=data_type)
        by_text = knn(made, matrix=text(query), dimension=dimension, data_type=data_type)
        assert hits(wire.query(by_text)) == hits(wire.query(by_bytes))


@EVERY_TYPE
def test_a_vector_one_element_too_long_or_short_is_refused(wire, made, data_type):
    dimension, vectors = CASES[data_type]
    metas = [("v", data_type, dimension)]
    good = pack(data_type, vectors[0])
    for wrong in (good[:-1], good + b"\0", text(vectors[0][:-1]), text(vectors[0] + [0])):
        refused(wire.write(writing(made, insert(99, wrong), metas=metas)), -2023)
    assert stored(wire, made, 99) is None


OUT_OF_RANGE = {
    INT8: ["[128,0,0]", "[-129,0,0]", "[1.5,0,0]"],
    INT16: ["[32768,0,0]", "[-32769,0,0]", "[0.5,0,0]"],
    INT4: ["[8,0,0,0]", "[-9,0,0,0]", "[0.5,0,0,0]"],
    BINARY32: ["[4294967296,0]", "[-1,0]"],
    BINARY64: ["[18446744073709551616,0]", "[-1,0]"],
}


@pytest.mark.parametrize("data_type", OUT_OF_RANGE, ids=TYPE_NAMES.get)
def test_text_numbers_that_the_type_cannot_hold_are_refused(wire, made, data_type):
    dimension, _ = CASES[data_type]
    for wrong in OUT_OF_RANGE[data_type]:
        refused(wire.write(writing(made, insert(99, wrong), metas=[("v", data_type, dimension)])), -2023)


def test_int4_keeps_even_elements_in_the_low_nibble(wire, name):
    accepted(wire.create_collection(collection(name, column(data_type=INT4, dimension=2))))
    accepted(wire.write(writing(name, insert(1, bytes([0x21])), metas=[("v", INT4, 2)])))
    assert hits(wire.query(knn(name, matrix="[1,2]", data_type=INT4))) == [[(1, 0.0)]]
    assert hits(wire.query(knn(name, matrix="[2,1]", data_type=INT4))) == [[(1, 2.0)]]


def test_text_is_rounded_to_half_precision(wire, name):
    accepted(wire.create_collection(collection(name, column(data_type=FP16))))
    accepted(wire.write(writing(name, insert(1, "[0.1,2049]"), metas=[("v", FP16, 2)])))
    half = knn(name, pack(FP16, [0.1, 2048]), data_type=FP16)
    assert hits(wire.query(half)) == [[(1, 0.0)]]


def test_an_fp16_column_takes_fp32_vectors(wire, name):
    accepted(wire.create_collection(collection(name, column(data_type=FP16))))
    as_fp32 = [("v", FP32, 2)]
    accepted(wire.write(writing(name, insert(1, pack(FP32, [0.1, 2])), insert(2, "[0.1,2]"), metas=as_fp32)))
    assert hits(wire.query(knn(name, pack(FP16, [0.1, 2]), data_type=FP16))) == [[(1, 0.0), (2, 0.0)]]
    refused(wire.write(writing(name, insert(3, pack(FP16, [1, 2])), metas=as_fp32)), -2023)


def test_an_fp16_column_takes_fp32_queries(wire, name):
    accepted(wire.create_collection(collection(name, column(data_type=FP16))))
    accepted(wire.write(writing(name, insert(1, pack(FP16, [0.1, 2])), metas=[("v", FP16, 2)])))
    assert hits(wire.query(knn(name, pack(FP32, [0.1, 2]), data_type=FP32))) == [[(1, 0.0)]]


def test_an_fp32_column_takes_no_fp16_vectors(wire, name):
    accepted(wire.create_collection(collection(name)))
    refused(wire.write(writing(name, insert(1, pack(FP16, [1, 2])), metas=[("v", FP16, 2)])), -2024)


def test_one_row_holds_vectors_of_every_type(wire, name):
    columns = [column(TYPE_NAMES[t], d, t) for t, (d, _) in CASES.items()]
    accepted(wire.create_collection(collection(name, *columns, forward_names=["a"])))
    metas = [(TYPE_NAMES[t], t, d) for t, (d, _) in CASES.items()]
    for key in range(4):
        row = insert(key, *(text(vectors[key]) for _, vectors in CASES.values()), values=[str(key)])
        accepted(wire.write(writing(name, row, metas=metas, forward_names=["a"])))
    for data_type, (dimension, vectors) in CASES.items():
        for key, vector in enumerate(vectors):
            request = knn(name, pack(data_type, vector), TYPE_NAMES[data_type], topk=1, dimension=dimension,
                          data_type=data_type)
            assert hits(wire.query(request)) == [[(key, 0.0)]], TYPE_NAMES[data_type]


def test_single_precision_is_kept_exactly(wire, name):
    accepted(wire.create_collection(collection(name, column(dimension=1))))
    numbers = [float32(n) for n in (0.1, 1 / 3, 1e-38, 3.4e38 / 1e20, 16777217.0)]
    metas = [("v", FP32, 1)]
    accepted(wire.write(writing(name, *(insert(k, pack(FP32, [n])) for k, n in enumerate(numbers)), metas=metas)))
    for key, number in enumerate(numbers):
        answer = wire.query(knn(name, [number], topk=1, dimension=1))
        assert hits(answer) == [[(key, 0.0)]]


@pytest.mark.parametrize("dimension", [1, 2, 3, 7, 15, 16, 17, 31, 33, 100, 128, 513, 1024, 4096])
def test_every_dimension_has_exact_scores(wire, name, dimension):
    """Odd lengths leave a rest behind every vector register."""
    accepted(wire.create_collection(collection(name, column(dimension=dimension))))
    ones, ramp = np.ones(dimension), np.arange(dimension) % 5
    accepted(wire.write(writing(
        name, insert(1, pack(FP32, ones)), insert(2, pack(FP32, ramp)), metas=[("v", FP32, dimension)])))
    found = dict(hits(wire.query(knn(name, pack(FP32, ones), dimension=dimension)))[0])
    assert found == {1: 0.0, 2: float(np.sum((ramp - 1) ** 2))}
