"""Rows over the JSON API: written in every form, read back as they are stored."""

import base64
import http.client
import json
import signal
import struct

import numpy as np
import pytest

from json_api import Api, VECTORS
from proxima import (
    INT4, INT8, INT16, BINARY32, FP16, accepted, collection, forwards, hits, knn, named, pack, repository, stored,
)
from server import eventually

BIG = 2**53 + 1


def write(api, at, rows, operation="insert"):
    return api.ok("POST", f"{at}/rows", {"operation": operation, "rows": rows})


def test_a_row_is_read_as_it_was_written(api, made):
    assert write(api, made, [{"key": 7, "vectors": {"v": [0.5, -1]}, "values": {"path": "a.jpg", "any": 5}}]) == {
        "rows_applied": 1, "failures": []}
    row = {"key": 7, "values": {"path": "a.jpg", "any": 5}}
    assert api.ok("GET", f"{made}/rows/7") == row
    assert api.ok("GET", f"{made}/rows/7?vectors=v") == {**row, "vectors": {"v": [0.5, -1.0]}}
    assert api.ok("GET", f"{made}/rows/7?vectors=*&forwards=any") == {
        "key": 7, "values": {"any": 5}, "vectors": {"v": [0.5, -1.0]}}
    assert api.ok("GET", f"{made}/rows/7?forwards=") == {"key": 7, "values": {}}
    api.refused(404, "NOT_FOUND", "GET", f"{made}/rows/8", None, "8")


VALUES = [
    None, True, False, "", "text \u56fe\0", 0, -5, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 0.5, -1e308, 1.0,
    {"bytes": "AP8="}, {"float": "NaN"}, {"double": "Infinity"}, {"double": "-Infinity"}]


def test_values_come_back_as_they_went(api, made):
    write(api, made, [{"key": k, "vectors": {"v": [k, 0]}, "values": {"any": v}} for k, v in enumerate(VALUES)])
    for k, v in enumerate(VALUES):
        back = api.ok("GET", f"{made}/rows/{k}")["values"]["any"]
        assert (back, type(back)) == (v, type(v))


NAMED = [({"int32": -5}, "int32_value", -5), ({"uint32": 7}, "uint32_value", 7), ({"float": 0.25}, "float_value", 0.25),
         ({"int64": 5}, "int64_value", 5), ({"uint64": 5}, "uint64_value", 5), ({"bool": True}, "bool_value", True),
         ({"string": "x"}, "string_value", "x"), (5, "int64_value", 5), (2**63, "uint64_value", 2**63),
         (0.5, "double_value", 0.5), ({"bytes": "AAE="}, "bytes_value", b"\0\1")]


def test_the_kind_of_a_value_is_what_it_looks_like_or_what_is_named(api, wire, made, name):
    write(api, made, [{"key": k, "vectors": {"v": [k, 0]}, "values": {"any": v}} for k, (v, *_) in enumerate(NAMED)])
    for k, (_, kind, v) in enumerate(NAMED):
        assert forwards(stored(wire, name, k))["any"] == (kind, v)


def test_values_that_are_none_are_refused_by_row(api, made):
    for value in ([1], {}, {"int32": 1.5}, {"int32": 1, "bool": True}, {"colour": 1}, {"bytes": "A"}):
        rows = [{"key": 0, "vectors": {"v": [1, 0]}}, {"key": 1, "vectors": {"v": [1, 0]}, "values": {"any": value}}]
        api.refused(400, "INVALID_ARGUMENT", "POST", f"{made}/rows", {"operation": "insert", "rows": rows}, "row 1")
    api.refused(404, "NOT_FOUND", "GET", f"{made}/rows/0")
    rows = [{"key": 0, "vectors": {"v": [1, 0]}, "values": {"path": 5}}]
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{made}/rows", {"operation": "insert", "rows": rows}, "path")


