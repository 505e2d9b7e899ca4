"""The system's resolver, with time limits that hold even if it blocks.

Nothing can interrupt getaddrinfo(3). So it runs in a thread that never gets SIGTERM
or SIGINT, and the waiting thread can be stopped. Each question gets a new thread: on
OpenBSD the resolver of a thread reads /etc/resolv.conf again only 15 s after the last
time (libc's asr.c), and resolvd(8) may write that file at any moment of the boot.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from .stop import held_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .wire import Address

    Lookup = Callable[..., list[Any]]

ASK_AGAIN_FIRST = 0.1  # seconds after the first failure; they double ...
ASK_AGAIN_CAP = 1.0  # ... up to this
BLOCKED_SECONDS = 5.0  # without an answer, until another question is asked in parallel
ANY_PORT = 80  # getaddrinfo(3) takes a port; here only the name matters


def no_such_name(platform: str) -> frozenset[int]:
    """Return the errors of getaddrinfo(3) that say that a name does not exist.

    They count as answers, since a name server has sent them. EAI_NODATA does not on
    OpenBSD: its libc returns it also without a resolv.conf(5), with an empty one, and
    when the name server refuses (tried on 7.7-current). Some systems do not have it.
    """
    answers = {socket.EAI_NONAME}
    if not platform.startswith("openbsd") and hasattr(socket, "EAI_NODATA"):
        answers.add(socket.EAI_NODATA)
    return frozenset(answers)


_ANSWERS = no_such_name(sys.platform)


class _Question:
    """One look-up in its own thread; its socket is readable when it has ended."""

    def __init__(self, name: str, port: int, lookup: Lookup) -> None:
        """Begin; raises OSError if there is no descriptor or no thread left."""
        self.found: list[Any] = []
        self.failure: OSError | None = None
        self.done, self._hangup = socket.socketpair()
        thread = threading.Thread(
            target=self._ask, args=(name, port, lookup), daemon=True
        )
        try:
            with held_back():
                thread.start()
        except RuntimeError:
            self._hangup.close()
            self.done.close()
            raise OSError(errno.EAGAIN, "cannot start a thread") from None

    @property
    def answered(self) -> bool:
        """Whether there is an answer, even if it is that the name does not exist."""
        if isinstance(self.failure, socket.gaierror):
            return self.failure.errno in _ANSWERS
        return self.failure is None

    def _ask(self, name: str, port: int, lookup: Lookup) -> None:
        try:
            self.found = lookup(name, port, 0, socket.SOCK_STREAM)
        except OSError as error:
            self.failure = error
        except UnicodeError:
            self.failure = OSError(errno.EINVAL, "not a host name")
        finally:
            self._hangup.close()


class Resolver:
    """The system's resolver."""

    def __init__(self, clock: Clock, lookup: Lookup = socket.getaddrinfo) -> None:
        """Take the clock for the waits."""
        self._clock = clock
        self._lookup = lookup
        self._asked: list[_Question] = []

    def addresses(self, name: str, port: int, seconds: float) -> list[Address]:
        """Return the socket addresses of a host, each with its family.

        Raises OSError; it is TimeoutError when `seconds` have passed.
        """
        question = self._ask(name, port)
        if not self._clock.wait(seconds, question.done.fileno()):
            raise TimeoutError
        self._collect()
        if question.failure is not None:
            raise question.failure
        return [(family, address) for family, _, _, _, address in question.found]

    def await_answer(self, name: str, seconds: float) -> bool:
        """Wait at most `seconds` for an answer about `name`; tell whether one came.

        "This name does not exist" is an answer too.
        """
        end = self._clock.monotonic() + seconds
        again = ASK_AGAIN_FIRST
        while (left := end - self._clock.monotonic()) > 0:
            try:
                self._ask(name, ANY_PORT)
            except OSError:
                pass  # ask again later
            if not self._clock.wait(min(BLOCKED_SECONDS, left), *self._descriptors()):
                continue
            ended = self._collect()
            if any(question.answered for question in ended):
                return True
            left = end - self._clock.monotonic()
            self._clock.wait(max(0.0, min(again, left)))
            again = min(2 * again, ASK_AGAIN_CAP)
        return False

    def idle(self) -> bool:
        """Tell whether all questions have ended.

        A question may go on asking name servers for minutes. Until it ends, the
        promise `dns` cannot be given up.
        """
        self._collect()
        return not self._asked

    def _ask(self, name: str, port: int) -> _Question:
        question = _Question(name, port, self._lookup)
        self._asked.append(question)
        return question

    def _descriptors(self) -> list[int]:
        return [question.done.fileno() for question in self._asked]

    def _collect(self) -> list[_Question]:
        """Remove the questions that have ended, and return them."""
        ended = [q for q in self._asked if self._clock.wait(0, q.done.fileno())]
        for question in ended:
            question.done.close()
            self._asked.remove(question)
        return ended
