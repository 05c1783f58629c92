"""Direct writes: what each row does, what the answer says, and what is left."""

import pytest

from proxima import (
    FP32, KEY_MAX, accepted, by_key, collection, column, delete, forwards, hits, insert, keys, knn, refused,
    refused_because, row, stored, unknown_number, update, value, writing,
)


@pytest.fixture
def made(wire, name):
    """A direct collection with one vector column `v` and one forward column `a`."""
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    return name


def write(wire, made, *rows, **how):
    return wire.write(writing(made, *rows, forward_names=["a"], **how))


def contents(wire, made):
    """key -> (squared distance from the origin, value of `a`), read by an exact query."""
    answer = accepted(wire.query(knn(made, [0, 0], topk=1000, is_linear=True)))
    found = {}
    for document in answer.results[0].documents:
        assert document.primary_key not in found, "a key is found twice"
        found[document.primary_key] = (document.score, forwards(document)["a"][1])
    for key, (_, a) in found.items():
        assert forwards(stored(wire, made, key))["a"][1] == a, "query and get disagree"
    return found


def test_a_row_is_visible_when_the_write_returns(wire, made):
    for key in range(50):
        accepted(write(wire, made, insert(key, [key, 0], values=["x"])))
        assert hits(wire.query(knn(made, [key, 0], topk=1))) == [[(key, 0.0)]]
        assert stored(wire, made, key) is not None


def test_a_batch_is_visible_when_the_write_returns(wire, made):
    accepted(write(wire, made, *(insert(k, [k, 0], values=[str(k)]) for k in range(500))))
    assert contents(wire, made) == {k: (float(k * k), str(k)) for k in range(500)}


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**32, 2**53 + 1, 2**63, KEY_MAX - 1])
def test_primary_keys_are_any_unsigned_64_bit_number(wire, made, key):
    accepted(write(wire, made, insert(key, [1, 0], values=["x"])))
    assert stored(wire, made, key).primary_key == key
    assert keys(wire.query(knn(made, [1, 0]))) == [[key]]
    accepted(write(wire, made, delete(key)))
    assert stored(wire, made, key) is None


def test_the_mark_of_an_invalid_key_is_refused_or_works(wire, made):
    status = write(wire, made, insert(KEY_MAX, [1, 0], values=["x"]))
    if status.code == 0:
        assert stored(wire, made, KEY_MAX) is not None
        assert keys(wire.query(knn(made, [1, 0]))) == [[KEY_MAX]]
    else:
        refused_because(status, -1005)
        assert contents(wire, made) == {}


def test_insert_of_an_existing_key_is_refused_and_keeps_the_old_row(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["old"])))
    refused(write(wire, made, insert(1, [2, 0], values=["new"])), -4001)
    assert contents(wire, made) == {1: (1.0, "old")}


def test_update_of_a_missing_key_is_refused_and_writes_nothing(wire, made):
    refused(write(wire, made, update(1, [1, 0], values=["x"])), -4004)
    assert contents(wire, made) == {}


def test_delete_of_a_missing_key_is_refused(wire, made):
    refused(write(wire, made, delete(1)), -4004)
    accepted(write(wire, made, insert(1, [1, 0], values=["x"])))
    accepted(write(wire, made, delete(1)))
    refused(write(wire, made, delete(1)), -4004)


def test_update_replaces_vector_and_forward_values(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["old"]), insert(2, [5, 0], values=["other"])))
    accepted(write(wire, made, update(1, [3, 0], values=["new"])))
    assert contents(wire, made) == {1: (9.0, "new"), 2: (25.0, "other")}


def test_update_of_only_the_vector_or_only_the_forward_value(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["same"])))
    accepted(write(wire, made, update(1, [2, 0], values=["same"])))
    assert contents(wire, made) == {1: (4.0, "same")}
    accepted(write(wire, made, update(1, [2, 0], values=["other"])))
    assert contents(wire, made) == {1: (4.0, "other")}


