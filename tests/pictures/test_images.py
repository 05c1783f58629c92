"""Pictures over the wire: embedded, written and searched by, and refused with a reason."""

import http.server
import io
import json
import re
import threading

import grpc
import numpy as np
import requests
from PIL import Image

from drawing import edits, encoded, jpeg, scene
from server import eventually
from voisin_v1 import VoisinV1, refused

UNREADABLE = 6


def write(calls, photos, pictures, operation="OPERATION_UPSERT", **fields):
    keys = sorted(pictures)
    request = calls.message("WriteImagesRequest", collection=photos, keys=keys, operation=operation,
                            images=[pictures[key] for key in keys], **fields)
    [ack] = calls.WriteImages([request])
    return ack


def found(calls, photos, file, topk=1, **query):
    reply = calls.SearchByImage(images=[file], query=dict(collection=photos, topk=topk, **query))
    [hits] = reply.reply.results
    return hits


def test_every_picture_finds_itself_and_edited_copies_find_their_original(calls, photos):
    originals = {key: scene(key) for key in range(210)}
    ack = write(calls, photos, {key: jpeg(picture) for key, picture in originals.items()})
    assert (ack.rows_applied, len(ack.failures)) == (210, 0)
    first = {name: 0 for name in edits(originals[0])}
    for key, picture in originals.items():
        own = found(calls, photos, jpeg(picture))
        assert (list(own.keys), own.scores[0] < 1e-6) == ([key], True)
        for name, file in edits(picture).items():
            first[name] += list(found(calls, photos, file).keys) == [key]
    for name, count in first.items():
        assert count >= 0.95 * len(originals), (name, count)


def test_rows_have_their_values_sizes_and_thumbnails(calls, photos):
    wide, small = scene(1, 600, 300), scene(2, 40, 30)
    forwards = [dict(name="image_path", values=[dict(string_value="wide.png"), dict(string_value="small.jpg")])]
    ack = write(calls, photos, {7: encoded(wide), 8: jpeg(small)}, forwards=forwards, width_column="width",
                height_column="height", thumbnails=dict(column="thumbnail", side_max=64))
    assert (ack.rows_applied, len(ack.failures)) == (2, 0)
    rows = calls.Get(collection=photos, keys=[7, 8], vectors=dict(names=["*"]))
    columns = {column.name: column.values for column in rows.forwards}
    assert [value.string_value for value in columns["image_path"]] == ["wide.png", "small.jpg"]
    assert [value.int64_value for value in columns["width"]] == [600, 40]
    assert [value.int64_value for value in columns["height"]] == [300, 30]
    thumbnails = [Image.open(io.BytesIO(value.bytes_value)) for value in columns["thumbnail"]]
    assert [(one.format, one.size) for one in thumbnails] == [("JPEG", (64, 32)), ("JPEG", (40, 30))]
    lengths = np.linalg.norm(np.frombuffer(rows.vectors[0].vectors, np.float32).reshape(2, 524), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)


def test_sizes_are_those_of_the_whole_picture_however_small_it_is_decoded(calls, photos):
    large, turned = scene(1, 1999, 1501), Image.Exif()
    turned[0x0112] = 6
    files = {1: jpeg(large), 2: encoded(large, "JPEG", exif=turned)}
    ack = write(calls, photos, files, width_column="width", height_column="height", thumbnails=dict(column="thumbnail"))
    assert (ack.rows_applied, len(ack.failures)) == (2, 0)
    rows = calls.Get(collection=photos, keys=[1, 2])
    columns = {column.name: column.values for column in rows.forwards}
    assert [value.int64_value for value in columns["width"]] == [1999, 1501]
    assert [value.int64_value for value in columns["height"]] == [1501, 1999]
    thumbnails = [Image.open(io.BytesIO(value.bytes_value)).size for value in columns["thumbnail"]]
    for wide, high in (thumbnails[0], thumbnails[1][::-1]):
        assert 180 <= wide <= 256 and abs(high - wide * 1501 / 1999) <= 1, thumbnails


