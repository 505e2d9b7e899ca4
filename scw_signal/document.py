"""The metadata document: parsed from JSON, and flattened to text keys.

The keys follow the service's own text form: KEY is the path, joined by `_`, in
upper case. A list has its length as value, and its items are KEY_0 and so on. A
dict has the names of its keys as value, and its items are KEY_NAME. Booleans are
True and False. The document changes over the years (`public_ip` has been a string,
an object and null), so this code does not expect any key to exist.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias

from .errors import NonsenseError
from .flat import canonical

Node: TypeAlias = "bool | int | float | str | list[Node] | dict[str, Node] | None"

# A real document has a few hundred values in four levels. With these bounds, even a
# hostile document of 512 KiB, the most that is read, keeps the agent below 64 MiB:
# quoted for a shell, one character can become five of four bytes each.
MAX_NODES = 20_000
MAX_DEPTH = 64
MAX_KEY = 128  # characters of a flat key, which includes the names of its parents
MAX_HOSTNAME = 253
_HOSTNAME = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*",
    re.ASCII | re.IGNORECASE,
)
_BOM = b"\xef\xbb\xbf"
_BRACKET = re.compile(rb"[][{}]")
# A string without its closing quotation mark matches up to the end of the text.
# Otherwise the search would start again at each quotation mark in it.
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
    """Return the value of a JSON text.

    Raises NonsenseError, also for more than MAX_NODES values or nesting deeper than
    MAX_DEPTH. Both are checked before the parser runs: its own limit of depth, and
    the stack that it uses, depend on the version of Python and on the system.
    """
    # Each value has at least one of these.
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

    They keep the document's order. If two paths make the same key, the first wins.
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
    """Replace lone surrogates, which exist in JSON but not in UTF-8."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _number(literal: str) -> float:
    """Parse a JSON float; NaN, Infinity and 1e999 are not JSON numbers."""
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(literal)
    return number


def _depth(body: bytes) -> int:
    """Return how deep a JSON text is nested; also works if it is broken JSON."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _check(node: Node, length: int = -1) -> None:
    """Check the length of the flat keys in a value; `length` is that of its own key."""
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
    """Tell whether this is a host name (RFC 1123, 2.1), and not an address."""
    return (
        len(name) <= MAX_HOSTNAME
        and _HOSTNAME.fullmatch(name) is not None
        and not name.rpartition(".")[2].isdigit()
    )
