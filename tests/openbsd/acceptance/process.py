"""Processes whose every line is kept, with its time, for claims and diagnostics."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .claim import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin",
    "LC_ALL": "C",
}
MOST_SHOWN = 60  # lines of a transcript in a diagnostic


class Line(NamedTuple):
    """A line that a process printed, or a note of a change to the machine."""

    moment: float  # time.monotonic()
    who: str
    text: str


class Transcript:
    """What happened during a claim, in the order in which it was seen."""

    def __init__(self, patience: float) -> None:
        """Begin; `patience` is how many seconds one wait for a line may take."""
        self.patience = patience
        self.start = time.monotonic()
        self.lines: list[Line] = []
        self.changed = threading.Condition()

    def add(self, who: str, text: str) -> float:
        """Add a line; return its moment."""
        with self.changed:
            line = Line(time.monotonic(), who, text)
            self.lines.append(line)
            self.changed.notify_all()
        return line.moment

    def wait(self, holds: Callable[[], object], seconds: float) -> bool:
        """Wait `seconds` at most until something holds; check it at each line."""
        end = time.monotonic() + seconds
        with self.changed:
            while not holds():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                # The end of a process prints no line: look now and then.
                self.changed.wait(min(left, 0.02))
        return True

    def shown(self) -> list[str]:
        """Return the transcript as readable lines."""
        return [
            f"{line.moment - self.start:8.3f} {line.who}: {line.text}"
            for line in self.lines[-MOST_SHOWN:]
        ]


class Process:
    """A process that is watched until `close`."""

    def __init__(
        self,
        transcript: Transcript,
        who: str,
        words: Sequence[str],
        *,
        user: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """Start it, as another user if one is given."""
        self._transcript = transcript
        self.who = who
        self._begun = len(transcript.lines)
        self._process = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=os.setpgrp,  # noqa: PLW1509 - from 3.11 on: process_group
            cwd="/",
            env={**ENVIRONMENT, **(env or {})},
            **as_user(user),
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def lines(self, pattern: str = "") -> list[Line]:
        """Return the lines so far that match a pattern."""
        seen = self._transcript.lines[self._begun :]
        return [
            line
            for line in seen
            if line.who == self.who and re.search(pattern, line.text)
        ]

    def line(self, pattern: str, count: int = 1, seconds: float | None = None) -> Line:
        """Wait for the line number `count` that matches a pattern."""
        patience = self._transcript.patience if seconds is None else seconds
        ended: list[bool] = []

        def there() -> bool:
            # In this order, so that its last lines are read before its end counts.
            ended[:] = [not self._reader.is_alive()]
            return len(self.lines(pattern)) >= count

        self._transcript.wait(lambda: there() or ended[0], patience)
        found = self.lines(pattern)
        if len(found) < count:
            told = (
                "has ended without" if ended[0] else f"did not print in {patience:g} s"
            )
            raise Failed(f"{self.who} {told}: {pattern}")
        return found[count - 1]

    def end(self, seconds: float | None = None) -> int:
        """Wait for the end; return the status, negative for the number of a signal."""
        patience = self._transcript.patience if seconds is None else seconds
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.who} still ran after {patience:g} s") from None
        self._reader.join(1)  # a background job may hold its output open
        return status

    def lines_of(self, pattern: str) -> Callable[[], list[Line]]:
        """Return a function that returns the lines so far that match a pattern."""
        return lambda: self.lines(pattern)

    def running(self) -> bool:
        """Tell whether it is still running."""
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send it a signal, of which it must die; return the seconds that took."""
        before = self._transcript.add("accept", f"{signal.Signals(number).name}")
        self._process.send_signal(number)
        status = self.end()
        seconds = time.monotonic() - before
        if status != -number:
            raise Failed(f"{self.who} ended with status {status}, not of the signal")
        return seconds

    def close(self) -> None:
        """Kill it, and everything in its process group."""
        with suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                text = line.decode(errors="backslashreplace").rstrip("\n")
                self._transcript.add(self.who, text)


class Done(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str
    seconds: float


def run(
    words: Sequence[str],
    *,
    stdin: bytes = b"",
    user: str | None = None,
    seconds: float = 60.0,
    env: dict[str, str] | None = None,
    check: bool = False,
) -> Done:
    """Run a command to its end; with `check`, raises Failed unless it succeeds."""
    before = time.monotonic()
    try:
        done = subprocess.run(
            list(words),
            input=stdin,
            capture_output=True,
            timeout=seconds,
            cwd="/",
            env={**ENVIRONMENT, **(env or {})},
            preexec_fn=os.setpgrp,
            check=False,
            **as_user(user),
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words)}: still ran after {seconds:g} s") from None
    except OSError as error:
        raise Failed(f"{words[0]}: {error.strerror}") from None
    out, err = (
        data.decode(errors="backslashreplace") for data in (done.stdout, done.stderr)
    )
    if check and done.returncode != 0:
        said = (err or out).strip()
        raise Failed(f"{' '.join(words)}: status {done.returncode}: {said}")
    return Done(done.returncode, out, err, time.monotonic() - before)


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments that make subprocess become a user and only its group."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}
