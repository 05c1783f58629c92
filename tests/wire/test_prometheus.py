"""/metrics: what the parser of Prometheus reads there, and that it moves with what happens."""

import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxima import accepted, by_key, collection, delete, insert, keys, knn, named, refused, writing
from server import eventually


def scrape(server):
    """Every sample: (name, labels) -> value."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} has no help"
        assert family.type in ("counter", "gauge", "histogram"), family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{key} comes twice"
            samples[key] = sample.value
    return samples


def at(samples, name, **labels):
    return samples.get((name, frozenset(labels.items())), 0)


def moved(before, after, name, **labels):
    return at(after, name, **labels) - at(before, name, **labels)


def test_calls_are_counted_and_timed_by_transport_and_outcome(server, wire, handler, name):
    accepted(wire.create_collection(collection(name)))
    before = scrape(server)
    for key in range(3):
        accepted(wire.write(writing(name, insert(key, [key, 0]))))
    refused(wire.write(writing(name, insert(0, [0, 0]))), -4001)
    for _ in range(5):
        assert keys(wire.query(knn(name, [0, 0], topk=1))) == [[0]]
    refused(wire.query(knn(name, [0, 0], column_name="w")), -4003)
    after = scrape(server)

    def calls(call, code):
        return moved(before, after, "voisin_calls_total", api="proxima", call=call, transport=handler, code=code)

    assert (calls("write", "0"), calls("write", "-4001")) == (3, 1)
    assert (calls("query", "0"), calls("query", "-4003")) == (5, 1)
    of_queries = dict(api="proxima", call="query", transport=handler)
    assert moved(before, after, "voisin_call_duration_seconds_count", **of_queries) == 6
    assert moved(before, after, "voisin_call_duration_seconds_sum", **of_queries) > 0
    buckets = sorted(
        (float(dict(labels)["le"]), value) for (sample, labels), value in after.items()
        if sample == "voisin_call_duration_seconds_bucket" and of_queries.items() <= dict(labels).items())
    values = [value for _, value in buckets]
    assert values == sorted(values) and values[-1] == at(after, "voisin_call_duration_seconds_count", **of_queries)
    other = {"grpc": "http", "http": "grpc"}[handler]
    assert moved(before, after, "voisin_calls_total", api="proxima", call="query", transport=other, code="0") == 0


def test_collections_tell_rows_segments_and_memory_until_they_are_dropped(server, wire, name):
    accepted(wire.create_collection(collection(name)))
    before = scrape(server)
    assert at(before, "voisin_collection_rows", collection=name) == 0
    accepted(wire.write(writing(name, *(insert(k, [k, 0]) for k in range(100)))))
    accepted(wire.write(writing(name, delete(1), metas=[])))
    after = scrape(server)
    assert at(after, "voisin_collection_rows", collection=name) == 99
    assert at(after, "voisin_collection_segments", collection=name, state="growing") == 1
    assert at(after, "voisin_collection_segments", collection=name, state="sealed") == 0
    assert at(after, "voisin_collection_indexing_rows", collection=name, state="waiting") == 99
    assert at(after, "voisin_collection_settled", collection=name) == 1
    assert moved(before, after, "voisin_collection_memory_bytes", collection=name, part="growing") >= 100 * 8
    assert at(after, "voisin_collections", state="served") >= 1
    accepted(wire.drop_collection(named(name)))
    told = {dict(labels).get("collection") for _, labels in scrape(server)}
    assert name not in told


@pytest.mark.handlers("grpc")
def test_the_server_tells_its_memory_its_version_and_its_connections(server):
    samples = scrape(server)
    assert at(samples, "voisin_memory_bytes", part="resident") >= at(samples, "voisin_memory_bytes", part="anonymous") > 0
    assert at(samples, "voisin_memory_limit_bytes") > 0
    (version,) = [dict(labels)["version"] for name, labels in samples if name == "voisin_build_info"]
    with urllib.request.urlopen(f"http://{server.http}/", timeout=30) as answer:
        assert version in answer.read().decode()
    assert at(samples, "voisin_http_connections") >= 1
    assert {dict(labels)["by"] for name, labels in samples if name == "voisin_refusals_total"} == {
        "search_queue", "write_queue", "memory"}


@pytest.mark.handlers("grpc")
def test_refusals_of_full_queues_and_memory_are_counted(start_server):
    own = start_server(settings={"compute.search_queue_max": 1, "compute.search_threads": 1,
                                 "limits.memory_bytes_max": 1})
    wire = own.wire()
    accepted(wire.create_collection(collection("full")))
    assert wire.write(writing("full", insert(1, [1, 0]))).code == -1010
    assert at(scrape(own), "voisin_refusals_total", by="memory") == 1
    codes, ended = [], threading.Event()

    def ask():
        one = own.wire()
        while not ended.is_set():
            codes.append(one.get_document_by_key(by_key("full", 1)).status.code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: at(scrape(own), "voisin_refusals_total", by="search_queue") > 0, 30, "a refused search")
    ended.set()
    for thread in threads:
        thread.join()
    samples = scrape(own)
    assert at(samples, "voisin_refusals_total", by="search_queue") == codes.count(-4008)
    assert at(samples, "voisin_calls_total", api="proxima", call="get_document_by_key", transport="grpc",
              code="-4008") == codes.count(-4008)
    assert at(samples, "voisin_searches") == 0


@pytest.mark.handlers("http")
def test_odd_names_and_unknown_routes_add_no_series_of_their_own(server, wire):
    odd = 'odd "name" with {braces}'
    accepted(wire.create_collection(collection(odd)))
    try:
        before = scrape(server)
        assert at(before, "voisin_collection_segments", collection=odd, state="growing") == 1
        for i in range(20):
            try:
                urllib.request.urlopen(f"http://{server.http}/nothing/{i}", timeout=30)
            except urllib.error.HTTPError as error:
                assert error.code == 404
        after = scrape(server)
        assert len(after) - len(before) <= 1
        assert moved(before, after, "voisin_calls_total", api="proxima", call="unknown", transport="http",
                     code="404") == 20
    finally:
        accepted(wire.drop_collection(named(odd)))
