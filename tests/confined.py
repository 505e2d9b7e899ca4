"""Runs scw-signald with a C library whose unveil and pledge leave marks in a trace.

Linux has neither call. In their place a file that is not there is looked up, by
a name that says what was called: strace then shows the lock-down between the
system calls before it and those after it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from pathlib import Path

from scw_signal import sandbox
from scw_signal.cli.process import run


class Call:
    """A foreign function as ctypes would give it, that leaves a mark."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def __call__(self, first: bytes, second: bytes | None) -> int:
        # The path in it must not look like one that is inside the directory.
        where = first.replace(b"/", b":")
        with contextlib.suppress(FileNotFoundError):
            Path(
                os.fsdecode(b"/mark|%s|%s|%s" % (self._name, where, second or b""))
            ).stat()
        return 0


class MarkingLibrary:
    """A C library that has unveil and pledge."""

    def __init__(self) -> None:
        self.unveil = Call(b"unveil")
        self.pledge = Call(b"pledge")


# glibc loads its name service modules when first asked; OpenBSD's libc has none.
with contextlib.suppress(OSError):
    socket.getaddrinfo("localhost", 80)

sandbox.Sandbox = functools.partial(sandbox.Sandbox, libc=MarkingLibrary())  # type: ignore[misc, assignment]
run("signald")
