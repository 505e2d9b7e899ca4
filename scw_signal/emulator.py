"""An emulated Scaleway metadata service, to try clients and to show them at work.

    python3 -m scw_signal.emulator --port 8042 --fault state/503:2

It shares no code with the client: it is the second opinion. What it imitates,
and how sure that is:

    PATCH /state, its reply and its headers   a packet capture of 2018
    GET /conf and its JSON form               the vendor's clients, documentation
    how text is quoted in them                the same; quotes in values: likely
    a state has at most 128 characters        likely
    400, 404, 405, 411, 413, 431              HTTP; what the service says: unknown
    `booted` makes a starting server run      seen until 2018; in 2025-26 servers
                                              run without it, and only the
                                              state_detail waits for the signal
    the watchdog that reboots a silent one    seen until 2018, in some ranges;
                                              whether it exists today: unknown
    the faults                                429, 503, 404, HTML, a closed port
                                              and silence were seen in the field,
                                              the others are what else may happen

The user data is not imitated: its paths answer 404, as on a server without any.

Strategy: one thread, the keeper, owns the listening socket and everything that
happens by itself (the watchdog, the closed port). Each connection has a thread.
They share the state behind one lock, and every wait in them ends when the
emulator is closed.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import re
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

BOOTING = "booting kernel"  # the state_detail that the platform itself sets
STATE_LENGTH = 128  # characters
BODY_LIMIT = 64 * 1024  # bytes of a request's body
LINE_LIMIT = 8 * 1024  # bytes of a line of a request's head
HEADER_LIMIT = 100  # lines
BACKLOG = 128  # connections that wait to be accepted
HISTORY = 10_000  # requests and events remembered
REBOOT = 0.25  # seconds that a hard-rebooted server takes to be starting again
LINGER = 1.0  # seconds granted to a client to read why it was turned away
REOPEN = 0.05  # seconds between tries to get a closed port back
LONGEST_PAUSE = 3600.0  # seconds; select takes no infinity


# Text in the grammar of the service


_BARE = re.compile(r"[A-Za-z0-9@%_+=:,./-]+")


def flatten(document: Mapping[str, object]) -> str:
    """Return a metadata document as the text that `GET /conf` answers."""
    return "".join(
        f"{line}\n"
        for key, value in document.items()
        for line in _flat_lines(key.upper(), value)
    )


def _flat_lines(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{key}={_quoted(' '.join(value).upper())}"
        parts = [(str(name).upper(), part) for name, part in value.items()]
    elif isinstance(value, list):
        yield f"{key}={len(value)}"
        parts = [(str(index), part) for index, part in enumerate(value)]
    else:
        yield f"{key}={'' if value is None else _quoted(str(value))}"
        return
    for name, part in parts:
        yield from _flat_lines(f"{key}_{name}", part)


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def _printable(text: str, most: int = 160) -> str:
    """Return what a client sent as bounded ASCII that a terminal does not obey."""
    shown = text[: most + 1].encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= most else shown[: most - 3] + "..."


# Requests and replies


class Request(NamedTuple):
    """One whole request, as it came, and what became of it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]  # in their order
    body: bytes
    seconds: float  # since the emulator started
    client: tuple[str, int]  # address and port
    status: int | None  # None: it got no HTTP reply
    fault: str | None  # the name of the fault that it met


class Event(NamedTuple):
    """Something that happened, for a human or a timeline to read."""

    seconds: float  # since the emulator started
    text: str

    def __str__(self) -> str:
        """Return the line that the command prints."""
        return f"{self.seconds:8.3f} {self.text}"


class _Reply(NamedTuple):
    status: int
    body: bytes = b""
    kind: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()  # an empty value leaves one out
    note: str = ""  # for the event

    def serialised(self, *, keep: bool, head_only: bool) -> bytes:
        fields = {
            "Server": "Tengine",
            "Date": formatdate(usegmt=True),
            "Content-Type": self.kind,
            "Content-Length": str(len(self.body)),
            "Connection": "keep-alive" if keep else "close",
            **dict(self.headers),
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if head_only else head + self.body


class _Incoming(NamedTuple):
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    keep: bool  # the client can send another request on this connection

    @property
    def path(self) -> str:
        return _ORIGIN.sub("", self.target).partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2])


