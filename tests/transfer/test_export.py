"""`voisin export`: what is exported is what is there, readable by the tools of its format, and imported
again it is the same collection."""

import json
import signal
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from moving import all_rows, description, done, export_file, failed, import_files
from proxima import (BINARY32, BINARY64, FP16, FP32, INT4, INT8, INT16, accepted, collection, column, delete,
                     insert, keys, knn, named, pack, update, value, writing)
from server import binary, environment, eventually
from voisin_v1 import VoisinV1

PROBE = [0.5, 0.25, 0.0, 1.0]
ROWS = 300
KINDS = [
    ("bytes_value", b"\xff\x00"), ("string_value", 'é"\n'), ("bool_value", True), ("int32_value", -7),
    ("int64_value", -2**63), ("int64_value", 7), ("uint32_value", 2**32 - 1), ("uint64_value", 2**64 - 1),
    ("uint64_value", 7), ("float_value", float(np.float32(0.1))), ("float_value", float("inf")),
    ("double_value", 0.1), ("double_value", 3.0), ("double_value", float("-inf")), None,
]
NAMES = ["mixed", "whole", "word", "nothing"]


def key_of(number):
    return 2**64 - 2 if number == 0 else number * 7


def values_of(number):
    return {
        "mixed": KINDS[number % len(KINDS)], "whole": ("int32_value", number),
        "word": None if number % 3 == 0 else ("string_value", f"w{number}"), "nothing": None,
    }


def as_values(pairs):
    return [value(None) if pair is None else value(pair[1], pair[0]) for pair in pairs]


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)


@pytest.fixture
def filled(server, wire, name, vectors):
    """A collection with values of all kinds, with rows that were replaced and rows that were deleted."""
    params = {"metric_type": "Cosine", "ef_search": "77", "index_type": "HNSW"}
    accepted(wire.create_collection(collection(name, column("v", 4, params=params), forward_names=NAMES, max_docs=5000)))

    def write(rows, operation):
        made = [operation(key_of(n), vectors[n].tobytes(), values=as_values(values_of(m).values())) for n, m in rows]
        accepted(wire.write(writing(name, *made, metas=[("v", FP32, 4)], forward_names=NAMES)))
    write([(n, n + 1) for n in range(ROWS)], insert)
    write([(n, n) for n in range(ROWS)], update)
    accepted(wire.write(writing(name, *[delete(key_of(n)) for n in range(10, 20)], metas=())))
    return name


THERE = [n for n in range(ROWS) if not 10 <= n < 20]


def check_same(server, name, other, column="v"):
    """Two collections answer alike: rows, kinds, scores, and queries."""
    rows = all_rows(server, name, column, PROBE)
    assert rows == all_rows(server, other, column, PROBE) and len(rows) == len(THERE)
    for probe in np.random.default_rng(9).normal(size=(20, 4)).astype(np.float32):
        ask = lambda where: keys(server.wire().query(knn(
            where, probe.tobytes(), column_name=column, topk=25, batch_count=1, dimension=4)))
        assert ask(name) == ask(other)


@pytest.mark.parametrize("end", ["parquet", "arrow", "feather", "jsonl"])
def test_what_is_exported_and_imported_again_is_the_same(server, filled, tmp_path, end):
    path, other = tmp_path / f"rows.{end}", filled + "-2"
    assert f"exported {len(THERE)} rows" in done(export_file(server, filled, path))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    # Lines of JSON have no place for what the collection is declared to be.
    flags = ["--metric", "Cosine", "--index-type", "HNSW", "--param", "ef_search=77"] if end == "jsonl" else []
    done(import_files(server, other, path, *flags))
    assert description(server, filled) == description(server, other)
    check_same(server, filled, other)
    again = tmp_path / f"again.{end}"
    done(export_file(server, other, again))
    if end == "jsonl":
        assert again.read_text() == path.read_text()
    accepted(server.wire().drop_collection(named(other)))