ELEMENTS = {
    "FP32": (4, [0.1, -2.5, 0, 3e38], lambda v: struct.pack("<4f", *v)),
    "FP16": (4, [0.5, -2.0, 0, 65504], lambda v: pack(FP16, v)),
    "INT8": (4, [-128, 127, 0, 1], lambda v: pack(INT8, v)),
    "INT16": (2, [-32768, 32767], lambda v: pack(INT16, v)),
    "INT4": (4, [-8, 7, 0, -1], lambda v: pack(INT4, v)),
    "BINARY32": (64, [2**32 - 1, 1], lambda v: pack(BINARY32, v)),
    "BINARY64": (64, [2**64 - 1], lambda v: struct.pack("<Q", *v)),
}


@pytest.mark.parametrize("element", ELEMENTS)
def test_vectors_of_every_type_go_in_as_numbers_and_as_base64(api, at, element):
    dimension, numbers, packed = ELEMENTS[element]
    api.ok("PUT", at, {"vectors": [{"name": "v", "element": element, "dimension": dimension}]}, status=201)
    text = base64.b64encode(packed(numbers)).decode()
    write(api, at, [{"key": 1, "vectors": {"v": numbers}}, {"key": 2, "vectors": {"v": text}}])
    found = api.ok("POST", f"{at}/get", {"keys": [1, 2], "vectors": ["v"]})["rows"]
    for row in found:
        back = row["vectors"]["v"]
        assert back == pytest.approx(numbers, rel=1e-6)
        assert packed(back) == packed(numbers)
    for query in (numbers, text):
        result = api.ok("POST", f"{at}/query", {"vector": query, "topk": 2, "params": {"exact": True}})
        assert [(hit["key"], hit["score"]) for hit in result["results"][0]] == [(1, 0.0), (2, 0.0)]


WRONG_VECTORS = {
    "short": ([1], "1 numbers where 2 belong"), "long": ([1, 2, 3], "3 numbers"), "empty": ([], "0 numbers"),
    "text in it": ([1, "2"], "not a number"), "nested": ([[1, 2], [3, 4]], "v"), "a number": (5, "array"),
    "bytes too many": ("AAAAAAAAAAAAAAAA", "12 bytes"), "no base64": ("*", "base64"), "too large": ([1e39, 0], "inf"),
}


@pytest.mark.parametrize("wrong", WRONG_VECTORS)
def test_vectors_that_do_not_fit_are_refused_with_row_and_column(api, made, wrong):
    vector, words = WRONG_VECTORS[wrong]
    rows = [{"key": 1, "vectors": {"v": [1, 2]}}, {"key": 2, "vectors": {"v": vector}}]
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{made}/rows", {"operation": "insert", "rows": rows}, "v", words)
    assert api.ok("POST", f"{made}/count")["rows"] == 0


def test_rows_may_have_vectors_in_some_columns_only(api, at):
    columns = [{"name": n, "element": "FP32", "dimension": 1} for n in ("a", "b")]
    api.ok("PUT", at, {"vectors": columns}, status=201)
    write(api, at, [{"key": 1, "vectors": {"a": [1]}}, {"key": 2, "vectors": {"b": [2]}},
                    {"key": 3, "vectors": {"a": [3], "b": None}}, {"key": 4, "vectors": {"a": [4], "b": [4]}}])
    rows = api.ok("POST", f"{at}/get", {"keys": [1, 2, 3, 4], "vectors": ["*"]})["rows"]
    assert [row["vectors"] for row in rows] == [
        {"a": [1.0], "b": None}, {"a": None, "b": [2.0]}, {"a": [3.0], "b": None}, {"a": [4.0], "b": [4.0]}]
    found = api.ok("POST", f"{at}/query", {"column": "b", "vector": [0], "topk": 9})["results"][0]
    assert [hit["key"] for hit in found] == [2, 4]


