"""How long to wait before the next try: arithmetic only, all times in seconds.

One rule for every failure, by how long it has lasted: the next try follows after as
long again, or a little sooner. So a server alone, whose service was away for a while,
signals no later than after twice that while and a little; and the guests of a zone
that all boot at once spread out, until the service has a minute to take them in.
After an hour, nothing is gained by hurrying, and a few minutes pass between tries.

The numbers were chosen by simulation: `make fleet`, tests/fleet/RESULTS.md.
"""

from __future__ import annotations

START = 2.0  # the longest first delay ...
START_BY_HAND = 0.25  # ... and where a person waits, who gives up within seconds
CAP = 60.0  # no delay but Retry-After is longer ...
LASTING = 3600.0  # ... until it has failed for so long; then none is longer ...
LASTING_CAP = 300.0  # ... than this
LEAST_SHARE = 2 / 3  # of the longest delay, to which chance may shorten it
RETRY_AFTER_CAP = 60.0  # a service that asks for more is asked again after this
LAST_TRY = 1.0  # the most that is kept back before a deadline for a last try ...
QUICK_TRY = 0.05  # ... and the least: what succeeds takes longer than some failures
CUT_SHARE = 8  # see floor()
REPORT_FIRST = 60.0  # at most a log line a minute while nothing changes ...
REPORT_CAP = 3600.0  # ... then fewer, down to one an hour


def ceiling(start: float, elapsed: float) -> float:
    """Return the longest delay when the first failure is `elapsed` seconds ago.

    `start` is START or START_BY_HAND. Since the delay never exceeds `start` and what
    has already passed, the signal is never later than that after the return of the
    service, up to CAP.
    """
    return min(start + elapsed, CAP if elapsed < LASTING else LASTING_CAP)


def delay(start: float, elapsed: float, after: float, chance: float) -> float:
    """Return the delay after a failed try; `start` and `elapsed` as in `ceiling`.

    `after` is what the service asked for in Retry-After, 0 where it did not:
    it is obeyed up to RETRY_AFTER_CAP, and the rest comes on top, or else
    the guests that were sent away together would return together. `chance` is
    evenly drawn from [0, 1).
    """
    share = LEAST_SHARE + (1 - LEAST_SHARE) * chance
    return min(after, RETRY_AFTER_CAP) + ceiling(start, elapsed) * share


def floor(start: float, elapsed: float, after: float) -> float:
    """Return how soon after a failed try a change of the network may cause a new one.

    Not after an overload, which no change of this guest's network relieves.

    A change cuts a delay short, though not what the service itself asked for in
    Retry-After. On a router whose table never rests that must not become a storm,
    so the pace under constant change slows down just as the back-off does, at an
    eighth of its ceiling.
    """
    return min(after, RETRY_AFTER_CAP) + ceiling(start, elapsed) / CUT_SHARE


def fit(wait: float, after: float, remaining: float, took: float) -> float | None:
    """Fit a delay into what remains before a deadline; None means give up now.

    A delay that would overrun is shortened so that one last try still has as long as
    the last failure took, at most LAST_TRY, unless the service itself asked for a
    longer wait than that.
    """
    latest = remaining - min(max(took, QUICK_TRY), LAST_TRY)
    # No time is left, so this was the last try.
    if latest <= 0 or min(after, RETRY_AFTER_CAP) > latest:
        return None
    return min(wait, latest)


def report_interval(reports: int) -> float:
    """Return how long to stay silent after `reports` log lines that say the same."""
    return min(REPORT_CAP, REPORT_FIRST * 2.0 ** min(reports - 1, 16))
