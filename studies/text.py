"""Text from outside: bounded, and without what no database keeps.

PostgreSQL refuses NUL characters, and half a surrogate pair cannot be written in any encoding (pydantic refuses it).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

STORABLE = r"^[^\x00]*$"
"""Anything but NUL characters."""
METRIC = r"^val_[^\x00-\x1f\x7f]+$"
"""The name of a validation metric, on one line."""

Text = Annotated[str, Field(max_length=20_000, pattern=STORABLE)]
"""A text of many lines, such as the end of a log."""
Line = Annotated[str, Field(max_length=200, pattern=STORABLE)]
"""A name, or a few words."""


def storable(text: str) -> str:
    """The text with a replacement character for each character that cannot be stored.

    >>> storable("ends\\x00 with half a pair: \\ud800")
    'ends� with half a pair: �'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
