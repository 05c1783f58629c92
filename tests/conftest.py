"""Fixtures: a server shared by tests that leave nothing behind, and servers of a test's own."""

import re
import uuid

import pytest

from server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that need no restart and no settings of their own."""
    shared = Server(tmp_path_factory.mktemp("shared") / "data").start()
    yield shared
    code = shared.stop()
    assert code == 0, f"the shared server stopped with {code}:\n{shared.tail()}"


@pytest.fixture
def start_server(tmp_path, request):
    """Starts servers on folders of the test's own: start_server(settings={...}, durability=...)."""
    started = []

    def start(folder="data", **how):
        own = Server(tmp_path / folder, **how)
        started.append(own)
        request.node.voisin_servers = started
        return own.start()

    yield start
    for own in started:
        own.kill()


@pytest.fixture
def own_server(start_server):
    """A server of the test's own, with default settings."""
    return start_server()


@pytest.fixture
def client(server):
    """A stock pyproximabe client of the shared server."""
    client = server.client()
    yield client
    client.close()


@pytest.fixture
def wire(server):
    """The shared server's calls as bare messages."""
    return server.wire()


@pytest.fixture
def name(request):
    """A collection name no other test uses; the collection is dropped afterwards if it is there."""
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name)[:60]
    unique = f"{readable}-{uuid.uuid4().hex[:8]}"
    yield unique
    if "server" in request.fixturenames:
        shared = request.getfixturevalue("server")
        if shared.is_running:
            client = shared.client()
            client.drop_collection(unique)
            client.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failing test shows how the logs of its servers end."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    servers = list(getattr(item, "voisin_servers", []))
    servers += [v for v in getattr(item, "funcargs", {}).values() if isinstance(v, Server)]
    for number, own in enumerate(dict.fromkeys(servers)):
        report.sections.append((f"voisin log {number} ({own.data})", own.tail()))
