"""Collections with several index columns, vectors that are no fractions, and distances that are large."""

import json
import shlex
import urllib.parse

import pytest
import requests
from selenium.webdriver.support.select import Select

import scenes
from server import Server

COUNT = 40


def fill(server, name, vectors, rows, forwards=()):
    """Makes a collection of index columns and rows; returns its address in the API."""
    at = f"http://{server.http}/api/v1/collections/{urllib.parse.quote(name, safe='')}"
    requests.put(at, json={"vectors": vectors, "forwards": list(forwards)}, timeout=60).raise_for_status()
    answer = requests.post(f"{at}/rows", json={"operation": "insert", "rows": rows}, timeout=60)
    assert answer.status_code == 200 and answer.json()["failures"] == [], answer.text
    return at


def found(at, **asked):
    """Keys that the API finds, nearest first."""
    answer = requests.post(f"{at}/query?keys=text", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return [hit["key"] for hit in answer.json()["results"][0]]


def chosen(page):
    return Select(page.one("#column")).first_selected_option.text


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """A server with a collection `two` whose columns have no model, and `mixed`, whose second has one."""
    server = Server(tmp_path_factory.mktemp("columns") / "data").start()
    a = {"name": "a", "element": "FP32", "dimension": 2, "metric": "SquaredEuclidean"}
    b = {"name": "b", "element": "FP32", "dimension": 2, "metric": "Cosine"}
    rows = [{"key": key, "vectors": {"a": [key, key % 3], "b": [1, (key * 7) % COUNT]}} for key in range(COUNT)]
    server.two = fill(server, "two", [a, b], rows)
    server.pictures = {str(key): scenes.draw(scenes.KINDS[key % len(scenes.KINDS)], key) for key in range(COUNT)}
    api = f"http://{server.http}/api/v1"
    model = requests.get(f"{api}/models", timeout=60).json()["models"][0]["name"]
    parts = [("request", (None, json.dumps({"model": model}), "application/json"))]
    parts += [("image", (key, scenes.jpeg(picture))) for key, picture in server.pictures.items()]
    answer = requests.post(f"{api}/embed", files=parts, headers={"X-Voisin": "1"}, timeout=120)
    assert answer.status_code == 200, answer.text
    embedded = answer.json()["vectors"]
    rows = [{"key": key, "vectors": {"plain": [key, 0], "embedding": embedded[key]}} for key in range(COUNT)]
    plain = {**a, "name": "plain", "metric": "Manhattan"}
    server.mixed = fill(server, "mixed", [plain, {"name": "embedding", "element": "FP32", "params": {"model": model}}], rows)
    yield server
    assert server.stop() == 0, server.tail()


# ----- which column is searched -----


def test_the_column_that_is_shown_is_searched(console, columns):
    page = console(columns, "#/two/search?like=5&k=9")
    assert page.results() == found(columns.two, column="a", positives=[5], topk=9)
    assert chosen(page) == "a" and "SquaredEuclidean" in page.one(".latency").text
    Select(page.one("#column")).select_by_value("b")
    of_b = found(columns.two, column="b", positives=[5], topk=9)
    page.wait(lambda: page.results() == of_b, lambda: f"by b: {page.results()}")
    assert "Cosine" in page.one(".latency").text and page.place()[1]["column"] == "b"
    page.reload()
    page.wait(lambda: page.results() == of_b and chosen(page) == "b", "the same after a reload")
    page.slide("#k", 4)
    page.wait(lambda: page.results() == of_b[:4], "4 of them")
    # An address without the column, and one of a column that is not there.
    for asked in ("like=5&k=4", "like=5&k=4&column=none"):
        page.go(f"#/two/search?{asked}")
        page.wait(lambda: chosen(page) == "a" and page.results() == found(columns.two, column="a", positives=[5], topk=4), asked)
    # On from a row that is offered, with nothing chosen before.
    page.go("#/two/search")
    page.wait_for_text("Click a row")
    page.all(".results .like")[3].click()
    page.wait(lambda: page.place()[1].get("like"), page.place)
    page.wait(lambda: page.results() == found(columns.two, column="a", positives=[page.place()[1]["like"]], topk=24), "its neighbours")


def test_a_picture_is_searched_in_a_column_that_has_a_model(console, columns):
    key = "8"
    page = console(columns, "#/mixed")
    page.wait_for_text("Choose, drop or paste a picture")
    assert chosen(page) == "embedding"
    # One without a model is chosen, and a picture comes all the same.
    Select(page.one("#column")).select_by_value("plain")
    page.wait(lambda: page.place()[1].get("column") == "plain", page.place)
    page.give("mine.jpg", scenes.jpeg(columns.pictures[key]))
    page.wait(lambda: page.results()[0] == key and "decode" in page.one(".latency").text, lambda: page.main())
    assert chosen(page) == "embedding" and "column" not in page.place()[1]
    assert {one.text: one.is_enabled() for one in Select(page.one("#column")).options} == {"plain": False, "embedding": True}
    page.slide("#k", 6)
    page.wait(lambda: len(page.results()) == 6 and page.results()[0] == key, lambda: page.main())
    assert not page.all(".problem") and "Manhattan" not in page.one(".latency").text
    # Rows like one can be searched for by either.
    page.all(".results .like")[0].click()
    of_embedding = found(columns.mixed, column="embedding", positives=[key], topk=6)
    page.wait(lambda: page.results() == of_embedding, "its neighbours")
    Select(page.one("#column")).select_by_value("plain")
    page.wait(lambda: page.results() == found(columns.mixed, column="plain", positives=[key], topk=6), "those by the other")
    assert "Manhattan" in page.one(".latency").text
    # Back to the picture, which plain cannot be searched by.
    page.driver.back()
    page.wait(lambda: page.results()[0] == key and chosen(page) == "embedding", "the picture again")


@pytest.mark.parametrize("name,column", [("two", "a"), ("mixed", "embedding")])
def test_the_query_to_begin_with_names_the_column(console, columns, name, column):
    page = console(columns, f"#/{name}/query")
    text = page.one("#json")
    page.wait(lambda: json.loads(text.get_attribute("value") or "{}").get("column") == column, lambda: text.get_attribute("value"))
    page.button("Run").click()
    page.wait(lambda: page.all(".answer") and page.one(".answer").text, lambda: page.main())
    answer = json.loads(page.one(".answer").text)
    assert [hit["key"] for hit in answer["results"][0]] == found(getattr(columns, name), column=column, positives=[0], topk=10)


# ----- numbers as they are -----


def test_whole_numbers_of_vectors_keep_their_digits(own_server, console):
    words = [(1 << 63) + 12345, (1 << 64) - 1, 7]
    fill(own_server, "bits", [{"name": "b", "element": "BINARY64", "dimension": 192, "metric": "Hamming"}],
         [{"key": key, "vectors": {"b": [words[0] ^ key, *words[1:]]}} for key in range(3)])
    fill(own_server, "short", [{"name": "s", "element": "INT16", "dimension": 3, "metric": "SquaredEuclidean"}],
         [{"key": 0, "vectors": {"s": [12345, -32767, 5]}}])
    fill(own_server, "real", [{"name": "r", "element": "FP32", "dimension": 3, "metric": "SquaredEuclidean"}],
         [{"key": 0, "vectors": {"r": [0.123456789, 12345, -98.7654321]}}])
    page = console(own_server)
    for name, numbers in (("bits", words), ("short", [12345, -32767, 5]), ("real", [0.1235, 12345, -98.77])):
        page.go(f"#/{name}/browse")
        page.button("0", ".rows").click()
        page.wait_for_text(f"3 numbers: {', '.join(map(str, numbers))}", "dialog[open]")
        page.button("Close", "dialog").click()
    # So does the answer of a query.
    page.go("#/bits/query")
    page.wait(lambda: page.one("#json").get_attribute("value"), "a query to begin with")
    page.type(page.one("#json"), '{"positives": [0], "topk": 1, "return_vectors": ["b"]}')
    page.button("Run").click()
    page.wait(lambda: page.all(".answer") and page.one(".answer").text, lambda: page.main())
    assert json.loads(page.one(".answer").text)["results"][0][0]["vectors"] == {"b": [words[0] ^ 1, *words[1:]]}


def test_large_distances_can_be_told_apart(own_server, console):
    steps = [30, 999, 1000, 1001, 1002, 1100, 3999, 30000]
    fill(own_server, "sift", [{"name": "v", "element": "INT16", "dimension": 2, "metric": "SquaredEuclidean"}],
         [{"key": 0, "vectors": {"v": [0, 0]}}, *({"key": step, "vectors": {"v": [step, 0]}} for step in steps)])
    page = console(own_server, "#/sift/search?like=0")
    assert page.results() == [str(step) for step in steps]
    assert page.texts(".card .score") == [f"{step * step:,}" for step in steps]


def test_the_line_for_curl_survives_a_name_with_quotes(own_server, console):
    name = "it's $(id) 'quoted'"
    fill(own_server, name, [{"name": "v'v", "element": "FP32", "dimension": 2}], [{"key": 1, "vectors": {"v'v": [1, 2]}}])
    page = console(own_server, f"#/{urllib.parse.quote(name, safe='')}/query")
    page.wait(lambda: page.one("#json").get_attribute("value"), "a query to begin with")
    page.type(page.one("#json"), '{"column": "v\'v", "vector": [1, 2], "topk": 1}')
    command, url, _, header, _, body = shlex.split(page.one("details .command").get_property("textContent"))
    assert command == "curl" and "'" not in url
    answer = requests.post(url, data=body, headers=dict([header.split(": ")]), timeout=60)
    assert answer.status_code == 200 and len(answer.json()["results"][0]) == 1, answer.text