def test_columns_with_several_vectors_take_and_give_lists(api, at):
    columns = [{"name": "m", "element": "FP32", "dimension": 2, "params": {"multi": "true"}}]
    api.ok("PUT", at, {"vectors": columns}, status=201)
    write(api, at, [{"key": 1, "vectors": {"m": [[0, 0], [9, 9]]}}, {"key": 2, "vectors": {"m": [[5, 5]]}},
                    {"key": 3, "vectors": {"m": [4, 4]}}])
    rows = api.ok("POST", f"{at}/get", {"keys": [1, 2, 3], "vectors": ["m"]})["rows"]
    assert [row["vectors"]["m"] for row in rows] == [[[0, 0], [9, 9]], [[5, 5]], [[4, 4]]]
    query = {"vectors": [[0, 0], [9, 9], [5, 5]], "topk": 2, "aggregation": {"kind": "votes", "k_per_vector": 1}}
    (found,) = api.ok("POST", f"{at}/query", query)["results"]
    assert [(hit["key"], hit["votes"]) for hit in found] == [(1, 2), (2, 1)]
    assert found[0]["confidence"] == pytest.approx(200 / 3, rel=1e-5)


def test_each_row_may_say_what_is_done_with_it(api, filled):
    rows = [
        {"key": 1, "operation": "update", "vectors": {"v": [100, 0]}, "values": {"path": "new.jpg"}},
        {"key": 2, "operation": "delete"}, {"key": 3, "operation": "delete", "vectors": {"nonsense": "ignored"}},
        {"key": 50, "vectors": {"v": [50, 0]}}, {"key": 4, "vectors": {"v": [40, 0]}}]
    assert write(api, filled, rows, "upsert") == {"rows_applied": 5, "failures": []}
    assert api.ok("GET", f"{filled}/rows/1")["values"] == {"path": "new.jpg", "any": None}
    api.refused(404, "NOT_FOUND", "GET", f"{filled}/rows/2")
    rows = api.ok("POST", f"{filled}/scroll", {"limit": 100, "vectors": ["v"]})["rows"]
    assert [(row["key"], row["vectors"]["v"][0]) for row in rows] == [
        (0, 0), (1, 100), (4, 40), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (50, 50)]


def test_rows_that_fail_leave_the_others_standing(api, filled):
    rows = [{"key": 5, "operation": "insert", "vectors": {"v": [0, 0]}}, {"key": 77, "operation": "delete"},
            {"key": 60, "operation": "insert", "vectors": {"v": [60, 0]}},
            {"key": 78, "operation": "update", "vectors": {"v": [0, 0]}}]
    written = api.ok("POST", f"{filled}/rows", {"rows": rows})
    assert written["rows_applied"] == 1
    assert [(f["row"], f["key"], f["code"]) for f in written["failures"]] == [
        (0, 5, "DUPLICATE_KEY"), (1, 77, "KEY_NOT_FOUND"), (3, 78, "KEY_NOT_FOUND")]
    assert written["failures"][0]["message"] == "the key exists already"


def test_a_batch_that_makes_no_sense_is_refused_whole(api, filled):
    def refused(body, *words, status=400, code="INVALID_ARGUMENT"):
        api.refused(status, code, "POST", f"{filled}/rows", body, *words)

    good = {"key": 99, "vectors": {"v": [1, 1]}}
    refused({"rows": [good]}, "operation")
    refused({"operation": "remove", "rows": [good]}, "remove", "upsert")
    refused({"operation": "insert", "rows": []}, "no rows")
    refused({"operation": "insert", "rows": [good, {"vectors": {"v": [1, 1]}}]}, "row 1", "key")
    refused({"operation": "insert", "rows": [good, {"key": 2**64 - 1, "vectors": {"v": [1, 1]}}]})
    refused({"operation": "insert", "rows": [good, {"key": -1}]}, "row 1", "-1")
    refused({"operation": "insert", "rows": [good, {**good, "vector": [1]}]}, "row 1", "vector")
    refused({"operation": "insert", "rows": [good, 5]}, "row 1")
    refused({"operation": "insert", "rows": [good], "more": 1}, "more")
    refused({"operation": "insert", "rows": [{"key": 99}]})
    refused({"operation": "insert", "rows": [{**good, "vectors": {"w": [1]}}]}, "w", status=404, code="NOT_FOUND")
    refused({"operation": "insert", "rows": [{**good, "values": {"b": 1}}]}, "b", status=404, code="NOT_FOUND")
    api.refused(404, "NOT_FOUND", "POST", f"{filled}x/rows", {"operation": "insert", "rows": [good]})
    assert api.ok("POST", f"{filled}/count")["rows"] == 10


