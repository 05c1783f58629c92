"""Fixtures of the web page's tests: one Chromium for all of them, and a page of a test's own that is watched."""

import os
import pathlib
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from console import Console
from photographs import photographs
from server import ROOT, Server

#: Where screenshots of the last run lie.
SHOTS = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZE = (1360, 900)


@pytest.fixture(scope="session")
def driver():
    """A headless browser; the tests are skipped where there is none."""
    browser = os.environ.get("VOISIN_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    service = os.environ.get("VOISIN_CHROMEDRIVER") or shutil.which("chromedriver")
    if browser is None or service is None:
        pytest.skip("no Chromium with its chromedriver (Debian: apt-get install chromium chromium-driver; "
                    "elsewhere name them in VOISIN_CHROMIUM and VOISIN_CHROMEDRIVER)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--force-device-scale-factor=1", "--lang=en"):
        options.add_argument(flag)
    options.add_argument("--window-size=%d,%d" % SIZE)
    if os.geteuid() == 0:
        # Chromium's own sandbox does not run as root.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def console(driver):
    """Opens the page of a server: console(server). What it logged and whom it asked is checked at the end."""
    opened = []

    def check():
        if opened:
            opened.pop().check()

    def open_console(server, place="#/"):
        check()
        page = Console(driver, server, SHOTS)
        opened.append(page)
        return page.open(place)

    driver.set_window_size(*SIZE)
    yield open_console
    check()
    driver.get("about:blank")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A server with a collection `photos` that has thumbnails, and files below its picture root."""
    folder = tmp_path_factory.mktemp("gallery")
    root = folder / "pictures"
    server = Server(folder / "data", settings={"console.picture_root": str(root)})
    root.mkdir()
    server.start()
    server.known = photographs(server, "photos", root=root)
    server.root = root
    yield server
    assert server.stop() == 0, server.tail()
