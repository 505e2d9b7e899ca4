"""User data as a script: whether it is one, and its interpreter.

Pure. If a file begins with `#!`, the kernel runs it with the interpreter that the
rest of the line names: execve(2).
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"
_OTHERS = (
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"#cloud-config", "it is a cloud-config, which needs cloud-init"),
    (b"Content-Type:", "it is a MIME message, which needs cloud-init"),
    (b"MIME-Version:", "it is a MIME message, which needs cloud-init"),
    (_BOM + b"#!", "it begins with a byte order mark, before its #!"),
)


def not_a_script(data: bytes) -> str | None:
    """Say why this is not a script; return None if it is one."""
    if data.startswith(b"#!"):
        return None
    if not data.strip():
        return "it is empty"
    for beginning, what in _OTHERS:
        if data[: len(beginning)].lower() == beginning.lower():
            return what
    return "it is not a script: it does not begin with #!"


def interpreter(script: bytes) -> list[str]:
    """Return the words of a script's first line after `#!`; the list may be empty."""
    first = script[2:].partition(b"\n")[0]
    return first.decode(errors="surrogateescape").split()


def has_dos_lines(script: bytes) -> bool:
    """Tell whether the first line ends in CR LF, which the kernel does not expect."""
    return script.partition(b"\n")[0].endswith(b"\r")
