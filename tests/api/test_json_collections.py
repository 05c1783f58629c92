"""Collections over the JSON API: create, describe, list, alter, alias, drop."""

import re
import threading
import urllib.parse

from json_api import Api, VECTORS
from proxima import accepted, collection, named


def test_a_collection_is_described_as_it_was_created(api, at, name):
    declared = {
        "vectors": [
            {"name": "picture", "element": "FP16", "dimension": 8, "metric": "Cosine", "params": {"ef_search": "100"}},
            {"name": "hash", "element": "BINARY64", "dimension": 64, "metric": "Hamming", "params": {}}],
        "forwards": [{"name": "path", "type": "string"}, {"name": "any", "type": None}, {"name": "at", "type": "int64"}],
        "segment_rows_max": 1000, "versions": True, "ttl": {"column": "at", "milliseconds": 60_000}}
    created = api.ok("PUT", at, declared, status=201)
    assert api.ok("GET", at) == created
    assert re.fullmatch("[0-9a-f]{32}", created["uuid"])
    filled_by_server = [f for f in created["forwards"] if f["name"].startswith("_")]
    assert filled_by_server == [{"name": "_version", "type": "uint64"}]
    assert created == {
        **declared, "name": name, "uuid": created["uuid"], "aliases": [], "follows_repository": False,
        "forwards": filled_by_server + declared["forwards"]}
    assert created in api.ok("GET", "/collections")["collections"]


def test_defaults_are_told(api, at):
    created = api.ok("PUT", at, {"vectors": VECTORS}, status=201)
    assert created["vectors"] == [{**VECTORS[0], "metric": "SquaredEuclidean", "params": {}}]
    assert (created["forwards"], created["segment_rows_max"], created["ttl"]) == ([], 0, None)
    assert created["versions"] is False


def test_a_name_may_hold_what_a_url_must_encode(api, name):
    odd = f"{name} 图?#%&+ä"
    at = "/collections/" + urllib.parse.quote(odd, safe="")
    assert api.ok("PUT", at, {"vectors": VECTORS}, status=201)["name"] == odd
    assert api.ok("GET", at)["name"] == odd
    api.ok("DELETE", at, status=204)
    api.refused(404, "NOT_FOUND", "GET", at, None, odd)


def test_collections_of_both_contracts_are_the_same_ones(api, wire, at, name):
    accepted(wire.create_collection(collection(name, forward_names=["a"])))
    assert api.ok("GET", at)["vectors"] == [{**VECTORS[0], "metric": "SquaredEuclidean", "params": {}}]
    api.ok("DELETE", at, status=204)
    assert wire.describe_collection(named(name)).status.code == -4002


def test_dropping_removes_it_once(api, made):
    api.ok("DELETE", made, status=204)
    api.refused(404, "NOT_FOUND", "DELETE", made)
    api.refused(404, "NOT_FOUND", "GET", f"{made}/stats")


def test_creating_is_refused_for_what_cannot_be(api, at, name):
    def refused(body, *words):
        api.refused(400, "INVALID_ARGUMENT", "PUT", at, body, *words)

    refused({"vectors": []}, "index column")
    refused({}, "vectors")
    refused({"vectors": VECTORS, "forward": []}, "forward")
    refused({"vectors": [{**VECTORS[0], "element": "FP128"}]}, "FP128", "FP32")
    refused({"vectors": [{**VECTORS[0], "dimension": 0}]}, "dimension")
    refused({"vectors": [{**VECTORS[0], "dimension": -1}]}, "-1")
    refused({"vectors": [{**VECTORS[0], "metric": "Hamming"}]}, "Hamming")
    refused({"vectors": [{**VECTORS[0], "params": {"ef_search": "0"}}]}, "ef_search")
    refused({"vectors": VECTORS * 2}, "twice")
    refused("[]", "body")
    refused("{", "body")
    api.refused(413, "OUT_OF_RANGE", "PUT", at, {"vectors": [{**VECTORS[0], "dimension": 2**31}]},
                "limits.dimension_max")
    api.refused(404, "NOT_FOUND", "GET", at)
    api.ok("PUT", at, {"vectors": VECTORS}, status=201)
    api.refused(409, "ALREADY_EXISTS", "PUT", at, {"vectors": VECTORS}, name)
    api.refused(400, "INVALID_ARGUMENT", "PUT", "/collections/a%2Fb", {"vectors": VECTORS}, "path separator")


