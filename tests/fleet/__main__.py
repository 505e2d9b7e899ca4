"""`make fleet`: every policy side by side, and ours in other settings.

Prints the tables, writes them to RESULTS.md and the plot to fleet.svg beside
this file. The exit status is 1 if ours misses a goal.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fleet import model, policies, report
from fleet.model import Course, Setting
from fleet.policies import OURS
from fleet.report import Goal
from scw_signal import backoff

HERE = Path(__file__).resolve().parent
TOGETHER = "powered on within 5 s"
ZONE = Setting()
SETTINGS = {
    "half the capacity": ZONE._replace(capacity=200.0),
    "twice the capacity": ZONE._replace(capacity=800.0),
    "no outage": ZONE._replace(outage=0),
    "429 with Retry-After: 30": ZONE._replace(shed=model.TOO_MANY_AFTER),
    "30 s timeouts in place of 429": ZONE._replace(shed=model.SILENCE),
    "3 s connection timeouts in place of 429": ZONE._replace(shed=model.NO_CONNECTION),
    "connection timeouts in the outage": ZONE._replace(dead=model.NO_CONNECTION),
    "30 s timeouts in the outage": ZONE._replace(dead=model.SILENCE),
    "the outage first": ZONE._replace(dies=0),
    "an outage of an hour": ZONE._replace(outage=3600),
    "each 429 costs a tenth": ZONE._replace(cost=0.1),
    TOGETHER: ZONE._replace(power_on=5.0),
    "a quarter of the capacity": ZONE._replace(capacity=100.0),
    "a hundredth of guests and capacity": ZONE._replace(guests=1000, capacity=4.0),
    "another seed": ZONE._replace(seed=5),
}
GOAL = Goal(1.2, 10.0)
GOALS = dict.fromkeys(
    ("half the capacity", "twice the capacity", "no outage"), Goal(1.3)
)
# What was tried: the longest delay, and the least share of it.
NUMBERS = [
    policies.Varied(cap, share)
    for cap in (45.0, 60.0, 75.0, 90.0)
    for share in (1 / 2, 2 / 3, 3 / 4)
]
TRIED_IN = {"as above": ZONE} | {name: SETTINGS[name] for name in (*GOALS, TOGETHER)}
ALONE = {
    "429 or 503": model.TOO_MANY,
    "connection refused": model.REFUSED,
    "connection timeout, 3 s a try": model.NO_CONNECTION,
    "timeout, 30 s a try": model.SILENCE,
}


class Case(NamedTuple):
    """One simulation: a policy, given by its name or its numbers, in a setting."""

    policy: str | policies.Varied
    setting: Setting


def run(case: Case) -> Course:
    """Run one simulation."""
    policy = case.policy
    return model.simulate(
        case.setting, policies.POLICIES[policy] if isinstance(policy, str) else policy
    )


def main() -> int:
    """Run all simulations, on every processor."""
    cases = [Case(name, ZONE) for name in policies.POLICIES]
    cases += [Case(OURS, setting) for setting in SETTINGS.values()]
    cases += [Case(each, setting) for each in NUMBERS for setting in TRIED_IN.values()]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        courses = pool.map(run, cases)
        by_policy = {name: next(courses) for name in policies.POLICIES}
        by_setting = {name: next(courses) for name in SETTINGS}
        by_numbers = {each: [next(courses) for _ in TRIED_IN] for each in NUMBERS}
    by_failure = {
        name: model.lateness(policies.ours, failure) for name, failure in ALONE.items()
    }
    alone = {
        name: model.lateness(policy, model.TOO_MANY)
        for name, policy in policies.POLICIES.items()
    }
    tables = (
        f"## {ZONE.guests:,} guests at once\n\n"
        f"{report.zone_table(by_policy, 'policy', dict.fromkeys(by_policy, GOAL))}\n"
        f"{OURS} in other settings, which differ only as they say:\n\n"
        f"{report.zone_table(by_setting, 'setting', GOALS)}\n"
        "## A lone guest\n\n"
        f"{OURS}, by what the service does while it is away:\n\n"
        f"{report.lone_table(by_failure, 'the service', takes())}\n"
        "Every policy, while the service answers 503:\n\n"
        f"{report.lone_table(alone, 'policy', {})}\n"
        "## Other numbers\n\n"
        f"{OURS} with another longest delay, or another least share of it. When 100 %"
        " are acknowledged, in ideals, and the requests a guest:\n\n"
        f"{report.numbers_table(by_numbers, list(TRIED_IN))}"
    )
    print(tables)
    (HERE / "RESULTS.md").write_text(f"{heading()}\n{tables}\n{notes()}")
    (HERE / "fleet.svg").write_text(report.plot(by_policy, alone, GOAL))
    kept = [GOAL.kept(by_policy[OURS])]
    kept += [goal.kept(by_setting[name]) for name, goal in GOALS.items()]
    kept += [
        report.beyond(curve, takes()[name]) <= report.LONE_SECONDS
        for name, curve in by_failure.items()
    ]
    return 0 if all(kept) else 1


def takes() -> dict[str, float]:
    """Return how long a try takes that meets each failure of ALONE, in seconds."""
    return {name: failure.takes for name, failure in ALONE.items()}


def heading() -> str:
    """Return what was simulated, and when."""
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    half = GOALS["no outage"].multiple
    return (
        "# A fleet and a lone guest, simulated by `make fleet`\n\n"
        f"{today}, seed {ZONE.seed}.\n\n"
        f"**The fleet.** {ZONE.guests:,} guests power on evenly over"
        f" {ZONE.power_on:g} s. The service acknowledges at most {ZONE.capacity:g}"
        " requests a second and answers the others with 429, without Retry-After."
        f" Each 429 costs it {ZONE.cost:.0%} of an acknowledgement. From"
        f" {ZONE.begins} s on it refuses connections for {ZONE.outage} s. The"
        " *ideal* is the earliest time at which all guests could be acknowledged:"
        f" guests over capacity, {ZONE.guests / ZONE.capacity:g} s, plus the"
        f" outage: {ZONE.ideal:g} s. Times are multiples of it. Every try counts as"
        " a request, those in the outage included. The metadata, which a guest"
        " asks for after its signal, is not simulated. A guest is lost if it gives"
        f" up, or is not acknowledged within {model.HORIZON} ideals.\n\n"
        f"Goals: {GOAL.multiple:g} ideals for 100 %, and {GOAL.a_guest:g} requests a"
        " guest. With half or twice the capacity, and without an outage:"
        f" {half:g} ideals.\n\n"
        "**The lone guest** meets a service that is away for some time and then"
        " acknowledges everything. Its lateness counts from the return of the"
        f" service; the tables give that of the {model.MOST_BOOTS * 10:g}th of ten"
        ' boots. "Away for 0 s" is a service that fails once.\n\n'
        f"Goal: for any time away from 0 to {model.LONGEST} s, the lateness is at most"
        f" that time plus {report.LONE_SECONDS:g} s, plus the duration of the try that"
        " met the failure.\n\n"
        "![Both as curves](fleet.svg)\n"
    )


def notes() -> str:
    """Return what the figures mean, and what they do not."""
    return (
        "## What that means\n\n"
        "A delay is never longer than the time since the first failure plus"
        f" {backoff.START:g} s. So a lone guest meets the goal in ten of ten boots. The"
        " policies that are quicker there pay for it in the zone: they make more"
        " requests than the goal allows, or give up.\n\n"
        "The policies that are quicker in the zone ask all the time, so there is"
        " always a request when the service has room. What such a load does to a"
        " service, beyond the cost above, is not simulated.\n\n"
        "The less the service can do, the more often a guest asks. With half of the"
        " capacity it asks more than ten times: six times in the first minute, and"
        " then about once a minute. Delays long enough to avoid this would keep the"
        " last guests waiting too long where the service can do more.\n\n"
        "In a small zone, or if all guests power on together, the tries come in waves,"
        " and between them the service has nothing to do.\n\n"
        "## How the numbers were chosen\n\n"
        "The goal for a lone guest fixes two things: the first delay, and that no"
        " delay is longer than the time since the first failure. The longest delay"
        " and the least share of a delay can be chosen; the table above has what was"
        " tried. The choice was made from these tables, so they do not test it."
        " Longer delays save requests, but keep the last guests waiting. A greater"
        " least share saves requests too, but keeps guests together that power on"
        " together. A minute and two thirds meet all goals with room to spare.\n\n"
        "After an hour the longest delay is"
        f" {backoff.LASTING_CAP:g} s: after so long, haste does not help. In 100 days"
        f" that is at most {at_most(100 * 86_400):,} tries, whatever fails.\n"
    )


def at_most(seconds: float) -> int:
    """Return the most tries that are made in that time, if each fails at once."""
    tries, now = 1, 0.0
    while now < seconds:
        now += backoff.delay(backoff.START, now, 0.0, 0.0)
        tries += 1
    return tries


if __name__ == "__main__":
    sys.exit(main())
