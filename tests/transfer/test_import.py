"""`voisin import`: every format that people hold, types, bad rows, and going on where it ended."""

import json
import signal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from moving import (all_rows, begin_import, description, done, failed, far_away, import_files, run_voisin, squares,
                    state_of)
from proxima import BINARY32, FP16, INT8, accepted, collection, column, named, repository
from server import eventually

ROWS = 700
DIMENSION = 8
PROBE = [0.5] * DIMENSION


@pytest.fixture
def vectors():
    return np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)


def fixed(vectors):
    """Vectors as Arrow's fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def lists(vectors):
    """Vectors as pandas leaves them in Parquet: lists of any length."""
    return pa.array([list(map(float, v)) for v in vectors], pa.list_(pa.float64()))


def table(vectors, as_lists=fixed):
    numbers = np.arange(len(vectors))
    return pa.table({
        "id": pa.array(numbers * 3, pa.int64()),
        "embedding": as_lists(vectors),
        "path": pa.array([None if n % 7 == 0 else f"img/{n}.jpg" for n in numbers]),
        "label": pa.array((numbers % 10).astype(np.int32)),
        "score": pa.array(numbers / 3),
        "flag": pa.array(numbers % 2 == 0),
    })


def check_rows(server, name, vectors, keys, expected=None, column="embedding"):
    """Every row is there once, with its vector and its values."""
    rows = all_rows(server, name, column, PROBE)
    assert sorted(rows) == sorted(keys)
    scores = squares(vectors, PROBE)
    for number, key in enumerate(keys):
        score, values = rows[key]
        assert score == pytest.approx(scores[number], rel=1e-5)
        if expected is not None:
            assert values == expected(number)


def table_values(number):
    return {
        "path": None if number % 7 == 0 else ("string_value", f"img/{number}.jpg"),
        "label": ("int32_value", number % 10),
        "score": ("double_value", number / 3),
        "flag": ("bool_value", number % 2 == 0),
    }


# ----- formats -----


def write_arrow(path, rows):
    with pa.ipc.new_file(path, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=300)


def write_stream(path, rows):
    with pa.ipc.new_stream(path, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=300)


TABLES = {
    "parquet": ("a.parquet", lambda path, rows: pq.write_table(rows, path)),
    "parquet zstd in groups": ("a.pq", lambda path, rows: pq.write_table(
        rows, path, compression="zstd", row_group_size=150)),
    "parquet gzip 1.0": ("a.parquet", lambda path, rows: pq.write_table(
        rows, path, compression="gzip", version="1.0", data_page_version="2.0")),
    "feather": ("a.feather", lambda path, rows: feather.write_feather(rows, path)),
    "feather zstd": ("a.feather", lambda path, rows: feather.write_feather(rows, path, compression="zstd")),
    "arrow file": ("a.arrow", write_arrow),
    "arrow stream": ("a.arrows", write_stream),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("as_lists", [fixed, lists], ids=["fixed", "lists"])
def test_tables_of_pyarrow(server, name, tmp_path, vectors, kind, as_lists):
    file, write = TABLES[kind]
    write(tmp_path / file, table(vectors, as_lists))
    said = done(import_files(server, name, tmp_path / file))
    assert f"imported {ROWS} rows" in said
    check_rows(server, name, vectors, [n * 3 for n in range(ROWS)], table_values)
    columns, forward_names = description(server, name)
    assert list(columns) == ["embedding"] and columns["embedding"][1] == DIMENSION
    assert forward_names == ["path", "label", "score", "flag"]


def write_vecs(path, vectors, kind):
    with open(path, "wb") as file:
        for vector in vectors:
            file.write(np.int32(len(vector)).tobytes() + vector.astype(kind).tobytes())


@pytest.mark.parametrize("end, kind", [("fvecs", "<f4"), ("bvecs", "u1"), ("ivecs", "<i4")])
def test_files_of_vectors_alone(server, name, tmp_path, end, kind):
    vectors = np.random.default_rng(2).integers(0, 256, (ROWS, DIMENSION))
    write_vecs(tmp_path / f"a.{end}", vectors, kind)
    done(import_files(server, name, tmp_path / f"a.{end}", "--first-key", 1_000, "--vector", "vector=v"))
    check_rows(server, name, vectors, range(1_000, 1_000 + ROWS), column="v")


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "<i1", ">i2", "<i8"])
def test_arrays_of_numpy(server, name, tmp_path, kind):
    vectors = np.random.default_rng(3).integers(-100, 100, (ROWS, DIMENSION)).astype(kind)
    np.save(tmp_path / "a.npy", vectors)
    done(import_files(server, name, tmp_path / "a.npy", "--element", "FP32"))
    check_rows(server, name, vectors, range(ROWS), column="vector")


@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", "<f2"])
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_arrays_whose_columns_lie_one_after_the_other(server, name, tmp_path, save, kind):
    vectors = np.asfortranarray(np.random.default_rng(3).integers(-100, 100, (ROWS, DIMENSION)).astype(kind))
    assert np.isfortran(vectors)
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, vectors) if save is np.save else save(path, vector=vectors, number=np.arange(ROWS))
    done(import_files(server, name, path, "--element", "FP32", "--batch-rows", 64))
    check_rows(server, name, vectors, range(ROWS), column="vector",
               **({} if save is np.save else {"expected": lambda n: {"number": ("int64_value", n)}}))


@pytest.mark.parametrize("shape", [(ROWS, 1), (1, DIMENSION), (1, 1)], ids=str)
def test_columns_of_one_number(server, name, tmp_path, shape):
    vectors = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    np.savez(tmp_path / "a.npz", v=np.asfortranarray(vectors))
    done(import_files(server, name, tmp_path / "a.npz"))
    rows = all_rows(server, name, "v", [0.0] * shape[1])
    assert [rows[at][0] for at in range(len(vectors))] == pytest.approx(squares(vectors, [0.0] * shape[1]), rel=1e-5)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_several_arrays_of_numpy_are_columns(server, name, tmp_path, vectors, save):
    times = np.datetime64("2024-05-01T00:00:00", "us") + np.arange(ROWS)
    save(tmp_path / "a.npz", key=np.arange(ROWS, dtype=np.uint32) * 2, v=vectors,
         name=np.array([f"näme {n}" for n in range(ROWS)]), when=times, raw=np.array([b"b%d" % n for n in range(ROWS)]))
    done(import_files(server, name, tmp_path / "a.npz"))

    def expected(n):
        return {"name": ("string_value", f"näme {n}"), "when": ("int64_value", int(times[n].astype(np.int64))),
                "raw": ("string_value", f"b{n}")}
    check_rows(server, name, vectors, [n * 2 for n in range(ROWS)], expected, column="v")


@pytest.mark.parametrize("storage", [{}, {"chunks": (64, 4), "compression": "gzip", "shuffle": True}],
                         ids=["plain", "chunked"])
def test_hdf5_of_ann_benchmarks(server, name, tmp_path, vectors, storage):
    with h5py.File(tmp_path / "glove.hdf5", "w") as file:
        file.create_dataset("train", data=vectors, **storage)
        file["test"], file["neighbors"] = vectors[:5], np.zeros((5, 10), np.int32)
        file.attrs["distance"] = "angular"
    done(import_files(server, name, tmp_path / "glove.hdf5", "--vector", "train=v"))
    assert description(server, name)[0]["v"][2]["metric_type"] == "Cosine"
    cosines = 1 - vectors @ np.array(PROBE) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(PROBE)
    rows = all_rows(server, name, "v", PROBE)
    assert [rows[n][0] for n in range(ROWS)] == pytest.approx(list(cosines), abs=1e-5)


def test_hdf5_with_vectors_beside_their_names(server, name, tmp_path, vectors):
    """The layout of the image-search index: doubles, and names of one width or any."""
    names = [f"2012_{n:06}.jpg" for n in range(ROWS)]
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["dataset_1"] = vectors.astype(np.float64)
        file["dataset_2"] = np.array(names, "S28")
        file["dataset_3"] = names
        file["flags"] = np.arange(ROWS) % 3 == 0
    path = tmp_path / "train.h5"
    done(import_files(server, name, path, "--vector", "dataset_1=feature", "--columns",
                      "dataset_2=image_path,dataset_3=name,flags"))

    def expected(n):
        return {"image_path": ("string_value", names[n]), "name": ("string_value", names[n]),
                "flags": ("bool_value", n % 3 == 0)}
    check_rows(server, name, vectors, range(ROWS), expected, column="feature")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_lines_of_json(server, name, tmp_path, vectors):
    def row(n):
        shared = {"id": n, "embedding": [float(x) for x in vectors[n]], "word": f"é {n}", "share": n / 7}
        return shared | ({"mixed": n} if n % 3 == 0 else {"mixed": "x"} if n % 3 == 1 else {})
    write_lines(tmp_path / "a.jsonl", [row(n) for n in range(ROWS)])
    done(import_files(server, name, tmp_path / "a.jsonl"))

    def expected(n):
        mixed = [("int64_value", n), ("string_value", "x"), None][n % 3]
        return {"word": ("string_value", f"é {n}"), "share": ("double_value", n / 7), "mixed": mixed}
    check_rows(server, name, vectors, range(ROWS), expected)


def test_several_files_are_one_table(server, name, tmp_path, vectors):
    for part in range(3):
        np.save(tmp_path / f"{part}.npy", vectors[part * 200:part * 200 + 200])
    files = [tmp_path / f"{part}.npy" for part in range(3)]
    done(import_files(server, name, *files))
    check_rows(server, name, vectors[:600], range(600), column="vector")


def test_a_file_without_an_end_to_its_name_needs_none_or_a_format(server, name, tmp_path, vectors):
    pq.write_table(table(vectors), tmp_path / "rows")
    done(import_files(server, name, tmp_path / "rows"))
    check_rows(server, name, vectors, [n * 3 for n in range(ROWS)], table_values)
    (tmp_path / "text").write_text("  " + json.dumps({"v": [1, 2]}) + "\n")
    failed(import_files(server, name, tmp_path / "text"), 2, "--format")


# ----- types -----


def test_types_of_pandas_become_the_kinds_that_hold_them(server, name, tmp_path):
    rows = pa.table({
        "_key": pa.array([5, 6], pa.uint64()),
        "v": pa.array([[1, 2], [3, 4]], pa.list_(pa.float32())),
        "i8": pa.array([-1, None], pa.int8()), "u16": pa.array([1, None], pa.uint16()),
        "u32": pa.array([2**32 - 1, None], pa.uint32()), "u64": pa.array([2**64 - 1, None], pa.uint64()),
        "f16": pa.array(np.array([0.5, 1], np.float16)), "f32": pa.array([0.1, None], pa.float32()),
        "when": pa.array([1_700_000_000_123_456_000, None], pa.timestamp("ns", "UTC")),
        "ms": pa.array([1_700_000_000_123, None], pa.timestamp("ms")),
        "day": pa.array([1, None], pa.date32()), "bytes": pa.array([b"\xff\x00", None]),
        "large": pa.array(["x", None], pa.large_string()),
        "category": pa.array(["red", None]).dictionary_encode(), "nothing": pa.nulls(2),
    })
    pq.write_table(rows, tmp_path / "a.parquet")
    done(import_files(server, name, tmp_path / "a.parquet"))
    values = all_rows(server, name, "v", [0, 0])[5][1]
    assert values == {
        "i8": ("int32_value", -1), "u16": ("uint32_value", 1), "u32": ("uint32_value", 2**32 - 1),
        "u64": ("uint64_value", 2**64 - 1), "f16": ("float_value", 0.5),
        "f32": ("float_value", float(np.float32(0.1))), "when": ("int64_value", 1_700_000_000_123_456),
        "ms": ("int64_value", 1_700_000_000_123), "day": ("int64_value", 86_400_000),
        "bytes": ("bytes_value", b"\xff\x00"), "large": ("string_value", "x"),
        "category": ("string_value", "red"), "nothing": None,
    }
    others = all_rows(server, name, "v", [0, 0])[6][1]
    assert {key for key, value in others.items() if value is not None} == {"f16"}


@pytest.mark.parametrize("kind, data_type", [("float16", FP16), ("int8", INT8)])
def test_narrow_elements_stay_as_they_are(server, name, tmp_path, kind, data_type):
    vectors = np.arange(12).reshape(3, 4).astype(kind)
    np.save(tmp_path / "a.npy", vectors)
    done(import_files(server, name, tmp_path / "a.npy"))
    assert description(server, name)[0]["vector"][0] == data_type


def test_bits_come_as_bytes_of_one_width(server, name, tmp_path):
    rows = pa.table({"v": pa.array([b"\x01\x02\x03\x04", b"\xff" * 4], pa.binary(4))})
    pq.write_table(rows, tmp_path / "a.parquet")
    failed(import_files(server, name, tmp_path / "a.parquet", "--vector", "v"), 2, "--element")
    done(import_files(server, name, tmp_path / "a.parquet", "--vector", "v", "--element", "BINARY32",
                      "--metric", "Hamming"))
    assert description(server, name)[0]["v"][:2] == (BINARY32, 32)


def test_two_vector_columns_and_rows_that_lack_one(server, name, tmp_path):
    rows = pa.table({
        "id": [0, 1, 2, 3], "a": [[1.0, 1.0], [2.0, 2.0], None, [4.0, 4.0]], "b": [[1.0], None, [3.0], [4.0]],
        "word": ["p", "q", "r", None]})
    pq.write_table(rows, tmp_path / "a.parquet")
    failed(import_files(server, name, tmp_path / "a.parquet"), 2, '"a", "b" could be vectors', "--vector")
    done(import_files(server, name, tmp_path / "a.parquet", "--vector", "a", "--vector", "b=c", "--metric", "Euclidean"))
    columns, _ = description(server, name)
    assert {column: of[1] for column, of in columns.items()} == {"a": 2, "c": 1}
    assert sorted(all_rows(server, name, "a", [0, 0])) == [0, 1, 3]
    assert sorted(all_rows(server, name, "c", [0])) == [0, 2, 3]


def test_columns_that_cannot_be_are_named(server, name, tmp_path):
    rows = pa.table({
        "id": ["x"], "v": [[1.0, 2.0]], "nested": [{"a": 1}], "price": pa.array([1], pa.decimal128(10, 2)),
        "tags": [["a", "b"]]})
    pq.write_table(rows, tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    failed(import_files(server, name, path), 2, 'column "nested"', "not nested", "--columns")
    failed(import_files(server, name, path, "--columns", "price"), 2, 'column "price"', "cast it to a double")
    failed(import_files(server, name, path, "--columns", "tags"), 2, 'column "tags"')
    failed(import_files(server, name, path, "--columns", "none"), 2, 'no column "none"', '"tags"')
    failed(import_files(server, name, path, "--key", "id", "--columns", ""), 2, 'column "id"', "whole numbers")
    failed(import_files(server, name, path, "--vector", "id"), 2, 'column "id"', "lists of numbers")
    failed(import_files(server, name, path, "--vector", "tags"), 2, 'column "tags"')
    done(import_files(server, name, path, "--columns", "id=name"))
    assert all_rows(server, name, "v", [0, 0]) == {0: (5.0, {"name": ("string_value", "x")})}


def test_declared_types_of_forward_columns(server, name, tmp_path, vectors):
    pq.write_table(table(vectors), tmp_path / "a.parquet")
    done(import_files(server, name, tmp_path / "a.parquet", "--typed"))
    # From now on the column takes whole numbers that fit, and nothing else.
    write_lines(tmp_path / "b.jsonl", [{"id": 1, "embedding": PROBE, "label": 2**40}])
    failed(import_files(server, name, tmp_path / "b.jsonl"), 1, 'row 0: column "label"', "int32")
    write_lines(tmp_path / "c.jsonl", [{"id": 1, "embedding": PROBE, "label": 7}])
    done(import_files(server, name, tmp_path / "c.jsonl"))
    assert all_rows(server, name, "embedding", PROBE)[1][1]["label"] == ("int32_value", 7)


# ----- the collection -----


def test_a_new_collection_is_as_the_flags_say(server, name, tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    done(import_files(server, name, tmp_path / "a.npy", "--vector", "vector=v", "--metric", "Cosine", "--index-type",
                      "HNSW", "--param", "ef_construction=77", "--element", "FP16"))
    data_type, dimension, params = description(server, name)[0]["v"]
    assert (data_type, dimension) == (FP16, DIMENSION)
    assert params == {"metric_type": "Cosine", "index_type": "HNSW", "ef_construction": "77"}
    failed(import_files(server, name + "2", tmp_path / "a.npy", "--param", "ef_construction=x"), 2, "ef_construction")
    failed(import_files(server, name + "2", tmp_path / "a.npy", "--no-create"), 2, "there is no collection")
    failed(import_files(server, "a/b", tmp_path / "a.npy"), 2, "path separator")


def test_what_differs_from_the_collection_is_said_before_a_row_is_written(server, wire, name, tmp_path, vectors):
    accepted(wire.create_collection(collection(
        name, column("v", DIMENSION + 1, params={"metric_type": "Cosine"}), forward_names=["path"])))
    pq.write_table(table(vectors), tmp_path / "a.parquet")
    failed(import_files(server, name, tmp_path / "a.parquet", "--metric", "Euclidean"), 2,
           "dimension 9, and the file 8", '"label", "score", "flag"', "metric Cosine, not Euclidean")
    failed(import_files(server, name, tmp_path / "a.parquet", "--vector", "embedding"), 2,
           'no vector column "embedding", but "v"', "--vector embedding=NAME")
    assert all_rows(server, name, "v", [0.0] * 9) == {}


def test_the_only_lists_are_the_vectors_of_the_only_column(server, wire, name, tmp_path, vectors):
    accepted(wire.create_collection(collection(name, column("v", DIMENSION), forward_names=["x", "path", "word"])))
    pq.write_table(table(vectors), tmp_path / "a.parquet")
    done(import_files(server, name, tmp_path / "a.parquet", "--columns", "path"))
    rows = all_rows(server, name, "v", PROBE)
    assert rows[3][1] == {"x": None, "path": ("string_value", "img/1.jpg"), "word": None}


def test_a_server_that_is_not_there_is_named(tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    ran = run_voisin("import", tmp_path / "a.npy", "--collection", "c", "--server", "127.0.0.1:9")
    failed(ran, 1, "no server answers at 127.0.0.1:9")


# ----- bad rows -----


def bad_table(vectors):
    """Rows 3, 5 and 8 have something wrong."""
    rows = [{"id": n, "embedding": [float(x) for x in vectors[n]]} for n in range(12)]
    rows[3]["embedding"][2] = "NaN"
    rows[5]["id"] = -5
    rows[8]["embedding"] = [1.0]
    return rows


def test_the_first_bad_row_stops_it_and_those_before_are_there(server, name, tmp_path, vectors):
    good = table(vectors[:12]).drop(["path", "label", "score", "flag"])
    bad = vectors[:12].copy()
    bad[3, 2] = np.nan
    bad[8, 0] = np.inf
    pq.write_table(good.set_column(1, "embedding", fixed(bad)), tmp_path / "a.parquet")
    failed(import_files(server, name, tmp_path / "a.parquet"), 1,
           'a.parquet: row 3: column "embedding": element 2 is NaN', "--skip-bad", "3 of 12 rows are done")
    assert sorted(all_rows(server, name, "embedding", PROBE)) == [0, 3, 6]
    # The same again ends at the same row; passing over it goes on.
    failed(import_files(server, name, tmp_path / "a.parquet"), 1, "row 3")
    report = tmp_path / "bad.jsonl"
    ran = import_files(server, name, tmp_path / "a.parquet", "--skip-bad", "--bad-rows", report)
    assert "imported 7 rows" in done(ran) and "2 bad rows were passed over" in ran.stdout
    assert "row 3: " in ran.stderr and "row 8: " in ran.stderr
    assert sorted(all_rows(server, name, "embedding", PROBE)) == [n * 3 for n in range(12) if n not in (3, 8)]
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["row"], row["column"]) for row in told] == [(3, "embedding"), (8, "embedding")]


def test_bad_lines_of_json_are_named_by_line(server, name, tmp_path, vectors):
    lines = [json.dumps(row) for row in bad_table(vectors)]
    lines[10] = '{"id": 10, "embedding": [1, 2'
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    ran = import_files(server, name, tmp_path / "a.jsonl", "--skip-bad")
    assert "imported 8 rows" in done(ran) and "4 bad rows" in ran.stdout
    for words in ['row 3: column "embedding": line 4: an array with elements', 'row 5: column "id": -5',
                  'row 8: column "embedding": a vector of 1 numbers, and 8 are wanted',
                  "row 10: line 11: no JSON object"]:
        assert words in ran.stderr
    assert sorted(all_rows(server, name, "embedding", PROBE)) == [0, 1, 2, 4, 6, 7, 9, 11]


def test_keys_that_exist_are_bad_rows_or_are_replaced(server, name, tmp_path, vectors):
    np.savez(tmp_path / "a.npz", id=np.arange(10), v=vectors[:10])
    done(import_files(server, name, tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", id=np.arange(5, 15), v=vectors[100:110])
    failed(import_files(server, name, tmp_path / "b.npz"), 1, "b.npz: row 0: key 5: the key exists already",
           "and 4 more rows", "--mode upsert")
    scores = squares(vectors, PROBE)
    rows = all_rows(server, name, "v", PROBE)
    assert sorted(rows) == list(range(15))
    assert rows[5][0] == pytest.approx(scores[5]) and rows[12][0] == pytest.approx(scores[107])
    # What failed is tried again, and fails again, by the same command; nothing of it is lost.
    failed(import_files(server, name, tmp_path / "b.npz"), 1, "row 0: key 5", "and 4 more rows")
    ran = import_files(server, name, tmp_path / "b.npz", "--skip-bad")
    assert "imported 0 rows" in done(ran) and "5 bad rows" in ran.stdout
    state = tmp_path / "other"
    done(import_files(server, name, tmp_path / "b.npz", "--mode", "upsert", "--state", state))
    rows = all_rows(server, name, "v", PROBE)
    assert sorted(rows) == list(range(15)) and rows[5][0] == pytest.approx(scores[100])


def test_the_last_of_rows_with_one_key_wins_in_an_upsert(server, name, tmp_path, vectors):
    ids = np.arange(ROWS) % 50
    np.savez(tmp_path / "a.npz", id=ids, v=vectors)
    done(import_files(server, name, tmp_path / "a.npz", "--mode", "upsert", "--batch-rows", 7))
    rows = all_rows(server, name, "v", PROBE)
    scores = squares(vectors, PROBE)
    assert {key: score for key, (score, _) in rows.items()} == pytest.approx(
        {key: scores[ROWS - 50 + key] for key in range(50)})


HOSTILE = {
    "empty.parquet": b"", "text.parquet": b"PAR1 no table PAR1", "a.arrow": b"ARROW1\0\0 no", "a.npy": b"\x93NUMPY\1\0",
    "a.npz": b"PK\3\4 no", "a.h5": b"\x89HDF\r\n\x1a\n no", "a.fvecs": b"\xff\xff\xff\x7f", "a.jsonl": b"hello\n",
    "a.bvecs": b"\3\0\0\0\1\2", "a.feather": b"FEA1....FEA1",
}


@pytest.mark.parametrize("file", HOSTILE)
def test_files_that_are_none_are_refused_by_name(server, name, tmp_path, file):
    (tmp_path / file).write_bytes(HOSTILE[file])
    failed(import_files(server, name, tmp_path / file), 2, file)


def test_arrays_that_are_not_read_are_refused_with_what_to_do(server, name, tmp_path, vectors):
    def refused(array, *words, allow_pickle=False):
        np.save(tmp_path / "a.npy", array, allow_pickle=allow_pickle)
        failed(import_files(server, name, tmp_path / "a.npy"), 2, "a.npy", *words)
    refused(np.array([{}, []], object), "pickled Python objects", allow_pickle=True)
    refused(vectors.astype(complex), "where numbers or text are wanted")
    refused(vectors[:0], "no rows")
    refused(vectors[0], "lists of numbers")
    refused(vectors.reshape(ROWS, 2, 4), "shape [700, 2, 4]")
    np.savez(tmp_path / "a.npz", a=vectors.astype(complex), b=np.float32(1.0))
    failed(import_files(server, name, tmp_path / "a.npz"), 2, '"a"', "where numbers or text are wanted", '"b"', "shape []")


def test_a_table_that_is_cut_short_is_refused(server, name, tmp_path, vectors):
    pq.write_table(table(vectors), tmp_path / "whole.parquet")
    feather.write_feather(table(vectors), tmp_path / "whole.feather")
    np.save(tmp_path / "whole.npy", vectors)
    write_vecs(tmp_path / "whole.fvecs", vectors, "<f4")
    for end in ["parquet", "feather", "npy", "fvecs"]:
        whole = (tmp_path / f"whole.{end}").read_bytes()
        for part in [0.1, 0.5, 0.99]:
            (tmp_path / f"cut.{end}").write_bytes(whole[:int(len(whole) * part) | 1])
            failed(import_files(server, name, tmp_path / f"cut.{end}"), 2, f"cut.{end}")


# ----- going on -----


def many(tmp_path, rows=30_000):
    vectors = np.random.default_rng(5).normal(size=(rows, DIMENSION)).astype(np.float32)
    np.savez(tmp_path / "many.npz", id=np.arange(rows) * 2, v=vectors, word=np.array([f"w{n}" for n in range(rows)]))
    return tmp_path / "many.npz", vectors


def rows_there(server, name):
    """Rows that a collection has; none where there is no collection."""
    answer = server.wire().stats_collection(named(name))
    return answer.collection_stats.total_doc_count if answer.status.code == 0 else 0


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_an_import_killed_anywhere_goes_on_and_every_row_is_there_once(server, name, tmp_path, mode):
    path, vectors = many(tmp_path)
    args = [path, "--batch-rows", 20, "--mode", mode]
    kills = 0
    for wanted in [1, 4_000, 8_000, 12_000]:
        running = begin_import(server, name, *args)
        eventually(lambda: rows_there(server, name) >= wanted or running.poll() is not None, 60, "some rows")
        running.kill()
        running.communicate()
        kills += running.returncode == -signal.SIGKILL
    assert kills >= 2, "it was too quick to be killed"
    ran = import_files(server, name, *args)
    done(ran)
    rows = all_rows(server, name, "v", PROBE)
    assert sorted(rows) == [n * 2 for n in range(len(vectors))]
    scores = squares(vectors, PROBE)
    assert [rows[n * 2][0] for n in range(len(vectors))] == pytest.approx(list(scores), rel=1e-4)
    assert all(rows[n * 2][1] == {"word": ("string_value", f"w{n}")} for n in range(len(vectors)))
    # Once more does nothing.
    ran = import_files(server, name, *args)
    assert "imported 0 rows" in done(ran) and "all rows were imported before" in ran.stderr
    assert len(all_rows(server, name, "v", PROBE)) == len(vectors)


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_it_says_how_to_go_on(server, name, tmp_path, how, code):
    path, vectors = many(tmp_path)
    args = [path, "--batch-rows", 20]
    running = begin_import(server, name, *args)
    eventually(lambda: state_of(path).get("sent", 0) > 0, 60, "the first rows")
    running.send_signal(how)
    _, words = running.communicate(timeout=60)
    if running.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert running.returncode == code
    assert f"stopped by {how.name}" in words and "the same command goes on" in words
    standing = state_of(path)
    assert standing["sent"] == standing["acknowledged"], "nothing was under way any more"
    assert len(all_rows(server, name, "v", PROBE)) == standing["acknowledged"]
    done(import_files(server, name, *args))
    assert sorted(all_rows(server, name, "v", PROBE)) == [n * 2 for n in range(len(vectors))]


def test_an_import_outlives_its_server(start_server, tmp_path):
    server = start_server()
    address, http = server.grpc, server.http
    path, vectors = many(tmp_path)
    running = begin_import(server, "c", path, "--batch-rows", 20)
    eventually(lambda: state_of(path).get("sent", 0) > 0, 60, "the first rows")
    for _ in range(2):
        server.kill()
        server.start(address, http)
    out, words = running.communicate(timeout=120)
    assert running.returncode == 0, words
    assert sorted(all_rows(server, "c", "v", PROBE)) == [n * 2 for n in range(len(vectors))]


@pytest.mark.parametrize("first", ["importer", "server"])
def test_importer_and_server_are_killed_and_every_row_is_there_once(start_server, tmp_path, first):
    server = start_server()
    address, http = server.grpc, server.http
    path, vectors = many(tmp_path)
    args = [path, "--batch-rows", 20]
    kills = 0
    for wanted in [1, 5_000, 10_000]:
        running = begin_import(server, "c", *args)
        eventually(lambda: rows_there(server, "c") >= wanted or running.poll() is not None, 60, "some rows")
        for kill in [running.kill, server.kill] if first == "importer" else [server.kill, running.kill]:
            kill()
        running.communicate()
        kills += running.returncode == -signal.SIGKILL
        server.start(address, http)
    assert kills >= 2, "it was too quick to be killed"
    done(import_files(server, "c", *args))
    rows = all_rows(server, "c", "v", PROBE)
    assert sorted(rows) == [n * 2 for n in range(len(vectors))]
    scores = squares(vectors, PROBE)
    assert [rows[n * 2][0] for n in range(len(vectors))] == pytest.approx(list(scores), rel=1e-4)
    assert all(rows[n * 2][1] == {"word": ("string_value", f"w{n}")} for n in range(len(vectors)))


def test_a_busy_server_is_asked_again(start_server, tmp_path):
    server = start_server(settings={"compute.write_queue_max": 1})
    path, vectors = many(tmp_path, 5_000)
    done(import_files(server, "c", path, "--batch-rows", 20, "--mode", "upsert"))
    assert len(all_rows(server, "c", "v", PROBE)) == len(vectors)


def test_a_server_far_away_is_reached(server, name, tmp_path, vectors):
    path = tmp_path / "t.parquet"
    pq.write_table(table(vectors), path)
    with far_away(server.grpc, 0.3) as address:
        done(run_voisin("import", path, "--collection", name, "--server", address, "--batch-rows", 50))
    check_rows(server, name, vectors, [n * 3 for n in range(ROWS)])


def test_patience_ends(start_server, tmp_path):
    server = start_server()
    path, _ = many(tmp_path)
    running = begin_import(server, "c", path, "--batch-rows", 20, "--patience", 1)
    eventually(lambda: state_of(path).get("sent", 0) > 0, 60, "the first rows")
    server.kill()
    _, words = running.communicate(timeout=60)
    assert running.returncode == 1, words
    assert "--patience" in words and "the same command goes on" in words
    server.start(server.grpc, server.http)
    done(import_files(server, "c", path, "--batch-rows", 20))
    assert len(all_rows(server, "c", "v", PROBE)) == 30_000


def test_an_unfinished_import_is_not_mixed_with_another(server, name, tmp_path, vectors):
    bad = vectors.copy()
    bad[100] = np.nan
    path = tmp_path / "a.npy"
    np.save(path, bad)
    failed(import_files(server, name, path), 1, "row 100")
    failed(import_files(server, name, path, "--first-key", 9), 2, "was not finished", "first-key=9", "--state")
    failed(import_files(server, name + "x", path), 2, f"into collection {json.dumps(name)}")
    np.save(path, vectors[:50])
    failed(import_files(server, name, path), 2, "a.npy has changed since")
    (tmp_path / "a.npy.voisin-import").write_text("something else")
    failed(import_files(server, name, path), 2, "not a file that an import left")


def test_a_place_that_cannot_be_written_is_told_before_the_first_row(server, name, tmp_path, vectors):
    np.save(tmp_path / "a.npy", vectors)
    failed(import_files(server, name, tmp_path / "a.npy", "--state", tmp_path / "none" / "state"), 2, "--state")
    assert all_rows(server, name, "vector", PROBE) == {}


def test_two_imports_do_not_share_a_state(server, name, tmp_path):
    path, _ = many(tmp_path)
    running = begin_import(server, name, path, "--batch-rows", 5)
    eventually(lambda: state_of(path).get("sent", 0) > 0, 60, "the first rows")
    ran = import_files(server, name, path, "--batch-rows", 5)
    still = running.poll() is None
    running.kill()
    running.communicate()
    if still:
        failed(ran, 2, "another import is under way")


def test_progress_is_lines_where_there_is_no_terminal(server, name, tmp_path, vectors):
    pq.write_table(table(vectors), tmp_path / "a.parquet")
    ran = import_files(server, name, tmp_path / "a.parquet")
    assert done(ran).startswith(f"imported 700 rows into {json.dumps(name)} in ")
    assert "rows/s" in ran.stdout
    lines = ran.stderr.splitlines()
    assert lines[0].startswith(f"created collection {json.dumps(name)}: ")
    assert 'a.parquet: 700 rows; keys from "id"; vectors: "embedding"; forward columns: "path", "label"' in lines[1]
    assert "\x1b" not in ran.stderr and "\r" not in ran.stderr


def test_a_repository_collection_is_left_to_its_process(server, wire, name, tmp_path, vectors):
    accepted(wire.create_collection(collection(name, column("vector", DIMENSION), repository=repository())))
    np.save(tmp_path / "a.npy", vectors)
    failed(import_files(server, name, tmp_path / "a.npy"), 2, "follows a repository")
