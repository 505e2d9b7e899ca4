"""The parent of a split agent ends as its child does."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from installed import ENVIRONMENT, PATIENCE

# The child does `work` in place of the agent's; `hook` breaks something before.
PROGRAM = """
import os, resource, signal, sys
from scw_signal import log, privileged
from scw_signal.cli.split import split
from scw_signal.stop import Stop

{hook}
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

def descriptors():
    return [number for number in range(20) if is_open(number)]

with Stop() as stop:
    before = descriptors()
    journal = log.Log(log.to_stderr("agent"), verbose=False)
    try:
        parent = split(stop, journal, hostname=True, user_data=False, to_stderr=True)
    except OSError as error:
        reason = error.strerror
        del error
        print(reason, descriptors() == before, flush=True)
        os._exit(0)
    {work}
    os._exit(0)
"""


HEARD = """
def check(stop):
    from scw_signal.cli.process import die_of
    from scw_signal.errors import Stopped
    try:
        privileged.Clock(stop).wait(60)
    except Stopped as stopped:
        die_of(stopped.number)
"""


def life(work: str, hook: str = "") -> subprocess.CompletedProcess[str]:
    """Split a process whose child does `work`; return how the parent ended."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(work=work, hook=hook)],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("status", [0, 1, 42])
def test_it_exits_with_the_status_of_its_child(status: int) -> None:
    done = life(f"os._exit({status})")
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGRTMIN + 5]
)
def test_it_dies_of_the_signal_that_its_child_died_of(number: int) -> None:
    core = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    done = life(f"os.kill(os.getpid(), {int(number)})", core)
    assert (done.returncode, done.stderr) == (-number, "")


def test_it_gets_the_status_of_its_child_even_if_sigchld_was_ignored() -> None:
    done = life("os._exit(42)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    assert done.returncode == 42


def test_a_stop_of_the_child_alone_ends_both() -> None:
    done = life("os.kill(os.getpid(), signal.SIGTERM); os._exit(check(stop))", HEARD)
    assert done.returncode == -signal.SIGTERM


def test_a_stop_of_the_parent_ends_a_child_that_blocks_the_signal() -> None:
    done = life(
        "signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getppid(), 15);"
        " signal.pause()"
    )
    assert done.returncode == -signal.SIGTERM


def test_a_duty_that_fails_in_an_unforeseen_way_does_not_end_the_agent() -> None:
    hook = "def fail(*_): raise KeyError('unforeseen')\nprivileged.Duties._do = fail\n"
    work = (
        "try: parent.set_hostname('puffy')\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "    print('signalled', flush=True)"
    )
    done = life(work, hook)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "signalled"
    assert "KeyError: 'unforeseen'" in done.stderr


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))", "Too many open files"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))", "Too many open files"),
        ("def fail(): raise OSError(11, 'no more')\nos.fork = fail", "no more"),
    ],
    ids=["no socket pair", "no pipe", "no process"],
)
def test_if_it_cannot_split_it_says_why_and_leaves_nothing_open(
    hook: str, reason: str
) -> None:
    done = life("", hook)
    assert (done.stdout, done.stderr) == (f"{reason} True\n", "")
