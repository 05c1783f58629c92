"""Indexes that a process did not outlive, with real kills: what the next starts do, and what they say."""

import json

import numpy as np
import pytest

from sealing import files_of
from server import eventually, run_voisin
from voisin_v1 import VoisinV1

FP32, SQUARED_EUCLIDEAN, INSERT = 1, 1, 1
ROWS, DIMENSION = 1_500, 64


def rows(seed):
    return np.random.default_rng(seed).standard_normal((ROWS, DIMENSION)).astype(np.float32)


def column(calls, vectors):
    return calls.message("VectorColumn", name="v", element=FP32, dimension=DIMENSION, vectors=vectors.tobytes())


def create(calls, name, params):
    own = calls.message("VectorColumnInfo", name="v", element=FP32, dimension=DIMENSION, metric=SQUARED_EUCLIDEAN, params=params)
    calls.CreateCollection(name=name, vectors=[own])
    ack = calls.Write(collection=name, keys=range(ROWS), operation=INSERT, vectors=[column(calls, rows(1))])
    assert not ack.failures


def is_indexed(calls, name):
    now = calls.Stats(collection=name)
    return not now.indexing.rows_waiting and not now.indexing.rows_linking and not now.unindexed


def finds_exactly(calls, name):
    truth = ((rows(2)[:5, None] - rows(1)[None]) ** 2).sum(2).argsort(1)[:, :10]
    reply = calls.Query(collection=name, vectors=column(calls, rows(2)[:5]), topk=10)
    return all(list(hits.keys) == list(nearest) for hits, nearest in zip(reply.results, truth))


def verified(own):
    done = run_voisin("verify", str(own.data), "--json")
    report = json.loads(done.stdout)
    return done.returncode, [fault for one in report["collections"] for fault in one["faults"]]


@pytest.mark.handlers("grpc")
def test_builds_that_end_the_process_are_given_up_after_two_and_done_when_the_marker_is_removed(start_server):
    own = start_server()
    calls = VoisinV1(own.channel())
    create(calls, "quick", {"index_type": "IVF_FLAT", "nlist": "8"})
    eventually(lambda: is_indexed(calls, "quick"), 60.0, "an index")
    create(calls, "slow", {"index_factory": "LSQ16x6"})
    for tries in (1, 2):
        under_way = lambda: [path for path in files_of(own, "building-0") if f'"tries":{tries}' in path.read_text()]
        marker, = eventually(under_way, 60.0, "a build")
        own.restart("kill")
    calls = VoisinV1(own.channel())
    reason, = eventually(lambda: calls.Stats(collection="slow").unindexed, 30.0, "a reason")
    assert str(marker) in reason and "2 processes" in reason, reason
    assert "rows go without an index" in own.log_text()
    assert not calls.Stats(collection="slow").indexing.rows_waiting
    assert finds_exactly(calls, "slow") and is_indexed(calls, "quick")
    own.stop()
    code, faults = verified(own)
    assert code == 1 and faults == [reason], faults
    marker.unlink()
    own.start()
    calls = VoisinV1(own.channel())
    eventually(lambda: is_indexed(calls, "slow"), 120.0, "an index")
    assert not files_of(own, "building-*") and not files_of(own, "opening-*")
    own.stop()
    assert verified(own) == (0, [])


@pytest.mark.handlers("grpc")
def test_an_index_that_a_start_died_over_is_left_out_and_told(start_server):
    own = start_server()
    calls = VoisinV1(own.channel())
    for name in ("left", "kept"):
        create(calls, name, {"index_type": "IVF_SQ8", "nlist": "8"})
        eventually(lambda: is_indexed(calls, name), 60.0, "an index")
    folder = own.data / "collections" / calls.DescribeCollection(name="left").uuid
    own.stop()
    index, = folder.glob("segment-*/0.faiss")
    marker = folder / f"opening-{index.parent.name.removeprefix('segment-')}-0"
    marker.write_text("")
    for _ in range(2):
        own.start()
        calls = VoisinV1(own.channel())
        reason, = calls.Stats(collection="left").unindexed
        assert f"{index.parent.name}/0.faiss" in reason and str(marker) in reason, reason
        assert finds_exactly(calls, "left") and is_indexed(calls, "kept")
        own.stop()
        assert verified(own) == (1, [reason])
    marker.unlink()
    own.start()
    assert is_indexed(VoisinV1(own.channel()), "left")