@pytest.mark.parametrize("end", ["npy", "fvecs"])
def test_vectors_alone_come_back_with_their_keys(server, filled, tmp_path, vectors, end):
    path, other = tmp_path / f"rows.{end}", filled + "-2"
    ran = export_file(server, filled, path)
    assert f"exported {len(THERE)} rows" in done(ran) and "left out" in ran.stderr
    stored = np.load(tmp_path / "rows.keys.npy")
    assert list(stored) == sorted(key_of(n) for n in THERE)
    if end == "npy":
        order = sorted(THERE, key=key_of)
        assert np.array_equal(np.load(path), vectors[order])
    done(import_files(server, other, path, "--keys", tmp_path / "rows.keys.npy", "--vector", "vector=v", "--metric",
                      "Cosine"))
    score = lambda rows: {key: row[0] for key, row in rows.items()}
    assert score(all_rows(server, filled, "v", PROBE)) == score(all_rows(server, other, "v", PROBE))
    accepted(server.wire().drop_collection(named(other)))


def test_other_tools_read_the_columns(server, filled, tmp_path, vectors):
    order = sorted(THERE, key=key_of)
    tables = {"parquet": pq.read_table, "feather": feather.read_table,
              "arrow": lambda path: pa.ipc.open_file(path).read_all()}
    for end, read in tables.items():
        done(export_file(server, filled, tmp_path / f"a.{end}"))
        table = read(tmp_path / f"a.{end}")
        assert table.column_names == ["_key", "v", *NAMES]
        assert table["_key"].to_pylist() == [key_of(n) for n in order]
        assert table["_key"].type == pa.uint64() and table["whole"].type == pa.int32()
        assert np.array_equal(np.array(table["v"].to_pylist(), np.float32), vectors[order])
        assert table["whole"].to_pylist() == order
        assert table["word"].to_pylist() == [None if n % 3 == 0 else f"w{n}" for n in order]
    lines = tmp_path / "a.jsonl"
    done(export_file(server, filled, lines, "--plain"))
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["_key"] for row in rows] == [key_of(n) for n in order]
    assert [row["whole"] for row in rows] == order
    assert np.array_equal(np.array([row["v"] for row in rows], np.float32), vectors[order])


def test_filters_and_columns_choose(server, filled, tmp_path):
    def exported(*args):
        done(export_file(server, filled, tmp_path / "a.parquet", "--overwrite", *args))
        return pq.read_table(tmp_path / "a.parquet")
    table = exported("--filter", "whole >= 100 and whole < 120", "--columns", "word", "--no-vectors")
    assert table.column_names == ["_key", "word"]
    assert table["_key"].to_pylist() == [key_of(n) for n in range(100, 120)]
    assert exported("--columns", "").column_names == ["_key", "v"]
    assert exported("--filter", "whole < 0").num_rows == 0
    path = tmp_path / "a.parquet"
    failed(export_file(server, filled, path, "--overwrite", "--filter", "whole <"), 2, "whole")
    failed(export_file(server, filled, path, "--overwrite", "--columns", "none"), 2, 'no forward column "none"')
    failed(export_file(server, filled, path, "--overwrite", "--vectors", "w"), 2, 'no vector column "w", but "v"')