def test_pictures_that_cannot_be_read_fail_by_themselves(calls, photos):
    good = jpeg(scene(1))
    files = {0: good, 1: b"", 2: good[: len(good) // 2], 3: b"no picture at all", 4: encoded(scene(4))}
    forwards = [dict(name="image_path", values=[dict(string_value=f"{key}") for key in files])]
    ack = write(calls, photos, files, forwards=forwards)
    assert ack.rows_applied == 2
    assert [(f.row, f.key, f.code, bool(f.message)) for f in ack.failures] == [(k, k, UNREADABLE, True) for k in (1, 2, 3)]
    rows = calls.Get(collection=photos, keys=[0, 4])
    assert [value.string_value for value in rows.forwards[0].values] == ["0", "4"]
    # A row that is there fails as the row that it is, beside pictures that do.
    files = {0: good, 1: b"", 5: good}
    ack = write(calls, photos, files, operation="OPERATION_INSERT")
    assert [(f.row, f.key) for f in ack.failures] == [(0, 0), (1, 1)] and ack.rows_applied == 1
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", images=[b"x", good])])
    vectors = np.frombuffer(reply.vectors.vectors, np.float32).reshape(2, 524)
    assert ([f.image for f in reply.failures], vectors[0].any(), vectors[1].any()) == ([0], False, True)
    refused(lambda: found(calls, photos, b"GIF89a"), grpc.StatusCode.INVALID_ARGUMENT, "picture 0")


def test_requests_of_a_stream_are_applied_in_their_order(calls, photos):
    large, small = encoded(scene(1, 2400, 1800), compress_level=1), jpeg(scene(2, 40, 30))
    requests_ = [calls.message("WriteImagesRequest", request_id=number, collection=photos, keys=[1],
                               operation="OPERATION_UPSERT", images=[small if number % 2 else large],
                               forwards=[dict(name="image_path", values=[dict(string_value=str(number))])])
                 for number in range(12)]
    acks = calls.WriteImages(requests_)
    assert [(ack.request_id, ack.rows_applied) for ack in acks] == [(number, 1) for number in range(12)]
    assert calls.Get(collection=photos, keys=[1]).forwards[0].values[0].string_value == "11"


def test_a_refused_request_does_not_end_its_stream(calls, photos):
    file, upsert = jpeg(scene(1)), "OPERATION_UPSERT"

    def request(**fields):
        return calls.message("WriteImagesRequest", **{"collection": photos, "keys": [1], "images": [file],
                                                      "operation": upsert, **fields})

    bad = [
        (request(collection="nothing"), 5, "nothing"), (request(column="nothing"), 5, "nothing"),
        (request(images=[file, file]), 3, "2 images"), (request(operation="OPERATION_DELETE"), 3, "operation"),
        (request(operation=0), 3, "operation"), (request(width_column="x"), 5, "x"),
        (request(thumbnails=dict(column="thumbnail", side_max=8)), 3, "side_max"),
        (request(thumbnails=dict(column="nothing")), 5, "nothing"),
        (request(forwards=[dict(name="image_path")]), 3, "0 values"),
    ]
    acks = calls.WriteImages([*(one for one, _, _ in bad), request()])
    for ack, (_, code, words) in zip(acks, bad):
        assert ack.status.code == code and words in ack.status.message, ack
    assert acks[-1].rows_applied == 1 and not acks[-1].HasField("status")


def test_searches_take_all_that_queries_take(calls, photos):
    files = {key: jpeg(scene(key)) for key in range(20)}
    forwards = [dict(name="image_path", values=[dict(string_value=f"{key:02}.jpg") for key in files])]
    write(calls, photos, files, forwards=forwards)
    hits = found(calls, photos, files[3], topk=4, filter="image_path > '10.jpg'", forwards=dict(names=["image_path"]))
    assert len(hits.keys) == 4 and min(hits.keys) > 10 and list(hits.scores) == sorted(hits.scores)
    reply = calls.SearchByImage(images=[files[1], files[2]], query=dict(collection=photos, topk=1))
    assert [list(hits.keys) for hits in reply.reply.results] == [[1], [2]]
    assert reply.decode_us > 0 and reply.embed_us > 0 and reply.search_us > 0
    refused(lambda: calls.SearchByImage(query=dict(collection=photos, topk=1)), grpc.StatusCode.INVALID_ARGUMENT, "no image")
    refused(lambda: found(calls, photos, files[1], topk=0), grpc.StatusCode.INVALID_ARGUMENT, "topk")
    refused(lambda: found(calls, photos, files[1], vectors=dict(vectors=b"1234")), grpc.StatusCode.INVALID_ARGUMENT)
    refused(lambda: found(calls, "nothing", files[1]), grpc.StatusCode.NOT_FOUND, "nothing")


def test_a_column_without_a_model_takes_no_pictures(calls, name):
    calls.CreateCollection(name=name, vectors=[dict(name="v", element=1, dimension=4)])
    refused(lambda: found(calls, name, jpeg(scene(1))), grpc.StatusCode.INVALID_ARGUMENT, "model")
    ack = write(calls, name, {1: jpeg(scene(1))})
    assert ack.status.code == 3 and "model=holistic" in ack.status.message


def test_kept_vectors_survive_a_kill_and_need_no_model_to_be_searched(start_server):
    server = start_server(durability="power")
    calls = VoisinV1(server.channel())
    calls.CreateCollection(name="photos", vectors=[dict(name="embedding", params={"model": "holistic"})])
    files = {key: jpeg(scene(key)) for key in range(30)}
    assert write(calls, "photos", files).rows_applied == 30
    server.restart("kill")
    calls = VoisinV1(server.channel())
    assert [found(calls, "photos", files[key]).keys[0] for key in files] == list(files)
    reply = calls.Query(collection="photos", positives=[3], topk=2)
    assert len(reply.results[0].keys) == 2


def test_limits_are_those_of_the_settings(start_server):
    settings = {"limits.picture_bytes_max": 20_000, "limits.picture_pixels_max": 10_000, "limits.picture_ratio_max": 4,
                "embedding.queue_max": 4}
    calls = VoisinV1(start_server(settings=settings).channel())
    files = {"limits.picture_bytes_max": b"\xff\xd8" + bytes(20_001), "limits.picture_pixels_max": jpeg(scene(1, 101, 100)),
             "limits.picture_ratio_max": jpeg(scene(1, 90, 20))}
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", images=[*files.values(), jpeg(scene(1, 100, 100), 50)])])
    assert [failure.image for failure in reply.failures] == [0, 1, 2]
    for failure, setting in zip(reply.failures, files):
        assert setting in failure.message, failure.message
    # A request may have more pictures than may be on their way.
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", images=[jpeg(scene(1, 40, 40))] * 50)])
    assert not reply.failures and len(reply.vectors.vectors) == 50 * 524 * 4
    calls.CreateCollection(name="photos", vectors=[dict(name="embedding", params={"model": "holistic"})])
    refused(lambda: calls.SearchByImage(images=[jpeg(scene(1, 40, 40))] * 5, query=dict(collection="photos", topk=1)),
            grpc.StatusCode.OUT_OF_RANGE, "embedding.queue_max", "5")


def test_what_is_made_of_pictures_is_no_more_than_a_message_takes(start_server):
    """A picture of two bytes becomes a vector of 2,096, and a small file may become a large thumbnail."""
    calls = VoisinV1(start_server(settings={"limits.message_bytes_max": 65_536}).channel())
    calls.CreateCollection(name="photos", vectors=[dict(name="embedding", params={"model": "holistic"})],
                           forwards=[dict(name="thumbnail", type="VALUE_TYPE_BYTES")])
    [few, many, urls] = calls.EmbedImages(
        [calls.message("EmbedImagesRequest", images=[b""] * 31), calls.message("EmbedImagesRequest", images=[b""] * 32),
         calls.message("EmbedImagesRequest", urls=["x"] * 32)])
    assert len(few.failures) == 31 and len(few.vectors.vectors) == 31 * 524 * 4
    for reply in (many, urls):
        assert reply.status.code == 11 and not reply.failures
        assert "67072" in reply.status.message and "limits.message_bytes_max" in reply.status.message
    ack = write(calls, "photos", {key: b"" for key in range(32)})
    assert ack.status.code == 11 and "limits.message_bytes_max" in ack.status.message
    noise = Image.effect_noise((1000, 1000), 120)
    files = {key: jpeg(noise.resize((20 + key, 20 + key)), 30) for key in range(8)}
    large = encoded(scene(1, 800, 600), "WEBP", quality=30)
    assert write(calls, "photos", files, thumbnails=dict(column="thumbnail")).rows_applied == 8
    ack = write(calls, "photos", {0: large, 1: large}, thumbnails=dict(column="thumbnail", side_max=800))
    assert ack.status.code == 11 and "thumbnails" in ack.status.message and "limits.message_bytes_max" in ack.status.message
    assert calls.Count(collection="photos").rows == 8


class Form:
    """Calls with parts, over HTTP."""

    def __init__(self, server):
        self.base = f"http://{server.host}:{server.http_port}/api/v1"

    def __call__(self, path, images, request=None, **how):
        parts = [("image", (f"{n}.bin", file, "application/octet-stream")) for n, file in enumerate(images)]
        if request is not None:
            parts.append(("request", (None, json.dumps(request), "application/json")))
        answer = requests.post(self.base + path, files=parts, timeout=60, **how)
        return answer.status_code, answer.json()


def test_the_same_over_http(server, calls, photos):
    form, files = Form(server), [jpeg(scene(key)) for key in range(3)]
    rows = [{"key": key, "values": {"image_path": f"{key}.jpg"}} for key in range(3)]
    wanted = {"operation": "insert", "rows": rows, "thumbnails": {"column": "thumbnail"}, "width_column": "width"}
    status, written = form(f"/collections/{photos}/images", [files[0], b"broken", files[2]], wanted)
    assert (status, written["rows_applied"]) == (200, 2)
    assert [(f["row"], f["key"], f["code"]) for f in written["failures"]] == [(1, 1, "UNREADABLE_IMAGE")]
    status, result = form(f"/collections/{photos}/search-by-image", [files[2]], {"topk": 2, "forwards": ["image_path", "width"]})
    assert status == 200 and result["decode_us"] > 0 and result["exact"] is True
    assert [hit["key"] for hit in result["results"][0]] == [2, 0]
    assert result["results"][0][0]["values"] == {"image_path": "2.jpg", "width": 320}
    status, made = form("/embed", [files[0], b"broken"])
    assert (status, made["model"], made["dimension"], made["vectors"][1]) == (200, "holistic", 524, None)
    over_grpc = calls.Get(collection=photos, keys=[0], vectors=dict(names=["*"])).vectors[0].vectors
    assert np.allclose(np.frombuffer(over_grpc, np.float32), made["vectors"][0], atol=1e-6)
    models = requests.get(form.base + "/models", timeout=60).json()["models"]
    assert [(m["name"], m["dimension"], m["metric"], m["problem"]) for m in models] == [("holistic", 524, "Cosine", "")]


def test_forms_that_make_no_sense_are_refused(server, photos):
    form, file = Form(server), jpeg(scene(1))
    search, write_ = f"/collections/{photos}/search-by-image", f"/collections/{photos}/images"

    def check(expected, word, path, images, request=None, **how):
        status, answer = form(path, images, request, **how)
        assert status == expected and word in answer["error"]["message"], answer

    check(400, "topk", search, [file])
    check(400, "picture 0", search, [b"x"], {"topk": 1})
    check(400, "vector", search, [file], {"topk": 1, "vector": [1.0]})
    check(400, "unknown field", search, [file], {"topk": 1, "nothing": 1})
    check(404, "nothing", "/collections/nothing/search-by-image", [file], {"topk": 1})
    check(404, "nothing", "/embed", [file], {"model": "nothing"})
    check(400, "2 images", write_, [file, file], {"operation": "upsert", "rows": [{"key": 1}]})
    check(400, "operation", write_, [file], {"rows": [{"key": 1}]})
    check(404, "nothing", write_, [file], {"operation": "upsert", "rows": [{"key": 1, "values": {"nothing": 1}}]})
    check(403, "another site", search, [file], {"topk": 1}, headers={"Origin": "http://elsewhere.example"})
    base = form.base + search
    plain = requests.post(base, json={"topk": 1}, timeout=60)
    assert plain.status_code == 415 and "multipart/form-data" in plain.json()["error"]["message"]
    broken = requests.post(base, data=b"--x\r\n\r\n", headers={"content-type": "multipart/form-data; boundary=x"}, timeout=60)
    assert broken.status_code == 400
    other = requests.post(base, files=[("picture", file)], timeout=60)
    assert other.status_code == 400 and "picture" in other.json()["error"]["message"]


def test_what_runs_models_is_told(server, calls):
    base = f"http://{server.host}:{server.http_port}"
    assert requests.get(base + "/readyz", timeout=60).json()["embedding"] == {"provider": "CPUExecutionProvider"}

    def metric(name):
        lines = requests.get(base + "/metrics", timeout=60).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    assert metric('voisin_embedding_info{provider="CPUExecutionProvider"}') == 1
    before = metric('voisin_pictures_total{outcome="embedded"}'), metric('voisin_pictures_total{outcome="refused"}')
    calls.EmbedImages([calls.message("EmbedImagesRequest", images=[jpeg(scene(1)), b"x", jpeg(scene(2))])])
    after = metric('voisin_pictures_total{outcome="embedded"}'), metric('voisin_pictures_total{outcome="refused"}')
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)
    assert metric("voisin_pictures_waiting") == 0


def test_nothing_is_fetched_by_address_unless_hosts_are_named(start_server, calls, photos):
    request = calls.message("EmbedImagesRequest", urls=["https://example.org/a.jpg"])
    [reply] = calls.EmbedImages([request])
    assert reply.status.code == 3 and "fetch.hosts" in reply.status.message
    both = calls.message("EmbedImagesRequest", urls=["https://example.org/a.jpg"], images=[jpeg(scene(1))])
    [reply] = calls.EmbedImages([both])
    assert reply.status.code == 3 and "exclude" in reply.status.message

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            raise AssertionError("the server asked a host that it must not ask")

    inner = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=inner.serve_forever, daemon=True).start()
    try:
        own = start_server(settings={"fetch.hosts": "localhost, 127.0.0.1, *.example.org"})
        port = inner.server_address[1]
        refusals = {
            f"http://localhost:{port}/a.jpg": "port", "http://localhost/a.jpg": "no public address",
            "http://127.0.0.1/a.jpg": "no public address", "http://[::1]/a.jpg": "fetch.hosts",
            "https://example.com/a.jpg": "fetch.hosts", "file:///etc/passwd": "https:", "": "no address",
            "http://2130706433/a.jpg": "no public address",
        }
        allowed = VoisinV1(own.channel())
        [reply] = allowed.EmbedImages([allowed.message("EmbedImagesRequest", urls=list(refusals))])
        assert [failure.image for failure in reply.failures] == list(range(len(refusals)))
        for failure, word in zip(reply.failures, refusals.values()):
            assert word in failure.message, failure
        answer = requests.post(f"http://{own.host}:{own.http_port}/api/v1/embed",
                               files=[("url", (None, "http://localhost/a.jpg"))], timeout=60).json()
        assert answer["vectors"] == [None] and "no public address" in answer["failures"][0]["message"]
    finally:
        inner.shutdown()
        inner.server_close()