def test_a_deleted_key_can_be_inserted_again(wire, made):
    for round_number in range(5):
        accepted(write(wire, made, insert(1, [round_number, 0], values=[str(round_number)])))
        assert contents(wire, made) == {1: (float(round_number**2), str(round_number))}
        accepted(write(wire, made, delete(1)))
        assert contents(wire, made) == {}


def test_rows_of_a_batch_run_in_order(wire, made):
    rows = []
    for key in range(1, 6):
        steps = [insert, update, None, insert, update, None, insert, update, update]
        for number, step in enumerate(steps):
            rows.append(delete(key) if step is None else step(key, [key, number], values=[str(number)]))
    accepted(write(wire, made, *rows))
    assert contents(wire, made) == {key: (float(key**2 + 64), "8") for key in range(1, 6)}


def test_duplicates_inside_a_batch_keep_the_first(wire, made):
    refused(write(wire, made, *(insert(1, [n, 0], values=[str(n)]) for n in range(1, 6))), -4001)
    assert contents(wire, made) == {1: (1.0, "1")}


BATCHES = {
    "one failure, then successes": (["insert 1", "insert 2", "insert 3"], -4001, {1, 2, 3}),
    "successes, then a failure": (["insert 2", "delete 9"], -4004, {1, 2}),
    "two failures: duplicate last": (["delete 9", "insert 1"], -4001, {1}),
    "two failures: missing last": (["insert 1", "update 9"], -4004, {1}),
    "failures around successes": (["insert 1", "insert 2", "delete 9", "insert 3"], -4004, {1, 2, 3}),
    "a delete after a failed insert": (["insert 1", "delete 1"], -4001, set()),
}


@pytest.mark.parametrize("batch", BATCHES)
def test_the_answer_is_that_of_the_last_failing_row_and_the_others_stay(wire, made, batch):
    steps, code, left = BATCHES[batch]
    accepted(write(wire, made, insert(1, [1, 0], values=["first"])))
    make = {
        "insert": lambda k: insert(k, [k, 0], values=["new"]),
        "update": lambda k: update(k, [k, 0], values=["new"]),
        "delete": delete,
    }
    rows = [make[step.split()[0]](int(step.split()[1])) for step in steps]
    refused(write(wire, made, *rows), code)
    assert set(contents(wire, made)) == left


def test_delete_needs_no_row_meta(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["x"]), insert(2, [2, 0], values=["y"])))
    request = writing(made, delete(1), metas=[])
    request.ClearField("row_meta")
    accepted(wire.write(request))
    assert set(contents(wire, made)) == {2}


def test_values_given_with_a_delete_are_ignored(wire, made):
    accepted(write(wire, made, *(insert(k, [k, 0], values=["x"]) for k in range(1, 5))))
    accepted(write(wire, made, row(2, 1, [9, 9], values=["given"])))
    accepted(write(wire, made, row(2, 2, "not a vector", b"odd", values=["too", "many"])))
    accepted(write(wire, made, row(2, 3, value(True))))
    assert set(contents(wire, made)) == {4}


def test_an_unknown_operation_acts_as_delete(wire, handler, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["x"])))
    if handler == "http":
        refused(write(wire, made, row(7, 1)), unknown_number(handler, 0))
        assert set(contents(wire, made)) == {1}
        return
    accepted(write(wire, made, row(7, 1)))
    assert contents(wire, made) == {}


def test_direct_writes_ignore_magic_numbers_and_lsns(wire, made):
    accepted(write(wire, made, insert(1, [1, 0], values=["a"], lsn=10, context="c"), magic=12345))
    accepted(write(wire, made, update(1, [2, 0], values=["b"], lsn=3), magic=54321))
    assert contents(wire, made) == {1: (4.0, "b")}


def test_a_request_id_changes_nothing(wire, made):
    request = writing(made, insert(1, [1, 0], values=["x"]), forward_names=["a"])
    request.request_id = "request-1"
    accepted(wire.write(request))
    refused(wire.write(request), -4001)


# ----- subsets and order of columns -----


@pytest.fixture
def wide(wire, name):
    """Three vector columns x, y, z of 2, 3, 4 dimensions and three forward columns a, b, c."""
    columns = [column("x", 2), column("y", 3), column("z", 4)]
    accepted(wire.create_collection(collection(name, *columns, forward_names=["a", "b", "c"])))
    return name


