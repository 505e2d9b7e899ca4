"""The clock seam: everything that waits, waits here, and tests bring their own.

Only monotonic time is used. The wall clock jumps at boot, when ntpd(8) sets it.
"""

from __future__ import annotations

import math
import select
import time

# poll(2) takes milliseconds in an int; a longer wait is made of several.
LONGEST_POLL = 86_400.0


class Clock:
    """Monotonic seconds, and waiting on file descriptors for as long as that."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start, which never go back."""
        return time.monotonic()

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait until one of `descriptors` is readable, or for `seconds`.

        Returns whether one is readable; one that was closed at its other end
        or is broken counts as readable. `seconds` may be math.inf. A signal
        handler that raises ends the wait with what it raised.
        """
        end = self.monotonic() + seconds
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        while True:
            left = min(end - self.monotonic(), LONGEST_POLL)
            # Rounded up: a wait that ends early would be made again, busily.
            if poll.poll(max(0, math.ceil(left * 1000))):
                return True
            if self.monotonic() >= end:
                return False
