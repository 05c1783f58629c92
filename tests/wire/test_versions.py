"""Clients check the server's version when they connect; one answer satisfies all of them."""

import asyncio

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import accepted


def test_the_version_is_the_one_every_client_accepts(wire):
    answer = accepted(wire.get_version(be.GetVersionRequest()))
    assert answer.version == "0.2.0"


def test_the_stock_client_connects(server):
    status, collections = server.client().list_collections()
    assert status.ok()
    assert isinstance(collections, list)


@pytest.mark.handlers("grpc")
def test_the_stock_asynchronous_client_connects(server):
    async def connect():
        client = server.async_client()
        try:
            return await client.list_collections()
        finally:
            await client.close()

    status, _ = asyncio.run(connect())
    assert status.ok()


@pytest.mark.handlers("grpc")
def test_an_unknown_call_of_the_service_is_unimplemented(server):
    import grpc

    call = server.channel().unary_unary("/proxima.be.proto.ProximaService/no_such_call")
    try:
        call(b"", timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    else:
        raise AssertionError("an unknown call was answered")
