"""Fixtures of pictures: calls of voisin.v1, and a server with models of its own."""

import pytest

from voisin_v1 import VoisinV1


@pytest.fixture
def calls(server):
    return VoisinV1(server.channel())


@pytest.fixture
def photos(calls, name):
    """A collection for pictures of the model that comes with the server."""
    kinds = {"image_path": "STRING", "thumbnail": "BYTES", "width": "INT64", "height": "INT64"}
    forwards = [dict(name=column, type=f"VALUE_TYPE_{kind}") for column, kind in kinds.items()]
    calls.CreateCollection(name=name, vectors=[dict(name="embedding", params={"model": "holistic"})], forwards=forwards)
    return name
