"""The REST API byte by byte: routes, methods, the forms of JSON taken and given, bodies that are none.

What the calls themselves do is in the other files, which speak over HTTP as well.
"""

import base64
import http.client
import json
import math
import signal
import socket
import struct

import pytest

from proxima import FP32, KEY_MAX, REASONS, accepted, collection, column, insert, knn, named, stored, writing
from server import eventually

pytestmark = pytest.mark.handlers("http")

MALFORMED = {"code": -1005, "reason": "Invalid Arugment"}
ANSWERED = {"code": 0, "reason": "Success"}
MISSING = {"code": -4002, "reason": "Collection Not Exist"}


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, response):
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json", self.headers
        return json.loads(self.text)


class Caller:
    """One connection, kept alive, that sends exactly what it is told."""

    def __init__(self, server):
        self._connection = http.client.HTTPConnection(server.host, server.http_port, timeout=30)

    def __call__(self, method, path, body=None, headers=()):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        self._connection.request(method, path, body, dict(headers))
        return Answer(self._connection.getresponse())

    @property
    def socket(self):
        return self._connection.sock

    def close(self):
        self._connection.close()


@pytest.fixture
def call(server):
    caller = Caller(server)
    yield caller
    caller.close()


@pytest.fixture
def made(wire, name):
    """A collection with an index column `v` and forward columns `a`, `b`; row 1 has `a` only."""
    accepted(wire.create_collection(collection(name, forward_names=["a", "b"])))
    accepted(wire.write(writing(name, insert(1, [3, 4], values=["x"]), forward_names=["a"])))
    return name


def vector(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def status_in(answer):
    """The status of an answer, which is a status itself for some routes."""
    assert answer.status == 200, answer.text
    return answer.json.get("status", answer.json)


# ----- routes and methods -----


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_the_version_is_told_by_any_method(call, method):
    answer = call(method, "/service_version")
    assert (answer.status, answer.text) == (200, '{"status":{"code":0,"reason":"Success"},"version":"0.2.0"}')


WRONG = {"code": -2010, "reason": "Invalid Query: invalid http method"}
ROUTES = {
    "/v1/collections": ("GET", {"status": WRONG, "collections": []}),
    "/v1/collection/x/stats": ("GET", {"status": WRONG}),
    "/v1/collection/x/index": ("POST", WRONG),
    "/v1/collection/x/query": ("POST", {"status": WRONG, "debug_info": "", "latency_us": "0", "results": []}),
    "/v1/collection/x/doc": ("GET", {"status": WRONG, "debug_info": ""}),
}


@pytest.mark.parametrize("path", ROUTES)
def test_a_wrong_method_is_answered_in_the_routes_own_type(call, path):
    allowed, body = ROUTES[path]
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {allowed}:
        answer = call(method, path, body="{}")
        assert (answer.status, answer.json) == (405, body), method
        assert answer.headers["allowed"] == allowed


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_wrong_method_on_a_collection_is_answered_with_a_bare_status(call, method):
    answer = call(method, "/v1/collection/x")
    assert (answer.status, answer.json) == (405, {"code": -2010, "reason": ": invalid http method"})
    assert "allowed" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/collection", "/v1/collections/", "/v1/collection/a/b", "/v1/collection/a/stats/b", "/version",
             "/v1/collection/a/", "/V1/collections", "/v2/collections", "//"])
def test_an_unknown_route_is_not_found_in_plain_text(call, path):
    for method in ("GET", "POST"):
        answer = call(method, path)
        assert answer.status == 404
        assert answer.headers["content-type"].startswith("text/plain")


def test_an_empty_name_is_a_name_of_no_collection(call):
    assert status_in(call("GET", "/v1/collection/")) == MISSING
    assert status_in(call("GET", "/v1/collection//stats")) == MISSING
    created = call("POST", "/v1/collection/", {"index_column_params": [{"column_name": "v"}]})
    assert created.json == {"code": -2000, "reason": "Empty Collection Name"}


# ----- names -----

