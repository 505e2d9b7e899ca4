"""pledge(2), unveil(2), and what the agent uses of the machine while it waits."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from ..claim import OPENBSD, claim, expect
from ..openbsd import PYTHON, TREE
from ..process import run
from ..system import RUN_DIRECTORY, USER

if TYPE_CHECKING:
    from ..lab import Lab

MEMORY = 40.0  # MiB
BREAKS_PROMISE = """
import ctypes, os, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
ctypes.CDLL(None).pledge(b"stdio", None)
os.open("/etc/passwd", os.O_RDONLY)
"""
# What the agent does before it talks to the network, and then a look around.
LOOKS_AROUND = f"""
import os, sys
sys.path.insert(0, "{TREE}")
from scw_signal.sandbox import Sandbox, preload
preload()
def say(text):
    print("sandbox:", text)
box = Sandbox(say, say)
box.hide_files("{RUN_DIRECTORY}")
box.pledge()
box.narrow("signal")
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        print("sees", path)
    except OSError as error:
        print(error.strerror, path)
"""
OUTSIDE = ("/etc/passwd", "/etc/resolv.conf", "/root", "/home", TREE, "/bin/sh")


@claim("enforcement is real: a process that breaks a promise is killed", only=OPENBSD)
def enforcement(lab: Lab) -> str:
    lab.expected_kills = 1
    done = run([PYTHON, "-I", "-c", BREAKS_PROMISE])
    expect(done.status == -signal.SIGABRT, f"it ended with status {done.status}")
    return "SIGABRT"


@claim(
    "after the lock-down, files outside of the run directory are invisible",
    only=OPENBSD,
)
def unveiled(lab: Lab) -> None:
    lab.run_directory.mkdir()
    seen = run([PYTHON, "-I", "-c", LOOKS_AROUND, *OUTSIDE, RUN_DIRECTORY], check=True)
    wanted = [f"No such file or directory {path}" for path in OUTSIDE]
    expect(
        seen.out.splitlines() == [*wanted, f"sees {RUN_DIRECTORY}"], seen.out + seen.err
    )


@claim(
    "while it waits, the agent is _scwsignal's, under pledge(2) and unveil(2)",
    only=OPENBSD,
)
def confined(lab: Lab) -> str:
    agent = lab.agent()
    agent.waits_for_route()
    user, state = run(
        ["ps", "-o", "user=", "-o", "state=", "-p", str(agent.pid)], check=True
    ).out.split()
    expect(USER.startswith(user), f"it runs as {user}")
    expect("p" in state and "U" in state, f"its state is {state}, without p or U")
    expect(not agent.lines("sandbox:"), "a call failed")
    return state


@claim(f"while it waits, the agent takes less than {MEMORY:g} MiB")
def memory(lab: Lab) -> str:
    agent = lab.agent()
    agent.waits_for_route()
    taken = lab.system.memory(agent.pid)
    expect(taken < MEMORY, f"it takes {taken:.1f} MiB")
    return f"{taken:.1f} MiB"
