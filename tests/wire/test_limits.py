"""Every number a caller chooses is bounded, and a refusal names the limit and its setting."""

import pytest

from proxima import (
    FP32, accepted, collection, column, delete, hits, insert, keys, knn, named, pack, refused_because, stored, writing,
)
from server import Server

LIMITS = {
    "limits.dimension_max": 8,
    "limits.columns_max": 3,
    "limits.collections_max": 4,
    "limits.write_rows_max": 50,
    "limits.query_vectors_max": 5,
    "limits.query_results_max": 60,
    "limits.reply_bytes_max": 65536,
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A server with small limits and one collection of 30 rows."""
    own = Server(tmp_path_factory.mktemp("limits") / "data", settings=LIMITS).start()
    wire = own.wire()
    accepted(wire.create_collection(collection("rows")))
    accepted(wire.write(writing("rows", *(insert(k, [k, 0]) for k in range(30)))))
    yield own
    own.kill()


@pytest.fixture
def limited_wire(limited):
    return limited.wire()


def beyond(answer, setting):
    refused_because(answer, -1010, setting, LIMITS[setting])


def test_dimension(limited_wire):
    accepted(limited_wire.create_collection(collection("widest", column(dimension=8))))
    accepted(limited_wire.drop_collection(named("widest")))
    beyond(limited_wire.create_collection(collection("wider", column(dimension=9))), "limits.dimension_max")
    beyond(limited_wire.create_collection(collection("widest", column(dimension=2**32 - 1))), "limits.dimension_max")


def test_columns(limited_wire):
    most = collection("most", *(column(c) for c in "xyz"), forward_names=["a", "b", "c"])
    accepted(limited_wire.create_collection(most))
    accepted(limited_wire.drop_collection(named("most")))
    more = collection("more", *(column(c) for c in "wxyz"))
    beyond(limited_wire.create_collection(more), "limits.columns_max")
    more = collection("more", forward_names=["a", "b", "c", "d"])
    beyond(limited_wire.create_collection(more), "limits.columns_max")


def test_collections(limited_wire):
    made = []
    for i in range(3):
        accepted(limited_wire.create_collection(collection(f"number {i}")))
        made.append(f"number {i}")
    beyond(limited_wire.create_collection(collection("one too many")), "limits.collections_max")
    for one in made:
        accepted(limited_wire.drop_collection(named(one)))
    accepted(limited_wire.create_collection(collection("room again")))
    accepted(limited_wire.drop_collection(named("room again")))


def test_rows_of_a_write(limited_wire):
    accepted(limited_wire.create_collection(collection("filled")))
    accepted(limited_wire.write(writing("filled", *(insert(k, [k, 0]) for k in range(50)))))
    answer = limited_wire.write(writing("filled", *(insert(k, [k, 0]) for k in range(100, 151))))
    beyond(answer, "limits.write_rows_max")
    assert stored(limited_wire, "filled", 100) is None
    accepted(limited_wire.drop_collection(named("filled")))


def test_vectors_of_a_query(limited_wire):
    vector = pack(FP32, [1, 0])
    assert keys(limited_wire.query(knn("rows", vector * 5, topk=1, batch_count=5))) == [[1]] * 5
    beyond(limited_wire.query(knn("rows", vector * 6, topk=1, batch_count=6)), "limits.query_vectors_max")


@pytest.mark.parametrize("is_linear", [False, True], ids=["graph", "linear"])
def test_results_of_a_query_over_its_whole_batch(limited_wire, is_linear):
    vector = pack(FP32, [0, 0])
    within = knn("rows", vector * 2, topk=30, batch_count=2, is_linear=is_linear)
    assert hits(limited_wire.query(within)) == [[(k, float(k * k)) for k in range(30)]] * 2
    above = knn("rows", vector * 3, topk=30, batch_count=3, is_linear=is_linear)
    beyond(limited_wire.query(above), "limits.query_results_max")


def test_size_of_a_reply(limited_wire):
    accepted(limited_wire.create_collection(collection("large", forward_names=["text"])))
    rows = [insert(k, [k, 0], values=["x" * 10_000]) for k in range(10)]
    accepted(limited_wire.write(writing("large", *rows, forward_names=["text"])))
    assert len(hits(limited_wire.query(knn("large", [0, 0], topk=5)))[0]) == 5
    beyond(limited_wire.query(knn("large", [0, 0], topk=10)), "limits.reply_bytes_max")
    accepted(limited_wire.drop_collection(named("large")))


def test_memory(tmp_path):
    """Growth beyond the limit is refused; what is there is served, and deletes make room."""
    limit, wide = 192 << 20, 4096
    own = Server(tmp_path / "data", settings={"limits.memory_bytes_max": limit}).start()
    wire = own.wire()
    accepted(wire.create_collection(collection("rows", column(dimension=wide, params={"index_type": "FLAT"}.items()))))
    metas, batch, written = (("v", FP32, wide),), 500, 0

    def write(*rows):
        return wire.write(writing("rows", *rows, metas=metas))

    # 8 MB a batch: some 24 of them are the limit.
    for _ in range(100):
        answer = write(*(insert(written + i, [written + i] * wide) for i in range(batch)))
        if answer.code:
            break
        written += batch
    refused_because(answer, -1010, "limits.memory_bytes_max", limit)
    assert written >= batch
    found = wire.query(knn("rows", [0.0] * wide, topk=3, dimension=wide))
    assert keys(found) == [[0, 1, 2]]
    accepted(write(delete(0)))
    assert stored(wire, "rows", 0) is None
    own.restart()
    wire = own.wire()
    assert keys(wire.query(knn("rows", [0.0] * wide, topk=2, dimension=wide))) == [[1, 2]]
    assert stored(wire, "rows", written - 1) is not None
    own.stop()
