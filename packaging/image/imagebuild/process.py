"""Runs programs. Whatever interrupts a build, it leaves none of them behind."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scw_signal.terminal import printable

from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# The signals that end a build.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Call `handler` when a signal comes that ends a build."""
    before = [signal.signal(number, handler) for number in ENDING]
    try:
        yield
    finally:
        for number, former in zip(ENDING, before, strict=True):
            signal.signal(number, former)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back a signal that would end the build; raises KeyboardInterrupt at the end.

    For moments at which that exception would do harm: while a process or a thread
    starts, it would leave that running. Only the main thread gets signals, so in
    another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        held.append(number)

    with signals_handled(hold):
        yield
    if held:
        raise KeyboardInterrupt(held[0])


@contextmanager
def started(words: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process, which has ended after the block; raises BuildError."""
    process = None
    try:
        with signals_held():
            process = _start(words, options)
        yield process
    finally:
        if process:
            process.kill()
            with process:  # until it has died, it may still write
                pass


def _start(words: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    try:
        return subprocess.Popen(words, **options)  # noqa: S603 # no shell
    except OSError as error:
        raise BuildError(f"cannot run {words[0]}: {error.strerror}") from error


def run(words: Sequence[str]) -> str:
    """Run a command to its end; return its output; raises BuildError."""
    pipe = subprocess.PIPE
    with started(words, stdout=pipe, stderr=pipe, text=True) as process:
        output, complaints = process.communicate()
    if process.returncode:
        said = complaints.strip().rpartition("\n")[2] or f"status {process.returncode}"
        raise BuildError(printable(said))
    return str(output)
