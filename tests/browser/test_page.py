"""The web page: what it shows and what can be done with it, by mouse and by keyboard."""

import json
import urllib.parse

import numpy as np
import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from photographs import photographs


def nearest(known, key, count, among=lambda path: True):
    """Keys by distance from a row, itself left out: every one of them compared."""
    wanted = known[key][1]
    others = [(float(np.square(vector - wanted).sum()), int(other)) for other, (path, vector) in known.items()
              if other != key and among(path)]
    return [str(other) for _, other in sorted(others)[:count]]


# ----- collections, live -----


def test_without_collections_it_says_what_to_do_next(own_server, console):
    page = console(own_server)
    page.wait_for_text("There are no collections yet.")
    assert "voisin index DIR --collection photos" in page.main()
    page.shot("empty")
    page.button("create a collection").click()
    page.one("dialog[open]")


def test_collections_are_listed_with_live_figures(own_server, console):
    photographs(own_server, "photos", 6)
    page = console(own_server)
    cells = lambda: page.texts("tbody tr[data-name=photos] td")
    page.wait(lambda: cells()[:2] == ["6", "1"], lambda: f"6 rows in a segment: {cells()}")
    assert cells()[2].endswith("KiB") and "colours: FP32 × 192, SquaredEuclidean" in cells()[5]
    # Written by somebody else: seen without a reload.
    at = f"http://{own_server.http}/api/v1/collections"
    rows = [{"key": key, "vectors": {"colours": [0] * 192}} for key in range(4)]
    requests.post(f"{at}/photos/rows", json={"operation": "insert", "rows": rows}, timeout=60).raise_for_status()
    page.wait(lambda: cells()[0] == "10", lambda: f"10 rows: {cells()}")
    # Rows without a picture are no error.
    page.go("#/photos/browse")
    page.wait(lambda: len(page.all(".picture.none")) == 4, "4 rows have no picture")
    page.wait(lambda: page.texts(".tile .figure")[0] == "10", "the collection's own figures")
    requests.delete(f"{at}/photos", timeout=60).raise_for_status()
    page.wait_for_text("There is no collection “photos”.")
    page.wait(lambda: page.texts("#side-list a") == [], "it is gone at the side, too")


#: Notes the timers that wait, from now on.
TIMERS = """
const { setTimeout: set, clearTimeout: clear } = window;
window.timers = new Map();
window.setTimeout = (work, millis) => {
  const id = set(() => { timers.delete(id); work(); }, millis);
  timers.set(id, millis);
  return id;
};
window.clearTimeout = (id) => { timers.delete(id); clear(id); };
"""
HIDE = """
Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
document.dispatchEvent(new Event("visibilitychange"));
"""


def test_a_hidden_page_asks_nothing(console, gallery):
    page = console(gallery)
    page.wait_for_text("photos")
    page.driver.execute_script(TIMERS)
    waiting = lambda: page.driver.execute_script("return [...timers.values()]")
    page.wait(lambda: waiting() == [2000], lambda: f"the next round waits: {waiting()}")
    page.driver.execute_script(HIDE, True)
    # A round that was under way ends; without a timer none begins.
    page.wait(lambda: waiting() == [], lambda: f"no round waits: {waiting()}")
    page.requests()
    page.driver.execute_script(HIDE, False)
    page.wait(lambda: any(url.endswith("/api/v1/collections") for url in page.requests()), "it asks again")
    page.wait(lambda: waiting() == [2000], "and goes on asking")


def test_a_server_that_is_gone_is_told_and_found_again(own_server, console):
    photographs(own_server, "photos", 6)
    page = console(own_server, "#/photos/browse")
    page.expected_errors += ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
    page.wait_for_text("6 of 6 rows")
    http = own_server.http
    assert own_server.stop() == 0
    page.wait_for_text("The server does not answer", "#offline")
    own_server.start(http_address=http)
    page.wait(lambda: not page.one("#offline").is_displayed(), "it is found again")


