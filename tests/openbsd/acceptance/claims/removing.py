"""Removal: nothing is left, and the machine is as before. OpenBSD only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..claim import OPENBSD, claim, expect
from ..openbsd import OURS
from ..process import run
from ..system import USER
from .installing import indexed

if TYPE_CHECKING:
    from ..lab import Lab

SECONDS = 300.0


@claim("uninstall, after a boot with user data, leaves nothing", only=OPENBSD)
def uninstalled(lab: Lab) -> None:
    lab.emulator(user_data={"cloud-init": b"#!/bin/sh\nexit 0\n"})
    lab.system.connect(4)
    lab.agent("--no-dns", "--run-user-data").signalled()
    lab.openbsd.configure("--no-dns")
    lab.openbsd.rcctl("start", "scw_signal")
    script = f"{lab.openbsd.tree}/packaging/openbsd/uninstall"
    done = run(["sh", script], seconds=SECONDS, check=True)
    expect(not done.err, f"it complained: {done.err}")
    left = [path for path in OURS if os.path.lexists(path)]
    left += [str(path) for path in Path("/usr/local/man").glob("man*/scw-*")]
    expect(not left, f"it left {', '.join(left)}")
    expect(not indexed(), "apropos(1) still finds the manual")
    expect(run(["id", USER]).status != 0, f"it left the user {USER}")
    on = run(["rcctl", "ls", "on"], seconds=SECONDS).out.split()
    expect("scw_signal" not in on, "it left the service enabled")


@claim("the machine is as it was before", only=OPENBSD, seconds=600)
def as_before(lab: Lab) -> None:
    lab.openbsd.restore()
    differences = lab.openbsd.differences()
    expect(not differences, "\n".join(differences))
