"""Talks to the service: the only module that knows urllib3.

Here urllib3 does not retry or follow redirects, and its connection pools never use a
proxy from the environment. Other modules decide when to try again. This module
translates every error of the library and of the socket into one of errors.py.

The sockets never block: each wait goes through the clock, so that a stop ends it.
"""

from __future__ import annotations

import errno
import http.client
import os
import random
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util.response import assert_header_parsing

from .errors import (
    BrokenOffError,
    NotRootError,
    RefusedError,
    TryAgainError,
    UnavailableError,
    UnreachableError,
)
from .wire import Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from urllib3 import BaseHTTPResponse

    from .clock import Clock
    from .wire import Address, Request

    OpenSocket = Callable[[int], socket.socket]
    Resolve = Callable[[str, int, float], list[Address]]

T = TypeVar("T")

CONNECT_SECONDS = 3.0  # TCP sends a lost SYN again after 1 s
# From connecting to the last byte. On a lossy network TCP sends lost packets again
# after about 1, 3, 7 and 15 s (RFC 6298). A new request in the meantime would start
# over, and would give a slow service more work.
EXCHANGE_SECONDS = 30.0
RESOLVE_SECONDS = 30.0  # for a host name: a resolver may ask several name servers
_SILENCE = "no answer in time"
_CHUNK = 64 * 1024
_INTERIM = frozenset(range(102, 200))  # 101 only comes if the client asks for it
_OVERHEAD = 64 * 1024  # bytes received for the head of a reply and for its framing
# The most to receive in one call; the buffer of Python 3.14 and later has 128 KiB.
_RECEIVED_AT_ONCE = 8 * 1024
FAILURES_BEFORE_SWITCH = 2  # in a row; then the next try begins with another address

# As in bindresvport(3): the ports of well-known services are below them.
RESERVED_PORTS = range(600, 1024)
# bind(2) fails if a port is in use. connect(2) fails if an earlier connection from
# this port to the same address is in TIME_WAIT. Then another port is tried, this often:
_SOURCE_TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
_SOURCES = 8


def stream_socket(family: int) -> socket.socket:
    """Return a TCP socket; the system chooses its port. Raises OSError."""
    return socket.socket(family, socket.SOCK_STREAM)


def reserved_socket(family: int) -> socket.socket:
    """Return a TCP socket bound to a port that only root may use.

    The ports are tried in random order, since a port may be in use, or in TIME_WAIT
    after an earlier request. Raises NotRootError, or OSError if no port is free.
    """
    # Not "", with which bind(2) calls getaddrinfo(3): see Service._addresses.
    anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - a source
    for port in random.sample(RESERVED_PORTS, len(RESERVED_PORTS)):
        bound = stream_socket(family)
        try:
            bound.bind((anywhere, port))
        except PermissionError:
            bound.close()
            raise NotRootError(
                "only root may do this: user data needs a source port below 1024"
            ) from None
        except OSError as error:
            bound.close()
            if error.errno not in _SOURCE_TAKEN:
                raise
        else:
            return bound
    raise OSError(errno.EADDRINUSE, "every port below 1024 is in use")


