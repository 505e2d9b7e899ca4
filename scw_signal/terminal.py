"""Making text from elsewhere safe to show.

Metadata, replies and arguments can hold anything. A terminal obeys control
characters, and bidirectional overrides make text read as what it is not.
"""

from __future__ import annotations


def printable(value: str, most: int = 200) -> str:
    """Return `value` on one line, of at most `most` characters, with no controls."""
    shown = value[: most + 1]  # one more tells that there is more
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
    # Cn, Zl, Zp, and for separators but the space. ascii() needs no codec, which
    # would have to be loaded, as "unicode_escape" does.
    return char if char.isprintable() else ascii(char)[1:-1]
