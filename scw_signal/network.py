"""Waits for a route without sending anything.

connect(2) on a UDP socket looks up the route and sends no packet. A routing socket
reports changes: route(4) on the BSDs, rtnetlink(7) on Linux. Without one, the kernel
is asked once a second.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .clock import Clock
    from .wire import Endpoint

# These errors say that there is no descriptor or no memory, nothing about a route.
_NO_SOCKET = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
POLL_SECONDS = 1.0  # between look-ups, if there is no routing socket

# rtnetlink(7): links, and the addresses and routes of IPv4 and of IPv6.
_RTMGRP = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
# OpenBSD's <net/route.h>; the filter is a set of bits, one per message type.
_AF_ROUTE, _ROUTE_MSGFILTER = 17, 1
_NETBSD_AF_ROUTE = 34  # 17 is the old one, of NetBSD 5
_RTM_ADD, _RTM_DELETE, _RTM_CHANGE = 0x1, 0x2, 0x3
_RTM_NEWADDR, _RTM_DELADDR, _RTM_IFINFO = 0xC, 0xD, 0xE
_RTM_DESYNC, _RTM_CHGADDRATTR = 0x10, 0x14
_RTM_FILTER = sum(
    1 << message
    for message in (
        _RTM_ADD, _RTM_DELETE, _RTM_CHANGE, _RTM_NEWADDR, _RTM_DELADDR,
        _RTM_IFINFO, _RTM_DESYNC, _RTM_CHGADDRATTR,
    )
)  # fmt: skip
# On all BSDs a message begins with its length in two bytes, a version and the type.
# Without a filter the kernel also reports failed look-ups, including ours: taking one
# for a change would make us look again, forever.
_TYPE = slice(3, 4)
_RTM_MISS = b"\x07"


class Network:
    """Knows the kernel's routes to the service, and when they change.

    Opens its routing socket at once, since pledge(2) forbids it later. Polling and
    reading it need only the promise stdio.
    """

    def __init__(self, endpoints: Sequence[Endpoint], clock: Clock) -> None:
        """Take the addresses of the service in order of preference."""
        self._endpoints = endpoints
        self._clock = clock
        self._monitor = _open_monitor()
        self._routed = True  # whether the last look-up found a route

    def close(self) -> None:
        """Close the routing socket."""
        if self._monitor is not None:
            self._monitor.close()

    def route(self) -> Endpoint | None:
        """Return the first address of the service that the kernel has a route to."""
        endpoint = next(filter(_has_route, self._endpoints), None)
        self._routed = endpoint is not None
        return endpoint

    def await_route(self, report: Callable[[float], float]) -> Endpoint:
        """Wait for a route, as long as it takes; return the address it leads to.

        `report` is called with the seconds waited so far. It returns the seconds
        after which it is called again, if there is still no route.
        """
        start = now = self._clock.monotonic()
        next_report = now
        while True:
            # Read old events before looking: those that come later wake us again.
            self._drain()
            endpoint = self.route()
            if endpoint is not None:
                return endpoint
            now = self._clock.monotonic()
            if now >= next_report:
                next_report = now + report(now - start)
            self._changed(next_report - now)

    def pause(self, seconds: float, floor: float) -> None:
        """Wait before the next try; a change of the network cuts this short.

        It never becomes shorter than `floor` seconds, with one exception: if there
        was no route and now there is one, it ends at once.
        """
        start = self._clock.monotonic()
        # The last look-up was before the try: a route may have come since then.
        routed = self._routed
        self._drain()
        if self.route() is not None and not routed:
            return
        routed = self._routed
        cut = False
        while True:
            waited = self._clock.monotonic() - start
            left = (min(floor, seconds) if cut else seconds) - waited
            if left <= 0:
                return
            cut |= self._changed(left)
            if self.route() is not None and not routed:
                return

    def _changed(self, seconds: float) -> bool:
        """Wait at most `seconds` for a change; tell whether there was one."""
        if self._monitor is None:
            self._clock.wait(min(seconds, POLL_SECONDS))
            return False
        end = self._clock.monotonic() + seconds
        while self._clock.wait(max(seconds, 0), self._monitor.fileno()):
            if self._drain():
                return True
            seconds = end - self._clock.monotonic()
        return False

    def _drain(self) -> bool:
        """Read everything from the routing socket; tell whether it was a change."""
        changed = False
        while self._monitor is not None:
            try:
                message = self._monitor.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: messages were lost, perhaps that of a change.
                return True
            changed |= message[_TYPE] != _RTM_MISS
        return changed


def _open_monitor() -> socket.socket | None:
    """Open this system's routing socket; return None if it has none."""
    try:
        if sys.platform == "linux":
            monitor = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
            )
            monitor.bind((0, _RTMGRP))
        else:
            netbsd = sys.platform.startswith("netbsd")
            family = _NETBSD_AF_ROUTE if netbsd else _AF_ROUTE
            monitor = socket.socket(family, socket.SOCK_RAW, 0)
            if sys.platform.startswith("openbsd"):
                monitor.setsockopt(
                    _AF_ROUTE, _ROUTE_MSGFILTER, struct.pack("I", _RTM_FILTER)
                )
    except OSError:
        return None
    monitor.settimeout(0)
    return monitor


def source_address(endpoint: Endpoint) -> str | None:
    """Return our address on the route to `endpoint`, or None without a route.

    Sends nothing: connect(2) on a UDP socket only looks up the route. Raises OSError
    if no socket can be opened.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(_socket_address(endpoint))
            return str(probe.getsockname()[0])
    except OSError as error:
        if error.errno in _NO_SOCKET:
            raise
        return None


def _socket_address(endpoint: Endpoint) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address for connect(2); raises OSError if the zone does not exist."""
    host, _, zone = endpoint.host.partition("%")
    if not zone:
        return host, endpoint.port
    # Python ignores a zone in the text of an address.
    scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return host, endpoint.port, 0, scope


def _has_route(endpoint: Endpoint) -> bool:
    """Tell whether the kernel has a route to `endpoint`.

    If that is unknown, the answer is True, and a try will tell. So it is for a host
    name, which only --url can give.
    """
    try:
        return not endpoint.is_numeric() or source_address(endpoint) is not None
    except OSError:
        return True
