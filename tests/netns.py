"""Network namespaces for tests: a guest, its router, and the metadata service.

    guest vio0 ---- wire ---- router ---- service

The guest is set up like the vendor's servers: one interface, a host address
(/32, /128), and a gateway outside that prefix. The service has the addresses of
the real one. The wire is code in this file that carries the frames: it sees all
that the guest sends, and may delay, lose or swallow it. No kernel module for
traffic control is needed, and no packet leaves these namespaces.

Making them needs root and iproute2. Their names contain the number of the process
that made them, and the next run removes what a killed one left behind.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GATEWAYS = {4: "62.210.0.1", 6: "fe80::1"}
GUEST = {4: "198.51.100.7", 6: "2001:db8::7"}
SERVICE = {4: "169.254.42.42", 6: "fd00:42::42"}
HTTP, DNS = 80, 53

_PREFIX = "scwtest"
_NAMESPACES = Path("/run/netns")
_SETTINGS = Path("/etc/netns")  # ip-netns(8) lays these over /etc
_CLONE_NEWNET = 0x40000000
_count = itertools.count()


def missing() -> str:
    """Return what is missing to make namespaces, or nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed here"
    try:
        with Namespace("probe") as probe:
            probe.ip("link add one type veth peer name other")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return ""


def listed() -> set[str]:
    """Return the names of this machine's namespaces."""
    return {path.name for path in _NAMESPACES.glob("*")}


