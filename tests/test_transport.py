"""Exchanges with the service, over real sockets on loopback.

There are two kinds of servers. A Peer is a thread that serves one connection and
sends what its test says, byte for byte. The other is the HTTP server of the
standard library, which shares no code with this project.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import gzip
import http.server
import inspect
import json
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import urllib3.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

import scw_signal
from fakes import FakeClock, SocketClock
from scw_signal import transport, wire
from scw_signal.clock import Clock
from scw_signal.errors import (
    BrokenOffError,
    NonsenseError,
    NotRootError,
    OtherStateError,
    RefusedError,
    Stopped,
    UnavailableError,
    UnreachableError,
)
from scw_signal.stop import Stop
from scw_signal.transport import Service, _TimedSocket
from scw_signal.wire import Endpoint, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behaviour = Callable[[socket.socket], None]
    Serve = Callable[..., "Peer"]

BOUND = 10.0  # seconds to wait for something that should come
ENDLESS = 64 * 1024 * 1024  # bytes, more than the client may ever read
V4, V6 = "127.0.0.1", "::1"
CONNECT = _TimedSocket.connect
SIGNAL = wire.state_request("booted")
DOCUMENT = wire.document_request()
ACKNOWLEDGED = (
    b"HTTP/1.1 200 OK\r\nServer: Tengine\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 20\r\nConnection: keep-alive\r\n\r\nSTATE_DETAIL=booted\n"
)


class Peer:
    """A server of one connection: takes one request, then does as it is told."""

    def __init__(self, behaviour: bytes | Behaviour, host: str = V4) -> None:
        """Take what to send before hanging up, or what to do with the connection."""
        self.request = b""
        self._behaviour = behaviour
        self._listener = listen(host)
        self.endpoint = endpoint(self._listener)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(BOUND)
        # The client may leave at any moment: that is what many tests are about.
        with connection, contextlib.suppress(ConnectionError):
            self.request = read_request(connection)
            if isinstance(self._behaviour, bytes):
                connection.sendall(self._behaviour)
            else:
                self._behaviour(connection)

    def join(self) -> None:
        """Wait until the connection is over."""
        self._thread.join(BOUND)
        assert not self._thread.is_alive(), "the peer still waits for something"

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a peer that nobody called yet
            socket.create_connection(self.endpoint, BOUND).close()
        self.join()
        self._listener.close()


class TickingClock(SocketClock):
    """A clock that each reading advances by a second, and that sends a byte then."""

    def __init__(self) -> None:
        super().__init__()
        self.heard, self._ticks = socket.socketpair()

    def close(self) -> None:
        self.heard.close()
        self._ticks.close()

    def monotonic(self) -> float:
        self.now += 1.0
        self._ticks.send(b".")
        return self.now


def listen(host: str = V4) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"cannot listen on {host} here: {error.strerror}")


def endpoint(listener: socket.socket) -> Endpoint:
    host, port = listener.getsockname()[:2]
    return Endpoint(host, port)


def read_request(connection: socket.socket) -> bytes:
    """Read one whole request."""
    request = b""
    while not request.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        request += byte
    for line in request.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2])
            while left and (chunk := connection.recv(left)):
                request += chunk
                left -= len(chunk)
    return request


def endlessly(prefix: bytes, unit: bytes) -> Behaviour:
    """Send `prefix`, then `unit` again and again until the client hangs up."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(prefix)
        for _ in range(ENDLESS // len(unit)):
            connection.sendall(unit)
        raise AssertionError("the client takes whatever it is given")

    return behave


def dripping(clock: TickingClock, prefix: bytes, unit: bytes) -> Behaviour:
    """Send `prefix`, then `unit` each time that the client reads its clock."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(prefix)
        while True:
            ready, _, _ = select.select([connection, clock.heard], [], [], BOUND)
            if clock.heard not in ready:
                break
            clock.heard.recv(1)
            connection.sendall(unit)
        assert connection in ready, "the client neither looks nor leaves"

    return behave


def silent_until_left(connection: socket.socket) -> None:
    assert connection.recv(1) == b"", "more than one request on a connection"


def reset(connection: socket.socket) -> None:
    linger_not_at_all = (1).to_bytes(4, sys.byteorder) + bytes(4)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not_at_all)


def refusing(host: str = V4) -> Endpoint:
    """Return an endpoint where nobody listens."""
    with listen(host) as closed:
        return endpoint(closed)


def was_called(listener: socket.socket) -> bool:
    """Return whether anybody connected; the kernel accepts connections by itself."""
    listener.settimeout(0)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Yield a function that starts a Peer; all of them must end with the test."""
    peers: list[Peer] = []

    def start(behaviour: bytes | Behaviour, host: str = V4) -> Peer:
        peers.append(Peer(behaviour, host))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """Fail the test that left a socket open: its warning is an error."""
    yield
    gc.collect()


def ask(
    peer: Peer,
    request: Request = SIGNAL,
    budget: float = float("inf"),
    clock: SocketClock | None = None,
) -> Reply:
    """Make one exchange with a peer; time stands still unless a clock is given."""
    reply, found = Service([peer.endpoint], clock or SocketClock()).exchange(
        request, budget
    )
    assert found == peer.endpoint
    return reply


def taken_apart(request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Return the request line, the headers by lower-case name, and the body."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    pairs = [field.split(": ", 1) for field in fields]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header twice"
    return line.encode(), {name.lower(): value for name, value in pairs}, body


# What goes out.


def test_the_signal_on_the_wire_is_that_of_the_capture(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED)
    ask(peer)
    assert taken_apart(peer.request) == (
        b"PATCH /state HTTP/1.1",
        {
            "host": f"127.0.0.1:{peer.endpoint.port}",
            "user-agent": f"scw-signal/{scw_signal.__version__}",
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "content-length": "26",
        },
        b'{"state_detail": "booted"}',
    )


def test_the_signal_looks_as_if_curl_had_sent_it(serve: Serve) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    assert SIGNAL.body is not None
    theirs, ours = serve(ACKNOWLEDGED), serve(ACKNOWLEDGED)
    subprocess.run(
        [
            "curl", "--silent", "--noproxy", "*", "--request", "PATCH",
            "--header", "Content-Type: application/json", "--data", SIGNAL.body,
            f"{theirs.endpoint.url}/state",
        ],
        check=True, capture_output=True, timeout=BOUND,
    )  # fmt: skip
    ask(ours)
    line, headers, body = taken_apart(ours.request)
    curl_line, curl_headers, curl_body = taken_apart(theirs.request)
    assert (line, body) == (curl_line, curl_body)
    # Ours has a User-Agent of its own, and asks for an uncompressed body.
    assert headers.keys() - curl_headers.keys() == {"accept-encoding"}
    for name in ("accept", "content-type", "content-length"):
        assert headers[name] == curl_headers[name]


def test_the_request_for_the_document_has_no_body(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED)
    ask(peer, DOCUMENT)
    line, headers, body = taken_apart(peer.request)
    assert (line, body) == (b"GET /conf?format=json HTTP/1.1", b"")
    assert headers.keys() == {"host", "user-agent", "accept", "accept-encoding"}


def test_an_ipv6_address_is_in_brackets_in_the_host_header(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED, V6)
    ask(peer)
    _, headers, _ = taken_apart(peer.request)
    assert headers["host"] == f"[::1]:{peer.endpoint.port}"


def test_a_host_name_is_resolved_and_sent_in_the_host_header(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED)
    named = Endpoint("host", peer.endpoint.port)
    asked = []

    def resolve(*question: object) -> list[Any]:
        asked.append(question)
        return [(socket.AF_INET, peer.endpoint)]

    reply, _ = Service([named], SocketClock(), resolve=resolve).exchange(SIGNAL, 10)
    assert (reply.status, asked) == (200, [(*named, 10)])
    assert b"\r\nHost: host:" in peer.request


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name not known"), "Name not known"),
        (TimeoutError(), "no answer in time"),
    ],
)
def test_a_name_that_is_not_resolved_is_unreachable(
    failure: OSError, said: str
) -> None:
    def resolve(*_: object) -> list[Any]:
        raise failure

    service = Service([Endpoint("nobody")], SocketClock(), resolve=resolve)
    with pytest.raises(UnreachableError, match=rf"^nobody: {said}$"):
        service.exchange(SIGNAL, 10)