def test_keys_are_numbers_or_digits_and_are_given_as_asked(api, made):
    keys = [0, BIG, 2**64 - 2]
    write(api, made, [{"key": str(k) if k else k, "vectors": {"v": [1, 0]}} for k in keys])
    assert [row["key"] for row in api.ok("POST", f"{made}/get", {"keys": keys})["rows"]] == keys
    as_text = api.ok("POST", f"{made}/get?keys=text", {"keys": [str(k) for k in keys]})["rows"]
    assert [row["key"] for row in as_text] == [str(k) for k in keys]
    assert api.ok("GET", f"{made}/rows/{BIG}?keys=text")["key"] == str(BIG)
    assert [row["key"] for row in api.ok("POST", f"{made}/scroll?keys=text", {"limit": 9})["rows"]] == list(map(str, keys))
    hit = api.ok("POST", f"{made}/query?keys=text", {"vector": [1, 0], "topk": 1})["results"][0][0]
    assert hit["key"] == "0"
    failed = api.ok("POST", f"{made}/rows?keys=text", {"operation": "insert", "rows": [
        {"key": BIG, "vectors": {"v": [1, 0]}}]})["failures"]
    assert failed[0]["key"] == str(BIG)
    api.refused(400, "INVALID_ARGUMENT", "GET", f"{made}/rows/0?keys=hex", None, "hex", "number or text")
    for wrong in ("x", "-1", "1.5", "18446744073709551616"):
        api.refused(400, "INVALID_ARGUMENT", "GET", f"{made}/rows/{wrong}", None, wrong)


def test_a_row_is_deleted_by_its_key(api, filled):
    api.ok("DELETE", f"{filled}/rows/4", status=204)
    api.refused(404, "NOT_FOUND", "DELETE", f"{filled}/rows/4", None, "4")
    assert api.ok("POST", f"{filled}/count")["rows"] == 9


def test_versions_guard_rows_against_lost_updates(api, at):
    api.ok("PUT", at, {"vectors": VECTORS, "versions": True}, status=201)
    write(api, at, [{"key": 1, "vectors": {"v": [1, 0]}}])
    version = api.ok("GET", f"{at}/rows/1")["values"]["_version"]
    row = {"key": 1, "vectors": {"v": [2, 0]}, "if_version": version}
    assert write(api, at, [row], "update")["failures"] == []
    (failure,) = write(api, at, [row], "update")["failures"]
    assert failure["code"] == "OTHER_VERSION"
    api.refused(409, "FAILED_PRECONDITION", "DELETE", f"{at}/rows/1?if_version={version}", None, "version")
    newer = api.ok("GET", f"{at}/rows/1")["values"]["_version"]
    api.ok("DELETE", f"{at}/rows/1?if_version={newer}", status=204)


def test_rows_of_keys_come_in_the_order_asked_for(api, filled):
    rows = api.ok("POST", f"{filled}/get", {"keys": [5, 99, 1, 5], "forwards": ["any"]})["rows"]
    assert rows == [{"key": 5, "values": {"any": 5}}, {"key": 1, "values": {"any": 1}}, {"key": 5, "values": {"any": 5}}]
    api.refused(404, "NOT_FOUND", "POST", f"{filled}/get", {"keys": [1], "forwards": ["b"]}, "b")
    api.refused(404, "NOT_FOUND", "POST", f"{filled}/get", {"keys": [1], "vectors": ["w"]}, "w")


