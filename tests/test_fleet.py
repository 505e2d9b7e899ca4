"""A zone that boots at once: the simulation of tests/fleet, on a small zone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from fakes import FakeClock
from fleet import model, policies, report
from fleet.model import Course, Failure, Setting
from scw_signal import backoff
from scw_signal.agent import Patience
from scw_signal.errors import TryAgainError

if TYPE_CHECKING:
    from fleet.model import Floats, Integers, Policy

# In a smaller zone the whole simulation's figures depend on the size.
ZONE = Setting(guests=10_000, capacity=40.0)
HUNDRED = Setting(guests=100, capacity=2.0, outage=20)
FAILURES = [
    model.TOO_MANY, model.TOO_MANY_AFTER, model.SILENCE, model.REFUSED,
    model.NO_CONNECTION,
]  # fmt: skip


@pytest.fixture(scope="module")
def zone() -> Course:
    return model.simulate(ZONE, policies.ours)


@pytest.fixture(
    scope="module", params=[name for name in policies.POLICIES if name != "scw-signald"]
)
def other(request: pytest.FixtureRequest) -> Course:
    return model.simulate(HUNDRED, policies.POLICIES[request.param])


# The promises.


def test_all_are_acknowledged_within_1_2_times_the_ideal(zone: Course) -> None:
    assert zone.lost == 0
    assert zone.multiple(1) <= 1.2


def test_it_takes_at_most_ten_requests_per_guest(zone: Course) -> None:
    assert zone.a_guest <= 10


@pytest.mark.parametrize(
    "setting",
    [
        ZONE._replace(capacity=20.0),
        ZONE._replace(capacity=80.0),
        ZONE._replace(outage=0),
    ],
    ids=["half the capacity", "twice the capacity", "no outage"],
)
def test_in_other_zones_all_are_acknowledged_within_1_3_times_the_ideal(
    setting: Setting,
) -> None:
    assert model.simulate(setting, policies.ours).multiple(1) <= 1.3


@pytest.mark.parametrize("failure", [model.TOO_MANY, model.REFUSED, model.SILENCE])
def test_a_lone_guest_is_late_by_at_most_the_outage_and_2_s(
    failure: Failure,
) -> None:
    curve = model.lateness(policies.ours, failure, boots=500)
    assert len(curve) == 61
    assert all(late <= away + 2 + failure.takes for away, late in enumerate(curve))


def test_lateness_is_the_time_from_the_return_to_the_next_try() -> None:
    curve = model.lateness(policies.loop, model.TOO_MANY, boots=10)
    assert curve[:7] == [5, 4, 3, 2, 1, 5, 4]


def test_full_jitter_takes_more_than_three_times_the_requests(zone: Course) -> None:
    course = model.simulate(ZONE, policies.full_jitter)
    assert course.a_guest > 3 * zone.a_guest


def test_most_guests_that_try_ten_times_are_lost_in_an_outage() -> None:
    course = model.simulate(ZONE, policies.ten)
    assert course.gave_up == course.lost > ZONE.guests / 2


# Whether the simulation can be trusted.


@pytest.mark.parametrize("shed", FAILURES)
def test_every_guest_is_acknowledged_or_lost_and_every_request_counted(
    shed: Failure,
) -> None:
    asked = 0

    def counted(
        elapsed: Floats, tries: Integers, failure: Failure, chance: Floats
    ) -> Floats:
        nonlocal asked
        asked += len(tries)
        return policies.ours(elapsed, tries, failure, chance)

    course = model.simulate(HUNDRED._replace(shed=shed), counted)
    assert len(course.acknowledged) + course.lost == 100
    assert course.requests == asked + len(course.acknowledged)


def test_requests_are_counted_whatever_the_policy(other: Course) -> None:
    assert len(other.acknowledged) + other.lost == 100
    assert other.requests >= 100
    assert other.gave_up <= other.lost


def test_no_second_has_more_acknowledgements_than_the_capacity(zone: Course) -> None:
    seconds = [int(moment) for moment in zone.acknowledged]
    assert max(seconds.count(second) for second in set(seconds)) == ZONE.capacity


def test_nobody_is_acknowledged_in_the_outage(zone: Course) -> None:
    begins = ZONE.begins
    assert not any(
        begins <= moment < begins + ZONE.outage for moment in zone.acknowledged
    )
    assert 0 < zone.unanswered < zone.requests


@pytest.mark.parametrize("name", policies.POLICIES)
def test_nobody_beats_the_ideal(name: str) -> None:
    # One second's capacity may come at its very beginning.
    course = model.simulate(HUNDRED, policies.POLICIES[name])
    assert course.until(1) > HUNDRED.ideal - 1


def test_the_ideal_is_guests_over_capacity_and_the_outage() -> None:
    assert Setting(guests=1000, capacity=10.0, outage=7).ideal == 107


def test_shedding_costs_the_service_some_of_its_capacity() -> None:
    cheap, dear = (
        model.simulate(HUNDRED._replace(cost=cost), policies.exponential)
        for cost in (0.0, 0.2)
    )
    assert dear.until(0.5) > cheap.until(0.5)


def test_the_same_seed_gives_the_same_course_and_another_does_not() -> None:
    one, same, other = (
        model.simulate(HUNDRED._replace(seed=seed), policies.ours) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.acknowledged != other.acknowledged


@pytest.mark.parametrize("constant", ["START", "CAP", "LEAST_SHARE"])
def test_the_delays_are_those_of_the_project(
    monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    setting = HUNDRED._replace(dies=0, outage=200)
    before = model.simulate(setting, policies.ours)
    monkeypatch.setattr(backoff, constant, getattr(backoff, constant) * 1.25)
    assert model.simulate(setting, policies.ours) != before


def test_a_simulated_guest_waits_as_the_agent_does() -> None:
    """The agent's own loop and the policy both get every failure in turn."""
    failures = [model.REFUSED, *FAILURES, *FAILURES]
    chance, clock, start = 0.3, FakeClock(), 1000.0
    guest = model.Guests(
        policies.ours, np.zeros(1), lambda guests: np.full(guests, chance)
    )
    simulated = [0.0]
    for failure in failures:
        guest.fail(np.array([0]), failure)
        simulated.append(float(guest.next[0]))
    left, tries = list(failures), []

    def operation() -> None:
        tries.append(clock.now - start)
        if left:
            failure = left.pop(0)
            if failure.takes:
                clock.wait(failure.takes)
            raise TryAgainError("no", after=failure.after)

    def pause(delay: float) -> None:
        clock.wait(delay)

    Patience(
        clock,
        float("inf"),
        lambda delay, _: pause(delay),
        lambda *_: None,
        insist=True,
        chance=lambda: chance,
    ).run(operation)
    assert tries == pytest.approx(simulated)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (policies.full_jitter, [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15, 15]),
        (policies.loop, [5] * 10),
        (policies.linear, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (policies.ten, [1, 2, 4, 5, 5, 5, 5, 5, 5, math.inf]),
        (policies.exponential, [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15, 15]),
    ],
)
def test_the_other_policies_wait_as_described(
    policy: Policy, delays: list[float]
) -> None:
    tries = np.arange(1, 11)
    waits = policy(np.zeros(10), tries, model.TOO_MANY, np.ones(10))
    assert waits.tolist() == delays


