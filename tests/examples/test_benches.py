"""Short versions of the measurements: they run, and what they assert holds on a small scale."""

import json
import subprocess
import sys

from server import ROOT, binary


def measure(script, server, *options):
    options = ["--server", server.grpc, "--settle", 0.5, *options]
    command = [sys.executable, str(ROOT / "benches" / script), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_5000_rows_load_while_four_threads_query_and_none_is_missed(start_server):
    own = start_server(settings={"segment.seal_rows_max": 1_500, "segment.graph_rows_min": 1_000})
    summary = measure("load_and_query.py", own, "--rows", 5_000, "--dimension", 32, "--batch", 250, "--queries", 100)
    assert summary["errors"] == 0 and summary["missed"] == 0
    assert summary["probes_while_loading"] > 0
    assert summary["recall_at_10"] >= 0.98
    assert summary["segments"] > 1


def test_the_nearest_are_found_on_kinds_of_data_that_are_hard_or_it_is_said(tmp_path):
    command = [sys.executable, str(ROOT / "benches" / "recall.py"), "--short", "--bin", binary(),
               "--out", str(tmp_path / "recall.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "recall.md").read_text()
    report = json.loads((tmp_path / "recall.json").read_text())
    assert len(report["cells"]) > 500 and not report["notes"]