def test_a_file_that_is_there_stays_as_it_is(server, filled, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("mine")
    failed(export_file(server, filled, path), 2, "is there already", "--overwrite")
    failed(export_file(server, "none", path, "--overwrite"), 2, "there is no collection")
    failed(export_file(server, filled, tmp_path / "a.xlsx"), 2, ".parquet")
    failed(export_file(server, filled, tmp_path / "none" / "a.parquet"), 1, "No such file")
    assert path.read_text() == "mine"
    done(export_file(server, filled, path, "--overwrite"))
    assert pq.read_table(path).num_rows == len(THERE)


ELEMENTS = {
    "FP32": (FP32, 4, [0.5, -1.0, 2.0, 0.25]), "FP16": (FP16, 4, [0.5, -1.0, 2.0, 0.1]),
    "INT8": (INT8, 4, [1, -2, 127, -128]), "INT16": (INT16, 4, [1, -2, 300, -300]),
    "INT4": (INT4, 4, [1, -2, 7, -8]), "BINARY32": (BINARY32, 64, [1, 2**32 - 1]),
    "BINARY64": (BINARY64, 64, [2**63 + 1]),
}


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("end", ["parquet", "jsonl"])
def test_every_element_type_comes_back(server, wire, name, tmp_path, element, end):
    data_type, dimension, numbers = ELEMENTS[element]
    packed, other = pack(data_type, numbers), name + "-2"
    accepted(wire.create_collection(collection(name, column("v", dimension, data_type))))
    accepted(wire.write(writing(name, insert(1, packed), metas=[("v", data_type, dimension)])))
    path = tmp_path / f"a.{end}"
    done(export_file(server, name, path))
    done(import_files(server, other, path, "--vector", "v", "--element", element))
    assert description(server, other)[0]["v"][:2] == (data_type, dimension)
    ask = knn(other, packed, data_type=data_type, dimension=dimension, batch_count=1, is_linear=True)
    (document,) = accepted(wire.query(ask)).results[0].documents
    assert (document.primary_key, document.score) == (1, 0.0)
    accepted(wire.drop_collection(named(other)))


def test_rows_that_lack_a_vector_and_columns_that_share_a_name(server, wire, name, tmp_path):
    accepted(wire.create_collection(collection(name, column("v", 2), column("w", 2), forward_names=["v", "_key"])))

    def write(column_name, key):
        rows = [insert(key, [1.0, key], values=[value(f"x{key}"), None])]
        accepted(wire.write(writing(name, *rows, metas=[(column_name, FP32, 2)], forward_names=["v", "_key"])))
    write("v", 1), write("w", 2), write("v", 3)
    for end in ["parquet", "arrow"]:
        path, other = tmp_path / f"a.{end}", f"{name}-{end}"
        done(export_file(server, name, path))
        done(import_files(server, other, path))
        assert description(server, other)[0].keys() == {"v", "w"}
        for column_name in ["v", "w"]:
            rows = all_rows(server, other, column_name, [0, 0])
            assert rows == all_rows(server, name, column_name, [0, 0])
            assert sorted(rows) == ([1, 3] if column_name == "v" else [2])
        accepted(wire.drop_collection(named(other)))
    failed(export_file(server, name, tmp_path / "a.npy"), 1, "--vectors")
    failed(export_file(server, name, tmp_path / "a.npy", "--vectors", "v"), 1, "has no vector")
    assert not list(tmp_path.glob("a.npy*")) and not list(tmp_path.glob("*.keys.npy*"))


@pytest.mark.parametrize("data_type, dimension", [(FP32, 4), (BINARY32, 64)], ids=["FP32", "BINARY32"])
@pytest.mark.parametrize("end", ["parquet", "arrow", "feather", "jsonl"])
def test_rows_with_several_vectors_come_back_with_all_of_them(server, wire, name, tmp_path, end, data_type, dimension):
    random, other, path = np.random.default_rng(4), name + "-2", tmp_path / f"a.{end}"
    multi = {"multi": "true", "multi_max": "9", "metric_type": "Hamming" if data_type == BINARY32 else "Cosine"}
    accepted(wire.create_collection(collection(name, column("v", dimension, data_type, params=multi))))

    def vectors(count):
        if data_type == BINARY32:
            return random.integers(0, 256, (count, 8), np.uint8)
        return random.normal(size=(count, 4)).astype(np.float32)
    rows = {key: vectors(key % 9 + 1) for key in range(200)}
    for first in range(0, 200, 20):
        made = [insert(key, rows[key].tobytes()) for key in range(first, first + 20)]
        accepted(wire.write(writing(name, *made, metas=[("v", data_type, dimension)])))
    done(export_file(server, name, path))
    flags = ["--metric", multi["metric_type"], "--param", "multi_max=9"] if end == "jsonl" else []
    flags += ["--element", "BINARY32", "--vector", "v"] if data_type == BINARY32 else []
    done(import_files(server, other, path, *flags, "--batch-rows", 7))
    assert description(server, other) == description(server, name)
    for probe in vectors(20):
        asked = [accepted(wire.query(knn(
            where, probe.tobytes(), column_name="v", topk=200, batch_count=1, dimension=dimension,
            data_type=data_type, is_linear=True))).results[0] for where in (name, other)]
        first, second = ([(d.primary_key, d.score) for d in result.documents] for result in asked)
        assert first == second and len(first) == 200
    again = tmp_path / f"b.{end}"
    done(export_file(server, other, again))
    if end == "jsonl":
        assert again.read_text() == path.read_text()
        line = json.loads(path.read_text().splitlines()[4])
        assert line["_key"] == 4 and len(line["v"]) == 5
    elif data_type == FP32:
        read = {"parquet": pq.read_table, "feather": feather.read_table}.get(end)
        table = read(again) if read else pa.ipc.open_file(again).read_all()
        assert all(np.array_equal(np.array(v, np.float32), rows[n]) for n, v in enumerate(table["v"].to_pylist()))
    failed(export_file(server, name, tmp_path / "a.npy"), 1, "several vectors for a row" if data_type == FP32 else "v")
    accepted(wire.drop_collection(named(other)))


#: Vectors of rows that lack some, or all: in columns that take several, and in columns that take one.
LACKING = {
    "several": ({"multi": "true"}, [0, 1, 2, 5, 0, 1]), "several, the last ones": ({"multi": "true"}, [0, 0, 2, 3]),
    "one": ({}, [0, 1, 1, 0, 1]),
}


def write_lacking(calls, name, params, counts, dimension=3, forwards=True):
    """A collection with two columns, of which rows have so many vectors in the first and none in the second."""
    message = calls.message
    columns = [message("VectorColumnInfo", name=c, element=1, dimension=dimension, metric=1, params=params) for c in "vw"]
    calls.CreateCollection(name=name, vectors=columns, forwards=[message("ForwardColumnInfo", name="t")])
    packed = np.random.default_rng(9).standard_normal((sum(counts), dimension)).astype(np.float32).tobytes()
    vectors = [message("VectorColumn", name="v", element=1, dimension=dimension, vectors=packed, counts=counts),
               message("VectorColumn", name="w", element=1, dimension=dimension, counts=[0] * len(counts))]
    values = [message("Value", int64_value=at) for at in range(len(counts))]
    ack = calls.Write(collection=name, keys=range(len(counts)), operation=1, vectors=vectors,
                      forwards=[message("ForwardColumn", name="t", values=values)])
    assert ack.rows_applied == len(counts), ack


def read_all(calls, name):
    """All rows: the keys, the numbers of vectors with their bytes, and the forward values."""
    (part,) = calls.Read(collection=name, vectors=calls.message("VectorNames", names=["*"]))
    counts = {c.name: list(c.counts) or [1] * len(part.keys) for c in part.vectors}
    return list(part.keys), counts, {c.name: c.vectors for c in part.vectors}, [list(c.values) for c in part.forwards]


@pytest.mark.parametrize("kind", LACKING)
@pytest.mark.parametrize("end", ["parquet", "arrow", "feather", "jsonl"])
def test_rows_without_any_vector_come_back(server, name, tmp_path, end, kind):
    calls, (params, counts) = VoisinV1(server.channel()), LACKING[kind]
    write_lacking(calls, name, params, counts)
    path, other = tmp_path / f"a.{end}", name + "-2"
    done(export_file(server, name, path))
    # Lines of JSON do not tell the dimension of a column that nothing is in.
    flags = ["--vector", "v", "--columns", "t"] if end == "jsonl" else []
    done(import_files(server, other, path, *flags, "--batch-rows", 2))
    keys, found, packed, values = read_all(calls, other)
    expected = read_all(calls, name)
    if end == "jsonl":
        del expected[1]["w"], expected[2]["w"]
    assert (keys, found, packed, values) == expected and found["v"] == counts
    if end == "jsonl":
        # With a collection that is there, they need not.
        write_lacking(calls, name + "-3", params, counts)
        done(import_files(server, name + "-3", path, "--mode", "upsert"))
        assert read_all(calls, name + "-3") == read_all(calls, name)
        calls.DropCollection(name=name + "-3")
    calls.DropCollection(name=other)


def test_rows_of_other_tools_that_lack_their_only_vector_are_bad(server, name, tmp_path):
    rows = pa.table({"id": [10, 11], "v": pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))})
    pq.write_table(rows, tmp_path / "a.parquet")
    ran = import_files(server, name, tmp_path / "a.parquet", "--skip-bad")
    assert "imported 1 rows" in done(ran) and "1 bad rows" in ran.stdout and "it has no vector" in ran.stderr