def test_names_of_all_kinds_are_shown_as_they_are(own_server, console):
    names = ["<img src=x onerror=alert(1)>", "a b&c?d#e%f", "Straße 猫", "..."]
    for name in names:
        at = f"http://{own_server.http}/api/v1/collections/{urllib.parse.quote(name, safe='')}"
        body = {"vectors": [{"name": "<b>v<b>", "element": "FP32", "dimension": 2}], "forwards": [{"name": "<i>f"}]}
        requests.put(at, json=body, timeout=60).raise_for_status()
        values = {"<i>f": "<script>alert(2)</script>"}
        rows = {"operation": "insert", "rows": [{"key": 1, "vectors": {"<b>v<b>": [1, 2]}, "values": values}]}
        requests.post(f"{at}/rows", json=rows, timeout=60).raise_for_status()
    page = console(own_server)
    page.wait(lambda: page.texts("#side-list .name") == sorted(names), lambda: page.texts("#side-list .name"))
    for name in names:
        next(link for link in page.all("#side-list a") if link.get_attribute("title") == name).click()
        page.wait(lambda: page.texts("h1") == [name], lambda: page.texts("h1"))
        page.button("Browse").click()
        page.wait_for_text("<script>alert(2)</script>")
        page.reload()
        page.wait_for_text("<script>alert(2)</script>")
        assert page.texts("h1") == [name]
        page.button("Schema").click()
        page.wait_for_text("<b>v<b>")


# ----- searching -----


def test_rows_like_one_are_its_nearest_in_order(console, gallery):
    start = list(gallery.known)[7]
    page = console(gallery, f"#/photos/search?like={start}&k=9")
    assert page.results() == nearest(gallery.known, start, 9)
    page.wait(lambda: page.pictures_shown(".results img"), "all pictures are loaded")
    scores = [float(text) for text in page.texts(".card .score")]
    assert scores == sorted(scores) and scores[0] > 0
    latency = page.one(".latency").text
    assert "9 rows of 36" in latency and "server" in latency and "round trip" in latency and "exact" in latency
    # On from the third, and back again.
    third = page.results()[2]
    page.all(".results .like")[2].click()
    page.wait(lambda: page.place()[1].get("like") == third, page.place)
    page.wait(lambda: page.results() == nearest(gallery.known, third, 9), "the neighbours of that one")
    page.driver.back()
    page.wait(lambda: page.results() == nearest(gallery.known, start, 9), "the first ones again")
    page.reload()
    page.wait(lambda: page.results() == nearest(gallery.known, start, 9), "the address keeps it all")


def test_sliders_and_filter_are_followed_and_kept_in_the_address(console, gallery):
    start = list(gallery.known)[0]
    page = console(gallery, f"#/photos/search?like={start}")
    assert len(page.results()) == 24
    page.slide("#k", 5)
    page.wait(lambda: page.results() == nearest(gallery.known, start, 5), "5 are shown")
    page.slide("#ef", 200)
    page.type(page.one("#filter"), 'kind in ["city", "sea"]\n')
    page.wait(lambda: page.results() == nearest(gallery.known, start, 5, lambda path: path.startswith(("city", "sea"))),
              "cities and seas alone")
    path, asked = page.place()
    assert path == "/photos/search" and asked == {"like": start, "k": "5", "ef": "200", "filter": 'kind in ["city", "sea"]'}
    page.reload()
    page.wait(lambda: len(page.results()) == 5, "the same after a reload")
    assert page.one("#filter").get_attribute("value") == 'kind in ["city", "sea"]'
    page.type(page.one("#filter"), 'width < 0\n')
    page.wait_for_text("No row passes the filter.")


