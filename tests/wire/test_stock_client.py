"""The stock Python client, as its users hold it: its classes, its list packing, its two kinds of client.

The other files speak bare messages; here everything goes through pyproximabe's own types.
"""

import asyncio
import struct

import pytest
from pyproximabe import CollectionConfig, DatabaseRepository, DataType, IndexColumnParam, LsnContext, WriteRequest
from pyproximabe.core.types import ProximaBeException

from server import eventually

INSERT, UPDATE, DELETE = (WriteRequest.OperationType[n] for n in ("INSERT", "UPDATE", "DELETE"))
VECTOR = [1.0, 2.0, 3.0, 4.0]
FORMS = {
    "list": VECTOR,
    "bytes": struct.pack("<4f", *VECTOR),
    "text": "[1,2,3,4]",
}
FORWARDS = {
    DataType.BINARY: b"\x00\xff", DataType.STRING: "text", DataType.BOOL: True, DataType.INT32: -5,
    DataType.INT64: -(2**40), DataType.UINT32: 2**32 - 1, DataType.UINT64: 2**64 - 1, DataType.FLOAT: 0.5,
    DataType.DOUBLE: 0.1,
}


def meta(data_type=DataType.VECTOR_FP32, dimension=4, forward_types=()):
    return WriteRequest.RowMeta(
        [WriteRequest.IndexColumnMeta("feature", data_type, dimension)],
        [f"f_{t.name}" for t in forward_types], list(forward_types))


def create(client, name, data_type=DataType.VECTOR_FP32, dimension=4, forward_types=(), repository=None):
    config = CollectionConfig(
        name, [IndexColumnParam("feature", dimension, data_type=data_type)], [f"f_{t.name}" for t in forward_types],
        repository_config=repository)
    status = client.create_collection(config)
    assert status.ok(), status


@pytest.mark.parametrize("form", FORMS)
def test_vectors_go_in_as_list_bytes_or_text_and_queries_too(client, name, form):
    create(client, name)
    row = WriteRequest.Row(1, INSERT, [FORMS[form] if form != "list" else list(VECTOR)])
    assert client.write(WriteRequest(name, [row], meta())).ok()
    for query in ([VECTOR], VECTOR, FORMS["bytes"], FORMS["text"]):
        status, response = client.query(
            name, "feature", query, data_type=DataType.VECTOR_FP32, dimension=4, batch_count=1, topk=3)
        assert status.ok(), status
        assert [(d.primary_key, d.score) for d in response.results[0]] == [(1, 0.0)]


PACKED = {
    DataType.VECTOR_FP32: (4, [1.5, -2.0, 0.25, 8.0]),
    DataType.VECTOR_FP16: (4, [1.5, -2.0, 0.25, 8.0]),
    DataType.VECTOR_INT16: (4, [1, -2, 300, -300]),
    DataType.VECTOR_BINARY32: (64, [1, 2**32 - 1]),
    DataType.VECTOR_BINARY64: (128, [1, 2**64 - 1]),
}


@pytest.mark.parametrize("data_type", PACKED, ids=lambda t: t.name)
def test_the_types_the_client_packs_from_lists(client, name, data_type):
    dimension, numbers = PACKED[data_type]
    create(client, name, data_type, dimension)
    rows = [WriteRequest.Row(1, INSERT, [list(numbers)])]
    assert client.write(WriteRequest(name, rows, meta(data_type, dimension))).ok()
    status, response = client.query(name, "feature", [list(numbers)], data_type=data_type)
    assert status.ok(), status
    assert [(d.primary_key, d.score) for d in response.results[0]] == [(1, 0.0)]


@pytest.mark.parametrize("data_type, packed", [(DataType.VECTOR_INT8, b"\x01\xfe\x03\x80"),
                                               (DataType.VECTOR_INT4, b"\x21\xf8")], ids=["INT8", "INT4"])
