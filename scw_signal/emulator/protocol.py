"""HTTP as the service speaks it: reads requests, makes replies."""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import parse_qs, unquote

from scw_signal.emulator.document import flatten, printable, quoted

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

STATE_LENGTH = 128  # characters
BODY_LIMIT = 2 * 1024 * 1024  # bytes of a request's body
LINE_LIMIT = 8 * 1024  # bytes of a line in a request's head
HEADER_LIMIT = 100  # lines

Headers = tuple[tuple[str, str], ...]

ENDPOINTS = {  # path: methods, what it is
    "/": (("GET", "HEAD"), "this list"),
    "/conf": (("GET", "HEAD"), "the metadata as text; ?format=json: as JSON"),
    "/state": (("PATCH",), 'the signal: {"state_detail": "booted"}'),
    "/user_data": (("GET", "HEAD"), "the keys of the user data, likewise"),
    "/user_data/KEY": (("GET", "HEAD", "PATCH", "DELETE"), "a value, as text/plain"),
    "/vendor_data/cloud-init": (("GET", "HEAD"), "likewise, if there is any"),
}


class Incoming(NamedTuple):
    """A request as it is read."""

    method: str
    target: str
    headers: Headers
    body: bytes
    keep: bool  # the client may send another request on this connection

    @property
    def path(self) -> str:
        """The path, without a query."""
        return _ORIGIN.sub("", self.target).partition("?")[0]

    @property
    def endpoint(self) -> str:
        """The path, with KEY for the key of user data."""
        if self.path == "/user_data/":  # used by the vendor's own script
            return "/user_data"
        return "/user_data/KEY" if self.key else self.path

    @property
    def key(self) -> str:
        """The key of user data that the path names, or ""."""
        key = self.path.removeprefix("/user_data/")
        return "" if key == self.path or "/" in key else unquote(key)


class Reply(NamedTuple):
    """A reply to send."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: Headers = ()  # an empty value leaves a header out
    note: str = ""  # for the event

    def serialised(self, *, keep: bool, bodiless: bool) -> bytes:
        """Return the bytes for the wire."""
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


def said(status: int, words: str, *headers: tuple[str, str]) -> Reply:
    """Return a reply that is a line of text."""
    note = f"reason={quoted(words)}"
    return Reply(status, f"{words}\n".encode(), headers=headers, note=note)


class TurnedAwayError(Exception):
    """A malformed request: the connection ends after the reply to it."""

    def __init__(self, status: int, words: str) -> None:
        """Make the reply."""
        super().__init__(status, words)
        self.reply = said(status, words)


# Strict, so that tests find clients that send anything unusual.
_REQUEST_LINE = re.compile(r"([!-~]+) ([!-~]+) HTTP/1\.([01])")
_HEADER = re.compile(r"([\w!#$%&'*+.^`|~-]+):(.*)", re.ASCII | re.DOTALL)
_ORIGIN = re.compile(r"\Ahttp://[^/?]*", re.IGNORECASE)  # as sent to a proxy


def read_request(stream: BinaryIO, connection: socket.socket) -> Incoming:
    """Read one request; raises TurnedAwayError, or EOFError if the client left."""
    match = _REQUEST_LINE.fullmatch(_read_line(stream))
    if match is None:
        raise TurnedAwayError(400, "the request line is malformed")
    modern = match[3] == "1"
    headers = _read_headers(stream)
    if modern and len(values(headers, "host")) != 1:
        raise TurnedAwayError(400, "one Host header is required")
    length = _body_length(headers)
    if "100-continue" in values(headers, "expect"):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    # "close" anywhere in the value, as in nginx: the vendor's C tool sends "closed",
    # and waits for the end of the connection.
    wishes = ",".join(values(headers, "connection")).lower()
    keep = "close" not in wishes if modern else "keep-alive" in wishes
    return Incoming(match[1], match[2], headers, body, keep)


def _read_line(stream: BinaryIO) -> str:
    line = stream.readline(LINE_LIMIT + 1)
    if len(line) > LINE_LIMIT:
        raise TurnedAwayError(431, "a line of the head is too long")
    if not line.endswith(b"\n"):
        raise EOFError
    return line.decode("latin-1").removesuffix("\n").removesuffix("\r")


def _read_headers(stream: BinaryIO) -> Headers:
    headers: list[tuple[str, str]] = []
    while line := _read_line(stream):
        match = _HEADER.fullmatch(line)
        if match is None:
            raise TurnedAwayError(400, "a header is malformed")
        headers.append((match[1], match[2].strip(" \t")))
        if len(headers) > HEADER_LIMIT:
            raise TurnedAwayError(431, "there are too many headers")
    return tuple(headers)


def _body_length(headers: Headers) -> int:
    if values(headers, "transfer-encoding"):
        raise TurnedAwayError(411, "a body needs a Content-Length")
    lengths = values(headers, "content-length") or ["0"]
    if len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
        raise TurnedAwayError(400, "the Content-Length is malformed")
    if int(lengths[0]) > BODY_LIMIT:
        raise TurnedAwayError(413, f"the body is larger than {BODY_LIMIT} bytes")
    return int(lengths[0])


def values(headers: Headers, wanted: str) -> list[str]:
    """Return the values of a header, which is named in lower case."""
    return [value for name, value in headers if name.lower() == wanted]


_SURROGATE = re.compile("[\ud800-\udfff]")


def signalled_state(body: bytes) -> str:
    """Read the state from the body of a signal; raises ValueError with the reason."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    state = message.get("state_detail") if isinstance(message, dict) else None
    if not isinstance(state, str):
        raise ValueError("there is no string state_detail")  # noqa: TRY004
    if len(state) > STATE_LENGTH:
        raise ValueError(f"state_detail is longer than {STATE_LENGTH} characters")
    if _SURROGATE.search(state):  # possible in JSON, but not in UTF-8
        raise ValueError("state_detail is not Unicode")
    return state


def acknowledgement(state: str) -> Reply:
    """Return the reply to a signal."""
    body = f"STATE_DETAIL={quoted(state)}\n".encode()
    return Reply(200, body, note=f"state_detail={quoted(printable(state))}")


def formatted(document: Mapping[str, object], incoming: Incoming) -> Reply:
    """Return a document in the form that the query of the request names."""
    query = parse_qs(incoming.target.partition("?")[2])
    if "json" in query.get("format", ()):
        return Reply(200, json.dumps(document).encode(), "application/json")
    return Reply(200, flatten(document).encode("utf-8", "replace"))


def index() -> str:
    """Return the list of endpoints, for a person to read."""
    return "".join(
        f"{', '.join(methods):26}{path:25}{summary}\n"
        for path, (methods, summary) in ENDPOINTS.items()
    )