DECLARED = {"index_column_params": [
    {"column_name": "v", "index_type": "IT_PROXIMA_GRAPH_INDEX", "data_type": "DT_VECTOR_FP32", "dimension": 2}]}


def test_the_name_of_the_path_is_used_where_the_body_has_none(call, name):
    assert call("POST", f"/v1/collection/{name}", DECLARED).json == ANSWERED
    assert status_in(call("GET", f"/v1/collection/{name}")) == ANSWERED


def test_the_name_of_the_body_wins_when_creating(call, name):
    created = call("POST", "/v1/collection/another", {**DECLARED, "collection_name": name})
    assert created.json == ANSWERED
    assert status_in(call("GET", f"/v1/collection/{name}")) == ANSWERED
    assert status_in(call("GET", "/v1/collection/another")) == MISSING


def test_the_name_of_the_path_wins_when_writing_and_querying(call, made):
    body = {"collection_name": "another", "knn_param": {"column_name": "v", "topk": 1, "features": vector(3, 4),
                                                        "batch_count": 1}}
    assert status_in(call("POST", f"/v1/collection/{made}/query", body)) == ANSWERED
    body = {"collection_name": "another", "rows": [{"primary_key": 1, "operation_type": "OP_DELETE"}]}
    assert call("POST", f"/v1/collection/{made}/index", body).json == ANSWERED


def test_a_name_with_encoded_letters_is_found_decoded_unless_it_exists_as_it_stands(call, wire, name):
    spaced, literal = f"{name} \u56fe", f"{name}%20%E5%9B%BE"
    accepted(wire.create_collection(collection(spaced, column("decoded"))))
    try:
        def described():
            info = call("GET", f"/v1/collection/{literal}").json["collection"]
            return info["config"]["index_column_params"][0]["column_name"]

        assert described() == "decoded"
        created = call("POST", "/v1/collection/x", {**DECLARED, "collection_name": literal})
        assert created.json == ANSWERED
        assert described() == "v"
        assert call("DELETE", f"/v1/collection/{literal}").json == ANSWERED
        assert described() == "decoded"
    finally:
        assert call("DELETE", f"/v1/collection/{literal}").json == ANSWERED


@pytest.mark.parametrize("unsafe", ["%2E%2E%2Fescape", "a%2Fb", "%2Fetc%2Fvoisin", "a%5Cb", "nul%00byte", "a" * 256, ".."])
def test_names_that_could_be_taken_for_paths_are_refused(call, unsafe):
    created = call("POST", f"/v1/collection/{unsafe}", DECLARED).json
    assert created["code"] == -1005 and created["reason"].startswith("Invalid Arugment: ")
    assert status_in(call("GET", f"/v1/collection/{unsafe}")) == MISSING
    assert call("DELETE", f"/v1/collection/{unsafe}").json == MISSING


# ----- documents by key, and lists -----


@pytest.mark.parametrize("text, found", [
    ("1", True), ("+1", True), ("%201", True), ("1abc", True), ("01", True), ("1.9", True), ("2", False), ("x", False),
    ("", False), ("-1", False), ("18446744073709551615", False), ("99999999999999999999999", False)])
def test_keys_are_read_as_the_original_reads_them(call, made, text, found):
    answer = call("GET", f"/v1/collection/{made}/doc?key={text}")
    assert status_in(answer) == ANSWERED
    assert ("document" in answer.json) == found


def test_what_is_no_number_asks_for_key_0(call, wire, made):
    accepted(wire.write(writing(made, insert(0, [0, 0]))))
    assert call("GET", f"/v1/collection/{made}/doc?key=zero").json["document"]["primary_key"] == "0"


def test_a_document_without_key_is_malformed(call, made):
    for query in ("", "?", "?key2=1", "?KEY=1"):
        answer = call("GET", f"/v1/collection/{made}/doc{query}")
        assert answer.json == {"status": MALFORMED, "debug_info": ""}


