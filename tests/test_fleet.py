"""A zone that boots at once: the simulation of tests/fleet, on a small zone."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from fakes import FakeClock
from fleet import model, policies, report
from fleet.model import Course, Failure, Setting
from scw_signal import backoff
from scw_signal.agent import Patience
from scw_signal.errors import TryAgainError

if TYPE_CHECKING:
    from fleet.model import Policy

# The whole simulation's figures vary with the size of the zone below this.
ZONE = Setting(guests=10_000, capacity=40.0)
HUNDRED = Setting(guests=100, capacity=2.0, outage=20.0)
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


# What is promised.


def test_all_are_acknowledged_within_one_and_a_half_times_the_ideal(
    zone: Course,
) -> None:
    assert zone.lost == 0
    assert zone.multiple(1) <= 1.5


def test_it_takes_no_more_than_three_requests_a_guest(zone: Course) -> None:
    assert zone.a_guest <= 3.05  # a small zone is a little less even


def test_the_policy_of_before_takes_ten_times_the_requests(zone: Course) -> None:
    course = model.simulate(ZONE, policies.before)
    assert course.a_guest > 10 * zone.a_guest


def test_who_tries_ten_times_is_lost_in_an_outage() -> None:
    course = model.simulate(ZONE, policies.ten)
    assert course.gave_up == course.lost > ZONE.guests / 2


# What the simulation is worth.


@pytest.mark.parametrize("shed", FAILURES)
def test_every_guest_is_acknowledged_or_lost_and_every_request_counted(
    shed: Failure,
) -> None:
    asked = 0

    def counted(tries: int, over: int, failure: Failure, chance: float) -> float:
        nonlocal asked
        asked += 1
        return policies.ours(tries, over, failure, chance)

    course = model.simulate(HUNDRED._replace(shed=shed), counted)
    assert len(course.acknowledged) + course.lost == 100
    assert course.requests == asked + len(course.acknowledged)


def test_requests_are_counted_whatever_the_policy(other: Course) -> None:
    assert len(other.acknowledged) + other.lost == 100
    assert other.requests >= 100
    assert other.gave_up <= other.lost


def test_in_no_second_is_more_acknowledged_than_the_capacity(zone: Course) -> None:
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
    assert Setting(guests=1000, capacity=10.0, outage=7.0).ideal == 107


def test_to_shed_costs_the_service_some_of_its_capacity() -> None:
    cheap, dear = (
        model.simulate(HUNDRED._replace(cost=cost), policies.exponential)
        for cost in (0.0, 0.2)
    )
    assert dear.until(0.5) > cheap.until(0.5)


def test_the_same_seed_gives_the_same_course_and_another_another() -> None:
    one, same, other = (
        model.simulate(HUNDRED._replace(seed=seed), policies.ours) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.acknowledged != other.acknowledged


@pytest.mark.parametrize("constant", ["BASE", "OVERLOAD_CAP", "OVERLOAD_LEAST"])
def test_the_delays_are_those_of_the_project(
    monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    setting = HUNDRED._replace(dies=0.0)
    before = model.simulate(setting, policies.ours)
    monkeypatch.setattr(backoff, constant, getattr(backoff, constant) * 1.5)
    assert model.simulate(setting, policies.ours) != before


def test_a_simulated_guest_waits_as_the_agent_does() -> None:
    """The agent's own loop gets every failure in turn, and so does the policy."""
    failures = [model.REFUSED, *FAILURES, *FAILURES]
    chance, clock = 0.3, FakeClock()
    simulated: list[float] = []
    overloaded = 0
    for tries, failure in enumerate(failures, 1):
        overloaded = backoff.overloads(overloaded, overload=failure.overload)
        simulated.append(policies.ours(tries, overloaded, failure, chance))
    left = list(failures)

    def operation() -> None:
        if left:
            failure = left.pop(0)
            raise TryAgainError("no", after=failure.after, overload=failure.overload)

    waited: list[float] = []
    Patience(
        clock,
        float("inf"),
        lambda delay, _: waited.append(delay),
        lambda *_: None,
        insist=True,
        chance=lambda: chance,
    ).run(operation)
    assert waited == simulated


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (policies.before, [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15, 15]),
        (policies.loop, [5] * 10),
        (policies.linear, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (policies.ten, [1, 2, 4, 5, 5, 5, 5, 5, 5, None]),
        (policies.exponential, [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15, 15]),
    ],
)
def test_the_others_wait_as_they_are_said_to(
    policy: Policy, delays: list[float | None]
) -> None:
    waits = [policy(tries, tries, model.TOO_MANY, 1.0) for tries in range(1, 11)]
    assert waits == delays


# What is told.


def test_the_table_tells_who_keeps_the_goals_and_who_is_lost() -> None:
    slow = model.simulate(HUNDRED._replace(shed=model.REFUSED), policies.ten)
    (line,) = report.table({"ten": slow}, "policy").splitlines()[2:]
    assert line.startswith("| ten | ")
    assert line.endswith(f"| {slow.lost}% | missed |")


def test_the_plot_has_a_curve_and_a_label_for_each_policy(zone: Course) -> None:
    courses = dict.fromkeys(policies.POLICIES, zone)
    words = [text.text or "" for text in ET.fromstring(report.plot(courses)).iter()]  # noqa: S314 - our own
    for name in courses:
        assert any(word.startswith(f"{name}: ") for word in words)
