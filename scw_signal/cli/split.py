"""Splits the agent in two: one half talks to the network, the other half keeps root.

The child is the agent. The parent stays root, serves the few duties of privileged.py,
and ends with the same status as its child. The child holds a pipe open; when it ends,
the parent sees the pipe close. A stop of either half ends both, and also a script for
which they wait.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple

from scw_signal import privileged, sandbox
from scw_signal.cli import process
from scw_signal.cli.light_transport import transport
from scw_signal.clock import Clock
from scw_signal.errors import Stopped

if TYPE_CHECKING:
    from typing import NoReturn

    from scw_signal.log import Log
    from scw_signal.stop import Stop

# From SIGTERM to SIGKILL for the child; the whole stop takes less than a second.
HALF_GRACE_SECONDS = 0.4


class _Child(NamedTuple):
    """The child: its process id, and a descriptor that is readable when it ends."""

    number: int
    lifeline: int


def split(
    stop: Stop, journal: Log, *, hostname: bool, user_data: bool, to_stderr: bool
) -> privileged.Parent:
    """Fork; the parent does the work that needs root, the child is the agent.

    Returns only in the child, with the agent's handle of the parent. Raises OSError
    if it cannot fork.
    """
    # If SIGCHLD was inherited as ignored, waitpid(2) would not get the child's status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.ExitStack() as undo:
        agents, ours = map(undo.enter_context, socket.socketpair())
        lifeline, held = os.pipe()
        undo.callback(os.close, lifeline)
        undo.callback(os.close, held)
        number = stop.fork()
        undo.pop_all()
    if number != 0:
        agents.close()
        os.close(held)
        sandbox.Sandbox(journal.debug, journal.warning).privileged()
        duties = privileged.Duties(
            Clock(stop),
            journal,
            transport.reserved_socket,
            hostname=hostname,
            user_data=user_data,
            to_stderr=to_stderr,
        )
        channel = privileged.Channel(ours, Clock(stop))
        _guard(duties, channel, _Child(number, lifeline), journal, stop)
    ours.close()
    os.close(lifeline)
    return privileged.Parent(privileged.Channel(agents, Clock(stop)))


def _guard(
    duties: privileged.Duties,
    channel: privileged.Channel,
    child: _Child,
    journal: Log,
    stop: Stop,
) -> NoReturn:
    """Serve the agent until it ends, and end with the same status."""
    try:
        try:
            duties.serve(channel)
        except OSError:
            pass  # the agent ended in the middle of an answer
        except Exception as error:  # noqa: BLE001 - the signal does not need root
            journal.error(f"the privileged process: {type(error).__name__}: {error}")
        channel.close()
        Clock(stop).wait(math.inf, child.lifeline)
    except Stopped as stopped:
        # The agent first: if its script ended before it, it would signal.
        os.kill(child.number, signal.SIGTERM)
        if not Clock().wait(HALF_GRACE_SECONDS, child.lifeline):
            os.kill(child.number, signal.SIGKILL)
        os.waitpid(child.number, 0)
        duties.stop()
        process.die_of(stopped.number)
    _, status = os.waitpid(child.number, 0)
    if status != 0:
        duties.stop()
    if os.WIFSIGNALED(status):
        # The child has already written a core file, if one was wanted.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        process.die_of(os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))
