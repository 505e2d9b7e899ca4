"""The model: guests that want to be acknowledged once, and a service with limits.

Discrete events, all times in seconds since the first guest may power on:

- Guests power on evenly over `power_on` seconds, and send their first request
  at that moment. A request takes no time unless it ends in silence.
- The service acknowledges at most `capacity` requests in each second, first
  come, first served. It sheds the rest as `shed` says; each that it sheds costs
  the next second `cost` of an acknowledgement.
- From the middle of its work on (half of guests over capacity) it is dead for
  `outage` seconds, in which connections are refused or not answered.
- Guests share nothing. What one waits after a failure is the policy's answer to
  the number of its tries, what the last one failed with, and a random number.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, NamedTuple, Protocol

from scw_signal import backoff
from scw_signal.transport import CONNECT_SECONDS, EXCHANGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

HORIZON = 5  # ideals, after which who is not acknowledged is lost


class Failure(NamedTuple):
    """How a request fails: what it tells, what it takes, and what it asks for."""

    overload: bool  # as scw_signal.errors.TryAgainError has it
    takes: float = 0.0
    after: float = 0.0  # Retry-After


TOO_MANY = Failure(overload=True)  # 429
TOO_MANY_AFTER = Failure(overload=True, after=30.0)
SILENCE = Failure(overload=True, takes=EXCHANGE_SECONDS)  # though connected
REFUSED = Failure(overload=False)
NO_CONNECTION = Failure(overload=False, takes=CONNECT_SECONDS)


class Policy(Protocol):
    """Decides about the next try; None is to give up."""

    def __call__(
        self, tries: int, overloaded: int, failure: Failure, chance: float, /
    ) -> float | None:
        """Return the delay; `overloaded` is what backoff.overloads has counted."""


class Setting(NamedTuple):
    """A zone, its service, and how that fails."""

    guests: int = 100_000
    power_on: float = 60.0
    capacity: float = 400.0
    shed: Failure = TOO_MANY
    cost: float = 0.01
    outage: float = 120.0
    dead: Failure = REFUSED
    dies: float | None = None  # in the middle
    seed: int = 4

    @property
    def begins(self) -> float:
        """When the outage begins."""
        return self.guests / self.capacity / 2 if self.dies is None else self.dies

    @property
    def ideal(self) -> float:
        """The seconds without which nobody could have acknowledged all of them.

        Guests over capacity, and the outage; it holds where the guests come
        faster than they are served and the outage falls into the work.
        """
        return self.guests / self.capacity + self.outage


class Course(NamedTuple):
    """What came of it."""

    setting: Setting
    acknowledged: Sequence[float]  # moments, in order
    sent: Sequence[int]  # requests, by second
    unanswered: int  # requests in the outage
    gave_up: int  # guests

    @property
    def requests(self) -> int:
        """All requests, whatever became of them."""
        return sum(self.sent)

    @property
    def lost(self) -> int:
        """The guests that were not acknowledged."""
        return self.setting.guests - len(self.acknowledged)

    @property
    def a_guest(self) -> float:
        """Requests a guest, in the mean."""
        return self.requests / self.setting.guests

    def until(self, share: float) -> float:
        """Return the seconds until this share is acknowledged; inf for never."""
        number = math.ceil(share * self.setting.guests)
        if number > len(self.acknowledged):
            return math.inf
        return self.acknowledged[number - 1]

    def multiple(self, share: float) -> float:
        """Return the same as a multiple of the ideal for all."""
        return self.until(share) / self.setting.ideal


def simulate(setting: Setting, policy: Policy) -> Course:
    """Let a zone boot; the same setting gives the same course."""
    chance = random.Random(setting.seed).random  # noqa: S311 - no secret
    begins, ends = setting.begins, setting.begins + setting.outage
    horizon = HORIZON * setting.ideal
    sent = [0] * (int(horizon) + 1)
    tries, overloaded = [0] * setting.guests, [0] * setting.guests
    acknowledged: list[float] = []
    unanswered = gave_up = 0
    second, left, shed = -1, 0.0, 0
    events = [(chance() * setting.power_on, guest) for guest in range(setting.guests)]
    heapq.heapify(events)
    while events and events[0][0] < horizon:
        now, guest = events[0]
        sent[int(now)] += 1
        if begins <= now < ends:
            unanswered += 1
            failure = setting.dead
        else:
            if int(now) != second:
                debt = shed * setting.cost if int(now) == second + 1 else 0.0
                second, left, shed = int(now), setting.capacity - debt, 0
            if left >= 1:
                left -= 1
                acknowledged.append(now)
                heapq.heappop(events)
                continue
            shed += 1
            failure = setting.shed
        tries[guest] += 1
        overloaded[guest] = backoff.overloads(
            overloaded[guest], overload=failure.overload
        )
        delay = policy(tries[guest], overloaded[guest], failure, chance())
        if delay is None:
            gave_up += 1
            heapq.heappop(events)
        else:
            heapq.heapreplace(events, (now + failure.takes + delay, guest))
    return Course(setting, acknowledged, sent, unanswered, gave_up)
