"""The run directory: the signal is sent, whatever is wrong with the directory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from ..claim import claim, expect
from ..system import USER

if TYPE_CHECKING:
    from pathlib import Path

    from ..lab import Agent, Lab

NOTHING = "no files will be stored: "
FEW = 8  # descriptors


def _ready(lab: Lab) -> None:
    lab.emulator()
    lab.system.connect(4)


def _untouched(lab: Lab, agent: Agent, victim: Path, reason: str) -> None:
    agent.line(f"{NOTHING}.*{reason}")
    agent.signalled()
    expect(victim.is_dir() and not any(victim.iterdir()), f"{victim} was written to")
    expect(lab.run_directory.is_symlink(), "the link is another")


@claim("a run directory that cannot be made or written does not keep the signal back")
def unwritable(lab: Lab) -> None:
    _ready(lab)
    agent = lab.agent("--no-dns", "--run-dir", "/nonexistent/run", user=USER)
    agent.line(f"{NOTHING}/nonexistent/run: No such file or directory")
    agent.signalled()
    lab.run_directory.mkdir(mode=0o755)  # root's
    agent = lab.agent("--no-dns", user=USER)
    agent.line("cannot write: .*state: Permission denied")
    agent.signalled()
    expect(not any(lab.run_directory.iterdir()), "it could write")


@claim("a symbolic link in place of the run directory is not followed")
def planted_link(lab: Lab) -> None:
    _ready(lab)
    victim = lab.run_directory.with_name("scw_signal-victim")
    victim.mkdir()
    try:
        lab.run_directory.symlink_to(victim)
        agent = lab.agent("--no-dns")
        # The error of open(2) for a link depends on the system.
        _untouched(lab, agent, victim, "(Too many levels|Not a directory)")
    finally:
        shutil.rmtree(victim)


@claim("a file in place of the run directory is not changed")
def planted_file(lab: Lab) -> None:
    _ready(lab)
    lab.run_directory.write_text("somebody's\n")
    agent = lab.agent("--no-dns")
    agent.line(f"{NOTHING}.*Not a directory")
    agent.signalled()
    expect(lab.run_directory.read_text() == "somebody's\n", "it was changed")


@claim("links in the run directory are replaced, and what they lead to is not written")
def planted_state(lab: Lab) -> None:
    _ready(lab)
    victim = lab.file("victim", b"somebody's\n")
    os.chmod(victim, 0o666)  # noqa: S103, PTH101 - the agent could write to it
    lab.run_dir_for(USER)
    for name in ("state", "metadata.json", "metadata.flat"):
        (lab.run_directory / name).symlink_to(victim)
    lab.agent("--no-dns").signalled()
    expect(victim.read_text() == "somebody's\n", "it was written to")
    expect(lab.state().startswith("STATE_DETAIL=booted\n"), lab.state())
    expect(not (lab.run_directory / "state").is_symlink(), "the link is still there")


@claim("a run directory that vanishes while it waits does not keep the signal back")
def vanished(lab: Lab) -> None:
    lab.emulator()
    agent = lab.agent("--no-dns")
    agent.waits_for_route()
    lab.note("rm -r the run directory")
    shutil.rmtree(lab.run_directory)
    lab.system.connect(4)
    agent.line("cannot write: ")
    agent.signalled()


@claim(f"with {FEW} descriptors the signal goes out")
def few_descriptors(lab: Lab) -> None:
    _ready(lab)
    limited = ("sh", "-c", f'ulimit -n {FEW}; exec "$@"', "sh")
    lab.agent("--no-dns", through=limited).signalled()
    expect("CONFIRMED=True" in lab.state(), lab.state())
