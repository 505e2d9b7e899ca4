"""Waiting for a route: by events, or by a look each second; nothing is sent."""

from __future__ import annotations

import errno
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scw_signal
from scw_signal import network
from scw_signal.network import Network
from scw_signal.wire import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes import FakeClock

V4, V6 = Endpoint("169.254.42.42"), Endpoint("fd00:42::42")
FOR_EVER = float("inf")


class Kernel:
    """Stands in for the kernel: the routes, and a routing socket that tells of them."""

    def __init__(self) -> None:
        self.routes: set[Endpoint] = set()
        self.looks = 0
        self.at_next_look: Callable[[], None] | None = None
        self.monitor: socket.socket | None
        # Datagrams, like the messages of a routing socket.
        self.monitor, self._teller = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_DGRAM
        )
        self._end = self.monitor
        self.monitor.settimeout(0)

    def close(self) -> None:
        self._end.close()
        self._teller.close()

    def has_route(self, endpoint: Endpoint) -> bool:
        self.looks += 1
        found = endpoint in self.routes
        if self.at_next_look is not None:
            self.at_next_look()
            self.at_next_look = None
        return found

    def tell(self, times: int = 1) -> None:
        for _ in range(times):
            self.say(b"something changed")

    def say(self, message: bytes) -> None:
        self._teller.send(message)

    def add(self, endpoint: Endpoint) -> None:
        self.routes.add(endpoint)
        self.tell()

    def remove(self, endpoint: Endpoint) -> None:
        self.routes.remove(endpoint)
        self.tell()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(network, "_has_route", kernel.has_route)
    monkeypatch.setattr(network, "_open_monitor", lambda: kernel.monitor)
    yield kernel
    kernel.close()


def unheard(_waited: float) -> float:
    """Report nothing, ever."""
    return FOR_EVER


def elapsed(clock: FakeClock, work: Callable[[], object]) -> float:
    start = clock.now
    work()
    return clock.now - start


# Which address there is a route to.


@pytest.mark.parametrize(
    ("routes", "found"), [({V4, V6}, V4), ({V4}, V4), ({V6}, V6), (set(), None)]
)
def test_the_first_address_with_a_route_is_found(
    kernel: Kernel, clock: FakeClock, routes: set[Endpoint], found: Endpoint | None
) -> None:
    kernel.routes = routes
    assert Network([V4, V6], clock).route() == found


# Waiting for one.


