"""Going to and fro: pages of rows, dialogs and their edges, and figures of more collections than one round asks for."""

import urllib.parse

import pytest
import requests
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

#: Keys beyond what a number of JavaScript can hold.
FIRST = (1 << 63) + 1


def numbered(server, name, count):
    """Makes a collection of rows with keys from FIRST on; returns its address in the API."""
    at = f"http://{server.http}/api/v1/collections/{name}"
    declared = {"vectors": [{"name": "v", "element": "FP32", "dimension": 2}], "forwards": [{"name": "n", "type": "int64"}]}
    requests.put(at, json=declared, timeout=60).raise_for_status()
    rows = [{"key": str(FIRST + n), "vectors": {"v": [n, 1]}, "values": {"n": n}} for n in range(count)]
    if rows:
        requests.post(f"{at}/rows", json={"operation": "insert", "rows": rows}, timeout=60).raise_for_status()
    return at


def delete(at, rows):
    requests.post(f"{at}/delete", json={"filter": rows}, timeout=60).raise_for_status()


def first_key(page):
    return int(page.texts(".rows tbody th")[0]) - FIRST


def usable(page, name):
    return page.button(name, ".pages").get_attribute("aria-disabled") == "false"


# ----- pages of rows -----


def test_pages_are_turned_by_keyboard(own_server, console):
    numbered(own_server, "rows", 160)
    page = console(own_server, "#/rows/browse")
    page.wait_for_text("1–50 of 160 rows")
    assert not usable(page, "Previous")
    page.tab_to("Next", most=150)
    for shown in ("51–100", "101–150", "151–160"):
        page.press(Keys.ENTER)
        page.wait_for_text(f"{shown} of 160 rows")
        assert page.focus()[2] == "Next", page.focus()
    # There are no more: the button stays where it is and does nothing.
    assert not usable(page, "Next") and usable(page, "Previous")
    page.press(Keys.ENTER)
    page.chord(Keys.SHIFT, Keys.TAB)
    page.press(Keys.SPACE)
    page.wait_for_text("101–150 of 160 rows")
    assert page.focus()[2] == "Previous" and first_key(page) == 100


def test_a_page_whose_rows_are_gone_leads_to_the_first(own_server, console):
    at = numbered(own_server, "rows", 60)
    page = console(own_server, "#/rows/browse")
    page.wait_for_text("1–50 of 60 rows")
    delete(at, "n >= 40")
    page.button("Next").click()
    page.wait_for_text("1–40 of 40 rows")
    page.wait_for_text("The rows of that page are gone", "#status")
    assert "no rows yet" not in page.main() and not usable(page, "Next") and not usable(page, "Previous")
    assert page.place() == ("/rows/browse", {})
    delete(at, "n >= 0")
    page.button("Reload").click()
    page.wait_for_text("The collection has no rows yet.")


def test_the_page_of_rows_is_in_the_address(own_server, console):
    at = numbered(own_server, "rows", 260)
    page = console(own_server, "#/rows/browse")
    page.type(page.one("#filter"), "n < 100 or n >= 120\n")
    page.wait_for_text("1–50 of 240 rows")
    for shown in ("51–100", "101–150", "151–200"):
        page.button("Next").click()
        page.wait_for_text(f"{shown} of 240 rows")
    here = ("/rows/browse", {"filter": "n < 100 or n >= 120", "after": str(FIRST + 169)})
    assert page.place() == here and first_key(page) == 170
    page.reload()
    page.wait_for_text("151–200 of 240 rows")
    assert page.place() == here and first_key(page) == 170
    page.button("Previous").click()
    page.wait_for_text("101–150 of 240 rows")
    assert first_key(page) == 120
    # To another view and back again.
    page.button("Schema").click()
    page.wait_for_text("Index columns")
    page.driver.back()
    page.wait_for_text("101–150 of 240 rows")
    # Followed as a link, the rows are as many before it as there are now, and Previous leads to the first page.
    delete(at, "n < 10")
    link = "#/rows/browse?" + urllib.parse.urlencode(here[1])
    page = console(own_server, link)
    page.wait_for_text("141–190 of 230 rows")
    assert first_key(page) == 170
    page.button("Previous").click()
    page.wait_for_text("1–50 of 230 rows")
    assert first_key(page) == 10 and "after" not in page.place()[1]
    # The tab leads to the first page, too.
    page.go(link)
    page.wait_for_text("141–190 of 230 rows")
    page.button("Browse").click()
    page.wait_for_text("1–50 of 250 rows")


