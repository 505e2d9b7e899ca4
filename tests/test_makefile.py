"""The Makefile works in GNU make and in BSD make, and does the same in both."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(make: str, *words: str) -> str:
    """Return what a make prints; the environment of an outer make is left out."""
    program = shutil.which(make)
    if program is None:
        pytest.skip(f"{make} is not installed here")
    return subprocess.run(
        [program, "-f", str(ROOT / "Makefile"), *words],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def targets() -> list[str]:
    """Return the targets that the Makefile lists in .PHONY."""
    text = (ROOT / "Makefile").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(".PHONY:")]
    return line.split()[1:]


@pytest.mark.parametrize("target", targets())
def test_both_makes_would_run_the_same(target: str) -> None:
    gnu, bsd = (run(make, "-n", target) for make in ("make", "bmake"))
    assert joined(gnu) == joined(bsd)


def test_without_a_target_it_lists_the_targets() -> None:
    lines = run("make").splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["install", "demo", "test"]


def joined(commands: str) -> list[str]:
    """Return commands as words: the makes differ in how they print long lines."""
    return commands.replace("\\\n", " ").split()