WIDE = {"x": ("x", FP32, 2), "y": ("y", FP32, 3), "z": ("z", FP32, 4)}


@pytest.mark.parametrize("order", ["xyz", "zyx", "yzx"])
@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_values_follow_row_meta_and_results_follow_the_schema(wire, wide, order, names):
    vectors = {"x": [1, 2], "y": [3, 4, 5], "z": [6, 7, 8, 9]}
    values = {"a": "alpha", "b": "beta", "c": "gamma"}
    request = writing(
        wide, insert(1, *(vectors[c] for c in order), values=[values[n] for n in names]),
        metas=[WIDE[c] for c in order], forward_names=list(names))
    accepted(wire.write(request))
    expected = [(n, ("string_value", v)) for n, v in values.items()]
    assert list(forwards(stored(wire, wide, 1)).items()) == expected
    for c, vector in vectors.items():
        answer = wire.query(knn(wide, vector, column_name=c, dimension=len(vector)))
        assert hits(answer) == [[(1, 0.0)]]
        assert list(forwards(answer.results[0].documents[0]).items()) == expected


def found_through(wire, wide):
    vectors = {"x": [0] * 2, "y": [0] * 3, "z": [0] * 4}
    return {c: keys(wire.query(knn(wide, v, column_name=c, dimension=len(v))))[0] for c, v in vectors.items()}


def test_a_row_is_found_only_through_the_index_columns_it_has(wire, wide):
    accepted(wire.write(writing(wide, insert(1, [1, 1]), metas=[WIDE["x"]])))
    accepted(wire.write(writing(wide, insert(2, [1] * 4, [1] * 3), metas=[WIDE["z"], WIDE["y"]])))
    assert found_through(wire, wide) == {"x": [1], "y": [2], "z": [2]}
    assert stored(wire, wide, 1) is not None and stored(wire, wide, 2) is not None


def test_forward_columns_left_out_come_back_by_name_without_a_value(wire, wide):
    accepted(wire.write(writing(wide, insert(1, [1, 1], values=["beta"]), metas=[WIDE["x"]], forward_names=["b"])))
    expected = [("a", None), ("b", ("string_value", "beta")), ("c", None)]
    assert list(forwards(stored(wire, wide, 1)).items()) == expected
    answer = accepted(wire.query(knn(wide, [1, 1], column_name="x")))
    assert list(forwards(answer.results[0].documents[0]).items()) == expected


def test_update_forgets_the_columns_it_does_not_name(wire, wide):
    accepted(wire.write(writing(
        wide, insert(1, [1] * 2, [1] * 3, [1] * 4, values=["a", "b", "c"]), metas=WIDE.values(),
        forward_names=["a", "b", "c"])))
    assert found_through(wire, wide) == {"x": [1], "y": [1], "z": [1]}
    accepted(wire.write(writing(wide, update(1, [2] * 3, values=["B"]), metas=[WIDE["y"]], forward_names=["b"])))
    assert found_through(wire, wide) == {"x": [], "y": [1], "z": []}
    assert forwards(stored(wire, wide, 1)) == {"a": None, "b": ("string_value", "B"), "c": None}


# ----- get_document_by_key -----


def test_get_returns_the_document_with_score_zero(wire, made):
    accepted(write(wire, made, insert(7, [3, 4], values=["here"])))
    answer = accepted(wire.get_document_by_key(by_key(made, 7)))
    assert (answer.document.primary_key, answer.document.score) == (7, 0.0)
    assert forwards(answer.document) == {"a": ("string_value", "here")}


def test_get_of_a_missing_key_succeeds_without_a_document(wire, made):
    answer = accepted(wire.get_document_by_key(by_key(made, 7)))
    assert not answer.HasField("document")


def test_get_in_a_missing_collection_says_so(wire):
    answer = wire.get_document_by_key(by_key("no such collection", 7))
    refused(answer, -4002)
    assert not answer.HasField("document")
