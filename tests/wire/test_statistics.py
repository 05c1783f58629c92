"""stats_collection: counters of segments, in the original's peculiar but documented form."""

from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import (
    FP32, accepted, collection, column, delete, insert, named, refused, repository, update, writing,
)
from sealing import Segment, all_sealed, segments

NONE_YET = 2**64 - 1


def stats(wire, name):
    return accepted(wire.stats_collection(named(name))).collection_stats


def test_statistics_of_a_missing_collection_say_so(wire, client):
    for missing in ("no such collection", ""):
        answer = wire.stats_collection(named(missing))
        refused(answer, -4002)
        assert not answer.HasField("collection_stats")
    status, nothing = client.stats_collection("no such collection")
    assert (status.code, nothing) == (-4002, None)


def test_a_new_collection_has_one_empty_writing_segment(wire, name):
    accepted(wire.create_collection(collection(name, column("v"), column("w"))))
    whole = stats(wire, name)
    assert whole.collection_name == name
    assert (whole.total_doc_count, whole.total_segment_count) == (0, 1)
    (only,) = whole.segment_stats
    assert only.state == Segment.SS_WRITING
    expected = Segment(
        segment_id=only.segment_id, state=Segment.SS_WRITING, index_file_count=3,
        index_file_size=only.index_file_size, min_primary_key=NONE_YET, min_timestamp=NONE_YET, min_lsn=NONE_YET)
    assert only == expected


def test_documents_count_insertions_ever_made(wire, name):
    accepted(wire.create_collection(collection(name)))

    def counted():
        whole = stats(wire, name)
        assert whole.total_doc_count == sum(s.doc_count for s in whole.segment_stats)
        return whole.total_doc_count

    accepted(wire.write(writing(name, *(insert(k, [k, 0]) for k in range(5)))))
    assert counted() == 5
    accepted(wire.write(writing(name, update(0, [9, 0]), update(1, [9, 0]))))
    assert counted() == 7
    accepted(wire.write(writing(name, delete(2), delete(3), metas=[])))
    assert counted() == 7
    wire.write(writing(name, insert(0, [1, 0]), update(77, [1, 0])))
    assert counted() == 7, "rows that fail count for nothing"


def test_a_written_segment_tells_its_keys_and_documents(wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, *(insert(k, [k, 0]) for k in (42, 7, 99)))))
    (only,) = segments(wire, name)
    assert (only.min_primary_key, only.max_primary_key) == (7, 99)
    assert (only.min_doc_id, only.max_doc_id) == (0, 2)
    assert (only.min_timestamp, only.max_timestamp) == (0, 0)
    assert (only.min_lsn, only.max_lsn) == (0, 0), "direct writes have no lsn"


def test_a_segment_of_a_repository_collection_tells_its_lsns(wire, name):
    accepted(wire.create_collection(collection(name, repository=repository())))
    magic = wire.describe_collection(named(name)).collection.magic_number
    rows = [insert(k, [k, 0], lsn=100 + k) for k in range(1, 4)]
    accepted(wire.write(writing(name, *rows, magic=magic)))
    from server import eventually

    eventually(lambda: segments(wire, name)[-1].doc_count == 3, 1.0, "three documents")
    (only,) = segments(wire, name)
    assert (only.min_lsn, only.max_lsn) == (101, 103)


def test_full_segments_are_persisted_and_listed_before_the_writing_one(wire, name):
    accepted(wire.create_collection(collection(name, column("v"), column("w"), max_docs=100)))
    metas = [("v", FP32, 2), ("w", FP32, 2)]
    for first in range(0, 250, 50):
        rows = [insert(k, [k, 0], [0, k]) for k in range(first, first + 50)]
        accepted(wire.write(writing(name, *rows, metas=metas)))
    all_sealed(wire, name, documents=200)
    whole = stats(wire, name)
    first, second, last = whole.segment_stats
    assert [s.state for s in whole.segment_stats] == [Segment.SS_PERSIST] * 2 + [Segment.SS_WRITING]
    assert [s.doc_count for s in whole.segment_stats] == [100, 100, 50]
    assert [s.index_file_count for s in whole.segment_stats] == [1, 1, 3]
    assert whole.total_segment_count == 3
    assert whole.total_doc_count == 250
    assert whole.total_index_file_count == 1 + 1 + 3 + 4
    assert whole.total_index_file_size >= sum(s.index_file_size for s in whole.segment_stats)
    assert [(s.min_primary_key, s.max_primary_key) for s in whole.segment_stats] == [(0, 99), (100, 199), (200, 249)]
    assert (first.min_doc_id, first.max_doc_id) == (0, 99)
    for earlier, later in ((first, second), (second, last)):
        assert later.min_doc_id == earlier.max_doc_id + 1000
        assert later.segment_id != earlier.segment_id
    assert {s.segment_path for s in whole.segment_stats} == {""}


def test_statistics_survive_a_restart(own_server):
    wire = own_server.wire()
    accepted(wire.create_collection(collection("counted", max_docs=100)))
    accepted(wire.write(writing("counted", *(insert(k, [k, 0]) for k in range(150)))))
    accepted(wire.write(writing("counted", update(0, [1, 1]), delete(1))))
    for how in ("stop", "kill"):
        own_server.restart(how)
        assert stats(own_server.wire(), "counted").total_doc_count == 151


def test_the_sdk_reads_the_statistics(client, wire, name):
    accepted(wire.create_collection(collection(name)))
    status, whole = client.stats_collection(name)
    assert status.ok()
    assert whole.total_segment_count > 0
    assert whole.segment_stats[-1].state.name == "WRITING"
    assert be.CollectionStats.SegmentStats.SS_WRITING == whole.segment_stats[-1].state
