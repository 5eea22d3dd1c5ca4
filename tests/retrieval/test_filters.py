from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import ConfigError
from retrieval.filters import And, Compare, Contains, Exists, Filter, FilterError, In, Not, Or, parse_filter

TABLE = pl.DataFrame(
    {
        "kind": ["class", "function", None, "Class"],
        "year": [2019, None, 2021, -3],
        "score": [0.5, float("nan"), 2.0, None],
        "open": [True, False, None, True],
        "tags": [["a", "b"], [], None, ["ab"]],
        "when": [
            datetime(2024, 1, 31, 0, 0),
            datetime(2024, 1, 31, 23, 59, 59, 999999),
            datetime(2024, 2, 1),
            None,
        ],
        "never": [None] * 4,
    },
    schema_overrides={"when": pl.Datetime("us"), "tags": pl.List(pl.String), "never": pl.Null},
    strict=False,
)


def rows(text: str, table: pl.DataFrame = TABLE) -> list[int]:
    mask = parse_filter(text).evaluate(table)
    assert mask.dtype == np.bool_
    assert mask.shape == (table.height,)
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('kind = "class"', [0]),
        ("kind != 'class'", [1, 3]),
        ('not kind = "class"', [1, 2, 3]),
        ('kind in ["class", "function"]', [0, 1]),
        ("kind in []", []),
        ('kind contains "lass"', [0, 3]),
        ('tags contains "a"', [0]),
        ("exists tags", [0, 1, 3]),
        ("year >= 2019", [0, 2]),
        ("year < 0", [3]),
        ("year = 2019.0", [0]),
        ("year > 2018.5", [0, 2]),
        ("year < 1e300", [0, 2, 3]),
        ("year in [2021, -3.0]", [2, 3]),
        ("score <= 2", [0, 2]),
        ("score != 2", [0]),
        ("exists score", [0, 2]),
        ("open = true", [0, 3]),
        ("open != TRUE", [1]),
        ('when = "2024-01-31"', [0, 1]),
        ('when != "2024-01-31"', [2]),
        ('when < "2024-01-31"', []),
        ('when <= "2024-01-31"', [0, 1]),
        ('when > "2024-01-31"', [2]),
        ('when >= "2024-01-31"', [0, 1, 2]),
        ('when > "2024-01-31T00:00:00"', [1, 2]),
        ('when = "2024-02-01T02:00+02:00"', [2]),
        ('when in ["2024-01-31", "2024-02-01T00:00"]', [0, 1, 2]),
        ("never = 3 or never contains 'x'", []),
        ("not exists never", [0, 1, 2, 3]),
        ('(kind = "class" or kind = "function") and not year > 2000', [1]),
        ('kind = "class" or kind = "function" and year = 1', [0]),
    ],
)
def test_each_test_means_what_the_grammar_says(text: str, expected: list[int]) -> None:
    assert rows(text) == expected
    assert rows(str(parse_filter(text))) == expected


