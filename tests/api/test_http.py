"""What is common to all calls: unknown paths, methods, types of bodies, query strings, and a server that stops."""

import json
import re
import signal
import threading
import urllib.request

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from json_api import Api, VECTORS
from server import eventually


def test_the_document_is_openapi_3_1_and_names_every_call(api):
    document = api.ok("GET", "/openapi.json")
    assert document["openapi"] == "3.1.0"
    calls = {op["operationId"]: op for item in document["paths"].values() for op in item.values() if isinstance(op, dict)}
    assert set(calls) >= {
        "createCollection", "describeCollection", "listCollections", "alterCollection", "dropCollection",
        "changeAliases", "collectionStats", "writeRows", "query", "getRow", "getRows", "scrollRows", "readRows",
        "countRows", "deleteRow", "deleteRows"}
    for name, call in calls.items():
        assert call["summary"] and {"400", "500", "503"} <= set(call["responses"]), name
    for name in ("createCollection", "writeRows", "query"):
        schema = calls[name]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert document["components"]["schemas"][schema]["example"], f"{name} has no example"


def test_every_reference_of_the_document_leads_somewhere(api):
    document = api.ok("GET", "/openapi.json")

    def check(part):
        if isinstance(part, dict):
            if "$ref" in part:
                place = document
                for step in part["$ref"].removeprefix("#/").split("/"):
                    assert step in place, part["$ref"]
                    place = place[step]
            part = list(part.values())
        if isinstance(part, list):
            for one in part:
                check(one)

    check(document)


def test_the_examples_of_the_document_work(api, at, name):
    schemas = api.ok("GET", "/openapi.json")["components"]["schemas"]
    api.ok("PUT", at, schemas["NewCollection"]["example"], status=201)
    assert api.ok("POST", f"{at}/rows", schemas["Batch"]["example"])["rows_applied"] == 1
    found = api.ok("POST", f"{at}/query", schemas["Query"]["example"])["results"][0]
    assert [hit["values"] for hit in found] == [{"path": "a.jpg"}]
    assert api.ok("POST", f"{at}/get", schemas["Keys"]["example"])["rows"][0]["key"] == 1
    assert len(api.ok("POST", f"{at}/scroll", schemas["Page"]["example"])["rows"]) == 1
    assert api.ok("POST", f"{at}/count", schemas["Selection"]["example"]) == {"rows": 1}
    api.ok("PATCH", at, schemas["CollectionChange"]["example"])
    (change,) = schemas["AliasChanges"]["example"]["changes"]
    alias = f"{name}-{change['alias']}"
    told = api.ok("POST", "/aliases", {"changes": [{**change, "alias": alias, "collection": name}]})
    assert told["aliases"][alias] == name


def test_unknown_paths_and_methods_are_refused_in_json(api, made):
    for path in ("", "/", "/nothing", "/collections/", "/collections/a/b/c", f"{made}/", f"{made}/rows/1/2"):
        api.refused(404, "UNIMPLEMENTED", "GET", path, None, "/api/v1" + path)
    for method, path, allowed in (("POST", made, {"PUT", "GET", "HEAD", "PATCH", "DELETE"}), ("GET", f"{made}/query", {"POST"}),
                                  ("DELETE", "/collections", {"GET", "HEAD"}), ("PUT", f"{made}/rows/1", {"GET", "HEAD", "DELETE"})):
        api.refused(405, "UNIMPLEMENTED", method, path, None, method)
        assert {word.strip() for word in api.headers["allow"].split(",")} == allowed


def test_a_body_must_be_json_and_say_so(api, made):
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"},
                    {"content-type": "application/json", "content-encoding": "gzip"}):
        api.refused(415, "INVALID_ARGUMENT", "POST", f"{made}/query", '{"vector":[1,0],"topk":1}', headers=headers)
    plain = {"content-type": "Application/JSON; charset=utf-8"}
    assert api("POST", f"{made}/query", '{"vector":[1,0],"topk":1}', plain)[0] == 200
    for body in ("", "{", "[]", "null", '{"vector":[1,0],"topk":1}{}', "[" * 100_000, '{"x":' * 100_000, b"\xff"):
        api.refused(400, "INVALID_ARGUMENT", "POST", f"{made}/query", body, "body",
                    headers={"content-type": "application/json"})


#: Calls that are right, to be broken.
BROKEN = [
    ("/rows", '{"operation":"upsert","rows":[{"key":1,"vectors":{"v":[1,2]},"values":{"path":"a"},"if_version":0}]}'),
    ("/query", '{"vector":[1,2],"topk":3,"filter":"any in {p}","filter_params":{"p":[1,"a"]},"group":{"column":"any"}}'),
    ("/query", '{"positives":[1],"negatives":["3"],"topk":3,"return_vectors":["*"],"radius":1}'),
    ("/get", '{"keys":[1,"2"],"vectors":["*"]}'), ("/scroll", '{"limit":10,"filter":"path > 1","cursor":null}'),
    ("/count", '{"filter":"path > 1 and (path < 5)","filter_params":{}}'),
]
PIECES = [
    b"1e400", b"-1e400", b"1e39", b"-0.0", b"9" * 5000, b"0." + b"3" * 5000, b"18446744073709551616", b"4294967296",
    b"NaN", b"null", b"true", b"{}", b"[]", b"[[]]", b'"\\ud800"', b'"\\u0000"', b"\xff", b"\xc0\x80", b"\xed\xa0\x80",
    b"[" * 127, b"[" * 100_000, b'{"a":' * 100_000, b"[" * 1000 + b"]" * 1000, b'{"a":1,"a":2}',
]


