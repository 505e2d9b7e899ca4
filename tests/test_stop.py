"""A stop: SIGTERM and SIGINT are heard at every wait, and nowhere else."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scw_signal.clock import Clock
from scw_signal.errors import Stopped
from scw_signal.resolver import Resolver
from scw_signal.stop import SIGNALS, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUND = 10.0  # seconds; a wait lasts this long if it is not stopped


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restore the handlers, so that a failed test does not spoil the next."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_wait_and_is_named(number: signal.Signals) -> None:
    with Stop() as stop:
        timer = threading.Timer(0.01, kill, (number,))
        timer.start()
        with pytest.raises(Stopped) as stopped:
            Clock(stop).wait(BOUND)
    assert stopped.value.number == number


def test_a_signal_that_came_before_ends_the_next_wait() -> None:
    with Stop() as stop:
        kill(signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(math.inf)


def test_a_wait_of_no_seconds_hears_it_too() -> None:
    with Stop() as stop:
        kill(signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(0)


def test_a_stop_comes_before_readable_data() -> None:
    here, there = socket.socketpair()
    with here, there, Stop() as stop:
        there.send(b"!")
        kill(signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(BOUND, here.fileno())


def test_a_wait_for_writing_is_stopped_as_well() -> None:
    here, there = socket.socketpair()
    with here, there, Stop() as stop:
        here.settimeout(0)
        while Clock().wait_writable(0, here.fileno()):
            here.send(b"x" * 65536)
        timer = threading.Timer(0.01, kill, (signal.SIGTERM,))
        timer.start()
        with pytest.raises(Stopped):
            Clock(stop).wait_writable(BOUND, here.fileno())


def test_once_stopped_every_further_wait_is_stopped_too() -> None:
    with Stop() as stop:
        kill(signal.SIGINT)
        for _ in range(3):
            with pytest.raises(Stopped):
                Clock(stop).wait(BOUND)


def test_the_first_of_several_signals_is_the_one_that_counts() -> None:
    with Stop() as stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            kill(number)
        with pytest.raises(Stopped) as stopped:
            Clock(stop).wait(BOUND)
    assert stopped.value.number == signal.SIGINT


def test_more_signals_than_the_pipe_holds_do_no_harm() -> None:
    with Stop() as stop:
        for _ in range(70_000):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(BOUND)


def test_outside_of_a_wait_a_signal_raises_nothing() -> None:
    with Stop() as stop:
        kill(signal.SIGTERM)
        Path("/").stat()  # the work between two waits
        with pytest.raises(Stopped):
            Clock(stop).wait(BOUND)


def test_a_signal_that_no_wait_heard_is_raised_at_the_end() -> None:
    with pytest.raises(Stopped), Stop():
        kill(signal.SIGTERM)


def test_an_error_on_its_way_out_is_not_replaced() -> None:
    def fail() -> None:
        kill(signal.SIGTERM)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), Stop():
        fail()


def test_the_earlier_handlers_are_restored() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    with Stop():
        pass
    kill(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_was_inherited_as_blocked_is_heard() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    with Stop() as stop:
        kill(signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(BOUND)


def test_no_descriptor_is_left_open() -> None:
    before = os.dup(0)
    with Stop():
        pass
    after = os.dup(0)
    os.close(before)
    os.close(after)
    assert after == before + 1


def test_a_signal_that_the_kernel_gives_to_another_thread_is_heard() -> None:
    """OpenBSD gives it to any thread that does not block it."""
    here, there = socket.socketpair()
    with here, there, Stop() as stop:
        thread = threading.Thread(target=lambda: here.recv(1))
        thread.start()
        assert thread.ident is not None
        signal.pthread_kill(thread.ident, signal.SIGTERM)
        with pytest.raises(Stopped):
            Clock(stop).wait(BOUND)
        there.send(b"!")
        thread.join()


def test_the_thread_of_a_look_up_gets_neither_signal() -> None:
    masks: list[set[int]] = []

    def lookup(*_: object) -> list[object]:
        masks.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        return []

    Resolver(Clock(), lookup).addresses("meta.example", 80, BOUND)
    assert set(SIGNALS) <= masks[0]
    assert not set(SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


# In processes of their own, as hooks for fork(2) cannot be removed.
BEGIN = """
import os, signal, sys
from scw_signal.clock import Clock
from scw_signal.errors import Stopped
from scw_signal.stop import Stop

def heard(stop):
    try:
        Clock(stop).wait(0)
    except Stopped:
        return 1
    return 0

def split(stop):
    os.waitpid(stop.fork() or os._exit(0), 0)
"""


def script(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    "place",
    [
        "os.register_at_fork(before=term); split(stop)",
        "os.register_at_fork(after_in_parent=term); split(stop)",
        "type('X', (), {'__del__': lambda self: term()})()",
        "type('Y', (), {'d': type('Z', (), {'__set_name__': lambda *_: term()})()})",
    ],
    ids=["before a fork", "after a fork", "in a finalizer", "in a class body"],
)
def test_a_signal_is_not_lost_where_exceptions_are_lost(place: str) -> None:
    code = f"""
with Stop() as stop:
    term = lambda: os.kill(os.getpid(), signal.SIGTERM)
    {place}
    print(heard(stop))
"""
    assert script(code) == "1"


def test_a_signal_to_one_half_is_not_heard_by_the_other() -> None:
    code = """
with Stop() as stop:
    child = stop.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(heard(stop))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), heard(stop))
"""
    assert script(code) == "1 0"


def test_a_signal_before_the_fork_is_for_the_parent_alone() -> None:
    code = """
with Stop() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    child = stop.fork()
    if child == 0:
        os._exit(heard(stop))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), heard(stop))
"""
    assert script(code) == "0 1"
