"""SIGTERM and SIGINT, heard wherever this process waits, and nowhere else.

One mechanism for both signals, both halves of the agent and every stage: the
interpreter's C handler writes the number of the signal into a pipe
(signal.set_wakeup_fd), every wait polls that pipe too (clock.py), and the wait
raises Stopped.

Why not a handler that raises: Python runs it between any two instructions of the
main thread. That can be inside a finalizer or an at-fork hook, which throw
exceptions away, or inside a class body, which turns them into another error.

Why not signals that are blocked except in a wait: that takes ppoll(2), which
Python lacks. And why a pipe at all: OpenBSD gives a signal to any thread that does
not block it, while Python's handlers run in the main thread only, which sleeps on
in poll(2). The C handler runs in the thread that got the signal, so the byte is
always written.

What follows from it: nothing here may block outside a wait of the clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, final

from .errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@final
class Stop:
    """The two signals as a descriptor, from entering this context to leaving it."""

    def __init__(self) -> None:
        """Take over nothing yet."""
        self._number: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stop:
        """Take the signals over, also where they were inherited as blocked."""
        self._open()
        with held_back():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, _written_already)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the signals as they were; raises Stopped if one came unheard."""
        with held_back():
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type] # as it gave it
        try:
            if error is None and not self.heard:
                self.check()
        finally:
            self._close()

    @property
    def heard(self) -> bool:
        """Whether a wait has been stopped already; every further one is, too."""
        return self._number is not None

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self._number is None:
            try:
                self._number = os.read(self.descriptor, 1)[0]
            except BlockingIOError:
                return
        raise Stopped(self._number)

    def fork(self) -> int:
        """Fork; return as os.fork does. Each half then hears its own signals.

        They are held back meanwhile: one for this half must not be written into
        the pipe of the other. Raises OSError.
        """
        with held_back():
            child = os.fork()
            if child == 0:
                self._close()
                self._open()
        return child

    def _open(self) -> None:
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        # A full pipe has told of a stop long ago.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold both signals back; a thread that is started here never gets one.

    Nor does a change of handlers: Python writes a traceback for a signal that comes
    in the middle of one, and forgets it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _written_already(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the C handler that had this called has written to the pipe."""
