"""What create_collection refuses, in which order, and that a refusal leaves nothing behind."""

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    BINARY32, FP16, FP32, FP64, INT4, INT8, REASONS, STRING, accepted, collection, column, insert, named, pack,
    refused, refused_because, repository, status_of, unknown_number, writing,
)


def test_the_checks_come_in_their_documented_order(wire, handler, name):
    """Starts with everything wrong and mends one thing at a time: each answer names the next fault."""
    taken = name + "-taken"
    accepted(wire.create_collection(collection(taken)))
    request = be.CollectionConfig(collection_name=taken)
    request.repository_config.repository_type = 9

    def expect(code):
        refused(wire.create_collection(request), code)
        if request.collection_name != taken:
            refused(wire.describe_collection(named(request.collection_name)), -4002)

    expect(unknown_number(handler, -2014))
    request.repository_config.repository_type = 0
    expect(-4000)
    request.collection_name = ""
    expect(-2000)
    request.collection_name = name
    expect(-2002)
    first = request.index_column_params.add(index_type=0, data_type=0, dimension=0)
    second = request.index_column_params.add(index_type=0, data_type=0, dimension=0)
    expect(-2001)
    first.column_name = "first"
    expect(-2015)
    first.data_type = STRING
    expect(-2001)
    second.column_name = "second"
    expect(-2015)
    second.data_type = STRING
    expect(-2004)
    request.repository_config.repository_name = "repo"
    expect(-2007)
    request.repository_config.database.connection_uri = "mysql://127.0.0.1/db"
    expect(-2005)
    request.repository_config.database.user = "reader"
    expect(-2006)
    request.repository_config.database.password = "secret"
    expect(-2003)
    request.repository_config.database.table_name = "pictures"
    expect(-1000)
    first.index_type = 1
    expect(-1004)
    first.data_type = FP32
    expect(-1004)
    first.dimension = 4
    expect(-1000)
    second.index_type = 1
    expect(-1004)
    second.data_type = FP16
    expect(-1004)
    second.dimension = 4
    accepted(wire.create_collection(request))
    accepted(wire.drop_collection(named(taken)))


REPOSITORY_FAULTS = {
    "no name": (dict(name=""), -2004),
    "uri without a scheme": (dict(uri="127.0.0.1:3306/db"), -2007),
    "empty uri": (dict(uri=""), -2007),
    "no user": (dict(user=""), -2005),
    "no password": (dict(password=""), -2006),
    "no table": (dict(table=""), -2003),
}


@pytest.mark.parametrize("fault", REPOSITORY_FAULTS)
def test_a_repository_needs_all_its_parts(wire, name, fault):
    parts, code = REPOSITORY_FAULTS[fault]
    refused(wire.create_collection(collection(name, repository=repository(**parts))), code)
    refused(wire.describe_collection(named(name)), -4002)


COLUMN_FAULTS = {
    "undefined data type": (dict(data_type=0), -2015),
    "unknown data type": (dict(data_type=77), -2015),
    "undefined index type": (dict(index_type=0), -1000),
    "a type that is no vector": (dict(data_type=STRING), -1004),
    "no dimension": (dict(dimension=0), -1004),
    "unknown quantize_type": (dict(params={"quantize_type": "DT_VECTOR_FP64"}), -1004),
    "quantize_type misspelt": (dict(params={"quantize_type": "int8"}), -1004),
    "no recall": (dict(params={"recall_target": "0"}), -1004),
    "more recall than all": (dict(params={"recall_target": "1.5"}), -1004),
    "no candidates": (dict(params={"ef_search": "0"}), -1004),
    "unknown index_type": (dict(params={"index_type": "DISKANN"}), -1004),
    "parts that do not divide": (dict(dimension=8, params={"index_type": "IVF_PQ", "m": "3"}), -1004),
    "no lists": (dict(params={"index_type": "IVF_FLAT", "nlist": "0"}), -1004),
    "a factory of nothing": (dict(params={"index_factory": "NoSuchIndex"}), -1004),
    "lists of bits": (dict(data_type=BINARY32, dimension=32, params={"index_type": "IVF_FLAT"}), -1004),
    "quantize_type on FP16": (dict(data_type=FP16, params={"quantize_type": "DT_VECTOR_INT8"}), -1004),
    "quantize_type on INT8": (dict(data_type=INT8, params={"quantize_type": "DT_VECTOR_INT4"}), -1004),
}


