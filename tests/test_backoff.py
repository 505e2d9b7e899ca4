"""Back-off: how long to wait before the next try, in seconds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import backoff

unhurried = settings(deadline=None)  # the machine may have other things to do
STARTS = st.sampled_from([backoff.START, backoff.START_BY_HAND])
ELAPSED = st.floats(0, 100) | st.floats(0, 1e9)
CHANCE = st.floats(0, 1, exclude_max=True)
AFTER = st.just(0.0) | st.floats(0, 200) | st.floats(0, 1e9)
REMAINING = st.floats(0, 200) | st.just(math.inf)
TOOK = st.floats(0, 2) | st.floats(0, 100)
DAY = 86_400.0


def test_the_ceiling_is_what_has_passed_and_the_first_delay_up_to_a_minute() -> None:
    ceilings = [backoff.ceiling(2.0, elapsed) for elapsed in (0, 1, 10, 58, 59, 3599)]
    assert ceilings == [2, 3, 12, 60, 60, 60]


def test_after_an_hour_the_ceiling_is_five_minutes() -> None:
    assert backoff.ceiling(2.0, 3600.0) == backoff.ceiling(2.0, 1e9) == 300


def test_a_person_waits_a_quarter_of_a_second_at_first() -> None:
    assert backoff.ceiling(backoff.START_BY_HAND, 0.0) == 0.25


@unhurried
@given(STARTS, ELAPSED, CHANCE)
def test_chance_shortens_a_delay_by_a_third_at_most(
    start: float, elapsed: float, chance: float
) -> None:
    ceiling = backoff.ceiling(start, elapsed)
    delay = backoff.delay(start, elapsed, 0.0, chance)
    assert ceiling * 2 / 3 - 1e-9 <= delay <= ceiling
    assert delay == pytest.approx(ceiling * (2 + chance) / 3)


@unhurried
@given(STARTS, ELAPSED, AFTER, CHANCE)
def test_the_delay_obeys_retry_after_up_to_a_minute_and_adds_jitter(
    start: float, elapsed: float, after: float, chance: float
) -> None:
    delay = backoff.delay(start, elapsed, after, chance)
    assert delay == min(after, 60) + backoff.delay(start, elapsed, 0.0, chance)


# What the numbers are for.


def late(away: float, chance: random.Random) -> float:
    """Return how late a lone guest signals after an outage of `away` seconds."""
    now = 0.0
    while now <= away:
        now += backoff.delay(backoff.START, now, 0.0, chance.random())
    return now - away


@pytest.mark.parametrize("away", range(61))
def test_a_lone_guest_is_late_by_at_most_the_outage_and_2_s(
    away: int,
) -> None:
    chance = random.Random(away)  # noqa: S311 - no secret
    assert max(late(away, chance) for _ in range(1000)) <= away + 2


def test_a_hundred_days_of_failure_make_fewer_than_60_000_tries() -> None:
    now, tries = 0.0, 1
    while now < 100 * DAY:
        now += backoff.delay(backoff.START, now, 0.0, 0.0)
        tries += 1
    assert tries < 60_000


@unhurried
@given(ELAPSED, AFTER)
def test_a_change_of_the_network_does_not_cut_into_retry_after(
    elapsed: float, after: float
) -> None:
    asked, ceiling = min(after, 60), backoff.ceiling(2.0, elapsed)
    assert asked < backoff.floor(2.0, elapsed, after) < asked + ceiling


@unhurried
@given(STARTS, ELAPSED)
def test_under_constant_change_the_pace_slows_down_as_the_back_off_does(
    start: float, elapsed: float
) -> None:
    pace = backoff.floor(start, elapsed, 0.0)
    assert pace == backoff.ceiling(start, elapsed) / 8
    assert pace <= backoff.floor(start, elapsed + 1.0, 0.0)


@unhurried
@given(st.floats(0, 100), AFTER, REMAINING, TOOK)
def test_a_fitted_delay_leaves_what_the_last_try_took_up_to_a_second(
    wait: float, after: float, remaining: float, took: float
) -> None:
    fitted = backoff.fit(wait, after, remaining, took)
    if fitted is not None:
        assert 0 <= fitted <= wait
        assert fitted <= remaining - min(max(took, 0.05), 1)


@unhurried
@given(ELAPSED, AFTER, CHANCE, REMAINING, TOOK)
def test_a_fitted_delay_is_never_shorter_than_what_the_service_asked_for(
    elapsed: float, after: float, chance: float, remaining: float, took: float
) -> None:
    delay = backoff.delay(2.0, elapsed, after, chance)
    fitted = backoff.fit(delay, after, remaining, took)
    if fitted is None:
        kept = min(max(took, 0.05), 1)
        assert remaining - kept < min(after, 60) or remaining <= kept
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
    assert backoff.fit(wait, after, remaining, took=1.0) == fitted


@pytest.mark.parametrize(
    ("took", "fitted"), [(0.0, 2.95), (0.05, 2.95), (0.4, 2.6), (1.0, 2.0), (9.0, 2.0)]
)
def test_at_most_the_time_that_the_last_try_took_is_kept_back(
    took: float, fitted: float
) -> None:
    assert backoff.fit(9.0, 0.0, 3.0, took) == pytest.approx(fitted)


def test_reports_come_after_a_minute_then_ever_fewer_down_to_one_an_hour() -> None:
    assert [backoff.report_interval(reports) for reports in range(1, 9)] == [
        60, 120, 240, 480, 960, 1920, 3600, 3600,
    ]  # fmt: skip


@unhurried
@given(st.integers(1, 200) | st.integers(1, 10**18))
def test_however_many_reports_there_were_the_next_comes_within_an_hour(
    reports: int,
) -> None:
    assert 60 <= backoff.report_interval(reports) <= 3600
