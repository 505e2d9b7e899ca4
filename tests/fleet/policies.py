"""The policies that are compared: ours, as the agent has it, and the others.

The others imitate what other programs do: none of them tells one failure from
another, and only full_jitter reads Retry-After.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scw_signal import backoff

if TYPE_CHECKING:
    from fleet.model import Failure, Floats, Integers, Policy


def ours(elapsed: Floats, _tries: Integers, failure: Failure, chance: Floats) -> Floats:
    """Wait as scw-signald does: see retrying.persist."""
    delay, after = backoff.delay, failure.after
    # One by one, since the agent's own function does not take arrays.
    delays = [
        delay(backoff.START, seconds, after, drawn)
        for seconds, drawn in zip(elapsed.tolist(), chance.tolist(), strict=True)
    ]
    return np.array(delays)


class Varied(NamedTuple):
    """Ours in the first hour, with other numbers."""

    cap: float  # seconds
    least_share: float

    def __call__(
        self, elapsed: Floats, _tries: Integers, failure: Failure, chance: Floats, /
    ) -> Floats:
        """Wait as ours with these numbers."""
        share = self.least_share + (1 - self.least_share) * chance
        ceiling = np.minimum(backoff.START + elapsed, self.cap)
        return min(failure.after, backoff.RETRY_AFTER_CAP) + ceiling * share


def full_jitter(
    elapsed: Floats, tries: Integers, failure: Failure, chance: Floats
) -> Floats:
    """Wait for a random share of what exponential waits for."""
    ceiling = exponential(elapsed, tries, failure, chance)
    return min(failure.after, 60.0) + ceiling * chance


def loop(
    _elapsed: Floats, tries: Integers, _failure: Failure, _chance: Floats
) -> Floats:
    """Wait for 5 s, as the loop in the field does."""
    return np.full(len(tries), 5.0)


def linear(
    _elapsed: Floats, tries: Integers, _failure: Failure, _chance: Floats
) -> Floats:
    """Wait a second longer each time, without bound."""
    return tries.astype(np.float64)


def ten(
    _elapsed: Floats, tries: Integers, _failure: Failure, _chance: Floats
) -> Floats:
    """Try ten times, 1 s doubling to 5 s, then give up."""
    delays = np.minimum(5.0, 2.0 ** (tries - 1))
    return np.where(tries < 10, delays, math.inf)


def exponential(
    _elapsed: Floats, tries: Integers, _failure: Failure, _chance: Floats
) -> Floats:
    """Wait 0.25 s doubling to 15 s, without jitter."""
    return np.minimum(15.0, 0.25 * 2.0 ** np.minimum(tries - 1, 32))


OURS = "scw-signald"
POLICIES: dict[str, Policy] = {
    OURS: ours,
    "full jitter, 0.25 s to 15 s": full_jitter,
    "5 s loop": loop,
    "linear back-off": linear,
    "10 tries, 1 s to 5 s": ten,
    "exponential, no jitter": exponential,
}