def test_a_filter_that_is_wrong_is_marked_where_it_is(console, gallery):
    start = list(gallery.known)[0]
    for view in ("search", "browse"):
        page = console(gallery, f"#/photos/{view}?like={start}")
        page.expected_errors += ["400 (Bad Request)"]
        page.wait(lambda: page.all(".card, .rows tbody tr"), "rows are shown")
        box = page.one("#filter")
        page.type(box, "width > 10 and\n")
        page.wait_for_text("invalid filter", "#filter-problem")
        assert box.get_attribute("aria-invalid") == "true" and "^" in page.one("#filter-problem").text
        page.type(box, "width > 10\n")
        page.wait(lambda: page.one("#filter-problem").text == "", "the problem is gone")
        assert box.get_attribute("aria-invalid") is None


def test_a_collection_without_a_model_says_so_and_offers_rows(console, gallery):
    page = console(gallery, "#/photos")
    page.wait_for_text("No column of this collection names a model")
    assert len(page.results()) == 24
    first = page.results()[0]
    page.all(".results .like")[0].click()
    page.wait(lambda: page.place()[1].get("like") == first and page.results()[0] != first, "it is searched from")


# ----- rows -----


def test_rows_are_browsed_page_by_page_and_shown_whole(console, start_server):
    own_server = start_server(settings={"limits.readers_max": 3})
    known = photographs(own_server, "photos", 60)
    page = console(own_server, "#/photos/browse")
    page.wait_for_text("1–50 of 60 rows")
    keys = lambda: page.texts(".rows tbody th")
    assert keys() == sorted(known, key=int)[:50]
    page.button("Next").click()
    page.wait_for_text("51–60 of 60 rows")
    assert keys() == sorted(known, key=int)[50:] and page.button("Next").get_attribute("aria-disabled") == "true"
    page.button("Previous").click()
    page.wait_for_text("1–50 of 60 rows")
    # However often somebody looks, nothing stays open.
    at = f"http://{own_server.http}/api/v1/collections/photos/scroll"
    for _ in range(3):
        page.button("Reload").click()
        page.wait_for_text("1–50 of 60 rows")
    assert requests.post(at, json={"limit": 1}, timeout=60).status_code == 200
    key = keys()[3]
    page.button(key).click()
    dialog = lambda: page.one("dialog[open]").text
    page.wait(lambda: known[key][0] in dialog(), dialog)
    assert key in dialog() and "192 numbers" in dialog() and "bytes" in dialog()
    page.wait(lambda: page.pictures_shown("dialog img"), "its picture")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all("dialog"), "Escape closes it")
    assert page.focus()[2] == key, "the focus is where it was"
    page.type(page.one("#filter"), f'image_path == "{known[key][0]}"\n')
    page.wait_for_text("1–1 of 1 row")
    assert keys() == [key]
    page.button(key).click()
    page.button("More like this", "dialog").click()
    page.wait(lambda: page.place() == ("/photos/search", {"like": key}), page.place)
    page.wait(lambda: page.results() == nearest(known, key, 24), "its neighbours")


def test_a_json_query_is_run_as_it_is_written(console, gallery):
    page = console(gallery, "#/photos/query")
    page.expected_errors += ["400 (Bad Request)"]
    text = page.one("#json")
    first = sorted(gallery.known, key=int)[0]
    page.wait(lambda: json.loads(text.get_attribute("value") or "{}").get("positives") == [first], "a query to begin with")
    # Keys as numbers, which JavaScript cannot hold, go as they stand.
    page.type(text, '{"positives": [%s], "topk": 3, "forwards": ["kind"], "return_vectors": ["*"]}' % first)
    page.chord(Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page.all(".answer") and page.one(".answer").text, "an answer")
    answer = json.loads(page.one(".answer").text)
    assert [hit["key"] for hit in answer["results"][0]] == nearest(gallery.known, first, 3)
    assert "round trip" in page.one(".latency").text
    for wrong, words in (('{"topk": 3', "This is no JSON"), ('{"topk": 3}', "none of vector, vectors and positives"),
                         ('{"positiv": [1], "topk": 3}', "positiv")):
        page.type(text, wrong)
        page.button("Run").click()
        page.wait_for_text(words, ".problem")
        assert not page.one(".answer").is_displayed()


