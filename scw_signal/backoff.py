"""How long to wait before the next try: arithmetic only, all times in seconds.

The policy is exponential back-off with full jitter: the ceiling doubles with
each try, and the delay is drawn evenly from zero to the ceiling, so that guests
which power on together do not come back together.
"""

from __future__ import annotations

BASE = 0.25  # the first ceiling
CAP = 15.0  # no ceiling is higher
RETRY_AFTER_CAP = 60.0  # a service that asks for more is asked again after this
LAST_TRY = 1.0  # the least time that a try before a deadline is worth making in
CUT_SHARE = 8  # see floor()
REPORT_FIRST = 60.0  # at most a log line a minute while nothing changes ...
REPORT_CAP = 3600.0  # ... then fewer, down to one an hour


def ceiling(tries: int) -> float:
    """Return the longest delay, without Retry-After, after `tries` failed tries."""
    # The exponent is bounded as well: 2.0 ** 1024 does not exist.
    return min(CAP, BASE * 2.0 ** min(tries - 1, 32))


def delay(tries: int, after: float, chance: float) -> float:
    """Return the delay after `tries` failed tries.

    `after` is what the service asked for in Retry-After, 0 where it did not:
    it is obeyed up to RETRY_AFTER_CAP, and the jitter comes on top, or else
    the guests that were sent away together would return together. `chance` is
    evenly drawn from [0, 1).
    """
    return min(after, RETRY_AFTER_CAP) + ceiling(tries) * chance


def slowest(chance: float) -> float:
    """Return the delay after a refusal: the upper half of what `delay` can reach."""
    return CAP * (1.0 + chance) / 2.0


def floor(tries: int, after: float) -> float:
    """Return how soon after a failed try a change of the network may cause a new one.

    A change cuts a back-off short, though not what the service itself asked
    for in Retry-After. On a router whose table never rests that must not
    become a storm, so the pace under constant change slows down just as the
    back-off does, at an eighth of its ceiling.
    """
    return min(after, RETRY_AFTER_CAP) + ceiling(tries) / CUT_SHARE


def fit(wait: float, after: float, remaining: float) -> float | None:
    """Fit a delay into what remains before a deadline; None means give up now.

    A delay that would overrun is shortened so that one last try still has
    LAST_TRY seconds, unless the service itself asked for more than that.
    """
    latest = remaining - LAST_TRY
    if latest < 0 or min(after, RETRY_AFTER_CAP) > latest:
        return None
    return min(wait, latest)


def report_interval(reports: int) -> float:
    """Return how long to stay silent after `reports` log lines that say the same."""
    return min(REPORT_CAP, REPORT_FIRST * 2.0 ** min(reports - 1, 16))
