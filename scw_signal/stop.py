"""SIGTERM and SIGINT: they end a wait of this process, and interrupt nothing else.

One mechanism serves both signals, both halves of the agent and every stage. The
interpreter's C handler writes the number of the signal into a pipe
(signal.set_wakeup_fd). Every wait polls that pipe too (clock.py) and raises Stopped.

Why not a handler that raises: Python runs it between any two instructions of the
main thread. That can be inside a finalizer or an at-fork hook, which discard
exceptions, or inside a class body, which turns them into another error.

Why not block the signals except during a wait: that needs ppoll(2), which Python
lacks. Why a pipe: OpenBSD delivers a signal to any thread that does not block it.
Python's handlers run only in the main thread, which would go on sleeping in poll(2).
The C handler runs in the thread that got the signal, so the byte is always written.

As a consequence, the agent must block only in waits of the clock.
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
    """A context manager that makes the two signals readable from a descriptor."""

    def __init__(self) -> None:
        """Do nothing yet."""
        self._number: int | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Stop:
        """Take over the signals, and unblock them if they were inherited blocked."""
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
        """Restore the signals; raises Stopped if one came that no wait has seen."""
        with held_back():
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type] # its own value
        try:
            if error is None and not self.heard:
                self.check()
        finally:
            self._close()

    @property
    def heard(self) -> bool:
        """Whether a stop was seen; from then on every wait raises Stopped."""
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
        """Fork, and return what os.fork does. Each half then gets its own signals.

        They are held back meanwhile, so that no signal of one half is written into
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
        # If the pipe is full, it has reported a stop long ago.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold both signals back; a thread started in this context never gets one.

    Also used while handlers are changed: if a signal comes in the middle of that,
    Python prints a traceback and loses the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _written_already(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the C handler has already written to the pipe."""