def test_without_a_resolver_a_name_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match=r"^localhost: not an address$"):
        Service([Endpoint("localhost")], SocketClock()).exchange(SIGNAL, 10)


def test_a_look_up_may_take_30_seconds_and_counts_against_the_budget(
    clock: SocketClock,
) -> None:
    seconds: list[float] = []

    def resolve(_host: str, _port: int, most: float) -> list[Any]:
        seconds.append(most)
        clock.wait(most)
        return [(socket.AF_INET, refusing())]

    service = Service([Endpoint("slow")], clock, resolve=resolve)
    for budget, said in ((math.inf, "refused"), (2.0, "no answer in time")):
        with pytest.raises(UnreachableError, match=said):
            service.exchange(SIGNAL, budget)
    assert seconds == [30.0, 2.0]


def test_a_look_up_without_an_answer_leaves_the_next_address_its_share(
    serve: Serve,
) -> None:
    clock = SocketClock()

    def resolve(_host: str, _port: int, most: float) -> list[Any]:
        clock.wait(most)
        raise TimeoutError

    peer = serve(ACKNOWLEDGED)
    service = Service([Endpoint("lost"), peer.endpoint], clock, resolve=resolve)
    beginning = clock.now
    assert service.exchange(SIGNAL, 4.0)[1] == peer.endpoint
    assert clock.now - beginning == 2.0


