"""The log: what a line looks like, and how often it may be repeated."""

from __future__ import annotations

import errno
import itertools
import os
import syslog
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from scw_signal import log
from scw_signal.errors import UnreachableError
from scw_signal.log import Log, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


class Lines:
    """A log whose lines are kept, with the moments at which they came."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.clock = FakeClock()
        self.levels: list[int] = []
        self.texts: list[str] = []
        self.moments: list[float] = []
        self.log = Log(self._sink, verbose=verbose)
        self._start = self.clock.now

    def _sink(self, level: int, text: str) -> None:
        self.levels.append(level)
        self.texts.append(text)
        self.moments.append(self.clock.now - self._start)

    def fail(self, reporter: Reporter, text: str = "no route") -> None:
        reporter.failed(UnreachableError(text), 1, 0.0)

    def reporter(self) -> Reporter:
        return Reporter("signal", self.clock, self.log)


# A line.


def test_each_level_is_syslogs() -> None:
    lines = Lines(verbose=True)
    for say in (lines.log.error, lines.log.warning, lines.log.info, lines.log.debug):
        say("a message")
    assert lines.texts == ["a message"] * 4
    assert lines.levels == [
        syslog.LOG_ERR, syslog.LOG_WARNING, syslog.LOG_INFO, syslog.LOG_DEBUG,
    ]  # fmt: skip


def test_details_are_left_out_unless_asked_for() -> None:
    lines = Lines()
    lines.log.debug("a detail")
    lines.log.info("a stage")
    assert lines.texts == ["a stage"]


LEVELS: list[Callable[[Log, str], None]] = [Log.error, Log.warning, Log.info, Log.debug]


@pytest.mark.parametrize("say", LEVELS)
@pytest.mark.parametrize(
    "message",
    [
        pytest.param("forged\nNov 23 sshd: accepted", id="newline"),
        pytest.param("\x1b]0;owned\x07", id="escape"),
        pytest.param("\u202etxet", id="turned around"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("x" * 1_000_000, id="long"),
    ],
)
def test_a_line_is_one_line_short_and_safe_to_show(
    say: Callable[[Log, str], None], message: str
) -> None:
    lines = Lines(verbose=True)
    say(lines.log, message)
    (text,) = lines.texts
    assert text.isprintable()
    assert len(text) <= 500
    text.encode()


# Where it goes.


def test_syslog_is_opened_at_once_for_a_daemon_with_its_process_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, said = [], []
    monkeypatch.setattr(syslog, "openlog", lambda *words: opened.append(words))
    monkeypatch.setattr(syslog, "syslog", lambda *words: said.append(words))
    sink = log.to_syslog("scw-signald")
    options = syslog.LOG_PID | syslog.LOG_NDELAY
    assert opened == [("scw-signald", options, syslog.LOG_DAEMON)]
    Log(sink, verbose=False).warning("100 %s")
    assert said == [(syslog.LOG_WARNING, "100 %s")]


def test_on_standard_error_each_line_begins_with_the_name(
    capfd: pytest.CaptureFixture[str],
) -> None:
    to_stderr = Log(log.to_stderr("scw-signald"), verbose=False)
    to_stderr.info("one")
    to_stderr.error("café")
    assert capfd.readouterr() == ("", "scw-signald: one\nscw-signald: café\n")


def test_on_standard_error_each_line_is_one_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the lines of two programs could mix."""
    written = []

    def write(descriptor: int, data: bytes) -> int:
        written.append((descriptor, data))
        return len(data)

    sink = log.to_stderr("scw-signald")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        sink(syslog.LOG_INFO, "a line")
    assert written == [(2, b"scw-signald: a line\n")]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EBADF, errno.EAGAIN, errno.EIO])
