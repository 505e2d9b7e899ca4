"""Takes a test run off the network, with every process that it starts.

The commands look for the service at its real addresses unless told otherwise, and
something may answer there. So that no test can ask it by mistake, the run moves
into a network namespace that has only a loopback interface: there is no way out.
Namespaces that tests make inside it (netns.py) are joined only to one another.

This works for root (as in CI) and where users may make namespaces. Elsewhere only
the process of the tests itself is kept from sending.
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
    """Leave the network, as far as this user is allowed to."""
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
    """Move this thread, which starts all others, into a new namespace."""
    user, group = os.geteuid(), os.getegid()
    # Other users than root may make one only inside a user namespace.
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    # os.unshare() exists only from Python 3.12 on.
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
    """Audit hook: refuse to send anything to another machine."""
    if event not in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        return
    end, address = arguments
    # Connecting a datagram socket sends nothing: it only looks up a route.
    quiet = event == "socket.connect" and end.type == socket.SOCK_DGRAM
    internet = end.family in {socket.AF_INET, socket.AF_INET6}
    if internet and address is not None and not quiet and not _is_loopback(address[0]):
        raise PermissionError(f"a test would send something to {address[0]}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