@pytest.mark.parametrize("host", [V4, V6])
def test_an_address_is_not_looked_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    peer = serve(ACKNOWLEDGED, host)
    with monkeypatch.context() as patch:
        patch.delattr(socket, "getaddrinfo")
        assert ask(peer).status == 200


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_whatever_the_environment_says(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with listen() as proxy:
        monkeypatch.setenv(variable, endpoint(proxy).url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        peer = serve(ACKNOWLEDGED)
        assert ask(peer).status == 200
        assert peer.request.startswith(b"PATCH /state ")
        assert not was_called(proxy)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(serve: Serve, status: int) -> None:
    with listen() as elsewhere:
        peer = serve(
            b"HTTP/1.1 %d Moved\r\nLocation: %s/state\r\nContent-Length: 0\r\n\r\n"
            % (status, endpoint(elsewhere).url.encode())
        )
        assert ask(peer).status == status
        assert not was_called(elsewhere)


@pytest.mark.parametrize("request_", [SIGNAL, DOCUMENT], ids=["signal", "document"])
@pytest.mark.parametrize(
    "reply",
    [
        *(
            pytest.param(
                b"HTTP/1.1 %d No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
                % status,
                id=str(status),
            )
            for status in (408, 413, 429, 500, 503)
        ),
        pytest.param(b"", id="hangs up"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", id="broken"),
    ],
)
def test_one_exchange_is_one_request(
    serve: Serve, request_: Request, reply: bytes
) -> None:
    peer = serve(reply)
    with contextlib.suppress(BrokenOffError):
        assert ask(peer, request_).status >= 400
    assert not was_called(peer._listener)


def test_a_small_request_leaves_at_once(serve: Serve) -> None:
    peer = serve(b"")
    host, port = peer.endpoint
    timer = transport._Timer(SocketClock(), BOUND)
    there = [(socket.AF_INET, (host, port))]
    with transport._connect(there, timer, transport.stream_socket) as socket_:
        assert socket_.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Where it goes.


def test_the_first_address_that_answers_is_the_only_one_asked(serve: Serve) -> None:
    with listen() as second:
        first = serve(ACKNOWLEDGED)
        service = Service([first.endpoint, endpoint(second)], SocketClock())
        _, found = service.exchange(SIGNAL, 10)
        assert found == first.endpoint
        assert not was_called(second)


def test_a_refused_connection_leads_to_the_next_address(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED, V6)
    service = Service([refusing(V4), peer.endpoint], SocketClock())
    reply, found = service.exchange(SIGNAL, 10)
    assert (reply.status, found) == (200, peer.endpoint)


def test_begin_is_told_each_address_before_it_is_asked(serve: Serve) -> None:
    peer, told = serve(ACKNOWLEDGED), list[str]()
    service = Service([refusing(V6), peer.endpoint], SocketClock(), begin=told.append)
    service.exchange(SIGNAL, 10)
    assert told == [V6, V4]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENETUNREACH, "no route"), id="no route to it"),
        pytest.param(OSError(errno.EHOSTUNREACH, "no host"), id="no such host"),
        pytest.param(OSError(errno.EADDRNOTAVAIL, "no IPv6"), id="no address"),
        pytest.param(PermissionError(errno.EACCES, "pf"), id="forbidden by a filter"),
        pytest.param(TimeoutError("timed out"), id="no answer"),
        pytest.param(OSError("strange"), id="without a number"),
    ],
)
def test_an_address_that_cannot_be_reached_leads_to_the_next(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    peer, lost = serve(ACKNOWLEDGED), refusing()
    asked = []

    def connect(self: _TimedSocket, address: tuple[str, int]) -> None:
        asked.append(Endpoint(*address))
        if asked[-1] == lost:
            raise error
        CONNECT(self, address)

    monkeypatch.setattr(_TimedSocket, "connect", connect)
    service = Service([lost, peer.endpoint], SocketClock())
    assert service.exchange(SIGNAL, 10)[1] == peer.endpoint
    assert asked == [lost, peer.endpoint]


def test_after_an_answer_that_address_is_asked_first_and_then_the_others_in_order(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, lost, also_lost = serve(ACKNOWLEDGED), refusing(V4), refusing(V6)
    asked = []

    def connect(self: _TimedSocket, address: tuple[str, int]) -> None:
        asked.append(Endpoint(*address))
        CONNECT(self, address)

    monkeypatch.setattr(_TimedSocket, "connect", connect)
    service = Service([lost, peer.endpoint, also_lost], SocketClock())
    service.exchange(SIGNAL, 10)
    peer.close()
    with pytest.raises(UnreachableError):
        service.exchange(SIGNAL, 10)
    assert asked == [lost, peer.endpoint, peer.endpoint, lost, also_lost]


class BlackHole(FakeClock):
    """A clock for a network that never answers a connection."""

    def _ready(self, _descriptors: tuple[int, ...], _event: int) -> bool:
        return False


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> BlackHole:
    monkeypatch.setattr(_TimedSocket, "connect_ex", lambda *_: errno.EINPROGRESS)
    return BlackHole()


@pytest.mark.parametrize(
    ("budget", "allowed"), [(float("inf"), 3.0), (10.0, 3.0), (2.0, 2.0)]
)
def test_a_connection_may_take_three_seconds_or_what_is_left(
    black_hole: BlackHole, budget: float, allowed: float
) -> None:
    with pytest.raises(UnreachableError, match="no answer in time"):
        Service([refusing()], black_hole).exchange(SIGNAL, budget)
    assert black_hole.waits == [allowed]


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [
        (12.0, [3.0, 3.0, 3.0]),
        (5.0, [5 / 3, 5 / 3, 5 / 3]),
        (8.0, [8 / 3, 8 / 3, 8 / 3]),
    ],
)
def test_addresses_that_lead_nowhere_share_the_budget(
    black_hole: BlackHole, budget: float, allowed: list[float]
) -> None:
    service = Service([refusing(), refusing(), refusing()], black_hole)
    with pytest.raises(UnreachableError):
        service.exchange(SIGNAL, budget)
    assert black_hole.waits == pytest.approx(allowed)


def test_time_that_one_address_took_is_not_left_for_the_next(
    black_hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_ex(_self: socket.socket, _address: tuple[str, int]) -> int:
        black_hole.now += 4 / 3  # as on a busy machine
        return errno.EINPROGRESS

    monkeypatch.setattr(_TimedSocket, "connect_ex", connect_ex)
    service = Service([refusing(), refusing(), refusing()], black_hole)
    with pytest.raises(UnreachableError) as caught:
        service.exchange(SIGNAL, 5.0)
    assert black_hole.waits == pytest.approx([5 / 3, 2 / 3]), "the third has no time"
    assert str(caught.value).count("127.0.0.1") == 2


def test_when_no_address_connects_the_error_names_each_and_its_reason() -> None:
    service = Service([refusing(V4), refusing(V6)], SocketClock())
    with pytest.raises(UnreachableError) as caught:
        service.exchange(SIGNAL, 10)
    assert str(caught.value) == (
        "127.0.0.1: Connection refused; ::1: Connection refused"
    )


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(b"", id="hangs up"),
        pytest.param(b"HTTP/1.1 200 O", id="hangs up within the status line"),
        pytest.param(reset, id="resets"),
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(silent_until_left, id="silent"),
    ],
)
def test_once_bytes_were_sent_no_other_address_gets_them(
    serve: Serve, behaviour: bytes | Behaviour
) -> None:
    with listen() as second:
        first = serve(behaviour)
        service = Service([first.endpoint, endpoint(second)], SocketClock())
        with pytest.raises(BrokenOffError):
            service.exchange(SIGNAL, 0.05)
        first.join()
        assert first.request
        assert not was_called(second)


