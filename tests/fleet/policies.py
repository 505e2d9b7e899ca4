"""The policies that are compared: ours, as the agent has it, and the others.

The others are written down from what they do: none of them reads Retry-After
or tells one failure from another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scw_signal import backoff

if TYPE_CHECKING:
    from fleet.model import Failure, Policy


def ours(tries: int, overloaded: int, failure: Failure, chance: float) -> float:
    """Wait as scw-signald does: see retrying.persist."""
    return backoff.delay(tries, overloaded, failure.after, chance)


def quick_second(tries: int, overloaded: int, failure: Failure, chance: float) -> float:
    """Wait as ours, but after a first overload for two seconds at most."""
    if overloaded == 1:
        return failure.after + 2.0 * chance
    return ours(tries, overloaded, failure, chance)


def before(tries: int, _: int, failure: Failure, chance: float) -> float:
    """Wait as scw-signald did before: full jitter, 0.25 s doubling to 15 s."""
    return (
        min(failure.after, 60.0) + min(15.0, 0.25 * 2.0 ** min(tries - 1, 32)) * chance
    )


def loop(_tries: int, _overloaded: int, _failure: Failure, _chance: float) -> float:
    """Wait for 5 s, as the loop in the field does."""
    return 5.0


def linear(tries: int, _overloaded: int, _failure: Failure, _chance: float) -> float:
    """Wait a second longer each time, without bound."""
    return float(tries)


def ten(
    tries: int, _overloaded: int, _failure: Failure, _chance: float
) -> float | None:
    """Try ten times, 1 s doubling to 5 s, then give up."""
    return min(5.0, 2.0 ** (tries - 1)) if tries < 10 else None


def exponential(
    tries: int, _overloaded: int, _failure: Failure, _chance: float
) -> float:
    """Wait 0.25 s doubling to 15 s, without jitter."""
    return min(15.0, 0.25 * 2.0 ** min(tries - 1, 32))


POLICIES: dict[str, Policy] = {
    "scw-signald": ours,
    "the same, second try within 2 s": quick_second,
    "scw-signald before": before,
    "5 s loop": loop,
    "linear back-off": linear,
    "10 tries, 1 s to 5 s": ten,
    "exponential, no jitter": exponential,
}
