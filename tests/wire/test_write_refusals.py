"""What write refuses before anything is written, and in which order."""

import math

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    FP16, FP32, INT8, STRING, accepted, collection, column, delete, insert, named, pack, refused, refused_because,
    repository, stored, unknown_number, update, value, writing,
)

GOOD = pack(FP32, [1, 2])


def test_the_checks_come_in_their_documented_order(wire, name):
    """On a repository collection, where all checks apply: everything wrong, then mended one by one."""
    declared = collection(name, column("v"), column("w"), forward_names=["a", "b"], repository=repository())
    accepted(wire.create_collection(declared))
    magic = wire.describe_collection(named(name)).collection.magic_number
    request = be.WriteRequest(collection_name="no such collection", magic_number=magic + 1)

    def expect(code):
        refused(wire.write(request), code)
        assert stored(wire, name, 1) is None and stored(wire, name, 2) is None

    expect(-4002)
    request.collection_name = name
    expect(-2012)  # no rows
    first, second = request.rows.add(primary_key=1), request.rows.add(primary_key=2)
    for one in (first, second):
        one.index_column_values.values.add()
        one.forward_column_values.values.add(string_value="x")
    expect(-2012)  # no index meta
    metas, forward_names = request.row_meta.index_column_metas, request.row_meta.forward_column_names
    metas.add(column_name="unknown", data_type=STRING, dimension=3)
    expect(-2012)  # unknown index column
    metas[0].column_name = "v"
    expect(-2012)  # another dimension
    metas[0].dimension = 2
    expect(-2012)  # one forward value for no forward name
    forward_names.extend(["a", "b", "c"])
    expect(-2012)  # more forward names than the schema has
    del forward_names[1:]
    forward_names[0] = "unknown"
    expect(-2012)  # unknown forward column
    forward_names[0] = "a"
    expect(-4007)
    first.lsn_context.lsn = 1
    expect(-2022)
    first.index_column_values.values[0].bytes_value = GOOD + b"x"
    expect(-2024)
    metas[0].data_type = FP32
    expect(-2023)
    first.index_column_values.values[0].bytes_value = GOOD
    expect(-4007)  # the second row
    second.lsn_context.lsn = 2
    expect(-2022)
    second.index_column_values.values[0].string_value = "[1,2,3]"
    expect(-2023)
    second.index_column_values.values[0].string_value = "[1,2]"
    expect(-2021)
    request.magic_number = magic
    accepted(wire.write(request))


@pytest.fixture
def made(wire, name):
    """A direct collection with index columns v, w of two elements and forward columns a, b."""
    accepted(wire.create_collection(collection(name, column("v"), column("w"), forward_names=["a", "b"])))
    return name


V, W = ("v", FP32, 2), ("w", FP32, 2)

