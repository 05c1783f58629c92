"""Everything acknowledged is there after a restart: a graceful one and one by kill -9."""

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    FP16, INT8, accepted, collection, column, delete, forwards, hits, insert, keys, knn, named, pack, refused,
    repository, stored, update, writing,
)
from sealing import all_sealed
from server import run_voisin

EITHER_WAY = pytest.mark.parametrize("how", ["stop", "kill"])
EITHER_DURABILITY = pytest.mark.parametrize("durability", ["process", "power"])


@EITHER_WAY
def test_collections_come_back_as_they_were(own_server, how):
    wire = own_server.wire()
    declared = [
        collection("plain", column("x", 16), column("y", 32, FP16, params={"metric_type": "InnerProduct"}),
                   forward_names=["b", "a"], max_docs=77),
        collection("followed", repository=repository()),
        collection("ünïcödé with space"),
    ]
    for one in declared:
        accepted(wire.create_collection(one))
    accepted(wire.create_collection(collection("dropped")))
    accepted(wire.drop_collection(named("dropped")))

    def listed():
        answer = accepted(own_server.wire().list_collections(be.ListCondition()))
        return {c.config.collection_name: (c.config, c.uuid, c.status) for c in answer.collections}

    before = listed()
    assert set(before) == {"plain", "followed", "ünïcödé with space"}
    own_server.restart(how)
    assert listed() == before
    wire = own_server.wire()
    refused(wire.create_collection(declared[0]), -4000)
    accepted(wire.create_collection(collection("dropped")))
    accepted(wire.drop_collection(named("plain")))
    own_server.restart(how)
    assert set(listed()) == {"followed", "ünïcödé with space", "dropped"}


@EITHER_WAY
@EITHER_DURABILITY
def test_rows_come_back_as_they_were(start_server, how, durability):
    own = start_server(durability=durability)
    wire = own.wire()
    accepted(wire.create_collection(collection("kept", forward_names=["a"], max_docs=100)))
    rows = [insert(k, [k, 0], values=[f"a{k}"]) for k in range(250)]
    accepted(wire.write(writing("kept", *rows, forward_names=["a"])))
    changed = [update(k, [1000 + k, 0], values=["moved"]) for k in range(0, 250, 5)]
    accepted(wire.write(writing("kept", *changed, forward_names=["a"])))
    accepted(wire.write(writing("kept", *(delete(k) for k in range(1, 250, 5)), metas=[])))

    def everything(wire):
        answer = accepted(wire.query(knn("kept", [0, 0], topk=1000, is_linear=True)))
        return [(d.primary_key, d.score, forwards(d)["a"][1]) for d in answer.results[0].documents]

    before = everything(wire)
    assert len(before) == 200
    for _ in range(3):
        own.restart(how)
        wire = own.wire()
        assert everything(wire) == before
        assert stored(wire, "kept", 1) is None
        refused(wire.write(writing("kept", insert(0, [1, 0]))), -4001)
        refused(wire.write(writing("kept", delete(1))), -4004)
    assert own.stop() == 0
    verified = run_voisin("verify", own.data)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@EITHER_WAY
def test_writing_goes_on_after_a_restart(own_server, how):
    accepted(own_server.wire().create_collection(collection("grown", max_docs=30)))
    for round_number in range(4):
        wire = own_server.wire()
        rows = [insert(round_number * 20 + k, [round_number * 20 + k, 0]) for k in range(20)]
        accepted(wire.write(writing("grown", *rows)))
        own_server.restart(how)
        assert keys(own_server.wire().query(knn("grown", [0, 0], topk=100))) == [list(range(20 * (round_number + 1)))]


@EITHER_WAY
def test_an_empty_collection_takes_rows_after_a_restart(own_server, how):
    accepted(own_server.wire().create_collection(collection("empty")))
    own_server.restart(how)
    wire = own_server.wire()
    assert keys(wire.query(knn("empty", [0, 0]))) == [[]]
    accepted(wire.write(writing("empty", insert(1, [1, 0]))))
    assert keys(wire.query(knn("empty", [0, 0]))) == [[1]]


@EITHER_WAY
def test_sealed_segments_answer_the_same_after_a_restart(start_server, how):
    own = start_server(settings={"segment.seal_rows_max": 100, "segment.graph_rows_min": 50})
    wire = own.wire()
    accepted(wire.create_collection(collection("sealed", column(data_type=INT8, dimension=4))))
    rows = [insert(k, pack(INT8, [k % 100, k // 100, 1, 2])) for k in range(500)]
    accepted(wire.write(writing("sealed", *rows, metas=[("v", INT8, 4)])))
    all_sealed(wire, "sealed", documents=400)
    ask = knn("sealed", pack(INT8, [50, 3, 1, 2]), topk=500, dimension=4, data_type=INT8, is_linear=True)
    before = sorted(hits(wire.query(ask))[0])
    own.restart(how)
    assert sorted(hits(own.wire().query(ask))[0]) == before
    assert hits(own.wire().query(knn("sealed", pack(INT8, [50, 3, 1, 2]), topk=1, dimension=4, data_type=INT8))) == [
        [(350, 0.0)]]


@EITHER_WAY
def test_dropped_collections_leave_no_files(own_server, how):
    """Dropped while their full segments are being sealed, which must not bring files back."""
    wire = own_server.wire()
    for number in range(10):
        name = f"short-lived {number}"
        accepted(wire.create_collection(collection(name, max_docs=10)))
        accepted(wire.write(writing(name, *(insert(k, [k, 0]) for k in range(50)))))
        identity = wire.describe_collection(named(name)).collection.uuid
        assert (own_server.data / "collections" / identity).is_dir()
        accepted(wire.drop_collection(named(name)))
    own_server.restart(how)
    assert list((own_server.data / "collections").iterdir()) == []
    assert "not served" not in own_server.log_text()
    refused(own_server.wire().query(knn("short-lived 0", [0, 0])), -4002)
    assert own_server.stop() == 0
    assert run_voisin("verify", own_server.data).returncode == 0
