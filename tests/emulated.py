"""How the tests of the emulator talk to it: with http.client and plain sockets.

These share no code with the emulator or the client. Each wait is for something that
comes; its bound only ends a test that has failed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scw_signal.emulator import Emulator


SAMPLES = Path(__file__).parent / "samples"
BOOTED = b'{"state_detail": "booted"}'
PATIENCE = 20.0  # seconds
NO_WAIT = 0.1  # seconds in which something does not happen


class Answer(NamedTuple):
    """What http.client read: header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*address(url), timeout=PATIENCE)


def ask(
    service: Emulator,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    with contextlib.closing(connect(service.url)) as connection:
        connection.request(method, target, body, headers or {})
        return read(connection)


def read(connection: http.client.HTTPConnection) -> Answer:
    with connection.getresponse() as reply:
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, headers, reply.read())


def send_signal(service: Emulator, body: bytes = BOOTED) -> Answer:
    return ask(service, "PATCH", "/state", body)


def get_json(service: Emulator) -> dict[str, object]:
    document = json.loads(ask(service, "GET", "/conf?format=json").body)
    assert isinstance(document, dict)
    return document


def plug(service: Emulator, wire: bytes = b"") -> socket.socket:
    """Connect a plain socket, and send something."""
    plugged = socket.create_connection(address(service.url), PATIENCE)
    plugged.sendall(wire)
    return plugged


def drain(plugged: socket.socket) -> bytes:
    """Read until the service closes."""
    return b"".join(iter(lambda: plugged.recv(65536), b""))


def is_refused(service: Emulator) -> bool:
    try:
        plug(service).close()
    except ConnectionRefusedError:
        return True
    return False


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body else ()
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, *length, "", ""]
    return "\r\n".join(lines).encode() + body


SIGNAL = request("PATCH", "/state", body=BOOTED)


def texts(service: Emulator) -> list[str]:
    return [event.text for event in service.events]


EVERY_BYTE = bytes(range(256))
PLAIN = {"Content-Type": "text/plain"}
