"""SSH public keys in the metadata: which may log in, as authorized_keys lines.

They come from two places: `ssh_public_keys`, which has been a list of lines and
a list of objects with a `key`, and tags `AUTHORIZED_KEY=...`, in which `_` stands
for a space.

Strategy: a line is taken apart, checked down to the numbers in it, and put
together again from its parts, so that what is printed can be nothing but a key.
In authorized_keys, whatever stands before the type is an option, and can be a
command. A line that fails costs that line only. OpenSSH makes the same checks when
it reads a key; here they come earlier, so that somebody can be told.

Left out besides: ssh-dss, which OpenSSH no longer takes, and certificates, which
say nothing in authorized_keys.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .document import Node

TAG = "AUTHORIZED_KEY="
# Characters, comment included; a key for RSA of 16384 bits has 2800.
LONGEST_LINE = 8192
_ED25519_BYTES = 32  # RFC 8032, section 5.1.5
_RSA_BITS = range(1024, 16384 + 1)  # what OpenSSH takes
_GRAPHIC = range(0x21, 0x7F)  # ASCII that is seen
_UNCOMPRESSED = 4  # SEC 1, section 2.3.3: the first byte of such a point


class _RejectedError(Exception):
    """A line is no key to log in with; the text says why."""


class _Curve(NamedTuple):
    """A curve y^2 = x^3 - 3x + b modulo p: FIPS 186-4, appendix D.1.2."""

    p: int
    b: int


_CURVES = {
    b"nistp256": _Curve(
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    ),
    b"nistp384": _Curve(
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        int(
            "B3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE814112"
            "0314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF",
            16,
        ),
    ),
    b"nistp521": _Curve(
        2**521 - 1,
        int(
            "51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E1"
            "56193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00",
            16,
        ),
    ),
}


def authorized_keys(document: dict[str, Node]) -> tuple[list[str], list[str]]:
    """Return the lines for authorized_keys, and what was wrong with others.

    In the document's order, the account's keys first, each key once whatever
    its comment is. A complaint is one printable line that begins with the key
    under which the metadata has the culprit, as in `tags.3`.
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
    """Give what claims to be a key, each with its place in the document."""
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
    """Take a line apart: the type, the blob, the comment; raises _RejectedError."""
    if not isinstance(node, str):
        raise _RejectedError("there is no key where one was due")
    line = node.strip(" \t\r\n")
    if len(line) > LONGEST_LINE:
        raise _RejectedError(f"longer than {LONGEST_LINE} characters")
    if not line.isprintable():
        raise _RejectedError("not a single line of printable characters")
    kind, _, rest = line.partition(" ")
    encoded, _, comment = rest.lstrip(" ").partition(" ")
    check = _CHECKS.get(kind)
    if check is None:
        raise _RejectedError(
            f"begins with {printable(kind, 20)!r}, which is no type of key to log in"
            " with"
        )
    blob = _decoded(encoded)
    fields = list(_strings(blob))
    if fields[:1] != [kind.encode()]:
        raise _RejectedError(f"says {kind}, but is another type of key")
    check(fields[1:])
    return kind, blob, comment.strip(" ")


def _decoded(encoded: str) -> bytes:
    """Decode base64 as RFC 4648 has it: padded, no other character, no spare bits."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        blob = b""
    if not blob or base64.b64encode(blob).decode() != encoded:
        raise _RejectedError("not base64 after the type: broken off, or changed")
    return blob


def _strings(blob: bytes) -> Iterator[bytes]:
    """Give the strings that a blob is made of: RFC 4251, section 5."""
    at = 0
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        field = blob[at + 4 : at + 4 + length]
        if len(blob) < at + 4 + length:
            raise _RejectedError("broken off inside the key")
        yield field
        at += 4 + length


# One for each type: what must come after its name in the blob.


def _check_ed25519(fields: list[bytes]) -> None:
    """RFC 8709, section 4."""
    if list(map(len, fields)) != [_ED25519_BYTES]:
        raise _RejectedError(f"an Ed25519 key has {_ED25519_BYTES} bytes, and no more")


def _check_ecdsa(curve: bytes) -> Callable[[list[bytes]], None]:
    """RFC 5656, section 3.1: the name of the curve, then a point on it."""
    p, b = _CURVES[curve]
    size = (p.bit_length() + 7) // 8

    def check(fields: list[bytes]) -> None:
        if len(fields) != 2 or fields[0] != curve:  # noqa: PLR2004
            raise _RejectedError("not one point on the curve that the type names")
        point = fields[1]
        if len(point) != 1 + 2 * size or point[0] != _UNCOMPRESSED:
            raise _RejectedError("not an uncompressed point")
        x = int.from_bytes(point[1 : 1 + size], "big")
        y = int.from_bytes(point[1 + size :], "big")
        if max(x, y) >= p or (y * y - x * x * x + 3 * x - b) % p:
            raise _RejectedError("the point is not on its curve")

    return check


def _check_rsa(fields: list[bytes]) -> None:
    """RFC 4253, section 6.6: the exponent, then the modulus."""
    if len(fields) != 2:  # noqa: PLR2004
        raise _RejectedError("an RSA key has two numbers, and no more")
    exponent, modulus = map(_number, fields)
    if modulus.bit_length() not in _RSA_BITS:
        raise _RejectedError(
            f"RSA of {modulus.bit_length()} bits; {_RSA_BITS[0]} to {_RSA_BITS[-1]}"
            " are taken"
        )
    if not (1 < exponent < modulus and exponent % 2 and modulus % 2):
        raise _RejectedError("the numbers make no RSA key")


def _number(field: bytes) -> int:
    """Read a positive mpint in its only spelling: RFC 4251, section 5."""
    number = int.from_bytes(field, "big", signed=True)
    if number <= 0 or len(field) != number.bit_length() // 8 + 1:
        raise _RejectedError("the numbers make no RSA key")
    return number


def _with_application(
    check: Callable[[list[bytes]], None],
) -> Callable[[list[bytes]], None]:
    """OpenSSH's PROTOCOL.u2f: the same, then the name of the application."""

    def check_both(fields: list[bytes]) -> None:
        application = fields.pop() if fields else b""
        if not application or any(byte not in _GRAPHIC for byte in application):
            raise _RejectedError("the application is not named in plain ASCII")
        check(fields)

    return check_both


_CHECKS: dict[str, Callable[[list[bytes]], None]] = {
    "ssh-ed25519": _check_ed25519,
    "ecdsa-sha2-nistp256": _check_ecdsa(b"nistp256"),
    "ecdsa-sha2-nistp384": _check_ecdsa(b"nistp384"),
    "ecdsa-sha2-nistp521": _check_ecdsa(b"nistp521"),
    "ssh-rsa": _check_rsa,
    "sk-ssh-ed25519@openssh.com": _with_application(_check_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _with_application(_check_ecdsa(b"nistp256")),
}
