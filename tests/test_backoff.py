"""Back-off: how long to wait before the next try, in seconds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import backoff

unhurried = settings(deadline=None)  # the machine may have other things to do
TRIES = st.integers(1, 200) | st.integers(1, 10**18)
CHANCE = st.floats(0, 1, exclude_max=True)
AFTER = st.just(0.0) | st.floats(0, 200) | st.floats(0, 1e9)
REMAINING = st.floats(0, 200) | st.just(math.inf)


def test_the_ceilings_are_a_quarter_of_a_second_doubling_to_fifteen() -> None:
    assert [backoff.ceiling(tries) for tries in range(1, 10)] == [
        0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0,
    ]  # fmt: skip


@unhurried
@given(TRIES)
def test_the_ceiling_never_falls_and_never_exceeds_fifteen_seconds(tries: int) -> None:
    assert 0.25 <= backoff.ceiling(tries) <= backoff.ceiling(tries + 1) <= 15


@unhurried
@given(TRIES, CHANCE)
def test_without_retry_after_the_delay_lies_anywhere_below_the_ceiling(
    tries: int, chance: float
) -> None:
    delay = backoff.delay(tries, 0, 0.0, chance)
    assert 0 <= delay <= backoff.ceiling(tries)
    assert delay == pytest.approx(chance * backoff.ceiling(tries))


@unhurried
@given(TRIES, AFTER, CHANCE)
def test_the_delay_obeys_retry_after_up_to_a_minute_and_adds_jitter(
    tries: int, after: float, chance: float
) -> None:
    for overloads in range(4):
        delay = backoff.delay(tries, overloads, after, chance)
        assert delay == min(after, 60) + backoff.delay(tries, overloads, 0.0, chance)


@unhurried
@given(TRIES, CHANCE)
def test_after_one_overload_the_delay_lies_anywhere_within_three_minutes(
    tries: int, chance: float
) -> None:
    delay = backoff.delay(tries, 1, 0.0, chance)
    assert 0 <= delay < 180
    assert delay == pytest.approx(180 * chance**4)


def test_after_one_overload_half_of_the_guests_are_back_within_twelve_seconds() -> None:
    assert backoff.delay(1, 1, 0.0, 0.5) <= 12


@unhurried
@given(TRIES, st.integers(2, 10**18), CHANCE)
def test_once_an_overload_was_no_hiccup_the_delay_is_one_to_three_minutes(
    tries: int, overloads: int, chance: float
) -> None:
    delay = backoff.delay(tries, overloads, 0.0, chance)
    assert delay == pytest.approx(60 + 120 * chance)


@unhurried
@given(TRIES, AFTER)
def test_a_change_of_the_network_does_not_cut_into_retry_after(
    tries: int, after: float
) -> None:
    asked = min(after, 60)
    assert asked < backoff.floor(tries, after) < asked + backoff.ceiling(tries)


@unhurried
@given(TRIES)
def test_under_constant_change_the_pace_slows_down_as_the_back_off_does(
    tries: int,
) -> None:
    assert backoff.floor(tries, 0.0) <= backoff.floor(tries + 1, 0.0) <= 15 / 8


@unhurried
@given(CHANCE)
def test_after_a_refusal_the_pace_is_slow_and_even(chance: float) -> None:
    assert 7.5 <= backoff.refused(chance) <= 15


@unhurried
@given(st.floats(0, 100), AFTER, REMAINING)
def test_a_fitted_delay_leaves_a_second_before_the_deadline(
    wait: float, after: float, remaining: float
) -> None:
    fitted = backoff.fit(wait, after, remaining)
    if fitted is not None:
        assert 0 <= fitted <= wait
        assert fitted <= remaining - 1


@unhurried
@given(TRIES, st.integers(0, 3), AFTER, CHANCE, REMAINING)
def test_a_fitted_delay_is_never_shorter_than_what_the_service_asked_for(
    tries: int, overloads: int, after: float, chance: float, remaining: float
) -> None:
    delay = backoff.delay(tries, overloads, after, chance)
    fitted = backoff.fit(delay, after, remaining)
    if fitted is None:
        assert remaining - 1 < min(after, 60) or remaining <= 1
    else:
        assert fitted >= min(after, 60)


@pytest.mark.parametrize(
    ("wait", "after", "remaining", "fitted"),
    [
        pytest.param(2.0, 0.0, math.inf, 2.0, id="no deadline"),
        pytest.param(2.0, 0.0, 3.0, 2.0, id="fits just"),
        pytest.param(9.0, 0.0, 3.0, 2.0, id="shortened for one last try"),
        pytest.param(9.0, 2.0, 3.0, 2.0, id="shortened to what was asked for"),
        pytest.param(9.0, 2.1, 3.0, None, id="asked for more than is left"),
        pytest.param(99.0, 99.0, 61.0, 60.0, id="asked for more than is obeyed"),
        pytest.param(0.0, 0.0, 1.1, 0.0, id="time for one last try"),
        pytest.param(0.0, 0.0, 1.0, None, id="the last try was made"),
        pytest.param(0.0, 0.0, 0.9, None, id="no time for one more"),
        pytest.param(0.0, 0.0, -5.0, None, id="past the deadline"),
    ],
)
def test_a_delay_is_fitted_into_what_remains(
    wait: float, after: float, remaining: float, fitted: float | None
) -> None:
    assert backoff.fit(wait, after, remaining) == fitted


def test_reports_come_after_a_minute_then_ever_fewer_down_to_one_an_hour() -> None:
    assert [backoff.report_interval(reports) for reports in range(1, 9)] == [
        60, 120, 240, 480, 960, 1920, 3600, 3600,
    ]  # fmt: skip


@unhurried
@given(TRIES)
def test_however_many_reports_there_were_the_next_comes_within_an_hour(
    reports: int,
) -> None:
    assert 60 <= backoff.report_interval(reports) <= 3600
