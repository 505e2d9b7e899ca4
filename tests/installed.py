"""Runs the installed commands as a user would: a process, its output, its status."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

BIN = Path(sys.executable).parent
# Only ends a test that hangs; nothing waits this long.
PATIENCE = 60.0

# The commands ask the service's two real addresses unless told otherwise. No test
# may do that by mistake.
NOWHERE = {"METADATA_IP": "127.0.0.1", "METADATA_PORT": "1"}
ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **NOWHERE}


class Result(NamedTuple):
    """What a command left: its status, and what it printed."""

    status: int
    out: str
    err: str


def run(
    command: str, *words: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Result:
    """Run an installed command to its end."""
    done = subprocess.run(
        [BIN / command, *words],
        env={**ENVIRONMENT, **(env or {})},
        input=stdin.encode(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def shown(command: str, *words: str) -> str:
    """Run an installed command on a terminal; return what the terminal gets."""
    ours, its = os.openpty()
    with subprocess.Popen(
        [BIN / command, *words],
        env=ENVIRONMENT,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        sent = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while chunk := os.read(ours, 65536):
                sent += chunk
        process.wait(PATIENCE)
    os.close(ours)
    return sent.decode()


def start(
    command: str, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start an installed command; its standard error is a pipe to read lines from."""
    return subprocess.Popen(
        [BIN / command, *words],
        env={**ENVIRONMENT, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
