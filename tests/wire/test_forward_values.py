"""Forward values: stored and returned verbatim, each with the kind it came with."""

import math

import pytest

from proxima import accepted, collection, forwards, insert, knn, stored, update, value, writing

KINDS = {
    "bytes_value": [b"", b"\0\xff", b"x" * 10_000],
    "string_value": ["", "text", "ünïcödé 图片 \U0001f600", "y" * 10_000, "a\0b"],
    "bool_value": [False, True],
    "int32_value": [0, -1, 2**31 - 1, -(2**31)],
    "int64_value": [0, -1, 2**63 - 1, -(2**63)],
    "uint32_value": [0, 1, 2**32 - 1],
    "uint64_value": [0, 1, 2**64 - 1],
    "float_value": [0.0, -0.0, 1.5, 3.4028234663852886e38, math.inf, -math.inf],
    "double_value": [0.0, 0.1, -1e308, 5e-324, math.inf],
}
CASES = [(kind, v) for kind, values in KINDS.items() for v in values]


def returned(wire, name, key):
    """The forward values of a key, by get and by query, which must agree."""
    by_get = forwards(stored(wire, name, key))
    answer = accepted(wire.query(knn(name, [key, 0], topk=1)))
    (document,) = answer.results[0].documents
    assert document.primary_key == key
    assert forwards(document) == by_get
    return by_get


def test_every_kind_comes_back_as_it_was(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    rows = [insert(key, [key, 0], values=[value(v, kind)]) for key, (kind, v) in enumerate(CASES)]
    accepted(wire.write(writing(name, *rows, forward_names=["a"])))
    for key, (kind, v) in enumerate(CASES):
        back = returned(wire, name, key)["a"]
        assert back == (kind, v)
        assert math.copysign(1, back[1]) == math.copysign(1, v) if isinstance(v, float) else True


def test_a_float_that_is_not_a_number_comes_back(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a", "b"])))
    values = [value(math.nan, "float_value"), value(math.nan, "double_value")]
    accepted(wire.write(writing(name, insert(1, [1, 0], values=values), forward_names=["a", "b"])))
    back = forwards(stored(wire, name, 1))
    assert [kind for kind, _ in back.values()] == ["float_value", "double_value"]
    assert all(math.isnan(v) for _, v in back.values())


def test_all_nine_kinds_stand_in_one_row(wire, name):
    names = list(KINDS)
    accepted(wire.create_collection(collection(name, forward_names=names)))
    values = [value(vs[-1], kind) for kind, vs in KINDS.items()]
    accepted(wire.write(writing(name, insert(1, [1, 0], values=values), forward_names=names)))
    assert returned(wire, name, 1) == {kind: (kind, vs[-1]) for kind, vs in KINDS.items()}


def test_nothing_ties_a_column_to_one_kind(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    for key, (kind, values) in enumerate(KINDS.items()):
        accepted(wire.write(writing(name, insert(key, [key, 0], values=[value(values[0], kind)]), forward_names=["a"])))
    for key, (kind, values) in enumerate(KINDS.items()):
        assert returned(wire, name, key)["a"] == (kind, values[0])
    accepted(wire.write(writing(name, update(0, [0, 0], values=["now text"]), forward_names=["a"])))
    assert returned(wire, name, 0)["a"] == ("string_value", "now text")


def test_an_unset_value_comes_back_unset(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a", "b", "c"])))
    row = insert(1, [1, 0], values=[None, "b", None])
    accepted(wire.write(writing(name, row, forward_names=["a", "b", "c"])))
    assert returned(wire, name, 1) == {"a": None, "b": ("string_value", "b"), "c": None}


def test_a_collection_without_forward_columns_returns_none(wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, insert(1, [1, 0]))))
    assert returned(wire, name, 1) == {}


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_every_kind_survives_a_restart(own_server, how):
    names = list(KINDS)
    wire = own_server.wire()
    accepted(wire.create_collection(collection("kinds", forward_names=names)))
    values = [value(vs[-1], kind) for kind, vs in KINDS.items()]
    unset = [None] * len(names)
    accepted(wire.write(writing("kinds", insert(1, [1, 0], values=values), insert(2, [2, 0], values=unset),
                                forward_names=names)))
    own_server.restart(how)
    wire = own_server.wire()
    assert returned(wire, "kinds", 1) == {kind: (kind, vs[-1]) for kind, vs in KINDS.items()}
    assert returned(wire, "kinds", 2) == dict.fromkeys(names)
