"""Least privilege on OpenBSD: the only module that knows ctypes.

unveil(2) hides the file system and pledge(2) the system calls that the agent
does not need. Elsewhere there is neither, and nothing is done. Where a call
fails the work goes on less confined: a server that stays silent is worse.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# What each stage can not do without, in the order of the stages, for promises
# only shrink. Files: `state` is written between the signal and the metadata.
# sendsyslog(2), which syslog(3) is made of, needs no promise.
FILES = "rpath wpath cpath"
PROMISES = {
    "wait": "stdio inet dns",  # for a route and for DNS
    "signal": "stdio inet",
    "leave": "stdio",  # write the metadata, and go
}


class Sandbox:
    """unveil(2) and pledge(2) of this system's C library, where it has them."""

    def __init__(self, debug: Callable[[str], None], libc: Any = None) -> None:
        """Take where to say what is done; `libc` is this process's own if None."""
        self._debug = debug
        self._calls: dict[str, Any] = {}
        if libc is None and not sys.platform.startswith("openbsd"):
            debug("sandbox: no pledge and unveil on this system")
            return
        import ctypes  # noqa: PLC0415 - of no use elsewhere

        self._errno = ctypes.get_errno
        libc = libc or ctypes.CDLL(None, use_errno=True)
        for name in ("unveil", "pledge"):
            call = getattr(libc, name, None)
            if call is None:
                debug(f"sandbox: no {name} in this C library")
                continue
            call.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
            call.restype = ctypes.c_int
            self._calls[name] = call

    def enter(self, directory: str | None) -> None:
        """Hide every file but those in `directory`, and pledge the first stage.

        Preload what would be loaded later has to be done before.
        """
        self._files = directory is not None
        if directory is not None:
            self._call("unveil", os.fsencode(directory), b"rwc")
        else:
            # Unveiling nothing would leave everything visible.
            self._call("unveil", b"/", b"")
        self.narrow("wait")

    def narrow(self, stage: str) -> None:
        """Give up what no stage from `stage` on needs."""
        promises = f"{PROMISES[stage]} {FILES}" if self._files else PROMISES[stage]
        self._call("pledge", promises.encode(), None)

    def _call(self, name: str, first: bytes, second: bytes | None) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        if call(first, second) == -1:
            reason = os.strerror(self._errno())
            self._debug(f"sandbox: {name} {os.fsdecode(first)!r}: {reason}")
