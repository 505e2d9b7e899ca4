"""`make demo`: a boot, from the closed port to the acknowledgement, as a timeline.

Starts the emulated metadata service and the agent as processes of their own,
on loopback, and prints what each of them says, with the seconds since the start.
"""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
PATIENCE = 50.0  # seconds without a line, after which something is wrong

# What goes wrong at first: the port is closed for two seconds, then the endpoint
# is not there yet, then the service sheds load.
FAULTS = ("refuse:2", "state/404:1", "state/429-after=1:1")
DEADLINE = "40"  # seconds; nobody watches for longer
WIDTH = 80  # columns
INDENT = " " * 19  # as wide as what stands before a message
BEGINNING = """\
A server boots, and its metadata service is not ready: for 2 s nothing listens
at {url}. Then it answers 404, and then 429, "in 1 s".
After a failure the agent waits as long as it has been failing, plus 2 s, but
up to a third less, at random. If the service asks for a wait, that is added.
So each pause below is longer than the one before.
"""
END = """
That was a boot: the service says "running" because of the signal. On a server
the agent does this once, from rc.d, and scripts find the metadata in
/var/run/scw_signal."""
KEYS = ("hostname", "commercial_type", "zone", "public_ip.address", "state_detail")

BOLD, DIM, OFF = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else [""] * 3


class Line(NamedTuple):
    """A line that a process printed and when; None at the end of its output."""

    seconds: float
    who: str
    text: str | None


def main() -> int:
    """Run the demonstration; the exit status is the agent's."""
    start = time.monotonic()
    lines: queue.SimpleQueue[Line] = queue.SimpleQueue()
    directory = tempfile.mkdtemp(prefix="scw-signal-demo-")

    def follow(who: str, stream: IO[str], said: Callable[[str], str]) -> None:
        """Put each line of a stream into the queue."""

        def read() -> None:
            for line in stream:
                lines.put(Line(time.monotonic() - start, who, said(line.rstrip())))
            lines.put(Line(time.monotonic() - start, who, None))

        threading.Thread(target=read, daemon=True).start()

    emulator = [sys.executable, "-m", "scw_signal.emulator", "--watchdog", "120"]
    for fault in FAULTS:
        emulator += ["--fault", fault]
    agent = None
    service = subprocess.Popen(emulator, stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        print(BEGINNING.format(url=url))
        print(f"{DIM}seconds  who       what{OFF}")
        # Each line of the service begins with its own time.
        follow("service", service.stdout, lambda line: line.strip().partition(" ")[2])
        agent = subprocess.Popen(
            [
                *(BIN / "scw-signald", "-dv", "--dns-name", "localhost"),
                *("--deadline", DEADLINE),
                *("--url", url, "--run-dir", directory),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert agent.stderr is not None
        follow("agent", agent.stderr, lambda line: line.partition(": ")[2])
        show_until_agent_ends(lines)
        status = agent.wait(PATIENCE)
        if status == 0:
            show_look_ups(directory)
            print(END)
    finally:
        for process in (service, agent):
            if process is not None:
                process.terminate()
                process.wait(PATIENCE)
        shutil.rmtree(directory)
    return status


def show_until_agent_ends(lines: queue.SimpleQueue[Line]) -> None:
    """Print the lines of both as they come; raises queue.Empty if none comes."""
    while True:
        seconds, who, text = lines.get(timeout=PATIENCE)
        if text is None and who == "agent":
            return
        if text and not text.startswith("sandbox: "):
            mark = BOLD if "acknowledged" in text or "running" in text else ""
            first, *rest = textwrap.wrap(text, WIDTH - len(INDENT))
            print(f"{seconds:7.2f}  {who:<8}  {mark}{first}{OFF}")
            for line in rest:
                print(f"{INDENT}{mark}{line}{OFF}")
            sys.stdout.flush()


def show_look_ups(directory: str) -> None:
    """Print what scripts on the server can now look up without a network."""
    print(f"\n{BOLD}What the agent stored, read without the network:{OFF}\n")
    command = [str(BIN / "scw-metadata"), "--cached", "--run-dir", directory, *KEYS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = KEYS[:3], KEYS[3:]
    print(f"$ scw-metadata --cached {' '.join(first)} \\\n      {' '.join(second)}")
    print(printed.stdout, end="")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"\n{OFF}interrupted")
        sys.exit(130)
