"""What root does before the signal: the host name, and the script of the user data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..claim import claim, expect
from ..lab import HOSTNAME, INSTANCE
from ..system import USER

if TYPE_CHECKING:
    from ..lab import Agent, Lab

SCRIPT = b"""#!/bin/sh
echo "user $(id -u), directory $(pwd), home $HOME"
touch "%s"
exit 3
"""
BACKGROUND = b"""#!/bin/sh
echo first
(while [ ! -e "%s" ]; do sleep 0.1; done; echo late) &
"""


def _duties(lab: Lab, script: bytes | None, *options: str) -> Agent:
    user_data = {} if script is None else {"cloud-init": script}
    lab.emulator(user_data=user_data)
    lab.system.connect(4)
    return lab.agent("--no-dns", *options)


def _noted(lab: Lab) -> str:
    """Return the instance for which a script was run."""
    file = Path(lab.system.db, "instance")
    return file.read_text().strip() if file.exists() else ""


@claim("--set-hostname sets the console's host name, and writes it for the next boot")
def set_hostname(lab: Lab) -> None:
    lab.system.keep_hostname()
    agent = _duties(lab, None, "--set-hostname")
    agent.line(f"hostname: '{HOSTNAME}' set and written to {lab.system.hostname_file}")
    agent.line(f"going on as {USER}")
    agent.signalled()
    expect(os.uname().nodename == HOSTNAME, f"it is {os.uname().nodename}")
    kept = Path(lab.system.hostname_file).read_text()
    expect(kept == f"{HOSTNAME}\n", kept)
    again = lab.agent("--no-dns", "--set-hostname")
    again.line(f"hostname: '{HOSTNAME}' already")
    again.signalled()


@claim("--run-user-data runs the script as root before the signal, once an instance")
def run_user_data(lab: Lab) -> None:
    ran = Path(lab.system.scratch, "ran")
    ran.unlink(missing_ok=True)
    agent = _duties(lab, SCRIPT % bytes(ran), "--run-user-data")
    agent.line("^user 0, directory /, home /root$")
    ended = agent.line("user-data: ended with status 3").moment
    expect(ended < agent.signalled().moment, "it signalled before")
    expect(ran.exists(), "the script did not run")
    expect(_noted(lab) == INSTANCE, f"the instance noted is {_noted(lab)!r}")
    ran.unlink()
    again = lab.agent("--no-dns", "--run-user-data")
    again.line("user-data: was already run for this instance")
    again.signalled()
    expect(not ran.exists(), "the script ran again")


@claim("a script that cannot be started is not recorded, and a corrected one runs")
def run_user_data_that_fails(lab: Lab) -> None:
    agent = _duties(lab, b"#!/nonexistent/sh\n", "--run-user-data")
    agent.line("user-data: not run: its interpreter /nonexistent/sh does not exist")
    agent.signalled()
    expect(not _noted(lab), "it was noted as run")
    lab.close()
    ran = Path(lab.system.scratch, "ran")
    ran.unlink(missing_ok=True)
    lab.emulator(user_data={"cloud-init": SCRIPT % bytes(ran)})
    agent = lab.agent("--no-dns", "--run-user-data")
    agent.line("user-data: ended with status 3")
    agent.signalled()
    expect(ran.exists(), "the better one did not run")


@claim("a background job of the script outlives the agent, and what it prints is kept")
def background_job(lab: Lab) -> None:
    go = Path(lab.system.scratch, "go")
    go.unlink(missing_ok=True)
    agent = _duties(lab, BACKGROUND % bytes(go), "--run-user-data")
    agent.line("^first$")
    agent.line("user-data: ended with status 0")
    agent.signalled()
    expect(not agent.lines("^late$"), "it printed too early")
    go.touch()
    agent.line("^late$")


@claim("as a user it leaves out both, says so, and sends the signal")
def duties_user(lab: Lab) -> None:
    lab.emulator()
    lab.system.connect(4)
    lab.run_dir_for(USER)
    agent = lab.agent("--no-dns", "--set-hostname", "--run-user-data", user=USER)
    agent.line("--set-hostname and --run-user-data need root: ignored")
    agent.signalled()
