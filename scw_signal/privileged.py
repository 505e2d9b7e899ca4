"""What root does for the agent: the privileged half of a process split in two.

The agent talks to the network without privileges. Its parent stays root, and talks
to nobody but the agent. The agent can ask it for only three things, each only if the
command line asked for it:

    a TCP socket that is bound to a port below 1024, to ask for user data
    to set the host name, if the name is valid
    to run a script, once for each instance and once in the life of the parent

The parent checks these rules for every request. It answers with a frame that says
whether the request was done, and a text. Every wait of either half goes through the
clock, so that a stop ends it even if the other half hangs.
"""

from __future__ import annotations

import array  # noqa: F401 - socket.recv_fds would import it behind the lock
import os
import re
import shutil
import signal
import socket
import struct
import subprocess  # before the lock-down, since it loads shared objects
import sys
from typing import TYPE_CHECKING

from .clock import Clock
from .document import is_hostname
from .errors import DutyError, ScwSignalError, StoreError
from .script import has_dos_lines, interpreter, not_a_script
from .store import Store, read
from .terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .log import Log

# Belongs to root and survives a reboot: hier(7).
DIRECTORY = f"/var/{'lib' if sys.platform == 'linux' else 'db'}/scw_signal"
RAN = "instance"  # file in it: the instance whose user data was run
SCRIPT = "user-data"  # file in it: the script itself
SCRIPT_SECONDS = 600.0  # how long the signal waits for the script, which then goes on
SCRIPT_LIMIT = 1024 * 1024  # bytes
HOSTNAME_SECONDS = 10.0  # for hostname(1)
ANSWER_SECONDS = 60.0  # more than any duty takes; then the signal waits no longer
SCRIPT_GRACE_SECONDS = 0.3  # from SIGTERM to SIGKILL, for a script that is stopped
LOOK_SECONDS = 0.1  # between checks whether a process has ended
PATH = "/sbin:/usr/sbin:/bin:/usr/bin:/usr/local/sbin:/usr/local/bin"
# A separate process, since a script's background jobs may outlive the agent.
LOGGER = ("logger", "-t", "scw-user-data", "-p", "daemon.info")
# The file with the host name for the next boot: myname(5), hostname(5).
KEPT = {"openbsd": "/etc/myname", "netbsd": "/etc/myname", "linux": "/etc/hostname"}

_PORT, _HOSTNAME, _RUN = b"p", b"h", b"r"
_DONE, _FAILED = b"+", b"-"
_FRAME = struct.Struct("!cI")
_LONGEST = SCRIPT_LIMIT + 1024  # bytes of a frame
_INSTANCE = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_FAMILIES = {b"4": socket.AF_INET, b"6": socket.AF_INET6}
_ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LOGNAME": "root", "USER": "root"}


class Channel:
    """Frames to and from the other half. Every method raises OSError."""

    def __init__(self, end: socket.socket, clock: Clock) -> None:
        """Take one end of a socket pair, and the clock for its waits."""
        end.setblocking(False)  # noqa: FBT003 - the library's own parameter
        self._end = end
        self._clock = clock

    def close(self) -> None:
        """Hang up."""
        self._end.close()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._end.fileno()

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame."""
        left = memoryview(_FRAME.pack(kind, len(payload)) + payload)
        while left:
            self._clock.wait_writable(ANSWER_SECONDS, self.fileno())
            left = left[self._end.send(left) :]

    def receive(self, seconds: float = float("inf")) -> tuple[bytes, bytes] | None:
        """Return the next frame, or None when the other half has ended.

        Raises TimeoutError when `seconds` have passed.
        """
        end = self._clock.monotonic() + seconds
        head = self._exactly(_FRAME.size, end)
        if head is None:
            return None
        kind, length = _FRAME.unpack(head)
        payload = self._exactly(length, end) if length <= _LONGEST else None
        return None if payload is None else (kind, payload)

    def send_socket(self, bound: socket.socket) -> None:
        """Pass a socket to the other half."""
        self._clock.wait_writable(ANSWER_SECONDS, self.fileno())
        socket.send_fds(self._end, [b"."], [bound.fileno()])

    def receive_socket(self, family: int) -> socket.socket:
        """Return the TCP socket that the other half passes; it has this family."""
        self._clock.wait(ANSWER_SECONDS, self.fileno())
        _, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
        if not descriptors:
            raise OSError("no socket came with the answer")
        return socket.socket(family, socket.SOCK_STREAM, 0, fileno=descriptors[0])

    def _exactly(self, size: int, end: float) -> bytes | None:
        data = b""
        while len(data) < size:
            left = end - self._clock.monotonic()
            if not self._clock.wait(max(0.0, left), self.fileno()):
                raise TimeoutError
            chunk = self._end.recv(size - len(data))
            if not chunk:
                return None
            data += chunk
        return data


class Parent:
    """The parent, as the agent sees it. Every method raises DutyError."""

    def __init__(self, channel: Channel) -> None:
        """Take the agent's end."""
        self._channel = channel

    def close(self) -> None:
        """Ask for nothing more."""
        self._channel.close()

    def reserved_socket(self, family: int) -> socket.socket:
        """Return a TCP socket of a family, bound to a port below 1024."""
        self._ask(_PORT, b"6" if family == socket.AF_INET6 else b"4")
        try:
            return self._channel.receive_socket(family)
        except OSError as error:
            raise self._lost(error) from None

    def set_hostname(self, name: str) -> str:
        """Set the host name; return what was done."""
        return self._ask(_HOSTNAME, name.encode(errors="replace"))

    def run_user_data(self, instance: str, script: bytes) -> str:
        """Run a script, unless one was run for this instance; return the outcome.

        Waits for its end for SCRIPT_SECONDS at most.
        """
        payload = instance.encode(errors="replace") + b"\0" + script
        return self._ask(_RUN, payload, SCRIPT_SECONDS + ANSWER_SECONDS)

    def _ask(self, kind: bytes, payload: bytes, seconds: float = ANSWER_SECONDS) -> str:
        try:
            self._channel.send(kind, payload)
            frame = self._channel.receive(seconds)
        except OSError as error:
            raise self._lost(error) from None
        if frame is None:
            raise DutyError("the privileged process has ended")
        done, text = frame
        if done != _DONE:
            raise DutyError(text.decode(errors="replace"))
        return text.decode(errors="replace")

    def _lost(self, error: OSError) -> DutyError:
        """Hang up, since a late answer would be taken for that to the next request."""
        self.close()
        return DutyError(f"the privileged process: {error.strerror or 'no answer'}")