# What is told.


def test_the_table_tells_who_keeps_the_goals_and_who_is_lost() -> None:
    slow = model.simulate(HUNDRED._replace(shed=model.REFUSED), policies.ten)
    goals = {"ten": report.Goal(1.2, 10.0)}
    (line,) = report.zone_table({"ten": slow}, "policy", goals).splitlines()[2:]
    assert line.startswith("| ten | ")
    assert line.endswith(f"| {slow.lost} | missed |")


def test_every_column_of_times_has_its_unit(zone: Course) -> None:
    curve = model.lateness(policies.loop, model.TOO_MANY, boots=10)
    tables = (
        report.zone_table({"x": zone}, "policy", {}),
        report.lone_table({"x": curve}, "policy", {}),
    )
    heads = [cell for table in tables for cell in table.splitlines()[0].split("|")]
    timed = [cell for cell in heads if "late" in cell or "%" in cell.split(",")[0]]
    assert timed
    assert all(cell.strip().endswith(("s", "(s)")) for cell in timed)


def test_the_plot_has_a_curve_and_a_label_for_each_policy_in_both_panels(
    zone: Course,
) -> None:
    courses = dict.fromkeys(policies.POLICIES, zone)
    curve = model.lateness(policies.loop, model.TOO_MANY, boots=10)
    plot = report.plot(
        courses, dict.fromkeys(policies.POLICIES, curve), report.Goal(1.2, 10.0)
    )
    words = [text.text or "" for text in ET.fromstring(plot).iter()]  # noqa: S314 - our own
    for name in courses:
        assert any(word.startswith(name) for word in words)
