"""Fixtures of the JSON API: its calls, and collections of a test's own."""

import urllib.parse

import pytest

from json_api import Api, VECTORS


@pytest.fixture
def api(server):
    calls = Api(server)
    yield calls
    calls.close()


@pytest.fixture
def at(name):
    """The path of a collection of this test's own."""
    return "/collections/" + urllib.parse.quote(name, safe="")


@pytest.fixture
def made(api, at):
    """A collection with an index column `v` and forward columns `path` (text) and `any`."""
    forwards = [{"name": "path", "type": "string"}, {"name": "any"}]
    api.ok("PUT", at, {"vectors": VECTORS, "forwards": forwards}, status=201)
    return at


@pytest.fixture
def filled(api, made):
    """The same with rows 0 to 9 at (key, 0)."""
    rows = [{"key": k, "vectors": {"v": [k, 0]}, "values": {"path": f"{k}.jpg", "any": k}} for k in range(10)]
    assert api.ok("POST", f"{made}/rows", {"operation": "insert", "rows": rows}) == {"rows_applied": 10, "failures": []}
    return made
