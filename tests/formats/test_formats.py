"""Data folders of every format that was ever in main are read: verified, opened, answered from as they were by the
program that wrote them, and written on. tests/fixtures/formats/make.py makes them."""

import json
import shutil

import numpy as np
import pytest

from asked import answers, nearest, rows, vector_of
from server import ROOT, run_voisin
from voisin_v1 import VoisinV1

FOLDERS = sorted(path.parent for path in (ROOT / "tests/fixtures/formats").glob("*/answers.json"))
NEW_KEY = 77_777
#: Enough for any index: this is about its bytes.
EFFORT = {"nprobe": 64, "refine_k": 20}


@pytest.fixture(params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def folder(request, tmp_path):
    """A copy of a folder; what it answered is in `answers.json`."""
    shutil.copytree(request.param, tmp_path, dirs_exist_ok=True)
    return tmp_path


def told(folder):
    return json.loads((folder / "answers.json").read_text())


def verified(folder):
    ran = run_voisin("verify", folder / "data", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert not report["faults"]
    return {one["name"]: {key: one[key] for key in ("segments", "rows", "log_records")} for one in report["collections"]}


def same_hits(found, expected):
    """Whether keys are the same, and scores but for what CPUs differ in."""
    assert [key for key, _ in found] == [key for key, _ in expected]
    assert np.allclose([score for _, score in found], [score for _, score in expected], rtol=1e-5, atol=1e-5)


def compare(found, expected):
    """Whether answers are those of the program that wrote the folder."""
    assert list(found) == list(expected)
    for name, was in expected.items():
        now = found[name]
        queries, were = now.pop("queries"), was.pop("queries")
        # Indexes that served then serve now, unless they are scanned for being small.
        assert set(now.pop("walked")) == set(was.pop("walked")), name
        assert now == was, name
        for query, before in zip(queries, were, strict=True):
            same_hits(query.pop("hits"), before.pop("hits"))
            assert query == before


def test_there_are_folders_and_they_are_small():
    assert FOLDERS
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in folder.rglob("*")) < 1 << 20


def test_a_folder_is_read_as_it_was_written(folder, start_server):
    expected = told(folder)
    assert verified(folder) == expected["verified"]
    calls = VoisinV1(start_server().channel())
    found = answers(calls)
    assert found["aliases"] == expected["aliases"]
    compare(found["collections"], expected["collections"])
    for alias, name in expected["aliases"].items():
        assert calls.Count(collection=alias).rows == expected["collections"][name]["count"]


def test_indexes_of_a_folder_find_what_a_scan_finds(folder, start_server):
    expected = told(folder)["collections"]
    calls = VoisinV1(start_server().channel())
    for name, was in expected.items():
        found, hit, wanted = rows(calls, name), {}, {}
        for query in was["queries"]:
            column = next(c for c in was["declared"]["vectors"] if c["name"] == query["column"])
            hits, _ = nearest(calls, name, column, vector_of(found[query["row"]], column["name"]), params=EFFORT)
            # Scores are of the rows, whichever index found them.
            truth = dict(query["hits"])
            for key, score in hits:
                assert key not in truth or np.isclose(score, truth[key], rtol=1e-5, atol=1e-5)
            edge = query["hits"][-1][1]
            near = sum(score <= edge + 1e-5 * max(1.0, abs(edge)) for _, score in hits)
            hit[column["name"]] = hit.get(column["name"], 0) + near
            wanted[column["name"]] = wanted.get(column["name"], 0) + len(query["hits"])
        assert all(hit[column] >= 0.8 * wanted[column] for column in wanted), (name, hit, wanted)


def test_a_folder_is_written_on(folder, start_server):
    expected = told(folder)["collections"]
    server = start_server()
    calls = VoisinV1(server.channel())
    counts = {}
    for name, was in expected.items():
        counts[name] = was["count"]
        if was["declared"].get("follows_repository"):
            continue
        found, vectors = rows(calls, name), []
        for column in was["declared"]["vectors"]:
            model = next((row for row in found.values() if vector_of(row, column["name"])), None)
            vector = vector_of(model, column["name"]) if model else bytes(4 * column["dimension"])
            # Enums by their names, as answers have them.
            element = calls.message("VectorColumn", name=column["name"], dimension=column["dimension"], vectors=vector)
            element.element = element.DESCRIPTOR.fields_by_name["element"].enum_type.values_by_name[column["element"]].number
            vectors.append(element)
        ack = calls.Write(collection=name, keys=[NEW_KEY], operation=1, vectors=vectors)
        assert ack.rows_applied == 1, ack
        counts[name] += 1
    server.restart()
    calls = VoisinV1(server.channel())
    for name, count in counts.items():
        assert calls.Count(collection=name).rows == count
        there = calls.Get(collection=name, keys=[NEW_KEY]).keys
        assert list(there) == ([] if expected[name]["declared"].get("follows_repository") else [NEW_KEY])
    assert server.stop() == 0
    assert {name: one["rows"] for name, one in verified(folder).items()} == counts
