"""SSH public keys in the metadata, as authorized_keys lines.

They come from two places: `ssh_public_keys`, which has been a list of lines and
a list of objects with a `key`, and tags `AUTHORIZED_KEY=...`, in which `_` stands
for a space.

Strategy: each line is parsed and rebuilt from its parts. So the output is always one
key, on one line, without options: in authorized_keys, everything before the type is
an option, and can be a command. A bad line is left out; the others are kept. sshd(8)
itself checks whether the numbers inside are a valid key.

Also left out: ssh-dss, which OpenSSH no longer accepts, and certificates, which
have no meaning in authorized_keys.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .document import Node

TAG = "AUTHORIZED_KEY="
# Characters, including the comment; an RSA key of 16384 bits has 2800.
LONGEST_KEY_LINE = 8192
_BREAKS = frozenset("\n\r\0")
# The types of login keys: sshd(8), AUTHORIZED_KEYS FILE FORMAT.
KINDS = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


class _RejectedError(Exception):
    """A line is not a login key; the text says why."""


def authorized_keys(document: dict[str, Node]) -> tuple[list[str], list[str]]:
    """Return the lines for authorized_keys, and the complaints about bad lines.

    The account's keys come first, in the document's order. A key that appears
    twice, perhaps with another comment, is returned once. A complaint is one
    printable line; it begins with the metadata key of the bad line, such as `tags.3`.
    """
    lines: dict[tuple[str, bytes], str] = {}
    complaints = []
    for place, node in _candidates(document):
        try:
            kind, blob, comment = _parse(node)
        except _RejectedError as error:
            complaints.append(f"{place}: {error}")
        else:
            words = (kind, base64.b64encode(blob).decode(), comment)
            lines.setdefault((kind, blob), " ".join(filter(None, words)))
    return list(lines.values()), complaints


def _candidates(document: dict[str, Node]) -> Iterator[tuple[str, Node]]:
    """Yield everything that may be a key, with its place in the document."""
    account = document.get("ssh_public_keys")
    if isinstance(account, list):
        for index, entry in enumerate(account):
            key = entry.get("key") if isinstance(entry, dict) else entry
            yield f"ssh_public_keys.{index}", key
    elif account is not None:
        yield "ssh_public_keys", None
    tags = document.get("tags")
    for index, tag in enumerate(tags if isinstance(tags, list) else ()):
        if isinstance(tag, str) and tag.startswith(TAG):
            yield f"tags.{index}", tag[len(TAG) :].replace("_", " ")


def _parse(node: Node) -> tuple[str, bytes, str]:
    """Split a line into type, blob and comment; raises _RejectedError."""
    if not isinstance(node, str):
        raise _RejectedError("there is no key")
    line = node.strip()
    if len(line) > LONGEST_KEY_LINE:
        raise _RejectedError(f"longer than {LONGEST_KEY_LINE} characters")
    if not _BREAKS.isdisjoint(line):
        raise _RejectedError("not a single line")
    kind, encoded, comment = (*line.split(maxsplit=2), "", "", "")[:3]
    if kind not in KINDS:
        raise _RejectedError(
            f"begins with {printable(kind, 20)!r}, which is not a type of login key"
        )
    blob = _decoded(encoded)
    # The blob begins with its type as a string: RFC 4251, section 5.
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
        raise _RejectedError(f"says {kind}, but is another type of key")
    return kind, blob, _cleaned(comment)


def _decoded(encoded: str) -> bytes:
    """Decode base64 strictly (RFC 4648): padded, no other character, no spare bits."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        blob = b""
    if not blob or base64.b64encode(blob).decode() != encoded:
        raise _RejectedError("not base64 after the type: cut off or changed")
    return blob


def _cleaned(comment: str) -> str:
    """Return the printable part of a comment: no key is rejected for its comment."""
    shown = (char if char.isprintable() else " " for char in comment)
    return " ".join("".join(shown).split())