def test_scrolling_reads_everything_once_in_key_order_of_one_moment(api, filled):
    pages, cursor = [], None
    while True:
        page = api.ok("POST", f"{filled}/scroll", {"limit": 3, "forwards": ["any"], "cursor": cursor})
        pages.append([row["key"] for row in page["rows"]])
        if len(pages) == 1:
            api.ok("DELETE", f"{filled}/rows/9", status=204)
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sum(pages, []) == list(range(10))
    assert all(len(page) <= 3 for page in pages)
    some = api.ok("POST", f"{filled}/scroll", {"limit": 100, "filter": "any >= {least}", "filter_params": {"least": 7}})
    assert [row["key"] for row in some["rows"]] == [7, 8]
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/scroll", {"limit": 0}, "limit")
    status, answer = api("POST", f"{filled}/scroll", {"limit": 3, "cursor": "no cursor"})
    assert status in (400, 409), answer


def read(server, at, body=None):
    """The lines of a stream of rows."""
    text = None if body is None else json.dumps(body)
    headers = {} if body is None else {"content-type": "application/json"}
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    connection.request("POST", f"/api/v1{at}", text, headers)
    answer = connection.getresponse()
    lines = answer.read().splitlines()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson"), lines
    connection.close()
    return [json.loads(line) for line in lines]


def test_all_rows_are_read_as_a_stream(server, api, filled):
    rows = read(server, f"{filled}/read")
    assert rows == api.ok("POST", f"{filled}/scroll", {"limit": 100})["rows"]
    assert [row["key"] for row in rows] == list(range(10))
    some = read(server, f"{filled}/read?keys=text", {
        "filter": "any >= {least}", "filter_params": {"least": 3}, "after": "6", "forwards": ["any"], "vectors": ["v"]})
    assert some == [{"key": str(k), "values": {"any": k}, "vectors": {"v": [k, 0]}} for k in (7, 8, 9)]
    assert read(server, f"{filled}/read", {"after": 9}) == []
    api.refused(404, "NOT_FOUND", "POST", f"{filled}x/read", {}, "x")
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/read", {"filter": "any <"})
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/read", {"limit": 5}, "limit")


def test_a_stream_is_of_the_moment_of_its_beginning_and_longer_than_a_message(server, api, at):
    columns = [{"name": "v", "element": "FP32", "dimension": 512}]
    api.ok("PUT", at, {"vectors": columns}, status=201)
    vectors = np.random.default_rng(2).uniform(-1, 1, (3000, 512)).astype(np.float32)
    for begin in range(0, 3000, 1000):
        write(api, at, [{"key": k, "vectors": {"v": base64.b64encode(vectors[k].tobytes()).decode()}}
                        for k in range(begin, begin + 1000)])
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    connection.request("POST", f"/api/v1{at}/read", '{"vectors": ["v"]}', {"content-type": "application/json"})
    answer = connection.getresponse()
    first = answer.readline()
    assert api.ok("POST", f"{at}/delete", {"filter": "_key >= 0"}) == {"rows_deleted": 3000}
    rows = [json.loads(line) for line in [first, *answer.read().splitlines()]]
    connection.close()
    assert [row["key"] for row in rows] == list(range(3000))
    assert np.array_equal(np.float32([row["vectors"]["v"] for row in rows]), vectors)


def test_a_stream_that_cannot_go_on_says_why(start_server):
    own = start_server(settings={"server.stop_timeout_ms": 60_000})
    api = Api(own)
    api.ok("PUT", "/collections/c", {"vectors": [{"name": "v", "element": "FP32", "dimension": 1024}]}, status=201)
    for begin in range(0, 8000, 1000):
        write(api, "/collections/c", [{"key": k, "vectors": {"v": base64.b64encode(bytes(4096)).decode()}}
                                      for k in range(begin, begin + 1000)])
    connection = http.client.HTTPConnection(own.host, own.http_port, timeout=60)
    connection.request("POST", "/api/v1/collections/c/read", '{"vectors": ["v"]}', {"content-type": "application/json"})
    answer = connection.getresponse()
    lines = [answer.readline()]
    own.signal(signal.SIGTERM)

    def is_stopping():
        try:
            return api("GET", "/collections")[0] == 503
        except (http.client.HTTPException, OSError):
            return True

    eventually(is_stopping, 30, "new calls are refused")
    lines += answer.read().splitlines()
    assert all("key" in json.loads(line) for line in lines[:-1]) and len(lines) < 8001
    last = json.loads(lines[-1])
    assert last["error"]["code"] == "UNAVAILABLE"
    api.close()
    assert own.end() == 0


