"""The clock: every wait goes through it, and tests replace it.

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

# poll(2) takes milliseconds as an int, so a longer wait needs several calls.
LONGEST_POLL = 86_400.0
TICK = 1.0  # seconds between calls of `tick`


class Clock:
    """Measures monotonic seconds, and waits for time and file descriptors."""

    def __init__(
        self, stop: Stop | None = None, tick: Callable[[], None] | None = None
    ) -> None:
        """Take the stop that ends every wait, if there is one.

        `tick` is called at least once a second during a wait.
        """
        self._stop = stop
        self._tick = tick

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary start; they never go back."""
        return time.monotonic()

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait until one of `descriptors` is readable, or for `seconds`.

        Returns whether one is readable. A descriptor that is broken, or whose other
        end is closed, counts as readable. `seconds` may be math.inf. Raises Stopped
        as soon as this process is told to stop.
        """
        return self._poll(seconds, descriptors, select.POLLIN)

    def wait_writable(self, seconds: float, descriptor: int) -> bool:
        """Wait until `descriptor` is writable; otherwise like `wait`.

        A connecting socket becomes writable when it has connected or failed.
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
            # Rounded up: if poll ended too early, this loop would spin.
            ready = poll.poll(max(0, math.ceil(left * 1000)))
            if self._stop is not None:
                self._stop.check()
            if ready:
                return True
            if self.monotonic() >= end:
                return False
            if self._tick is not None:
                self._tick()
