"""Least privilege: unveil(2), pledge(2), and a user other than root.

The only module that knows ctypes. unveil hides files, and pledge forbids system
calls that the rest of the work does not need. Only OpenBSD has them; elsewhere
nothing is done. If a call fails, a warning is logged and the work goes on less
confined: a server that does not signal would be worse.

Written from the manual pages and kern_pledge.c. Checked on Linux by comparing a trace
of system calls with the promises, and by hand on the kernel of OpenBSD 7.7-current
under QEMU. The promise dns allows reading the resolver's files; on kernels since
March 2026 only libc may do so.
"""

from __future__ import annotations

import codecs
import importlib
import os
import pwd
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

USER = "_scwsignal"

# What the work needs from each stage on. The stages are in their order, since promises
# can only shrink. sendsyslog(2), which syslog(3) uses, needs none. Sockets that are
# neither IPv4 nor IPv6, such as the routing socket, are opened before.
PROMISES = {
    "wait": "stdio inet dns",  # for a route, and for the resolver
    "signal": "stdio inet",
    "leave": "stdio",
}
RECEIVE = "recvfd"  # while waiting: receive sockets that the root process has bound
# The root process binds sockets, passes them, runs scripts and writes files.
PRIVILEGED = "stdio rpath wpath cpath inet proc exec sendfd"
FILES = "rpath wpath cpath"  # create, write and rename in the run directory

# Python would import these later, when it cannot open files any more: the codec of
# host names, which needs the shared object unicodedata; the codec of HTTP headers;
# tenacity; and difflib, which suggests similar keys.
_LATE_MODULES = ("stringprep", "unicodedata", "difflib", "scw_signal.retrying")
_LATE_CODECS = ("idna", "iso-8859-1", "ascii")


def available() -> bool:
    """Tell whether this system has pledge and unveil."""
    return sys.platform.startswith("openbsd")


def preload() -> None:
    """Import the modules that could not be imported after the lock-down."""
    for module in _LATE_MODULES:
        importlib.import_module(module)
    for codec in _LATE_CODECS:
        codecs.lookup(codec)


def user_for_root() -> pwd.struct_passwd | None:
    """Return the user to switch to: USER, if this is root and USER exists.

    rc.d(8) starts the agent as USER; this is for root starting it by hand.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def switch_user(user: pwd.struct_passwd) -> None:
    """Switch from root to `user` permanently; raises OSError."""
    os.setgroups([user.pw_gid])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


class Sandbox:
    """Calls unveil and pledge of the C library."""

    def __init__(
        self,
        debug: Callable[[str], None],
        warn: Callable[[str], None],
        libc: Any = None,
    ) -> None:
        """Take two functions for log lines, and the C library.

        None for `libc` means this process's own on OpenBSD; elsewhere nothing is
        called.
        """
        self._warn = warn
        self._files = True
        self._calls: dict[str, Any] = {}
        if libc is None and not available():
            debug("sandbox: this system has no pledge and unveil")
            return
        import ctypes  # noqa: PLC0415 - slow, and useless elsewhere

        self._errno = ctypes.get_errno
        libc = libc or ctypes.CDLL(None, use_errno=True)
        for name in ("unveil", "pledge"):
            call = getattr(libc, name, None)
            if call is None:
                debug(f"sandbox: this C library has no {name}")
                continue
            call.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
            call.restype = ctypes.c_int
            self._calls[name] = call

    def hide_files(self, directory: str | None) -> None:
        """Hide every file except those in `directory`; None hides them all.

        Call this before giving up root: unveil(2) fails if the user may not search
        a parent of the directory. The promise dns still allows the resolver's files.
        """
        self._files = directory is not None
        if directory is None:
            self._call("unveil", "/", "")
        else:
            self._call("unveil", directory, "rwc")

    def pledge(self, *, receive: bool = False) -> None:
        """Pledge the first stage; `receive` allows to receive sockets during it.

        Call `preload` before.
        """
        self._pledge(f"{PROMISES['wait']} {RECEIVE}" if receive else PROMISES["wait"])

    def narrow(self, stage: str) -> None:
        """Give up all promises that `stage` and later ones do not need."""
        self._pledge(PROMISES[stage])

    def restrict(self) -> None:
        """Pledge for a command: the promises of all stages, and no hidden files."""
        self._call("pledge", f"{PROMISES['wait']} {FILES}", None)

    def privileged(self) -> None:
        """Pledge for the root process; the programs that it runs are not confined."""
        self._call("pledge", PRIVILEGED, None)

    def _pledge(self, promises: str) -> None:
        self._call("pledge", f"{promises} {FILES}" if self._files else promises, None)

    def _call(self, name: str, first: str, second: str | None) -> None:
        call = self._calls.get(name)
        if call is None:
            return
        encoded = None if second is None else second.encode()
        if call(os.fsencode(first), encoded) == -1:
            reason = os.strerror(self._errno())
            self._warn(f"sandbox: {name} {first!r}: {reason}; going on without it")
