"""The model: guests that want to be acknowledged once, and a service with limits.

All times are in seconds since the first guest may power on:

- Guests power on evenly over `power_on` seconds, and send their first request
  at that moment. A request takes no time unless it ends in silence.
- The service acknowledges at most `capacity` requests in each second, first
  come, first served. It sheds the rest as `shed` says; each that it sheds costs
  the next second `cost` of an acknowledgement.
- From the middle of its work on (half of guests over capacity) it is dead for
  `outage` seconds, in which connections are refused or not answered.
- Guests share nothing. What one waits after a failure is the policy's answer to
  how long ago its first try failed, the number of its tries, what the last one
  failed with, and a random number.

A lone guest meets a service that is away for some seconds, and that acknowledges
whatever it is sent after them. A request that was sent before is lost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from scw_signal.transport import CONNECT_SECONDS, EXCHANGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.intp]
    Random = Callable[[int], Floats]  # so many numbers from [0, 1)

HORIZON = 5  # ideals, after which who is not acknowledged is lost
LONGEST = 60  # seconds for which the service is away from a lone guest, at most
MOST_BOOTS = 0.9  # the share of them that lateness() is about


class Failure(NamedTuple):
    """How a request fails: what it takes, and what the service asks for."""

    takes: float = 0.0
    after: float = 0.0  # Retry-After


TOO_MANY = Failure()  # 429 or 503
TOO_MANY_AFTER = Failure(after=30.0)
SILENCE = Failure(takes=EXCHANGE_SECONDS)  # though connected
REFUSED = Failure()
NO_CONNECTION = Failure(takes=CONNECT_SECONDS)


class Policy(Protocol):
    """Decides about the next tries of several guests."""

    def __call__(
        self, elapsed: Floats, tries: Integers, failure: Failure, chance: Floats, /
    ) -> Floats:
        """Return the delays, inf to give up; the first try failed `elapsed` ago."""


class Setting(NamedTuple):
    """A zone, its service, and how that fails."""

    guests: int = 100_000
    power_on: float = 60.0
    capacity: float = 400.0
    shed: Failure = TOO_MANY
    cost: float = 0.01
    outage: int = 120
    dead: Failure = REFUSED
    dies: int | None = None  # in the middle
    seed: int = 4

    @property
    def begins(self) -> int:
        """When the outage begins: at a whole second, as it ends."""
        middle = int(self.guests / self.capacity / 2)
        return middle if self.dies is None else self.dies

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
    gave_up: int  # guests

    @property
    def requests(self) -> int:
        """All requests, whatever became of them."""
        return sum(self.sent)

    @property
    def unanswered(self) -> int:
        """The requests in the outage."""
        begins = self.setting.begins
        return sum(self.sent[begins : begins + self.setting.outage])

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


class Guests:
    """Some guests: the next request of each, its tries, and its first failure."""

    def __init__(self, policy: Policy, first: Floats, random: Random) -> None:
        """Take the moments of the first requests, and what draws from [0, 1)."""
        self.next = first  # a moment; inf: there will be none
        self._policy = policy
        self._random = random
        self._tries = np.zeros(len(first), np.int64)
        self._failed = np.full(len(first), math.inf)  # a moment

    def due(self, end: float) -> Integers:
        """Return whose next request comes before `end`, in that order."""
        due = np.flatnonzero(self.next < end)
        return due[np.argsort(self.next[due])]

    def fail(self, which: Integers, failure: Failure) -> None:
        """Let the next requests of these guests fail."""
        ends = self.next[which] + failure.takes
        self._tries[which] += 1
        self._failed[which] = np.minimum(self._failed[which], ends)
        self.next[which] = ends + self._policy(
            ends - self._failed[which],
            self._tries[which],
            failure,
            self._random(len(which)),
        )


def simulate(setting: Setting, policy: Policy) -> Course:
    """Let a zone boot; the same setting gives the same course."""
    begins, ends = setting.begins, setting.begins + setting.outage
    random = _random(setting.seed)
    guests = Guests(policy, random(setting.guests) * setting.power_on, random)
    acknowledged: list[float] = []
    sent: list[int] = []
    shed = 0
    for second in range(math.ceil(HORIZON * setting.ideal)):
        dead = begins <= second < ends
        room = 0 if dead else max(0, int(setting.capacity - shed * setting.cost))
        due = guests.due(second + 1)
        served, failed = due[:room], due[room:]
        acknowledged += guests.next[served].tolist()
        guests.next[served] = math.inf
        sent.append(len(served))
        shed = 0
        while len(failed):  # again, where the next try comes in the same second
            sent[-1] += len(failed)
            shed += 0 if dead else len(failed)
            guests.fail(failed, setting.dead if dead else setting.shed)
            failed = failed[guests.next[failed] < second + 1]
        if np.isinf(guests.next).all():
            break
    gave_up = np.count_nonzero(np.isinf(guests.next)) - len(acknowledged)
    return Course(setting, acknowledged, sent, gave_up)


def lateness(
    policy: Policy, failure: Failure, *, boots: int = 2000, seed: int = 4
) -> list[float]:
    """Return how late a lone guest is acknowledged in nine of ten boots.

    In seconds after the return of the service, for each whole number of seconds for
    which it was away, up to LONGEST; inf where the guest gives up. Away for 0 s is a
    service that fails once.
    """
    guests = Guests(policy, np.zeros(boots), _random(seed))
    rows = [guests.next.copy()]
    while rows[-1].min() <= LONGEST:
        guests.fail(np.flatnonzero(guests.next <= LONGEST), failure)
        rows.append(guests.next.copy())
    # How it fails says nothing of when the service will be back. So one course of
    # tries that all fail serves for every time that it may be away.
    tries = np.array(rows)
    curve = []
    for away in range(LONGEST + 1):
        late = np.where(tries > away, tries, math.inf).min(axis=0) - away
        curve.append(float(np.sort(late)[math.ceil(MOST_BOOTS * boots) - 1]))
    return curve


def _random(seed: int) -> Random:
    # Unlike those of default_rng, its numbers never change (NEP 19).
    return np.random.RandomState(seed).random_sample
