"""The figures as tables in Markdown, and as a plot of two panels."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from fleet.model import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fleet.model import Course
    from fleet.policies import Varied

    Point = tuple[float, float]

# The goal for a lone guest: it is later than the time away by at most this.
LONE_SECONDS = 2.0
SHOWN = (0, 1, 3, 10, 30, 60)  # seconds for which the service was away

# Easy to tell apart on white and on black; the first is ours.
COLOURS = ("#2a8cff", "#d4a000", "#e0559b", "#2fa36b", "#e8662e", "#8a8f98")
WIDTH = 640
HEIGHT, LEFT, MARGIN = 240, 50, 20  # of a panel
ROW, COLUMN = 20, 300  # of the legend
STEPS = 200  # points of a curve


class Goal(NamedTuple):
    """The limits for a zone."""

    multiple: float  # of the ideal, for 100 %
    a_guest: float = math.inf  # requests

    def kept(self, course: Course) -> bool:
        """Tell whether a course keeps them."""
        return course.multiple(1) <= self.multiple and course.a_guest <= self.a_guest


def beyond(curve: Sequence[float], takes: float) -> float:
    """Return by how much the lateness of a lone guest exceeds the time away, at most.

    `takes` is the time of the try that met the failure, which does not count.
    """
    return max(late - takes - away for away, late in enumerate(curve))


def zone_table(
    courses: Mapping[str, Course], what: str, goals: Mapping[str, Goal]
) -> str:
    """Return the figures of zones as a table; `what` heads the column of names."""
    lines = [
        (
            f"| {what} | 50 %, ideals (s) | 99 %, ideals (s) | 100 %, ideals (s)"
            " | requests a guest | of them in the outage | most requests a second"
            " | guests lost, % | goal |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, course in courses.items():
        shares = " | ".join(multiple(course, share) for share in (0.5, 0.99, 1))
        guests = course.setting.guests
        goal = goals.get(name)
        verdict = "" if goal is None else "kept" if goal.kept(course) else "missed"
        lines.append(
            f"| {name} | {shares} | {course.a_guest:.2f}"
            f" | {course.unanswered / guests:.2f} | {max(course.sent):,}"
            f" | {100 * course.lost / guests:.0f} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def multiple(course: Course, share: float) -> str:
    """Return when a share is acknowledged: as a multiple of the ideal, and seconds."""
    seconds = course.until(share)
    if math.isinf(seconds):
        return "never"
    return f"{course.multiple(share):.2f} ({seconds:.0f})"


def lone_table(
    curves: Mapping[str, Sequence[float]], what: str, takes: Mapping[str, float]
) -> str:
    """Return the lateness of a lone guest; `takes` as in `beyond`, 0 if left out."""
    away = " | ".join(f"late after {seconds} s away, s" for seconds in SHOWN)
    lines = [f"| {what} | {away} | late at most, beyond the time away, s |"]
    lines.append("|---|" + "---|" * (len(SHOWN) + 1))
    for name, curve in curves.items():
        late = " | ".join(in_seconds(curve[seconds]) for seconds in SHOWN)
        most = beyond(curve, takes.get(name, 0.0))
        lines.append(f"| {name} | {late} | {in_seconds(most)} |")
    return "\n".join(lines) + "\n"


def numbers_table(
    courses: Mapping[Varied, Sequence[Course]], settings: Sequence[str]
) -> str:
    """Return what other numbers would do in some settings."""
    head = "".join(f" {name}, ideals, requests |" for name in settings)
    lines = [f"| longest delay, s | least share of it |{head}"]
    lines.append("|---|---|" + "---|" * len(settings))
    for varied, each in courses.items():
        cells = "".join(f" {of.multiple(1):.2f}, {of.a_guest:.1f} |" for of in each)
        lines.append(f"| {varied.cap:g} | {varied.least_share:.2f} |{cells}")
    return "\n".join(lines) + "\n"


def in_seconds(seconds: float) -> str:
    """Return seconds as a table shows them."""
    return "gives up" if math.isinf(seconds) else f"{seconds:.1f}"


class Axis(NamedTuple):
    """An axis, from 0 on."""

    title: str
    last: int
    step: int


class Panel(NamedTuple):
    """A diagram: how far down it begins, and its axes."""

    top: int
    across: Axis
    up: Axis

    def x(self, value: float) -> float:
        """Return the coordinate of a value of the axis across."""
        return LEFT + (WIDTH - LEFT - MARGIN) * value / self.across.last

    def y(self, value: float) -> float:
        """Return the coordinate of a value of the axis up."""
        return self.top + HEIGHT * (1 - value / self.up.last)

    def frame(self) -> list[str]:
        """Return the grid, the numbers and the titles."""
        right, bottom = self.x(self.across.last), self.y(0)
        lines = []
        for value in range(0, self.up.last + 1, self.up.step):
            y = self.y(value)
            lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right:.1f}"/>')
            lines.append(text(LEFT - 6, y + 4, f"{value}", "end"))
        lines += [
            text(self.x(value), bottom + 18, f"{value}", "middle")
            for value in range(0, self.across.last + 1, self.across.step)
        ]
        lines.append(text(8, self.top - 14, self.up.title))
        middle = (LEFT + right) / 2
        lines.append(text(middle, bottom + 36, self.across.title, "middle"))
        return lines

    def curve(self, points: Iterable[Point], style: str) -> str:
        """Return a curve through the points that are finite."""
        path = "L".join(
            f"{self.x(across):.1f} {self.y(up):.1f}"
            for across, up in points
            if math.isfinite(up)
        )
        return f'<path d="M{path}" fill="none" {style}/>'


ZONE = Panel(
    40,
    Axis("time since the first guest may power on, s", 700, 100),
    Axis("100,000 guests at once: acknowledged, %", 100, 20),
)
LONE = Panel(
    390,
    Axis("time for which the service answers 503, s", LONGEST, 10),
    Axis("a lone guest: how late after that, in nine of ten boots, s", 70, 10),
)


def plot(
    courses: Mapping[str, Course], curves: Mapping[str, Sequence[float]], goal: Goal
) -> str:
    """Return both as an SVG document: the zone above, a lone guest below."""
    legend = LONE.top + HEIGHT + 70
    lines = [*outage(next(iter(courses.values())), goal), *ZONE.frame()]
    lines += LONE.frame()
    bound = [(away, away + LONE_SECONDS) for away in (0, LONGEST)]
    lines.append(LONE.curve(bound, 'class="goal"'))
    lines.append(
        text(LONE.x(36), LONE.y(48), "goal: at most 2 s later than that", "end")
    )
    # Ours last, above the others.
    for row, name in reversed(list(enumerate(courses))):
        colour = COLOURS[row]
        style = f'stroke="{colour}" stroke-width="{4 if row == 0 else 2}"'
        lines.append(ZONE.curve(progress(courses[name]), style))
        lines.append(LONE.curve(enumerate(curves[name]), style))
        x, y = 20 + COLUMN * (row % 2), legend + ROW * (row // 2)
        lines.append(f'<path d="M{x} {y - 4}h18" {style}/>')
        lines.append(text(x + 24, y, name))
    height = legend + ROW * ((len(courses) + 1) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="13">'
        "<style>text{fill:#222}.bg{fill:#fff}.grid{stroke:#888;stroke-opacity:.5}"
        ".goal{stroke:#888;stroke-width:2;stroke-dasharray:6 4}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}.bg{fill:#0d1117}}</style>"
        '<rect class="bg" width="100%" height="100%"/>' + "\n".join(lines) + "</svg>\n"
    )


def outage(course: Course, goal: Goal) -> list[str]:
    """Return when the service is dead, the ideal, and the goal."""
    setting = course.setting
    left, right = ZONE.x(setting.begins), ZONE.x(setting.begins + setting.outage)
    lines = [
        text((left + right) / 2, ZONE.top + 14, "service dead", "middle"),
        (
            f'<rect x="{left:.1f}" y="{ZONE.top}" width="{right - left:.1f}"'
            f' height="{HEIGHT}" fill="#888" fill-opacity="0.2"/>'
        ),
    ]
    marks = (("ideal", 1.0, "end", -4), ("goal", goal.multiple, "start", 4))
    for name, ideals, anchor, aside in marks:
        at = ideals * setting.ideal
        lines.append(ZONE.curve([(at, 0), (at, 100)], 'class="goal"'))
        lines.append(text(ZONE.x(at) + aside, ZONE.y(3), name, anchor))
    return lines


def progress(course: Course) -> list[Point]:
    """Return the acknowledged guests over time, in % and seconds."""
    times = [ZONE.across.last * step / STEPS for step in range(STEPS + 1)]
    guests = course.setting.guests
    return [
        (time, 100 * bisect_right(course.acknowledged, time) / guests) for time in times
    ]


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Return a text; `anchor` says which part of it stands at x."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
