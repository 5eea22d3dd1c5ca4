"""From the text of a filter to its conditions: a lexer of one regular expression and a recursive-descent parser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from retrieval.errors import ConfigError
from retrieval.filters.conditions import KEYWORDS, And, Compare, Contains, Exists, Filter, In, Not, Or, Value

DEEPEST = 100
"""Most parentheses and ``not`` inside one another."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2}[0-9T:.Z+-]*)
    | (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<word>[A-Za-z_][A-Za-z0-9_.\-]*)
    | (?P<quoted>`(?:[^`\\]|\\.)+`)
    | (?P<sign>==|!=|<>|<=|>=|=|<|>|\(|\)|\[|\]|,)
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = frozenset(("=", "!=", "<", "<=", ">", ">="))
_HINTS = {"==": 'equality is "="', "<>": '"not equal" is "!="'}
_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)


class FilterError(ConfigError):
    """A filter that does not parse.

    Attributes:
        text: the filter.
        position: where in it the trouble is, from 0.
    """

    def __init__(self, message: str, text: str, position: int) -> None:
        self.text = text
        self.position = position
        start = text.rfind("\n", 0, position) + 1
        line = text[start:].split("\n", 1)[0]
        cut = max(0, position - start - 60)  # a long filter is shown around the trouble only
        shown = line[cut : cut + 100].replace("\t", " ")
        caret = " " * (position - start - cut) + "^"
        super().__init__(f"filter: {message} at position {position + 1}\n  {shown}\n  {caret}")


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse_filter(text: str) -> Filter:
    """Parse a filter; ``str`` of the result is its canonical form.

    Raises:
        FilterError: the text is no filter; names the position.
    """
    return _Parser(text).whole()


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            blank = re.compile(r"\s*").match(text, position)
            where = blank.end() if blank else position
            if text[where] in "\"'`":
                raise FilterError(f"the quote {text[where]} is never closed", text, where)
            raise FilterError(f"{text[where]!r} is not understood here", text, where)
        kind = match.lastgroup or "end"
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        if kind == "end":
            return tokens
        position = match.end()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Filter:
        if self._peek().kind == "end":
            self._fail('the filter is empty; write for example kind = "class"')
        parsed = self._any()
        if self._peek().kind != "end":
            self._fail(f'{self._shown()} is one too many; join conditions with "and" or "or"')
        return parsed

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _fail(self, message: str, position: int | None = None) -> NoReturn:
        raise FilterError(message, self._text, self._peek().position if position is None else position)

    def _shown(self) -> str:
        token = self._peek()
        return "the end" if token.kind == "end" else repr(token.text)

    def _keyword(self) -> str:
        token = self._peek()
        lowered = token.text.lower()
        return lowered if token.kind == "word" and lowered in KEYWORDS else ""

    def _accept(self, sign: str) -> bool:
        if self._peek()[:2] == ("sign", sign):
            self._next += 1
            return True
        return False

    def _any(self) -> Filter:
        parts = self._joined("or", self._all)
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Filter:
        parts = self._joined("and", self._one)
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _joined(self, keyword: str, part: Callable[[], Filter]) -> list[Filter]:
        parts = [part()]
        while self._keyword() == keyword:
            self._next += 1
            parts.append(part())
        return parts

    def _one(self) -> Filter:
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail(f'more than {DEEPEST} parentheses and "not" inside one another')
        if self._keyword() == "not":
            self._next += 1
            parsed: Filter = Not(self._one())
        elif self._accept("("):
            parsed = self._any()
            if not self._accept(")"):
                self._fail(f'")" is missing before {self._shown()}')
        elif self._keyword() == "exists":
            self._next += 1
            parsed = Exists(self._field())
        else:
            parsed = self._test()
        self._depth -= 1
        return parsed

    def _field(self) -> str:
        if self._keyword():
            word = self._peek().text
            self._fail(
                f"a field name belongs here, not the keyword {word!r}; a field of that name is `{word}`"
            )
        token = self._peek()
        if token.kind == "word":
            return self._take().text
        if token.kind == "quoted":
            return self._unescaped(self._take())
        quoted = " (names are not quoted, or in `backticks`)" if token.kind == "string" else ""
        self._fail(f"a field name belongs here, not {self._shown()}{quoted}")

    def _test(self) -> Filter:
        field = self._field()
        token = self._peek()
        if token.kind == "sign" and token.text in _OPERATORS:
            self._next += 1
            return Compare(field, token.text, self._value())
        if self._keyword() == "in":
            self._next += 1
            return In(field, self._list())
        if self._keyword() == "contains":
            self._next += 1
            if self._peek().kind != "string":
                self._fail(f'"contains" takes a quoted string, not {self._shown()}')
            return Contains(field, self._unescaped(self._take()))
        hint = _HINTS.get(token.text, "=, !=, <, <=, >, >=, in or contains")
        self._fail(f"a comparison belongs here, not {self._shown()}: {hint}")

    def _list(self) -> tuple[Value, ...]:
        if not self._accept("["):
            self._fail(f'"in" takes a list like ["a", "b"], not {self._shown()}')
        values: list[Value] = []
        while not self._accept("]"):
            if values and not self._accept(","):
                self._fail(f'"," or "]" belongs here, not {self._shown()}')
            values.append(self._value())
        return tuple(values)

    def _value(self) -> Value:
        token = self._peek()
        if token.kind == "string":
            return self._unescaped(self._take())
        if token.kind == "number":
            return self._number(self._take())
        if self._keyword() in ("true", "false"):
            return self._take().text.lower() == "true"
        if token.kind in ("word", "date"):
            self._fail(f'text and dates are quoted: "{token.text}"')
        self._fail(f"a value belongs here, not {self._shown()}: a quoted string, a number, true or false")

    def _number(self, token: _Token) -> int | float:
        if re.fullmatch(r"-?[0-9]+", token.text):
            if len(token.text) > 20 or not -(1 << 63) <= int(token.text) < 1 << 63:
                self._fail(f"{token.text[:30]} does not fit 64 bits", token.position)
            return int(token.text)
        number = float(token.text)
        if number in (float("inf"), float("-inf")):
            self._fail(f"{token.text[:30]} is too large", token.position)
        return number

    def _unescaped(self, token: _Token) -> str:
        def character(match: re.Match[str]) -> str:
            escape = match[0]
            if escape[1] in "'`":
                return escape[1]
            try:
                unescaped: str = json.loads(f'"{escape}"')
            except ValueError:
                self._fail(
                    f"the escape {escape} is unknown; a backslash is written \\\\",
                    token.position + 1 + match.start(),
                )
            return unescaped

        text = _ESCAPE.sub(character, token.text[1:-1])
        try:  # two \u escapes may make one character beyond the basic plane
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._fail("half of a surrogate pair is no character", token.position)