@final
class Namespace:
    """A network namespace, from its construction until `close`."""

    def __init__(self, role: str) -> None:
        """Make it; raises CalledProcessError."""
        self.name = f"{_PREFIX}-{os.getpid()}-{next(_count)}-{role}"
        _run("ip", "netns", "add", self.name)
        # Keep the wire free of other packets: the kernel looks neither for routers
        # nor for other hosts that have its address.
        for setting in ("router_solicitations", "accept_dad", "accept_ra"):
            self.set(f"ipv6/conf/all/{setting}", 0)
            self.set(f"ipv6/conf/default/{setting}", 0)
        self.ip("link set lo up")

    def __enter__(self) -> Namespace:
        """Return the namespace itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.close()

    def close(self) -> None:
        """Remove it, and the files that are laid over /etc in it."""
        _remove(self.name)

    def ip(self, words: str) -> str:
        """Run `ip` with these words in this namespace; return its output."""
        return _run("ip", "-n", self.name, *words.split())

    def set(self, setting: str, value: int) -> None:
        """Change a setting below /proc/sys/net."""
        with self.entered():
            Path("/proc/sys/net", setting).write_text(str(value))

    def resolve_with(self, nameserver: str) -> None:
        """Make the resolver of commands in this namespace ask `nameserver`."""
        directory = _SETTINGS / self.name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text(f"nameserver {nameserver}\n")

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a command in this namespace.

        The process that is started becomes that command, and keeps its number.
        """
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace for a while.

        Sockets, threads and processes that are made meanwhile stay there.
        """
        with (
            Path("/proc/thread-self/ns/net").open() as back,
            (_NAMESPACES / self.name).open() as there,
        ):
            _move_to(there.fileno())
            try:
                yield
            finally:
                _move_to(back.fileno())


class Packet(NamedTuple):
    """The parts of a packet that the tests look at; a port is 0 if there is none."""

    seconds: float  # time.monotonic() when the wire got it
    outgoing: bool  # from the guest
    version: int  # of IP; 0 for ARP and the like
    protocol: str  # tcp, udp or other
    source: str
    destination: str
    port: int  # the destination's
    syn: bool  # opens a connection

    @classmethod
    def parse(cls, frame: bytes, *, outgoing: bool) -> Packet:
        """Read an Ethernet frame."""
        version = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14], 0)
        source, destination, number, payload = "", "", 0, b""
        if version == 4:
            number, payload = frame[23], frame[14 + 4 * (frame[14] & 15) :]
            source, destination = map(socket.inet_ntoa, (frame[26:30], frame[30:34]))
        elif version == 6:
            number, payload = frame[20], frame[54:]
            source, destination = (
                socket.inet_ntop(socket.AF_INET6, address)
                for address in (frame[22:38], frame[38:54])
            )
        protocol = {6: "tcp", 17: "udp"}.get(number, "other")
        port = int.from_bytes(payload[2:4], "big") if protocol != "other" else 0
        # SYN without ACK: SYN with ACK is an answer.
        syn = protocol == "tcp" and payload[13] & 0x12 == 0x02
        return cls(
            time.monotonic(), outgoing, version, protocol, source, destination, port,
            syn,
        )  # fmt: skip

    def __str__(self) -> str:
        """Return one line for the message of a test that fails."""
        arrow = "->" if self.outgoing else "<-"
        kind = "syn" if self.syn else self.protocol
        return f"{self.seconds:.3f} {arrow} {kind} {self.destination}:{self.port}"


@final
class Wire:
    """Carries frames between two ends; sees, delays, loses and swallows them."""

    _OUTGOING, _LEFT, _RIGHT = 4, "left", "right"
    _SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # see _listen
    _VNET_HDR = 10  # bytes
    _ALL = 0x0003  # ETH_P_ALL

    def __init__(self, namespace: Namespace) -> None:
        """Carry frames between the interfaces `left`, the guest's, and `right`."""
        self._namespace = namespace
        self._ends = [self._listen(name) for name in (self._LEFT, self._RIGHT)]
        self._wake, self._waker = socket.socketpair()
        self._changed = threading.Condition()  # guards what follows
        self._packets: list[Packet] = []
        self._swallows: Callable[[Packet], bool] = lambda _: False
        self._delay, self._loss = 0.0, 0.0
        self._chance = random.Random()  # noqa: S311 - no secret
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut the wire."""
        self._waker.close()
        self._thread.join()
        for end in (*self._ends, self._wake):
            end.close()

    def plug(self, *, into: bool) -> None:
        """Put the cable into the guest's interface, or pull it out."""
        self._namespace.ip(f"link set {self._LEFT} {'up' if into else 'down'}")

    def swallow(self, rule: Callable[[Packet], bool]) -> None:
        """Swallow the packets that match a rule."""
        with self._changed:
            self._swallows = rule

    def worsen(self, *, delay: float, loss: float, seed: int) -> None:
        """Delay frames by `delay` seconds; lose a share, drawn with `seed`."""
        with self._changed:
            self._delay, self._loss = delay, loss
            self._chance = random.Random(seed)  # noqa: S311 - no secret

    def sent(self) -> list[Packet]:
        """Return what the guest sent so far, by TCP or UDP, swallowed or not.

        Other packets are the kernel's own: it looks for neighbours and joins groups.
        """
        with self._changed:
            return self._sent()

    def await_sent(self, count: int, seconds: float) -> list[Packet]:
        """Wait until the guest has sent `count` packets, or for `seconds`.

        Returns what it has sent: less than `count` after a time-out.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._sent()) >= count, seconds)
            return self._sent()

    def _sent(self) -> list[Packet]:
        return [p for p in self._packets if p.outgoing and p.protocol != "other"]

    def _listen(self, interface: str) -> socket.socket:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self._ALL))
        # Each frame carries a header that says what the kernel has put off: the
        # checksum, and cutting the frame to size.
        end.setsockopt(self._SOL_PACKET, self._PACKET_VNET_HDR, 1)
        end.bind((interface, self._ALL))
        end.settimeout(0)
        return end

    def _carry(self) -> None:
        """Carry frames until the wire is cut."""
        underway: list[tuple[float, int, int, bytes]] = []  # a heap, by due time
        order = itertools.count()
        while True:
            due = underway[0][0] - time.monotonic() if underway else None
            wait = max(0.0, due) if due is not None else None
            ready, _, _ = select.select([*self._ends, self._wake], [], [], wait)
            if self._wake in ready:
                return
            for at, end in enumerate(self._ends):
                if end in ready:
                    for frame in self._take(end, outgoing=at == 0):
                        moment = time.monotonic() + self._delay
                        heapq.heappush(underway, (moment, next(order), 1 - at, frame))
            while underway and underway[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(underway)
                self._put(self._ends[to], frame)

    def _take(self, end: socket.socket, *, outgoing: bool) -> Iterator[bytes]:
        """Yield the frames that have come and are to be passed on."""
        while True:
            try:
                frame, (*_, kind, _, _) = end.recvfrom(1 << 17)
            except OSError:  # nothing more, or the interface is down
                return
            if kind == self._OUTGOING:
                continue
            packet = Packet.parse(frame[self._VNET_HDR :], outgoing=outgoing)
            with self._changed:
                self._packets.append(packet)
                lost = self._loss > 0 and self._chance.random() < self._loss
                swallowed = self._swallows(packet)
                self._changed.notify_all()
            if not lost and not swallowed:
                yield frame

    @staticmethod
    def _put(end: socket.socket, frame: bytes) -> None:
        with suppress(OSError):  # lost, as on a cable that is pulled out
            end.send(frame)


@final
class NameServer:
    """A name server that `answers`, `fails` or is `silent`, as it is told.

    It knows every name. Serves from its construction until `close`.
    """

    _SERVFAIL = 2

    def __init__(self, address: str, manner: str = "answers") -> None:
        """Serve on `address`, in the namespace that this thread is in."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, DNS))
        self._wake, self._waker = socket.socketpair()
        self._changed = threading.Condition()  # guards what follows
        self._manner = manner
        self._questions = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> NameServer:
        """Return the name server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._waker.close()
        self._thread.join()
        self._socket.close()
        self._wake.close()

    def behave(self, manner: str) -> None:
        """Behave differently from now on."""
        with self._changed:
            self._manner = manner

    def await_questions(self, count: int, seconds: float) -> int:
        """Wait until it was asked `count` times, or for `seconds`.

        Returns how often it was asked.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._questions >= count, seconds)
            return self._questions

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._wake], [], [])
            if self._wake in ready:
                return
            question, client = self._socket.recvfrom(4096)
            with self._changed:
                self._questions += 1
                manner = self._manner
                self._changed.notify_all()
            if manner != "silent":
                self._socket.sendto(self._reply(question, manner), client)

    def _reply(self, question: bytes, manner: str) -> bytes:
        """Return the reply: the question again and, if it `answers`, an address."""
        end = question.index(b"\0", 12) + 5  # of the name, its type and its class
        (kind,) = struct.unpack("!H", question[end - 4 : end - 2])
        code = 0 if manner == "answers" else self._SERVFAIL
        address = {
            1: socket.inet_aton("192.0.2.1"),
            28: socket.inet_pton(socket.AF_INET6, "2001:db8:2::1"),
        }.get(kind, b"")
        record = b""
        if address and not code:
            # The name is where the question has it; class IN, for a minute.
            record = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(address)) + address
        counts = struct.pack("!HHHH", 1, 1 if record else 0, 0, 0)
        flags = struct.pack("!H", 0x8180 | code)
        return question[:2] + flags + counts + question[12:end] + record


