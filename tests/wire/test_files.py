"""A sealed segment is files that other tools open: pyarrow reads the rows, faiss the index."""

import shutil

import faiss
import numpy as np
import pyarrow as pa
import pytest

from proxima import (
    BINARY32, FP16, FP32, INT4, INT8, INT16, TYPE_NAMES, accepted, collection, column, delete, insert, keys, knn,
    named, pack, repository, value, writing,
)
from sealing import all_sealed, files_of
from server import Server, eventually

ROWS = 400
#: Seals every 100 rows; sealed rows get graphs as soon as 50 wait for one.
SETTINGS = {"segment.seal_rows_max": 100, "segment.graph_rows_min": 50}
DIMENSIONS = {FP32: 16, FP16: 16, INT8: 16, INT16: 16, INT4: 16, BINARY32: 64}
ELEMENTS = {FP32: pa.float32(), FP16: pa.float16(), INT8: pa.int8(), INT16: pa.int16()}
KINDS = {0: ("bytes_value", b"\0\1"), 1: ("string_value", "s"), 2: ("bool_value", True), 3: ("double_value", 0.5),
         4: (None, None)}


def vectors_of(data_type):
    random = np.random.default_rng(data_type)
    if data_type == BINARY32:
        return random.integers(0, 2**32, (ROWS, DIMENSIONS[data_type] // 32), np.uint64).astype(np.uint32)
    if data_type in (FP32, FP16):
        return random.standard_normal((ROWS, DIMENSIONS[data_type])).astype(np.float16)
    return random.integers(-8, 8, (ROWS, DIMENSIONS[data_type]))


VECTORS = {data_type: vectors_of(data_type) for data_type in DIMENSIONS}


def graph_folders(own):
    """Segment folders in which every column has its index file."""
    folders = {path.parent for path in files_of(own, "segment-*/rows.arrow")}
    return [f for f in sorted(folders) if all((f / f"{n}.faiss").is_file() for n in range(len(DIMENSIONS)))]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The folder of a stopped server with one collection that has a column of each type."""
    own = Server(tmp_path_factory.mktemp("files") / "data", settings=SETTINGS).start()
    try:
        wire = own.wire()
        columns = [column(TYPE_NAMES[t], d, t) for t, d in DIMENSIONS.items()]
        forward_names = ["text", "number", "mixed", "never"]
        accepted(wire.create_collection(collection("kept", *columns, forward_names=forward_names)))
        metas = [(TYPE_NAMES[t], t, d) for t, d in DIMENSIONS.items()]
        for first in range(0, ROWS, 100):
            rows = []
            for k in range(first, first + 100):
                kind, sample = KINDS[k % 5]
                values = [f"text {k}", k, value(sample, kind), None]
                rows.append(insert(k, *(pack(t, VECTORS[t][k]) for t in DIMENSIONS), values=values))
            accepted(wire.write(writing("kept", *rows, metas=metas, forward_names=forward_names)))
        all_sealed(wire, "kept", documents=ROWS - 100)
        eventually(lambda: graph_folders(own), 60.0, "a segment with an index for each column")
        all_sealed(wire, "kept", documents=ROWS - 100)
        assert own.stop() == 0
        yield own
    finally:
        own.kill()


def tables(own):
    """Each sealed segment's folder and rows, as pyarrow opens them from the memory-mapped file."""
    for path in files_of(own, "segment-*/rows.arrow"):
        with pa.memory_map(str(path)) as mapped:
            yield path.parent, pa.ipc.open_file(mapped).read_all()


def test_rows_open_as_arrow_with_typed_keys_vectors_and_forward_values(sealed):
    seen = []
    for _, table in tables(sealed):
        schema = table.schema
        assert schema.field("_key").type == pa.uint64()
        for data_type, dimension in DIMENSIONS.items():
            kind = schema.field(TYPE_NAMES[data_type]).type
            if data_type in ELEMENTS:
                assert pa.types.is_fixed_size_list(kind)
                assert (kind.value_type, kind.list_size) == (ELEMENTS[data_type], dimension)
            else:
                assert pa.types.is_fixed_size_binary(kind), "packed types are bytes, as on the wire"
                assert kind.byte_width == len(pack(data_type, VECTORS[data_type][0]))
        assert pa.types.is_large_string(schema.field("text").type)
        assert schema.field("number").type == pa.int64()
        assert pa.types.is_struct(schema.field("mixed").type), "one nullable field per kind"
        assert pa.types.is_null(schema.field("never").type)
        seen += table.column("_key").to_pylist()
    assert sorted(seen) == list(range(len(seen))), "every key once"
    assert len(seen) >= ROWS - 100


def test_the_values_in_the_file_are_the_ones_written(sealed):
    for _, table in tables(sealed):
        for row in table.to_pylist():
            key = row["_key"]
            for data_type in DIMENSIONS:
                stored = row[TYPE_NAMES[data_type]]
                packed = stored if isinstance(stored, bytes) else pack(data_type, stored)
                assert packed == pack(data_type, VECTORS[data_type][key])
            assert (row["text"], row["number"], row["never"]) == (f"text {key}", key, None)
            _, sample = KINDS[key % 5]
            held = [] if row["mixed"] is None else [v for v in row["mixed"].values() if v is not None]
            assert held == ([] if sample is None else [sample])


def exact_distances(data_type, rows, queries):
    """Distances from each query (columns) to each row, in double precision."""
    if data_type == BINARY32:
        rows, queries = (np.ascontiguousarray(m.astype("<u4")).view(np.uint8) for m in (rows, queries))
        return np.unpackbits(rows[:, None] ^ queries[None], axis=2).sum(2).astype(float)
    rows, queries = rows.astype(np.float64), queries.astype(np.float64)
    return ((rows[:, None] - queries[None]) ** 2).sum(2)


def test_every_index_opens_with_faiss_and_agrees_with_brute_force(sealed):
    folders = graph_folders(sealed)
    rows_of = {folder: table.column("_key").to_pylist() for folder, table in tables(sealed)}
    for folder in folders:
        keys_here = rows_of[folder]
        for position, (data_type, dimension) in enumerate(DIMENSIONS.items()):
            rows = VECTORS[data_type][keys_here]
            queries = VECTORS[data_type][:20]
            exact = exact_distances(data_type, rows, queries)
            path = str(folder / f"{position}.faiss")
            if data_type == BINARY32:
                index = faiss.read_index_binary(path)
                queries = np.ascontiguousarray(queries.astype("<u4")).view(np.uint8)
            else:
                index = faiss.read_index(path)
                queries = np.ascontiguousarray(queries.astype(np.float32))
            assert (index.d, index.ntotal) == (dimension, len(keys_here))
            _, ids = index.search(queries, 10)
            tenth = np.sort(exact, axis=0)[9]
            hits = sum(int((exact[ids[q], q] <= tenth[q] * 1.001 + 1e-3).sum()) for q in range(20))
            assert hits / 200 >= 0.95, f"recall of {TYPE_NAMES[data_type]} is {hits / 200}"


def test_the_server_finds_what_the_files_hold(sealed):
    sealed.start()
    try:
        for k in (0, 99, 150, 299, 399):
            for is_linear in (True, False):
                request = knn("kept", pack(FP32, VECTORS[FP32][k]), "FP32", topk=1, dimension=16, is_linear=is_linear)
                assert keys(sealed.wire().query(request)) == [[k]]
    finally:
        assert sealed.stop() == 0


def test_rows_without_a_vector_are_null_in_the_file(start_server):
    own = start_server(settings=SETTINGS)
    wire = own.wire()
    accepted(wire.create_collection(collection("partial", column("x"), column("y"))))
    for first, name in ((0, "x"), (50, "y")):
        rows = [insert(k, [k, 0]) for k in range(first, first + 50)]
        accepted(wire.write(writing("partial", *rows, metas=[(name, FP32, 2)])))
    all_sealed(wire, "partial", documents=100)
    assert own.stop() == 0
    ((_, table),) = tables(own)
    for row in table.to_pylist():
        key = row["_key"]
        assert (row["x"], row["y"]) == (([key, 0.0], None) if key < 50 else (None, [key, 0.0]))


def test_lsns_and_shared_names_have_columns_of_their_own(start_server):
    own = start_server(settings=SETTINGS)
    wire = own.wire()
    accepted(wire.create_collection(collection("followed", forward_names=["v"], repository=repository())))
    magic = wire.describe_collection(named("followed")).collection.magic_number
    rows = [insert(k, [k, 0], values=[f"v{k}"], lsn=1000 + k) for k in range(100)]
    accepted(wire.write(writing("followed", *rows, forward_names=["v"], magic=magic)))
    all_sealed(wire, "followed", documents=100)
    assert own.stop() == 0
    ((_, table),) = tables(own)
    for row in table.to_pylist():
        key = row["_key"]
        assert (row["_lsn"], row["v"], row["v#forward"]) == (1000 + key, [key, 0.0], f"v{key}")


def test_sealed_files_are_replaced_but_never_modified(start_server):
    own = start_server(settings=SETTINGS)
    wire = own.wire()
    accepted(wire.create_collection(collection("still")))
    seen = {}
    for first in range(0, 1000, 100):
        accepted(wire.write(writing("still", *(insert(k, [k, 0]) for k in range(first, first + 100)))))
        accepted(wire.write(writing("still", *(delete(k) for k in range(first, first + 9)), metas=[])))
        all_sealed(wire, "still", documents=first)
        # Stopped, so that no file is looked at while it is being made.
        assert own.stop() == 0
        for path in files_of(own, "segment-*/*"):
            content = path.read_bytes()
            assert seen.setdefault(path, content) == content, path
        wire = own.start().wire()
    assert len(seen) > 10


def test_losing_the_forward_store_loses_nothing(start_server):
    own = start_server(settings=SETTINGS)
    wire = own.wire()
    accepted(wire.create_collection(collection("kept", forward_names=["a"])))
    rows = [insert(k, [k, 0], values=[f"a{k}"]) for k in range(250)]
    accepted(wire.write(writing("kept", *rows, forward_names=["a"])))
    all_sealed(wire, "kept", documents=200)
    assert own.stop() == 0
    shutil.rmtree(own.data / "forward.sled")
    own.start()
    answer = accepted(own.wire().query(knn("kept", [0, 0], topk=250)))
    found = [d.forward_column_values[0].value.string_value for d in answer.results[0].documents]
    assert found == [f"a{k}" for k in range(250)]
