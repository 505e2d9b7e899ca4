"""A place where root may set the host name and become the agent's user.

It uses Linux namespaces for the host name and for mounts, with copies over /etc
and /var/lib: nothing done there is visible outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

USER, UID = "_scwsignal", 4242

INSIDE = """
set -e
mount --bind "$1/etc" /etc
mount --bind "$1/lib" /var/lib
hostname before
shift
exec "$@"
"""


def run(command: Sequence[str]) -> bool:
    """Run a command that needs root; tell whether it worked."""
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0


def place(directory: Path) -> tuple[str, ...]:
    """Make the copies in `directory`; return the words that run a command there."""
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("only root on Linux has a host name to set in a name space")
    shutil.copytree("/etc", directory / "etc", symlinks=True)
    (directory / "lib").mkdir()
    directory.chmod(0o755)
    with (directory / "etc/passwd").open("a") as users:
        users.write(f"{USER}:*:{UID}:{UID}::/nonexistent:/sbin/nologin\n")
    return ("unshare", "--uts", "--mount", "sh", "-c", INSIDE, "sh", str(directory))
