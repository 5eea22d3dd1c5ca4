from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.metadata_schema import MAX_FIELDS, TYPE_NAMES, MetadataSchema, polars_type
from retrieval.errors import FormatError


def test_integers_and_floats_merge_and_null_fits_anything() -> None:
    schema = MetadataSchema()
    schema.add({"n": 1, "s": None, "t": ["a"], "nothing": None}, "f:1")
    schema.add({"n": 0.5, "s": "x", "b": True, "d": datetime(2024, 1, 1)}, "f:2")
    schema.add({"n": 3, "s": None, "b": None}, "f:3")
    assert schema.to_json() == {
        "b": "boolean",
        "d": "datetime",
        "n": "float",
        "nothing": "null",
        "s": "string",
        "t": "strings",
    }


def test_a_conflict_names_both_places_the_field_and_both_values() -> None:
    schema = MetadataSchema()
    schema.add({"year": 2001}, "a.jsonl:3")
    schema.add({"year": None}, "a.jsonl:4")
    with pytest.raises(FormatError) as caught:
        schema.add({"year": "2002?"}, "a.jsonl:9")
    assert str(caught.value) == (
        "a.jsonl:9: the metadata field \"year\" is '2002?' (string) here and 2001 (integer) at a.jsonl:3; "
        "a field has one type in the whole collection"
    )
    assert (caught.value.path, caught.value.line) == ("a.jsonl", 9)


def test_a_conflict_shows_what_stood_there_with_its_own_type() -> None:
    schema = MetadataSchema()
    schema.add({"year": 2020}, "a.jsonl:1")
    schema.add({"year": 2020.5}, "a.jsonl:2")
    with pytest.raises(FormatError, match=r"is 'x' \(string\) here and 2020 \(integer\) at a\.jsonl:1"):
        schema.add({"year": "x"}, "a.jsonl:3")


def test_after_a_restart_a_conflict_names_the_earlier_type() -> None:
    schema = MetadataSchema.from_json({"flag": "boolean"})
    with pytest.raises(FormatError, match=r"is 1 \(integer\) here and boolean before"):
        schema.add({"flag": 1}, "f.txt")


@pytest.mark.parametrize(("value", "kind"), [(2**63, "64 bits"), (-(2**63) - 1, "64 bits"), (b"x", "bytes")])
def test_what_no_column_can_hold_is_refused(value, kind: str) -> None:
    with pytest.raises(FormatError, match=kind):
        MetadataSchema().add({"f": value}, "f:1")


def test_fields_are_bounded() -> None:
    schema = MetadataSchema()
    schema.add({f"f{n}": n for n in range(MAX_FIELDS)}, "f:1")
    with pytest.raises(FormatError, match="one metadata field more than the 1,000"):
        schema.add({"another": 1}, "f:2")


def test_every_type_has_a_column_type_that_holds_it() -> None:
    values = {
        "string": "a",
        "integer": -(2**63),
        "float": 0.5,
        "boolean": True,
        "strings": ["a"],
        "null": None,
    }
    for name in TYPE_NAMES.values():
        value = values.get(name, datetime(2024, 1, 1))
        assert pl.Series([value, None], dtype=polars_type(name)).to_list() == [value, None]


@given(
    st.lists(
        st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(-5, 5) | st.floats(allow_nan=False))
    )
)
def test_order_does_not_matter_and_json_restores_the_schema(records: list[dict]) -> None:
    forwards, backwards = MetadataSchema(), MetadataSchema()
    for record in records:
        forwards.add(record, "f:1")
    for record in reversed(records):
        backwards.add(record, "f:1")
    assert forwards.to_json() == backwards.to_json()
    assert MetadataSchema.from_json(forwards.to_json()).to_json() == forwards.to_json()
