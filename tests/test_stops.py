"""A stop at any moment ends the agent by that signal, in a second, and leaves nothing.

The moments are random; test_stop.py and test_split.py test each kind of stop. The
test makes itself a subreaper, so processes that the agent leaves behind become its
children, and it finds them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import rooted
from installed import BIN, ENVIRONMENT
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("commands")

STOPS = 25  # in each test, or when soaking:
MANY_STOPS = 250
SECONDS = 1.0  # from the stop to the end of everything
LATEST = 0.7  # seconds after the start; by then both agents are in their last wait
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
SCRIPT = b"#!/bin/sh\ntrap '' HUP\nsleep 300 & sleep 300\n"


class Draw(NamedTuple):
    """A stop: when, by which signals, and whether every process gets them."""

    after: float
    numbers: tuple[signal.Signals, ...]
    everybody: bool


def draws(seed: int, count: int) -> Iterator[Draw]:
    chance = random.Random(seed)  # noqa: S311 - the same moments in each run
    signals = (signal.SIGTERM, signal.SIGINT)
    for _ in range(count):
        yield Draw(
            chance.uniform(0.0, LATEST),
            tuple(chance.choices(signals, k=chance.choice((1, 1, 2)))),
            chance.random() < 1 / 3,
        )


def children() -> set[int]:
    """Return the child processes that have not been waited for."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(each) for each in (task / "children").read_text().split()}
    return found


def descendants(process: int) -> list[int]:
    found = [process]
    for each in found:
        with contextlib.suppress(OSError):
            listed = Path(f"/proc/{each}/task/{each}/children").read_text()
            found += [int(word) for word in listed.split()]
    return found


@pytest.fixture
def others() -> Iterator[set[int]]:
    """Make every orphan a child of this process; return the earlier children."""
    if sys.platform != "linux":
        pytest.skip("only Linux gives orphans to a subreaper")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield children()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def left_after(started: float, others: set[int]) -> list[str]:
    """Return the commands that a stopped agent has left running, and kill them."""
    left: set[int] = set()
    while time.monotonic() < started + SECONDS:
        left = children() - others
        for each in left:
            os.waitpid(each, os.WNOHANG)
        if not left:
            return []
        time.sleep(0.01)
    names = []
    for each in left:
        with contextlib.suppress(OSError):
            names.append(Path(f"/proc/{each}/cmdline").read_text().replace("\0", " "))
            os.kill(each, signal.SIGKILL)
            os.waitpid(each, 0)
    return names


def stop(command: list[str], draw: Draw, others: set[int]) -> str:
    """Start an agent and stop it; return what was wrong with its end."""
    with tempfile.TemporaryFile() as log:
        life = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=log
        )
        time.sleep(draw.after)  # a random moment, not a wait for something
        started = time.monotonic()
        for number in draw.numbers:
            for each in descendants(life.pid) if draw.everybody else [life.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = life.wait(SECONDS)
        left = left_after(started, others)
        log.seek(0)
        said = log.read().decode()
    life.kill()
    life.wait()
    if "KeyboardInterrupt" in said:
        return ""  # Python's own handler, before our first line, may lose a signal
    stopped = said.count("stopped by")
    if left or status is None:
        return f"goes on after {SECONDS} s: {left}: {said}"
    if -status not in draw.numbers:
        return f"ended with {status}: {said}"
    return said if "Traceback" in said or "rror:" in said or stopped > 1 else ""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_stop_at_any_moment_ends_an_agent_of_one_process(
    tmp_path: Path, others: set[int], seed: int, *, soaking: bool
) -> None:
    with Emulator(faults=[("503", "hang")[seed % 2]]) as service:
        command = [str(BIN / "scw-signald"), "-d", "--dns-name", "localhost"]
        command += ["--url", service.url, "--run-dir", str(tmp_path / "run")]
        for draw in draws(seed, MANY_STOPS if soaking else STOPS):
            assert (draw, stop(command, draw, others)) == (draw, "")


@pytest.mark.parametrize("seed", [3, 4])
def test_a_stop_at_any_moment_ends_both_halves_and_the_script(
    tmp_path: Path, others: set[int], seed: int, *, soaking: bool
) -> None:
    there = rooted.place(tmp_path)
    with Emulator(user_data={"cloud-init": SCRIPT}) as service:
        command = [*there, str(BIN / "scw-signald"), "-d", "--no-dns"]
        command += ["--url", service.url, "--run-dir", str(tmp_path / "run")]
        command += ["--set-hostname", "--run-user-data"]
        for draw in draws(seed, MANY_STOPS if soaking else STOPS):
            shutil.rmtree(tmp_path / "lib/scw_signal", ignore_errors=True)
            assert (draw, stop(command, draw, others)) == (draw, "")