def test_the_types_the_client_takes_as_bytes_only(client, name, data_type, packed):
    create(client, name, data_type)
    assert client.write(WriteRequest(name, [WriteRequest.Row(1, INSERT, [packed])], meta(data_type))).ok()
    status, response = client.query(name, "feature", packed, data_type=data_type, dimension=4, batch_count=1)
    assert status.ok(), status
    assert [(d.primary_key, d.score) for d in response.results[0]] == [(1, 0.0)]


def test_bytes_queries_need_no_data_type(client, name):
    create(client, name)
    assert client.write(WriteRequest(name, [WriteRequest.Row(1, INSERT, [FORMS["bytes"]])], meta())).ok()
    status, response = client.query(name, "feature", FORMS["bytes"] * 2, dimension=4, batch_count=2)
    assert status.ok(), status
    assert [[d.primary_key for d in result] for result in response.results] == [[1], [1]]


def test_all_nine_forward_kinds_come_back_as_python_values(client, name):
    create(client, name, forward_types=FORWARDS)
    row = WriteRequest.Row(1, INSERT, [list(VECTOR)], list(FORWARDS.values()))
    assert client.write(WriteRequest(name, [row], meta(forward_types=FORWARDS))).ok()
    expected = {f"f_{t.name}": v for t, v in FORWARDS.items()}
    status, document = client.get_document_by_key(name, 1)
    assert status.ok() and document.forward_column_values == expected
    status, response = client.query(name, "feature", [VECTOR], data_type=DataType.VECTOR_FP32)
    assert status.ok() and response.results[0][0].forward_column_values == expected


def test_forward_columns_left_out_are_none(client, name):
    create(client, name, forward_types=[DataType.FLOAT, DataType.STRING])
    row = WriteRequest.Row(1, INSERT, [list(VECTOR)], [1.5])
    assert client.write(WriteRequest(name, [row], meta(forward_types=[DataType.FLOAT]))).ok()
    _, document = client.get_document_by_key(name, 1)
    assert document.forward_column_values == {"f_FLOAT": 1.5, "f_STRING": None}


def test_insert_update_delete_and_get(client, name):
    create(client, name, forward_types=[DataType.STRING])
    row_meta = meta(forward_types=[DataType.STRING])
    rows = [WriteRequest.Row(k, INSERT, [[float(k)] * 4], [f"first {k}"]) for k in range(5)]
    assert client.write(WriteRequest(name, rows, row_meta)).ok()
    status = client.write(WriteRequest(name, [WriteRequest.Row(2, UPDATE, [[9.0] * 4], ["second"])], row_meta))
    assert status.ok()
    assert client.delete_document_by_keys(name, [3, 4]).ok()
    assert client.delete_document_by_keys(name, 1).ok()
    documents = [client.get_document_by_key(name, k) for k in range(5)]
    assert all(status.ok() for status, _ in documents)
    texts = [d and d.forward_column_values["f_STRING"] for _, d in documents]
    assert texts == ["first 0", None, "second", None, None]
    assert client.delete_document_by_keys(name, [3]).code == -4004


def test_a_repository_collection_through_the_client(client, name):
    declared = DatabaseRepository("shop", "mysql://127.0.0.1:3306/db", "goods", "root", "root")
    create(client, name, repository=declared)
    status, info = client.describe_collection(name)
    assert status.ok()
    assert vars(info.collection_config.repository_config) == vars(declared)
    assert info.status.name == "SERVING"
    rows = [WriteRequest.Row(k, INSERT, [list(VECTOR)], lsn_context=LsnContext(k, f"log;{k}")) for k in (1, 2)]
    assert client.write(WriteRequest(name, rows, meta(), magic_number=0)).code == -2021
    assert client.write(WriteRequest(name, rows, meta(), magic_number=info.magic_number)).ok()

    def latest():
        context = client.describe_collection(name)[1].latest_lsn_context
        return (context.lsn, context.context) == (2, "log;2")

    eventually(latest, 1.0, "the latest lsn")
    _, listed = client.list_collections("shop")
    assert name in [c.collection_config.collection_name for c in listed]


