"""The image-search example runs as a person would run it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from proxima import accepted, collection, column, named
from server import ROOT

EXAMPLE = ROOT / "client" / "examples" / "image_search.py"


def walk(server, *options):
    command = [sys.executable, str(EXAMPLE), "--host", server.host, "--port", str(server.port), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def features_file(tmp_path):
    """An HDF5 file in the usual layout: a matrix of float64 and fixed-length byte names."""
    import h5py

    random = np.random.default_rng(3)
    features = np.abs(random.standard_normal((12, 512)))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["dataset_1"] = features
        file["dataset_2"] = np.array([f"photo_{i:02}.jpg".encode() for i in range(12)], dtype="S28")
    return path


def test_made_up_images_find_themselves_first(own_server):
    done = walk(own_server)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "26 of 26 images find themselves first." in done.stdout
    assert own_server.wire().describe_collection(named("image_search")).status.code == -4002, "dropped at the end"


def test_images_of_a_file_find_themselves_first(own_server, features_file):
    done = walk(own_server, "--features", features_file, "--topk", 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 images find themselves first." in done.stdout
    lines = done.stdout.splitlines()
    at = lines.index("photo_07.jpg")
    assert lines[at + 1].split()[:2] == ["1.", "photo_07.jpg"]
    assert lines[at + 3].split()[0] == "3."


def test_the_collection_stays_when_asked_and_a_second_walk_is_refused(own_server):
    assert walk(own_server, "--keep").returncode == 0
    info = accepted(own_server.wire().describe_collection(named("image_search"))).collection
    assert list(info.config.forward_column_names) == ["image_path"]
    second = walk(own_server)
    assert second.returncode == 1
    assert "Duplicate Collection" in second.stderr


def test_kept_images_are_found_after_kill_9(own_server):
    assert walk(own_server, "--keep").returncode == 0
    own_server.restart("kill")
    status, stats = own_server.client().stats_collection("image_search")
    assert status.ok() and stats.total_doc_count == 26
    for key in range(26):
        _, document = own_server.client().get_document_by_key("image_search", key)
        assert (document is None) == (key < 3)


# Only with a file of one's own is there such a test; a made-up file of the same layout is always tested.
if FEATURES := os.environ.get("VOISIN_FEATURES"):

    def test_real_images_find_themselves_first(own_server):
        done = walk(own_server, "--features", pathlib.Path(FEATURES))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "images find themselves first." in done.stdout


def test_a_file_of_another_shape_is_refused_before_anything_is_created(own_server, tmp_path):
    import h5py

    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["dataset_1"] = np.zeros((3, 100))
        file["dataset_2"] = np.array([b"a", b"b", b"c"])
    done = walk(own_server, "--features", path)
    assert done.returncode == 1
    assert "dimension 512" in done.stderr
    accepted(own_server.wire().create_collection(collection("image_search", column())))