class Duties:
    """What the parent does for the agent."""

    def __init__(
        self,
        clock: Clock,
        log: Log,
        reserve: Callable[[int], socket.socket],
        *,
        hostname: bool,
        user_data: bool,
        to_stderr: bool = False,
        directory: str = DIRECTORY,
        kept: str | None = None,
    ) -> None:
        """Take the clock, the log, and a function that makes a reserved socket.

        `hostname` and `user_data` say what the command line asked for; anything
        else is refused. `to_stderr` sends the output of a script to standard error
        instead of syslog. `directory` has the record of what was run. `kept` is the
        file with the host name for the next boot.
        """
        self._clock = clock
        self._log = log
        self._reserve = reserve
        self._may_set_hostname = hostname
        self._may_run = user_data
        self._to_stderr = to_stderr
        self._directory = directory
        system = sys.platform.rstrip("0123456789")
        self._kept = KEPT.get(system) if kept is None else kept
        self._script: subprocess.Popen[bytes] | None = None
        self._logger: subprocess.Popen[bytes] | None = None

    def serve(self, channel: Channel) -> None:
        """Do what the agent asks for until it ends; raises OSError."""
        while (frame := channel.receive()) is not None:
            self._answer(channel, *frame)

    def stop(self) -> None:
        """End a script that still runs, and what it started, within a second.

        If the script itself has ended just now, perhaps by the same signal, what it
        started is still ended.
        """
        script = self._script
        if script is None or script.returncode is not None:
            return
        clock = Clock()  # without a stop: it would end these waits at once
        end = clock.monotonic() + SCRIPT_GRACE_SECONDS
        os.killpg(script.pid, signal.SIGTERM)
        while script.poll() is None and clock.monotonic() < end:
            clock.wait(LOOK_SECONDS / 10)
        try:
            os.killpg(script.pid, signal.SIGKILL)
        except OSError:
            pass  # all its processes have ended

    def _answer(self, channel: Channel, kind: bytes, payload: bytes) -> None:
        try:
            self._do(channel, kind, payload)
        except _AgentLeftError:
            raise
        except (ScwSignalError, OSError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            channel.send(_FAILED, reason.encode(errors="replace"))

    def _do(self, channel: Channel, kind: bytes, payload: bytes) -> None:
        if kind == _PORT and self._may_run and payload in _FAMILIES:
            with self._reserve(_FAMILIES[payload]) as bound:
                channel.send(_DONE)
                channel.send_socket(bound)
        elif kind == _HOSTNAME and self._may_set_hostname:
            channel.send(_DONE, self._set_hostname(channel, payload.decode()).encode())
        elif kind == _RUN and self._may_run:
            instance, _, script = payload.partition(b"\0")
            channel.send(*self._run(channel, instance.decode(), script))
        else:
            raise DutyError("the command line does not ask for that")

    def _set_hostname(self, channel: Channel, name: str) -> str:
        if not is_hostname(name):
            raise DutyError(f"not a host name: {printable(name, 60)!r}")
        done = []
        if not _same(os.uname().nodename, name):
            # Not sethostname(3): pledge(2) has no promise for it.
            command = self._popen(["/bin/hostname", name], subprocess.DEVNULL)
            try:
                self._ended(channel, command, HOSTNAME_SECONDS)
            finally:
                command.kill()
                command.wait()
            if os.uname().nodename != name:
                raise DutyError(f"hostname(1) did not set it to {name!r}")
            done.append("set")
        if self._kept is not None:
            place, _, file = self._kept.rpartition("/")
            if not _same(_kept_name(read(place, file) or ""), name):
                Store(place, durable=True).write(file, f"{name}\n".encode())
                done.append(f"written to {self._kept}")
        return f"{name!r} {' and '.join(done) or 'already'}"

    def _run(
        self, channel: Channel, instance: str, script: bytes
    ) -> tuple[bytes, bytes]:
        """Run a script until it ends or has taken too long; return the answer."""
        if not _INSTANCE.fullmatch(instance):
            raise DutyError(f"not the id of an instance: {printable(instance, 60)!r}")
        if not_a_script(script) is not None or len(script) > SCRIPT_LIMIT:
            raise DutyError("not a script")
        if self._script is not None:
            raise DutyError("a script was run already")
        if (read(self._directory, RAN) or "").strip() == instance:
            return _DONE, b"was already run for this instance"
        self._script = self._start(instance, script)
        if not self._ended(channel, self._script, SCRIPT_SECONDS):
            return _DONE, f"still runs after {SCRIPT_SECONDS:.0f} s".encode()
        status = self._script.returncode
        said = f"ended with {_status(status)}".encode()
        return (_FAILED if status else _DONE), said

    def _ended(
        self, channel: Channel, process: subprocess.Popen[bytes], seconds: float
    ) -> bool:
        """Wait at most `seconds` until a process has ended; tell whether it has.

        Raises _AgentLeftError if the agent has ended.
        """
        end = self._clock.monotonic() + seconds
        while process.poll() is None:
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            # The agent sends nothing before it has an answer, so it has hung up.
            if self._clock.wait(min(LOOK_SECONDS, left), channel.fileno()):
                raise _AgentLeftError
        return True

    def _start(self, instance: str, script: bytes) -> subprocess.Popen[bytes]:
        """Record the instance, then start its script; raises DutyError or StoreError.

        In this order, so that a script that was cut off by a crash is not run again.
        If the script cannot be started, the record is removed: a corrected script
        then runs at the next boot.
        """
        fault = _fault(script)
        if fault is not None:
            raise DutyError(f"not run: {fault}")
        try:
            store = Store(self._directory, 0o700, durable=True)
            try:
                store.write(SCRIPT, script, 0o700)
                store.write(RAN, f"{instance}\n".encode())
            finally:
                store.close()
        except StoreError as error:
            raise StoreError(f"not run: {error}") from None
        try:
            return self._popen([f"{self._directory}/{SCRIPT}"], self._output())
        except OSError as error:
            self._forget_run()
            raise DutyError(
                f"not run: {error.strerror}; is its interpreter a program, and"
                f" {self._directory} on a file system that is not mounted noexec?"
            ) from None

    def _forget_run(self) -> None:
        """Remove the record that a script was run; raises StoreError."""
        store = Store(self._directory, durable=True)
        try:
            store.remove(RAN)
        finally:
            store.close()

    def _output(self) -> int:
        """Return where the output of a script goes: to syslog, by logger(1)."""
        if self._to_stderr:
            return 2
        program = shutil.which(LOGGER[0], path=PATH)
        if program is None:
            self._log.warning("user-data: without logger(1) its output is lost")
            return subprocess.DEVNULL
        reading, writing = os.pipe()
        try:
            self._logger = subprocess.Popen(  # noqa: S603 - the system's own
                [program, *LOGGER[1:]],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=_ENVIRONMENT,
            )
        finally:
            os.close(reading)
        return writing

    def _popen(self, command: list[str], output: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603 - running it is what was asked for
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o022,
                cwd="/",
                env=_ENVIRONMENT,
            )
        finally:
            if output > 2:  # noqa: PLR2004 - a pipe, which only the child needs now
                os.close(output)


class _AgentLeftError(ConnectionError):
    """The agent ended while the parent did something for it."""


def _fault(script: bytes) -> str | None:
    """Say why the system could not start a script, as far as can be seen before."""
    if has_dos_lines(script):
        return "its lines end in CR LF"
    words = interpreter(script)
    if not words:
        return "its first line names no interpreter"
    program, *rest = words
    if not os.path.exists(program):  # noqa: PTH110 - it may hold any byte
        return f"its interpreter {printable(program, 60)} does not exist"
    found = not rest or rest[0].startswith("-") or "=" in rest[0]
    if program.endswith("/env") and not found and not shutil.which(rest[0], path=PATH):
        return f"its interpreter {printable(rest[0], 60)} is not in PATH"
    return None


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"


def _kept_name(text: str) -> str:
    """Return the name in a myname(5) or hostname(5): the first line that has one."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return next(filter(None, lines), "")


def _same(current: str, name: str) -> bool:
    """Tell whether a host name is `name`, perhaps with a domain added."""
    return current == name or ("." not in name and current.partition(".")[0] == name)