def test_a_write_error_on_standard_error_is_ignored(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    sink = log.to_stderr("scw-signald")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        sink(syslog.LOG_INFO, "a line")


# Failed tries.


def test_a_failure_is_logged_at_once_with_the_try_and_the_next() -> None:
    lines = Lines()
    reporter = lines.reporter()
    reporter.failed(UnreachableError("Connection refused"), 3, 1.984)
    assert lines.texts == ["signal: Connection refused (try 3; the next in 2.0 s)"]
    assert lines.levels == [syslog.LOG_WARNING]


def test_a_failure_that_goes_on_is_logged_after_a_minute_then_less_often() -> None:
    lines = Lines()
    reporter = lines.reporter()
    for _ in range(int(DAY)):
        lines.fail(reporter)
        lines.clock.now += 1
    minutes = [moment / MINUTE for moment in lines.moments]
    assert minutes[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert minutes[8:] == list(range(183, 24 * 60, 60))


def test_a_repeated_line_says_how_things_are_now() -> None:
    lines = Lines()
    reporter = lines.reporter()
    reporter.failed(UnreachableError("no route"), 1, 0.25)
    lines.clock.now += MINUTE
    reporter.failed(UnreachableError("no route"), 12, 15.0)
    assert lines.texts[-1] == (
        "signal: no route (try 12; the next in 15.0 s; logged at most once a minute)"
    )


def test_a_verbose_log_has_every_try_in_between_as_a_detail() -> None:
    lines = Lines(verbose=True)
    reporter = lines.reporter()
    for number in range(1, 64):
        reporter.failed(UnreachableError("no route"), number, 1.0)
        lines.clock.now += 1
    assert lines.texts == [
        f"signal: no route (try {number}; the next in 1.0 s)" for number in range(1, 64)
    ]
    warnings = [
        n for n, level in enumerate(lines.levels) if level == syslog.LOG_WARNING
    ]
    assert warnings == [0, 60]
    assert set(lines.levels) == {syslog.LOG_WARNING, syslog.LOG_DEBUG}


@pytest.mark.parametrize("platform", ["openbsd", "openbsd7", "freebsd14", "linux"])
@pytest.mark.parametrize("systemd", [False, True])
def test_where_the_log_goes_fits_on_one_line(platform: str, *, systemd: bool) -> None:
    where = log.place(platform, systemd=systemd)
    assert len(f"scw-signald: logging to {where}; -d logs here") < 80
    if platform.startswith("openbsd") and not systemd:
        assert where == "/var/log/daemon"


def test_another_failure_is_logged_at_once() -> None:
    lines = Lines()
    reporter = lines.reporter()
    for text in ("no route", "no route", "refused", "no route", "the service: 503"):
        lines.fail(reporter, text)
    assert [text.split(" (")[0] for text in lines.texts] == [
        "signal: no route", "signal: refused", "signal: the service: 503",
    ]  # fmt: skip


def test_two_failures_in_turn_each_keep_their_own_intervals() -> None:
    lines = Lines()
    reporter = lines.reporter()
    for second in range(int(HOUR)):
        lines.fail(reporter, ("no route", "refused")[second % 2])
        lines.clock.now += 1
    assert len(lines.texts) == 2 * 6  # at 0, 1, 3, 7, 15 and 31 minutes


@settings(deadline=None)
@given(st.lists(st.floats(0, 400), max_size=50))
def test_while_nothing_changes_there_is_at_most_a_line_a_minute(
    gaps: list[float],
) -> None:
    lines = Lines()
    reporter = lines.reporter()
    for gap in gaps:
        lines.fail(reporter)
        lines.clock.now += gap
    for earlier, later in itertools.pairwise(lines.moments):
        assert later - earlier >= MINUTE - 1e-6


def test_texts_that_never_repeat_can_neither_fill_the_log_nor_the_memory() -> None:
    """A hostile service may cause such texts."""
    lines = Lines()
    reporter = lines.reporter()
    for number in range(int(HOUR)):
        lines.fail(reporter, f"the service acknowledged {number}")
        lines.clock.now += 1
    assert len(lines.texts) <= 16 + HOUR / MINUTE
    assert len(reporter._reported) <= 17


def test_after_many_different_failures_new_ones_are_still_logged_now_and_then() -> None:
    lines = Lines()
    reporter = lines.reporter()
    for number in range(100):
        lines.fail(reporter, str(number))
    lines.clock.now += HOUR
    lines.fail(reporter, "something new")
    assert "something new" in lines.texts[-1]


def test_after_many_different_failures_an_earlier_one_keeps_its_intervals() -> None:
    lines = Lines()
    reporter = lines.reporter()
    lines.fail(reporter, "no route")
    for number in range(100):
        lines.fail(reporter, str(number))
    lines.clock.now += MINUTE
    lines.fail(reporter, "something new")
    lines.fail(reporter, "no route")
    assert "no route" in lines.texts[-1]
