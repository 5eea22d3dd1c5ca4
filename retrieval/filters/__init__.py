r"""Conditions on metadata: a small grammar, typed errors, evaluated by polars to one boolean a document.

    filter     = and-part { "or" and-part }
    and-part   = not-part { "and" not-part }
    not-part   = "not" not-part | "(" filter ")" | test
    test       = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | field "in" "[" [ value { "," value } ] "]"
               | field "contains" string
               | "exists" field
    field      = letters, digits, "_", "." and "-", beginning with a letter or "_"; any other name in `backticks`
    value      = string | number | "true" | "false"
    string     = "double" or 'single' quoted, with JSON's escapes and \'
    number     = 12, -0.5, 1e6; integers have 64 bits

Keywords may be in any case. What the tests mean:

- A field that is missing, null or NaN makes every test false, ``!=`` too; ``not`` turns that round.
- Strings compare by code point, upper and lower case apart. ``contains`` on a string finds a part of it, on a list of
  strings a whole member; lists take no other test but ``exists``.
- Integers and floats compare as numbers. Booleans take ``=``, ``!=`` and ``in`` only.
- A time field compares with a string like "2024-01-31T12:30" (UTC unless it says otherwise) or "2024-01-31", which
  stands for the whole day: ``=`` within it, ``<`` before it begins, ``<=`` before it ends, ``>`` after it.

Example:
    >>> str(parse_filter("kind in ['class', 'function'] AND (year>=2020 or not exists year)"))
    'kind in ["class", "function"] and (year >= 2020 or not exists year)'
"""

from __future__ import annotations

from retrieval.filters.conditions import And, Compare, Contains, Exists, Filter, In, Not, Or
from retrieval.filters.grammar import FilterError, parse_filter

__all__ = [
    "And",
    "Compare",
    "Contains",
    "Exists",
    "Filter",
    "FilterError",
    "In",
    "Not",
    "Or",
    "parse_filter",
]