def test_lists_are_of_all_collections_or_of_a_repositorys(call, wire, name):
    shop = {"repository_name": f"{name} &", "database": {
        "connection_uri": "mysql://h/d", "table_name": "t", "user": "u", "password": "p"}}
    created = call("POST", f"/v1/collection/{name}", {**DECLARED, "repository_config": shop})
    assert created.json == ANSWERED

    def listed(query):
        answer = call("GET", f"/v1/collections{query}", body="{}").json
        assert answer["status"] == ANSWERED
        return name in [info["config"]["collection_name"] for info in answer["collections"]]

    assert listed("") and listed("?repository=") and listed("?repo=whatever")
    assert listed(f"?repository={name}%20%26") and listed(f"?a=b&repository={name}%20%26&repository=x")
    assert not listed("?repository=another")


# ----- JSON taken -----


def test_names_of_fields_may_be_mixed_unknown_ones_are_ignored_and_null_is_unset(call, name):
    declared = """
    { "collectionName" : null, "max_docs_per_segment" : "77", "unknown": {"deep": [{"er": null}]},
      "forward_column_names": null, "repositoryConfig": null, "forwardColumnNames": ["a"],
      "index_column_params": [ {"columnName": "v", "index_type": 1, "dataType": 23, "dimension": 4,
                                "extra_params": [{"key": "metric_type", "value": "Cosine"}, {"key": "k"}], "more": 1} ] }
    """
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=utf-8"}):
        assert call("POST", f"/v1/collection/{name}", declared, headers).json == ANSWERED
        config = call("GET", f"/v1/collection/{name}").json["collection"]["config"]
        assert config == {
            "collection_name": name, "max_docs_per_segment": "77", "forward_column_names": ["a"],
            "index_column_params": [{
                "column_name": "v", "index_type": "IT_PROXIMA_GRAPH_INDEX", "data_type": "DT_VECTOR_FP32",
                "dimension": 4,
                "extra_params": [{"key": "metric_type", "value": "Cosine"}, {"key": "k", "value": ""}]}]}
        assert call("DELETE", f"/v1/collection/{name}").json == ANSWERED


KINDS = [
    ({"bytesValue": "AP8="}, {"bytes_value": "AP8="}),
    ({"string_value": "\u56fe\n"}, {"string_value": "\u56fe\n"}),
    ({"bool_value": True}, {"bool_value": True}),
    ({"int32_value": -5}, {"int32_value": -5}),
    ({"int64_value": -5}, {"int64_value": "-5"}),
    ({"int64Value": "-9223372036854775808"}, {"int64_value": "-9223372036854775808"}),
    ({"uint32_value": 2**32 - 1}, {"uint32_value": 2**32 - 1}),
    ({"uint64_value": KEY_MAX}, {"uint64_value": str(KEY_MAX)}),
    ({"float_value": 0.1}, {"float_value": 0.1}),
    ({"float_value": "NaN"}, {"float_value": "NaN"}),
    ({"float_value": 7}, {"float_value": 7.0}),
    ({"double_value": "-Infinity"}, {"double_value": "-Infinity"}),
    ({"double_value": 1e300}, {"double_value": 1e300}),
    ({"string_value": None}, {}),
    ({}, {}),
]


@pytest.mark.parametrize("sent, given", KINDS, ids=lambda kind: json.dumps(kind))
def test_values_of_every_kind_are_taken_and_given(call, made, sent, given):
    body = {
        "row_meta": {"forward_column_names": ["a"], "index_column_metas": [
            {"column_name": "v", "data_type": "DT_VECTOR_FP32", "dimension": 2}]},
        "rows": [{"primary_key": "7", "forward_column_values": {"values": [sent]},
                  "index_column_values": {"values": [{"string_value": "[1,2]"}]}}]}
    assert call("POST", f"/v1/collection/{made}/index", body).json == ANSWERED
    document = call("GET", f"/v1/collection/{made}/doc?key=7").json["document"]
    assert document["forward_column_values"] == [{"key": "a", "value": given}, {"key": "b", "value": {}}]


