"""Facets of real collections: segments that disagree about a field, deleted documents, odd names."""

from __future__ import annotations

import json

import pytest

from indexing.collection import Collection
from indexing.command_line import run
from service.cli import tercet
from service.facets import facets


def command(*arguments):
    assert run(tercet, [str(argument) for argument in arguments]) == 0


@pytest.fixture
def make_collection(tmp_path):
    """A collection with a segment for each list of metadata objects; ids count through all of them."""

    def make(*segments, chunk="none"):
        path = tmp_path / "collection"
        number = 0
        for position, records in enumerate(segments):
            corpus = tmp_path / f"part{position}.jsonl"
            with corpus.open("w") as stream:
                for record in records:
                    stream.write(json.dumps({"_id": f"d{number}", "text": "word " * 30, **record}) + "\n")
                    number += 1
            if position == 0:
                command("index", corpus, "-o", path, "--with", "bm25", "--chunk", chunk, "-q")
            else:
                command("add", path, corpus, "-q")
        return path

    return make


def facets_of(path):
    return {facet["name"]: facet for facet in facets(Collection.open(path).snapshot())}


@pytest.mark.parametrize("chunk", ["none", "8/2"])
def test_deleted_documents_do_not_count(make_collection, chunk):
    path = make_collection([{"year": 2000 + n} for n in range(4)], [{"year": 2003}], chunk=chunk)
    command("delete", path, "d0")
    year = facets_of(path)["year"]
    assert (year["min"], year["max"], year["n_values"]) == (2001, 2003, 3)
    assert year["values"][0] == (2003, 2)


def test_a_field_is_a_float_where_a_later_segment_made_it_one(make_collection):
    size = facets_of(make_collection([{"size": 1}, {"size": 2}], [{"size": 2.0}, {"size": 2.5}]))["size"]
    assert (size["type"], size["min"], size["max"], size["values"]) == (
        "float",
        1.0,
        2.5,
        [(2.0, 2), (1.0, 1), (2.5, 1)],
    )


def test_a_field_may_be_absent_from_a_segment_or_null_in_all_of_it(make_collection):
    path = make_collection(
        [{"kind": None, "tags": None}],
        [{"other": True}],
        [{"kind": "a", "tags": ["x", "y"]}, {"tags": ["y"]}, {"tags": []}],
    )
    found = facets_of(path)
    assert found["kind"]["values"] == [("a", 1)]
    assert found["tags"]["values"] == [("y", 2), ("x", 1)]
    assert found["other"]["values"] == [(True, 1)]


def test_a_field_that_is_null_everywhere_offers_nothing(make_collection):
    assert facets_of(make_collection([{"kind": None}]))["kind"]["values"] == []


def test_no_name_of_a_field_is_special(make_collection):
    names = ["_count", "*", "value"]
    found = facets_of(make_collection([dict.fromkeys(names, 7)]))
    assert all(found[name]["values"] == [(7, 1)] for name in names)
