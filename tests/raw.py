"""A service that answers exactly the bytes that a test gives it.

The emulator plays a service that fails; this one plays an attacker, who need not
keep to HTTP or JSON.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import final

BOUND = 30.0  # seconds; then a silent client is dropped
ACKNOWLEDGED = b"STATE_DETAIL=booted\n"


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a reply; its parts are not checked."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 " + status, length, *headers, b"", body])


@final
class RawService:
    """Answers signals and other requests one at a time, and hangs up."""

    def __init__(
        self, *, signal: bytes = reply(ACKNOWLEDGED), document: bytes = reply(b"{}")
    ) -> None:
        self._signal = signal
        self._document = document
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://{host}:{port}"

    def __enter__(self) -> RawService:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        socket.create_connection(self._address).close()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._closing:
            connection, _ = self._listener.accept()
            connection.settimeout(BOUND)
            # The client may hang up at any time.
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            request = stream.readline()
            length = 0
            while (line := stream.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            stream.read(length)
        signal = request.startswith(b"PATCH ")
        connection.sendall(self._signal if signal else self._document)