def test_a_connection_that_breaks_before_the_request_is_broken_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(self: _TimedSocket, address: tuple[str, int]) -> None:
        CONNECT(self, address)
        self.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(_TimedSocket, "connect", connect)
    with listen() as second:
        first = serve(ACKNOWLEDGED)
        service = Service([first.endpoint, endpoint(second)], SocketClock())
        with pytest.raises(BrokenOffError):
            service.exchange(SIGNAL, 10)
        assert not was_called(second)


# One bad address does not hide the other.


def tried(service: Service, outcome: Exception | None = None) -> Endpoint:
    """Make one try with this outcome; return the address that it asked."""
    asked: list[Endpoint] = []

    def operation() -> None:
        asked.append(service.exchange(SIGNAL, 10)[1])
        if outcome is not None:
            raise outcome

    with contextlib.nullcontext() if outcome is None else pytest.raises(type(outcome)):
        service.attempt(operation)
    return asked[0]


@pytest.fixture
def both() -> Iterator[tuple[Service, Endpoint, Endpoint]]:
    """Yield a service at two addresses that answer any number of requests."""
    servers = [http.server.ThreadingHTTPServer((V4, 0), _Platform) for _ in range(2)]
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.01,))
        for server in servers
    ]
    for thread in threads:
        thread.start()
    first, second = (Endpoint(V4, server.server_address[1]) for server in servers)
    yield Service([first, second], SocketClock()), first, second
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


UNUSABLE: list[Exception] = [
    BrokenOffError("broke off"),
    BrokenOffError("silent", overload=True),
    NonsenseError("a web page"),
    OtherStateError("stopping"),
    RefusedError("403"),
    UnavailableError("404"),
]


@pytest.mark.parametrize("failure", UNUSABLE, ids=str)
def test_after_two_failures_of_an_address_in_a_row_the_next_try_begins_with_another(
    both: tuple[Service, Endpoint, Endpoint], failure: Exception
) -> None:
    service, first, second = both
    assert [tried(service, failure) for _ in range(6)] == [
        first, first, second, second, first, first,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "between", [None, UnavailableError("429", overload=True)], ids=["success", "429"]
)
def test_an_address_that_works_in_between_stays_the_first(
    both: tuple[Service, Endpoint, Endpoint], between: Exception | None
) -> None:
    service, first, _ = both
    nonsense = NonsenseError("a web page")
    asked = [tried(service, each) for each in (nonsense, None, nonsense, between)]
    assert asked == [first] * 4


def test_an_overload_is_held_against_no_address(
    both: tuple[Service, Endpoint, Endpoint],
) -> None:
    service, first, _ = both
    overload = UnavailableError("503", overload=True)
    assert [tried(service, overload) for _ in range(5)] == [first] * 5


def test_a_try_that_reached_no_address_is_held_against_none(
    both: tuple[Service, Endpoint, Endpoint],
) -> None:
    service, first, _ = both

    def unreachable() -> None:
        raise UnreachableError("no route")

    for _ in range(3):
        with pytest.raises(UnreachableError):
            service.attempt(unreachable)
    assert tried(service) == first