def test_whole_numbers_beyond_2_53_are_text_on_request(api, made):
    values = {1: 2**53 - 1, 2: 2**53 + 1, 3: -(2**63), 4: 2**64 - 1}
    as_text = {1: 2**53 - 1, 2: {"int64": str(2**53 + 1)}, 3: {"int64": str(-(2**63))}, 4: {"uint64": str(2**64 - 1)}}
    write(api, made, [{"key": k, "vectors": {"v": [k, 0]}, "values": {"any": v}} for k, v in as_text.items()])
    for query, expected in (("", values), ("?keys=text", as_text)):
        rows = api.ok("POST", f"{made}/get{query}", {"keys": list(values)})["rows"]
        assert {int(row["key"]): row["values"]["any"] for row in rows} == expected
    [hits] = api.ok("POST", f"{made}/query?keys=text", {"vector": [2, 0], "topk": 1})["results"]
    assert hits[0]["values"]["any"] == as_text[2]


def test_a_name_that_is_there_twice_is_refused(api, filled):
    for path, body, name in (
            ("rows", '{"operation":"upsert","operation":"insert","rows":[]}', "operation"),
            ("rows", '{"operation":"upsert","rows":[{"key":1,"key":2}]}', "key"),
            ("rows", '{"operation":"upsert","rows":[{"key":1,"vectors":{"v":[1,2],"v":[3,4]}}]}', "v"),
            ("rows", '{"operation":"upsert","rows":[{"key":1,"values":{"any":1,"any":1}}]}', "any"),
            ("count", '{"filter":"any == {p}","filter_params":{"p":1,"p":2}}', "p"),
            ("query", '{"vector":[1,0],"topk":1,"topk":2}', "topk")):
        api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/{path}", body, name,
                    headers={"content-type": "application/json"})


def test_a_list_of_values_is_no_object(api, filled):
    fresh = f"{filled}-2"
    column, query = [VECTORS[0]["name"], "FP32", 2], {"vector": [1, 0], "topk": 1}
    for method, path, body, name in (
            ("POST", f"{filled}/query", {**query, "params": [9]}, "params"),
            ("POST", f"{filled}/query", {**query, "group": ["any", 1]}, "group"),
            ("POST", f"{filled}/query", {**query, "aggregation": ["votes", 1, 1]}, "aggregation"),
            ("POST", f"{filled}/rows", {"operation": "upsert", "rows": [{"key": 1, "lsn": [1, ""]}]}, "lsn"),
            ("PATCH", filled, {"add_forwards": [["size", "int64"]]}, "add_forwards"),
            ("POST", "/aliases", {"changes": [["newest", "photos"]]}, "changes"),
            ("PUT", fresh, {"vectors": [column]}, "vectors"),
            ("PUT", fresh, {"vectors": VECTORS, "forwards": [["size", "int64"]]}, "forwards"),
            ("PUT", fresh, {"vectors": VECTORS, "ttl": ["", 60_000]}, "ttl")):
        api.refused(400, "INVALID_ARGUMENT", method, path, body, name, "expected an object")
    api.refused(404, "NOT_FOUND", "GET", fresh)


