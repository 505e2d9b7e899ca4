"""What root does for the agent: the other half of a process that is split in two.

The agent speaks to the network without privileges. What takes root is done by its
parent, which speaks to nobody else. The agent can ask it for three things only:

    a TCP socket that is bound to a port below 1024, to ask for user data with
    to set the host name, if the name is one
    to run a script, once for each instance and once in the life of the parent

The parent holds every request against these rules itself. Each is answered by a
frame that says whether it was done, and what there is to say.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess  # before the lock-down, for it brings shared objects along
import sys
from typing import TYPE_CHECKING

from .document import is_hostname
from .errors import DutyError, ScwSignalError, StoreError
from .store import Store, read
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .clock import Clock

# Root's own, and outlives a boot: hier(7).
DIRECTORY = f"/var/{'lib' if sys.platform == 'linux' else 'db'}/scw_signal"
RAN = "instance"  # in it: the instance whose user data was run
SCRIPT = "user-data"  # in it: the script itself
SCRIPT_SECONDS = 600.0  # after that the signal waits no longer, though it goes on
SCRIPT_LIMIT = 1024 * 1024  # bytes
POLL_SECONDS = 0.2  # between looks whether a script that prints nothing has ended
LONGEST_LINE = 1000  # characters of a line of its output
PIPE_BYTES = 65536  # on Linux; elsewhere a pipe holds less
PATH = "/sbin:/usr/sbin:/bin:/usr/bin:/usr/local/sbin:/usr/local/bin"
# Where the host name is kept for the next boot: myname(5), hostname(5).
KEPT = {"openbsd": "/etc/myname", "netbsd": "/etc/myname", "linux": "/etc/hostname"}

_PORT, _HOSTNAME, _RUN = b"p", b"h", b"r"
_DONE, _FAILED = b"+", b"-"
_FRAME = struct.Struct("!cI")
_LONGEST = SCRIPT_LIMIT + 1024  # bytes of a frame
_INSTANCE = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}


class Parent:
    """The parent, as the agent sees it. Every method raises DutyError."""

    def __init__(self, channel: socket.socket) -> None:
        """Take the agent's end of the socket pair."""
        self._channel = channel

    def close(self) -> None:
        """Ask for nothing more."""
        self._channel.close()

    def reserved_socket(self, family: int) -> socket.socket:
        """Return a TCP socket of a family, bound to a port below 1024."""
        which = b"6" if family == socket.AF_INET6 else b"4"
        self._ask(_PORT, which)
        _, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not descriptors:
            raise DutyError("no socket came with the answer")
        return socket.socket(family, socket.SOCK_STREAM, 0, fileno=descriptors[0])

    def set_hostname(self, name: str) -> str:
        """Set the host name; return what was done."""
        return self._ask(_HOSTNAME, name.encode(errors="replace"))

    def run_user_data(self, instance: str, script: bytes) -> str:
        """Run a script if it was not for this instance; return what became of it.

        After SCRIPT_SECONDS it is not waited for any more.
        """
        return self._ask(_RUN, instance.encode(errors="replace") + b"\0" + script)

    def _ask(self, kind: bytes, payload: bytes) -> str:
        try:
            _send(self._channel, kind, payload)
            frame = _receive(self._channel)
        except OSError as error:
            raise DutyError(f"the privileged process: {error.strerror}") from None
        if frame is None:
            raise DutyError("the privileged process has ended")
        done, text = frame
        if done != _DONE:
            raise DutyError(text.decode(errors="replace"))
        return text.decode(errors="replace")