def test_zoned_times_and_dates_and_categories_are_compared_like_the_plain_types() -> None:
    table = pl.DataFrame(
        {
            "zoned": pl.Series([datetime(2024, 1, 1, 1, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin"),
            "day": pl.Series([datetime(2024, 1, 1).date()]),
            "category": pl.Series(["x"], dtype=pl.Categorical),
            "small": pl.Series([1], dtype=pl.Float32),
        }
    )
    text = 'zoned = "2024-01-01T01:00" and day = "2024-01-01" and category = "x" and small = 1'
    assert rows(text, table) == [0]


def test_field_names_that_polars_would_expand_name_one_column() -> None:
    table = pl.DataFrame({"^a.*$": [1], "*": [2], "ab": [3], "and": [4], "a`b\\": [5], "a-b.c": [6]})
    text = r"`^a.*$` = 1 and `*` = 2 and `and` = 4 and `a\`b\\` = 5 and a-b.c = 6"
    assert rows(text, table) == [0]
    assert parse_filter(text).fields() == {"^a.*$", "*", "and", "a`b\\", "a-b.c"}


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 1, "the filter is empty"),
        ("  ", 3, "the filter is empty"),
        ("kind", 5, "a comparison belongs here, not the end"),
        ("kind == 'a'", 6, 'equality is "="'),
        ("kind = class", 8, 'text and dates are quoted: "class"'),
        ("when > 2024-01-31", 8, 'text and dates are quoted: "2024-01-31"'),
        ("kind = 'a", 8, "the quote ' is never closed"),
        ("(a = 1", 7, '")" is missing before the end'),
        ("a = 1)", 6, "')' is one too many"),
        ("a = 1 b = 2", 7, 'join conditions with "and" or "or"'),
        ("a in 1", 6, '"in" takes a list'),
        ("a in [1 2]", 9, '"," or "]" belongs here'),
        ("a in [1,]", 9, "a value belongs here"),
        ("a contains 1", 12, '"contains" takes a quoted string'),
        ("and = 1", 1, "a field of that name is `and`"),
        ('"a" = 1', 1, "names are not quoted"),
        ("a = 9223372036854775808", 5, "does not fit 64 bits"),
        ("a = 1e999", 5, "is too large"),
        (r'a = "\q"', 6, r"the escape \q is unknown"),
        (r'a = "\ud800"', 5, "half of a surrogate pair"),
        ("a = 1 ; drop", 7, "';' is not understood here"),
        ("a = 12abc", 5, "is not understood here"),
        ("__import__('os')", 11, "a comparison belongs here"),
    ],
)
def test_what_does_not_parse_names_the_position_and_points_at_it(text: str, position: int, part: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert part in str(caught.value)
    assert f"at position {position}" in str(caught.value)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "  " + " " * (position - 1) + "^"


def test_a_long_filter_is_shown_around_the_trouble() -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter("a = 1 and " * 50 + "?")
    lines = str(caught.value).splitlines()
    assert max(map(len, lines)) < 110
    assert lines[1][len(lines[2]) - 1] == "?"


@pytest.mark.parametrize("bomb", ["(" * 200 + "a = 1" + ")" * 200, "not " * 100_000 + "a = 1"])
def test_deep_nesting_is_refused(bomb: str) -> None:
    with pytest.raises(FilterError, match="inside one another"):
        parse_filter(bomb)


def test_many_conditions_side_by_side_are_no_problem() -> None:
    assert rows(" or ".join(f"year = {year}" for year in range(3000))) == [0, 2]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nope = 1", ["'nope'", "kind", "when"]),
        (
            'year = "2020"',
            ['year = "2020" does not fit', "the field holds integers", "number without quotes"],
        ),
        ("kind = 3", ["kind ", "the field holds strings", "in quotes"]),
        ("kind = true", ["kind ", "the field holds strings"]),
        ("year = true", ["year ", "the field holds integers"]),
        ("open > true", ["open ", "the field holds booleans", "= and != only"]),
        ("open = 1", ["open ", "the field holds booleans", "true or false"]),
        ("when > 2024", ["when ", "the field holds times", "2024-01-31"]),
        ('when > "yesterday"', ["when holds times", '"yesterday" is none']),
        ('tags = "a"', ["tags ", "the field holds lists", "contains"]),
        ('year contains "1"', ["year ", "the field holds integers", "use ="]),
        ('kind in ["a", 1]', ["kind ", "the field holds strings"]),
    ],
)
def test_a_test_that_does_not_fit_the_field_names_field_type_and_remedy(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filter(text).evaluate(TABLE)
    for part in parts:
        assert part in str(caught.value)


def test_an_empty_table_gives_an_empty_mask() -> None:
    assert rows("year = 1 or kind in [] and not exists tags", TABLE.clear()) == []


def test_values_of_different_types_make_different_filters() -> None:
    assert len({parse_filter(f"a = {value}") for value in ("1", "1.0", "true", '"1"', "1.00")}) == 4


def test_importing_filters_does_not_import_polars() -> None:
    code = "import retrieval.filters, sys; retrieval.filters.parse_filter('a = 1'); assert 'polars' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Properties over generated conditions and tables.

names = st.sampled_from(["kind", "year", "score", "open", "tags", "when"])
operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
texts = st.text(st.sampled_from("ab é\"'\\\n😀"), max_size=3)
integers = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
floats = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from(
    [0.5, -1.5, 1.0, 2.0**63, 1e300]
)
moments = st.datetimes(datetime(2023, 12, 31), datetime(2024, 1, 2)).map(
    lambda moment: moment.replace(hour=moment.hour // 12 * 12, minute=0, second=0, microsecond=0)
)
days = moments.map(lambda moment: moment.date().isoformat())
times = days | moments.map(datetime.isoformat)

fitting = st.one_of(
    st.builds(Compare, st.just("kind"), operators, texts),
    st.builds(Compare, st.just("year"), operators, integers | floats),
    st.builds(Compare, st.just("score"), operators, integers | floats),
    st.builds(Compare, st.just("open"), st.sampled_from(["=", "!="]), st.booleans()),
    st.builds(Compare, st.just("when"), operators, times),
    st.builds(In, st.just("kind"), st.lists(texts, max_size=3).map(tuple)),
    st.builds(In, st.just("year"), st.lists(integers | floats, max_size=3).map(tuple)),
    st.builds(In, st.just("when"), st.lists(times, max_size=3).map(tuple)),
    st.builds(Contains, st.sampled_from(["kind", "tags"]), texts),
    st.builds(Exists, names),
)


def combined(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(And, several), st.builds(Or, several), st.builds(Not, parts))


conditions = st.recursive(fitting, combined, max_leaves=8)
records = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.none() | texts,
            "year": st.none() | integers,
            "score": st.none() | floats | st.just(math.nan),
            "open": st.none() | st.booleans(),
            "tags": st.none() | st.lists(texts, max_size=2),
            "when": st.none() | moments,
        }
    ),
    max_size=6,
)


