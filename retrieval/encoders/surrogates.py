"""Text that is not quite Unicode, made so for libraries and servers that insist."""

from __future__ import annotations


def valid_text(text: str) -> str:
    """The text with each lone surrogate as U+FFFD; UTF-8 cannot write one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