SHAPES = {
    "no rows": ([], [V], []),
    "more index columns than the schema": ([insert(1, GOOD, GOOD, GOOD)], [V, W, ("x", FP32, 2)], []),
    "an unknown index column": ([insert(1, GOOD)], [("x", FP32, 2)], []),
    "a known and an unknown index column": ([insert(1, GOOD, GOOD)], [V, ("x", FP32, 2)], []),
    "a dimension not the column's": ([insert(1, pack(FP32, [1, 2, 3]))], [("v", FP32, 3)], []),
    "no dimension": ([insert(1, GOOD)], [("v", FP32, 0)], []),
    "more forward columns than the schema": ([insert(1, GOOD, values=["1", "2", "3"])], [V], ["a", "b", "c"]),
    "an unknown forward column": ([insert(1, GOOD, values=["1"])], [V], ["c"]),
    "an insert without index columns": ([insert(1)], [], []),
    "an update without index columns": ([update(1)], [], []),
    "too few index values": ([insert(1, GOOD)], [V, W], []),
    "too many index values": ([insert(1, GOOD, GOOD)], [V], []),
    "too few forward values": ([insert(1, GOOD, values=["1"])], [V], ["a", "b"]),
    "too many forward values": ([insert(1, GOOD, values=["1", "2"])], [V], ["a"]),
    "the second row too short": ([insert(1, GOOD), insert(2)], [V], []),
    "a delete beside a short insert": ([delete(1), insert(2)], [V], []),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_request_that_does_not_fit_the_schema_is_refused_whole(wire, made, shape):
    rows, metas, forward_names = SHAPES[shape]
    refused(wire.write(writing(made, *rows, metas=metas, forward_names=forward_names)), -2012)
    assert stored(wire, made, 1) is None and stored(wire, made, 2) is None


VECTORS = {
    "one byte short": (GOOD[:-1], -2023),
    "one byte long": (GOOD + b"\0", -2023),
    "one element long": (GOOD + GOOD[:4], -2023),
    "empty bytes": (b"", -2023),
    "text one element short": ("[1]", -2023),
    "text one element long": ("[1,2,3]", -2023),
    "empty text array": ("[]", -2023),
    "empty text": ("", -2023),
    "truncated text": ("[1,2", -2023),
    "text with a word": ("[1,two]", -2023),
    "text with a string": ('[1,"2"]', -2023),
    "text object": ("{}", -2023),
    "text number": ("1", -2023),
    "not set": (value(None), -2022),
    "a bool": (value(True), -2022),
    "an int": (value(5), -2022),
    "a float": (value(1.5, "float_value"), -2022),
    "a double": (value(1.5), -2022),
}


@pytest.mark.parametrize("fault", VECTORS)
def test_a_vector_that_does_not_fit_its_column_is_refused(wire, made, fault):
    vector, code = VECTORS[fault]
    refused(wire.write(writing(made, insert(1, GOOD), insert(2, vector), metas=[V])), code)
    assert stored(wire, made, 1) is None, "a refused request writes none of its rows"


def test_text_may_be_nested_and_is_flattened(wire, made):
    accepted(wire.write(writing(made, insert(1, "[[1],[2]]"), insert(2, "[[[1,2]]]"), metas=[V])))
    assert stored(wire, made, 1) is not None and stored(wire, made, 2) is not None


@pytest.mark.parametrize("data_type", [0, STRING, FP16, INT8, 99])
def test_a_data_type_not_the_columns_is_refused(wire, handler, made, data_type):
    code = unknown_number(handler, -2024) if data_type == 99 else -2024
    refused(wire.write(writing(made, insert(1, GOOD), metas=[("v", data_type, 2)])), code)


def test_rows_are_checked_one_after_the_other(wire, made):
    """A bad vector in the first row comes before a bad kind in the second."""
    rows = [insert(1, GOOD[:-1]), insert(2, value(True))]
    refused(wire.write(writing(made, *rows, metas=[V])), -2023)
    refused(wire.write(writing(made, *reversed(rows), metas=[V])), -2022)


def test_counts_of_all_rows_are_checked_before_the_vector_of_any(wire, made):
    refused(wire.write(writing(made, insert(1, GOOD[:-1]), insert(2), metas=[V])), -2012)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("data_type", [FP32, FP16])
def test_vectors_that_are_not_finite_are_refused(wire, name, data_type, number):
    accepted(wire.create_collection(collection(name, column(data_type=data_type))))
    request = writing(name, insert(1, pack(data_type, [1, 1])), insert(2, pack(data_type, [1, number])),
                      metas=[("v", data_type, 2)])
    refused_because(wire.write(request), -2019)
    assert stored(wire, name, 1) is None


def test_a_number_too_large_for_half_precision_is_refused(wire, name):
    accepted(wire.create_collection(collection(name, column(data_type=FP16))))
    status = wire.write(writing(name, insert(1, "[1,70000]"), metas=[("v", FP16, 2)]))
    assert status.code in (-2019, -2023)
    assert stored(wire, name, 1) is None


def test_the_magic_number_comes_last(wire, name):
    accepted(wire.create_collection(collection(name, repository=repository())))
    refused(wire.write(writing(name, insert(1, GOOD[:-1], lsn=1), magic=1)), -2023)
    refused(wire.write(writing(name, insert(1, GOOD, lsn=1), magic=1)), -2021)
