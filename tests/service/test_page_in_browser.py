"""The search page in a real Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import subprocess

import pytest

pytestmark = pytest.mark.browser
ENTER, ESCAPE, DOWN = "\ue007", "\ue00c", "\ue015"


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
