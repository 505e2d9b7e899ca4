"""The agent in two halves: one speaks to the network, the other one keeps root.

The parent stays root, serves the few duties of privileged.py and ends as its child
does. The child is the agent. A pipe that the child never closes tells the parent of
its end; a stop of either ends both, with the script that is being waited for.
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

# Until what does not end at SIGTERM is killed: all of it is over within a second.
HALF_GRACE_SECONDS = 0.4


class _Child(NamedTuple):
    """The other half: its number, and what becomes readable at its end."""

    number: int
    lifeline: int


def split(
    stop: Stop, journal: Log, *, hostname: bool, user_data: bool, to_stderr: bool
) -> privileged.Parent:
    """Leave what takes root to a parent; return it to its child, the agent.

    In the parent this does not return. Raises OSError where there can be no two
    processes.
    """
    # Inherited as ignored, it would take the child's fate away from waitpid(2).
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
    """Serve the agent until it has ended, and end as it does."""
    try:
        try:
            duties.serve(channel)
        except OSError:
            pass  # it left in the middle of an answer
        except Exception as error:  # noqa: BLE001 - the signal can do without root
            journal.error(f"the privileged process: {type(error).__name__}: {error}")
        channel.close()
        Clock(stop).wait(math.inf, child.lifeline)
    except Stopped as stopped:
        # The agent first: were its script to end before, it would signal.
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
        # The child has left a core file where it was to.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        process.die_of(os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))
