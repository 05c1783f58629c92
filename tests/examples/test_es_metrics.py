"""The walk through Elasticsearch's scores runs as a person would run it."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from proxima import named
from server import ROOT

EXAMPLE = ROOT / "client" / "examples" / "es_metrics.py"


def walk(server, *options):
    command = [sys.executable, str(EXAMPLE), "--host", server.host, "--port", str(server.port), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def succeeded(done, vectors):
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{vectors} vectors, each by all:"
    assert len(lines) == 6 and all("order the same" in line for line in lines[1:5])
    assert lines[5] == "All scores are those of numpy."


def test_made_up_vectors_have_the_scores_of_numpy(own_server):
    succeeded(walk(own_server), 26)
    assert own_server.wire().describe_collection(named("es_metrics")).status.code == -4002, "dropped at the end"


def test_vectors_of_a_file_have_the_scores_of_numpy(own_server, tmp_path):
    import h5py

    random = np.random.default_rng(4)
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        # Some long, some short, some the same.
        file["dataset_1"] = np.repeat(random.normal(0, 1, (9, 512)) * random.uniform(0.01, 2, (9, 1)), 2, axis=0)
        file["dataset_2"] = np.array([f"photo_{i:02}.jpg".encode() for i in range(18)], dtype="S28")
    succeeded(walk(own_server, "--features", path), 18)


# Only with a file of one's own is there such a test; a made-up file of the same layout is always tested.
if FEATURES := os.environ.get("VOISIN_FEATURES"):

    def test_real_images_have_the_scores_of_numpy(own_server):
        done = walk(own_server, "--features", pathlib.Path(FEATURES))
        assert done.returncode == 0, done.stdout + done.stderr