def test_lists_of_vectors_of_other_tools_are_rows_with_several(server, wire, name, tmp_path):
    lists = [[[1.0, 2.0], [3.0, 4.0]], None, [[5.0, 6.0]], []]
    rows = pa.table({"id": [10, 11, 12, 13], "v": pa.array(lists, pa.list_(pa.list_(pa.float64())))})
    pq.write_table(rows, tmp_path / "a.parquet")
    assert "imported 4 rows" in done(import_files(server, name, tmp_path / "a.parquet"))
    assert description(server, name)[0]["v"][2]["multi"] == "true"
    assert VoisinV1(server.channel()).Count(collection=name).rows == 4
    found = all_rows(server, name, "v", [3, 4])
    assert {key: score for key, (score, _) in found.items()} == {10: 0.0, 12: 8.0}
    # A row with one vector may leave out a pair of brackets.
    (tmp_path / "a.jsonl").write_text('{"id": 20, "v": [3, 4]}\n{"id": 21, "v": [[3, 4], [0, 0]]}\n')
    done(import_files(server, name, tmp_path / "a.jsonl"))
    assert {20, 21} <= {key for key, (score, _) in all_rows(server, name, "v", [3, 4]).items() if score == 0}
    (tmp_path / "b.jsonl").write_text('{"id": 30, "v": [[3, 4], [0]]}\n')
    failed(import_files(server, name, tmp_path / "b.jsonl"), 1, "row 0", "vector 1: a vector of 1 numbers")
    accepted(wire.create_collection(collection(name + "-2", column("v", 2))))
    failed(import_files(server, name + "-2", tmp_path / "a.parquet"), 2, "one vector for each row, and the file lists")


