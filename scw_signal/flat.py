r"""The flat form of the metadata: a look-up reads it without parsing JSON.

It is a text file. The first line names the format. Each further line is a key,
`NAME=value`, or just `NAME` for null. Backslashes and newlines are escaped as `\\`
and `\n`, and an equals sign in a name as `\e`. So a plain search for a line that
begins with the name finds that key and nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see render
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER = "# scw-signal flat metadata 1\n"

# ASCII only: str.upper() turns a dotless i into I, so a different key would become ID.
_CANONICAL = str.maketrans("abcdefghijklmnopqrstuvwxyz.", "ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def canonical(key: str) -> str:
    """Spell a key as the pairs do: `public_ip.address` is PUBLIC_IP_ADDRESS."""
    return key.translate(_CANONICAL)


def dump(pairs: Iterable[tuple[str, str | None]]) -> str:
    """Return the flat form of (name, value) pairs."""
    return HEADER + "".join(
        _name(name) + ("\n" if value is None else f"={_escape(value)}\n")
        for name, value in pairs
    )


def load(flat: str) -> Iterator[tuple[str, str | None]]:
    """Return the pairs that `dump` was given, in their order."""
    for line in flat[len(HEADER) : -1].split("\n") if is_flat(flat) else ():
        if line:
            name, equals, value = line.partition("=")
            yield _unescape(name), _unescape(value) if equals else None


def is_flat(flat: str) -> bool:
    """Tell whether this is a whole document in this format."""
    return flat.startswith(HEADER) and flat.endswith("\n")


def find(flat: str, name: str) -> tuple[bool, str | None]:
    """Look up a name; return whether it exists, and its value.

    `name` must be spelled as `canonical` spells it.
    """
    start = f"\n{_name(name)}"
    at = flat.find(start + "=")
    if at < 0:
        return start + "\n" in flat, None
    at += len(start) + 1
    return True, _unescape(flat[at : flat.index("\n", at)])


def _name(name: str) -> str:
    return _escape(name).replace("=", "\\e")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    # Split at pairs of backslashes first: the second one of a pair begins no escape.
    return "\\".join(
        part.replace("\\n", "\n").replace("\\e", "=") for part in value.split("\\\\")
    )
