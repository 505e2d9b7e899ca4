"""An emulated Scaleway metadata service, to try clients and to show them at work.

    python3 -m scw_signal.emulator --port 8042 --fault state/503:2

It shares no code with the client: it is the second opinion. What it imitates,
and how sure that is:

    PATCH /state, its reply and its headers   a packet capture of 2018
    GET /conf and its JSON form               the vendor's clients, documentation
    how text is quoted in them                the same; a quote in a value: likely
    a state has at most 128 characters        likely
    what it says to requests that are wrong   HTTP; the service's words: unknown
    `booted` makes a starting server run      seen until 2018; in 2025-26 servers
                                              run without it, and only the
                                              state_detail waits for the signal
    the watchdog that reboots a silent one    seen until 2018, on some ranges;
                                              whether it still exists: unknown
    the faults                                429, 503, 404, HTML, a closed port
                                              and silence were seen in the field,
                                              the others are what else may happen

    /user_data, /vendor_data/cloud-init, and  the vendor's clients; the words
    their source port below 1024              for a higher port (403 here, 400 is
                                              a fault), and how large a value
                                              may be: unknown

Strategy: one thread, the keeper, owns the listening socket and whatever happens
by itself (the watchdog, the closed port). Each connection has a thread too.
They share the state under one lock, and every wait in them ends with `close`.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import re
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
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, NoReturn, final
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

BOOTING = "booting kernel"  # the state_detail that the platform itself sets
STATE_LENGTH = 128  # characters
BODY_LIMIT = 2 * 1024 * 1024  # bytes of a request's body
LINE_LIMIT = 8 * 1024  # bytes of a line in a request's head
HEADER_LIMIT = 100  # lines
BACKLOG = 128  # connections that wait to be accepted
HISTORY = 10_000  # requests, and events, that are remembered
LAST_PORT = 65535
FIRST_FREE_PORT = 1024  # those below are root's
REBOOT = 0.25  # seconds until a hard-rebooted server is starting again
TICK = 0.02  # seconds between the keeper's looks at the clock
IDLE = 75.0  # seconds until an idle connection is closed, as nginx does it
GRACE = 1.0  # seconds for a client to read why it is turned away

Headers = tuple[tuple[str, str], ...]

# Text in the grammar of the service

_BARE = re.compile(r"[A-Za-z0-9@%_+=:,./-]+")


def flatten(document: Mapping[str, object]) -> str:
    """Return a metadata document as the text that `GET /conf` answers."""
    return "".join(
        f"{line}\n"
        for key, value in document.items()
        for line in _lines(key.upper(), value)
    )


def _lines(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{key}={_quoted(' '.join(value).upper())}"
        for name, part in value.items():
            yield from _lines(f"{key}_{name}".upper(), part)
    elif isinstance(value, list):
        yield f"{key}={len(value)}"
        for index, part in enumerate(value):
            yield from _lines(f"{key}_{index}", part)
    else:
        yield f"{key}={'' if value is None else _quoted(str(value))}"


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def _printable(text: str, most: int = 160) -> str:
    """Return text from elsewhere as bounded ASCII that no terminal obeys."""
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= most else shown[: most - 3] + "..."


# Requests and replies


class Request(NamedTuple):
    """One whole request, as it came, and what became of it."""

    method: str
    target: str
    headers: Headers  # in their order
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


class _Incoming(NamedTuple):
    method: str
    target: str
    headers: Headers
    body: bytes
    keep: bool  # the client may send another request on this connection

    @property
    def path(self) -> str:
        return _ORIGIN.sub("", self.target).partition("?")[0]

    @property
    def endpoint(self) -> str:
        """The path, with KEY for the key of user data."""
        return "/user_data/KEY" if self.key else self.path

    @property
    def key(self) -> str:
        """The key of user data that the path names, or nothing."""
        key = self.path.removeprefix("/user_data/")
        return "" if key == self.path or "/" in key else unquote(key)


class _Reply(NamedTuple):
    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Headers = ()  # an empty value leaves a header out
    note: str = ""  # for the event

    def serialised(self, *, keep: bool, bodiless: bool) -> bytes:
        fields = {
            "Server": "Tengine",
            "Date": formatdate(usegmt=True),
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Connection": "keep-alive" if keep else "close",
            **dict(self.headers),
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return head if bodiless else head + self.body


def _said(status: int, words: str, *headers: tuple[str, str]) -> _Reply:
    """Return a reply that is a line of text."""
    note = f"reason={_quoted(words)}"
    return _Reply(status, f"{words}\n".encode(), headers=headers, note=note)


class _TurnedAwayError(Exception):
    """A request so wrong that the connection ends with the reply to it."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.reply = _said(status, words)