def test_a_caller_who_reads_no_replies_keeps_nobody_waiting(start_server):
    """Its replies pile up until no more may be sent; what it asked for must not keep its places meanwhile."""
    server = start_server(settings={"embedding.queue_max": 2})
    silent, calls = VoisinV1(server.channel()), VoisinV1(server.channel())
    file = jpeg(scene(1, 60, 40))
    request = silent.message("EmbedImagesRequest", images=[file] * 100)
    replies = silent.EmbedImages([request] * 40, read=lambda replies: replies, timeout=600)
    counted = []

    def stands_still():
        text = requests.get(f"http://{server.host}:{server.http_port}/metrics", timeout=60).text
        counted.append(int(re.search(r'voisin_pictures_total{outcome="embedded"} (\d+)', text)[1]))
        return len(counted) > 100 and 0 < counted[-1] == counted[-100]

    eventually(stands_still, 120, "the caller is not made to wait")
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", images=[file] * 20)])
    assert not reply.failures and len(reply.vectors.vectors) == 20 * 524 * 4
    replies.cancel()


def test_searches_are_answered_while_many_pictures_are_embedded(start_server):
    server = start_server(settings={"embedding.queue_max": 8})
    calls = VoisinV1(server.channel())
    calls.CreateCollection(name="photos", vectors=[dict(name="embedding", params={"model": "holistic"})])
    files = [jpeg(scene(seed)) for seed in range(8)]
    write(calls, "photos", dict(enumerate(files)))
    busy = calls.message("EmbedImagesRequest", images=files * 50)
    replies = []
    thread = threading.Thread(target=lambda: replies.extend(calls.EmbedImages([busy])))
    thread.start()
    for key, file in enumerate(files):
        assert list(found(calls, "photos", file).keys) == [key]
    thread.join(60)
    assert len(replies) == 1 and not replies[0].failures and len(replies[0].vectors.vectors) == 400 * 524 * 4