def test_a_try_returns_what_its_operation_does() -> None:
    assert Service([], SocketClock()).attempt(lambda: 7) == 7


# The source port.


@pytest.fixture
def reserved() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has the ports below 1024")


@pytest.mark.usefixtures("reserved")
@pytest.mark.parametrize("host", [V4, V6])
def test_the_service_sees_a_reserved_source_port(serve: Serve, host: str) -> None:
    seen = []

    def look(connection: socket.socket) -> None:
        seen.append(connection.getpeername()[1])
        connection.sendall(ACKNOWLEDGED)

    peer = serve(look, host)
    service = Service([peer.endpoint], SocketClock(), transport.reserved_socket)
    assert service.exchange(SIGNAL, 10)[0].status == 200
    assert 600 <= seen[0] < 1024


@pytest.mark.usefixtures("reserved")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_reserved_port_that_is_taken_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, family: int
) -> None:
    with transport.reserved_socket(family) as taken:
        port = taken.getsockname()[1]
        with transport.reserved_socket(family) as free:
            left = free.getsockname()[1]
        monkeypatch.setattr(transport, "RESERVED_PORTS", [port, left])
        for _ in range(4):
            with transport.reserved_socket(family) as bound:
                assert bound.getsockname()[1] == left
        monkeypatch.setattr(transport, "RESERVED_PORTS", [port])
        with pytest.raises(OSError, match="every port below 1024 is in use"):
            transport.reserved_socket(family)


def test_without_the_right_to_a_reserved_port_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    with listen() as first:
        monkeypatch.setattr("socket.socket.bind", refuse)
        where = [endpoint(first), endpoint(first)]
        service = Service(where, SocketClock(), transport.reserved_socket)
        with pytest.raises(NotRootError, match="only root may do this"):
            service.exchange(SIGNAL, 10)
        assert not was_called(first)


def test_binding_a_reserved_port_asks_no_resolver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr("socket.socket.bind", lambda _, where: asked.append(where[0]))
    for family in (socket.AF_INET, socket.AF_INET6):
        transport.reserved_socket(family).close()
    assert asked == ["0.0.0.0", "::"]  # noqa: S104 - expected, not listened on


def test_the_caller_may_supply_the_sockets(serve: Serve) -> None:
    peer = serve(ACKNOWLEDGED)
    handed = socket.socket()
    handed.bind((V4, 0))
    stock: dict[int, socket.socket] = {socket.AF_INET: handed}
    service = Service([peer.endpoint], SocketClock(), stock.__getitem__)
    assert service.exchange(SIGNAL, 10)[0].status == 200
    assert handed.fileno() == -1, "another socket was used"


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize(("taken", "tries"), [(7, 8), (99, 8)])
def test_after_a_source_port_in_use_at_most_seven_others_are_tried(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, number: int, taken: int, tries: int
) -> None:
    peer = serve(ACKNOWLEDGED)
    asked: list[int] = []

    def connect(self: _TimedSocket, address: tuple[str, int]) -> None:
        asked.append(self.fileno())
        if len(asked) <= taken:
            raise OSError(number, "taken")
        CONNECT(self, address)

    monkeypatch.setattr(_TimedSocket, "connect", connect)
    fresh = Service([peer.endpoint], SocketClock(), socket.socket)
    works = taken < tries
    with contextlib.nullcontext() if works else pytest.raises(UnreachableError):
        assert fresh.exchange(SIGNAL, 10)[0].status == 200
    assert len(asked) == tries


# How much of the reply is read.


def test_a_reply_comes_with_its_status_headers_and_body(serve: Serve) -> None:
    reply = ask(serve(ACKNOWLEDGED))
    assert (reply.status, reply.body, reply.truncated) == (
        200, b"STATE_DETAIL=booted\n", False,
    )  # fmt: skip
    assert reply.headers.get("server") == reply.headers.get("SERVER") == "Tengine"


def test_a_body_without_a_length_ends_with_the_connection(serve: Serve) -> None:
    reply = ask(serve(b"HTTP/1.0 200 OK\r\n\r\nSTATE_DETAIL=booted\n"))
    assert reply.body == b"STATE_DETAIL=booted\n"


def test_a_chunked_body_is_put_together(serve: Serve) -> None:
    reply = ask(
        serve(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"d\r\nSTATE_DETAIL=\r\n7\r\nbooted\n\r\n0\r\n\r\n"
        )
    )
    assert reply.body == b"STATE_DETAIL=booted\n"


def test_a_100_continue_reply_is_skipped(serve: Serve) -> None:
    reply = ask(serve(b"HTTP/1.1 100 Continue\r\n\r\n" + ACKNOWLEDGED))
    assert (reply.status, reply.body) == (200, b"STATE_DETAIL=booted\n")


@pytest.mark.parametrize("status", [204, 304])
def test_a_reply_that_can_have_no_body_has_none(serve: Serve, status: int) -> None:
    peer = serve(b"HTTP/1.1 %d Fine\r\nContent-Length: 5\r\n\r\n" % status)
    assert ask(peer)[2:] == (b"", False)


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        pytest.param(SIGNAL, 64 * 1024, id="acknowledgement"),
        pytest.param(DOCUMENT, 512 * 1024, id="document"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "end", "chunks"])
