"""Data that spans many segments behaves as if it lay in one."""

import contextlib
import os
import random

import pytest

from proxima import accepted, collection, column, delete, forwards, hits, insert, keys, knn, stored, update, writing
from sealing import all_sealed, segments
from server import eventually


def spread(wire, name, count, max_docs, batch, seed=1):
    """Writes keys 0 to count - 1 at (key, 0) in shuffled batches."""
    accepted(wire.create_collection(collection(name, forward_names=["a"], max_docs=max_docs)))
    order = list(range(count))
    random.Random(seed).shuffle(order)
    for start in range(0, count, batch):
        rows = [insert(k, [k, 0], values=[f"a{k}"]) for k in order[start:start + batch]]
        accepted(wire.write(writing(name, *rows, forward_names=["a"])))


@pytest.mark.parametrize("batch", [333, 100, 7])
def test_333_documents_in_segments_of_100_are_all_found_in_order(wire, name, batch):
    spread(wire, name, 333, 100, batch)
    for _ in range(2):  # while sealing, and afterwards
        for is_linear in (True, False):
            answer = accepted(wire.query(knn(name, [0, 0], topk=333, is_linear=is_linear)))
            found = [(d.primary_key, d.score, forwards(d)["a"][1]) for d in answer.results[0].documents]
            assert found == [(k, float(k * k), f"a{k}") for k in range(333)]
        all_sealed(wire, name, documents=300)
    assert all(s.doc_count <= 100 for s in segments(wire, name))
    for k in range(333):
        assert forwards(stored(wire, name, k)) == {"a": ("string_value", f"a{k}")}


def test_updates_and_deletes_reach_rows_in_sealed_segments(wire, name):
    spread(wire, name, 200, 50, 50)
    all_sealed(wire, name, documents=150)
    changed = [update(k, [1000 + k, 0], values=["moved"]) for k in range(0, 200, 4)]
    accepted(wire.write(writing(name, *changed, forward_names=["a"])))
    accepted(wire.write(writing(name, *(delete(k) for k in range(1, 200, 4)), metas=[])))
    expected = {k: float(k * k) for k in range(200) if k % 4 > 1}
    expected |= {k: float((1000 + k) ** 2) for k in range(0, 200, 4)}
    for is_linear in (True, False):
        (result,) = hits(wire.query(knn(name, [0, 0], topk=400, is_linear=is_linear)))
        assert len(result) == len(expected) and dict(result) == expected
    for k in range(200):
        document = stored(wire, name, k)
        assert (document is None) == (k % 4 == 1)
        if document is not None:
            assert forwards(document)["a"] == ("string_value", "moved" if k % 4 == 0 else f"a{k}")


def test_no_query_misses_a_row_while_segments_are_sealed(wire, name):
    """Every write is followed at once by a query for it, across many seals."""
    accepted(wire.create_collection(collection(name, max_docs=10)))
    for k in range(200):
        accepted(wire.write(writing(name, insert(k, [k, 0]))))
        assert hits(wire.query(knn(name, [k, 0], topk=1))) == [[(k, 0.0)]]
        assert len(keys(wire.query(knn(name, [0, 0], topk=1000)))[0]) == k + 1


def test_segments_of_one_document_work(wire, name):
    spread(wire, name, 20, 1, 20)
    assert keys(wire.query(knn(name, [0, 0], topk=20))) == [list(range(20))]
    accepted(wire.write(writing(name, delete(0), update(5, [-1, 0]))))
    assert keys(wire.query(knn(name, [0, 0], topk=2))) in ([[1, 5]], [[5, 1]])


def test_deleting_everything_leaves_nothing_and_room_to_write_again(wire, name):
    for _ in range(3):
        if stored_count(wire, name) is None:
            spread(wire, name, 100, 20, 100)
        else:
            rows = [insert(k, [k, 0], values=["again"]) for k in range(100)]
            accepted(wire.write(writing(name, *rows, forward_names=["a"])))
        assert stored_count(wire, name) == 100
        accepted(wire.write(writing(name, *(delete(k) for k in range(100)), metas=[])))
        assert stored_count(wire, name) == 0


def stored_count(wire, name):
    answer = wire.query(knn(name, [0, 0], topk=1000))
    return None if answer.status.code == -4002 else len(keys(answer)[0])


def test_compaction_reclaims_deleted_rows_and_changes_no_answer(start_server):
    settings = {"segment.seal_rows_max": 100, "segment.graph_rows_min": 50, "segment.deleted_share_max": 0.2}
    own = start_server(settings=settings)
    wire, name = own.wire(), "compacted"
    accepted(wire.create_collection(collection(name, column(dimension=2), forward_names=["a"])))
    for start in range(0, 1000, 100):
        rows = [insert(k, [k, 0], values=[f"a{k}"]) for k in range(start, start + 100)]
        accepted(wire.write(writing(name, *rows, forward_names=["a"])))
    all_sealed(wire, name, documents=900)

    def size():
        # A merge may take files away while they are looked at: those that are there count.
        total = 0
        for folder, _, names in os.walk(own.data / "collections"):
            for name in names if "segment-" in folder else ():
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total

    before = size()
    accepted(wire.write(writing(name, *(delete(k) for k in range(1000) if k % 10), metas=[])))
    kept = [(k, float(k * k)) for k in range(0, 1000, 10)]
    assert hits(wire.query(knn(name, [0, 0], topk=1000))) == [kept]
    eventually(lambda: size() < before / 2, 60.0, lambda: f"smaller files than {before} bytes, now {size()}")
    for is_linear in (True, False):
        assert hits(wire.query(knn(name, [0, 0], topk=1000, is_linear=is_linear))) == [kept]
    own.restart("kill")
    assert hits(own.wire().query(knn(name, [0, 0], topk=1000))) == [kept]
    assert forwards(stored(own.wire(), name, 990)) == {"a": ("string_value", "a990")}