# ----- creating and dropping -----


def test_a_collection_is_created_and_dropped_with_its_name_typed(own_server, console):
    page = console(own_server)
    page.expected_errors += ["409 (Conflict)", "400 (Bad Request)"]
    page.button("New").click()
    field = lambda name: page.one(f"dialog [name={name}]")
    field("name").send_keys("my / photos")
    page.one("dialog input[value=vectors]").click()
    page.type(field("vector"), "v")
    page.type(field("dimension"), "3")
    page.button("Add a column", "dialog").click()
    page.press("label")
    page.driver.find_elements(By.CSS_SELECTOR, "dialog .columns select")[0].send_keys("string")
    page.button("Create", "dialog").click()
    page.wait_for_text("path", "dialog .problem")
    page.type(field("name"), "my photos")
    page.button("Create", "dialog").click()
    page.wait(lambda: page.texts("h1") == ["my photos"], "it is shown")
    declared = requests.get(f"http://{own_server.http}/api/v1/collections/my%20photos", timeout=60).json()
    assert [(v["name"], v["dimension"], v["metric"]) for v in declared["vectors"]] == [("v", 3, "Cosine")]
    assert declared["forwards"] == [{"name": "label", "type": "string"}]

    page.button("New").click()
    field("name").send_keys("my photos")
    page.one("dialog input[value=vectors]").click()
    page.button("Create", "dialog").click()
    page.wait_for_text("exists already", "dialog .problem")
    page.press(Keys.ESCAPE)

    page.button("Schema").click()
    page.button("Drop the collection").click()
    drop = page.button("Drop it", "dialog")
    for typed in ("", "my", "My photos", "my photos "):
        page.type(field("confirm"), typed)
        assert not drop.is_enabled(), typed
        field("confirm").send_keys(Keys.ENTER)
        assert page.all("dialog[open]"), typed
    assert requests.get(f"http://{own_server.http}/api/v1/collections/my%20photos", timeout=60).status_code == 200
    page.type(field("confirm"), "my photos")
    drop.click()
    page.wait_for_text("There are no collections yet.")
    assert requests.get(f"http://{own_server.http}/api/v1/collections/my%20photos", timeout=60).status_code == 404


# ----- keyboard and looks -----


def test_everything_is_reached_by_keyboard(console, gallery):
    page = console(gallery)
    page.wait_for_text("photos")
    page.press(Keys.TAB)
    assert page.focus()[2] == "Skip to the content"
    for name in ("New", "photos36", "theme"):
        page.tab_to(name)
    page.driver.refresh()
    page.wait_for_text("photos")
    page.tab_to("photos36")
    page.press(Keys.ENTER)
    page.wait(lambda: page.texts("h1") == ["photos"], "the collection is shown")
    for name in ("Search", "Browse", "Query", "Schema", "k", "ef", "filter"):
        page.tab_to(name)
    # Enter and Space search on from a row; what has the focus then is the first row found.
    for key in (Keys.ENTER, Keys.SPACE):
        page.wait(lambda: page.results(), "rows are shown")
        wanted = page.results()[1]
        page.driver.execute_script("arguments[0].focus()", page.all(".results .like")[0])
        page.press(Keys.TAB)
        assert page.focus()[1].startswith("Values of")
        page.press(Keys.TAB)
        assert page.focus()[1].startswith("2. ")
        page.press(key)
        page.wait(lambda: page.place()[1].get("like") == wanted, page.place)
        page.wait(lambda: wanted not in page.results() and page.focus()[1].startswith("1. "), page.focus)
    # The slider moves by arrow keys.
    page.one("#k").send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.wait(lambda: page.place()[1].get("k") == "22" and len(page.results()) == 22, page.place)
    # What has the focus is seen to have it.
    page.press(Keys.TAB)
    page.driver.execute_script("document.querySelector('.results .like').focus()")
    page.chord(Keys.SHIFT, Keys.TAB)
    style = page.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert style == "solid"


