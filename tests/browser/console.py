"""The web page as a reader uses it: what is there by its name or role, keys, and what the browser noticed."""

import json
import os
import urllib.parse

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from server import eventually

PATIENCE = 30.0

DROP = """
const [target, name, type, base64] = arguments;
const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], name, { type }));
const make = (kind) => kind === "paste"
  ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
  : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
for (const kind of arguments[4]) target.dispatchEvent(make(kind));
"""


class Console:
    """The page of one server in a browser."""

    def __init__(self, driver, server, shots):
        self.driver, self.server, self._shots = driver, server, shots
        # For work on the page alone: another server that passes all but the page's files on.
        self.base = os.environ.get("VOISIN_CONSOLE_AT", "http://{http}").format(http=server.http)
        #: What the browser may complain about, besides nothing: parts of its messages.
        self.expected_errors = []

    def open(self, place="#/"):
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)
        self.driver.get(f"{self.base}/console/{place}")
        self.wait(lambda: self.driver.find_element(By.ID, "version").text, "the page says its version")
        return self

    def go(self, place):
        self.driver.execute_script("location.hash = arguments[0]", place)

    def reload(self):
        self.driver.refresh()
        self.wait(lambda: self.driver.find_element(By.ID, "version").text, "the page says its version")

    # ----- what is there -----

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        """The only element of a selector, waited for."""
        found = self.wait(lambda: self.all(css), f"{css} is there")
        assert len(found) == 1, f"{css} is there {len(found)} times"
        return found[0]

    def texts(self, css):
        return [node.text for node in self.all(css)]

    def button(self, name, within="body"):
        """The button or link that says this, waited for."""
        def named():
            nodes = self.all(f"{within} button, {within} a, {within} summary")
            return next((node for node in nodes if node.text == name or node.get_attribute("aria-label") == name), None)
        return self.wait(named, f"a button {name!r} is there: {self.main()}")

    def main(self):
        return self.driver.find_element(By.ID, "main").text

    def wait(self, check, what):
        """Waits for a condition; nodes that the page replaces meanwhile are looked for again."""
        def asked():
            try:
                return check()
            except StaleElementReferenceException:
                return None
        return eventually(asked, PATIENCE, what)

    def wait_for_text(self, text, css="#main"):
        self.wait(lambda: any(text in node.text for node in self.all(css)),
                  lambda: f"{text!r} is in {css}: {self.texts(css)}")

    def place(self):
        """Path and question of the address after `#`."""
        path, _, query = urllib.parse.urlsplit(self.driver.current_url).fragment.partition("?")
        return path, dict(urllib.parse.parse_qsl(query))

    def results(self):
        """Keys of the rows found, nearest first, once a search is done."""
        self.wait(lambda: self.all(".results .card") and not self.all("[aria-busy]"), lambda: f"rows are found: {self.main()}")
        return [card.get_attribute("data-key") for card in self.all(".results .card")]

    def pictures_shown(self, css):
        """Whether all pictures of a selector are there and loaded."""
        return self.driver.execute_script(
            "const all = [...document.querySelectorAll(arguments[0])];"
            "return all.length > 0 && all.every((one) => one.complete && one.naturalWidth > 0)", css)

    # ----- what a reader does -----

    def press(self, *keys):
        """Keys pressed wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def chord(self, held, key):
        """A key pressed while another is held."""
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def focus(self):
        """What has the focus: tag, name and text."""
        return self.driver.execute_script(
            "const node = document.activeElement;"
            "return [node.tagName.toLowerCase(), node.getAttribute('aria-label') ?? node.id, node.textContent.trim()]")

    def tab_to(self, name, most=60):
        """Presses Tab until something of this name has the focus."""
        seen = []
        for _ in range(most):
            self.press(Keys.TAB)
            seen.append(self.focus())
            if name in seen[-1]:
                return
        raise AssertionError(f"{name!r} cannot be reached by Tab: {seen}")

    def type(self, node, text):
        node.clear()
        node.send_keys(text)

    def slide(self, slider, value):
        """Moves a slider, as its own events tell it."""
        self.driver.execute_script(
            "const [node, value] = arguments; node.value = value;"
            "node.dispatchEvent(new Event('input', { bubbles: true }))", self.one(slider), value)

    def give(self, name, data, media_type="image/jpeg", how=("dragover", "drop"), onto="#main"):
        """Drops a picture on the page, or pastes it (`how=("paste",)`)."""
        import base64
        self.driver.execute_script(DROP, self.one(onto), name, media_type, base64.b64encode(data).decode(), list(how))

    def colours(self, *schemes):
        """What the system prefers: `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme} for scheme in schemes]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def brightness(self):
        """How bright the page's background is, from 0 to 255."""
        colour = self.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        numbers = colour[colour.index("(") + 1:-1].split(",")[:3]
        return sum(map(float, numbers)) / 3

    def shot(self, name):
        """Keeps a picture of what is seen."""
        self._shots.mkdir(parents=True, exist_ok=True)
        path = self._shots / f"{name}.png"
        assert self.driver.save_screenshot(str(path))
        return path

    # ----- what the browser noticed -----

    def requests(self):
        """The addresses asked for since the page was opened or this was called last."""
        sent = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                sent.append(message["params"]["request"]["url"])
        return sent

    def check(self):
        """No error on the browser's console, and no request to anybody else."""
        logged = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        unexpected = [line for line in logged if not any(part in line for part in self.expected_errors)]
        assert unexpected == [], unexpected
        ours = urllib.parse.urlsplit(self.base).netloc
        others = [url for url in self.requests() if urllib.parse.urlsplit(url).scheme not in ("blob", "data", "about")
                  and urllib.parse.urlsplit(url).netloc != ours and not url.startswith("chrome")]
        assert others == [], others