def test_a_wrong_filter_is_told_as_it_was_written(own_server, console):
    numbered(own_server, "rows", 60)
    page = console(own_server)
    page.expected_errors += ["400 (Bad Request)"]
    page.go(f"#/rows/browse?filter=n+%3D+5&after={FIRST + 40}")
    page.wait_for_text("n = 5", "#filter-problem")
    assert "_key" not in page.one("#filter-problem").text


# ----- dialogs -----


def press_at(page, x, y):
    actions = ActionChains(page.driver)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(int(x), int(y))
    pointer.pointer_down()
    pointer.pointer_up()
    actions.perform()


def test_a_dialog_closes_by_a_press_beside_it_alone(own_server, console):
    page = console(own_server)
    page.button("New").click()
    # The scrollbar is a part of the dialog itself, as this edge is.
    page.driver.execute_script("arguments[0].style.paddingRight = '24px'", page.one("dialog[open]"))
    box = page.one("dialog[open]").rect
    middle = box["y"] + box["height"] / 2
    for x in (box["x"] + box["width"] - 10, box["x"] + 40):
        press_at(page, x, middle)
        assert page.all("dialog[open]"), f"it is open after a press at {x} of {box}"
    press_at(page, box["x"] + box["width"] + 30, middle)
    page.wait(lambda: not page.all("dialog"), "a press beside it closes it")


def test_a_step_back_closes_a_dialog(own_server, console):
    numbered(own_server, "rows", 3)
    page = console(own_server, "#/rows/search")
    page.results()
    page.button("Browse").click()
    page.button(str(FIRST + 1), ".rows").click()
    page.wait_for_text("2 numbers", "dialog[open]")
    page.driver.back()
    page.wait(lambda: page.place()[0] == "/rows/search" and not page.all("dialog"), "back, and no dialog")
    page.results()
    page.button("New").click()
    page.one("dialog[open]")
    page.driver.back()
    page.wait(lambda: not page.all("dialog"), "neither is a form")


# ----- figures -----

#: Tells of each answer with figures that the server has as many GiB of memory as there were answers.
COUNTED = """
const { fetch: ask } = window;
window.answers = 0;
window.fetch = async (...how) => {
  const answer = await ask(...how);
  if (!String(how[0]).endsWith("/stats")) return answer;
  const stats = await answer.json();
  window.answers += 1;
  stats.server_memory.anonymous = window.answers * 2 ** 30;
  return new Response(JSON.stringify(stats), { headers: { "content-type": "application/json" } });
};
"""


def test_all_collections_in_sight_get_their_figures(own_server, console):
    names = [f"c{number:02}" for number in range(50)]
    for name in names:
        numbered(own_server, name, 0)
    page = console(own_server)
    page.driver.set_window_size(1360, 2600)
    rows = lambda: page.texts("tbody tr[data-name] td:nth-child(2)")
    page.wait(lambda: rows() == ["0"] * 50, lambda: f"figures of all: {rows()}")
    page.wait_for_text("50 collections, 0 rows")
    # Each is asked again and again.
    page.requests()
    waited_for = set(names)

    def asked():
        waited_for.difference_update(url.split("/")[-2] for url in page.requests() if url.endswith("/stats"))
        return not waited_for
    page.wait(asked, lambda: f"asked again: {waited_for}")


@pytest.mark.parametrize("gone", ["a", "b"])
def test_the_memory_is_what_was_told_last(own_server, console, gone):
    for name in ("a", "b"):
        numbered(own_server, name, 1)
    page = console(own_server)
    page.wait(lambda: page.texts("tbody tr[data-name] td:nth-child(2)") == ["1", "1"], "figures of both")
    # One of the two is out of sight from now on; its old answer is no longer the last.
    page.go(f"#/{'b' if gone == 'a' else 'a'}")
    page.driver.execute_script("document.querySelector(`#side-list [data-name=${arguments[0]}]`).style.translate = '0 9000px'", gone)
    page.driver.execute_script(COUNTED)
    for least in (2, 4):
        page.wait(lambda: page.driver.execute_script("return answers") >= least, "more answers")
        page.wait(lambda: any(page.one("#server").text.startswith(f"Memory {more}.0 GiB") for more in range(least, least + 9)),
                  lambda: page.one("#server").text)