class _TurnedAwayError(Exception):
    """A request that is not served, nor is anything after it: status, reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.reply = _said(status, reason)


_REQUEST_LINE = re.compile(r"([!-~]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(r"([\w!#$%&'*+.^`|~-]+):[ \t]*(.*?)[ \t]*", re.ASCII | re.DOTALL)
_ORIGIN = re.compile(r"\Ahttp://[^/?]*", re.IGNORECASE)  # what a proxy is sent


def _said(status: int, reason: str, *headers: tuple[str, str]) -> _Reply:
    """Return a reply that is a line of text, and a note in the event."""
    return _Reply(
        status, f"{reason}\n".encode(), headers=headers, note=f"reason={_quoted(reason)}"
    )


def _read_request(stream: BinaryIO, connection: socket.socket) -> _Incoming:
    """Read one request.

    Raises EOFError when the client has left, or _TurnedAwayError.
    """
    match = _REQUEST_LINE.fullmatch(_read_line(stream))
    if match is None:
        raise _TurnedAwayError(400, "the request line is malformed")
    headers = []
    while line := _read_line(stream):
        header = _HEADER.fullmatch(line)
        if header is None:
            raise _TurnedAwayError(400, "a header is malformed")
        headers.append((header[1], header[2]))
        if len(headers) > HEADER_LIMIT:
            raise _TurnedAwayError(431, "too many headers")
    is_new = match[3] == "1"
    if len(_values(headers, "host")) != 1 and is_new:
        raise _TurnedAwayError(400, "there is not one Host header")
    body = stream.read(length := _body_length(headers, connection))
    if len(body) < length:
        raise EOFError
    wishes = ",".join(_values(headers, "connection")).lower()
    keep = "close" not in wishes if is_new else "keep-alive" in wishes
    return _Incoming(match[1], match[2], tuple(headers), body, keep)


def _read_line(stream: BinaryIO) -> str:
    line = stream.readline(LINE_LIMIT + 1)
    if len(line) > LINE_LIMIT:
        raise _TurnedAwayError(431, "a line of the head is too long")
    if not line.endswith(b"\n"):
        raise EOFError
    return line.decode("latin-1").removesuffix("\n").removesuffix("\r")


def _body_length(headers: list[tuple[str, str]], connection: socket.socket) -> int:
    """Return the bytes of the body, and have the client send them."""
    if _values(headers, "transfer-encoding"):
        raise _TurnedAwayError(411, "a body needs a Content-Length")
    lengths = _values(headers, "content-length") or ["0"]
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
        raise _TurnedAwayError(400, "the Content-Length is malformed")
    length = int(lengths[0])
    if length > BODY_LIMIT:
        raise _TurnedAwayError(413, f"the body is larger than {BODY_LIMIT} bytes")
    if "100-continue" in _values(headers, "expect"):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    return length


def _values(headers: Iterable[tuple[str, str]], wanted: str) -> list[str]:
    return [value for name, value in headers if name.lower() == wanted]


def _signalled_state(body: bytes) -> str:
    """Read the state out of the body of a signal.

    Raises ValueError, with the reason as its text.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    state = message.get("state_detail") if isinstance(message, dict) else None
    if not isinstance(state, str):
        raise ValueError("state_detail is missing, or is not a string")
    if len(state) > STATE_LENGTH:
        raise ValueError(f"state_detail is over {STATE_LENGTH} characters")
    try:
        state.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        raise ValueError("state_detail is not Unicode") from None
    return state


# Faults


class Fault(NamedTuple):
    """A fault that waits for requests; `parse_fault` makes one."""

    name: str
    argument: float
    count: float  # requests that are left; for refuse seconds; inf is for good
    path: str | None  # the path it is for; None: every one


class _Case(NamedTuple):
    argument: float
    state_detail: str


class _Kind(NamedTuple):
    summary: str
    argument: float | None = None  # what it is if not given; None: there is none
    limits: tuple[float, float] = (0, 0)  # of the argument
    effect: bool = False  # the request has its effect all the same
    reply: Callable[[_Case], _Reply] | None = None  # in the place of the true one
    # How the bytes of the reply get on their way; the connection ends with it.
    deliver: Callable[[socket.socket, bytes, float, threading.Event], None] | None = (
        None
    )


