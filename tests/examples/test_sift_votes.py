"""The example of voting descriptors runs as a person would run it."""

import subprocess
import sys

import cv2
import numpy as np

from proxima import accepted, named
from server import ROOT

EXAMPLE = ROOT / "client" / "examples" / "sift_votes.py"


def walk(server, *options):
    command = [sys.executable, str(EXAMPLE), "--host", server.host, "--port", str(server.port), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_drawn_pictures_are_recognised_as_numpy_counts(own_server):
    done = walk(own_server)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 pictures with" in done.stdout
    assert "8 of 8 rankings are those of numpy." in done.stdout
    assert "The own class comes first for 8 of 8 pictures (numpy: 8)." in done.stdout
    assert own_server.wire().describe_collection(named("sift_votes")).status.code == -4002, "dropped at the end"


def test_pictures_of_a_folder_are_voted_for(own_server, tmp_path):
    random = np.random.default_rng(1)
    for part, copies in (("train", 2), ("test", 1)):
        (tmp_path / part).mkdir()
        for kind in ("stone", "leaf"):
            for copy in range(copies):
                coarse = np.random.default_rng(len(kind)).integers(0, 256, (30, 30)).astype(np.uint8)
                picture = cv2.resize(coarse, (240, 240), interpolation=cv2.INTER_CUBIC).astype(np.float64)
                picture = np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(tmp_path / part / f"{kind}_{part}{copy}.png"), picture)
    cv2.imwrite(str(tmp_path / "train" / "empty_0.png"), np.zeros((50, 50), np.uint8))
    done = walk(own_server, "--data", tmp_path, "--descriptors", 40, "--k", 3, "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "empty_0.png has no descriptors and is left out" in done.stdout
    assert "2 of 2 rankings are those of numpy. The own class comes first for 2 of 2 pictures" in done.stdout
    accepted(own_server.wire().describe_collection(named("sift_votes")))


def test_a_folder_without_pictures_is_refused_before_anything_is_created(own_server, tmp_path):
    done = walk(own_server, "--data", tmp_path)
    assert done.returncode == 1
    assert "no pictures there" in done.stderr
    assert own_server.wire().describe_collection(named("sift_votes")).status.code == -4002