def test_altering_adds_columns_and_sets_parameters_and_expiry(api, filled):
    changed = api.ok("PATCH", filled, {
        "add_forwards": [{"name": "size", "type": "int64"}], "params": {"v": {"ef_search": "64"}},
        "ttl": {"milliseconds": 3_600_000}})
    assert {"name": "size", "type": "int64"} in changed["forwards"]
    assert changed["vectors"][0]["params"] == {"ef_search": "64"}
    assert changed["ttl"]["milliseconds"] == 3_600_000
    assert api.ok("GET", f"{filled}/rows/3")["values"]["size"] is None
    changed = api.ok("PATCH", filled, {"ttl": False, "params": {"v": {"ef_search": ""}}})
    assert changed["ttl"] is None and changed["vectors"][0]["params"] == {}
    api.refused(400, "INVALID_ARGUMENT", "PATCH", filled, {"ttl": True}, "ttl")
    api.refused(404, "NOT_FOUND", "PATCH", filled + "x", {"ttl": False})


def test_aliases_stand_for_collections_and_move_all_at_once(api, filled, name):
    alias, other = f"{name}-alias", f"{name}-other"
    api.ok("PUT", f"/collections/{other}", {"vectors": VECTORS}, status=201)
    try:
        told = api.ok("POST", "/aliases", {"changes": [{"alias": alias, "collection": name}]})
        assert told["aliases"][alias] == name
        assert api.ok("GET", "/aliases") == told
        assert api.ok("GET", f"/collections/{alias}")["aliases"] == [alias]
        assert api.ok("POST", f"/collections/{alias}/count", {})["rows"] == 10
        api.ok("POST", "/aliases", {"changes": [{"alias": alias, "collection": other}]})
        assert api.ok("POST", f"/collections/{alias}/count", {})["rows"] == 0
        api.refused(404, "NOT_FOUND", "POST", "/aliases", {"changes": [{"alias": alias, "collection": name + "x"}]})
        told = api.ok("POST", "/aliases", {"changes": [{"alias": alias, "collection": None}]})
        assert alias not in told["aliases"]
        api.refused(400, "INVALID_ARGUMENT", "POST", "/aliases", {"changes": [{"alias": alias, "collection": ""}]})
    finally:
        api.ok("DELETE", f"/collections/{other}", status=204)


def test_statistics_tell_rows_indexing_and_memory(api, filled):
    stats = api.ok("GET", f"{filled}/stats")
    assert (stats["rows"], stats["segments"]) == (10, 1)
    assert (stats["indexing"]["rows_waiting"], stats["indexing"]["settled"]) == (10, True)
    assert stats["memory"]["total"] == sum(v for k, v in stats["memory"].items() if k != "total") > 0
    assert stats["server_memory"]["anonymous"] > 0


def test_a_collection_is_waited_for(api, filled):
    told = api.ok("POST", f"{filled}/wait-indexed")
    assert (told["indexing"]["rows_waiting"], told["indexing"]["settled"]) == (10, True)
    assert api.ok("POST", f"{filled}/wait-indexed", {"timeout_ms": 0}) == told
    assert api.ok("GET", f"{filled}/stats")["indexing"] == told["indexing"]
    api.refused(413, "OUT_OF_RANGE", "POST", f"{filled}/wait-indexed", {"timeout_ms": 3_600_001})
    api.refused(400, "INVALID_ARGUMENT", "POST", f"{filled}/wait-indexed", {"timeout_s": 1})
    api.refused(404, "NOT_FOUND", "POST", f"{filled}x/wait-indexed", {})


def test_one_of_many_creators_of_a_name_succeeds(server, at):
    start, statuses = threading.Barrier(4), []

    def create():
        api = Api(server)
        start.wait()
        statuses.append(api("PUT", at, {"vectors": VECTORS})[0])
        api.close()

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409]