def test_a_body_at_the_limit_is_complete_and_one_byte_more_is_not(
    serve: Serve, request_: Request, limit: int, framing: str
) -> None:
    def reply(body: bytes) -> bytes:
        if framing == "length":
            head = b"Content-Length: %d\r\n" % len(body)
        elif framing == "chunks":
            head = b"Transfer-Encoding: chunked\r\n"
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            head = b""
        return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body

    whole = bytes(limit - 1) + b"!"
    assert ask(serve(reply(whole)), request_)[2:] == (whole, False)
    assert ask(serve(reply(whole + b"?")), request_)[2:] == (whole, True)


@pytest.mark.parametrize("request_", [SIGNAL, DOCUMENT], ids=["signal", "document"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"\r\n", id="until the connection ends"),
        pytest.param(b"Content-Length: 99999999999999999999\r\n\r\n", id="absurd"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\n", id="one chunk"
        ),
    ],
)
def test_an_endless_body_is_read_only_up_to_the_limit(
    serve: Serve, request_: Request, head: bytes
) -> None:
    peer = serve(endlessly(b"HTTP/1.1 200 OK\r\n" + head, b"x" * 4096))
    reply = ask(peer, request_)
    assert (len(reply.body), reply.truncated) == (request_.limit, True)
    peer.join()  # the client has hung up


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip", "gzip, gzip"])
def test_a_compressed_body_is_not_unpacked(serve: Serve, encoding: str) -> None:
    bomb = gzip.compress(bytes(32 * 1024 * 1024))
    peer = serve(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s"
        % (encoding.encode(), len(bomb), bomb)
    )
    assert ask(peer).body == bomb[: SIGNAL.limit]


# What goes wrong on the way.


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200 O", id="within the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Len", id="within a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", id="no body"),
        pytest.param(ACKNOWLEDGED[:-1], id="a byte is missing"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nx",
            id="compressed",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nSTA",
            id="within a chunk",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nSTA\r\n",
            id="between chunks",
        ),
    ],
)
@pytest.mark.parametrize("request_", [SIGNAL, DOCUMENT], ids=["signal", "document"])
def test_a_reply_that_ends_too_early_is_broken_off(
    serve: Serve, reply: bytes, request_: Request
) -> None:
    with pytest.raises(BrokenOffError):
        ask(serve(reply), request_)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"\x00\xff\x80" * 100, id="binary"),
        pytest.param(b"STATE_DETAIL=booted\n", id="no head"),
        pytest.param(b"<html>\r\n\r\n", id="a page"),
        pytest.param(b"HTTP/1.1\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="no number"),
        pytest.param(b"HTTP/1.1 99999 OK\r\n\r\n", id="no such number"),
        pytest.param(b"HTTP/9.9 200 OK\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 " + b"K" * 70_000 + b"\r\n\r\n", id="long status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", id="long header"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", id="many headers"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nab",
            id="two lengths",
            # urllib3 forgets to close the reply that it fails to wrap.
            marks=pytest.mark.filterwarnings(
                "ignore::pytest.PytestUnraisableExceptionWarning"
            ),
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            id="chunk of no size",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-15\r\nxyz\r\n",
            id="chunk of negative size",
        ),
    ],
)
def test_a_reply_that_is_not_http_is_broken_off(serve: Serve, reply: bytes) -> None:
    with pytest.raises(BrokenOffError) as caught:
        ask(serve(reply))
    assert str(caught.value) == "127.0.0.1: the reply broke off or is not HTTP"


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [
        pytest.param(b"HTTP/1.1 200 O", b"K", id="in the status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", id="in the headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="in the body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"x", id="of known length"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            id="in chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: y\r\n",
            id="in trailers",
        ),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="in continuations"),
    ],
)
def test_a_reply_that_drips_is_broken_off_when_its_time_has_passed(
    serve: Serve, prefix: bytes, unit: bytes
) -> None:
    with contextlib.closing(TickingClock()) as clock:
        start = clock.now
        peer = serve(dripping(clock, prefix, unit))
        with pytest.raises(BrokenOffError, match=r"^127\.0\.0\.1: no answer in time$"):
            ask(peer, clock=clock)
        # Six more readings of the clock do not wait for a byte.
        assert clock.now - start <= transport.EXCHANGE_SECONDS + 6
        peer.join()


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="continue"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: y\r\n" * 100,
            id="trailers",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 4096, id="one header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100, id="headers"),
        pytest.param(b"", b"\r\n" * 100, id="empty lines"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"x" * 4096,
            id="a chunk's extension",
        ),
    ],
)
def test_a_flood_ends_when_the_time_is_up_if_not_before(
    serve: Serve, prefix: bytes, unit: bytes
) -> None:
    with contextlib.closing(TickingClock()) as clock:
        peer = serve(endlessly(prefix, unit))
        with pytest.raises(BrokenOffError):
            ask(peer, clock=clock)


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            b"x" * 4096,
            id="a chunk of -1 bytes",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 60_000 + b"\r\n", id="long headers"
        ),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, id="continuations"),
    ],
)
def test_whatever_the_framing_only_a_reply_and_its_head_are_received(
    serve: Serve, prefix: bytes, unit: bytes
) -> None:
    # The clock stands still: no time limit ends this. Python 3.15 counts continuations.
    peer = serve(endlessly(prefix, unit))
    with pytest.raises(BrokenOffError, match=r"is too long$|is not HTTP$"):
        ask(peer)


