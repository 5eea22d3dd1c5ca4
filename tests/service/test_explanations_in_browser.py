"""What the search page makes of explanations: weighted terms, heat maps, lists of a fused search."""

from __future__ import annotations

import pytest

from retrieval.protocols import Explanation

pytestmark = pytest.mark.browser
ENTER, RIGHT, END, SPACE = "\ue007", "\ue014", "\ue010", " "
CALL = "return import('/page/explanation.js').then(rules => rules[arguments[0]](...arguments[1]))"
CATS = "Cats sleep most of the day."


def part(label, value, parts=(), **facts):
    """An explanation as the API sends it."""
    return {"label": label, "value": value, "parts": list(parts), "facts": facts}


def term(label, value, origin):
    facts = {"term": origin, "query weight": 2.0, "document weight": value / 2}
    return Explanation(label, value, (), facts)


def token(label, value, matched, text, word):
    """A query token that matched a word of a text; the word is "" where it has no place there."""
    facts = {"position": 3 + text.find(word), "token": matched}
    if word:
        facts |= {"start": text.index(word), "end": text.index(word) + len(word)}
    return Explanation(label, value, (), facts)


def maxsim(*parts, **facts):
    return Explanation("MaxSim", sum(part.value for part in parts), parts, facts)


SPARSE = Explanation(
    "sum over shared terms",
    46.0,
    (
        term("small", 1.0, "expansion"),
        term("cat", 9.0, "of the query"),
        *(term(f"t{n}", float(n), "expansion") for n in range(1, 9)),
    ),
)
LATE = maxsim(
    token("[CLS]", 0.2, "[CLS]", CATS, ""),
    token("cat", 0.8, "cat", CATS, "Cat"),
    token("##s", 0.4, "##s", CATS, "s"),
    token("rest", 0.6, "sleep", CATS, "sleep"),
    token("slumber", 0.5, "sleep", CATS, "sleep"),
    token("title", 0.3, "cats", CATS, ""),
)


def explain(page, collection, reasons, id_="1"):
    """Search for cats and open the explanation of a document."""
    collection.reasons[id_] = reasons
    page.press("cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length === 5")
    page.js(
        """window.hit = [...document.querySelectorAll('article')].find(
             article => (article.querySelector('.id') ?? article.querySelector('h2')).textContent === arguments[0]);
           hit.querySelector('.explain').click()""",
        id_,
    )
    page.wait("!hit.querySelector('.why').hidden")


def texts(page, selector):
    return page.js("return [...hit.querySelectorAll(arguments[0])].map(found => found.textContent)", selector)


# --- rules, without the page


@pytest.mark.parametrize(
    ("explanation", "form"),
    [
        (part("inner product", 0.5, dim=384), "tree"),
        (part("bm25", 2.0, [part("cat", 2.0, tf=1, df=3)]), "terms"),
        (part("sum", 2.0, [part("cat", 2.0, term="of the query")]), "terms"),
        (part("lucene", 2.0, [part("7", 2.0, impact=3, **{"document weight": 1.0})]), "terms"),
        (part("sum of 2 lists", 2.0, [part("bm25", 1.0, rank=1), part("dense", 1.0, rank=4)]), "tree"),
        (part("MaxSim", 1.0, [part("token 0", 0.0), part("token 1", 1.0, position=4)]), "tokens"),
        (part("sparse MaxSim", 1.0, [part("a", 1.0, [part("cat", 1.0)], position=4)]), "tokens"),
        (part("MaxSim", 0.0), "tree"),
    ],
)
def test_the_form_of_an_explanation_follows_from_its_facts(page, explanation, form):
    assert page.js(CALL, "formOf", [explanation]) == form


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (8, 8), (9, 9), (10, 8), (40, 8)])
def test_terms_are_ranked_and_a_long_tail_is_folded(page, count, shown):
    parts = [part(f"t{n}", float(n % 7), df=n, n_documents=9) for n in range(count)]
    terms = page.js(CALL, "termsOf", [part("bm25", 1.0, parts)])
    assert (len(terms["shown"]), len(terms["folded"])) == (shown, count - shown)
    values = [found["value"] for found in terms["shown"] + terms["folded"]]
    assert values == sorted(values, reverse=True)
    assert terms["shared"] == ({} if count == 1 else {"n_documents": 9})


