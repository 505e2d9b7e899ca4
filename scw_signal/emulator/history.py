"""What the emulator remembers: the requests that came, and what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from scw_signal.emulator.protocol import Headers


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