def test_rows_that_name_few_columns_do_not_take_the_room_of_all(start_server):
    own = start_server(settings={"limits.message_bytes_max": 1 << 20})
    api = Api(own)
    names = [f"f{n}" for n in range(500)]
    api.ok("PUT", "/collections/wide", {"vectors": VECTORS, "forwards": [{"name": n} for n in names]}, status=201)
    rows = [{"key": key} for key in range(20_000)] + [{"key": 20_000, "values": dict.fromkeys(names, 1)}]
    # A thousand bytes for each row, in a body of sixteen for each.
    api.refused(413, "OUT_OF_RANGE", "POST", "/collections/wide/rows", {"operation": "upsert", "rows": rows},
                "limits.message_bytes_max")
    few = [{"key": key, "vectors": {"v": [key, 0]}} for key in range(1_000)]
    few[-1]["values"] = dict.fromkeys(names, 1)
    assert api.ok("POST", "/collections/wide/rows", {"operation": "upsert", "rows": few})["rows_applied"] == 1_000
    assert api.ok("GET", "/collections/wide/rows/999?forwards=f0,f499")["values"] == {"f0": 1, "f499": 1}
    assert api.ok("GET", "/collections/wide/rows/998?forwards=f0,f499")["values"] == {"f0": None, "f499": None}
    api.close()


def test_rows_of_a_repository_have_their_place_in_its_stream(api, wire, at, name):
    accepted(wire.create_collection(collection(name, repository=repository())))
    number = wire.describe_collection(named(name)).collection.magic_number
    row = {"key": 1, "vectors": {"v": [1, 2]}, "lsn": {"lsn": 5, "context": "five"}}
    batch = {"operation": "insert", "rows": [row], "magic_number": str(number)}
    assert api.ok("POST", f"{at}/rows", batch)["rows_applied"] == 1
    told = wire.describe_collection(named(name)).collection.latest_lsn_context
    assert (told.lsn, told.context) == (5, "five")
    older = {**row, "lsn": {"lsn": "4"}}
    [failure] = api.ok("POST", f"{at}/rows", {"operation": "update", "rows": [older], "magic_number": number})["failures"]
    assert failure["code"] == "STALE_LSN"
    api.refused(409, "FAILED_PRECONDITION", "POST", f"{at}/rows", {**batch, "magic_number": number + 1}, "magic")
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{at}/rows", {
        "operation": "insert", "rows": [row, {"key": 2, "vectors": {"v": [1, 2]}}], "magic_number": number}, "1 lsns for 2")


def test_filters_count_and_delete_with_values_apart_from_the_text(api, filled):
    def count(text, **params):
        return api.ok("POST", f"{filled}/count", {"filter": text, "filter_params": params})["rows"]

    assert count("any < 3") == 3
    assert count("path like '%.jpg' and any in {some}", some=[1, 2, 99]) == 2
    assert count("path == {name}", name="4.jpg") == 1
    assert count("") == 10
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/count", {"filter": "any <"})
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/count", {"filter": "any < {a}"}, "a")
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/count", {"filter": "any < {a}", "filter_params": {"a": None}})
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/delete", {}, "filter")
    assert api.ok("POST", f"{filled}/delete", {"filter": "any >= 5"}) == {"rows_deleted": 5}
    assert count("any >= 0") == 5


def test_rows_of_both_contracts_are_the_same_ones(api, wire, filled, name):
    assert hits(wire.query(knn(name, [3, 0], topk=1))) == [[(3, 0.0)]]
    assert forwards(stored(wire, name, 3)) == {"path": ("string_value", "3.jpg"), "any": ("int64_value", 3)}


def test_a_batch_above_the_limits_is_refused_and_named(start_server):
    own = start_server(settings={"limits.write_rows_max": 5, "limits.message_bytes_max": 65536})
    api = Api(own)
    api.ok("PUT", "/collections/c", {"vectors": VECTORS}, status=201)
    rows = [{"key": k, "vectors": {"v": [k, 0]}} for k in range(6)]
    body = {"operation": "insert", "rows": rows}
    api.refused(413, "OUT_OF_RANGE", "POST", "/collections/c/rows", body, "limits.write_rows_max", 5)
    api.ok("POST", "/collections/c/rows", {**body, "rows": rows[:5]})
    api.refused(413, "OUT_OF_RANGE", "POST", "/collections/c/rows", " " * 70_000, "limits.message_bytes_max", 65536)
    assert api.ok("POST", "/collections/c/count")["rows"] == 5
    api.close()