def test_a_route_that_is_there_costs_one_look_and_no_wait(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.routes = {V4}
    assert Network([V4], clock).await_route(unheard) == V4
    assert (kernel.looks, clock.waits) == (1, [])


def test_a_route_that_comes_is_found_at_that_moment_and_without_a_look_before(
    kernel: Kernel, clock: FakeClock
) -> None:
    clock.at(86_400.25, lambda: kernel.add(V6))
    waiting = Network([V6], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 86_400.25
    assert (kernel.looks, len(clock.waits)) == (2, 1)


def test_a_change_that_brings_no_route_costs_one_look(
    kernel: Kernel, clock: FakeClock
) -> None:
    for second in range(1, 11):
        clock.at(second, kernel.tell)
    clock.at(11, lambda: kernel.add(V4))
    Network([V4], clock).await_route(unheard)
    assert kernel.looks == 12


def test_many_messages_at_once_are_one_change(kernel: Kernel, clock: FakeClock) -> None:
    clock.at(1, lambda: kernel.tell(10))
    clock.at(2, lambda: kernel.add(V4))
    Network([V4], clock).await_route(unheard)
    assert (kernel.looks, len(clock.waits)) == (3, 2)


def test_a_message_from_before_the_wait_wakes_nobody(
    kernel: Kernel, clock: FakeClock
) -> None:
    waiting = Network([V4], clock)
    kernel.tell()
    clock.at(5, lambda: kernel.add(V4))
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 5
    assert len(clock.waits) == 1


def test_a_route_that_comes_just_after_a_look_is_not_missed(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.at_next_look = lambda: kernel.add(V4)
    waiting = Network([V4], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 0
    assert kernel.looks == 2


class Overflowing:
    """A routing socket that dropped messages, and says so once, as the kernel does."""

    def __init__(self, monitor: socket.socket) -> None:
        self._monitor = monitor
        self._dropped = True

    def fileno(self) -> int:
        return self._monitor.fileno()

    def recv(self, size: int) -> bytes:
        message = self._monitor.recv(size)
        if self._dropped:
            self._dropped = False
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return message


def test_dropped_messages_count_as_a_change(
    kernel: Kernel, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel.monitor is not None
    monkeypatch.setattr(kernel, "monitor", Overflowing(kernel.monitor))
    clock.at(3, lambda: kernel.add(V4))
    waiting = Network([V4], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 3


# NetBSD's message that a look-up has failed: length, version, type (7), and more.
MISS = struct.pack("=HBB", 64, 4, 7) + bytes(60)


@pytest.fixture
def telling(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Return a kernel that reports each failed look-up, ours as well as others'."""
    has_route = kernel.has_route

    def look(endpoint: Endpoint) -> bool:
        found = has_route(endpoint)
        if not found:
            kernel.say(MISS)
        return found

    monkeypatch.setattr(network, "_has_route", look)
    return kernel


def test_a_look_that_fails_is_no_reason_to_look_again(
    telling: Kernel, clock: FakeClock
) -> None:
    clock.at(60, lambda: telling.add(V4))
    waiting = Network([V4], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 60
    assert telling.looks == 2


def test_a_look_that_fails_does_not_cut_a_pause_short(
    telling: Kernel, clock: FakeClock
) -> None:
    paused = Network([V4], clock)
    clock.at(1, lambda: telling.say(MISS))
    assert elapsed(clock, lambda: paused.pause(10, 0)) == 10


def test_among_failed_looks_a_change_is_seen(telling: Kernel, clock: FakeClock) -> None:
    def change() -> None:
        telling.say(MISS)
        telling.add(V4)
        telling.say(MISS)

    clock.at(3, change)
    waiting = Network([V4], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 3


def test_without_a_routing_socket_there_is_a_look_a_second(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.monitor = None
    clock.at(59.5, lambda: kernel.routes.add(V4))
    waiting = Network([V4], clock)
    assert elapsed(clock, lambda: waiting.await_route(unheard)) == 60
    assert kernel.looks == 61
    assert clock.waits == [1.0] * 60


@pytest.mark.parametrize("events", [True, False], ids=["by event", "by looking"])
def test_the_first_report_comes_at_once_and_each_says_when_the_next_comes(
    kernel: Kernel, clock: FakeClock, *, events: bool
) -> None:
    if not events:
        kernel.monitor = None
    intervals = iter([60.0, 60.0, 120.0, FOR_EVER])
    reported = []

    def report(waited: float) -> float:
        reported.append(waited)
        return next(intervals)

    clock.at(1000, lambda: kernel.add(V4))
    Network([V4], clock).await_route(report)
    assert reported == [0, 60, 120, 240]


def test_changes_do_not_bring_reports_forward(kernel: Kernel, clock: FakeClock) -> None:
    reported = []

    def report(waited: float) -> float:
        reported.append(waited)
        return 60.0

    for second in range(1, 100):
        clock.at(second, kernel.tell)
    clock.at(100, lambda: kernel.add(V4))
    Network([V4], clock).await_route(report)
    assert reported == [0, 60]


# Pausing between tries.


@pytest.mark.parametrize("events", [True, False], ids=["by event", "by looking"])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 10.0])
def test_while_nothing_changes_a_pause_has_its_length(
    kernel: Kernel, clock: FakeClock, seconds: float, *, events: bool
) -> None:
    if not events:
        kernel.monitor = None
    kernel.routes = {V4}
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(seconds, 0.0)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        pytest.param(2, 5, id="not before the floor"),
        pytest.param(5, 5, id="at the floor"),
        pytest.param(7, 7, id="at once after it"),
        pytest.param(11, 10, id="too late"),
    ],
)
def test_a_change_cuts_a_pause_short(
    kernel: Kernel, clock: FakeClock, change: float, end: float
) -> None:
    kernel.routes = {V4}
    clock.at(change, kernel.tell)
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 5)) == end


def test_a_change_before_the_pause_does_not_cut_it_short(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.routes = {V4}
    pausing = Network([V4], clock)
    kernel.tell()
    assert elapsed(clock, lambda: pausing.pause(10, 5)) == 10


def test_a_floor_above_the_pause_does_not_make_it_longer(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.routes = {V4}
    clock.at(1, kernel.tell)
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(2, 5)) == 2


def test_constant_change_does_not_get_a_pause_below_its_floor(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.routes = {V4}
    for tenth in range(1, 100):
        clock.at(tenth / 10, kernel.tell)
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 5)) == pytest.approx(5)


@pytest.mark.parametrize("moment", [0.25, 7.0])
def test_the_first_route_ends_a_pause_at_once_even_before_the_floor(
    kernel: Kernel, clock: FakeClock, moment: float
) -> None:
    clock.at(moment, lambda: kernel.add(V4))
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 9)) == moment


@pytest.mark.parametrize("lost", [True, False], ids=["lost in a pause", "never there"])
def test_a_route_that_comes_between_a_try_and_its_pause_is_not_missed(
    kernel: Kernel, clock: FakeClock, *, lost: bool
) -> None:
    pausing = Network([V4], clock)
    if lost:
        kernel.routes = {V4}
        clock.at(3, lambda: kernel.remove(V4))
    pausing.pause(10, 9)
    kernel.add(V4)  # a try has just failed without it
    assert elapsed(clock, lambda: pausing.pause(10, 9)) == 0
    assert elapsed(clock, lambda: pausing.pause(10, 9)) == 10


def test_the_first_route_ends_a_pause_at_the_next_look_without_a_routing_socket(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.monitor = None
    clock.at(2.5, lambda: kernel.routes.add(V4))
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 9)) == 3


def test_a_change_that_brings_no_first_route_keeps_the_floor(
    kernel: Kernel, clock: FakeClock
) -> None:
    clock.at(1, kernel.tell)
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 5)) == 5


