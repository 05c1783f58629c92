"""Repository ("proxy") collections: the magic number, the LSN rules, and answers that are always 0.

The effects of a write may show up to a second later, as in Proxima BE; tests look until they do.
"""

import pytest

from proxima import (
    accepted, collection, delete, forwards, insert, keys, knn, named, refused, repository, stored, update,
    writing,
)
from server import eventually


@pytest.fixture
def made(wire, name):
    """A repository collection with one vector column `v` and one forward column `a`."""
    accepted(wire.create_collection(collection(name, forward_names=["a"], repository=repository())))
    return name


def info(wire, name):
    return accepted(wire.describe_collection(named(name))).collection


def write(wire, name, *rows, magic=None):
    magic = info(wire, name).magic_number if magic is None else magic
    return wire.write(writing(name, *rows, forward_names=["a"], magic=magic))


def contents(wire, name):
    """key -> (score from the origin, value of `a`)."""
    answer = accepted(wire.query(knn(name, [0, 0], topk=1000)))
    return {d.primary_key: (d.score, forwards(d)["a"][1]) for d in answer.results[0].documents}


def soon(wire, name, expected):
    """Waits until the collection holds exactly `expected`, at most a second."""
    eventually(lambda: contents(wire, name) == expected, 1.0, lambda: f"{expected}, but {contents(wire, name)}")


# ----- the magic number -----


def test_the_magic_number_is_one_for_the_whole_server(wire, name):
    names = [f"{name}-{i}" for i in range(3)]
    for one in names:
        accepted(wire.create_collection(collection(one, repository=repository(one))))
    numbers = {info(wire, one).magic_number for one in names}
    for one in names:
        wire.drop_collection(named(one))
    assert len(numbers) == 1 and numbers != {0}


def test_the_magic_number_of_one_collection_writes_another(wire, made, name):
    other = name + "-other"
    accepted(wire.create_collection(collection(other, repository=repository())))
    magic = info(wire, other).magic_number
    wire.drop_collection(named(other))
    accepted(write(wire, made, insert(1, [1, 0], values=["x"], lsn=1), magic=magic))
    soon(wire, made, {1: (1.0, "x")})


@pytest.mark.parametrize("offset", [-1, 1])
def test_another_magic_number_is_refused_and_nothing_is_written(wire, made, offset):
    magic = info(wire, made).magic_number + offset
    refused(write(wire, made, insert(1, [1, 0], values=["x"], lsn=1), magic=magic), -2021)
    refused(write(wire, made, insert(1, [1, 0], values=["x"], lsn=1), magic=0), -2021)
    assert contents(wire, made) == {}


def test_a_restart_changes_the_magic_number(own_server):
    wire = own_server.wire()
    accepted(wire.create_collection(collection("followed", forward_names=["a"], repository=repository())))
    before = info(wire, "followed").magic_number
    accepted(write(wire, "followed", insert(1, [1, 0], values=["x"], lsn=1)))
    own_server.restart()
    wire = own_server.wire()
    refused(write(wire, "followed", insert(2, [2, 0], values=["y"], lsn=2), magic=before), -2021)
    assert info(wire, "followed").magic_number != before
    accepted(write(wire, "followed", insert(2, [2, 0], values=["y"], lsn=2)))
    soon(wire, "followed", {1: (1.0, "x"), 2: (4.0, "y")})


# ----- rows -----


def test_every_row_needs_an_lsn(wire, made):
    refused(write(wire, made, insert(1, [1, 0], values=["x"], lsn=1), insert(2, [2, 0], values=["y"])), -4007)
    refused(write(wire, made, delete(1)), -4007)
    assert contents(wire, made) == {}


def test_the_call_succeeds_whatever_happens_to_its_rows(wire, made):
    accepted(write(
        wire, made,
        insert(1, [1, 0], values=["first"], lsn=1), insert(1, [2, 0], values=["second"], lsn=2),
        update(8, [8, 0], values=["missing"], lsn=3), delete(9, lsn=4), insert(2, [3, 0], values=["last"], lsn=5)))
    soon(wire, made, {1: (1.0, "first"), 2: (9.0, "last")})


def test_the_first_insert_of_a_repeated_key_wins(wire, made):
    accepted(write(wire, made, *(insert(1, [n, 0], values=[str(n)], lsn=n) for n in range(1, 6))))
    soon(wire, made, {1: (1.0, "1")})


def test_updating_and_deleting_what_is_not_there_leaves_nothing(wire, made):
    accepted(write(wire, made, update(1, [1, 0], values=["x"], lsn=1), delete(2, lsn=2)))
    accepted(write(wire, made, insert(3, [3, 0], values=["end"], lsn=3)))
    soon(wire, made, {3: (9.0, "end")})
    assert stored(wire, made, 1) is None


def test_rows_of_a_key_run_in_order(wire, made):
    rows, lsn = [], 0
    for key in range(1, 6):
        steps = [insert, update, None, insert, update, None, insert, update, update]
        for number, step in enumerate(steps):
            lsn += 1
            rows.append(
                delete(key, lsn=lsn) if step is None else step(key, [key, number], values=[str(number)], lsn=lsn))
    accepted(write(wire, made, *rows))
    soon(wire, made, {key: (float(key**2 + 64), "8") for key in range(1, 6)})


@pytest.mark.parametrize("lsn, expected", [(9, "old"), (10, "old"), (11, "new"), (2**64 - 1, "new")])
def test_an_update_needs_an_lsn_above_the_stored_one(wire, made, lsn, expected):
    accepted(write(wire, made, insert(1, [1, 0], values=["old"], lsn=10)))
    accepted(write(wire, made, update(1, [2, 0], values=["new"], lsn=lsn)))
    accepted(write(wire, made, insert(2, [3, 0], values=["marker"], lsn=12)))
    score = {"old": 1.0, "new": 4.0}[expected]
    soon(wire, made, {1: (score, expected), 2: (9.0, "marker")})


def test_an_update_is_compared_with_the_lsn_of_the_last_update(wire, made):
    accepted(write(
        wire, made, insert(1, [1, 0], values=["insert"], lsn=10), update(1, [2, 0], values=["20"], lsn=20),
        update(1, [3, 0], values=["15"], lsn=15), insert(2, [9, 0], values=["marker"], lsn=30)))
    soon(wire, made, {1: (4.0, "20"), 2: (81.0, "marker")})


def test_insert_and_delete_never_compare_lsns(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["old"], lsn=10)))
    accepted(write(wire, made, delete(1, lsn=3)))
    soon(wire, made, {})
    accepted(write(wire, made, insert(1, [2, 0], values=["again"], lsn=2)))
    soon(wire, made, {1: (4.0, "again")})


def test_the_lsn_rule_survives_a_restart(own_server):
    wire = own_server.wire()
    accepted(wire.create_collection(collection("followed", forward_names=["a"], repository=repository())))
    accepted(write(wire, "followed", insert(1, [1, 0], values=["old"], lsn=10)))
    own_server.restart("kill")
    wire = own_server.wire()
    accepted(write(wire, "followed", update(1, [2, 0], values=["stale"], lsn=10)))
    accepted(write(wire, "followed", insert(2, [3, 0], values=["marker"], lsn=11)))
    soon(wire, "followed", {1: (1.0, "old"), 2: (9.0, "marker")})


def test_effects_are_visible_to_get_within_a_second(wire, made):
    accepted(write(wire, made, insert(5, [1, 0], values=["x"], lsn=1)))
    eventually(lambda: stored(wire, made, 5), 1.0, "the document")
    accepted(write(wire, made, delete(5, lsn=2)))
    eventually(lambda: stored(wire, made, 5) is None, 1.0, "its end")


# ----- latest_lsn_context -----


def test_a_new_repository_collection_has_seen_no_lsn(wire, made):
    seen = info(wire, made)
    assert seen.HasField("latest_lsn_context")
    assert (seen.latest_lsn_context.lsn, seen.latest_lsn_context.context) == (0, "")


SEEN = {
    "one": ([5], 5),
    "in order": ([11, 12, 13], 13),
    "out of order": ([13, 11, 12], 13),
    "a gap": ([11, 12, 14, 15], 12),
    "a gap behind the first": ([1, 10, 11], 1),
    "two gaps": ([1, 2, 4, 6, 7], 2),
    "a gap that is filled": ([11, 12, 14, 13], 14),
    "repeated": ([3, 4, 4, 5], 5),
}


@pytest.mark.parametrize("order", SEEN)
def test_the_latest_lsn_is_the_greatest_below_the_first_gap(wire, made, order):
    lsns, latest = SEEN[order]
    for key, lsn in enumerate(lsns):
        accepted(write(wire, made, insert(key, [key, 0], values=["x"], lsn=lsn, context=f"binlog;{lsn}")))

    def described():
        context = info(wire, made).latest_lsn_context
        return (context.lsn, context.context) == (latest, f"binlog;{latest}")

    eventually(described, 1.0, lambda: f"lsn {latest}, but {info(wire, made).latest_lsn_context}")


def test_updates_count_as_seen(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["x"], lsn=1, context="one")))
    accepted(write(wire, made, update(1, [2, 0], values=["y"], lsn=2, context="two")))
    eventually(lambda: info(wire, made).latest_lsn_context.context == "two", 1.0, "the update's lsn")


def test_a_gap_counts_among_the_last_2000_lsns_only(wire, made):
    def write_lsns(lsns):
        rows = [insert(lsn, [1, 0], values=["x"], lsn=lsn, context=str(lsn)) for lsn in lsns]
        accepted(write(wire, made, *rows))

    write_lsns([1, *range(3, 2002)])
    eventually(lambda: info(wire, made).latest_lsn_context.lsn == 1, 1.0, "the gap at 2 among the last 2000")
    write_lsns([2002])
    eventually(lambda: info(wire, made).latest_lsn_context.lsn == 2002, 1.0, "lsn 1 is no longer among them")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_latest_lsn_survives_a_restart(own_server, how):
    wire = own_server.wire()
    accepted(wire.create_collection(collection("followed", forward_names=["a"], repository=repository())))
    rows = [insert(k, [k, 0], values=["x"], lsn=k, context=f"at {k}") for k in (1, 2, 3, 7)]
    accepted(write(wire, "followed", *rows))
    eventually(lambda: keys(wire.query(knn("followed", [0, 0]))) == [[1, 2, 3, 7]], 1.0, "all rows")
    own_server.restart(how)
    context = info(own_server.wire(), "followed").latest_lsn_context
    assert (context.lsn, context.context) == (3, "at 3")
