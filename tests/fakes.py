"""Stand-ins for time and for the service.

They check what they are asked: a fake that takes anything proves nothing.
"""

from __future__ import annotations

import math
import select
from typing import TYPE_CHECKING

from scw_signal.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_WAITS = 100_000


class FakeClock(Clock):
    """Monotonic seconds that pass only while somebody waits.

    `at` plans what happens at a moment: a callback that writes to a pipe, say.
    Descriptors are real and really polled, so events and time-outs are told apart
    as in production.

    `settle` is called before each poll: it can wait for threads to finish their
    work without fake time passing. `patience` serves the same purpose: a poll lasts
    at most that many real seconds, and never more than the wait itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0  # not 0: no code may rely on a clock that starts at 0
        self.waits: list[float] = []
        self.settle: Callable[[], None] = lambda: None
        self.patience = 0.0
        self._end = self.now
        self._plans: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def at(self, seconds: float, callback: Callable[[], None]) -> None:
        """Plan `callback` for `seconds` from now."""
        self._plans.append((self.now + seconds, callback))
        self._plans.sort(key=lambda plan: plan[0])

    def _poll(self, seconds: float, descriptors: tuple[int, ...], event: int) -> bool:
        assert seconds >= 0, "a wait into the past"
        self.waits.append(seconds)
        assert len(self.waits) < MOST_WAITS, "a busy loop"
        end = self.now + seconds
        if seconds > 0:  # time passes, however short the wait
            end = max(end, math.nextafter(self.now, math.inf))
        self._end = end
        while not self._ready(descriptors, event):
            if not self._plans or self._plans[0][0] > end:
                assert end != float("inf"), "this would wait forever"
                self.now = end
                return False
            moment, callback = self._plans.pop(0)
            self.now = max(self.now, moment)
            callback()
        return True

    def _ready(self, descriptors: tuple[int, ...], event: int) -> bool:
        self.settle()
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, event)
        real = max(0.0, min(self._end - self.now, self.patience))
        return bool(descriptors) and bool(poll.poll(math.ceil(real * 1000)))


class SocketClock(FakeClock):
    """A FakeClock for sockets with a real peer, which needs real time to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.patience = 10.0