class Duties:
    """What the parent can be asked for."""

    def __init__(
        self,
        clock: Clock,
        tell: Callable[[str], None],
        reserve: Callable[[int], socket.socket],
        *,
        directory: str = DIRECTORY,
        kept: str | None = None,
    ) -> None:
        """Take the log for what a script prints, and what makes a reserved socket.

        `directory` is where it is noted what was run, `kept` the file with the
        host name for the next boot.
        """
        self._clock = clock
        self._tell = tell
        self._reserve = reserve
        self._directory = directory
        system = sys.platform.rstrip("0123456789")
        self._kept = KEPT.get(system) if kept is None else kept
        self._script: subprocess.Popen[bytes] | None = None

    def serve(self, channel: socket.socket) -> None:
        """Do what is asked for until the agent has left; raises OSError."""
        while (frame := _receive(channel)) is not None:
            self._answer(channel, *frame)

    def stop(self) -> None:
        """Pass SIGTERM on to a script that runs."""
        if self._script is not None and self._script.poll() is None:
            os.killpg(self._script.pid, signal.SIGTERM)

    def _answer(self, channel: socket.socket, kind: bytes, payload: bytes) -> None:
        try:
            self._do(channel, kind, payload)
        except (ScwSignalError, OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            _send(channel, _FAILED, reason.encode())

    def _do(self, channel: socket.socket, kind: bytes, payload: bytes) -> None:
        if kind == _PORT and payload in _FAMILIES:
            with self._reserve(_FAMILIES[payload]) as bound:
                _send(channel, _DONE)
                socket.send_fds(channel, [b"."], [bound.fileno()])
        elif kind == _HOSTNAME:
            _send(channel, _DONE, self._set_hostname(payload.decode()).encode())
        elif kind == _RUN:
            instance, _, script = payload.partition(b"\0")
            self._run(channel, instance.decode(), script)
        else:
            raise DutyError("there is no such duty")

    def _set_hostname(self, name: str) -> str:
        if not is_hostname(name):
            raise DutyError(f"not a host name: {printable(name, 60)!r}")
        done = []
        if not _same(os.uname().nodename, name):
            # Not sethostname(3): no promise of pledge(2) allows it.
            with self._popen(["/bin/hostname", name]):
                pass  # which waits for its end
            if os.uname().nodename != name:
                raise DutyError(f"hostname(1) did not set it to {name!r}")
            done.append("set")
        if self._kept is not None:
            place, _, file = self._kept.rpartition("/")
            if not _same((read(place, file) or "").strip(), name):
                Store(place).write(file, f"{name}\n".encode())
                done.append(f"written to {self._kept}")
        return f"{name!r} {' and '.join(done) or 'already'}"

    def _run(self, channel: socket.socket, instance: str, script: bytes) -> None:
        """Run a script, answer when it has ended or has taken too long, and log it."""
        if not _INSTANCE.fullmatch(instance):
            raise DutyError(f"not the id of an instance: {printable(instance, 60)!r}")
        if not script.startswith(b"#!") or len(script) > SCRIPT_LIMIT:
            raise DutyError("not a script")
        if self._script is not None:
            raise DutyError("a script was run already")
        if (read(self._directory, RAN) or "").strip() == instance:
            _send(channel, _DONE, b"was run for this instance before")
            return
        # Not as a context: at its end a Popen is waited for, and this process may be
        # stopped before the script is over.
        self._script = self._start(instance, script)
        answered = self._follow(channel, self._script)
        status = self._script.returncode
        said = f"ended with {_status(status)}"
        if answered:
            self._tell(f"user-data: {said}")
        else:
            _send(channel, _FAILED if status else _DONE, said.encode())

    def _follow(self, channel: socket.socket, script: subprocess.Popen[bytes]) -> bool:
        """Log what a script prints until it ends; tell whether it was answered for."""
        end = self._clock.monotonic() + SCRIPT_SECONDS
        answered = False
        for line in _output(script, self._clock):
            if line:
                self._tell(f"user-data: {printable(line, LONGEST_LINE)}")
            if not answered and self._clock.monotonic() >= end:
                answered = True
                said = f"still runs after {SCRIPT_SECONDS:.0f} s"
                _send(channel, _DONE, said.encode())
        return answered

    def _start(self, instance: str, script: bytes) -> subprocess.Popen[bytes]:
        """Note the instance, and start its script; raises StoreError or OSError.

        In this order: a script that is cut off by a crash is not run twice.
        """
        os.umask(0o077)
        try:
            store = Store(self._directory)
            store.write(SCRIPT, script, 0o700)
            store.write(RAN, f"{instance}\n".encode())
        except StoreError as error:
            raise StoreError(f"not run: {error}") from None
        finally:
            os.umask(0o022)
        return self._popen([f"{self._directory}/{SCRIPT}"])

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - running it is what was asked for
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={"PATH": PATH, "HOME": "/root", "LOGNAME": "root", "USER": "root"},
        )


def _output(child: subprocess.Popen[bytes], clock: Clock) -> Iterator[str]:
    """Yield the lines that a process prints until it ends; "" at each look.

    Not until the end of its output: it may close that and go on, and what it leaves
    in the background may keep it open for ever.
    """
    assert child.stdout is not None  # noqa: S101 - as it was started
    with child.stdout as output:
        open_ = [output.fileno()]
        rest, running = b"", True
        while running:
            running = child.poll() is None
            if clock.wait(POLL_SECONDS if running else 0.0, *open_):
                # All that a pipe holds, so that the last look misses nothing.
                chunk = os.read(open_[0], PIPE_BYTES)
                if not chunk:
                    open_.clear()
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
                rest = rest[:LONGEST_LINE]
            yield ""
    yield rest.decode(errors="replace")


def _status(status: int) -> str:
    if status < 0:
        return signal.Signals(-status).name
    return f"status {status}"


def _same(current: str, name: str) -> bool:
    """Tell whether a host name is the console's, perhaps with a domain of its own."""
    return current == name or ("." not in name and current.partition(".")[0] == name)


def _send(channel: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    channel.sendall(_FRAME.pack(kind, len(payload)) + payload)


def _receive(channel: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the next frame, or None when the other half has left; raises OSError."""
    head = _exactly(channel, _FRAME.size)
    if head is None:
        return None
    kind, length = _FRAME.unpack(head)
    payload = _exactly(channel, length) if length <= _LONGEST else None
    return None if payload is None else (kind, payload)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        chunk = channel.recv(size - len(data))
        if not chunk:
            return None
        data += chunk
    return data
