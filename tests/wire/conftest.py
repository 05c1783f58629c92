"""Every test here runs with each handler of the stock client, but those marked `handlers` with fewer."""

import pytest

from server import HANDLERS, Server


def pytest_generate_tests(metafunc):
    only = metafunc.definition.get_closest_marker("handlers")
    metafunc.parametrize("handler", only.args if only else HANDLERS, indirect=True)


@pytest.fixture(autouse=True)
def handler(request):
    """The handler that servers give to clients and bare calls in this test."""
    Server.handler = request.param
    yield request.param
    Server.handler = "grpc"
