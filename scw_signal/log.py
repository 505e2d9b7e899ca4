"""The log: syslog or standard error behind one face, a line a message."""

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
MOST_FAILURES = 16  # different failures that a Reporter tells apart


def bug(error: Exception) -> str:
    """Say what an error is that is none of ours, with all that a report needs."""
    system = os.uname()
    return (
        f"internal error, please report this line: scw-signal {__version__},"
        f" {system.sysname} {system.release},"
        f" Python {'.'.join(map(str, sys.version_info[:3]))}:"
        f" {type(error).__name__}: {error}"
    )


class Log:
    """Lines of four levels; what is shown in them is made safe to show."""

    def __init__(self, sink: Callable[[int, str], None], *, verbose: bool) -> None:
        """Take where lines go, and whether debug lines do as well."""
        self._sink = sink
        self.verbose = verbose

    def error(self, message: str) -> None:
        """Log why the work cannot be done."""
        self._sink(syslog.LOG_ERR, printable(message, LONGEST_MESSAGE))

    def warning(self, message: str) -> None:
        """Log what is wrong though the work goes on."""
        self._sink(syslog.LOG_WARNING, printable(message, LONGEST_MESSAGE))

    def info(self, message: str) -> None:
        """Log that a stage has ended."""
        self._sink(syslog.LOG_INFO, printable(message, LONGEST_MESSAGE))

    def debug(self, message: str) -> None:
        """Log a detail, if the log is verbose."""
        if self.verbose:
            self._sink(syslog.LOG_DEBUG, printable(message, LONGEST_MESSAGE))


def to_syslog(identity: str) -> Callable[[int, str], None]:
    """Return a sink that is syslog(3), facility daemon."""
    # Connected now: after the lock-down it may be too late.
    syslog.openlog(identity, syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
    return syslog.syslog


def place(platform: str, *, systemd: bool) -> str:
    """Say where a person finds what `to_syslog` logs, as far as that is known."""
    if systemd:
        return "the journal (journalctl -t scw-signald)"
    return "/var/log/daemon" if platform.startswith("openbsd") else "syslog, as daemon"


def to_stderr(identity: str) -> Callable[[int, str], None]:
    """Return a sink that is standard error.

    A line that nobody makes room for is dropped: neither the signal nor a stop
    waits for the reader of a pipe.
    """
    ready = select.poll()
    ready.register(2, select.POLLOUT)

    def sink(_priority: int, message: str) -> None:
        try:
            if ready.poll(0):
                os.write(2, f"{identity}: {message}\n".encode(errors="replace"))
        except OSError:
            pass  # nobody is left to be told

    return sink


class Reporter:
    """Tells of failed tries without telling the same thing all the time.

    A failure is logged at once when it is new, and then at growing intervals
    (see backoff.report_interval) while it goes on. In between, a verbose log has it
    as a detail.
    """

    def __init__(self, stage: str, clock: Clock, log: Log) -> None:
        """Take the name of the stage, which each line begins with."""
        self._stage = stage
        self._clock = clock
        self._log = log
        self._told: dict[str, tuple[int, float]] = {}

    def failed(self, error: ScwSignalError, tries: int, delay: float) -> None:
        """Take note of a failed try, their number, and the seconds to the next."""
        text = str(error)
        # Past a few different texts, some of which the service may word, all
        # new ones share one place and so its intervals.
        key = text if text in self._told or len(self._told) < MOST_FAILURES else ""
        reports, due = self._told.get(key, (0, 0.0))
        now = self._clock.monotonic()
        seldom = reports and not self._log.verbose
        end = "; told at most once a minute)" if seldom else ")"
        line = f"{self._stage}: {text} (try {tries}; the next in {delay:.1f} s{end}"
        if reports and now < due:
            self._log.debug(line)
            return
        self._told[key] = reports + 1, now + backoff.report_interval(reports + 1)
        self._log.warning(line)