QUERY = {"column_name": "v", "topk": 1, "features": "AAAAAAAAAAA=", "batch_count": 1}
WRONG_TYPES = {
    "32 bits as text": {"topk": "1"},
    "32 bits with a point": {"topk": 1.0},
    "32 bits below 0": {"topk": -1},
    "32 bits too large": {"topk": 2**32},
    "a text that is a number": {"column_name": 1},
    "a truth as text": {"is_linear": "true"},
    "a truth as a number": {"is_linear": 1},
    "a float as text": {"radius": "0.5"},
    "a float too large": {"radius": 1e39},
    "bytes without padding": {"features": "AAAAAAAAAAA"},
    "bytes of another alphabet": {"features": "AAAAAAAAA_-="},
    "bytes as a list": {"features": [0, 0]},
    "an unknown enum": {"data_type": "DT_VECTOR"},
    "an unknown number of an enum": {"data_type": 19},
    "an enum's number as text": {"data_type": "23"},
    "a list that is none": {"extra_params": {"key": "k"}},
    "a list with null": {"extra_params": [None]},
    "both of a choice": {"matrix": "[0,0]"},
}


@pytest.mark.parametrize("wrong", WRONG_TYPES)
def test_a_field_of_a_wrong_type_is_malformed(call, made, wrong):
    right = {"knn_param": QUERY}
    assert status_in(call("POST", f"/v1/collection/{made}/query", right)) == ANSWERED
    answer = call("POST", f"/v1/collection/{made}/query", {"knn_param": {**QUERY, **WRONG_TYPES[wrong]}})
    assert status_in(answer) == MALFORMED
    assert answer.headers["voisin-detail"], "the detail says what was wrong"
    assert answer.json["results"] == []


@pytest.mark.parametrize("body", ["", " ", "{", "[]", "null", '"{}"', "1", "{}{}", "{'a': 1}", '{"a":}', "\ufeff{}", "{" * 5000,
                                  "[" * 100_000, '{"x":' * 50_000])
def test_a_body_that_is_no_object_is_malformed_on_every_route(call, made, body):
    for path, answer in (
            ("", MALFORMED), ("/index", MALFORMED),
            ("/query", {"status": MALFORMED, "debug_info": "", "latency_us": "0", "results": []})):
        got = call("POST", f"/v1/collection/{made}{path}", body.encode())
        assert (got.status, got.json) == (200, answer)


def test_bytes_that_are_no_utf8_are_malformed(call, made):
    assert call("POST", f"/v1/collection/{made}/index", b'{"request_id":"\xff"}').json == MALFORMED


def test_rows_of_nothing_do_not_take_the_memory(call, made):
    body = '{"rows":[' + ",".join(["{}"] * 2_000_000) + "]}"
    answer = call("POST", f"/v1/collection/{made}/index", body)
    assert answer.json == MALFORMED


# ----- JSON given -----


def test_answers_are_written_byte_by_byte_as_documented(call, wire, made):
    get = call("GET", f"/v1/collection/{made}/doc?key=1")
    assert get.text == (
        '{"status":{"code":0,"reason":"Success"},"debug_info":"","document":{"primary_key":"1","score":0.0,'
        '"forward_column_values":[{"key":"a","value":{"string_value":"x"}},{"key":"b","value":{}}]}}')
    assert call("GET", f"/v1/collection/{made}/doc?key=2").text == (
        '{"status":{"code":0,"reason":"Success"},"debug_info":""}')
    info = call("GET", f"/v1/collection/{made}")
    assert info.text == (
        '{"status":{"code":0,"reason":"Success"},"collection":{"config":{"collection_name":"' + made + '",'
        '"max_docs_per_segment":"18446744073709551615","forward_column_names":["a","b"],"index_column_params":['
        '{"column_name":"v","index_type":"IT_PROXIMA_GRAPH_INDEX","data_type":"DT_VECTOR_FP32","dimension":2,'
        '"extra_params":[]}]},"status":"CS_SERVING","uuid":"' + info.json["collection"]["uuid"] + '",'
        '"magic_number":"0"}}')
    stats = call("GET", f"/v1/collection/{made}/stats")
    (segment,) = stats.json["collection_stats"]["segment_stats"]
    assert {k: type(v) for k, v in segment.items() if k not in ("segment_id", "state", "segment_path")} == {
        k: str for k in ("doc_count", "index_file_count", "index_file_size", "min_doc_id", "max_doc_id",
                         "min_primary_key", "max_primary_key", "min_timestamp", "max_timestamp", "min_lsn", "max_lsn")}
    assert (segment["segment_id"], segment["state"], segment["segment_path"]) == (0, "SS_WRITING", "")
    assert call("GET", "/v1/collection/none").text == '{"status":{"code":-4002,"reason":"Collection Not Exist"}}'
    assert call("DELETE", "/v1/collection/none").text == '{"code":-4002,"reason":"Collection Not Exist"}'


