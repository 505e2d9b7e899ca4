"""Trying again: the only module that knows tenacity.

tenacity runs the loop; how long to wait is `backoff`'s arithmetic, and clock,
chance and the pause itself come from outside. tenacity's own stop and wait
read time.monotonic() and random themselves, which no test could hold still.
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

    `first` is what the first try, already made, failed with, and `took` the seconds
    that it took. What raises TryAgainError is tried again, and RefusedError too if
    `insist`; without it, the first delays are short, for somebody waits. `now` gives
    monotonic seconds. `remaining` gives the seconds before the deadline (inf for
    none): with none left to wait in, the last error is raised. Between two tries
    `report` gets the error, the number of tries and the delay, then `pause` the delay
    and its floor.
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
    """Return what the try failed with; None is success, or no error of ours."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, ScwSignalError) else None