def _retry_date(case: _Case) -> _Reply:
    # Both dates from one reading of the clock: they have whole seconds only.
    now = int(time.time())
    date = formatdate(now, usegmt=True)
    later = formatdate(now + math.ceil(case.argument), usegmt=True)
    return _said(429, "slow down", ("Date", date), ("Retry-After", later))


def _html(_: _Case) -> _Reply:
    page = b"<!DOCTYPE html>\n<html><body><h1>It works!</h1></body></html>\n"
    return _Reply(200, page, "text/html")


def _empty_ack(case: _Case) -> _Reply:
    status = int(case.argument)
    bare = (("Content-Type", ""), ("Content-Length", ""))
    return _Reply(status, headers=bare if status == HTTPStatus.NO_CONTENT else ())


def _json_ack(case: _Case) -> _Reply:
    body = json.dumps({"state_detail": case.state_detail}).encode()
    return _Reply(200, body, "application/json")


def _huge(case: _Case) -> _Reply:
    size = "" if math.isinf(case.argument) else str(int(case.argument))
    return _Reply(200, headers=(("Content-Length", size),))


def _deliver_reset(
    connection: socket.socket, _wire: bytes, _argument: float, _closing: threading.Event
) -> None:
    # With no time to linger, close() throws away what is queued and sends RST.
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )


def _deliver_nothing(
    connection: socket.socket, _wire: bytes, _argument: float, _closing: threading.Event
) -> None:
    while connection.recv(4096):
        pass


def _deliver_bytewise(
    connection: socket.socket, wire: bytes, argument: float, closing: threading.Event
) -> None:
    for at in range(len(wire)):
        connection.sendall(wire[at : at + 1])
        if closing.wait(argument):
            return


def _deliver_much(
    connection: socket.socket, wire: bytes, argument: float, _closing: threading.Event
) -> None:
    connection.sendall(wire)
    block = b"STATE_DETAIL=huge" + b"." * 65518 + b"\n"
    while argument > 0:
        connection.sendall(block[: int(min(argument, len(block)))])
        argument -= len(block)


