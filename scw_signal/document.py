"""The metadata document: parsed from JSON, and laid flat under text keys.

What is known of the service's own text form, which these keys follow: KEY is
the path joined by `_` in upper case; a list is its length, then KEY_0 and on;
a dict is the names of its keys, then KEY_NAME; booleans are True and False.
The shapes drift with the years (`public_ip` has been a string, an object and
null), so nothing here expects any key to be there.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias

from .errors import NonsenseError
from .flat import canonical

Node: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"

# A real document has a few hundred values, four deep. The bounds keep a hostile
# one of 512 KiB, the most that is read, from taking the agent above 64 MiB in all:
# quoted for a shell, a character can become five of four bytes each.
MAX_NODES = 20_000
MAX_DEPTH = 64
MAX_KEY = 128  # characters of a flat key, which repeats the names of its parents
MAX_HOSTNAME = 253
_HOSTNAME = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII | re.IGNORECASE,
)
_BOM = b"\xef\xbb\xbf"
_BRACKET = re.compile(rb"[][{}]")
# One that does not end goes on to the end of the text: else each quotation mark in
# it would be looked at as the beginning of another.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


def parse(body: bytes) -> dict[str, Node]:
    """Parse a metadata document.

    Raises NonsenseError for anything but one JSON object within the bounds:
    broken JSON, invalid UTF-8, NaN or a number out of range, more than
    MAX_NODES values, nesting deeper than MAX_DEPTH, a flat key longer than MAX_KEY.
    """
    document = decode(body)
    if not isinstance(document, dict):
        raise NonsenseError("the document is JSON, but not an object")
    _check(document)
    return document


def decode(body: bytes) -> Node:
    """Return the value of a JSON text, which has MAX_NODES in it at most.

    Raises NonsenseError, also for nesting deeper than MAX_DEPTH. How many values
    there are and how deep they go is looked at before the parser builds anything:
    how deep it goes itself, and with how much of the stack, changes with the version
    of Python and the system.
    """
    # At least one of these per value.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_NODES:
        raise NonsenseError(f"the document has more than {MAX_NODES} values")
    if _depth(body) > MAX_DEPTH:
        raise NonsenseError("the document is nested too deep")
    try:
        node: Node = json.loads(
            body.removeprefix(_BOM).decode(),
            parse_constant=_number,
            parse_float=_number,
        )
    except UnicodeDecodeError:
        raise NonsenseError("the document is not UTF-8") from None
    except ValueError:
        raise NonsenseError(f"the document is not JSON{_looks_like(body)}") from None
    return node


def walk(document: dict[str, Node]) -> dict[str, Node]:
    """Return every value of the document, containers too, by its flat key.

    In the document's order. Where two paths make the same key, the first has it.
    """
    found: dict[str, Node] = {}

    def visit(prefix: str, node: Node) -> None:
        if prefix:
            found.setdefault(prefix[:-1], node)
        if isinstance(node, dict):
            for key, child in node.items():
                if prefix or key:
                    visit(f"{prefix}{canonical(_clean(key))}_", child)
        elif isinstance(node, list):
            for index, child in enumerate(node):
                visit(f"{prefix}{index}_", child)

    visit("", document)
    return found


def flatten(document: dict[str, Node]) -> list[tuple[str, str | None]]:
    """Return the document as (key, text) pairs; the text is None for null."""
    return [(key, _scalar(node)) for key, node in walk(document).items()]


def _scalar(node: Node) -> str | None:
    if node is None:
        return None
    if isinstance(node, list):
        return str(len(node))
    if isinstance(node, dict):
        return " ".join(canonical(_clean(key)) for key in node)
    return _clean(node) if isinstance(node, str) else str(node)


def _clean(value: str) -> str:
    """Replace lone surrogates, which JSON can spell and UTF-8 cannot."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _number(literal: str) -> float:
    """Parse a JSON float; NaN, Infinity and 1e999 are no JSON numbers."""
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(literal)
    return number


def _depth(body: bytes) -> int:
    """Return how deep a JSON text is nested, up to where it is none."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _check(node: Node, length: int = -1) -> None:
    """Hold the flat keys in a value against the bound; `length` is that of its own."""
    if length > MAX_KEY:
        raise NonsenseError(f"the document has keys of more than {MAX_KEY} characters")
    if isinstance(node, dict):
        for key, child in node.items():
            _check(child, length + 1 + len(key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            _check(child, length + 1 + len(str(index)))


def _looks_like(body: bytes) -> str:
    return " but HTML" if body.lstrip()[:1] == b"<" else ""


def is_hostname(name: str) -> bool:
    """Tell whether a name is one for a host: RFC 1123, 2.1, and no address."""
    return (
        len(name) <= MAX_HOSTNAME
        and _HOSTNAME.fullmatch(name) is not None
        and not name.rpartition(".")[2].isdigit()
    )
