"""Pictures in, similar pictures out: indexed over HTTP, then dropped, pasted and chosen in the web page."""

import json

import cv2
import pytest
import requests

import scenes
from server import Server

COUNT = 60


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A server whose collection `photos` was filled with pictures alone: it makes vectors and thumbnails of them."""
    folder = tmp_path_factory.mktemp("indexed")
    server = Server(folder / "data").start()
    api = f"http://{server.http}/api/v1"
    model = requests.get(f"{api}/models", timeout=60).json()["models"][0]
    assert model["built_in"] and not model["problem"], model
    declared = {"vectors": [{"name": "embedding", "element": "FP32", "params": {"model": model["name"]}}],
                "forwards": [{"name": "image_path", "type": "string"}, {"name": "kind", "type": "string"}, {"name": "thumbnail", "type": "bytes"}]}
    requests.put(f"{api}/collections/photos", json=declared, timeout=60).raise_for_status()
    rows, files = [], []
    server.pictures = {}
    for number in range(COUNT):
        kind = scenes.KINDS[number % len(scenes.KINDS)]
        key, picture = str((1 << 63) + number), scenes.draw(kind, number)
        path = f"{kind}/{kind}-{number:02}.jpg"
        server.pictures[key] = (path, picture)
        rows.append({"key": key, "values": {"image_path": path, "kind": kind}})
        files.append(("image", (path, scenes.jpeg(picture), "image/jpeg")))
    asked = {"operation": "upsert", "rows": rows, "thumbnails": {"column": "thumbnail", "side_max": 256}}
    answer = requests.post(f"{api}/collections/photos/images", files=[part(asked), *files], headers={"X-Voisin": "1"}, timeout=120)
    assert answer.status_code == 200 and answer.json() == {"rows_applied": COUNT, "failures": []}, answer.text
    yield server
    assert server.stop() == 0, server.tail()


def part(asked):
    return ("request", (None, json.dumps(asked), "application/json"))


def edited(picture):
    """As it comes back from elsewhere: smaller, cut a little, compressed hard."""
    height, width = picture.shape[:2]
    cut = picture[height // 40: -height // 40, width // 40: -width // 40]
    return scenes.jpeg(cv2.resize(cut, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), quality=40)


def found(server, data, **asked):
    """Keys that the API finds for a picture, nearest first, and their scores."""
    answer = requests.post(f"http://{server.http}/api/v1/collections/photos/search-by-image?keys=text", timeout=60,
                           files=[part(asked), ("image", ("x", data))], headers={"X-Voisin": "1"})
    assert answer.status_code == 200, answer.text
    return [hit["key"] for hit in answer.json()["results"][0]]


@pytest.mark.parametrize("how", ["drop", "paste", "choose"])
def test_a_picture_finds_its_like_and_one_goes_on_from_there(console, indexed, tmp_path, how):
    page = console(indexed, "#/photos")
    page.wait_for_text("Choose, drop or paste a picture")
    for key in [list(indexed.pictures)[number] for number in (1, 8, 15)]:
        path, picture = indexed.pictures[key]
        data, kind = edited(picture), path.split("/")[0]
        if how == "choose":
            (tmp_path / "mine.jpg").write_bytes(data)
            page.one("#picture").send_keys(str(tmp_path / "mine.jpg"))
        else:
            page.give("mine.jpg", data, how=("dragover", "drop") if how == "drop" else ("paste",))
        page.wait(lambda: page.results()[0] == key, lambda: f"{path} is the nearest: {page.texts('.caption')[:3]}")
        assert page.results() == found(indexed, data, topk=24)
        near = page.texts(".card .name")[:5]
        assert sum(name.startswith(kind) for name in near) >= 4, near
        page.wait(lambda: page.pictures_shown(".results img, .query-picture img"), "all pictures are loaded")
        latency = page.one(".latency").text
        for words in ("24 rows of 60", "server", "decode", "embed", "search", "round trip"):
            assert words in latency, latency
    # On from the second that was found.
    second = page.results()[1]
    page.all(".results .like")[1].click()
    page.wait(lambda: page.place()[1].get("like") == second and second not in page.results(), "its neighbours")
    near = page.texts(".card .name")[:5]
    assert sum(name.startswith(kind) for name in near) >= 4, near
    page.driver.back()
    page.wait(lambda: page.results()[0] == key, "back to the picture")


def test_filter_and_sliders_hold_for_pictures_too(console, indexed):
    key = list(indexed.pictures)[3]
    data = edited(indexed.pictures[key][1])
    page = console(indexed, "#/photos/search?k=7")
    page.expected_errors += ["400 (Bad Request)"]
    page.give("mine.jpg", data)
    page.wait(lambda: len(page.results()) == 7 and page.results()[0] == key, "7 rows")
    page.type(page.one("#filter"), 'kind == "sea"\n')
    page.wait(lambda: page.results() == found(indexed, data, topk=7, filter='kind == "sea"'), "seas alone")
    page.slide("#k", 3)
    page.wait(lambda: page.results() == found(indexed, data, topk=3, filter='kind == "sea"'), "3 of them")
    page.type(page.one("#filter"), "kind = 5\n")
    page.wait_for_text("invalid filter", "#filter-problem")


def test_what_is_no_picture_is_refused_with_words(console, indexed):
    page = console(indexed, "#/photos")
    page.expected_errors += ["400 (Bad Request)"]
    page.give("notes.txt", b"hello", "text/plain")
    page.wait_for_text("“notes.txt” is no picture", ".problem")
    whole = scenes.jpeg(indexed.pictures[list(indexed.pictures)[0]][1])
    page.give("broken.jpg", b"no picture at all" * 10)
    page.wait_for_text("picture", ".problem")
    words = page.one(".problem").text
    assert "notes.txt" not in words and page.all(".card") == []
    # And the page goes on.
    page.give("whole.jpg", whole)
    assert page.wait(lambda: page.results()[0] == list(indexed.pictures)[0], "it is found")
    assert page.all(".problem") == []


def test_pictures_of_other_formats_are_taken(console, indexed):
    key = list(indexed.pictures)[4]
    page = console(indexed, "#/photos")
    for name, data, media_type in (("a.png", scenes.png(indexed.pictures[key][1]), "image/png"),
                                   ("a.webp", scenes.webp(indexed.pictures[key][1]), "image/webp"),
                                   ("a.bmp", cv2.imencode(".bmp", indexed.pictures[key][1][..., ::-1])[1].tobytes(), "image/bmp")):
        page.give(name, data, media_type)
        page.wait(lambda: name in page.one(".query-picture").text and page.results()[0] == key, f"{name} finds its like")


def test_a_collection_for_pictures_is_created_in_the_page(console, indexed):
    page = console(indexed)
    page.button("New").click()
    page.one("dialog [name=name]").send_keys("made here")
    assert page.one("dialog input[value=pictures]").is_selected()
    page.button("Create", "dialog").click()
    page.wait_for_text("The collection has no rows yet.")
    assert "voisin index DIR --collection 'made here'" in page.main()
    api = f"http://{indexed.http}/api/v1/collections/made%20here"
    made = requests.get(api, timeout=60).json()
    assert made["vectors"][0]["params"]["model"] and made["vectors"][0]["dimension"] > 0
    assert {"name": "thumbnail", "type": "bytes"} in made["forwards"]
    requests.delete(api, timeout=60).raise_for_status()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screenshot_is_kept(console, indexed, scheme):
    """What README.md shows, as `target/browser/picture-light.png`."""
    key = list(indexed.pictures)[1]
    page = console(indexed, "#/photos/search?k=18")
    page.colours(scheme)
    try:
        page.give("holiday.jpg", edited(indexed.pictures[key][1]))
        page.wait(lambda: page.results()[0] == key and page.pictures_shown(".results img, .query-picture img"), "it is shown")
        page.wait(lambda: page.texts(".tile .figure")[0] == str(COUNT), "with its figures")
        assert page.shot(f"picture-{scheme}").stat().st_size > 50_000
    finally:
        page.colours("light")
