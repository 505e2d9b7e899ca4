"""The clock seam: everything that waits, waits here, and tests bring their own.

Only monotonic time is used. The wall clock jumps at boot, when ntpd(8) sets it.
"""

from __future__ import annotations

import math
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .stop import Stop

# poll(2) takes milliseconds in an int; a longer wait is made of several.
LONGEST_POLL = 86_400.0
TICK = 1.0  # seconds, while somebody wants to know that a wait goes on


class Clock:
    """Monotonic seconds, and waiting on file descriptors for as long as that."""

    def __init__(
        self, stop: Stop | None = None, tick: Callable[[], None] | None = None
    ) -> None:
        """Take what ends every wait, if anything does.

        `tick` is called while a wait goes on, at least each second.
        """
        self._stop = stop
        self._tick = tick

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, which never go back."""
        return time.monotonic()

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait until one of `descriptors` is readable, or for `seconds`.

        Returns whether one is readable; one that was closed at its other end
        or is broken counts as readable. `seconds` may be math.inf. Raises
        Stopped as soon as this process was told to stop.
        """
        return self._poll(seconds, descriptors, select.POLLIN)

    def wait_writable(self, seconds: float, descriptor: int) -> bool:
        """Wait until `descriptor` is writable; otherwise as `wait`.

        A socket is when its connection has come about, or has failed.
        """
        return self._poll(seconds, (descriptor,), select.POLLOUT)

    def _poll(self, seconds: float, descriptors: tuple[int, ...], event: int) -> bool:
        end = self.monotonic() + seconds
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, event)
        if self._stop is not None:
            poll.register(self._stop.descriptor, select.POLLIN)
            if self._stop.heard:
                self._stop.check()
        longest = LONGEST_POLL if self._tick is None else TICK
        while True:
            left = min(end - self.monotonic(), longest)
            # Rounded up: a wait that ends early would be made again, busily.
            ready = poll.poll(max(0, math.ceil(left * 1000)))
            if self._stop is not None:
                self._stop.check()
            if ready:
                return True
            if self.monotonic() >= end:
                return False
            if self._tick is not None:
                self._tick()