class Service:
    """The metadata service, at one of several addresses."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        clock: Clock,
        open_socket: OpenSocket = stream_socket,
        *,
        resolve: Resolve | None = None,
        seconds: float = EXCHANGE_SECONDS,
        begin: Callable[[str], None] = lambda _host: None,
    ) -> None:
        """Take the addresses in the order in which to try them.

        `open_socket` makes a TCP socket of a family, not connected yet; it is
        `reserved_socket` if the service checks the source port. `resolve` returns the
        addresses of a host name within some seconds; without it, host names do not
        work. `seconds` limits the exchange with one address. `begin` is called with
        each host before it is asked.
        """
        self._endpoints = list(endpoints)
        self._connected: Endpoint | None = None  # the last one
        self._failures: tuple[Endpoint | None, int] = (None, 0)  # in a row
        self._clock = clock
        self._open_socket = open_socket
        self._resolve = resolve
        self._seconds = seconds
        self._begin = begin

    def attempt(self, operation: Callable[[], T]) -> T:
        """Make one try, of one or more exchanges, and return its result.

        Failures are counted for the address that accepted the connection. After
        FAILURES_BEFORE_SWITCH in a row the next try begins with another address, since
        that one may work while this one answers nonsense. An overload does not count.
        """
        self._connected = None
        try:
            result = operation()
        except (TryAgainError, RefusedError) as error:
            overloaded = isinstance(error, UnavailableError) and error.overload
            if not overloaded and self._connected is not None:
                self._count_failure(self._connected)
            raise
        self._failures = (None, 0)
        return result

    def _count_failure(self, endpoint: Endpoint) -> None:
        last, failures = self._failures
        failures = failures + 1 if last == endpoint else 1
        if failures == FAILURES_BEFORE_SWITCH:
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)
            failures = 0
        self._failures = (endpoint, failures)

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        """Send `request` once; return the reply and the address that sent it.

        The next address is tried only if this one accepted no connection, so the
        service never gets a request twice. `budget`, in seconds, limits the whole
        exchange. If it is short, each address gets only its share, so that an
        unreachable one leaves time for the next. Raises UnreachableError or
        BrokenOffError.
        """
        end = self._clock.monotonic() + budget
        failures: list[str] = []
        for tried, endpoint in enumerate(self._endpoints):
            left = end - self._clock.monotonic()
            if left <= 0 and failures:
                break
            self._begin(endpoint.host)
            try:
                share = left / (len(self._endpoints) - tried)
                reply = self._exchange(endpoint, request, left, share)
            except UnreachableError as error:
                failures.append(str(error))
                continue
            # The next request begins with the address that worked, and need not wait.
            self._endpoints.sort(key=lambda other: other != endpoint)
            return reply, endpoint
        raise UnreachableError("; ".join(failures))

    def _exchange(
        self, endpoint: Endpoint, request: Request, budget: float, share: float
    ) -> Reply:
        end = self._clock.monotonic() + budget
        addresses = self._addresses(endpoint, min(share, RESOLVE_SECONDS))
        left = end - self._clock.monotonic()
        seconds = min(left, self._seconds)
        timer = _Timer(self._clock, seconds, min(share, CONNECT_SECONDS))

        def connect() -> _TimedSocket:
            connected = _connect(addresses, timer, self._open_socket)
            connected.bytes_left = request.limit + _OVERHEAD
            self._connected = endpoint
            return connected

        # A zone is only valid on this host (RFC 6874, 1), and urllib3 cannot parse it.
        host = endpoint.host.partition("%")[0]
        with _Pool(host, endpoint.port, connect=connect) as pool:
            try:
                response = pool.urlopen(
                    request.method,
                    request.target,
                    body=request.body,
                    headers=request.headers,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=self._seconds,
                )
                try:
                    return _read(response, request.limit)
                finally:
                    response.close()
            # ValueError: http.client does not check the length of a chunk, and may
            # try to read a negative number of bytes.
            except (HTTPError, OSError, ValueError) as error:
                reason = _reason(error)
                raise BrokenOffError(
                    f"{endpoint.host}: {reason}", overload=reason == _SILENCE
                ) from None

    def _addresses(self, endpoint: Endpoint, seconds: float) -> list[Address]:
        """Return the socket addresses of an endpoint; raises UnreachableError.

        urllib3 would call getaddrinfo(3) even for an address. That opens
        /etc/resolv.conf, which kills the process on OpenBSD when the promise dns has
        been given up. It would also load the codec idna, with a table of all of
        Unicode.
        """
        host, port = endpoint
        if endpoint.is_numeric():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [(family, (host, port))]
        if self._resolve is None:
            raise UnreachableError(f"{host}: not an address")
        try:
            return self._resolve(host, port, seconds)
        except OSError as error:
            raise UnreachableError(f"{host}: {_reason(error)}") from None


def _read(response: BaseHTTPResponse, limit: int) -> Reply:
    """Read a body up to `limit` bytes, without decoding: it may be a gzip bomb."""
    body = b""
    while len(body) <= limit:
        chunk = response.read(min(_CHUNK, limit + 1 - len(body)), decode_content=False)
        if not chunk:
            # urllib3 1.26 raises no error if a body ends too early.
            if getattr(response, "length_remaining", None):
                raise BrokenOffError("the reply broke off")
            break
        body += chunk
    return Reply(response.status, response.headers, body[:limit], len(body) > limit)


class _Timer:
    """The time limit of one exchange; every wait in it goes through this."""

    def __init__(
        self, clock: Clock, seconds: float, connecting: float = CONNECT_SECONDS
    ) -> None:
        """Take the seconds, and the most that one attempt to connect may take."""
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self._connecting = connecting

    def left(self) -> float:
        """Return the seconds left; raises TimeoutError when there are none."""
        left = self._end - self._clock.monotonic()
        self._check(left > 0)
        return left

    def await_connected(self, descriptor: int) -> None:
        """Wait until an attempt to connect has ended; raises TimeoutError."""
        seconds = min(self.left(), self._connecting)
        self._check(self._clock.wait_writable(seconds, descriptor))

    def await_readable(self, descriptor: int) -> None:
        """Wait until there is something to receive; raises TimeoutError."""
        self._check(self._clock.wait(self.left(), descriptor))

    def await_writable(self, descriptor: int) -> None:
        """Wait until there is room to send; raises TimeoutError."""
        self._check(self._clock.wait_writable(self.left(), descriptor))

    def _check(self, in_time: bool) -> None:  # noqa: FBT001
        if not in_time:
            raise TimeoutError


class _TimedSocket(socket.socket):
    """A socket with limits for the whole exchange: a time and a number of bytes.

    Why: urllib3's read timeout starts again with every byte, so a dripping reply
    could hold the agent for days. And http.client reads a chunk of -1 bytes to the
    end of the connection, so an endless reply could fill the memory.
    """

    timer: _Timer
    bytes_left: int  # that may still be read
    ended = False  # the other side will send no more

    def settimeout(self, value: float | None) -> None:
        """Do nothing: the timer decides, not urllib3."""

    def connect(self, address: Any) -> None:
        self.timer.left()  # raises TimeoutError if it is too late to send
        error = self.connect_ex(address)
        if error == errno.EINPROGRESS:
            self.timer.await_connected(self.fileno())
            error = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error != 0:
            raise OSError(error, os.strerror(error))

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data)
        while left:
            self.timer.await_writable(self.fileno())
            left = left[self.send(left, flags) :]

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        most = min(nbytes or len(buffer), self.bytes_left + 1, _RECEIVED_AT_ONCE)
        self.timer.await_readable(self.fileno())
        received = super().recv_into(buffer, most, flags)
        self.ended = received == 0
        self.bytes_left -= received
        if self.bytes_left < 0:
            raise OSError(errno.EMSGSIZE, "the reply is too long")
        return received


class _Response(http.client.HTTPResponse):
    """Reads the head of a reply more strictly than http.client does."""

    def begin(self) -> None:
        """Read the head; raises HTTPError if it is broken.

        http.client takes a broken line for the end of the head. It then misses the
        length of the body and waits for more. Of the interim replies (RFC 9110, 15.2)
        it skips only 100.
        """
        super().begin()
        while self.status in _INTERIM:
            self.headers = self.msg = None  # type: ignore[assignment] # as before begin
            super().begin()
        assert_header_parsing(self.msg)
        if len(set(self.msg.get_all("Content-Length", ()))) > 1:
            raise InvalidHeader("two lengths")


class _TimedConnection(HTTPConnection):
    """A connection whose socket has a timer."""

    response_class = _Response

    def __init__(
        self, *args: Any, connect: Callable[[], _TimedSocket], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._connect = connect

    def _new_conn(self) -> socket.socket:
        """Connect; raises UnreachableError."""
        try:
            return self._connect()
        except OSError as error:
            raise UnreachableError(f"{self.host}: {_reason(error)}") from None

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Read the head of the reply; raises ConnectionError if it is incomplete.

        http.client takes the end of the connection for the end of the head. So just
        "HTTP/1.1 200" would count as an empty reply.
        """
        timed: Any = self.sock  # None afterwards, if the connection will be closed
        response = super().getresponse(*args, **kwargs)
        if timed.ended:
            response.close()
            raise ConnectionError
        return response


def _connect(
    addresses: Sequence[Address], timer: _Timer, open_socket: OpenSocket
) -> _TimedSocket:
    """Connect to the first of `addresses` that accepts; raises OSError."""
    last = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, address in addresses:
        for _ in range(1 if open_socket is stream_socket else _SOURCES):
            try:
                return _connected(open_socket(family), address, timer)
            except OSError as error:
                last = error
                if error.errno not in _SOURCE_TAKEN:
                    break
    raise last


def _connected(
    plain: socket.socket, address: tuple[Any, ...], timer: _Timer
) -> _TimedSocket:
    timed = _TimedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    timed.setblocking(False)  # noqa: FBT003 - the library's own parameter
    timed.timer = timer
    try:
        timed.connect(address)
        timed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:  # a stop as well
        timed.close()
        raise
    return timed


class _Pool(HTTPConnectionPool):
    """A pool of one timed connection."""

    ConnectionCls = _TimedConnection


def _reason(error: BaseException) -> str:
    """Say in a few words why an exchange failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return _SILENCE
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "the reply broke off or is not HTTP"