def test_what_the_client_refuses_itself_never_reaches_the_server(client, name):
    create(client, name)
    with pytest.raises(ProximaBeException):
        WriteRequest(name, [], meta())
    with pytest.raises(ProximaBeException):
        WriteRequest(name, [WriteRequest.Row(1, INSERT, [list(VECTOR)])])
    status, response = client.query(name, "feature", [VECTOR], data_type=DataType.VECTOR_FP32)
    assert status.ok() and response.results == [[]]


@pytest.mark.handlers("grpc")
def test_the_asynchronous_client_does_all_of_it(server, name):
    async def walk():
        client = server.async_client()
        try:
            config = CollectionConfig(name, [IndexColumnParam("feature", 4)], ["f_STRING"])
            status = await client.create_collection(config)
            assert status.ok(), status
            row_meta = meta(forward_types=[DataType.STRING])
            requests = [
                WriteRequest(name, [WriteRequest.Row(k, INSERT, [[float(k)] * 4], [str(k)])], row_meta)
                for k in range(20)]
            statuses = await asyncio.gather(*(client.write(r) for r in requests))
            assert all(s.ok() for s in statuses)
            queries = [
                client.query(name, "feature", [[float(k)] * 4], data_type=DataType.VECTOR_FP32, topk=1)
                for k in range(20)]
            for k, (status, response) in enumerate(await asyncio.gather(*queries)):
                assert status.ok()
                assert [(d.primary_key, d.score) for d in response.results[0]] == [(k, 0.0)]
            assert (await client.delete_document_by_keys(name, [0])).ok()
            assert (await client.get_document_by_key(name, 0))[1] is None
            _, document = await client.get_document_by_key(name, 1)
            assert document.forward_column_values == {"f_STRING": "1"}
            _, stats = await client.stats_collection(name)
            assert stats.total_doc_count == 20
            assert (await client.describe_collection(name))[1].collection_config.collection_name == name
            assert (await client.drop_collection(name)).ok()
            assert (await client.describe_collection(name))[0].code == -4002
        finally:
            await client.close()

    asyncio.run(walk())


def test_the_image_search_sequence(client, name):
    """The documented walk through image search, call by call."""
    config = CollectionConfig(name, [IndexColumnParam("feature", 512)], ["image_path"])
    assert client.create_collection(config).ok()
    vectors = [[float(i == j) for j in range(512)] for i in range(10)]
    row_meta = WriteRequest.RowMeta(
        [WriteRequest.IndexColumnMeta("feature", DataType.VECTOR_FP32, 512)], ["image_path"], [DataType.STRING])
    rows = [WriteRequest.Row(i, INSERT, [list(v)], [f"{i}.jpg"]) for i, v in enumerate(vectors)]
    assert client.write(WriteRequest(name, rows, row_meta)).ok()
    for i, vector in enumerate(vectors):
        status, response = client.query(name, "feature", [vector], data_type=DataType.VECTOR_FP32, topk=5)
        assert status.ok()
        (result,) = response.results
        assert len(result) == 5
        assert (result[0].primary_key, result[0].score) == (i, 0.0)
        assert result[0].forward_column_values["image_path"] == f"{i}.jpg"
        assert {d.score for d in result[1:]} == {2.0}
    assert client.delete_document_by_keys(name, [3, 4]).ok()
    status, document = client.get_document_by_key(name, 3)
    assert status.ok() and document is None
    status, stats = client.stats_collection(name)
    assert status.ok() and stats.total_doc_count == 10
    status, response = client.query(name, "feature", [vectors[3]], data_type=DataType.VECTOR_FP32, topk=100)
    assert sorted(d.primary_key for d in response.results[0]) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert client.drop_collection(name).ok()
