"""How long to wait before the next try: arithmetic only, all times in seconds.

Two needs pull apart. A guest alone, whose network is not quite there or whose
service is just starting, wants to come back soon: exponential back-off with full
jitter, whose ceiling doubles with each try up to seconds. A whole zone that
powers on at once wants its guests spread over as many minutes as the service
needs for them all: no ceiling that begins with seconds gets there in a few
requests. What tells the two apart is an answer that says overload. The numbers
for it were chosen by simulation: `make fleet`, tests/fleet/RESULTS.md.
"""

from __future__ import annotations

BASE = 0.25  # the first ceiling
CAP = 15.0  # no ceiling is higher, as long as nothing says overload
OVERLOAD_CAP = 180.0  # with it, no delay but Retry-After is longer ...
OVERLOAD_LEAST = 60.0  # ... nor, from the second failure on, shorter than this
OVERLOAD_SKEW = 4  # see spread()
RETRY_AFTER_CAP = 60.0  # a service that asks for more is asked again after this
LAST_TRY = 1.0  # the least time that a try before a deadline is worth making in
CUT_SHARE = 8  # see floor()
REPORT_FIRST = 60.0  # at most a log line a minute while nothing changes ...
REPORT_CAP = 3600.0  # ... then fewer, down to one an hour


def ceiling(tries: int) -> float:
    """Return the longest delay after `tries` failed tries without an overload."""
    # The exponent is bounded as well: 2.0 ** 1024 does not exist.
    return min(CAP, BASE * 2.0 ** min(tries - 1, 32))


def overloads(before: int, *, overload: bool) -> int:
    """Count one more failed try: how many there were since an overload was told of.

    That try is the first, whatever the later ones fail with: 0 while there was
    none.
    """
    return before + 1 if overload or before else 0


def spread(tries: int, overloaded: int, chance: float) -> float:
    """Return the part of a delay that is the guest's own to choose.

    `overloaded` is what `overloads` has counted. The first overload may have
    been a hiccup: the fourth power brings half of the guests back within twelve
    seconds, and spreads the others over minutes all the same. If that was no
    help it is no hiccup, and everybody takes his time.
    """
    if not overloaded:
        return ceiling(tries) * chance
    if overloaded == 1:
        return OVERLOAD_CAP * chance**OVERLOAD_SKEW
    return OVERLOAD_LEAST + (OVERLOAD_CAP - OVERLOAD_LEAST) * chance


def delay(tries: int, overloaded: int, after: float, chance: float) -> float:
    """Return the delay after `tries` failed tries, `overloaded` as in `spread`.

    `after` is what the service asked for in Retry-After, 0 where it did not:
    it is obeyed up to RETRY_AFTER_CAP, and the jitter comes on top, or else
    the guests that were sent away together would return together. `chance` is
    evenly drawn from [0, 1).
    """
    return min(after, RETRY_AFTER_CAP) + spread(tries, overloaded, chance)


def refused(chance: float) -> float:
    """Return the delay after a refusal: the same however often it comes."""
    return CAP * (1.0 + chance) / 2.0


def floor(tries: int, after: float) -> float:
    """Return how soon after a failed try a change of the network may cause a new one.

    Not after an overload, which no change of this guest's network relieves.

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
    # None of it left means that the last try was made, be it that no time has passed.
    if latest <= 0 or min(after, RETRY_AFTER_CAP) > latest:
        return None
    return min(wait, latest)


def report_interval(reports: int) -> float:
    """Return how long to stay silent after `reports` log lines that say the same."""
    return min(REPORT_CAP, REPORT_FIRST * 2.0 ** min(reports - 1, 16))
