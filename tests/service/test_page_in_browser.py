"""The search page in a real Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time

import httpx
import pytest

pytestmark = pytest.mark.browser
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, ESCAPE, DOWN = "\ue007", "\ue00c", "\ue015"


class Browser:
    """The few WebDriver commands the tests need."""

    def __init__(self, driver_url: str, chromium: str, profile: str) -> None:
        self.http = httpx.Client(base_url=driver_url, timeout=60)
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--window-size=1280,900",
            f"--user-data-dir={profile}",
        ]
        options = {"binary": chromium, "args": arguments}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self.http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        self.session = f"/session/{answer['sessionId']}"

    def command(self, name, body=None):
        answer = self.http.post(f"{self.session}/{name}", json=body or {})
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url):
        self.command("url", {"url": url})

    def js(self, script, *arguments):
        return self.command("execute/sync", {"script": script, "args": list(arguments)})

    def press(self, keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def click(self, selector):
        found = self.command("element", {"using": "css selector", "value": selector})
        self.command(f"element/{found[ELEMENT]}/click")

    def wait(self, script, *arguments):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if value := self.js(f"return {script}", *arguments):
                return value
            time.sleep(0.05)
        raise AssertionError(
            f"never true: {script}; the page says {self.js('return document.body.innerText')}"
        )

    def titles(self):
        return self.js("return [...document.querySelectorAll('#results h2')].map(title => title.textContent)")

    def log(self, kind):
        return self.command("se/log", {"type": kind})

    def quit(self):
        self.http.delete(self.session)
        self.http.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [chromedriver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if httpx.get(f"{url}/status").json()["value"]["ready"]:
                break
        except httpx.TransportError:
            time.sleep(0.05)
    made = Browser(url, chromium, str(tmp_path_factory.mktemp("profile")))
    yield made
    made.quit()
    driver.terminate()
    driver.wait(20)


@pytest.fixture
def page(browser, make_server):
    server = make_server()
    browser.open("about:blank")
    browser.log("performance")  # the new-tab page of the browser itself
    browser.open(server.url)
    browser.wait(
        "document.activeElement === document.getElementById('query') && !!document.querySelector('#using input')"
    )
    yield browser
    errors = [entry["message"] for entry in browser.log("browser") if entry["level"] == "SEVERE"]
    assert [error for error in errors if "422" not in error] == []  # chromium reports every 4xx answer
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith((server.url, "about:"))] == []
    browser.open("about:blank")  # let go of the server's connections


def test_typing_shows_results_with_the_words_marked(page):
    page.press("sleeping cat")
    page.wait("document.querySelectorAll('#results > li').length >= 4")
    page.wait("[...document.querySelectorAll('mark')].some(mark => mark.textContent === 'Cats')")
    assert page.js("return location.search") == "?q=sleeping+cat"
    assert "round trip" in page.js("return document.getElementById('status').textContent")


def test_markup_in_documents_stays_text(page):
    page.press("script alert friends")
    page.wait("document.body.innerText.includes('<b>Markup</b>')")
    assert page.js("return document.querySelectorAll('main script, h2 b').length") == 0


def test_the_keyboard_moves_opens_explains_and_returns(page):
    page.press("cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length >= 2")
    page.press(DOWN)
    page.press("j")
    page.wait("document.activeElement === document.querySelectorAll('article')[1]")
    page.press("e")
    page.wait("document.querySelectorAll('.why .part').length === 2")
    page.press(ENTER)
    page.wait("!!document.querySelector('.text.whole')")
    page.press("k")
    page.press("k")
    page.wait("document.activeElement.id === 'query'")
    page.press(ESCAPE)
    page.wait("document.querySelectorAll('#results > li').length === 0")
    page.press("?")
    assert page.js("return document.getElementById('query').value") == "?"


def test_facets_filter_and_the_back_button_undoes(page):
    page.press("city cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length === 5")
    page.click(".facet summary")
    page.click(".options label:nth-child(2) input")
    page.wait("document.querySelectorAll('#results > li').length === 2")
    assert "f.kind" in page.js("return location.search")
    page.js("history.back()")
    page.wait("document.querySelectorAll('#results > li').length === 5")
    assert "f.kind" not in page.js("return location.search")


def test_a_shared_address_brings_the_same_search(page):
    page.js("location.search = '?q=Paris&filter=kind+%3D+%22city%22'")
    page.wait("document.querySelectorAll('#results > li').length === 2")
    assert page.titles()[0] == "Paris"
    assert page.js("return document.getElementById('filter').value") == 'kind = "city"'


def test_a_wrong_filter_is_explained_beside_its_box(page):
    page.press("cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length > 0")
    page.click("#show-filter")
    page.press("kind >>")
    page.wait("document.getElementById('filter-error').textContent.includes('position')")
    assert page.js("return document.getElementById('filter').getAttribute('aria-invalid')") == "true"


def test_the_curl_command_is_the_search_on_the_page(page):
    page.press("it's cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length > 0")
    page.click("#show-curl")
    command = page.wait("document.getElementById('curl-text').textContent")
    answer = subprocess.run(["bash", "-c", command], capture_output=True, timeout=20, check=True).stdout
    assert b'"hits"' in answer
    page.press(ESCAPE)


def test_nothing_found_and_unreachable_server_say_so(page, make_server):
    page.js("location.search = '?q=cats&filter=kind+%3D+%22nowhere%22'")
    page.wait("document.getElementById('message').textContent.includes('Nothing found')")
    page.click("#message button")
    page.wait("document.querySelectorAll('#results > li').length === 5")


def test_the_reference_lists_every_operation(page):
    page.js("location.pathname = '/docs'")
    page.wait("document.querySelectorAll('section').length >= 6")
    assert "/v1/search" in page.js("return document.body.innerText")
