"""create, describe, list, drop: what is kept, what comes back, and in which form."""

import re
import uuid

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    BINARY32, BINARY64, FP16, FP32, INT4, INT8, INT16, TYPE_NAMES, accepted, collection, column, insert,
    keys, knn, named, refused, repository, stored, writing,
)

UNLIMITED = 2**64 - 1


def described(wire, name):
    return accepted(wire.describe_collection(named(name))).collection


def test_a_new_collection_serves_at_once(wire, name):
    accepted(wire.create_collection(collection(name)))
    info = described(wire, name)
    assert info.status == be.CollectionInfo.CS_SERVING
    assert info.config.collection_name == name
    accepted(wire.write(writing(name, insert(1, [1, 2]))))
    assert keys(wire.query(knn(name, [1, 2]))) == [[1]]


def test_describe_returns_the_declared_columns(wire, name):
    declared = column("picture", dimension=16, data_type=FP32)
    accepted(wire.create_collection(collection(name, declared, forward_names=["path", "size"])))
    config = described(wire, name).config
    assert list(config.index_column_params) == [declared], "nothing is added, extra_params stay empty"
    assert list(config.forward_column_names) == ["path", "size"]
    assert not config.HasField("repository_config")


def test_index_columns_are_described_in_reverse_order_of_creation(wire, name):
    columns = [column(f"c{i}", dimension=4 + i) for i in range(4)]
    accepted(wire.create_collection(collection(name, *columns)))
    assert list(described(wire, name).config.index_column_params) == columns[::-1]


@pytest.mark.parametrize("forward_names", [[], ["a"], ["b", "a"], ["z", "y", "x", "w"]])
def test_forward_columns_are_described_in_order(wire, name, forward_names):
    accepted(wire.create_collection(collection(name, forward_names=forward_names)))
    assert list(described(wire, name).config.forward_column_names) == forward_names


def test_unknown_parameters_are_kept_and_returned(wire, name):
    params = {
        "metric_type": "Euclidean", "max_neighbor_count": "24", "ef_construction": "100",
        "ef_search": "64", "chunk_size": "67108864", "max_scan_ratio": "0.1",
        "visit_bloomfilter_enable": "true", "engine": "HNSW", "colour": "blue", "": "empty key",
    }
    accepted(wire.create_collection(collection(name, column(params=params))))
    (param,) = described(wire, name).config.index_column_params
    assert {p.key: p.value for p in param.extra_params} == params
    assert len(param.extra_params) == len(params)


def test_the_first_of_a_repeated_parameter_wins(wire, name):
    params = [("metric_type", "Euclidean"), ("metric_type", "InnerProduct")]
    accepted(wire.create_collection(collection(name, column(params=params))))
    (param,) = described(wire, name).config.index_column_params
    assert [(p.key, p.value) for p in param.extra_params] == [("metric_type", "Euclidean")]
    accepted(wire.write(writing(name, insert(1, [3, 4]))))
    (hit,) = accepted(wire.query(knn(name, [0, 0]))).results[0].documents
    assert hit.score == 5.0


@pytest.mark.parametrize("quantize_type", ["DT_VECTOR_FP16", "DT_VECTOR_INT8", "DT_VECTOR_INT4"])
def test_quantized_columns_answer_with_the_plain_scores(wire, name, quantize_type):
    params = {"quantize_type": quantize_type, "metric_type": "InnerProduct"}
    accepted(wire.create_collection(collection(name, column(params=params))))
    accepted(wire.write(writing(name, insert(1, [1, 2]), insert(2, [3, 4]))))
    answer = accepted(wire.query(knn(name, [1, 1])))
    assert [(d.primary_key, d.score) for d in answer.results[0].documents] == [(2, -7.0), (1, -3.0)]


@pytest.mark.parametrize("asked, described_as", [(0, UNLIMITED), (1, 1), (100, 100), (UNLIMITED, UNLIMITED)])
def test_zero_documents_per_segment_means_unlimited(wire, name, asked, described_as):
    accepted(wire.create_collection(collection(name, max_docs=asked)))
    assert described(wire, name).config.max_docs_per_segment == described_as


def test_every_creation_has_a_new_uuid_of_32_hexadecimal_digits(wire, name):
    seen = set()
    for _ in range(3):
        accepted(wire.create_collection(collection(name)))
        identity = described(wire, name).uuid
        assert re.fullmatch("[0-9a-f]{32}", identity)
        seen.add(identity)
        accepted(wire.drop_collection(named(name)))
    assert len(seen) == 3


def test_a_collection_without_repository_has_no_lsn_and_no_magic_number(wire, name):
    accepted(wire.create_collection(collection(name)))
    info = described(wire, name)
    assert info.magic_number == 0
    assert not info.HasField("latest_lsn_context")


