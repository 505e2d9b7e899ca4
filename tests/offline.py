"""Takes a test run off the network, with every process that it starts.

The commands look for the service at its real addresses unless told otherwise, and
something may answer there. That no test asks it by mistake is left to no test: the
run moves into a network namespace with a loopback interface and nothing else, so
that the kernel has no way out to offer. Namespaces that tests make inside of it
(netns.py) are joined to nothing but one another.

This holds for root, which CI is, and where users may make namespaces. Elsewhere
only the process of the tests itself is held back.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def enter() -> None:
    """Leave the network, as far as this user may."""
    try:
        _unshare()
    except OSError:
        sys.addaudithook(_refuse)
    else:
        _raise_loopback()


def interfaces() -> set[str]:
    """Return the network interfaces that are up."""
    up = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            request = fcntl.ioctl(control, _SIOCGIFFLAGS, _ifreq(name, 0))
            if struct.unpack_from("16xH", request)[0] & _IFF_UP:
                up.add(name)
    return up


def _unshare() -> None:
    """Move this thread, from which all others come, into a namespace of its own."""
    user, group = os.geteuid(), os.getegid()
    # Who is not root may make a network namespace in a user namespace only.
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    # os.unshare() is there from Python 3.12 on only.
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        raise OSError("network namespaces are Linux's")
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{user} {user} 1")
        (own / "gid_map").write_text(f"{group} {group} 1")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, _ifreq("lo", _IFF_UP))


def _ifreq(name: str, flags: int) -> bytes:
    return struct.pack("16sH22x", name.encode(), flags)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to send anything to another machine; an audit hook."""
    if event not in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        return
    end, address = arguments
    # Connecting a datagram socket sends nothing: it is how a route is looked for.
    quiet = event == "socket.connect" and end.type == socket.SOCK_DGRAM
    internet = end.family in {socket.AF_INET, socket.AF_INET6}
    if internet and address is not None and not quiet and not _is_loopback(address[0]):
        raise PermissionError(f"a test would send something to {address[0]}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
