"""Waits for the resolver, within a bound that holds even while it blocks.

getaddrinfo(3) can not be interrupted, so it runs in a thread. Each question
gets a fresh one: on OpenBSD a thread's resolver looks at /etc/resolv.conf again
only 15 s after its last look (libc's asr.c), and resolvd(8) may write that
file at any moment of the boot.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock

    Lookup = Callable[[str, int], object]

ASK_AGAIN_FIRST = 0.1  # seconds after a failure, doubling ...
ASK_AGAIN_CAP = 1.0  # ... up to this
BLOCKED_SECONDS = 5.0  # after which another question goes out beside the first

# That a name does not exist is an answer: somebody has been asked. EAI_NODATA
# is not everywhere.
_ANSWERS = frozenset(
    number
    for number in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
    if number is not None
)


class _Question:
    """One look-up in a thread of its own; its socket tells when it has ended."""

    def __init__(self, name: str, lookup: Lookup) -> None:
        self.answered = False
        self.done, self._hangup = socket.socketpair()
        thread = threading.Thread(target=self._ask, args=(name, lookup), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._hangup.close()
            self.done.close()
            raise

    def _ask(self, name: str, lookup: Lookup) -> None:
        try:
            lookup(name, 80)
            self.answered = True
        except socket.gaierror as error:
            self.answered = error.errno in _ANSWERS
        except (OSError, UnicodeError):
            pass
        finally:
            self._hangup.close()


class Resolver:
    """The system's resolver, asked whether it answers yet."""

    def __init__(
        self,
        name: str,
        seconds: float,
        clock: Clock,
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        """Take the name to ask for and how many seconds to wait at most."""
        self._name = name
        self._seconds = seconds
        self._clock = clock
        self._lookup = lookup
        self._asked: list[_Question] = []

    def await_answer(self) -> bool:
        """Wait for an answer, and return whether one came.

        That there is no such name is an answer as well.
        """
        end = self._clock.monotonic() + self._seconds
        again = ASK_AGAIN_FIRST
        while (left := end - self._clock.monotonic()) > 0:
            self._ask()
            if not self._clock.wait(min(BLOCKED_SECONDS, left), *self._descriptors()):
                continue
            ended = self._collect()
            if any(question.answered for question in ended):
                return True
            left = end - self._clock.monotonic()
            self._clock.wait(max(0.0, min(again, left)))
            again = min(2 * again, ASK_AGAIN_CAP)
        return False

    def _ask(self) -> None:
        try:
            self._asked.append(_Question(self._name, self._lookup))
        except (OSError, RuntimeError):
            pass  # no descriptor or no thread is to be had; perhaps next time

    def idle(self) -> bool:
        """Tell whether no question is under way any more.

        One that is may go on for minutes, asking nameservers as it likes: as
        long as it does, the promise `dns` can not be given up.
        """
        self._collect()
        return not self._asked

    def _descriptors(self) -> list[int]:
        return [question.done.fileno() for question in self._asked]

    def _collect(self) -> list[_Question]:
        """Take out the questions that have ended, and return them."""
        ended = [q for q in self._asked if self._clock.wait(0, q.done.fileno())]
        for question in ended:
            question.done.close()
            self._asked.remove(question)
        return ended
