"""The clock: real seconds, real descriptors, and a poll(2) that is only watched."""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from scw_signal.clock import LONGEST_POLL, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

BOUND = 10.0  # seconds; only a wait in a test that fails lasts as long


class FakePoll:
    """A poll(2) that returns at once; its fake time ends `early` seconds too soon."""

    def __init__(self, early: float = 0.0) -> None:
        self.now = 1000.0
        self.timeouts: list[int] = []
        self._early = early

    def register(self, descriptor: int, events: int) -> None:
        raise AssertionError((descriptor, events))

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        assert 0 <= milliseconds < 2**31, "poll(2) takes an int"
        self.timeouts.append(milliseconds)
        assert len(self.timeouts) < 1000, "a busy loop"
        self.now += max(0.0, milliseconds / 1000 - self._early)
        return []


@pytest.fixture
def pipe() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def watched(monkeypatch: pytest.MonkeyPatch, poll: FakePoll) -> Clock:
    monkeypatch.setattr(select, "poll", lambda: poll)
    monkeypatch.setattr(time, "monotonic", lambda: poll.now)
    return Clock()


def test_time_never_goes_back() -> None:
    clock = Clock()
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_time_of_day_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "time")
    Clock().wait(0)


def test_with_nothing_to_read_the_wait_lasts_its_seconds_and_says_so() -> None:
    clock = Clock()
    start = time.monotonic()
    assert not clock.wait(0.02)
    assert time.monotonic() - start >= 0.02


def test_a_wait_of_no_seconds_only_looks(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pipe
    assert not Clock().wait(0, here.fileno())
    there.send(b"!")
    assert Clock().wait(0, here.fileno())


def test_data_that_is_already_there_ends_an_endless_wait(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pipe
    there.send(b"!")
    assert Clock().wait(math.inf, here.fileno())


def test_any_of_several_descriptors_ends_the_wait(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pipe
    silent, other = socket.socketpair()
    with silent, other:
        there.send(b"!")
        assert Clock().wait(BOUND, silent.fileno(), here.fileno())


def test_a_wait_does_not_read_what_arrives(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pipe
    there.send(b"!")
    Clock().wait(BOUND, here.fileno())
    assert here.recv(10) == b"!"


def test_a_descriptor_closed_at_its_other_end_counts_as_readable(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pipe
    there.close()
    assert Clock().wait(BOUND, here.fileno())


def test_a_broken_descriptor_counts_as_readable() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    assert Clock().wait(BOUND, reading)


def test_a_wait_is_rounded_up_to_the_next_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = FakePoll()
    assert not watched(monkeypatch, poll).wait(0.0101)
    assert poll.timeouts == [11]


def test_a_poll_that_ends_early_is_made_again_but_not_busily(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = FakePoll(early=0.0006)
    watched(monkeypatch, poll).wait(1.0)
    assert poll.now >= 1001.0
    assert len(poll.timeouts) <= 3


def test_during_a_wait_tick_is_called_every_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = FakePoll()
    watched(monkeypatch, poll)
    told: list[float] = []
    Clock(tick=lambda: told.append(poll.now)).wait(3.5)
    assert told == [1001.0, 1002.0, 1003.0]
    assert poll.now == 1003.5


def test_a_wait_longer_than_poll_can_last_is_made_of_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = FakePoll()
    watched(monkeypatch, poll).wait(30 * LONGEST_POLL + 1)
    assert poll.timeouts == [*[86_400_000] * 30, 1000]


def test_a_wait_without_end_goes_on_after_the_longest_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = FakePoll()

    def in_the_end(milliseconds: int) -> list[tuple[int, int]]:
        FakePoll.poll(poll, milliseconds)
        return [(0, select.POLLIN)] if len(poll.timeouts) == 40 else []

    monkeypatch.setattr(poll, "poll", in_the_end)
    assert watched(monkeypatch, poll).wait(math.inf)
    assert poll.timeouts == [86_400_000] * 40


def test_a_signal_handler_that_raises_ends_the_wait_with_what_it_raised() -> None:
    class Stopped(BaseException):
        pass

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Stopped):
            Clock().wait(BOUND)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_that_returns_does_not_shorten_the_wait() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: heard.append(number))
    try:
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert not Clock().wait(0.03)
        assert time.monotonic() - start >= 0.03
        assert heard == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