def test_a_query_is_answered_with_everything_that_the_stock_client_reads(call, made):
    answer = call("POST", f"/v1/collection/{made}/query", {"knn_param": {**QUERY, "topk": 5}, "debug_mode": True}).json
    assert list(answer) == ["status", "debug_info", "latency_us", "results"]
    assert json.loads(answer["debug_info"])["latency"] == int(answer["latency_us"])
    assert answer["results"] == [{"documents": [{"primary_key": "1", "score": 25.0, "forward_column_values": [
        {"key": "a", "value": {"string_value": "x"}}, {"key": "b", "value": {}}]}]}]


def test_a_score_that_is_no_number_is_given_as_text(call, wire, name):
    accepted(wire.create_collection(collection(name)))
    accepted(wire.write(writing(name, insert(1, [3e38, 0]))))
    body = {"knn_param": {**QUERY, "features": vector(-3e38, 0)}}
    (result,) = call("POST", f"/v1/collection/{name}/query", body).json["results"]
    assert result["documents"][0]["score"] == "Infinity"
    answer = wire.query(knn(name, [-3e38, 0]))
    assert math.isinf(answer.results[0].documents[0].score)


def test_repository_collections_tell_their_password_magic_number_and_lsn(call, name):
    repository = {"repository_type": 0, "repository_name": "shop", "database": {
        "connection_uri": "mysql://h/d", "table_name": "t", "user": "u", "password": "p"}}
    assert call("POST", f"/v1/collection/{name}", {**DECLARED, "repository_config": repository}).json == ANSWERED
    info = call("GET", f"/v1/collection/{name}").json["collection"]
    assert info["config"]["repository_config"] == {**repository, "repository_type": "RT_DATABASE"}
    assert int(info["magic_number"]) > 0 and isinstance(info["magic_number"], str)
    assert info["latest_lsn_context"] == {"lsn": "0", "context": ""}


def test_a_refusal_carries_its_full_words_beside_the_fixed_reason(call, made):
    answer = call("POST", f"/v1/collection/{made}/query", {"knn_param": {**QUERY, "column_name": "w"}})
    assert status_in(answer) == {"code": -4003, "reason": REASONS[-4003]}
    assert "w" in answer.headers["voisin-detail"] and made in answer.headers["voisin-detail"]


# ----- connections and bodies -----


def test_a_connection_serves_one_call_after_the_other(call, made):
    call("GET", "/v1/collections", body="{}")
    first = call.socket
    for _ in range(20):
        assert status_in(call("GET", f"/v1/collection/{made}", body='{"not":"read"}')) == ANSWERED
        assert call("POST", f"/v1/collection/{made}/index", "{").json == MALFORMED
        assert call("PUT", f"/v1/collection/{made}", "x" * 1000).status == 405
        assert call("GET", "/nothing", body="{}").status == 404
        assert status_in(call("POST", f"/v1/collection/{made}/query", {"knn_param": QUERY})) == ANSWERED
    assert call.socket is first, "the connection was kept"


