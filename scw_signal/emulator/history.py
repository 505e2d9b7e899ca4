"""What the emulator remembers: the requests and the events."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from scw_signal.emulator.protocol import Headers


class Request(NamedTuple):
    """One whole request, as received, and its outcome."""

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
    time: float = 0.0  # seconds since 1970, by the wall clock
    client: tuple[str, int] | None = None  # address and port, if a client did it

    def __str__(self) -> str:
        """Return the line that the command prints."""
        return f"{self.seconds:8.3f} {self.text}"

    def verbose(self) -> str:
        """Return the line with the time of day, in UTC, and the client's address."""
        when = datetime.fromtimestamp(self.time, timezone.utc)
        shown = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{shown} {self._address()} {self.text}"

    def _address(self) -> str:
        if self.client is None:
            return "-"
        host, port = self.client
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
