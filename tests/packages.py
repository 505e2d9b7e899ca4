"""Which Debian packages the skipped tests need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LIST = Path(__file__).resolve().parent / "debian-packages"


def listed(text: str) -> list[str]:
    """Return the packages that a list names; what follows a # is a comment."""
    return " ".join(line.partition("#")[0] for line in text.splitlines()).split()


def installed(names: list[str]) -> set[str] | None:
    """Return which of the packages are installed; None if there is no dpkg."""
    if shutil.which("dpkg-query") is None:
        return None
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    states = [line.split() for line in done.stdout.splitlines()]
    return {name for name, state in states if state == "installed"}


def advice(skipped: int, names: list[str], there: set[str] | None) -> str:
    """Return a line for the end of a run, or "" if packages would not help."""
    if not skipped:
        return ""
    tests = "1 test was skipped" if skipped == 1 else f"{skipped} tests were skipped"
    if there is None:
        return f"{tests}; tests/debian-packages lists the tools that tests need"
    missing = [name for name in names if name not in there]
    if not missing:
        return ""
    return f"{tests}; to run more of them: apt-get install {' '.join(missing)}"
