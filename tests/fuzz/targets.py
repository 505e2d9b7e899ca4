"""What is fuzzed: each target takes any bytes, and fails if a promise is broken.

A target may raise only the project's own exceptions, with a text that is safe to
show. Its answer must be right, if there is a second way to find it. No fuzzer is
needed: tests/test_fuzz.py runs the targets over their seeds and over random mutations
of them, and `python3 -m fuzz` lets atheris search for more.
"""

from __future__ import annotations

import json
import math
import socket
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from scw_signal import document, flat, render, transport, wire
from scw_signal.clock import Clock
from scw_signal.errors import NonsenseError, OtherStateError, ScwSignalError
from scw_signal.wire import Endpoint, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = Path(__file__).parent.parent / "samples"
STATE = "booted"
HEADER_LIMIT = 64 * 1024  # bytes of a header line; http.client accepts no more


class Target(NamedTuple):
    """One parser: its check, its seeds and tokens, and the longest input."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...]  # what its input is made of
    limit: int  # bytes


def acknowledgement(data: bytes) -> None:
    """Judge `data` as the body of a reply to the signal."""
    named = wire.acknowledged_state(data)
    try:
        confirmed = wire.judge_acknowledgement(Reply(200, {}, data), STATE)
    except OtherStateError as error:
        assert named not in {STATE, None}
        check_text(error)
    except NonsenseError as error:
        assert data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
        check_text(error)
    else:
        assert named == (STATE if confirmed else None)


def retry_after(data: bytes) -> None:
    """Read the lines of `data` as the headers Retry-After and Date."""
    value, _, date = data.decode("latin-1").partition("\n")
    seconds = wire.retry_after({"Retry-After": value, "Date": date})
    assert 0.0 <= seconds < math.inf


def metadata(data: bytes) -> None:
    """Read `data` as a metadata document, and render it in every form."""
    try:
        tree = document.parse(data)
    except ScwSignalError as error:
        check_text(error)
        return
    assert tree == json.loads(data.decode("utf-8-sig"))
    pairs = document.flatten(tree)
    view = flat.dump(pairs)
    assert list(flat.load(view)) == pairs
    assert all(flat.find(view, name) == (True, text) for name, text in pairs[:100])
    render.shell(pairs)
    render.text(pairs)


def keys(data: bytes) -> None:
    """Judge `data` as the list of the user data's keys."""
    try:
        found = wire.judge_keys(Reply(200, {}, data))
    except ScwSignalError as error:
        check_text(error)
        return
    assert json.loads(data) == {**json.loads(data), "user_data": found}
    assert all(isinstance(key, str) for key in found)


def stored(data: bytes) -> None:
    """Read `data` as the stored file of a look-up, which anybody may have written."""
    view = data.decode(errors="replace")
    pairs = list(flat.load(view))
    if not flat.is_flat(view):
        assert pairs == []
        return
    for name in {*(name for name, _ in pairs[:100]), "HOSTNAME", ""}:
        there, text = flat.find(view, name)
        assert there or text is None
    render.shell(pairs)
    render.text(pairs)


def reply(data: bytes) -> None:
    """Take `data` as all that comes back on a connection."""
    ours, theirs = socket.socketpair()
    with ours:
        for end, room in ((ours, socket.SO_SNDBUF), (theirs, socket.SO_RCVBUF)):
            end.setsockopt(socket.SOL_SOCKET, room, 2 * HEADER_LIMIT)
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        connected = transport._TimedSocket(fileno=theirs.detach())

        def take(_addresses: object, timer: Any, *_: object) -> Any:
            connected.timer = timer
            return connected

        with mock.patch.object(transport, "_connect", take):
            try:
                service = transport.Service([Endpoint("127.0.0.1")], Clock())
                found, _ = service.exchange(wire.state_request(STATE), math.inf)
                wire.judge_acknowledgement(found, STATE)
            except ScwSignalError as error:
                check_text(error)
            finally:
                connected.close()


def check_text(error: ScwSignalError) -> None:
    """Check that the text of an error can be shown: one line, and not too long."""
    assert str(error).isprintable()
    assert len(str(error)) < 300


ACKNOWLEDGEMENTS = (
    b"STATE_DETAIL=booted\n", b"STATE_DETAIL='booting kernel'\n", b"STATE_DETAIL=\n",
    b"STATE_DETAIL='it'\"'\"'s'\n", b"STATE_DETAIL='it'\\''s'\n",
    b'{"state_detail": "booted"}', b'{"id": [1.5, null], "state_detail": "\\u00e9"}',
)  # fmt: skip
LISTS = (
    b'{"user_data": []}', b'{"user_data": ["cloud-init", "\\u00e9\\n"]}',
    b'{"user_data": ["a", 1]}', b'{"user_data": {"a": "b"}}', b'["user_data"]',
)  # fmt: skip
HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nSTATE_DETAIL=booted\n",
    b"HTTP/1.0 200 OK\r\n\r\nSTATE_DETAIL=booted\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nSTATE\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nServer: Tengine\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Encoding: gzip\r\n\r\n",
)  # fmt: skip


def samples(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(SAMPLES.glob(pattern))]


def acknowledgements() -> list[bytes]:
    return [*ACKNOWLEDGEMENTS, *samples("*.txt")]


def dates() -> list[bytes]:
    now = formatdate(0, usegmt=True).encode()
    later = formatdate(60, usegmt=True).encode()
    obsolete = (b"Thursday, 01-Jan-70 00:01:00 GMT", b"Thu Jan  1 00:01:00 1970")
    return [b"120", *(value + b"\n" + now for value in (later, *obsolete))]


def views() -> list[bytes]:
    trees = map(document.parse, samples("*.json"))
    return [flat.dump(document.flatten(tree)).encode() for tree in trees]


QUOTES = (b"'", b'"', b"\\", b"\n", b"\r\n", b"#", b"\0", b"\xff", b"\xed\xa0\x80")
JSON = (
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b'\\"', b'{"":', b"null",
    b"true", b"1e999", b"NaN", b"-0", b"\\ud800", b"\\udc21", b"\\u0000",
    b"\xef\xbb\xbf",
)  # fmt: skip
DATES = (
    b"Thu", b",", b" ", b"Jan", b"1970", b"99999", b":", b"-", b"+0000", b"-9999",
    b"GMT", b"(", b")", b"\n", b"inf", b"\xb2",
)  # fmt: skip
HTTP = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 \r\n", b"\r\n", b"\n", b": ", b" ", b"\t",
    b"Content-Length: ", b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Retry-After: ",
    b"Date: ", b"0\r\n\r\n", b"-1", b"ffff",
)  # fmt: skip

TARGETS = {
    "acknowledgement": Target(
        acknowledgement,
        acknowledgements,
        (b"STATE_DETAIL=", b"state_detail", STATE.encode(), *QUOTES, *JSON),
        wire.ACKNOWLEDGEMENT_LIMIT,
    ),
    "retry-after": Target(retry_after, dates, DATES, HEADER_LIMIT),
    "metadata": Target(metadata, lambda: samples("*.json"), JSON, wire.DOCUMENT_LIMIT),
    "keys": Target(
        keys,
        lambda: [*LISTS],
        (b'{"user_data":', b'"role"', *JSON),
        wire.DOCUMENT_LIMIT,
    ),
    "stored": Target(
        stored,
        views,
        (flat.HEADER.encode(), b"=", b"\\n", b"\\e", *QUOTES),
        wire.DOCUMENT_LIMIT // 4,
    ),
    "reply": Target(reply, lambda: [*HEADS], HTTP, HEADER_LIMIT),
}
