"""Waiting for the resolver, which may block for any length of time."""

from __future__ import annotations

import errno
import itertools
import socket
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from scw_signal.resolver import Resolver, no_such_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes import FakeClock

    Outcome = str | Exception | None
    Made = tuple[Resolver, "Lookups"]
    Make = Callable[..., Made]

BOUND = 10.0  # seconds after which a thread counts as lost
NAME = "scaleway.com"
ANSWER = "an answer"
FOUND = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
FAILURE = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

without = pytest.mark.parametrize(
    "broken", ["socket.socketpair", "threading.Thread.start"], ids=["socket", "thread"]
)


def shortage(broken: str) -> Exception:
    """Return the exception that is raised if no descriptor or thread is left."""
    return RuntimeError() if "Thread" in broken else OSError(errno.EMFILE, "too many")


class Lookups:
    """Look-ups that do as they are told: answer, raise, or block until let go."""

    def __init__(self, clock: FakeClock, *outcomes: Outcome) -> None:
        """Take the outcome of each in turn; the last is repeated. None blocks."""
        self.asked: list[float] = []
        self.threads: dict[threading.Thread, Outcome] = {}
        self.questions: list[tuple[str, int]] = []
        self._start = clock.now
        self._clock = clock
        self._outcomes = itertools.chain(outcomes, itertools.repeat(outcomes[-1]))
        self._bystanders = set(threading.enumerate())
        self._entered = threading.Condition()
        self._gates: dict[threading.Thread, SimpleQueue[str | Exception]] = {}
        clock.settle = self._settle

    def __call__(self, name: str, port: int, family: int, kind: int) -> list[Any]:
        assert (family, kind) == (0, socket.SOCK_STREAM)
        with self._entered:
            outcome = next(self._outcomes)
            self.asked.append(self._clock.now - self._start)
            self.questions.append((name, port))
            self.threads[threading.current_thread()] = outcome
            gate = self._gates.setdefault(threading.current_thread(), SimpleQueue())
            self._entered.notify()
        outcome = outcome or gate.get()
        if isinstance(outcome, Exception):
            raise outcome
        return [FOUND]

    def _settle(self) -> None:
        """Wait until each thread that was started blocks or has ended."""
        for thread in set(threading.enumerate()) - self._bystanders:
            with self._entered:
                while thread not in self.threads:
                    assert self._entered.wait(BOUND), "nobody is asked"
            if self.threads[thread] is not None:
                thread.join(BOUND)
                assert not thread.is_alive()

    def let_go(self, outcome: str | Exception = ANSWER, most: int = 99) -> None:
        """End up to `most` look-ups that block, the oldest first, and wait for them."""
        for thread, gate in itertools.islice(self._gates.items(), most):
            gate.put(outcome)
            thread.join(BOUND)
            assert not thread.is_alive()


@pytest.fixture
def make(clock: FakeClock) -> Iterator[Make]:
    """Return a function that makes a resolver and its look-ups; end those at last."""
    made = []

    def make(*outcomes: Outcome) -> Made:
        lookups = Lookups(clock, *outcomes)
        made.append((Resolver(clock, lookups), lookups))
        return made[-1]

    yield make
    for resolver, lookups in made:
        lookups.let_go()
        assert resolver.idle()


def test_the_resolver_is_asked_for_the_name_once_if_it_answers(make: Make) -> None:
    resolver, lookups = make(ANSWER)
    assert resolver.await_answer(NAME, 15)
    assert lookups.questions == [(NAME, 80)]
    assert lookups.asked == [0]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(getattr(socket, name), id=name)
        for name in ("EAI_NONAME", "EAI_NODATA")
        if getattr(socket, name, 0) in no_such_name(sys.platform)
    ],
)
def test_no_such_name_is_an_answer(make: Make, number: int) -> None:
    resolver, lookups = make(socket.gaierror(number, "no such name"), FAILURE)
    assert resolver.await_answer(NAME, 15)
    assert lookups.asked == [0]


@pytest.mark.parametrize("platform", ["openbsd", "openbsd7"])
def test_on_openbsd_no_data_is_no_answer(platform: str) -> None:
    assert socket.EAI_NODATA not in no_such_name(platform)
    assert socket.EAI_NONAME in no_such_name(platform)


@pytest.mark.parametrize(
    "failure",
    [
        FAILURE,
        socket.gaierror(socket.EAI_FAIL, "Non-recoverable failure"),
        socket.gaierror(socket.EAI_SYSTEM, "System error"),
        OSError("the file /etc/resolv.conf cannot be read"),
        UnicodeError("label too long"),
    ],
    ids=repr,
)
def test_a_failure_is_no_answer(
    make: Make, clock: FakeClock, failure: Exception
) -> None:
    resolver, _ = make(failure)
    beginning = clock.now
    assert not resolver.await_answer(NAME, 15)
    assert clock.now - beginning == pytest.approx(15)


def test_after_a_failure_the_question_is_asked_again_until_an_answer_comes(
    make: Make,
) -> None:
    resolver, lookups = make(FAILURE, FAILURE, ANSWER)
    assert resolver.await_answer(NAME, 15)
    assert len(lookups.asked) == 3


def test_the_pauses_after_failures_grow_from_a_tenth_to_a_second(make: Make) -> None:
    resolver, lookups = make(FAILURE)
    resolver.await_answer(NAME, 6)
    assert lookups.asked == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 4.5, 5.5])


