"""Trying again: when, how often, and when to stop."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from scw_signal.errors import (
    BrokenOffError,
    GaveUpError,
    NonsenseError,
    OtherStateError,
    RefusedError,
    ScwSignalError,
    TryAgainError,
    UnavailableError,
    UnreachableError,
)
from scw_signal.retrying import persist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DONE = "done"
REFUSED = RefusedError("403")


class Report(NamedTuple):
    """What is reported of a failed try."""

    error: ScwSignalError
    tries: int
    delay: float


class Course:
    """Runs `persist` over outcomes in turn, and records what it does and when.

    The first outcome is that of a try that was made before. When the outcomes are used
    up, every try ends like the last.
    """

    def __init__(
        self,
        *outcomes: BaseException | str,
        seconds: float = math.inf,
        insist: bool = False,
        chance: Callable[[], float] = lambda: 0.5,
        takes: float = 0.001,
        cut: Callable[[float, float], float] = lambda delay, _floor: delay,
    ) -> None:
        """Take the seconds in all and for each try; `cut` may shorten a pause."""
        self.clock = FakeClock()
        self.start = self.clock.now
        self.seconds = seconds
        self.tries = [0.0]  # moments
        self.pauses: list[tuple[float, float]] = []  # delay and floor
        self.reports: list[Report] = []
        self._outcomes: Sequence[BaseException | str] = outcomes
        self._insist = insist
        self._chance = chance
        self._takes = takes
        self._cut = cut

    def elapsed(self) -> float:
        return self.clock.now - self.start

    def run(self) -> tuple[str, int]:
        first = self._outcomes[0]
        assert isinstance(first, ScwSignalError)
        self.clock.wait(self._takes)
        return persist(
            self._operation,
            first,
            self._takes,
            insist=self._insist,
            now=self.clock.monotonic,
            remaining=lambda: self.seconds - self.elapsed(),
            pause=self._pause,
            report=lambda *report: self.reports.append(Report(*report)),
            chance=self._chance,
        )

    def _operation(self) -> str:
        outcome = self._outcomes[min(len(self.tries), len(self._outcomes) - 1)]
        self.tries.append(self.elapsed())
        self.clock.wait(self._takes)
        if isinstance(outcome, str):
            return outcome
        raise outcome

    def _pause(self, delay: float, floor: float) -> None:
        self.pauses.append((delay, floor))
        self.clock.wait(self._cut(delay, floor))


def lost() -> TryAgainError:
    return UnreachableError("no route")


def asked_to_wait(seconds: float) -> TryAgainError:
    return UnavailableError("429", after=seconds)


def overload(seconds: float = 0.0) -> TryAgainError:
    return UnavailableError("429", after=seconds, overload=True)


# What comes out.


def test_the_result_comes_with_the_number_of_tries_counting_the_first() -> None:
    assert Course(lost(), DONE).run() == (DONE, 2)
    assert Course(lost(), lost(), lost(), DONE).run() == (DONE, 4)


def test_the_try_that_was_made_before_is_not_repeated() -> None:
    course = Course(lost(), DONE)
    course.run()
    assert len(course.tries) == 2
    assert [report.tries for report in course.reports] == [1]


@pytest.mark.parametrize(
    "kind",
    [
        UnreachableError,
        BrokenOffError,
        UnavailableError,
        OtherStateError,
        NonsenseError,
    ],
)
@pytest.mark.parametrize("insist", [False, True])
def test_a_failure_that_may_pass_is_tried_again(
    kind: type[TryAgainError], *, insist: bool
) -> None:
    assert Course(kind("no"), kind("no"), DONE, insist=insist).run() == (DONE, 3)


def test_a_refusal_ends_the_tries_of_a_command() -> None:
    course = Course(lost(), REFUSED, DONE)
    with pytest.raises(RefusedError) as caught:
        course.run()
    assert caught.value is REFUSED
    assert len(course.tries) == 2


def test_a_refusal_of_the_first_try_ends_the_tries_of_a_command() -> None:
    with pytest.raises(RefusedError):
        Course(REFUSED, DONE).run()


def test_a_refusal_does_not_end_the_tries_of_the_agent() -> None:
    assert Course(REFUSED, REFUSED, DONE, insist=True).run() == (DONE, 3)


@pytest.mark.parametrize(
    "error",
    [
        GaveUpError("not to be tried again"),
        ValueError("a mistake"),
        KeyboardInterrupt(),
        SystemExit(1),
        type("Stopped", (BaseException,), {})("SIGTERM"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_everything_else_passes_through_as_it_is(error: BaseException) -> None:
    course = Course(lost(), error, DONE, insist=True)
    with pytest.raises(type(error)) as caught:
        course.run()
    assert caught.value is error
    assert len(course.tries) == 2


def test_an_exception_in_a_pause_passes_through() -> None:
    class Stopped(BaseException):
        pass

    def stop(_delay: float, _floor: float) -> float:
        raise Stopped

    course = Course(lost(), DONE, cut=stop)
    with pytest.raises(Stopped):
        course.run()
    assert len(course.tries) == 1


# How long it waits.


def test_a_commands_delay_is_at_most_the_time_failed_and_a_quarter_second() -> None:
    course = Course(*[lost()] * 6, DONE, chance=lambda: 1.0, takes=0.0)
    course.run()
    assert [delay for delay, _ in course.pauses] == [0.25, 0.5, 1, 2, 4, 8]


def test_the_agent_begins_with_two_seconds() -> None:
    course = Course(*[lost()] * 6, DONE, insist=True, chance=lambda: 1.0, takes=0.0)
    course.run()
    assert [delay for delay, _ in course.pauses] == [2, 4, 8, 16, 32, 60]


def test_how_long_it_has_failed_counts_from_the_first_failure_on() -> None:
    course = Course(*[lost()] * 3, DONE, chance=lambda: 1.0, takes=10.0)
    course.run()
    assert [delay for delay, _ in course.pauses] == [0.25, 10.5, 31.0]


def test_each_delay_is_drawn_anew_from_the_upper_third_of_its_ceiling() -> None:
    chances = iter([0.0, 0.5, 0.25])
    course = Course(*[lost()] * 3, DONE, chance=lambda: next(chances), takes=0.0)
    course.run()
    delays = [delay for delay, _ in course.pauses]
    assert delays[0] == pytest.approx(0.25 * 2 / 3)
    assert delays[1] == pytest.approx((0.25 + delays[0]) * 5 / 6)
    assert delays[2] == pytest.approx((0.25 + delays[0] + delays[1]) * 3 / 4)


def test_a_change_of_the_network_may_cut_a_delay_to_an_eighth_of_its_ceiling() -> None:
    course = Course(*[lost()] * 8, DONE, chance=lambda: 1.0)
    course.run()
    assert [delay / floor for delay, floor in course.pauses] == [8.0] * 8


def test_what_the_service_asks_for_is_waited_for_and_jitter_comes_on_top() -> None:
    course = Course(asked_to_wait(7), DONE, chance=lambda: 1.0)
    course.run()
    assert course.pauses == [(7.25, 7.03125)]


def test_a_request_to_wait_counts_for_at_most_a_minute() -> None:
    course = Course(asked_to_wait(3600), DONE, chance=lambda: 1.0)
    course.run()
    assert course.pauses == [(60.25, 60.03125)]


def test_what_the_service_asked_for_once_does_not_hold_for_the_next_failure() -> None:
    course = Course(asked_to_wait(30), lost(), DONE, chance=lambda: 1.0, takes=0.0)
    course.run()
    assert course.pauses[1] == (30.5, 30.5 / 8)


@pytest.mark.parametrize("error", [REFUSED, lost(), overload()], ids=str)
def test_the_agent_waits_equally_long_after_every_failure(
    error: ScwSignalError,
) -> None:
    course = Course(error, error, error, DONE, insist=True, chance=lambda: 1.0)
    course.run()
    assert [round(delay, 1) for delay, _ in course.pauses] == [2, 4, 8]


def test_no_change_of_the_network_cuts_the_delay_after_an_overload() -> None:
    course = Course(overload(), overload(7), DONE, insist=True)
    course.run()
    assert all(delay == floor for delay, floor in course.pauses)


@pytest.mark.parametrize("error", [lost(), REFUSED], ids=str)
def test_after_an_overload_a_change_may_cut_the_delay_of_another_failure(
    error: ScwSignalError,
) -> None:
    course = Course(overload(), error, DONE, insist=True)
    course.run()
    delay, floor = course.pauses[1]
    assert floor < delay / 4


# The deadline.


def test_without_a_deadline_it_goes_on() -> None:
    course = Course(*[lost()] * 500, DONE)
    assert course.run() == (DONE, 501)
    assert course.elapsed() > 100_000


def test_when_the_time_is_over_the_last_error_is_raised() -> None:
    last = UnavailableError("the last")
    course = Course(lost(), last, seconds=20)
    with pytest.raises(UnavailableError) as caught:
        course.run()
    assert caught.value is last


@pytest.mark.parametrize(
    ("takes", "kept"), [(0.001, 0.05), (0.05, 0.05), (0.3, 0.3), (1.0, 1.0), (4, 1.0)]
)
def test_the_last_try_has_as_long_left_as_the_one_before_took_up_to_a_second(
    takes: float, kept: float
) -> None:
    course = Course(lost(), seconds=18.5, takes=takes, chance=lambda: 0.999)
    with pytest.raises(UnreachableError):
        course.run()
    assert course.tries[-1] == pytest.approx(18.5 - kept, abs=1e-6)


def test_several_quick_tries_fit_into_a_second() -> None:
    course = Course(lost(), seconds=1.0)
    with pytest.raises(UnreachableError):
        course.run()
    assert len(course.tries) >= 4


def test_if_less_time_is_left_than_a_try_takes_there_is_no_further_one() -> None:
    course = Course(lost(), seconds=0.9, takes=0.5)
    with pytest.raises(UnreachableError):
        course.run()
    assert (course.tries, course.pauses) == ([0.0], [])


def test_the_last_try_is_the_last_though_it_took_no_time() -> None:
    # Found by test_faults.py in make soak: its clock stands still during a try.
    course = Course(overload(1.0), lost(), seconds=3.0, chance=lambda: 0.5, takes=0.0)
    with pytest.raises(UnreachableError):
        course.run()
    assert course.tries[-1] == pytest.approx(2.95)
    assert len(course.tries) <= 5


def test_when_the_service_asks_for_more_than_is_left_it_ends_at_once() -> None:
    course = Course(asked_to_wait(25), seconds=20)
    with pytest.raises(UnavailableError):
        course.run()
    assert (course.tries, course.pauses) == ([0.0], [])


def test_the_time_that_tries_take_counts() -> None:
    course = Course(lost(), seconds=20, takes=6.0, chance=lambda: 0.0)
    with pytest.raises(UnreachableError):
        course.run()
    assert len(course.tries) == 3
    assert course.tries[1] == pytest.approx(6 + 0.25 * 2 / 3)
    assert course.tries[2] == pytest.approx(
        12 + 0.25 * 2 / 3 + (6.25 + 0.25 * 2 / 3) * 2 / 3
    )


# What is reported.


def test_each_failure_is_reported_with_its_number_and_delay_before_the_pause() -> None:
    first, second = lost(), asked_to_wait(7)
    course = Course(first, second, DONE, chance=lambda: 1.0, takes=0.0)
    course.run()
    assert course.reports == [(first, 1, 0.25), (second, 2, 7.5)]
    assert [delay for delay, _ in course.pauses] == [0.25, 7.5]


def test_the_reported_delay_is_the_one_fitted_to_the_deadline() -> None:
    course = Course(*[lost()] * 9, seconds=4, chance=lambda: 1.0)
    with pytest.raises(UnreachableError):
        course.run()
    assert [report.delay for report in course.reports] == [
        delay for delay, _ in course.pauses
    ]
    assert course.reports[-1].delay == pytest.approx(3.95 - 3.766, abs=0.001)


def test_the_error_that_ends_it_is_not_reported() -> None:
    """It is raised, so the caller has it."""
    course = Course(lost(), REFUSED)
    with pytest.raises(RefusedError):
        course.run()
    assert [report.tries for report in course.reports] == [1]


# Whatever happens.

FAILURES = st.one_of(
    st.just(0.0).map(asked_to_wait),
    st.floats(0, 200).map(asked_to_wait),
    st.floats(0, 200).map(overload),
    st.just(REFUSED),
)


@settings(deadline=None)
@given(
    failures=st.lists(FAILURES, min_size=1, max_size=30),
    seconds=st.floats(0, 300) | st.just(math.inf),
    takes=st.floats(0.001, 10),
    chance=st.floats(0, 1, exclude_max=True),
    share=st.floats(0, 1),
)
def test_no_try_comes_too_soon_nor_after_the_deadline_whatever_happens(
    failures: list[ScwSignalError],
    seconds: float,
    takes: float,
    chance: float,
    share: float,
) -> None:
    """A change cuts each pause at `share` of the way from its floor to its end."""
    course = Course(
        *failures,
        DONE,
        seconds=seconds,
        insist=True,
        chance=lambda: chance,
        takes=takes,
        cut=lambda delay, floor: (
            min(floor, delay) + share * (delay - min(floor, delay))
        ),
    )
    with contextlib.suppress(TryAgainError, RefusedError):
        course.run()
        assert len(course.tries) == len(failures) + 1
    kept = min(max(takes, 0.05), 1)
    assert course.tries[-1] <= max(0, seconds - kept) + 1e-6
    for number, error in enumerate(failures[: len(course.tries) - 1]):
        before, after = course.tries[number : number + 2]
        pause = after - before - takes
        least, most = policy(error, before)
        if after < seconds - kept - 1e-6:  # else it is the last try, which comes early
            assert pause >= least - 1e-6
        assert pause <= most + 1e-6


def policy(error: ScwSignalError, elapsed: float) -> tuple[float, float]:
    """Return the bounds of the pause after a failure, calculated independently."""
    ceiling = min(60.0, 2.0 + elapsed)
    if isinstance(error, RefusedError):
        return ceiling / 8, ceiling
    assert isinstance(error, TryAgainError)
    asked = min(error.after, 60.0)
    least = ceiling * 2 / 3 if error.overload else ceiling / 8
    return asked + least, asked + ceiling