def test_a_peer_that_stays_silent_is_left_when_the_time_has_passed(
    serve: Serve,
) -> None:
    with pytest.raises(BrokenOffError, match="no answer in time"):
        ask(serve(silent_until_left), budget=0.01)


@pytest.mark.parametrize(
    ("seconds", "budget", "allowed"), [(5, float("inf"), 5), (5, 2, 2), (3, 5, 3)]
)
def test_a_peer_may_be_silent_for_one_exchange_or_for_the_time_left(
    serve: Serve,
    seconds: float,
    budget: float,
    allowed: float,
) -> None:
    clock = SocketClock()
    service = Service([serve(ACKNOWLEDGED).endpoint], clock, seconds=seconds)
    service.exchange(SIGNAL, budget)
    assert clock.waits[-1] == allowed


@pytest.mark.parametrize("wait", ["to connect", "to send", "for the reply"])
def test_a_stop_ends_each_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    quiet, _other = socket.socketpair()
    request, where = SIGNAL, serve(silent_until_left).endpoint
    if wait == "to connect":
        monkeypatch.setattr(_TimedSocket, "connect_ex", lambda *_: errno.EINPROGRESS)
        monkeypatch.setattr(_TimedSocket, "fileno", lambda _: quiet.fileno())
    elif wait == "to send":
        request = SIGNAL._replace(body=bytes(64 * 1024 * 1024))
    with quiet, _other, Stop() as stop:
        quiet.settimeout(0)
        if wait == "to connect":
            fill(quiet)
        timer = threading.Timer(
            0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)
        )
        timer.start()
        with pytest.raises(Stopped):
            Service([where], Clock(stop)).exchange(request, BOUND)
        timer.join()


def fill(end: socket.socket) -> None:
    """Send to a socket until its buffer is full."""
    while Clock().wait_writable(0, end.fileno()):
        end.send(b"x" * 65536)


HEADS = [
    pytest.param(b"Server : x\r\nContent-Length: 20\r\n", id="a space before a colon"),
    pytest.param(b"no colon\r\nContent-Length: 20\r\n", id="no colon"),
    pytest.param(b"Content-Length: 20\r\nno colon\r\n", id="no colon, late"),
    pytest.param(b"Content-Length: 20\r\nContent-Length: 21\r\n", id="two lengths"),
]


@pytest.mark.parametrize("head", HEADS)
def test_a_broken_head_is_rejected_at_once(serve: Serve, head: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        body = b"STATE_DETAIL=booted\n"
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
        silent_until_left(connection)

    clock = SocketClock()
    start = clock.now
    with pytest.raises(BrokenOffError, match="not HTTP"):
        ask(serve(behave), clock=clock)
    assert clock.now == start, "it waited for more"


def test_the_same_length_given_twice_is_accepted(serve: Serve) -> None:
    twice = ACKNOWLEDGED.replace(b"\r\n\r\n", b"\r\nContent-Length: 20\r\n\r\n")
    assert ask(serve(twice)).body == b"STATE_DETAIL=booted\n"


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
    ],
)
def test_interim_replies_are_skipped(serve: Serve, interim: bytes) -> None:
    reply = ask(serve(interim + ACKNOWLEDGED))
    assert (reply.status, reply.body) == (200, b"STATE_DETAIL=booted\n")
    assert "Link" not in reply.headers


def test_one_call_receives_at_most_8192_bytes_whatever_the_buffer(
    serve: Serve,
) -> None:
    host, port = serve(endlessly(b"", b"x" * 65536)).endpoint
    timer = transport._Timer(Clock(), BOUND)
    there = [(socket.AF_INET, (host, port))]
    with transport._connect(there, timer, transport.stream_socket) as connected:
        connected.bytes_left = 1 << 20
        connected.sendall(b"GET / HTTP/1.1\r\n\r\n")
        received = [connected.recv_into(bytearray(1 << 20)) for _ in range(10)]
    assert max(received) <= 8192


def test_the_zone_of_an_address_is_not_in_the_host_header(
    serve: Serve,
) -> None:
    peer = serve(ACKNOWLEDGED, V6)
    there = (socket.AF_INET6, peer.endpoint[:2])
    named = Endpoint("fe80::1%lo", peer.endpoint.port)
    service = Service([named], SocketClock(), resolve=lambda *_: [there])
    assert service.exchange(SIGNAL, BOUND)[1] == named
    _, headers, _ = taken_apart(peer.request)
    assert headers["host"] == f"[fe80::1]:{peer.endpoint.port}"


def test_a_peer_that_does_not_take_the_request_is_left_in_time() -> None:
    with listen() as listener:
        service = Service([endpoint(listener)], SocketClock())
        large = SIGNAL._replace(body=bytes(64 * 1024 * 1024))
        with pytest.raises(BrokenOffError, match=r"^127\.0\.0\.1: no answer in time$"):
            service.exchange(large, 0.05)