def test_a_kind_that_comes_late_is_in_the_file(server, wire, name, tmp_path):
    """Columns of a file have one type: what the first rows have is not all that there is."""
    rows = 70_000
    np.savez(tmp_path / "a.npz", v=np.zeros((rows, 1), np.float32), a=np.arange(rows, dtype=np.int32))
    done(import_files(server, name, tmp_path / "a.npz"))
    late = insert(rows, [1.0], values=[value("late")])
    accepted(wire.write(writing(name, late, metas=[("v", FP32, 1)], forward_names=["a"])))
    done(export_file(server, name, tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == rows + 1
    assert table["a"][rows].as_py() == {"int32": None, "string": "late"}
    assert table["a"][rows - 1].as_py() == {"int32": rows - 1, "string": None}


def test_a_signal_stops_it_and_no_file_is_left(server, name, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100_000, 64), np.float32))
    done(import_files(server, name, tmp_path / "a.npy"))
    out = tmp_path / "out.jsonl"
    command = [binary(), "export", "--collection", name, "--out", str(out), "--server", server.grpc]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment({}))
    eventually(lambda: (tmp_path / "out.jsonl.part").exists(), 60, "the file")
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=60)
    assert running.returncode == 130, words
    assert "stopped by SIGINT; no file is left" in words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "a.npy.voisin-import"]