def test_each_question_has_its_own_daemon_thread(make: Make) -> None:
    resolver, lookups = make(FAILURE)
    resolver.await_answer(NAME, 1)
    assert len(lookups.threads) == len(lookups.asked) > 1
    assert all(thread.daemon for thread in lookups.threads)


@pytest.mark.parametrize("seconds", [0.5, 5.0, 15.0, 60.0])
def test_the_bound_holds_though_the_look_up_blocks(
    make: Make, clock: FakeClock, seconds: float
) -> None:
    resolver, _ = make(None)
    beginning = clock.now
    assert not resolver.await_answer(NAME, seconds)
    assert clock.now - beginning == seconds


def test_the_bound_holds_though_a_slow_failure_would_be_followed_by_a_pause(
    make: Make, clock: FakeClock
) -> None:
    resolver, lookups = make(None)
    beginning = clock.now
    clock.at(0.97, lambda: lookups.let_go(FAILURE))
    assert not resolver.await_answer(NAME, 1)
    assert clock.now - beginning == pytest.approx(1)


@without
def test_after_running_out_of_descriptors_or_threads_it_asks_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        monkeypatch.undo()  # the next question finds one
        raise shortage(broken)

    resolver, lookups = make(ANSWER)
    monkeypatch.setattr(broken, fail)
    assert resolver.await_answer(NAME, 15)
    assert len(lookups.asked) == 1


def test_with_no_time_nobody_is_asked(make: Make) -> None:
    resolver, lookups = make(ANSWER)
    assert not resolver.await_answer(NAME, 0)
    assert lookups.asked == []


def test_while_a_look_up_blocks_another_is_made_every_five_seconds(
    make: Make,
) -> None:
    resolver, lookups = make(None)
    resolver.await_answer(NAME, 15)
    assert lookups.asked == [0, 5, 10]


def test_the_second_question_may_be_the_one_that_is_answered(
    make: Make, clock: FakeClock
) -> None:
    resolver, _ = make(None, ANSWER)
    beginning = clock.now
    assert resolver.await_answer(NAME, 15)
    assert clock.now - beginning == 5


def test_an_answer_to_the_first_question_counts_though_a_second_was_asked(
    make: Make, clock: FakeClock
) -> None:
    resolver, lookups = make(None)
    beginning = clock.now
    clock.at(7.25, lambda: lookups.let_go(most=1))
    assert resolver.await_answer(NAME, 15)
    assert clock.now - beginning == 7.25
    assert lookups.asked == [0, 5]


def test_a_resolver_that_blocks_is_not_idle_before_it_has_answered(make: Make) -> None:
    resolver, lookups = make(None)
    assert not resolver.await_answer(NAME, 7)
    assert not resolver.idle()
    lookups.let_go()
    assert resolver.idle()


def test_a_resolver_with_one_of_two_questions_under_way_is_not_idle(make: Make) -> None:
    resolver, lookups = make(None, ANSWER)
    assert resolver.await_answer(NAME, 15)
    assert not resolver.idle()
    lookups.let_go()
    assert resolver.idle()


@pytest.mark.parametrize("outcome", [ANSWER, NO_NAME, FAILURE], ids=repr)
def test_a_resolver_whose_questions_have_ended_is_idle(
    make: Make, outcome: str | Exception
) -> None:
    resolver, _ = make(outcome)
    assert resolver.idle()
    resolver.await_answer(NAME, 1)
    assert resolver.idle()


def test_asking_whether_it_is_idle_takes_no_time(make: Make, clock: FakeClock) -> None:
    resolver, _ = make(None)
    resolver.await_answer(NAME, 1)
    before = clock.now
    resolver.idle()
    assert clock.now == before


def test_unless_told_otherwise_the_system_is_asked(clock: FakeClock) -> None:
    assert Resolver(clock)._lookup is socket.getaddrinfo


# The addresses of a host.


def test_a_host_has_the_addresses_that_the_look_up_finds(make: Make) -> None:
    resolver, lookups = make(ANSWER)
    found = resolver.addresses("host", 8080, 3)
    assert found == [(socket.AF_INET, ("192.0.2.1", 80))]
    assert lookups.questions == [("host", 8080)]
    assert resolver.idle()


@pytest.mark.parametrize("failure", [NO_NAME, FAILURE], ids=repr)
def test_an_error_of_the_look_up_is_raised(make: Make, failure: Exception) -> None:
    resolver, _ = make(failure)
    with pytest.raises(OSError, match=str(failure.args[1])):
        resolver.addresses("host", 80, 3)
    assert resolver.idle()


def test_an_invalid_host_name_raises_oserror(
    make: Make,
) -> None:
    resolver, _ = make(UnicodeError("label too long"))
    with pytest.raises(OSError, match="not a host name"):
        resolver.addresses("host", 80, 3)


@pytest.mark.parametrize("seconds", [0.5, 30.0])
def test_a_look_up_that_blocks_times_out_but_goes_on(
    make: Make, clock: FakeClock, seconds: float
) -> None:
    resolver, lookups = make(None)
    beginning = clock.now
    with pytest.raises(TimeoutError):
        resolver.addresses("host", 80, seconds)
    assert clock.now - beginning == seconds
    assert not resolver.idle()
    lookups.let_go()
    assert resolver.idle()


@without
def test_running_out_of_descriptors_or_threads_raises_oserror(
    make: Make, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise shortage(broken)

    resolver, _ = make(ANSWER)
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(OSError, match=r"thread|many"):
            resolver.addresses("host", 80, 3)