def test_a_route_that_goes_and_comes_back_is_a_change_like_any_other(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.routes = {V4}
    clock.at(1, lambda: kernel.remove(V4))
    clock.at(2, lambda: kernel.add(V4))
    pausing = Network([V4], clock)
    assert elapsed(clock, lambda: pausing.pause(10, 5)) == 5


def test_a_pause_does_not_wait_busily(kernel: Kernel, clock: FakeClock) -> None:
    for second in (1, 2, 3):
        clock.at(second, kernel.tell)
    Network([V4], clock).pause(10, 8)
    assert clock.waits == [10, 7, 6, 5]


# The routing socket, and what is asked of the kernel.


class Recorder:
    """A socket that notes what is done with it."""

    def __init__(self, *arguments: int) -> None:
        self.calls: list[tuple[object, ...]] = [("socket", *arguments)]

    def setsockopt(self, *arguments: object) -> None:
        self.calls.append(("setsockopt", *arguments))

    def settimeout(self, *arguments: object) -> None:
        self.calls.append(("settimeout", *arguments))


def test_on_openbsd_a_routing_socket_is_asked_for_what_matters_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "openbsd7")
    monkeypatch.setattr(socket, "socket", Recorder)
    monitor = network._open_monitor()
    assert isinstance(monitor, Recorder)
    # By their numbers in <net/route.h>: ADD, DELETE, CHANGE, NEWADDR, DELADDR,
    # IFINFO, DESYNC and CHGADDRATTR.
    messages = (1, 2, 3, 12, 13, 14, 16, 20)
    filter_ = struct.pack("I", sum(1 << message for message in messages))
    assert monitor.calls == [
        ("socket", 17, socket.SOCK_RAW, 0),
        ("setsockopt", 17, 1, filter_),
        ("settimeout", 0),
    ]


