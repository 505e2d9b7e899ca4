"""The figures as tables in Markdown, and as a plot."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.model import Course

GOAL_MULTIPLE, GOAL_A_GUEST = 1.5, 3.0

# Told apart on white and on black alike; the first is ours.
COLOURS = ("#2a8cff", "#d4a000", "#e0559b", "#2fa36b", "#e8662e", "#8a8f98", "#a06be0")
WIDTH, HEIGHT, LEFT, TOP = 560, 260, 60, 20
LAST = 2.0  # ideals on the axis


def kept(course: Course) -> bool:
    """Tell whether a course keeps both goals."""
    return course.multiple(1) <= GOAL_MULTIPLE and course.a_guest <= GOAL_A_GUEST


def table(courses: Mapping[str, Course], what: str) -> str:
    """Return the figures of courses as a table, with the goals of the issue."""
    lines = [
        (
            f"| {what} | 50 % | 99 % | 100 % | requests a guest | in the outage"
            " | peak, a second | lost | goals |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, course in courses.items():
        shares = " | ".join(multiple(course, share) for share in (0.5, 0.99, 1))
        guests = course.setting.guests
        lines.append(
            f"| {name} | {shares} | {course.a_guest:.2f}"
            f" | {course.unanswered / guests:.2f} | {max(course.sent):,}"
            f" | {course.lost / guests:.0%}"
            f" | {'kept' if kept(course) else 'missed'} |"
        )
    return "\n".join(lines) + "\n"


def multiple(course: Course, share: float) -> str:
    """Return when a share is acknowledged: as a multiple of the ideal, and seconds."""
    seconds = course.until(share)
    if math.isinf(seconds):
        return "never"
    return f"{course.multiple(share):.2f} ({seconds:.0f} s)"


def plot(courses: Mapping[str, Course]) -> str:
    """Return the acknowledged share over time, in ideals, as an SVG document."""
    (course, *_) = courses.values()
    ideal, begins = course.setting.ideal, course.setting.begins
    dead = across(begins / ideal), across((begins + course.setting.outage) / ideal)
    lines = [
        (
            f'<rect x="{dead[0]:.1f}" y="{TOP}" width="{dead[1] - dead[0]:.1f}"'
            f' height="{HEIGHT}" fill="#888" fill-opacity="0.2"/>'
        ),
        (
            f'<text x="{sum(dead) / 2:.1f}" y="{TOP + 14}" text-anchor="middle">'
            "dead</text>"
        ),
    ]
    for step in range(5):
        share, y = step / 4, down(step / 4)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{WIDTH}"/>')
        lines.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
        x = across(share * LAST)
        lines.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">'
            f"{share * LAST:g}</text>"
        )
    goal = across(GOAL_MULTIPLE)
    lines.append(f'<path class="grid" d="M{goal:.1f} {TOP}v{HEIGHT}"/>')
    lines.append(
        f'<text x="{goal + 4:.1f}" y="{down(0.04):.1f}">goal for 100 %</text>'
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">'
        "time, as a multiple of the ideal: share of the guests acknowledged</text>"
    )
    for at, (colour, (name, each)) in enumerate(
        reversed(list(zip(COLOURS, courses.items(), strict=True)))
    ):
        row = len(courses) - 1 - at
        x, y = 20 + 310 * (row % 2), TOP + HEIGHT + 60 + 20 * (row // 2)
        width = 4 if row == 0 else 2
        stroke = f'stroke="{colour}" stroke-width="{width}"'
        lines.append(f'<path d="{curve(each)}" fill="none" {stroke}/>')
        label = f"{name}: {each.a_guest:.1f} requests a guest"
        lines.append(
            f'<path d="M{x} {y - 4}h18" {stroke}/>'
            f'<text x="{x + 24}" y="{y}" font-size="11">{label}</text>'
        )
    size = f'width="{LEFT + WIDTH + 20}" height="{TOP + HEIGHT + 134}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
        ' font-family="sans-serif" font-size="13">'
        "<style>text{fill:#222}.bg{fill:#fff}.grid{stroke:#888;stroke-opacity:.5}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.bg{fill:#0d1117}}</style>"
        '<rect class="bg" width="100%" height="100%"/>' + "\n".join(lines) + "</svg>\n"
    )


def curve(course: Course) -> str:
    """Return the path of the acknowledged share over time."""
    steps = 200
    points = []
    for step in range(steps + 1):
        time = LAST * step / steps
        number = bisect_right(course.acknowledged, time * course.setting.ideal)
        points.append(f"{across(time):.1f} {down(number / course.setting.guests):.1f}")
    return "M" + "L".join(points)


def across(time: float) -> float:
    """Return where a time, in ideals, stands."""
    return LEFT + WIDTH * time / LAST


def down(share: float) -> float:
    """Return where a share stands."""
    return TOP + HEIGHT * (1 - share)
