"""The running server tried by schemathesis, from its own OpenAPI document: no call fails in the server, and every
answer has a status and a form that the document names.
"""

import re
import subprocess
import sys

import pytest

from json_api import Api, VECTORS
from test_http import calls_counted

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
#: What is tried, how often, and whether all of it is tried on one collection that exists.
RUNS = {
    "every form": ("coverage", 1, False),
    "on one collection": ("examples,fuzzing", 25, True),
    "anywhere": ("fuzzing", 10, False),
}
DECLARED = {"vectors": [{**VECTORS[0], "name": "feature"}], "forwards": [{"name": "path"}]}
ROWS = [{"key": k, "vectors": {"feature": [k, 0]}, "values": {"path": f"{k}.jpg"}} for k in range(3)]


@pytest.mark.parametrize("run", RUNS)
def test_what_the_document_allows_and_forbids_is_answered_as_it_says(start_server, tmp_path, run):
    phases, examples, is_fixed = RUNS[run]
    own = start_server(settings={"limits.collections_max": 50})
    api = Api(own)
    api.ok("PUT", "/collections/photos", DECLARED, status=201)
    api.ok("POST", "/collections/photos/rows", {"operation": "insert", "rows": ROWS})
    api.close()
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"http://{own.http}/api/v1/openapi.json", "--checks", CHECKS,
        "--phases", phases, "--max-examples", str(examples), "--seed", "7", "--request-timeout", "20", "--no-color",
        "--generation-database", "none"]
    if is_fixed:
        (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.name" = "photos"\n"path.key" = 1\n')
        command += ["--exclude-operation-id", "dropCollection"]
    tried = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert tried.returncode == 0, tried.stdout[-8000:] + tried.stderr[-2000:]
    assert own.is_running and "panicked" not in own.log_text()
    assert "Unresolvable" not in tried.stdout, tried.stdout
    generated = int(re.search(r"(\d+) generated", tried.stdout)[1])
    counted = calls_counted(own)
    assert generated >= 100 and sum(counted.values()) >= generated
    if is_fixed:
        answered = {call for (call, code), count in counted.items() if code == "OK" and count}
        assert answered >= {"query", "countRows", "describeCollection", "getRows", "scrollRows", "readRows", "collectionStats"}
