"""Trying again: the only module that knows tenacity.

tenacity runs the loop, `backoff` computes the delays, and the clock, the random
numbers and the pause are arguments. tenacity's own stop and wait are not used: they
call time.monotonic() and random themselves, which a test could not control.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from tenacity import RetryCallState, Retrying

from . import backoff
from .errors import RefusedError, ScwSignalError, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def persist(
    operation: Callable[[], T],
    first: ScwSignalError,
    took: float,
    *,
    insist: bool,
    now: Callable[[], float],
    remaining: Callable[[], float],
    pause: Callable[[float, float], None],
    report: Callable[[ScwSignalError, int, float], None],
    chance: Callable[[], float],
) -> tuple[T, int]:
    """Call `operation` until it succeeds; return its result and the tries made.

    The first try was already made: `first` is its error, and `took` the seconds it
    took. TryAgainError leads to another try, and with `insist` RefusedError too;
    without `insist` the first delays are short, since a person waits. `now` returns
    monotonic seconds. `remaining` returns the seconds before the deadline (inf for
    none); when they do not suffice for another try, the last error is raised. Between
    two tries `report` gets the error, the number of tries and the delay, then `pause`
    gets the delay and its floor.
    """
    retried = (TryAgainError, RefusedError) if insist else (TryAgainError,)
    first_delay = backoff.START if insist else backoff.START_BY_HAND
    failures = [first]
    failed = now()
    floor = 0.0

    def attempt() -> T:
        nonlocal took
        if failures:
            raise failures.pop()
        start = now()
        try:
            return operation()
        finally:
            took = now() - start

    def wait(state: RetryCallState) -> float:
        nonlocal floor
        error, elapsed = _error(state), now() - failed
        after, overload = 0.0, False
        if isinstance(error, TryAgainError):
            after, overload = error.after, error.overload
        delay = backoff.delay(first_delay, elapsed, after, chance())
        floor = delay if overload else backoff.floor(first_delay, elapsed, after)
        fitted = backoff.fit(delay, after, remaining(), took)
        return math.inf if fitted is None else fitted

    def report_failure(state: RetryCallState) -> None:
        error = _error(state)
        if error is not None:
            report(error, state.attempt_number, state.upcoming_sleep)

    retrying = Retrying(
        retry=lambda state: isinstance(_error(state), retried),
        wait=wait,
        stop=lambda state: state.upcoming_sleep == math.inf,
        sleep=lambda seconds: pause(seconds, floor),
        before_sleep=report_failure,
        reraise=True,
    )
    result = retrying(attempt)
    return result, retrying.statistics["attempt_number"]


def _error(state: RetryCallState) -> ScwSignalError | None:
    """Return the error of the try, if it is one of this project's."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, ScwSignalError) else None
