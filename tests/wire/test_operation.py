"""The process: health, reflection, messages too large, one folder for one process, ports in use."""

import signal
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from proxima import FP32, accepted, collection, column, insert, keys, knn, pack, refused_because, writing
from pyproximabe.core.types import proxima_be_pb2 as be
from server import NO_ANSWER, Server, StartFailed, run_voisin

SERVICE = "proxima.be.proto.ProximaService"


# ----- health and reflection -----


@pytest.mark.handlers("grpc")
@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_says_serving(server, service):
    stub = health_pb2_grpc.HealthStub(server.channel())
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.handlers("grpc")
def test_health_of_an_unknown_service_is_not_found(server):
    stub = health_pb2_grpc.HealthStub(server.channel())
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def reflect(server, request):
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel())
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    return answer


@pytest.mark.handlers("grpc")
def test_reflection_lists_the_services(server):
    answer = reflect(server, reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {s.name for s in answer.list_services_response.service}
    assert SERVICE in names
    assert "grpc.health.v1.Health" in names


@pytest.mark.handlers("grpc")
def test_reflection_describes_the_nine_calls(server):
    from google.protobuf import descriptor_pb2

    answer = reflect(server, reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
    methods = set()
    for raw in answer.file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        for service in file.service:
            if f"{file.package}.{service.name}" == SERVICE:
                methods |= {m.name for m in service.method}
    assert methods >= {
        "create_collection", "drop_collection", "describe_collection", "list_collections", "stats_collection",
        "write", "query", "get_document_by_key", "get_version"}


# ----- message sizes -----


def big_write(name, megabytes):
    """A write of about that many MiB: rows of 64 KiB vectors."""
    dimension = 16384
    rows = [insert(k, pack(FP32, [k] * dimension)) for k in range(megabytes * 16)]
    return writing(name, *rows, metas=[("v", FP32, dimension)]), dimension


def test_messages_far_above_4_mib_are_taken(server, wire, name):
    request, dimension = big_write(name, 20)
    accepted(wire.create_collection(collection(name, column(dimension=dimension))))
    accepted(wire.write(request))
    assert keys(wire.query(knn(name, pack(FP32, [7] * dimension), topk=1, dimension=dimension))) == [[7]]


def test_a_message_above_the_limit_is_refused_with_the_limit_and_its_setting(start_server, handler):
    limit = 1 << 20
    own = start_server(settings={"limits.message_bytes_max": limit})
    wire = own.wire()
    request, dimension = big_write("big", 2)
    accepted(wire.create_collection(collection("big", column(dimension=dimension))))
    if handler == "http":
        refused_because(wire.write(request), -1010, "limits.message_bytes_max", limit)
    else:
        with pytest.raises(grpc.RpcError) as error:
            wire.write(request)
        assert error.value.code() in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "limits.message_bytes_max" in error.value.details()
        assert str(limit) in error.value.details()
    del request.rows[8:]
    accepted(wire.write(request))


@pytest.mark.handlers("grpc")
def test_bytes_that_are_no_message_are_refused_and_harmless(server, wire):
    for rpc in ("write", "query", "create_collection"):
        call = server.channel().unary_unary(f"/{SERVICE}/{rpc}")
        with pytest.raises(grpc.RpcError):
            call(b"\xff" * 100, timeout=10)
    accepted(wire.get_version(be.GetVersionRequest()))


# ----- one folder, one process; ports -----


@pytest.mark.handlers("grpc")
def test_a_second_process_on_the_same_folder_is_refused_clearly(own_server):
    second = Server(own_server.data)
    with pytest.raises(StartFailed) as refused:
        second.start()
    words = str(refused.value)
    assert str(own_server.data) in words
    assert "in use" in words or "lock" in words
    accepted(own_server.wire().get_version(be.GetVersionRequest()))


def test_the_folder_is_free_again_after_a_kill(own_server):
    own_server.kill()
    second = Server(own_server.data).start()
    accepted(second.wire().get_version(be.GetVersionRequest()))
    assert second.stop() == 0


@pytest.mark.handlers("grpc")
@pytest.mark.parametrize("which", ["grpc_address", "http_address"])
def test_a_port_in_use_is_named_plainly(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed) as refused:
            Server(tmp_path / "data").start(**{which: address})
    words = str(refused.value)
    assert address in words.split("\n", 2)[-1].replace("--- ", ""), "the log names the address"
    assert "in use" in words


@pytest.mark.handlers("grpc")
def test_a_ready_server_names_its_real_ports(own_server):
    for address in (own_server.grpc, own_server.http):
        host, port = address.rsplit(":", 1)
        assert host == "127.0.0.1" and int(port) > 0
        socket.create_connection((host, int(port)), timeout=10).close()


# ----- stopping -----


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_success(start_server, how):
    own = start_server()
    accepted(own.wire().create_collection(collection("kept")))
    accepted(own.wire().write(writing("kept", insert(1, [1, 0]))))
    assert own.end(how) == 0
    own.start()
    assert keys(own.wire().query(knn("kept", [1, 0]))) == [[1]]


def test_a_stop_under_load_loses_nothing_it_acknowledged(start_server):
    own = start_server()
    accepted(own.wire().create_collection(collection("loaded")))
    acknowledged, ended = set(), threading.Event()

    def write_until_refused(first):
        wire, key = own.wire(), first
        try:
            while True:
                if wire.write(writing("loaded", insert(key, [key, 0]))).code != 0:
                    return
                acknowledged.add(key)
                if len(acknowledged) == 200:
                    ended.set()
                key += 4
        except NO_ANSWER:
            return

    threads = [threading.Thread(target=write_until_refused, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    assert ended.wait(60)
    own.signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert own.end() == 0
    own.start()
    (found,) = keys(own.wire().query(knn("loaded", [0, 0], topk=100_000, is_linear=True)))
    assert set(found) >= acknowledged
    assert len(found) <= len(acknowledged) + 4, "at most one write per thread was unanswered"


@pytest.mark.handlers("grpc")
def test_verify_accepts_the_folder_of_a_stopped_server_and_refuses_a_damaged_one(start_server):
    own = start_server(settings={"segment.seal_rows_max": 20})
    wire = own.wire()
    accepted(wire.create_collection(collection("checked")))
    accepted(wire.write(writing("checked", *(insert(k, [k, 0]) for k in range(100)))))
    from sealing import all_sealed

    all_sealed(wire, "checked", documents=80)
    assert own.stop() == 0
    assert run_voisin("verify", own.data).returncode == 0
    (rows, *_) = sorted(own.data.glob("collections/*/segment-*/rows.arrow"))
    damaged = bytearray(rows.read_bytes())
    damaged[len(damaged) // 2] ^= 0x01
    rows.write_bytes(damaged)
    outcome = run_voisin("verify", own.data)
    assert outcome.returncode == 1
    assert rows.parent.name in outcome.stdout + outcome.stderr


@pytest.mark.handlers("grpc")
def test_unknown_settings_are_refused_with_a_suggestion(tmp_path):
    outcome = run_voisin(
        "serve", "--check-config", "--data", tmp_path / "data", settings={"limits.mesage_bytes_max": 5})
    assert outcome.returncode != 0
    assert "message_bytes_max" in outcome.stdout + outcome.stderr