# Strict: a client that tries its luck here would try it on the service.
_REQUEST_LINE = re.compile(r"([!-~]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(r"([\w!#$%&'*+.^`|~-]+):(.*)", re.ASCII | re.DOTALL)
_ORIGIN = re.compile(r"\Ahttp://[^/?]*", re.IGNORECASE)  # as a proxy is sent it


def _read_request(stream: BinaryIO, connection: socket.socket) -> _Incoming:
    """Read one request; raises _TurnedAwayError, or EOFError if the client left."""
    match = _REQUEST_LINE.fullmatch(_read_line(stream))
    if match is None:
        raise _TurnedAwayError(400, "the request line is malformed")
    modern = match[3] == "1"
    headers = _read_headers(stream)
    if modern and len(_values(headers, "host")) != 1:
        raise _TurnedAwayError(400, "there is not one Host header")
    length = _body_length(headers)
    if "100-continue" in _values(headers, "expect"):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    # Anywhere in the value, as nginx has it: the vendor's C tool says "closed",
    # and waits for the end of the connection.
    wishes = ",".join(_values(headers, "connection")).lower()
    keep = "close" not in wishes if modern else "keep-alive" in wishes
    return _Incoming(match[1], match[2], headers, body, keep)


def _read_line(stream: BinaryIO) -> str:
    line = stream.readline(LINE_LIMIT + 1)
    if len(line) > LINE_LIMIT:
        raise _TurnedAwayError(431, "a line of the head is too long")
    if not line.endswith(b"\n"):
        raise EOFError
    return line.decode("latin-1").removesuffix("\n").removesuffix("\r")


def _read_headers(stream: BinaryIO) -> Headers:
    headers: list[tuple[str, str]] = []
    while line := _read_line(stream):
        match = _HEADER.fullmatch(line)
        if match is None:
            raise _TurnedAwayError(400, "a header is malformed")
        headers.append((match[1], match[2].strip(" \t")))
        if len(headers) > HEADER_LIMIT:
            raise _TurnedAwayError(431, "there are too many headers")
    return tuple(headers)


def _body_length(headers: Headers) -> int:
    if _values(headers, "transfer-encoding"):
        raise _TurnedAwayError(411, "a body needs a Content-Length")
    lengths = _values(headers, "content-length") or ["0"]
    if len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
        raise _TurnedAwayError(400, "the Content-Length is malformed")
    if int(lengths[0]) > BODY_LIMIT:
        raise _TurnedAwayError(413, f"the body is larger than {BODY_LIMIT} bytes")
    return int(lengths[0])


def _values(headers: Headers, wanted: str) -> list[str]:
    return [value for name, value in headers if name.lower() == wanted]


_SURROGATE = re.compile("[\ud800-\udfff]")


def _signalled_state(body: bytes) -> str:
    """Read the state out of the body of a signal; raises ValueError, saying why."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    state = message.get("state_detail") if isinstance(message, dict) else None
    if not isinstance(state, str):
        raise ValueError("there is no string state_detail")  # noqa: TRY004
    if len(state) > STATE_LENGTH:
        raise ValueError(f"state_detail is longer than {STATE_LENGTH} characters")
    if _SURROGATE.search(state):  # JSON can spell half a pair; it has no bytes
        raise ValueError("state_detail is not Unicode")
    return state


def _acknowledgement(state: str) -> _Reply:
    body = f"STATE_DETAIL={_quoted(state)}\n".encode()
    return _Reply(200, body, note=f"state_detail={_quoted(_printable(state))}")


# Faults


class Fault(NamedTuple):
    """A fault that waits for requests, made by `parse_fault`."""

    name: str
    argument: float
    left: float  # requests, but for refuse seconds; inf: for good
    path: str | None  # the path it is for; None: every one


class _Delivery(NamedTuple):
    connection: socket.socket
    wire: bytes  # the reply; empty if there is none
    argument: float
    closing: threading.Event


class _Kind(NamedTuple):
    summary: str
    effect: bool = False  # the request still does what it is for
    # Given the argument and the state_detail: what is said in place of the truth.
    reply: Callable[[float, str], _Reply] | None = None
    # How the reply gets on its way, if at all; the connection ends with it.
    deliver: Callable[[_Delivery], None] | None = None


def _retry_date(seconds: float, _: str) -> _Reply:
    # Both dates from one reading of the clock: they have whole seconds only.
    now = int(time.time())
    later = formatdate(now + math.ceil(seconds), usegmt=True)
    dates = (("Date", formatdate(now, usegmt=True)), ("Retry-After", later))
    return _said(429, "slow down", *dates)


def _empty(status: float, _: str) -> _Reply:
    bare = (("Content-Type", ""), ("Content-Length", ""))
    return _Reply(int(status), headers=bare if status == HTTPStatus.NO_CONTENT else ())


def _vast(size: float, _: str) -> _Reply:
    length = "" if math.isinf(size) else str(int(size))
    return _Reply(200, headers=(("Content-Length", length),))


def _echo(_: float, state: str) -> _Reply:
    body = json.dumps({"state_detail": state}).encode()
    return _Reply(200, body, "application/json")


def _reset(to: _Delivery) -> None:
    # With no time to linger, closing throws away what is queued and sends a RST.
    no_time = struct.pack("ii", 1, 0)
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)


def _hang(to: _Delivery) -> None:
    to.connection.settimeout(None)
    while to.connection.recv(4096):
        pass


def _drip(to: _Delivery) -> None:
    for at in range(len(to.wire)):
        to.connection.sendall(to.wire[at : at + 1])
        if to.closing.wait(to.argument):
            return


def _pour(to: _Delivery) -> None:
    to.connection.sendall(to.wire)
    block = b"STATE_DETAIL=huge\n" * 4096
    left = to.argument
    while left > 0:
        to.connection.sendall(block[: int(min(left, len(block)))])
        left -= len(block)


def _truncate(to: _Delivery) -> None:
    head, blank, body = to.wire.partition(b"\r\n\r\n")
    to.connection.sendall(head + blank + body[: len(body) // 2])


def _babble(to: _Delivery) -> None:
    to.connection.sendall(b"\x16\x03\x01\x00\xff\x1b[2J no HTTP \x00\xfe\r\n\r\n\xff")


_PAGE = b"<!DOCTYPE html>\n<title>Welcome</title>\n<h1>It works!</h1>\n"
_DAY = 86400.0  # seconds

FAULTS = {
    "refuse": _Kind("the port is closed, for COUNT seconds"),
    "reset": _Kind("the request is read, the connection reset", deliver=_reset),
    "hang": _Kind("the request is read and never answered", deliver=_hang),
    "drip": _Kind(
        "the signal is taken, the reply comes a byte every ARG seconds (1)",
        effect=True,
        deliver=_drip,
    ),
    "429": _Kind("429, no Retry-After", reply=lambda *_: _said(429, "slow down")),
    "429-after": _Kind(
        "429, Retry-After: ARG seconds (1)",
        reply=lambda seconds, _: _said(
            429, "slow down", ("Retry-After", str(math.ceil(seconds)))
        ),
    ),
    "429-date": _Kind(
        "429, Retry-After: ARG seconds (1) after the Date", reply=_retry_date
    ),
    "503": _Kind("503", reply=lambda *_: _said(503, "not now")),
    "400": _Kind("400", reply=lambda *_: _said(400, "not so")),
    "404": _Kind("404", reply=lambda *_: _said(404, "not here")),
    "403": _Kind("403", reply=lambda *_: _said(403, "not for you")),
    "html": _Kind("200, a web page", reply=lambda *_: _Reply(200, _PAGE, "text/html")),
    "wrong-ack": _Kind(
        f"200, but it names another state, {BOOTING!r}",
        reply=lambda *_: _acknowledgement(BOOTING),
    ),
    "empty-ack": _Kind(
        "the signal is taken, the reply is empty; ARG is its status (200)",
        effect=True,
        reply=_empty,
    ),
    "json-ack": _Kind(
        "the signal is taken, the reply is JSON", effect=True, reply=_echo
    ),
    "huge": _Kind(
        "200 and ARG bytes (1e8); inf: without an end", reply=_vast, deliver=_pour
    ),
    "redirect": _Kind(
        "302 to /elsewhere",
        reply=lambda *_: _said(302, "over there", ("Location", "/elsewhere")),
    ),
    "truncate": _Kind(
        "the signal is taken, the body of the reply ends halfway",
        effect=True,
        deliver=_truncate,
    ),
    "garbage": _Kind("bytes that are no HTTP", deliver=_babble),
}
_NONE = _Kind("the truth", effect=True)
_ARGUMENTS = {  # fault: what ARG is if not given, its least, its most
    "drip": (1.0, 0.0, _DAY),
    "429-after": (1.0, 0.0, 1e12),
    "429-date": (1.0, 0.0, 365 * _DAY),
    "empty-ack": (200.0, 200.0, 204.0),
    "huge": (1e8, 0.0, math.inf),
}

_ENDPOINTS = {  # path: methods, what it is
    "/": (("GET", "HEAD"), "this list"),
    "/conf": (("GET", "HEAD"), "the metadata as text; ?format=json: as JSON"),
    "/state": (("PATCH",), 'the signal: {"state_detail": "booted"}'),
    "/user_data": (("GET", "HEAD"), "the keys of the user data, likewise"),
    "/user_data/KEY": (("GET", "HEAD", "PATCH", "DELETE"), "a value, as text/plain"),
    "/vendor_data/cloud-init": (("GET", "HEAD"), "likewise, if there is any"),
}
_FILTERS = ("state", "conf", "user_data", "vendor_data")

_SPEC = re.compile(
    "(?:(?P<endpoint>[^/]*)/)?(?P<name>[^/=:]*)"
    "(?:=(?P<argument>[^:]*))?(?::(?P<count>.*))?",
    re.DOTALL,
)


def parse_fault(spec: str) -> Fault:
    """Read a fault, `[ENDPOINT/]NAME[=ARG][:COUNT]`.

    Raises ValueError, with a text for the user.
    """
    shown = f"in '{_printable(spec, 60)}'"
    match = _SPEC.fullmatch(spec)
    if match is None or match["name"] not in FAULTS:
        raise ValueError(f"{shown}: unknown fault; known are {', '.join(FAULTS)}")
    endpoint, name, argument, count = match.groups()
    closes = name == "refuse"
    if endpoint is not None and (closes or endpoint not in _FILTERS):
        known = "none for refuse" if closes else f"known are {', '.join(_FILTERS)}"
        raise ValueError(f"{shown}: unknown endpoint; {known}")
    if argument is not None and name not in _ARGUMENTS:
        raise ValueError(f"{shown}: {name} takes no argument")
    default, least, most = _ARGUMENTS.get(name, (0.0, 0.0, 0.0))
    number = default if argument is None else _number(argument)
    if not least <= number <= most:
        raise ValueError(f"{shown}: the argument is from {least:g} to {most:g}")
    left = math.inf if count is None else _number(count)
    if not left > 0 or not (closes or left == math.inf or left.is_integer()):
        unit = "seconds" if closes else "requests"
        raise ValueError(f"{shown}: the count is a number of {unit} above 0")
    return Fault(name, number, left, None if endpoint is None else f"/{endpoint}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # which is in no range


# The service


@final
class Emulator:
    """A metadata service that serves from its construction until `close`.

    A `document` replaces the built-in one; `state_detail`, and `state` if it is
    there, follow what happens. `faults` are written as for the command. A server
    that does not signal `booted` within `watchdog` seconds is hard-rebooted, each
    time again; None never does it.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        document: Mapping[str, object] | None = None,
        faults: Sequence[str] = (),
        watchdog: float | None = None,
        user_data: Mapping[str, bytes] | Sequence[tuple[str, bytes]] = (),
        vendor_data: bytes | None = None,
        any_port: bool = False,
    ) -> None:
        """Serve; raises OSError if it can not listen, ValueError for a bad fault.

        With `any_port`, user and vendor data are answered whatever port they are
        asked for from.
        """
        self._faults = [parse_fault(spec) for spec in faults]
        self._document = copy.deepcopy(dict(DOCUMENT if document is None else document))
        self._watchdog = math.inf if watchdog is None else watchdog
        self._user_data = dict(user_data)
        self._vendor_data = vendor_data
        self._any_port = any_port
        self._host = host
        self._listener: socket.socket | None = _listen(host, port)
        self._port: int = self._listener.getsockname()[1]
        self._start = time.monotonic()
        self._closing = threading.Event()
        self._lock = threading.Condition()  # guards what follows
        self._server_state = "starting"
        self._state_detail = BOOTING
        # Moments are seconds since the start; inf never comes.
        self._deadline = self._watchdog
        self._reopening = math.inf
        self._requests: deque[Request] = deque(maxlen=HISTORY)
        self._events: deque[Event] = deque(maxlen=HISTORY)
        self._follower: Callable[[Event], None] | None = None
        self._workers: list[tuple[threading.Thread, socket.socket]] = []
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
        self._closing.set()
        with self._lock:
            self._lock.notify_all()
        self._keeper.join()  # after it there are no new workers
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RDWR)
        for worker, _ in self._workers:
            worker.join()

    @property
    def url(self) -> str:
        """The address of the service, with no slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """The whole requests so far; one is here before its reply is sent."""
        with self._lock:
            return list(self._requests)

    @property
    def events(self) -> list[Event]:
        """What happened so far."""
        with self._lock:
            return list(self._events)

    @property
    def server_state(self) -> str:
        """`starting`, `running`, or for a quarter of a second `hard-rebooted`."""
        with self._lock:
            return self._server_state

    @property
    def state_detail(self) -> str:
        """The state that was signalled last, or `booting kernel`."""
        with self._lock:
            return self._state_detail

    @property
    def user_data(self) -> dict[str, bytes]:
        """The user data as it is now."""
        with self._lock:
            return dict(self._user_data)

    def set_faults(self, faults: Sequence[str]) -> None:
        """Replace what is left of the faults.

        On return a port that is to be closed is closed, and one that is to be
        open is open. Raises ValueError, and then nothing has changed.
        """
        parsed = [parse_fault(spec) for spec in faults]
        with self._lock:
            self._faults = parsed
            self._reopening = math.inf
            self._settle()

    def set_document(self, document: Mapping[str, object]) -> None:
        """Replace the metadata, as when somebody changes it in the console."""
        with self._lock:
            self._document = copy.deepcopy(dict(document))

    def follow(self, follower: Callable[[Event], None]) -> None:
        """Call `follower` with each event, with those so far at once.

        It is called in the thread in which something happens, one at a time.
        """
        with self._lock:
            self._follower = follower
            for event in self._events:
                follower(event)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition` holds, for `seconds` at most; tell whether it does.

        It is asked at every event, with the emulator standing still.
        """
        with self._lock:
            return self._lock.wait_for(condition, seconds)

    # The keeper

    def _keep(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                self._run_refusals()
                self._run_watchdog()
                self._lock.notify_all()
            if self._listener:
                self._accept(self._listener)
            else:
                self._closing.wait(TICK)
        if self._listener:
            self._listener.close()

    def _run_refusals(self) -> None:
        while self._refuses():
            if self._reopening == math.inf:
                self._reopening = self._now() + self._faults[0].left
                self._close_port()
            if self._now() < self._reopening:
                return
            del self._faults[0]
            self._reopening = math.inf
        if self._listener is None:
            try:
                self._listener = _listen(self._host, self._port)
            except OSError:  # somebody took it meanwhile: the next tick tries again
                return
            self._happened("port open")

    def _refuses(self) -> bool:
        return bool(self._faults) and self._faults[0].name == "refuse"

    def _close_port(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        # Connections that are kept alive would go on being served. This ends
        # those that are idle; a reply that is on its way still gets out.
        for _, connection in self._workers:
            _shutdown(connection, socket.SHUT_RD)
        self._happened("port closed fault=refuse")

    def _run_watchdog(self) -> None:
        if self._now() < self._deadline:
            return
        if self._server_state == "starting":
            self._become("hard-rebooted")
            self._deadline = self._now() + REBOOT
        else:
            self._state_detail = BOOTING
            self._become("starting")
            self._deadline = self._now() + self._watchdog

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except OSError:  # nobody came in this tick, or who came has left already
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(IDLE)
        client = (address[0], address[1])
        worker = threading.Thread(
            target=self._converse, args=(connection, client), daemon=True
        )
        with self._lock:
            self._workers = [pair for pair in self._workers if pair[0].is_alive()]
            self._workers.append((worker, connection))
            worker.start()

    # The workers

    def _converse(self, connection: socket.socket, client: tuple[str, int]) -> None:
        """Serve one connection, request after request."""
        with connection, connection.makefile("rb") as stream:
            try:
                while self._exchange(stream, connection, client):
                    pass
            except _TurnedAwayError as error:
                self._turn_away(connection, error.reply)
            except (OSError, EOFError):
                pass  # the client has left, or has nothing more to ask

    def _exchange(
        self, stream: BinaryIO, connection: socket.socket, client: tuple[str, int]
    ) -> bool:
        """Serve one request, and tell whether there may be another."""
        incoming = _read_request(stream, connection)
        with self._lock:
            fault = self._take_fault(incoming.path)
            kind = FAULTS[fault.name] if fault else _NONE
            argument = fault.argument if fault else 0.0
            reply = self._answer(incoming, client[1]) if kind.effect else None
            if kind.reply:
                note = reply.note if reply else ""
                reply = kind.reply(argument, self._state_detail)._replace(note=note)
            self._record(incoming, client, reply, fault)
            self._settle()
            keep = incoming.keep and not kind.deliver and self._listener is not None
        bodiless = incoming.method == "HEAD"
        wire = reply.serialised(keep=keep, bodiless=bodiless) if reply else b""
        if kind.deliver:
            kind.deliver(_Delivery(connection, wire, argument, self._closing))
        else:
            connection.sendall(wire)
        return keep

    def _turn_away(self, connection: socket.socket, reply: _Reply) -> None:
        with self._lock:
            self._happened(f"? -> {reply.status} {reply.note}")
        try:
            connection.sendall(reply.serialised(keep=False, bodiless=False))
            # What is not read makes closing a reset, and that can overtake the reply.
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(GRACE)
            while connection.recv(65536):
                pass
        except OSError:
            pass

    # With the lock held

    def _take_fault(self, path: str) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.name == "refuse":  # what stands behind it comes after it
                return None
            if fault.path is None or f"{path}/".startswith(f"{fault.path}/"):
                rest = fault._replace(left=fault.left - 1)
                self._faults[at : at + 1] = [rest] if rest.left else []
                return fault
        return None

    def _answer(self, incoming: _Incoming, port: int) -> _Reply:
        methods, _ = _ENDPOINTS.get(incoming.endpoint, ((), ""))
        if not methods:
            return _said(404, "not found")
        if incoming.method not in methods:
            return _said(405, "method not allowed", ("Allow", ", ".join(methods)))
        if incoming.path == "/":
            return _Reply(200, _index().encode())
        if incoming.path == "/state":
            return self._take_signal(incoming.body)
        if incoming.path == "/conf":
            return self._tell(incoming)
        return self._answer_data(incoming, port)

    def _take_signal(self, body: bytes) -> _Reply:
        try:
            self._state_detail = _signalled_state(body)
        except ValueError as error:
            return _said(400, str(error))
        return _acknowledgement(self._state_detail)

    def _answer_data(self, incoming: _Incoming, port: int) -> _Reply:
        if port >= FIRST_FREE_PORT and not self._any_port:
            return _said(403, "ask from a source port below 1024")
        if incoming.path == "/user_data":
            return _formatted({"user_data": list(self._user_data)}, incoming)
        key = incoming.key
        if incoming.method == "PATCH":
            return self._set_user_data(key, incoming)
        value = self._user_data.get(key) if key else self._vendor_data
        if value is None:
            return _said(404, "there is no such key")
        if incoming.method == "DELETE":
            del self._user_data[key]
            return _Reply(204, note=f"deleted={len(value)}")
        return _Reply(200, value)

    def _set_user_data(self, key: str, incoming: _Incoming) -> _Reply:
        if "text/plain" not in _values(incoming.headers, "content-type"):
            return _said(400, "user data is text/plain")
        self._user_data[key] = incoming.body
        return _Reply(204, note=f"bytes={len(incoming.body)}")

    def _tell(self, incoming: _Incoming) -> _Reply:
        document = {**self._document, "state_detail": self._state_detail}
        if "state" in document:
            document["state"] = self._server_state
        return _formatted(document, incoming)

    def _record(
        self,
        incoming: _Incoming,
        client: tuple[str, int],
        reply: _Reply | None,
        fault: Fault | None,
    ) -> None:
        status = reply.status if reply else None
        name = fault.name if fault else None
        self._requests.append(Request(*incoming[:4], self._now(), client, status, name))
        words = [_printable(incoming.method, 20), _printable(incoming.target), "->"]
        words += [str(status or "-"), reply.note if reply else ""]
        words += [f"fault={name}" if name else ""]
        self._happened(" ".join(filter(None, words)))
        if self._state_detail == "booted" and self._server_state != "running":
            self._become("running")
            self._deadline = math.inf

    def _become(self, state: str) -> None:
        before, self._server_state = self._server_state, state
        self._happened(f"server {before} -> {state}")

    def _happened(self, text: str) -> None:
        event = Event(self._now(), text)
        self._events.append(event)
        self._lock.notify_all()
        if self._follower:
            self._follower(event)

    def _settle(self) -> None:
        """Wait until the port is as the faults want it.

        Not for ever: a port that is to be opened may be somebody else's by now.
        """
        self._lock.wait_for(
            lambda: (
                self._refuses() == (self._listener is None) or self._closing.is_set()
            ),
            timeout=GRACE,
        )

    def _now(self) -> float:
        return time.monotonic() - self._start


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    listener.settimeout(TICK)
    return listener


def _formatted(document: Mapping[str, object], incoming: _Incoming) -> _Reply:
    """Return a document in the form that the query of the request names."""
    query = parse_qs(incoming.target.partition("?")[2])
    if "json" in query.get("format", ()):
        return _Reply(200, json.dumps(document).encode(), "application/json")
    return _Reply(200, flatten(document).encode("utf-8", "replace"))


def _shutdown(connection: socket.socket, how: int) -> None:
    try:
        connection.shutdown(how)
    except OSError:  # its own thread has closed it
        pass


def _index() -> str:
    return "".join(
        f"{', '.join(methods):26}{path:25}{summary}\n"
        for path, (methods, summary) in _ENDPOINTS.items()
    )


# A server with a routed IPv4 address, in the form such documents had in 2026.
DOCUMENT: Mapping[str, object] = json.loads("""{
 "allowed_actions": ["poweroff", "terminate", "reboot", "stop_in_place", "backup"],
 "arch": "x86_64", "boot_type": "local", "bootscript": null,
 "commercial_type": "DEV1-S", "creation_date": "2026-01-12T08:00:01.250000+00:00",
 "dynamic_ip_required": false, "enable_ipv6": false, "end_of_service": false,
 "extra_networks": [], "filesystems": [], "hostname": "openbsd",
 "id": "00000000-0000-4000-8000-000000000100",
 "image": {"arch": "x86_64", "from_server": "",
  "id": "00000000-0000-4000-8000-000000000101", "name": "OpenBSD",
  "organization": "00000000-0000-4000-8000-000000000102",
  "project": "00000000-0000-4000-8000-000000000102", "public": false,
  "root_volume": {"id": "00000000-0000-4000-8000-000000000103", "name": "",
   "size": 10000000000, "volume_type": "sbs_snapshot"},
  "state": "available", "tags": [], "zone": "fr-par-1"},
 "ipv6": null,
 "location": {"cluster_id": "12", "hypervisor_id": "301", "node_id": "77",
  "platform_id": "23", "zone_id": "fr-par-1"},
 "mac_address": "de:00:00:00:01:00", "maintenances": [],
 "modification_date": "2026-01-12T08:00:06.500000+00:00", "name": "openbsd",
 "organization": "00000000-0000-4000-8000-000000000102", "placement_group": null,
 "private_ip": null, "private_nics": [],
 "project": "00000000-0000-4000-8000-000000000102", "protected": false,
 "public_ip": {"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []},
 "public_ips": [{"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []}],
 "public_ips_v4": [{"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []}],
 "public_ips_v6": [], "routed_ip_enabled": true,
 "security_group": {"id": "00000000-0000-4000-8000-000000000104",
  "name": "Default security group"},
 "ssh_public_keys": [{
  "key": "ssh-ed25519 \
AAAAC3NzaC1lZDI1NTE5AAAAIEFuIGVtdWxhdGVkIGtleTogbm9ib2R5IGhhcyBpdC4u puffy",
  "fingerprint": "256 SHA256:\
vlX8LvGsMsP5snpN7i5aTSe8AiCavrOY+Y5Wa53voT8 puffy (ED25519)"}],
 "state": "starting", "state_detail": "booting kernel",
 "tags": ["openbsd", "role=web front"],
 "volumes": {"0": {"boot": false, "id": "00000000-0000-4000-8000-000000000105",
  "volume_type": "sbs_volume", "zone": "fr-par-1"}},
 "zone": "fr-par-1"
}""")


# The command

_EPILOG = f"""\
A fault is for the first COUNT requests that reach it, and then the next fault is;
without COUNT it is for good. ENDPOINT is {" or ".join(_FILTERS)}: requests for others
pass the fault by. `--fault state/503:2 --fault state/429-after=3:1` fails two
signals with 503 and one with 429, and takes the fourth.

Nobody can count connections to a closed port: `refuse:5` closes it for 5 seconds
when the faults before it are used up, and those behind it come after that.

A signal is not taken unless it says so here.

faults:
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage."""
        self.exit(2, f"emulator: {_printable(message, 500)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(argv)
    # Blocked before there is any thread, and taken by sigwait below: a signal
    # interrupts nothing, whenever it comes.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        service = Emulator(**vars(options))
    except OSError as error:
        reason = _printable(error.strerror or str(error))
        print(f"emulator: can not listen: {reason}", file=sys.stderr)
        return 1
    with service:
        _print_line(service.url)
        service.follow(_print_line)
        signal.sigwait(ends)
    return 0


def _print_line(line: object) -> None:
    try:
        print(line, flush=True)
    except OSError:  # whoever read it has left; the service stays
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> _Parser:
    known = "".join(f"  {name:11}{kind.summary}\n" for name, kind in FAULTS.items())
    parser = _Parser(
        prog="python3 -m scw_signal.emulator",
        description="Emulate the metadata service of Scaleway.\nThe first line"
        " of the output is its URL; then comes a line for each event.",
        epilog=_EPILOG + known,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, default=0, help="TCP port; 0, the default: a free one")
    add("--doc", type=_document, dest="document", metavar="FILE", help="metadata, JSON")
    add(
        "--user-data",
        type=_user_data,
        action="append",
        default=[],
        metavar="KEY=FILE",
        help="user data, the bytes of a file; may be repeated",
    )
    add("--vendor-data", type=_bytes, metavar="FILE", help="what cloud-init would get")
    add(
        "--any-port",
        action="store_true",
        help="answer for user and vendor data whatever port asks, not only below 1024",
    )
    add(
        "--watchdog",
        type=_seconds,
        metavar="SECONDS",
        help="hard-reboot a server that has not signalled `booted` by then, as some"
        " ranges once did; whether any still do is not known",
    )
    add(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        dest="faults",
        metavar="[ENDPOINT/]NAME[=ARG][:COUNT]",
        help="what goes wrong, see below; several come one after the other",
    )
    return parser


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"not a number from 0 to {LAST_PORT}: {text}")
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise argparse.ArgumentTypeError(f"not a number of seconds above 0: {text}")
    return float(text)


def _fault(text: str) -> str:
    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _user_data(text: str) -> tuple[str, bytes]:
    key, equals, name = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"not KEY=FILE: {text}")
    return key, _bytes(name)


def _bytes(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        reason = f"can not read {name}: {error.strerror}"
        raise argparse.ArgumentTypeError(reason) from None


def _document(name: str) -> dict[str, object]:
    try:
        document = json.loads(_bytes(name))
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(f"not JSON: {name}") from None
    if not isinstance(document, dict):
        raise argparse.ArgumentTypeError(f"not a JSON object: {name}")
    return document


if __name__ == "__main__":
    sys.exit(main())