@pytest.mark.parametrize(("platform", "family"), [("freebsd14", 17), ("netbsd10", 34)])
def test_on_another_bsd_the_routing_socket_has_no_filter(
    monkeypatch: pytest.MonkeyPatch, platform: str, family: int
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(socket, "socket", Recorder)
    monitor = network._open_monitor()
    assert isinstance(monitor, Recorder)
    assert monitor.calls == [("socket", family, socket.SOCK_RAW, 0), ("settimeout", 0)]


@pytest.mark.parametrize("platform", ["linux", "openbsd7", "sunos5"])
def test_a_routing_socket_that_cannot_be_opened_is_none(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    def refuse(*_arguments: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    monkeypatch.setattr(sys, "platform", platform)
    for name in ("AF_NETLINK", "NETLINK_ROUTE"):  # names that only Linux has
        monkeypatch.setattr(socket, name, 16, raising=False)
    monkeypatch.setattr(socket, "socket", refuse)
    assert network._open_monitor() is None


def test_the_routing_socket_is_opened_at_once_and_closed_when_asked(
    kernel: Kernel, clock: FakeClock
) -> None:
    assert kernel.monitor is not None
    opened = Network([V4], clock)
    assert opened._monitor is kernel.monitor
    opened.close()
    assert kernel.monitor.fileno() == -1


def test_without_a_routing_socket_there_is_nothing_to_close(
    kernel: Kernel, clock: FakeClock
) -> None:
    kernel.monitor = None
    Network([V4], clock).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_source_address_for_loopback_is_loopback(host: str) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, 0), family=family).close()
    except OSError as error:
        pytest.skip(f"there is no {host} here: {error.strerror}")
    assert network.source_address(Endpoint(host)) == host
    assert network._has_route(Endpoint(host))


@pytest.mark.parametrize("host", [V4.host, V6.host])
def test_without_its_address_family_an_address_has_no_route(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    def refuse(*_arguments: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    assert network.source_address(Endpoint(host)) is None
    assert not network._has_route(Endpoint(host))


def test_a_name_counts_as_routed_and_no_socket_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "socket")
    assert network._has_route(Endpoint("metadata.example"))


# On Linux's own kernel, in a network namespace with only loopback.

ALONE = """
import socket, subprocess, sys
from scw_signal import network
from scw_signal.clock import Clock
from scw_signal.wire import Endpoint

service = Endpoint(sys.argv[1])
steps = sys.argv[2:]

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

"""
WAKES = """
class Eventful(Clock):
    def wait(self, seconds, *descriptors):
        if steps:
            ip(steps.pop())
        assert len(descriptors) == 1, "no routing socket"
        return super().wait(seconds, *descriptors)

for words in steps[:-1]:
    ip(words)
del steps[:-1]
waiting = network.Network([service], Eventful())
assert waiting.await_route(lambda waited: float("inf")) == service
print("woken")
"""
SILENT = """
def sent():
    with open("/proc/self/net/dev") as table:
        fields = next(line for line in table if "lo:" in line).split(":")[1].split()
    return int(fields[9])

family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
assert not network._has_route(service)
for words in steps:
    ip(words)
before = sent()
assert network._has_route(service)
assert sent() == before, "a packet was sent"
with socket.socket(family, socket.SOCK_DGRAM) as probe:
    probe.sendto(b"!", service)
assert sent() > before, "packets are not counted"
print("silent")
"""


def alone(script: str, *words: str) -> str:
    """Run a script in a network namespace of its own, and return what it prints."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has network namespaces")
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on this machine")
    unshare = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace here")
    return subprocess.run(
        [*unshare, sys.executable, "-c", ALONE + script, *words],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(Path(scw_signal.__file__).parent.parent),
        },
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
        text=True,
    ).stdout


UP = "link set lo up"
ADDRESS_4 = "address add 169.254.42.41/24 dev lo"
ADDRESS_6 = "address add fd00:42::41/64 dev lo"


@pytest.mark.parametrize(
    ("service", "steps"),
    [
        pytest.param(V4, (ADDRESS_4, UP), id="IPv4, the link comes up"),
        pytest.param(V4, (UP, ADDRESS_4), id="IPv4, an address comes"),
        pytest.param(V4, (UP, "route add 169.254.42.42 dev lo"), id="IPv4, a route"),
        pytest.param(V6, (ADDRESS_6, UP), id="IPv6, the link comes up"),
        pytest.param(V6, (UP, ADDRESS_6), id="IPv6, an address comes"),
        pytest.param(V6, (UP, "route add fd00:42::42 dev lo"), id="IPv6, a route"),
    ],
)
def test_on_linux_the_kernel_reports_what_makes_a_route(
    service: Endpoint, steps: tuple[str, ...]
) -> None:
    assert alone(WAKES, service.host, *steps) == "woken\n"


@pytest.mark.parametrize(("service", "address"), [(V4, ADDRESS_4), (V6, ADDRESS_6)])
def test_looking_for_a_route_sends_nothing(service: Endpoint, address: str) -> None:
    assert alone(SILENT, service.host, address, UP) == "silent\n"
