"""How long to wait before the next try: arithmetic only, all times in seconds.

One rule serves every failure: the longer it has lasted, the longer the next delay, up
to a minute. If a failure has lasted 20 s, the next try follows about 20 s later. So a
single server signals after at most a little more than twice the time for which the
service was away. The guests of a zone that all boot at once spread out over a minute.
After an hour there is no hurry, and a few minutes pass between tries.

The numbers were chosen by simulation: `make fleet`, tests/fleet/RESULTS.md.
"""

from __future__ import annotations

START = 2.0  # the longest first delay of the agent ...
START_BY_HAND = 0.25  # ... and of a command, whose user waits
CAP = 60.0  # the longest delay, not counting Retry-After ...
LASTING = 3600.0  # ... until the failure has lasted this long; from then on ...
LASTING_CAP = 300.0  # ... this is the longest
LEAST_SHARE = 2 / 3  # a delay is a random share of the longest one, at least this
RETRY_AFTER_CAP = 60.0  # a longer Retry-After counts as this
LAST_TRY = 1.0  # the most time to keep for a last try before a deadline ...
QUICK_TRY = 0.05  # ... and the least: a success takes longer than some failures
CUT_SHARE = 8  # see floor()
REPORT_FIRST = 60.0  # at most one log line a minute while nothing changes ...
REPORT_CAP = 3600.0  # ... then fewer, down to one an hour


def ceiling(start: float, elapsed: float) -> float:
    """Return the longest delay when the first failure was `elapsed` seconds ago.

    `start` is START or START_BY_HAND. The delay never exceeds `start + elapsed`, nor
    CAP, so that is also the latest a signal can be after the service has returned.
    """
    return min(start + elapsed, CAP if elapsed < LASTING else LASTING_CAP)


def delay(start: float, elapsed: float, after: float, chance: float) -> float:
    """Return the delay after a failed try; `start` and `elapsed` as in `ceiling`.

    `after` is the service's Retry-After, 0 if it sent none. It is obeyed up to
    RETRY_AFTER_CAP. The usual delay is added to it: otherwise guests that were sent
    away together would return together. `chance` is a uniform random number from
    [0, 1).
    """
    share = LEAST_SHARE + (1 - LEAST_SHARE) * chance
    return min(after, RETRY_AFTER_CAP) + ceiling(start, elapsed) * share


def floor(start: float, elapsed: float, after: float) -> float:
    """Return the least delay, if a change of the network cuts it short.

    Not used after an overload, which no change of this guest's network relieves.

    A change cuts a delay short, but not the service's own Retry-After. On a router
    whose routing table changes all the time, this must not cause a storm of tries.
    So the least delay grows as the back-off does: it is an eighth of the ceiling.
    """
    return min(after, RETRY_AFTER_CAP) + ceiling(start, elapsed) / CUT_SHARE


def fit(wait: float, after: float, remaining: float, took: float) -> float | None:
    """Fit a delay into the seconds `remaining` before a deadline; None: give up now.

    A delay that is too long is shortened, so that there is time for one last try: as
    much as the last failure took, at most LAST_TRY. If the service asked for a longer
    wait than that leaves, there is no last try.
    """
    latest = remaining - min(max(took, QUICK_TRY), LAST_TRY)
    # No time is left, so this was the last try.
    if latest <= 0 or min(after, RETRY_AFTER_CAP) > latest:
        return None
    return min(wait, latest)


def report_interval(reports: int) -> float:
    """Return how long to stay silent after `reports` equal log lines."""
    return min(REPORT_CAP, REPORT_FIRST * 2.0 ** min(reports - 1, 16))