def test_without_time_left_no_address_is_asked() -> None:
    with listen() as listener:
        service = Service([endpoint(listener)], SocketClock())
        with pytest.raises(UnreachableError, match="no answer in time"):
            service.exchange(SIGNAL, 0.0)
        assert not was_called(listener)


def test_a_reset_is_named(serve: Serve) -> None:
    with pytest.raises(BrokenOffError, match=r"^127\.0\.0\.1: Connection reset by"):
        ask(serve(reset))


THEIR_ERRORS: list[type[Exception]] = [
    OSError,
    *(
        error
        for error in vars(urllib3.exceptions).values()
        if inspect.isclass(error)
        and issubclass(error, urllib3.exceptions.HTTPError)
        and not issubclass(error, Warning)
    ),
]


@pytest.mark.parametrize("kind", THEIR_ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("where", ["urlopen", "read"])
def test_every_error_of_urllib3_and_of_a_socket_becomes_ours(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    where: str,
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise kind.__new__(kind)  # each constructor takes something else

    if where == "urlopen":
        monkeypatch.setattr(transport._Pool, "urlopen", fail)
    else:
        monkeypatch.setattr(urllib3.HTTPResponse, "read", fail)
    with pytest.raises(BrokenOffError) as caught:
        ask(serve(ACKNOWLEDGED))
    assert caught.value.__suppress_context__, "the library's error is not shown"


# A reply made of meaningful pieces, with anything in between.
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 ", b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Location: \r\n",
        b"Retry-After: 1\r\n", b"\r\n", b"\n", b" : \r\n", b"\tfolded\r\n", b"X:\r\n",
        b"5\r\nabcde\r\n", b"0\r\n\r\n", b"-1\r\n", b"0x5\r\n", b"STATE_DETAIL=a\n",
        b"From: =?utf-8?q?", b"\x80\xff", b"\x00",
    ]
)  # fmt: skip
REPLIES = st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)


@settings(deadline=None, max_examples=500)
@given(st.just(b"") | st.just(b"HTTP/1.1 200 OK\r\n"), REPLIES)
def test_whatever_comes_back_is_a_reply_or_an_error_of_ours(
    start: bytes, rest: bytes
) -> None:
    # A peer without a thread: the kernel takes the connection and the request.
    with listen() as listener:
        reply = start + rest
        connections = []

        def connect(self: _TimedSocket, address: tuple[str, int]) -> None:
            CONNECT(self, address)
            connection, _ = listener.accept()
            connections.append(connection)
            connection.sendall(reply)
            connection.shutdown(socket.SHUT_WR)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_TimedSocket, "connect", connect)
            try:
                answer, _ = Service([endpoint(listener)], SocketClock()).exchange(
                    SIGNAL, float("inf")
                )
                assert answer.body in reply or b"chunked" in reply
            except BrokenOffError:
                pass
            finally:
                for connection in connections:
                    connection.close()


# With a server that is not ours, and in a process of its own.


class _Platform(http.server.BaseHTTPRequestHandler):
    """The service, as the standard library would serve it."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.command, self.path, body))
        self._answer(f"STATE_DETAIL={json.loads(body)['state_detail']}\n".encode())

    def do_GET(self) -> None:
        self.seen.append((self.command, self.path, b""))
        self._answer(b'{"state_detail": "booted"}')

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.mark.parametrize("host", [V4, V6])
def test_the_http_server_of_the_standard_library_understands_us(host: str) -> None:
    listen(host).close()

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), _Platform) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            _Platform.seen.clear()
            service = Service([Endpoint(host, server.server_address[1])], Clock())
            acknowledgement, _ = service.exchange(SIGNAL, BOUND)
            document, _ = service.exchange(DOCUMENT, BOUND)
        finally:
            server.shutdown()
            thread.join()
    assert acknowledgement.body == b"STATE_DETAIL=booted\n"
    assert document.body == b'{"state_detail": "booted"}'
    assert _Platform.seen == [
        ("PATCH", "/state", SIGNAL.body),
        ("GET", "/conf?format=json", b""),
    ]


ALONE = """
import sys
from scw_signal.clock import Clock
from scw_signal.errors import ScwSignalError
from scw_signal.transport import Service, _TimedSocket
from scw_signal.wire import Endpoint, state_request
try:
    Service([Endpoint("127.0.0.1", int(sys.argv[1]))], Clock()).exchange(
        state_request("booted"), 10
    )
except ScwSignalError:
    pass
"""


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(ACKNOWLEDGED, id="good"),
        pytest.param(ACKNOWLEDGED[:-1], id="broken off"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX\r\n: y\r\n\r\n", id="strange headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", id="length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n0\r\n\r\n",
            id="two framings",
        ),
    ],
)
def test_nothing_is_printed_whatever_the_library_has_to_say(
    serve: Serve, reply: bytes
) -> None:
    """Run it in a process of its own: pytest would collect the library's log."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", ALONE, str(serve(reply).endpoint.port)],
        env={"PYTHONPATH": str(Path(scw_signal.__file__).parent.parent)},
        capture_output=True,
        timeout=6 * BOUND,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
