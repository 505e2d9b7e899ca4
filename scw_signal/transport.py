"""The way to the service: the only module that knows urllib3.

One exchange is one try: urllib3 neither retries nor follows redirects here,
nor asks the environment for a proxy (its connection pools never do). When to
try again is decided elsewhere. Every error of the library and of the socket
leaves this module as one of ours.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from .errors import BrokenOffError, UnreachableError
from .wire import Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from urllib3 import BaseHTTPResponse

    from .clock import Clock
    from .wire import Request

CONNECT_SECONDS = 3.0  # one lost SYN is sent again after 1 s
EXCHANGE_SECONDS = 5.0  # from connecting to the last byte
_CHUNK = 64 * 1024


class Service:
    """The metadata service, at one of several addresses."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: Clock) -> None:
        """Take the addresses in the order in which they are to be tried."""
        self._endpoints = list(endpoints)
        self._clock = clock

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        """Make one try: send `request`, and return the reply and who gave it.

        The next address is asked only where no connection came about, so the
        service never gets a request twice. `budget` is in seconds and bounds
        the whole try. Raises UnreachableError or BrokenOffError.
        """
        end = self._clock.monotonic() + budget
        failures: list[str] = []
        for endpoint in self._endpoints:
            left = end - self._clock.monotonic()
            if left <= 0 and failures:
                break
            try:
                reply = self._exchange(endpoint, request, left)
            except UnreachableError as error:
                failures.append(str(error))
                continue
            # Where one address leads nowhere, the next request is spared the wait.
            self._endpoints.sort(key=lambda other: other != endpoint)
            return reply, endpoint
        raise UnreachableError("; ".join(failures))

    def _exchange(self, endpoint: Endpoint, request: Request, budget: float) -> Reply:
        timer = _Timer(self._clock, min(budget, CONNECT_SECONDS + EXCHANGE_SECONDS))
        with _Pool(endpoint.host, endpoint.port, timer=timer) as pool:
            try:
                response = pool.urlopen(
                    request.method,
                    request.target,
                    body=request.body,
                    headers=request.headers,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=EXCHANGE_SECONDS,
                )
                try:
                    return _read(response, request.limit)
                finally:
                    response.close()
            except (HTTPError, OSError) as error:
                raise BrokenOffError(f"{endpoint.host}: {_reason(error)}") from None


def _read(response: BaseHTTPResponse, limit: int) -> Reply:
    """Read a body up to `limit` bytes, undecoded: a small reply may be a gzip bomb."""
    body = b""
    while len(body) <= limit:
        chunk = response.read(min(_CHUNK, limit + 1 - len(body)), decode_content=False)
        if not chunk:
            # urllib3 1.26 does not complain of a body that ends too early.
            if getattr(response, "length_remaining", None):
                raise BrokenOffError("the reply broke off")
            break
        body += chunk
    return Reply(response.status, response.headers, body[:limit], len(body) > limit)


class _Timer:
    """What is left of the time for one exchange."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left; raises TimeoutError when there are none."""
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedSocket(socket.socket):
    """A socket that keeps to a timer.

    Why: urllib3's read timeout starts again with every byte, so a reply that
    drips could hold the agent for days.
    """

    timer: _Timer
    ended = False  # the other side will send no more

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(min(self.timer.left(), EXCHANGE_SECONDS))
        received = super().recv_into(*args, **kwargs)
        self.ended = received == 0
        return received


class _TimedConnection(HTTPConnection):
    """A connection that is made, and whose socket reads, within a timer."""

    def __init__(self, *args: Any, timer: _Timer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer = timer

    def _new_conn(self) -> socket.socket:
        """Connect; raises UnreachableError."""
        try:
            timed = _connect(self.host, self.port, self._timer.left())
        except OSError as error:
            raise UnreachableError(f"{self.host}: {_reason(error)}") from None
        timed.timer = self._timer
        return timed

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        """Read the head of the reply; raises ConnectionError where it has no end.

        http.client takes the end of the connection for the end of the head, so
        that "HTTP/1.1 200" and no more would pass for an empty reply.
        """
        timed: Any = self.sock  # which is None afterwards, if this is to be closed
        response = super().getresponse(*args, **kwargs)
        if timed.ended:
            response.close()
            raise ConnectionError
        return response


def _connect(host: str, port: int, seconds: float) -> _TimedSocket:
    """Connect within `seconds`; raises OSError.

    Not urllib3's way, which asks getaddrinfo(3) even for an address: on OpenBSD
    that looks for /etc/resolv.conf, and is killed when the promise dns has been
    given up. It would also load the codec idna, with a table of all of Unicode.
    """
    seconds = min(seconds, CONNECT_SECONDS)
    numeric = Endpoint(host).is_numeric()
    if numeric:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        timed = _TimedSocket(family, socket.SOCK_STREAM)
    else:
        plain = socket.create_connection((host, port), seconds)
        timed = _TimedSocket(
            plain.family, plain.type, plain.proto, fileno=plain.detach()
        )
    try:
        timed.settimeout(seconds)  # which a new object does not inherit
        if numeric:
            timed.connect((host, port))
        timed.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        timed.close()
        raise
    return timed


class _Pool(HTTPConnectionPool):
    """A pool of one such connection."""

    ConnectionCls = _TimedConnection


def _reason(error: BaseException) -> str:
    """Say in a few words why an exchange failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "the reply broke off or is not HTTP"