@pytest.mark.parametrize("fault", COLUMN_FAULTS)
def test_a_column_that_cannot_be_is_refused(wire, handler, name, fault):
    how, code = COLUMN_FAULTS[fault]
    if fault == "unknown data type":
        code = unknown_number(handler, code)
    refused(wire.create_collection(collection(name, column("good"), column("bad", **how))), code)
    refused(wire.describe_collection(named(name)), -4002)


@pytest.mark.parametrize("metric", ["Chebyshev", "euclidean", "L2", ""])
def test_an_unknown_metric_is_refused_with_a_kernel_code(wire, name, metric):
    status = wire.create_collection(collection(name, column(params={"metric_type": metric})))
    assert -1000 < status.code < 0
    refused(wire.describe_collection(named(name)), -4002)


def test_a_second_collection_of_the_same_name_is_refused_and_harmless(wire, client, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    accepted(wire.write(writing(name, insert(1, [1, 2]))))
    before = wire.describe_collection(named(name))
    refused(wire.create_collection(collection(name, column(dimension=9))), -4000)
    assert wire.describe_collection(named(name)) == before


def test_fp64_takes_no_vectors(wire, name):
    """Refused at creation already, or at every write: the original has no write path for it."""
    status = wire.create_collection(collection(name, column(data_type=FP64)))
    if status.code == 0:
        request = writing(name, insert(1, pack(FP64, [1, 2])), metas=[("v", FP64, 2)])
        refused_because(wire.write(request), -2015)
    else:
        assert status.code in (-1004, -2015)
        assert status.reason.startswith(REASONS[status.code])


UNSTORABLE = [(INT4, 3), (BINARY32, 33), (BINARY32, 16), (21, 96)]


@pytest.mark.parametrize("data_type, dimension", UNSTORABLE)
def test_a_dimension_no_vector_can_have_is_creatable_but_takes_no_row(wire, name, data_type, dimension):
    accepted(wire.create_collection(collection(name, column(data_type=data_type, dimension=dimension))))
    for size in range(0, 16):
        request = writing(name, insert(1, b"\1" * size), metas=[("v", data_type, dimension)])
        assert status_of(wire.write(request)).code in (-2023, -2009)


UNSAFE_NAMES = ["..", ".", "../escape", "a/b", "/etc/voisin", "a\\b", "..\\escape", "nul\0byte", "new\nline", "a" * 256]


# Over HTTP a path separator makes another path; `test_rest.py` has what such paths lead to.
@pytest.mark.handlers("grpc")
@pytest.mark.parametrize("unsafe", UNSAFE_NAMES, ids=lambda n: ascii(n)[:16])
def test_names_that_could_be_taken_for_paths_are_refused(wire, name, unsafe):
    refused_because(wire.create_collection(collection(unsafe)), -1005)
    refused(wire.describe_collection(named(unsafe)), -4002)
    refused(wire.drop_collection(named(unsafe)), -4002)
    refused_because(wire.create_collection(collection(name, column(unsafe))), -1005)
    refused(wire.describe_collection(named(name)), -4002)


@pytest.mark.handlers("grpc")
def test_unsafe_names_touch_nothing_outside_the_data_folder(start_server):
    own = start_server(folder="inner/data")
    outside = own.data.parent
    before = sorted(p.name for p in outside.iterdir())
    wire = own.wire()
    for unsafe in UNSAFE_NAMES:
        wire.create_collection(collection(unsafe))
        wire.drop_collection(named(unsafe))
    assert sorted(p.name for p in outside.iterdir()) == before
    accepted(wire.create_collection(collection("still serving")))


def test_a_comma_in_a_forward_name_is_refused(wire, name):
    refused_because(wire.create_collection(collection(name, forward_names=["fine", "a,b"])), -1005)
    refused(wire.describe_collection(named(name)), -4002)


@pytest.mark.parametrize(
    "columns, forward_names",
    [(["v", "v"], []), (["v", "w", "v"], []), (["v"], ["a", "a"]), (["v"], ["a", "b", "a"])])
def test_a_column_declared_twice_is_refused(wire, name, columns, forward_names):
    declared = collection(name, *map(column, columns), forward_names=forward_names)
    refused_because(wire.create_collection(declared), -1005)
    refused(wire.describe_collection(named(name)), -4002)
