"""The original process waits for a second one, which does the work.

On Linux, the second process is in namespaces. On OpenBSD, it is in a session with its
own terminal, where the kernel says which process it has killed and why.
"""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import threading
import time
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MARK = "scw-accept"
_SECONDS = 2.0  # for a line to come through the terminal


def wait_for(child: int) -> NoReturn:
    """Pass signals on to the enclosed process, and exit with its status."""
    for number in SIGNALS:
        signal.signal(number, lambda received, _: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


class Terminal:
    """The controlling terminal of all processes started here, and its lines.

    OpenBSD's kernel reports a broken promise there, and nowhere else.
    """

    def __init__(self) -> None:
        """Begin without lines."""
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._marks = 0
        self._slave = -1

    def enter(self) -> None:
        """Fork, and continue in a session with this terminal. The parent waits.

        If the parent is killed, this process gets a signal to end.
        """
        lifeline, held = os.pipe()
        child = os.fork()
        if child != 0:
            os.close(lifeline)
            wait_for(child)
        os.close(held)
        os.setsid()
        master, self._slave = os.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        for work, descriptor in ((_end_with, lifeline), (self._read, master)):
            threading.Thread(target=work, args=(descriptor,), daemon=True).start()

    def take(self) -> list[str]:
        """Return all lines written between the last call and now."""
        if self._slave >= 0:
            self._marks += 1
            os.write(self._slave, f"{_MARK} {self._marks}\n".encode())
        end = time.monotonic() + _SECONDS
        with self._changed:
            while self._slave >= 0 and f"{_MARK} {self._marks}" not in self._lines:
                if not self._changed.wait(end - time.monotonic()):
                    break
            lines = [line for line in self._lines if not line.startswith(_MARK)]
            self._lines = []
        return lines

    def heard(self, line: str) -> None:
        """Take a line from the terminal."""
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def _read(self, master: int) -> None:
        rest = b""
        while chunk := os.read(master, 4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.heard(line.decode(errors="backslashreplace").rstrip("\r"))


def _end_with(lifeline: int) -> None:
    """End this process when the other end is closed."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
