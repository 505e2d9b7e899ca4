"""The model: guests that want to be acknowledged once, and a service with limits.

All times are in seconds since the first guest may power on:

- Guests power on evenly over `power_on` seconds, and send their first request
  at that moment. A request takes no time unless it gets no answer.
- The service acknowledges at most `capacity` requests in each second, first
  come, first served. It sheds the rest as `shed` says; each that it sheds costs
  the next second `cost` of an acknowledgement.
- From the middle of its work on (half of guests over capacity) it is dead for
  `outage` seconds, in which connections are refused or not answered.
- Guests share nothing. The policy decides how long one waits after a failure. It
  gets the time since the guest's first try failed, the number of its tries, the last
  failure, and a random number.

A lone guest meets a service that is away for some seconds, and then acknowledges
every request. A request that was sent before that is lost.
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
    Random = Callable[[int], Floats]  # that many numbers from [0, 1)

HORIZON = 5  # ideals; a guest that is not acknowledged by then is lost
LONGEST = 60  # seconds; the longest that the service is away from a lone guest
MOST_BOOTS = 0.9  # the share of boots that lateness() covers


class Failure(NamedTuple):
    """How a request fails: the seconds it takes, and those the service asks for."""

    takes: float = 0.0
    after: float = 0.0  # Retry-After


TOO_MANY = Failure()  # 429 or 503
TOO_MANY_AFTER = Failure(after=30.0)
SILENCE = Failure(takes=EXCHANGE_SECONDS)  # connected, but no reply
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
        """The second at whose start the outage begins."""
        middle = int(self.guests / self.capacity / 2)
        return middle if self.dies is None else self.dies

    @property
    def ideal(self) -> float:
        """The least seconds in which all guests could be acknowledged.

        That is guests over capacity, plus the outage. It holds if the guests come
        faster than they are served, and if the outage comes before all are served.
        """
        return self.guests / self.capacity + self.outage


class Course(NamedTuple):
    """The result of a simulation."""

    setting: Setting
    acknowledged: Sequence[float]  # moments, in order
    sent: Sequence[int]  # requests, by second
    gave_up: int  # guests

    @property
    def requests(self) -> int:
        """All requests, whether they succeeded or failed."""
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
        """The mean number of requests of a guest."""
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
        """Take the moments of the first requests, and a function that draws numbers."""
        self.next = first  # a moment; inf if there is none
        self._policy = policy
        self._random = random
        self._tries = np.zeros(len(first), np.int64)
        self._failed = np.full(len(first), math.inf)  # a moment

    def due(self, end: float) -> Integers:
        """Return the guests whose next request comes before `end`, in order of time."""
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
        while len(failed):  # again, if the next try comes in the same second
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

    The result has an entry for each second from 0 to LONGEST that the service may be
    away: the seconds after its return, or inf if the guest gives up. A service that is
    away for 0 s fails once.
    """
    guests = Guests(policy, np.zeros(boots), _random(seed))
    rows = [guests.next.copy()]
    while rows[-1].min() <= LONGEST:
        guests.fail(np.flatnonzero(guests.next <= LONGEST), failure)
        rows.append(guests.next.copy())
    # A failure does not say when the service will be back. So one series of failing
    # tries serves for every time that the service may be away.
    tries = np.array(rows)
    curve = []
    for away in range(LONGEST + 1):
        late = np.where(tries > away, tries, math.inf).min(axis=0) - away
        curve.append(float(np.sort(late)[math.ceil(MOST_BOOTS * boots) - 1]))
    return curve


def _random(seed: int) -> Random:
    # Unlike those of default_rng, its numbers never change (NEP 19).
    return np.random.RandomState(seed).random_sample