def test_every_control_has_a_name(console, gallery):
    unnamed = """
    const name = (node) => node.getAttribute("aria-label") || node.textContent.trim() || node.title
      || [...(node.labels ?? [])].map((label) => label.textContent.trim()).join("");
    return [...document.querySelectorAll("button, a, input, select, textarea, dialog, nav, section")]
      .filter((node) => !name(node) && !node.getAttribute("aria-labelledby")).map((node) => node.outerHTML);
    """
    page = console(gallery)
    page.wait_for_text("photos")
    for place in ("#/", f"#/photos/search?like={list(gallery.known)[0]}", "#/photos/browse", "#/photos/query", "#/photos/schema"):
        page.go(place)
        page.wait(lambda: "Loading" not in page.main(), "it is shown")
        assert page.driver.execute_script(unnamed) == []
    page.button("New").click()
    page.one("dialog input[value=vectors]").click()
    page.button("Add a column", "dialog").click()
    assert page.driver.execute_script(unnamed) == []
    duplicates = "const ids = [...document.querySelectorAll('[id]')].map((n) => n.id); return ids.filter((id, at) => ids.indexOf(id) !== at)"
    assert page.driver.execute_script(duplicates) == []


def test_dark_and_light_follow_the_system_and_the_choice(console, gallery):
    page = console(gallery, f"#/photos/search?like={list(gallery.known)[2]}&k=18")
    try:
        page.colours("dark")
        page.wait(lambda: page.brightness() < 60, "dark where the system is")
        page.wait(lambda: page.results() and page.pictures_shown(".results img"), "all pictures are loaded")
        page.shot("rows-dark")
        page.one("#theme").send_keys("Light")
        page.wait(lambda: page.brightness() > 200, "light by choice")
        page.reload()
        assert page.brightness() > 200, "the choice is kept"
        page.wait(lambda: page.results() and page.pictures_shown(".results img"), "all pictures are loaded")
        page.shot("rows-light")
        page.one("#theme").send_keys("System")
        page.wait(lambda: page.brightness() < 60, "dark again")
    finally:
        page.colours("light")
        page.driver.execute_script("localStorage.clear()")


@pytest.mark.parametrize("width", [360, 700, 1920])
def test_it_fits_the_window(console, gallery, width):
    page = console(gallery)
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    try:
        for place in ("#/", f"#/photos/search?like={list(gallery.known)[0]}", "#/photos/browse", "#/photos/query", "#/photos/schema"):
            page.go(place)
            page.wait(lambda: "Loading" not in page.main(), "it is shown")
            wide = page.driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{place} is {wide} wide"
        page.shot(f"width-{width}")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# ----- pictures -----


def test_pictures_come_from_thumbnails_or_from_the_picture_root(console, start_server, tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    own = start_server(settings={"console.picture_root": str(root)})
    photographs(own, "small", 6)
    known = photographs(own, "files", 6, with_thumbnails=False, root=root)
    for name in ("small", "files"):
        page = console(own, f"#/{name}")
        page.results()
        page.wait(lambda: page.pictures_shown(".results img"), f"all pictures of {name} are loaded")
    # A file that is gone: what the row holds stands in its place.
    page.expected_errors += ["404 (Not Found)"]
    key = list(known)[0]
    (root / known[key][0]).unlink()
    page.reload()
    page.wait(lambda: page.all(f"[data-key='{key}'] .picture.none"), "no picture, but values")
    assert known[key][0] in page.one(f"[data-key='{key}'] .picture").text


def test_without_thumbnails_and_root_no_pictures_are_asked_for(own_server, console):
    known = photographs(own_server, "photos", 6, with_thumbnails=False)
    page = console(own_server, "#/photos")
    assert sorted(page.results(), key=int) == sorted(known, key=int)
    assert len(page.all(".picture.none")) == 6
    assert not any("/pictures/" in url for url in page.requests())
