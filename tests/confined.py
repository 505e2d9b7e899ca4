"""Runs a command with a C library whose unveil and pledge leave marks in a trace.

Linux has neither call. The library looks up a file that does not exist instead;
its name says what was called. strace then shows the lock-down between the
system calls before it and those after it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any

from scw_signal import sandbox
from scw_signal.cli.process import run


def mark(name: bytes, first: bytes = b"", second: bytes = b"") -> None:
    """Leave a mark in the trace; a path in it must not look like one."""
    words = (name, first.replace(b"/", b":"), second)
    with contextlib.suppress(FileNotFoundError):
        Path(os.fsdecode(b"/mark|" + b"|".join(words))).stat()


class Call:
    """A function like those of ctypes; calling it leaves a mark."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def __call__(self, first: bytes, second: bytes | None) -> int:
        mark(self._name, first, second or b"")
        return 0


class MarkingLibrary:
    """A C library that has unveil and pledge."""

    def __init__(self) -> None:
        self.unveil = Call(b"unveil")
        self.pledge = Call(b"pledge")


def getaddrinfo(*arguments: Any, **options: Any) -> Any:
    """Mark the call, and ask the resolver.

    For an address, glibc's opens no file that a trace would show. OpenBSD's always
    looks for /etc/resolv.conf.
    """
    mark(b"getaddrinfo")
    return ask(*arguments, **options)


ask = socket.getaddrinfo
# glibc loads its name service modules when first asked; OpenBSD's libc has none.
with contextlib.suppress(OSError):
    ask("localhost", 80)
socket.getaddrinfo = getaddrinfo
sandbox.Sandbox = functools.partial(sandbox.Sandbox, libc=MarkingLibrary())  # type: ignore[misc, assignment]
sandbox.available = lambda: True
run(sys.argv.pop(1))