def naive(condition: Filter, record: dict) -> bool:
    if isinstance(condition, And):
        return all(naive(part, record) for part in condition.parts)
    if isinstance(condition, Or):
        return any(naive(part, record) for part in condition.parts)
    if isinstance(condition, Not):
        return not naive(condition.part, record)
    value = record[condition.field]
    if value is None or value != value:
        return False
    if isinstance(condition, Exists):
        return True
    if isinstance(condition, Contains):
        return condition.value in value
    if isinstance(condition, In):
        return any(naive(Compare(condition.field, "=", one), record) for one in condition.values)
    low = high = condition.value
    if isinstance(value, float):
        low = high = float(condition.value)
    if isinstance(value, datetime):
        low = high = datetime.fromisoformat(condition.value)
        if "T" not in condition.value:
            high = low + timedelta(days=1) - timedelta(microseconds=1)
    answers = {
        "=": low <= value <= high,
        "!=": not low <= value <= high,
        "<": value < low,
        "<=": value <= high,
        ">": value > high,
        ">=": value >= low,
    }
    return answers[condition.op]


@given(conditions, records)
@settings(max_examples=300, deadline=None)
def test_evaluation_equals_plain_python_over_the_records(condition: Filter, table: list[dict]) -> None:
    schema = {
        "kind": pl.String,
        "year": pl.Int64,
        "score": pl.Float64,
        "open": pl.Boolean,
        "tags": pl.List(pl.String),
        "when": pl.Datetime("us"),
    }
    mask = condition.evaluate(pl.DataFrame(table, schema=schema, orient="row"))
    assert mask.tolist() == [naive(condition, record) for record in table]


any_value = texts | integers | floats | st.booleans()
any_name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(
    ["not", "In", "a.b"]
)
any_leaf = st.one_of(
    st.builds(Compare, any_name, operators, any_value),
    st.builds(In, any_name, st.lists(any_value, max_size=3).map(tuple)),
    st.builds(Contains, any_name, texts),
    st.builds(Exists, any_name),
)


@given(st.recursive(any_leaf, combined, max_leaves=12))
@settings(max_examples=300, deadline=None)
def test_parsing_the_canonical_form_gives_the_same_filter(condition: Filter) -> None:
    parsed = parse_filter(str(condition))
    assert parsed == condition
    assert hash(parsed) == hash(condition)
    assert repr(parsed) == repr(condition)


@given(st.text(st.sampled_from("ab=<>!()[],.\"'`\\ 01-andornotin"), max_size=30))
@settings(max_examples=500, deadline=None)
def test_any_text_parses_or_is_a_filter_error(text: str) -> None:
    try:
        parsed = parse_filter(text)
    except FilterError:
        return
    assert parse_filter(str(parsed)) == parsed
