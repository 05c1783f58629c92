"""Many callers at once: each call is still whole, and sees what was acknowledged before it began."""

import threading
from concurrent.futures import ThreadPoolExecutor

from proxima import (
    accepted, collection, delete, forwards, hits, insert, keys, knn, named, status_of, stored, update, writing,
)

THREADS = 8


def together(work, count=THREADS):
    """Runs `work(number)` in that many threads, started at the same moment, and returns their results."""
    start = threading.Barrier(count)

    def run(number):
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_one_of_many_creators_of_a_name_succeeds(wire, name):
    codes = together(lambda _: wire.create_collection(collection(name)).code)
    assert sorted(codes) == [-4000] * (THREADS - 1) + [0]
    accepted(wire.write(writing(name, insert(1, [1, 0]))))


def test_one_of_many_inserters_of_a_key_succeeds(wire, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))

    def work(number):
        rows = [insert(k, [number, k], values=[number]) for k in range(20)]
        return [wire.write(writing(name, row, forward_names=["a"])).code for row in rows]

    codes = together(work)
    for k in range(20):
        outcomes = sorted(one[k] for one in codes)
        assert outcomes == [-4001] * (THREADS - 1) + [0]
        winner = next(n for n, one in enumerate(codes) if one[k] == 0)
        assert forwards(stored(wire, name, k))["a"] == ("int64_value", winner)
        assert hits(wire.query(knn(name, [winner, k], topk=1)))[0][0] == (k, 0.0)


def test_each_caller_reads_its_own_writes(wire, name):
    accepted(wire.create_collection(collection(name, max_docs=50)))

    def work(number):
        for round_number in range(30):
            key = round_number * THREADS + number
            accepted(wire.write(writing(name, insert(key, [key, 1]))))
            assert hits(wire.query(knn(name, [key, 1], topk=1))) == [[(key, 0.0)]]
            if round_number % 3 == 1:
                accepted(wire.write(writing(name, update(key, [-key, -1]))))
                assert hits(wire.query(knn(name, [-key, -1], topk=1))) == [[(key, 0.0)]]
            if round_number % 3 == 2:
                accepted(wire.write(writing(name, delete(key), metas=[])))
                assert stored(wire, name, key) is None
        return True

    assert all(together(work))
    (found,) = keys(wire.query(knn(name, [0, 0], topk=10_000)))
    assert sorted(found) == [r * THREADS + n for r in range(30) for n in range(THREADS) if r % 3 != 2]


def test_a_query_sees_a_batch_whole_or_not_at_all(wire, name):
    """Every write moves all rows of one batch together; no query may see them apart."""
    accepted(wire.create_collection(collection(name, forward_names=["step"])))
    size = 20
    rows = [insert(k, [0, k], values=[0]) for k in range(size)]
    accepted(wire.write(writing(name, *rows, forward_names=["step"])))
    ended = threading.Event()

    def write():
        for step in range(1, 60):
            rows = [update(k, [step, k], values=[step]) for k in range(size)]
            accepted(wire.write(writing(name, *rows, forward_names=["step"])))
        ended.set()

    def read():
        looked = 0
        while not ended.is_set() or looked == 0:
            answer = accepted(wire.query(knn(name, [0, 0], topk=100)))
            documents = answer.results[0].documents
            steps = {forwards(d)["step"][1] for d in documents}
            assert len(documents) == size and len(steps) == 1, f"a query saw steps {steps}"
            (step,) = steps
            assert all(d.score == float(step**2 + d.primary_key**2) for d in documents), "a row and a half"
            looked += 1
        return looked

    assert all(outcome != 0 for outcome in together(lambda n: write() if n == 0 else read(), 4))


def test_a_drop_under_load_ends_every_call_with_an_answer(wire, name):
    accepted(wire.create_collection(collection(name)))
    go_on = threading.Event()

    def work(number):
        codes = set()
        for key in range(number, 4000, THREADS):
            if number == 0 and key > 200:
                accepted(wire.drop_collection(named(name)))
                go_on.set()
                return codes
            codes.add(wire.write(writing(name, insert(key, [key, 0]))).code)
            codes.add(status_of(wire.query(knn(name, [key, 0], topk=1))).code)
            if go_on.is_set() and -4002 in codes:
                break
        return codes

    for codes in together(work):
        assert codes <= {0, -4002}
    accepted(wire.create_collection(collection(name)))
    assert keys(wire.query(knn(name, [0, 0]))) == [[]]