def test_a_body_in_pieces_is_taken(call, wire, made):
    body = json.dumps({"rows": [{"primary_key": 1, "operation_type": "OP_DELETE"}]}).encode()
    pieces = (body[i:i + 7] for i in range(0, len(body), 7))
    assert call("POST", f"/v1/collection/{made}/index", pieces).json == ANSWERED
    assert stored(wire, made, 1) is None


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
def test_a_body_above_the_limit_is_refused_with_the_limit_and_its_setting(start_server, announced):
    own = start_server(settings={"limits.message_bytes_max": 65536})
    accepted(own.wire().create_collection(collection("small")))
    call = Caller(own)
    body = b'{"request_id":"' + b"x" * 5_000_000 + b'"}'
    pieces = iter([body[i:i + 100_000] for i in range(0, len(body), 100_000)])
    answer = call("POST", "/v1/collection/small/index", body if announced else pieces)
    assert answer.status == 200
    assert answer.json["code"] == -1010
    for word in ("Exceed Limit", "65536", "limits.message_bytes_max"):
        assert word in answer.json["reason"]
    assert call("POST", "/v1/collection/small/index", b'{"request_id":"' + b"x" * 60_000 + b'"}').json["code"] == -2012
    call.close()


def test_a_body_that_never_comes_harms_nobody(server, call, made):
    """Half a body, then silence: the connection is given up by the caller, and others are served."""
    with socket.create_connection((server.host, server.http_port), timeout=30) as half:
        half.sendall(f"POST /v1/collection/{made}/index HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{{".encode())
        assert status_in(call("GET", f"/v1/collection/{made}")) == ANSWERED
    assert status_in(call("GET", f"/v1/collection/{made}")) == ANSWERED


@pytest.mark.parametrize("text", [
    b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/collection/x/index HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    b"POST /v1/collection/x/index HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(500)) + b"\r\n"])
def test_what_is_no_request_is_refused_and_harmless(server, call, text):
    with socket.create_connection((server.host, server.http_port), timeout=30) as odd:
        try:
            odd.sendall(text)
            odd.shutdown(socket.SHUT_WR)
            while odd.recv(65536):
                pass
        except OSError:  # the connection was reset
            pass
    assert call("GET", "/service_version").status == 200


def test_connections_beyond_the_limit_are_told_so(start_server):
    own = start_server(settings={"limits.http_connections_max": 3})
    kept = [Caller(own) for _ in range(3)]
    for call in kept:
        assert call("GET", "/healthz").status == 200
    one_more = Caller(own)
    answer = one_more("GET", "/healthz")
    assert answer.status == 503
    assert "limits.http_connections_max" in answer.text and "3" in answer.text
    one_more.close()
    kept.pop().close()

    def is_served():
        late = Caller(own)
        try:
            return late("GET", "/healthz").status == 200
        finally:
            late.close()

    eventually(is_served, 10, "a place for a new connection")
    for call in kept:
        call.close()


def test_a_stopping_server_finishes_what_it_was_asked_over_http(start_server):
    """A request is being read when the stop comes; the rest of its body follows."""
    own = start_server()
    accepted(own.wire().create_collection(collection("kept")))
    request = json.dumps({
        "row_meta": {"index_column_metas": [{"column_name": "v", "data_type": FP32, "dimension": 2}]},
        "rows": [{"primary_key": 1, "index_column_values": {"values": [{"string_value": "[1,2]"}]}}]}).encode()
    with socket.create_connection((own.host, own.http_port), timeout=30) as late:
        head = "POST /v1/collection/kept/index HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        late.sendall(f"{head}content-length: {len(request)}\r\n\r\n".encode())
        assert late.recv(100).startswith(b"HTTP/1.1 100"), "the call has begun: it asks for the body"
        late.sendall(request[:10])
        own.signal(signal.SIGTERM)
        call = Caller(own)
        eventually(lambda: call("GET", "/readyz").status == 503, 10, "not ready any more")
        refused = call("GET", "/v1/collection/kept").json
        assert refused["status"]["code"] == -1014
        call.close()
        late.sendall(request[10:])
        answer = http.client.HTTPResponse(late)
        answer.begin()
        assert json.loads(answer.read()) == ANSWERED
    assert own.end() == 0
    own.start()
    assert stored(own.wire(), "kept", 1) is not None