def _deliver_half(
    connection: socket.socket, wire: bytes, _argument: float, _closing: threading.Event
) -> None:
    head, blank, body = wire.partition(b"\r\n\r\n")
    connection.sendall(head + blank + body[: len(body) // 2])


def _deliver_garbage(
    connection: socket.socket, _wire: bytes, _argument: float, _closing: threading.Event
) -> None:
    connection.sendall(b"\x16\x03\x01\x00\xff\x1b[2J SSH-2.0? \x00\xfe\r\n\r\n\xff")


_DAY = 86400.0

FAULTS = {
    "refuse": _Kind("the port is closed; COUNT is the seconds it stays so"),
    "reset": _Kind(
        "the request is read, then the connection is reset", deliver=_deliver_reset
    ),
    "hang": _Kind("the request is read and never answered", deliver=_deliver_nothing),
    "drip": _Kind(
        "the reply comes a byte every ARG seconds (1)",
        argument=1,
        limits=(0, _DAY),
        effect=True,
        deliver=_deliver_bytewise,
    ),
    "429": _Kind(
        "429 without Retry-After", reply=lambda _: _said(429, "slow down")
    ),
    "429-after": _Kind(
        "429 with Retry-After: ARG seconds (1)",
        argument=1,
        limits=(0, math.inf),
        reply=lambda case: _said(
            429, "slow down", ("Retry-After", f"{case.argument:.0f}")
        ),
    ),
    "429-date": _Kind(
        "429 with a Retry-After that is the Date and ARG seconds (1)",
        argument=1,
        limits=(0, 365 * _DAY),
        reply=_retry_date,
    ),
    "503": _Kind("503", reply=lambda _: _said(503, "not now")),
    "404": _Kind("404", reply=lambda _: _said(404, "not here")),
    "403": _Kind("403", reply=lambda _: _said(403, "not you")),
    "html": _Kind("200 and a web page", reply=_html),
    "wrong-ack": _Kind(
        f"200 that acknowledges another state, {BOOTING!r}",
        reply=lambda _: _Reply(200, f"STATE_DETAIL={_quoted(BOOTING)}\n".encode()),
    ),
    "empty-ack": _Kind(
        "the signal is taken, the reply is empty; ARG is its status (200)",
        argument=200,
        limits=(200, 204),
        effect=True,
        reply=_empty_ack,
    ),
    "json-ack": _Kind(
        "the signal is taken, the reply is JSON", effect=True, reply=_json_ack
    ),
    "huge": _Kind(
        "200 and ARG bytes (100 million); inf has no end, and no Content-Length",
        argument=1e8,
        limits=(0, math.inf),
        reply=_huge,
        deliver=_deliver_much,
    ),
    "redirect": _Kind(
        "302 to /elsewhere",
        reply=lambda _: _said(302, "over there", ("Location", "/elsewhere")),
    ),
    "truncate": _Kind(
        "the signal is taken, the body of the reply ends halfway",
        effect=True,
        deliver=_deliver_half,
    ),
    "garbage": _Kind("bytes that are no HTTP", deliver=_deliver_garbage),
}
_NO_FAULT = _Kind("the true reply", effect=True)

_ENDPOINTS = {  # path: methods, what it is
    "/": (("GET", "HEAD"), "this list"),
    "/conf": (("GET", "HEAD"), "the metadata as text; ?format=json for JSON"),
    "/state": (("PATCH",), 'the signal, {"state_detail": "booted"}'),
}
_FILTERS = ("state", "conf")

_SPEC = re.compile(r"(?:([^/]*)/)?([^/=:]*)(?:=([^:]*))?(?::(.*))?", re.DOTALL)


def parse_fault(spec: str) -> Fault:
    """Read a fault: `[ENDPOINT/]NAME[=ARG][:COUNT]`.

    Raises ValueError, with a text for the user.
    """
    shown = _printable(spec, 60)
    match = _SPEC.fullmatch(spec)
    if match is None or match[2] not in FAULTS:
        raise ValueError(f"unknown fault '{shown}'; known are {', '.join(FAULTS)}")
    endpoint, name, argument, count = match.groups()
    if endpoint is not None and (endpoint not in _FILTERS or name == "refuse"):
        raise ValueError(
            f"in '{shown}': a fault is for all requests, or for one of"
            f" {', '.join(_FILTERS)} (refuse is for all)"
        )
    kind = FAULTS[name]
    if argument is not None and kind.argument is None:
        raise ValueError(f"in '{shown}': {name} takes no argument")
    return Fault(
        name,
        _number(shown, argument, kind.argument or 0.0, kind.limits),
        _count(shown, count, fraction=name == "refuse"),
        None if endpoint is None else f"/{endpoint}",
    )


def _number(
    shown: str, text: str | None, default: float, limits: tuple[float, float]
) -> float:
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not limits[0] <= number <= limits[1]:
        raise ValueError(
            f"in '{shown}': the argument is a number"
            f" from {limits[0]:g} to {limits[1]:g}"
        )
    return number


def _count(shown: str, text: str | None, *, fraction: bool) -> float:
    if text is None:
        return math.inf
    pattern = r"\d{1,9}(\.\d{1,9})?" if fraction else r"\d{1,9}"
    if not re.fullmatch(pattern, text, re.ASCII) or not float(text):
        raise ValueError(
            f"in '{shown}': the count is a number of"
            f" {'seconds' if fraction else 'requests'} above 0"
        )
    return float(text)


# The service


@final
class Emulator:
    """A metadata service that serves from its construction until `close`.

    A `document` replaces the built-in one; `state` (if there is one) and
    `state_detail` in it follow what happens. `faults` are written as for the
    command. A server whose `booted` does not come within `watchdog` seconds is
    hard-rebooted, again and again; None is never. `on_event` is called with
    each event, by whichever thread it happens in, one at a time.

    Raises OSError if it can not listen, ValueError for a bad fault.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        document: Mapping[str, object] | None = None,
        faults: Sequence[str] = (),
        watchdog: float | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._faults = [parse_fault(spec) for spec in faults]
        self._document = copy.deepcopy(dict(document or DOCUMENT))
        self._watchdog = watchdog
        self._on_event = on_event
        self._lock = threading.Condition()  # guards everything from here on
        self._closing = threading.Event()
        self._settled = False  # the keeper has done what the faults ask for
        self._refuse_until: float | None = None  # None: no refuse is under way
        self._requests: deque[Request] = deque(maxlen=HISTORY)
        self._events: deque[Event] = deque(maxlen=HISTORY)
        self._workers: list[tuple[threading.Thread, socket.socket]] = []
        self._state_detail = BOOTING
        self._server_state = "starting"
        self._start = time.monotonic()
        self._deadline = watchdog  # seconds since the start; None: no watch

        self._listener: socket.socket | None = _listen(host, port)
        self._host = host
        self._port: int = self._listener.getsockname()[1]
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        with self._lock:
            self._settle()

    def __enter__(self) -> Emulator:
        """Return the emulator itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close every socket and end every thread, whatever they wait for."""
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            self._lock.notify_all()
        self._wake()
        self._keeper.join()  # from here on there are no new workers
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RDWR)
        for worker, _ in self._workers:
            worker.join()
        self._waker.close()
        self._woken.close()

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    @property
    def url(self) -> str:
        """The address of the service, without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far that were whole, the latest ones if there are many.

        A request is in here before its reply is sent.
        """
        with self._lock:
            return list(self._requests)

    @property
    def events(self) -> list[Event]:
        """What happened so far, the latest if there is much."""
        with self._lock:
            return list(self._events)

    @property
    def server_state(self) -> str:
        """Either `starting`, `running`, or for a moment `hard-rebooted`."""
        with self._lock:
            return self._server_state

    @property
    def state_detail(self) -> str:
        """The state that was signalled last, or `booting kernel`."""
        with self._lock:
            return self._state_detail

    @property
    def document(self) -> dict[str, object]:
        """The metadata as they are served now."""
        with self._lock:
            current = {**self._document, "state_detail": self._state_detail}
            if "state" in current:
                current["state"] = self._server_state
            return current

    def set_faults(self, faults: Sequence[str]) -> None:
        """Replace what is left of the faults.

        When it returns, a port that is to be closed is closed, and one that is
        to be open is open. Raises ValueError, and then changes nothing.
        """
        parsed = [parse_fault(spec) for spec in faults]
        with self._lock:
            self._faults = parsed
            self._refuse_until = None
            self._settle()

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition` holds, for `seconds` at most; tell whether it does.

        It is asked at every event, under the emulator's lock.
        """
        with self._lock:
            return self._lock.wait_for(condition, seconds)

    # The keeper's thread

    def _keep(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                self._run_refusals()
                self._run_watchdog()
                self._settled = True
                self._lock.notify_all()
                pause = self._pause()
            for key, _ in self._selector.select(pause):
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                else:
                    self._accept()
        self._stop_listening()
        self._selector.close()

    def _run_refusals(self) -> None:
        while self._faults and self._faults[0].name == "refuse":
            if self._refuse_until is None:
                self._refuse_until = self._now() + self._faults[0].count
                if self._stop_listening():
                    self._happened("port closed fault=refuse")
            if self._now() < self._refuse_until:
                return
            del self._faults[0]
            self._refuse_until = None
        if self._listener is None:
            try:
                self._listener = _listen(self._host, self._port)
            except OSError:  # taken meanwhile; the keeper tries again
                return
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._happened("port open")

    def _run_watchdog(self) -> None:
        if self._deadline is None or self._now() < self._deadline:
            return
        if self._server_state == "starting":
            self._become("hard-rebooted")
            self._deadline = self._now() + REBOOT
        else:
            self._state_detail = BOOTING
            self._become("starting")
            self._deadline = self._now() + (self._watchdog or 0.0)

    def _pause(self) -> float:
        moments = [LONGEST_PAUSE + self._now()]
        if self._deadline is not None:
            moments.append(self._deadline)
        if self._refuse_until is not None:
            moments.append(self._refuse_until)
        elif self._listener is None:
            moments.append(self._now() + REOPEN)
        return max(0.0, min(moments) - self._now())

    def _stop_listening(self) -> bool:
        """Close the port, and tell whether it was open."""
        if self._listener is None:
            return False
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = None
        # Or kept-alive connections would still be served. This ends the ones
        # that are idle; a reply that is under way still gets out.
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RD)
        return True

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, address = self._listener.accept()
        except OSError:  # the client has left already
            return
        connection.setblocking(True)  # BSDs hand on what the listener has
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = (str(address[0]), int(address[1]))
        worker = threading.Thread(
            target=self._converse, args=(connection, client), daemon=True
        )
        with self._lock:
            self._workers = [pair for pair in self._workers if pair[0].is_alive()]
            self._workers.append((worker, connection))
            worker.start()

    # The threads of the connections

    def _converse(self, connection: socket.socket, client: tuple[str, int]) -> None:
        """Serve one connection, a request after the other."""
        with connection, connection.makefile("rb") as stream:
            try:
                while self._exchange(stream, connection, client):
                    pass
            except (OSError, EOFError):
                pass  # the client has left
            except _TurnedAwayError as error:
                self._turn_away(connection, error.reply)

    def _exchange(
        self, stream: BinaryIO, connection: socket.socket, client: tuple[str, int]
    ) -> bool:
        """Serve one request, and tell whether there may be another."""
        incoming = _read_request(stream, connection)
        with self._lock:
            fault = self._take_fault(incoming.path)
            kind = FAULTS[fault.name] if fault else _NO_FAULT
            argument = fault.argument if fault else 0.0
            reply = self._route(incoming) if kind.effect else None
            if kind.reply:
                reply = kind.reply(_Case(argument, self._state_detail))
            self._record(incoming, client, reply, fault)
            self._settle()
            keep = incoming.keep and not kind.deliver and self._listener is not None
        head_only = incoming.method == "HEAD"
        wire = reply.serialised(keep=keep, head_only=head_only) if reply else b""
        if kind.deliver:
            kind.deliver(connection, wire, argument, self._closing)
        else:
            connection.sendall(wire)
        return keep

    def _turn_away(self, connection: socket.socket, reply: _Reply) -> None:
        with self._lock:
            self._happened(f"? -> {reply.status} {reply.note}")
        try:
            connection.sendall(reply.serialised(keep=False, head_only=False))
            # What was not read makes close() reset the connection, which would
            # take the reply away from the client.
            connection.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER
            while (left := end - time.monotonic()) > 0:
                connection.settimeout(left)
                if not connection.recv(65536):
                    break
        except OSError:
            pass

    def _take_fault(self, path: str) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.name == "refuse":  # what is behind it comes after it
                return None
            if fault.path in (None, path):
                left = fault._replace(count=fault.count - 1)
                self._faults[at : at + 1] = [left] if left.count else []
                return fault
        return None

    def _route(self, incoming: _Incoming) -> _Reply:
        methods, _ = _ENDPOINTS.get(incoming.path, ((), ""))
        if not methods:
            return _said(404, "not found")
        if incoming.method not in methods:
            return _said(405, "method not allowed", ("Allow", ", ".join(methods)))
        if incoming.path == "/state":
            return self._signal(incoming.body)
        if incoming.path == "/":
            return _Reply(200, _index().encode())
        document = self.document
        if "json" in incoming.query.get("format", ()):
            return _Reply(200, json.dumps(document).encode(), "application/json")
        # A document may spell half a surrogate pair, which has no bytes.
        return _Reply(200, flatten(document).encode("utf-8", "replace"))

    def _signal(self, body: bytes) -> _Reply:
        try:
            state = _signalled_state(body)
        except ValueError as error:
            return _said(400, str(error))
        self._state_detail = state
        return _Reply(
            200,
            f"STATE_DETAIL={_quoted(state)}\n".encode(),
            note=f"state_detail={_quoted(_printable(state))}",
        )

    # Under the lock, in any thread

    def _record(
        self,
        incoming: _Incoming,
        client: tuple[str, int],
        reply: _Reply | None,
        fault: Fault | None,
    ) -> None:
        method, target, headers, body, _ = incoming
        status = reply.status if reply else None
        name = fault.name if fault else None
        now = self._now()
        self._requests.append(
            Request(method, target, headers, body, now, client, status, name)
        )
        words = [_printable(method, 20), _printable(target), "->", str(status or "-")]
        words += [reply.note] if reply and reply.note else []
        words += [f"fault={name}"] if name else []
        self._happened(" ".join(words))
        if self._state_detail == "booted" and self._server_state != "running":
            self._become("running")
            self._deadline = None

    def _become(self, state: str) -> None:
        before, self._server_state = self._server_state, state
        self._happened(f"server {before} -> {state}")

    def _happened(self, text: str) -> None:
        event = Event(self._now(), text)
        self._events.append(event)
        self._lock.notify_all()
        if self._on_event:
            self._on_event(event)

    def _settle(self) -> None:
        """Wait until the port is as the first fault wants it."""
        closed = bool(self._faults) and self._faults[0].name == "refuse"
        if closed == (self._listener is None):
            return
        self._settled = False
        self._wake()
        self._lock.wait_for(lambda: self._settled or self._closing.is_set())

    def _wake(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:  # full: it wakes all the same; or closed
            pass

    def _now(self) -> float:
        return time.monotonic() - self._start


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:  # its own thread has closed it
        pass


def _index() -> str:
    return "".join(
        f"{path:8}{', '.join(methods):12}{summary}\n"
        for path, (methods, summary) in _ENDPOINTS.items()
    )


_ADDRESS: dict[str, object] = {
    "address": "198.51.100.42",
    "dynamic": False,
    "family": "inet",
    "gateway": "62.210.0.1",
    "id": "00000000-0000-4000-8000-000000000111",
    "ipam_id": "00000000-0000-4000-8000-000000000112",
    "netmask": "32",
    "provisioning_mode": "dhcp",
    "state": "attached",
    "tags": [],
}

# An OpenBSD server with a routed IPv4 address, as such documents were in 2026.
DOCUMENT: Mapping[str, object] = {
    "allowed_actions": ["poweroff", "terminate", "reboot", "stop_in_place", "backup"],
    "arch": "x86_64",
    "boot_type": "local",
    "bootscript": None,
    "commercial_type": "DEV1-S",
    "creation_date": "2026-01-12T08:00:01.250000+00:00",
    "dynamic_ip_required": False,
    "enable_ipv6": False,
    "end_of_service": False,
    "extra_networks": [],
    "filesystems": [],
    "hostname": "openbsd",
    "id": "00000000-0000-4000-8000-000000000100",
    "image": {
        "arch": "x86_64",
        "from_server": "",
        "id": "00000000-0000-4000-8000-000000000101",
        "name": "OpenBSD",
        "organization": "00000000-0000-4000-8000-000000000102",
        "project": "00000000-0000-4000-8000-000000000102",
        "public": False,
        "root_volume": {
            "id": "00000000-0000-4000-8000-000000000103",
            "name": "",
            "size": 10_000_000_000,
            "volume_type": "sbs_snapshot",
        },
        "state": "available",
        "tags": [],
        "zone": "fr-par-1",
    },
    "ipv6": None,
    "location": {
        "cluster_id": "12",
        "hypervisor_id": "301",
        "node_id": "77",
        "platform_id": "23",
        "zone_id": "fr-par-1",
    },
    "mac_address": "de:00:00:00:01:00",
    "maintenances": [],
    "modification_date": "2026-01-12T08:00:06.500000+00:00",
    "name": "openbsd",
    "organization": "00000000-0000-4000-8000-000000000102",
    "placement_group": None,
    "private_ip": None,
    "private_nics": [],
    "project": "00000000-0000-4000-8000-000000000102",
    "protected": False,
    "public_ip": _ADDRESS,
    "public_ips": [_ADDRESS],
    "public_ips_v4": [_ADDRESS],
    "public_ips_v6": [],
    "routed_ip_enabled": True,
    "security_group": {
        "id": "00000000-0000-4000-8000-000000000104",
        "name": "Default security group",
    },
    "ssh_public_keys": [
        {
            "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedKeyThatOpensNothing"
            " puffy@example.org",
            "fingerprint": "256 SHA256:emulated puffy@example.org (ED25519)",
        }
    ],
    "state": "starting",
    "state_detail": BOOTING,
    "tags": ["openbsd", "role=web front"],
    "volumes": {
        "0": {
            "boot": False,
            "id": "00000000-0000-4000-8000-000000000105",
            "volume_type": "sbs_volume",
            "zone": "fr-par-1",
        }
    },
    "zone": "fr-par-1",
}


# The command


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage before it."""
        self.exit(2, f"emulator: {_printable(message, 500)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(argv)
    # Blocked in every thread from here on, and taken by sigwait below: a signal
    # interrupts nothing, whenever it comes.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    first = threading.Lock()  # held back until the URL, the first line, is out
    with first:
        try:
            service = Emulator(
                host=options.host,
                port=options.port,
                document=options.doc,
                faults=options.fault,
                watchdog=options.watchdog,
                on_event=lambda event: _print(str(event)),
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            print(
                f"emulator: can not listen on {_printable(options.host)}"
                f" port {options.port}: {reason}",
                file=sys.stderr,
            )
            return 1
        _print(service.url)
    with service:
        signal.sigwait(ends)
    return 0