@final
class Lab:
    """The guest, its router and the service; the guest has no network yet.

    Without a `wire` a plain cable joins guest and router: it records no packets
    and does not slow them down.
    """

    def __init__(self, *, wired: bool = True) -> None:
        """Make them; raises CalledProcessError."""
        _clear_leftovers()
        with ExitStack() as stack:
            self.guest, self.router, self.service = (
                stack.enter_context(Namespace(role))
                for role in ("guest", "router", "service")
            )
            self.guest.resolve_with(GATEWAYS[4])
            self._join_router_and_service()
            self._wire = self._lay_wire(stack) if wired else None
            if not wired:
                _cable(self.guest, "vio0", self.router, "guest0")
                self.router.ip("link set guest0 up")
            for version in (4, 6):
                _address(self.router, version, GATEWAYS[version], "guest0")
                _route(self.router, version, GUEST[version], "dev guest0")
            self._close = stack.pop_all().close

    def __enter__(self) -> Lab:
        """Return the lab itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._close()

    @property
    def wire(self) -> Wire:
        """The wire between guest and router."""
        assert self._wire is not None, "there is a plain cable"
        return self._wire

    def link(self, *, up: bool) -> None:
        """Take the guest's interface up or down; going down removes its routes."""
        self.guest.ip(f"link set vio0 {'up' if up else 'down'}")

    def address(self, version: int) -> None:
        """Give the guest its address, of IP version 4 or 6."""
        _address(self.guest, version, GUEST[version], "vio0")

    def route(self, version: int) -> float:
        """Give the guest its default route; return time.monotonic() just before.

        The gateway is outside the address's prefix, so it needs its own route.
        """
        if version == 4:
            _route(self.guest, 4, GATEWAYS[4], "dev vio0 scope link")
        before = time.monotonic()
        _route(self.guest, version, "default", f"via {GATEWAYS[version]} dev vio0")
        return before

    def unroute(self, version: int) -> None:
        """Take the guest's default route away."""
        self.guest.ip(f"-{version} route del default")
        if version == 4:
            self.guest.ip(f"route del {GATEWAYS[4]}")

    def connect(self, *versions: int) -> float:
        """Give the guest a network; return time.monotonic() before the last step."""
        self.link(up=True)
        for version in versions:
            self.address(version)
        return max(self.route(version) for version in versions)

    def _join_router_and_service(self) -> None:
        _cable(self.router, "service0", self.service, "eth0")
        self.router.ip("link set service0 up")
        self.service.ip("link set eth0 up")
        self.router.set("ipv4/ip_forward", 1)
        self.router.set("ipv6/conf/all/forwarding", 1)
        for version in (4, 6):
            _address(self.router, version, GATEWAYS[version], "service0")
            _address(self.service, version, SERVICE[version], "eth0")
            _route(self.router, version, SERVICE[version], "dev service0")
        _route(self.service, 4, GATEWAYS[4], "dev eth0")
        for version in (4, 6):
            _route(
                self.service, version, "default", f"via {GATEWAYS[version]} dev eth0"
            )

    def _lay_wire(self, stack: ExitStack) -> Wire:
        namespace = stack.enter_context(Namespace("wire"))
        namespace.set("ipv6/conf/default/disable_ipv6", 1)
        _cable(self.guest, "vio0", namespace, "left")
        _cable(self.router, "guest0", namespace, "right")
        for each, interface in (
            (self.router, "guest0"), (namespace, "left"), (namespace, "right"),
        ):  # fmt: skip
            each.ip(f"link set {interface} up")
        with namespace.entered():
            wire = Wire(namespace)
        stack.callback(wire.close)
        return wire


def _cable(left: Namespace, plug: str, right: Namespace, socket_: str) -> None:
    left.ip(f"link add {plug} type veth peer name {socket_} netns {right.name}")


def _address(where: Namespace, version: int, address: str, interface: str) -> None:
    where.ip(
        f"-{version} addr add {address}/{32 if version == 4 else 128}"
        f" dev {interface}{' nodad' if version == 6 else ''}"
    )


def _route(where: Namespace, version: int, destination: str, way: str) -> None:
    where.ip(f"-{version} route add {destination} {way}")


def _clear_leftovers() -> None:
    """Remove the namespaces of test runs that were killed."""
    for path in _NAMESPACES.glob(f"{_PREFIX}-*"):
        if not Path("/proc", path.name.split("-")[1]).exists():
            _remove(path.name)


def _remove(name: str) -> None:
    shutil.rmtree(_SETTINGS / name, ignore_errors=True)
    with suppress(OSError):  # others have settings there
        _SETTINGS.rmdir()
    _run("ip", "netns", "del", name)


def _move_to(descriptor: int) -> None:
    # os.setns() exists only from Python 3.12 on.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout
