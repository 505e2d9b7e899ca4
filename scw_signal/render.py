"""Output formats: pure functions from (name, value) pairs to text.

`document.flatten` makes the pairs: names as the metadata service spells them,
and values that are text, or None for null. A shell cannot hold a name that is not
an identifier, nor a value with a NUL. So the forms for shells leave those pairs
out; the JSON form has them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes 2 ms to import: a tenth of a cached look-up
if TYPE_CHECKING:
    from collections.abc import Iterable

    Pairs = Iterable[tuple[str, str | None]]

PREFIX = "SCW_"
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME = _LETTERS | frozenset("0123456789")
# The characters that the service itself leaves unquoted in its text form.
_BARE = _NAME | frozenset("abcdefghijklmnopqrstuvwxyz@%+=:,./-")


def is_name(name: str) -> bool:
    """Tell whether `name` matches [A-Z_][A-Z0-9_]*, so that a shell accepts it."""
    return name[:1] in _LETTERS and bool(name) and _NAME.issuperset(name)


def quote(value: str) -> str:
    """Return `value` in single quotes; sh(1) reads it back byte for byte."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def text(pairs: Pairs) -> str:
    """Render the text form of the metadata service: KEY=value lines.

    A value is quoted unless all its characters are harmless. A null is an empty
    right side, an empty string is two quotes.
    """
    return "".join(
        f"{name}={_bare_or_quoted(value)}\n"
        for name, value in pairs
        if is_name(name) and _shell_can_hold(value)
    )


def shell(pairs: Pairs, prefix: str = PREFIX) -> str:
    """Render assignments that are safe to source or eval in any POSIX shell.

    Every value is quoted, and every name begins with `prefix`. If two keys make the
    same name, the first is kept, as in a look-up.
    """
    return "".join(
        f"{prefix}{name}={quote(value or '')}\n"
        for name, value in pairs
        if is_name(prefix + name) and _shell_can_hold(value)
    )


def values(found: Iterable[str | None]) -> str:
    """Render one raw value a line; a null is an empty line."""
    return "".join(f"{value or ''}\n" for value in found)


def _bare_or_quoted(value: str | None) -> str:
    if value is None:
        return ""
    return value if value and _BARE.issuperset(value) else quote(value)


def _shell_can_hold(value: str | None) -> bool:
    return value is None or "\0" not in value