def test_refusals_name_what_of_the_body_is_wrong_and_quote_no_more_than_its_beginning(api, made):
    for path, body, where in (
            ("query", {"vector": [1, 0], "topk": 1, "params": {"ef_search": "10"}}, "params.ef_search"),
            ("query", {"positives": [1, -1], "topk": 1}, "positives[1]"),
            ("rows", {"operation": "insert", "rows": [{"key": 1, "values": {"any": [1]}}]}, "row 0: values.any")):
        api.refused(400, "INVALID_ARGUMENT", "POST", f"{made}/{path}", body, where)
    for path in ("", "/rows", "/query", "/get", "/scroll", "/read", "/count", "/delete"):
        status, answer = api("PATCH" if path == "" else "POST", made + path, {"x" * 1_000_000: 1})
        assert status == 400 and len(answer["error"]["message"]) < 2_100, answer["error"]["message"][:3000]


def test_broken_bodies_are_refused_and_nothing_worse(server, api, made):
    """Bytes changed, put in, cut off and written twice; deep nests; numbers beyond every range."""
    random = np.random.default_rng(19)
    headers = {"content-type": "application/json"}
    statuses = set()
    for number in range(1500):
        path, text = BROKEN[number % len(BROKEN)]
        body = bytearray(text.encode())
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(len(body) + 1))
            match random.integers(4):
                case 0:
                    body[at:at] = random.bytes(int(random.integers(1, 4)))
                case 1:
                    body[at:at] = PIECES[random.integers(len(PIECES))]
                case 2:
                    begin = int(random.integers(at + 1))
                    body[at:at] = body[begin:at]
                case _:
                    numbers = [found.span() for found in re.finditer(rb'-?[0-9]+|"[^"]*"|null|\[\]', bytes(body))]
                    begin, end = numbers[random.integers(len(numbers))] if numbers else (at, at)
                    body[begin:end] = PIECES[random.integers(len(PIECES))]
        status, answer = api("POST", made + path, bytes(body), headers)
        assert status in (200, 400, 404, 409, 413), (path, bytes(body[:500]), answer)
        statuses.add(status)
    assert {200, 400} <= statuses
    assert server.is_running and "panicked" not in server.log_text()


def test_query_strings_are_read_strictly(api, filled):
    api.refused(400, "INVALID_ARGUMENT", "GET", f"{filled}/rows/1?forward=a", None, "forward", "forwards")
    api.refused(400, "INVALID_ARGUMENT", "GET", f"{filled}/rows/1?keys=text&keys=text", None, "twice")
    api.refused(400, "INVALID_ARGUMENT", "GET", f"{filled}/stats?verbose=1", None, "verbose")
    api.refused(400, "INVALID_ARGUMENT", "GET", f"{filled}/rows/1?keys=%FF")
    assert api.ok("GET", f"{filled}/rows/1?forwards=%61ny")["values"] == {"any": 1}
    api.refused(400, "INVALID_ARGUMENT", "GET", "/collections/%FF")


def test_a_full_queue_says_when_to_try_again(start_server):
    own = start_server(settings={"compute.search_queue_max": 1, "compute.search_threads": 1})
    api = Api(own)
    api.ok("PUT", "/collections/c", {"vectors": VECTORS}, status=201)
    ended, busy = threading.Event(), []

    def ask():
        one = Api(own)
        while not ended.is_set():
            status, answer = one("POST", "/collections/c/get", {"keys": [1]})
            if status == 429:
                busy.append((answer["error"], one.headers["retry-after"]))
                ended.set()
        one.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert ended.wait(60)
    for thread in threads:
        thread.join()
    error, after = busy[0]
    assert error["code"] == "RESOURCE_EXHAUSTED" and "compute.search_queue_max" in error["message"]
    assert after == "1"
    api.close()


def calls_counted(server):
    """How often the calls of the JSON API ended how: (call, code) -> count."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [s for f in families for s in f.samples if s.name == "voisin_calls_total"]
    wanted = [s for s in samples if (s.labels["api"], s.labels["transport"]) == ("voisin", "http")]
    return {(s.labels["call"], s.labels["code"]): s.value for s in wanted}


def test_calls_are_counted_by_operation_and_outcome(server, api, filled):
    before = calls_counted(server)
    api.ok("POST", f"{filled}/query", {"vector": [1, 0], "topk": 1})
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/query", {"vector": [1, 0], "topk": 0})
    api.refused(404, "UNIMPLEMENTED", "GET", "/nothing")
    after = calls_counted(server)
    for ended in (("query", "OK"), ("query", "INVALID_ARGUMENT"), ("unknown", "UNIMPLEMENTED")):
        assert after[ended] - before.get(ended, 0) == 1, ended


def test_a_stopping_server_refuses_new_calls_with_503(start_server):
    """A request whose body is awaited keeps the server up until it is answered."""
    import http.client
    import socket

    own = start_server()
    api = Api(own)
    api.ok("PUT", "/collections/c", {"vectors": VECTORS}, status=201)
    body = json.dumps({"operation": "insert", "rows": [{"key": 1, "vectors": {"v": [1, 2]}}]}).encode()
    with socket.create_connection((own.host, own.http_port), timeout=30) as late:
        head = "POST /api/v1/collections/c/rows HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
        late.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        assert late.recv(100).startswith(b"HTTP/1.1 100")
        own.signal(signal.SIGTERM)
        eventually(lambda: api("GET", "/collections")[0] == 503, 10, "new calls are refused")
        api.refused(503, "UNAVAILABLE", "GET", "/collections")
        assert api.headers["retry-after"] == "1"
        api.close()
        late.sendall(body)
        answer = http.client.HTTPResponse(late)
        answer.begin()
        assert answer.status == 200 and json.loads(answer.read())["rows_applied"] == 1
    assert own.end() == 0