def test_places_of_one_word_add_up_and_places_outside_the_text_are_listed(page):
    parts = [
        part("b", 0.5, position=2, token="world", start=6, end=11),
        part("a", 0.5, position=1, token="hell", start=0, end=4),
        part("c", 0.25, position=5, token="o", start=4, end=5),
        part("d", 0.25, position=2, token="world", start=6, end=11),
        part("e", 0.1, position=9, token="far", start=10, end=99),
        part("f", 0.0),
    ]
    found = page.js(CALL, "matchesOf", [part("MaxSim", 1.6, parts), 11])
    assert [(s["start"], s["end"], s["value"], s["queries"]) for s in found["spans"]] == [
        (0, 4, 0.5, [1]),
        (4, 5, 0.25, [2]),
        (6, 11, 0.75, [0, 3]),
    ]
    assert [span["touches"] for span in found["spans"]] == [False, True, False]
    assert [span["level"] for span in found["spans"]] == [4, 2, 5]
    assert [(other["label"], other["queries"]) for other in found["outside"]] == [("far", [4])]
    assert found["queries"][5]["matched"] is None


@pytest.mark.parametrize(
    ("labels", "query", "pieces"),
    [
        (["[CLS]", "lam", "ina", "r", "flow", "[SEP]"], "Laminar flow", [0, 0, 1, 1, 0, 0]),
        (["lam", "##inar", "flow"], "laminar flow", [0, 1, 0]),
        (["boundary", "-", "layer"], "boundary-layer", [0, 0, 0]),
        (["search", "_", "query", ":", "rate"], "rate", [0, 0, 0, 0, 0]),
        (["token 0", "token 1", ""], "", [0, 0, 0]),
    ],
)
def test_pieces_of_a_word_are_found_in_the_query(page, labels, query, pieces):
    assert page.js(CALL, "areNextPieces", [labels, query]) == [bool(piece) for piece in pieces]


def test_overlapping_places_become_one(page):
    parts = [
        part("a", 1.0, position=1, token="x", start=0, end=4),
        part("b", 2.0, position=2, token="y", start=2, end=6),
    ]
    (span,) = page.js(CALL, "matchesOf", [part("MaxSim", 3.0, parts), 9])["spans"]
    assert (span["start"], span["end"], span["value"], span["queries"]) == (0, 6, 3, [0, 1])


# --- on the page


def test_expansion_terms_are_told_apart_in_words(page, collection):
    explain(page, collection, SPARSE)
    (legend,) = texts(page, ".legend")
    assert "in your query (1)" in legend
    assert "expansion: added by the model (9)" in legend
    shown = texts(page, "ul[aria-label='Matched terms'] .term")
    assert shown == ["cat", *(f"expansion: t{n}" for n in range(8, 1, -1))]
    assert texts(page, ".tail summary") == ["2 more, together 2"]
    assert page.js("return hit.querySelector('.tail').open") is False
    assert "query weight 2" in texts(page, ".part")[0]  # what all terms share is said once


def test_matched_words_are_shaded_and_pieces_joined(page, collection):
    explain(page, collection, LATE)
    assert texts(page, ".heat-text") == [CATS]
    assert texts(page, ".heat-text .heat") == ["Cat", "s", "sleep"]
    assert texts(page, ".heat-text .touches") == ["s"]
    assert texts(page, ".heat-text .heat-5") == ["sleep"]  # 0.6 + 0.5
    assert texts(page, ".besides .heat") == ["[CLS]", "cats"]
    assert texts(page, ".chip.piece") == ["s0.400"]


