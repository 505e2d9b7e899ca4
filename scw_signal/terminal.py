"""Makes foreign text safe to show.

Metadata, replies and arguments can hold any characters. A terminal obeys control
characters, and bidirectional overrides make text look different from what it is.
"""

from __future__ import annotations


def printable(value: str, most: int = 200) -> str:
    """Return `value` as one line of at most `most` characters, controls escaped."""
    shown = value[: most + 1]  # the extra character shows that `value` is longer
    if not shown.isprintable():
        shown = "".join(map(_escaped, shown))
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def lines(value: str) -> str:
    """Return `value` with its newlines and tabs kept and other controls escaped."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(char if char in "\n\t" else _escaped(char) for char in value)


def _escaped(char: str) -> str:
    # isprintable() is False for the categories Cc, Cf (bidi overrides), Cs, Co,
    # Cn, Zl, Zp, and for separators except the space. ascii() is used because the
    # codec "unicode_escape" would have to be loaded.
    return char if char.isprintable() else ascii(char)[1:-1]
