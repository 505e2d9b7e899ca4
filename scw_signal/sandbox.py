"""Least privilege: unveil(2), pledge(2), and another user than root.

The only module that knows ctypes. unveil hides the file system, and pledge the
system calls that the rest of the work does not need; both are OpenBSD's, and
elsewhere nothing is done. Where a call fails the work goes on less confined
and says so: a server that stays silent is worse.

Written from the manual pages and from kern_pledge.c; proved on Linux by holding
a trace of system calls against the promises, and tried by hand on the kernel of
OpenBSD 7.7-current under QEMU. The promise dns lets the resolver's files through,
on kernels since March 2026 to libc alone.
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

# What the work cannot do without, from each stage on, in their order: promises
# only shrink. sendsyslog(2), which syslog(3) is made of, needs none. Sockets of
# other families than IPv4 and IPv6, as the routing socket, are opened before.
PROMISES = {
    "wait": "stdio inet dns",  # for a route, and for the resolver
    "signal": "stdio inet",
    "leave": "stdio",
}
RECEIVE = "recvfd"  # while waiting, sockets that the privileged process has bound
# And what that one does: bind them, pass them on, run scripts, write files.
PRIVILEGED = "stdio rpath wpath cpath inet proc exec sendfd"
FILES = "rpath wpath cpath"  # create, write and rename in the run directory

# What Python would otherwise import on the way, when no file can be opened: the
# codec of host names, which needs unicodedata, a shared object; the codec of
# HTTP headers; tenacity; and what names near keys.
_LATE_MODULES = ("stringprep", "unicodedata", "difflib", "scw_signal.retrying")
_LATE_CODECS = ("idna", "iso-8859-1", "ascii")


def available() -> bool:
    """Tell whether this system has pledge and unveil."""
    return sys.platform.startswith("openbsd")


def preload() -> None:
    """Import what would otherwise be imported behind the lock."""
    for module in _LATE_MODULES:
        importlib.import_module(module)
    for codec in _LATE_CODECS:
        codecs.lookup(codec)


def user_for_root() -> pwd.struct_passwd | None:
    """Return the user to switch to: USER, if this is root and there is that user.

    rc.d(8) starts the agent as that user; this is for root who starts it by hand.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def switch_user(user: pwd.struct_passwd) -> None:
    """Give up root for `user`, for good; raises OSError."""
    os.setgroups([user.pw_gid])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


class Sandbox:
    """unveil and pledge as the C library has them."""

    def __init__(
        self,
        debug: Callable[[str], None],
        warn: Callable[[str], None],
        libc: Any = None,
    ) -> None:
        """Take where to say what is done and what fails, and the C library.

        With None for `libc` it is this process's own, on OpenBSD, and elsewhere
        nothing is called.
        """
        self._warn = warn
        self._files = True
        self._calls: dict[str, Any] = {}
        if libc is None and not available():
            debug("sandbox: this system has no pledge and unveil")
            return
        import ctypes  # noqa: PLC0415 - slow, and of no use elsewhere

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
        """Hide every file but those in `directory`; None hides them all.

        To be called as root where root is given up: unveil(2) fails for a directory
        below one that the user may not search. What the resolver reads, the promise
        dns lets through.
        """
        self._files = directory is not None
        if directory is None:
            self._call("unveil", "/", "")
        else:
            self._call("unveil", directory, "rwc")

    def pledge(self, *, receive: bool = False) -> None:
        """Pledge the first stage; `receive` says that sockets come in during it.

        Call `preload` before.
        """
        self._pledge(f"{PROMISES['wait']} {RECEIVE}" if receive else PROMISES["wait"])

    def narrow(self, stage: str) -> None:
        """Give up what no stage from `stage` on needs."""
        self._pledge(PROMISES[stage])

    def restrict(self) -> None:
        """Pledge for a command that a person typed: all stages, no files hidden."""
        self._call("pledge", f"{PROMISES['wait']} {FILES}", None)

    def privileged(self) -> None:
        """Pledge for the process that stays root; what it runs is not confined."""
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