def test_a_repository_is_described_as_declared_with_its_password(wire, name):
    declared = repository("shop_repository", "mysql://db.example:4306/shop", "goods", "root", "p%40ss word")
    accepted(wire.create_collection(collection(name, repository=declared)))
    assert described(wire, name).config.repository_config == declared


def test_an_index_and_a_forward_column_may_share_a_name(wire, name):
    accepted(wire.create_collection(collection(name, column("both"), forward_names=["both"])))
    request = writing(name, insert(1, [1, 2], values=["text"]), metas=[("both", FP32, 2)], forward_names=["both"])
    accepted(wire.write(request))
    assert stored(wire, name, 1).forward_column_values[0].value.string_value == "text"
    assert keys(wire.query(knn(name, [1, 2], column_name="both"))) == [[1]]


@pytest.mark.parametrize(
    "data_type, dimension",
    [(FP32, 64), (FP16, 64), (INT8, 64), (INT4, 64), (INT16, 64), (BINARY32, 64), (BINARY64, 64)],
    ids=lambda v: TYPE_NAMES.get(v, v))
def test_every_vector_type_is_creatable_without_naming_a_metric(wire, name, data_type, dimension):
    declared = column(data_type=data_type, dimension=dimension)
    accepted(wire.create_collection(collection(name, declared)))
    assert list(described(wire, name).config.index_column_params) == [declared]


NAMES_TAKEN = [
    "plain", "with space", "dots.in.it", "...", "-dash", "ünïcödé 图片", "UPPER", "a" * 255, "semi;colon", "100%",
    "quote'\"`", "$(touch x)", "*", "CON",
]


@pytest.mark.parametrize("readable", NAMES_TAKEN, ids=lambda n: ascii(n)[:24])
def test_names_are_kept_as_given(wire, readable):
    # The names themselves are the point, so these are not made unique: they are dropped at once.
    wire.drop_collection(named(readable))
    accepted(wire.create_collection(collection(readable)))
    try:
        assert described(wire, readable).config.collection_name == readable
        accepted(wire.write(writing(readable, insert(1, [1, 2]))))
        assert keys(wire.query(knn(readable, [1, 2]))) == [[1]]
    finally:
        accepted(wire.drop_collection(named(readable)))


@pytest.mark.handlers("grpc")
def test_a_name_that_a_url_would_cut_short_is_kept_as_given(wire):
    """The stock client's HTTP handler puts names into URLs as they are."""
    test_names_are_kept_as_given(wire, "query?x=1#y")


def test_describing_a_missing_collection_says_so_and_returns_none(wire, client):
    for missing in ["no such collection", ""]:
        answer = wire.describe_collection(named(missing))
        refused(answer, -4002)
        assert not answer.HasField("collection")
    status, info = client.describe_collection("no such collection")
    assert (status.code, info) == (-4002, None)


def test_list_returns_every_collection_with_its_description(wire, name):
    names = [f"{name}-{i}" for i in range(3)]
    for one in names:
        accepted(wire.create_collection(collection(one, forward_names=["a"])))
    listed = {c.config.collection_name: c for c in accepted(wire.list_collections(be.ListCondition())).collections}
    for one in names:
        assert listed[one] == described(wire, one)
        accepted(wire.drop_collection(named(one)))
    left = accepted(wire.list_collections(be.ListCondition())).collections
    assert not {c.config.collection_name for c in left} & set(names)


def test_list_filters_by_the_exact_repository_name(wire, name):
    wanted = f"repo-{uuid.uuid4().hex}"
    declared = {
        f"{name}-1": repository(wanted), f"{name}-2": repository(wanted + "2"), f"{name}-3": repository(wanted[:-1]),
        f"{name}-4": None,
    }
    for one, its_repository in declared.items():
        accepted(wire.create_collection(collection(one, repository=its_repository)))
    listed = accepted(wire.list_collections(be.ListCondition(repository_name=wanted))).collections
    everything = accepted(wire.list_collections(be.ListCondition())).collections
    for one in declared:
        accepted(wire.drop_collection(named(one)))
    assert [c.config.collection_name for c in listed] == [f"{name}-1"]
    assert {c.config.collection_name for c in everything} >= set(declared)


def test_a_dropped_collection_is_gone_with_its_data(wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, insert(1, [1, 2]))))
    accepted(wire.drop_collection(named(name)))
    refused(wire.describe_collection(named(name)), -4002)
    refused(wire.query(knn(name, [1, 2])), -4002)
    refused(wire.write(writing(name, insert(1, [1, 2]))), -4002)
    accepted(wire.create_collection(collection(name)))
    assert keys(wire.query(knn(name, [1, 2]))) == [[]]
    assert stored(wire, name, 1) is None


def test_dropping_what_is_not_there_says_so(wire, name):
    refused(wire.drop_collection(named(name)), -4002)
    accepted(wire.create_collection(collection(name)))
    accepted(wire.drop_collection(named(name)))
    refused(wire.drop_collection(named(name)), -4002)
    refused(wire.drop_collection(named("")), -4002)