def test_the_keyboard_walks_the_query_tokens(page, collection):
    explain(page, collection, LATE)
    page.js("hit.querySelector('.chip').focus()")
    page.press(RIGHT)
    assert texts(page, ".heat.lit") == ["Cat"]
    page.press(RIGHT * 2)
    assert texts(page, ".heat.lit") == ["sleep"]
    assert texts(page, ".readout") == ["“rest” matches “sleep”: 0.600"]
    page.press(SPACE)
    assert page.js("return document.activeElement.getAttribute('aria-pressed')") == "true"
    page.js("document.activeElement.blur()")
    assert texts(page, ".heat.lit") == ["sleep"]  # pressed tokens stay lit
    assert page.js("return hit.querySelectorAll('.chip[tabindex=\"0\"]').length") == 1
    page.js("hit.querySelector('.chip[tabindex=\"0\"]').focus()")
    page.press(END)
    assert texts(page, ".heat.lit") == ["cats"]


def test_markup_in_documents_and_tokens_stays_text(page, collection):
    text = "<script>alert('x')</script> & friends"
    evil = "<img src=x onerror=alert(1)>"
    explain(
        page,
        collection,
        maxsim(token(evil, 0.5, evil, text, "script>alert("), token("q", 0.4, "<b>", text, "")),
        "5",
    )
    assert texts(page, ".heat-text") == [text]
    assert texts(page, ".heat-text .heat") == ["script>alert("]
    assert texts(page, ".besides .heat") == ["<b>"]
    assert page.js("return document.querySelectorAll('main script, main img, main b').length") == 0


def test_places_count_code_points(page, collection):
    text = "Köln is a city on the Rhine. 🐈"
    explain(page, collection, maxsim(token("cat", 0.5, "🐈", text, "🐈")), "a/b c?")
    assert texts(page, ".heat-text .heat") == ["🐈"]


def test_another_passage_than_the_one_shown_is_fetched(page, collection):
    facts = {"passage start": 5, "passage end": 20}
    own = CATS[5:20]
    explain(page, collection, maxsim(token("q", 0.5, "most", own, "most"), **facts))
    assert texts(page, ".heat-text") == [own]
    assert texts(page, ".heat-text .heat") == ["most"]


def test_lists_of_a_fused_search_hold_their_own_explanations(page, collection):
    lists = [
        Explanation("sparse", 1.0, (SPARSE,), {"rank": 1, "weight": 1.0}),
        Explanation("late", 0.5, (LATE,), {"rank": 2, "weight": 1.0}),
        Explanation("dense", 0.25, (Explanation("inner product", 0.7, (), {"dim": 384}),), {"rank": 3}),
    ]
    explain(page, collection, Explanation("sum of 3 lists (minmax)", 1.75, tuple(lists)))
    lines = texts(page, ".why > ul > li > ul > li > .part")
    assert lines == ["1sparse rank 1 weight 1 ", "0.500late rank 2 weight 1 ", "0.250dense rank 3 "]
    assert len(texts(page, ".tail")) == len(texts(page, ".heat-map")) == 1
    assert texts(page, ".why > ul > li > ul > li:last-child li .part") == ["0.700inner product dim 384 "]


def test_waiting_and_failing_leave_nothing_behind(page, collection):
    page.js("window.answer = window.fetch")
    page.press("cats" + ENTER)
    page.wait("document.querySelectorAll('#results > li').length === 5")
    page.js("""window.fetch = () => new Promise((_, refuse) => { window.refuse = refuse; });
               window.hit = document.querySelector('article'); hit.querySelector('.explain').click()""")
    assert page.js("return hit.querySelector('.explain').getAttribute('aria-busy')") == "true"
    assert page.js("return hit.querySelector('.why').hidden") is True
    page.js("refuse(new Error('the network is down')); window.fetch = answer")
    page.wait("hit.querySelector('.why .problem')?.textContent === 'the network is down'")
    assert page.js("return hit.querySelector('.explain').hasAttribute('aria-busy')") is False
    page.js("hit.querySelector('.explain').click(); hit.querySelector('.explain').click()")
    page.wait("hit.querySelectorAll('.why .part').length === 2")
    assert texts(page, ".why .problem") == []
