"""The system's resolver, within bounds that hold even while it blocks.

Nothing can interrupt getaddrinfo(3), so it runs in a thread that never gets a
SIGTERM or SIGINT, and whoever waits for it can be stopped. Each question gets a fresh
thread: on OpenBSD a thread's resolver looks at /etc/resolv.conf again only 15 s after
its last look (libc's asr.c), and resolvd(8) may write that file at any moment of the
boot.
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

ASK_AGAIN_FIRST = 0.1  # seconds after a failure, doubling ...
ASK_AGAIN_CAP = 1.0  # ... up to this
BLOCKED_SECONDS = 5.0  # after which another question goes out beside the first
ANY_PORT = 80  # where only the name matters


def no_such_name(platform: str) -> frozenset[int]:
    """Return the errors of getaddrinfo(3) that say that a name does not exist.

    Which is an answer: somebody has been asked. On OpenBSD, libc says EAI_NODATA for
    that too, but also without a resolv.conf(5), with an empty one and where the name
    server refuses, so there it is no answer (tried on 7.7-current). Not every system
    has it.
    """
    answers = {socket.EAI_NONAME}
    if not platform.startswith("openbsd") and hasattr(socket, "EAI_NODATA"):
        answers.add(socket.EAI_NODATA)
    return frozenset(answers)


_ANSWERS = no_such_name(sys.platform)


class _Question:
    """One look-up in a thread of its own; its socket tells when it has ended."""

    def __init__(self, name: str, port: int, lookup: Lookup) -> None:
        """Begin; raises OSError for want of a descriptor or a thread."""
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
        """Whether somebody has answered, if only that the name does not exist."""
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
        """Take the clock by which it is waited for."""
        self._clock = clock
        self._lookup = lookup
        self._asked: list[_Question] = []

    def addresses(self, name: str, port: int, seconds: float) -> list[Address]:
        """Return the socket addresses of a host, each with its family.

        Raises OSError, as TimeoutError when `seconds` have passed.
        """
        question = self._ask(name, port)
        if not self._clock.wait(seconds, question.done.fileno()):
            raise TimeoutError
        self._collect()
        if question.failure is not None:
            raise question.failure
        return [(family, address) for family, _, _, _, address in question.found]

    def await_answer(self, name: str, seconds: float) -> bool:
        """Wait until `name` is answered for; return whether it was within `seconds`.

        That there is no such name is an answer as well.
        """
        end = self._clock.monotonic() + seconds
        again = ASK_AGAIN_FIRST
        while (left := end - self._clock.monotonic()) > 0:
            try:
                self._ask(name, ANY_PORT)
            except OSError:
                pass  # perhaps next time
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
        """Tell whether no question is under way any more.

        One that is may go on for minutes, asking nameservers as it likes: as
        long as it does, the promise `dns` cannot be given up.
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
        """Take out the questions that have ended, and return them."""
        ended = [q for q in self._asked if self._clock.wait(0, q.done.fileno())]
        for question in ended:
            question.done.close()
            self._asked.remove(question)
        return ended
