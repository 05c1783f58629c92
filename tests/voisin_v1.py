"""Calls of the contract voisin.v1 from what the server says of itself by reflection: no generated code."""

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PACKAGE = "voisin.v1"
CALL_SECONDS_MAX = 60.0


class VoisinV1:
    """`calls.Query(topk=5, ...)` for one message, `calls.EmbedImages([message, ...])` for a stream of them, whose
    replies `read` gets; `calls.message("QueryRequest", ...)` makes one."""

    def __init__(self, channel):
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self._service = self._pool.FindServiceByName(f"{PACKAGE}.Voisin")
        self._factory = message_factory.MessageFactory(self._pool)

    def message(self, name, /, **fields):
        """A message of the contract by its name."""
        return self._factory.GetPrototype(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def __getattr__(self, name):
        method = self._service.methods_by_name[name]
        request = self._factory.GetPrototype(method.input_type)
        reply = self._factory.GetPrototype(method.output_type)
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
        streams = {"Read": (False, True), "WriteStream": (True, True), "EmbedImages": (True, True),
                   "WriteImages": (True, True)}.get(name, (False, False))
        call = getattr(self._channel, kinds[streams])(
            f"/{PACKAGE}.Voisin/{name}", request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString)
        if streams[0]:
            return lambda messages, read=list, timeout=CALL_SECONDS_MAX: read(call(iter(messages), timeout=timeout))
        if streams[1]:
            return lambda **fields: list(call(request(**fields), timeout=CALL_SECONDS_MAX))
        return lambda **fields: call(request(**fields), timeout=CALL_SECONDS_MAX)


def refused(call, code, *words):
    """Asserts that a call is refused with this code and words in its message."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() == code, error.value
    for word in words:
        assert word in error.value.details(), error.value.details()
