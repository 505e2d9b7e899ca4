"""The log: one line a message, to syslog or to standard error."""

from __future__ import annotations

import os
import select
import sys
import syslog
from typing import TYPE_CHECKING

from . import __version__, backoff
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .errors import ScwSignalError

LONGEST_MESSAGE = 500  # characters
MOST_REPORTED = 16  # different failures that a Reporter keeps apart


def bug(error: Exception) -> str:
    """Describe an unexpected exception, with everything that a bug report needs."""
    system = os.uname()
    return (
        f"internal error, please report this line: scw-signal {__version__},"
        f" {system.sysname} {system.release},"
        f" Python {'.'.join(map(str, sys.version_info[:3]))}:"
        f" {type(error).__name__}: {error}"
    )


class Log:
    """A log with four levels; it escapes what is not safe to show."""

    def __init__(self, sink: Callable[[int, str], None], *, verbose: bool) -> None:
        """Take where lines go, and whether to log debug lines too."""
        self._sink = sink
        self.verbose = verbose

    def error(self, message: str) -> None:
        """Log a failure that ends the work."""
        self._sink(syslog.LOG_ERR, printable(message, LONGEST_MESSAGE))

    def warning(self, message: str) -> None:
        """Log a failure after which the work goes on."""
        self._sink(syslog.LOG_WARNING, printable(message, LONGEST_MESSAGE))

    def info(self, message: str) -> None:
        """Log that a stage has ended."""
        self._sink(syslog.LOG_INFO, printable(message, LONGEST_MESSAGE))

    def debug(self, message: str) -> None:
        """Log a detail, if the log is verbose."""
        if self.verbose:
            self._sink(syslog.LOG_DEBUG, printable(message, LONGEST_MESSAGE))


def to_syslog(identity: str) -> Callable[[int, str], None]:
    """Return a sink that writes to syslog(3), facility daemon."""
    # Connect now: after the lock-down it may be too late.
    syslog.openlog(identity, syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
    return syslog.syslog


def place(platform: str, *, systemd: bool) -> str:
    """Say where to read what `to_syslog` logs, as far as that is known."""
    if systemd:
        return "the journal (journalctl -t scw-signald)"
    return "/var/log/daemon" if platform.startswith("openbsd") else "syslog, as daemon"


def to_stderr(identity: str) -> Callable[[int, str], None]:
    """Return a sink that writes to standard error.

    If standard error is a full pipe, the line is dropped: neither the signal nor a
    stop may wait for its reader.
    """
    ready = select.poll()
    ready.register(2, select.POLLOUT)

    def sink(_priority: int, message: str) -> None:
        try:
            if ready.poll(0):
                os.write(2, f"{identity}: {message}\n".encode(errors="replace"))
        except OSError:
            pass  # nobody reads it

    return sink


class Reporter:
    """Reports failed tries, but does not repeat the same line all the time.

    A new failure is logged at once. While it goes on, it is logged again at growing
    intervals (see backoff.report_interval), and in between at debug level.
    """

    def __init__(self, stage: str, clock: Clock, log: Log) -> None:
        """Take the name of the stage; each line begins with it."""
        self._stage = stage
        self._clock = clock
        self._log = log
        self._reported: dict[str, tuple[int, float]] = {}

    def failed(self, error: ScwSignalError, tries: int, delay: float) -> None:
        """Report a failed try, the tries so far, and the seconds to the next one."""
        text = str(error)
        # The service may influence the texts, so only a few are kept apart. All
        # further ones share one entry and its intervals.
        apart = text in self._reported or len(self._reported) < MOST_REPORTED
        key = text if apart else ""
        reports, due = self._reported.get(key, (0, 0.0))
        now = self._clock.monotonic()
        seldom = reports and not self._log.verbose
        end = "; logged at most once a minute)" if seldom else ")"
        line = f"{self._stage}: {text} (try {tries}; the next in {delay:.1f} s{end}"
        if reports and now < due:
            self._log.debug(line)
            return
        self._reported[key] = reports + 1, now + backoff.report_interval(reports + 1)
        self._log.warning(line)
