"""How the commands begin and end as processes, whatever they are given."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import scw_signal
from installed import BIN, ENVIRONMENT

COMMANDS = (
    "scw-signald", "scw-signal-state", "scw-metadata", "scw-metadata-json",
    "scw-userdata",
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("commands")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_environment_is_enough(command: str) -> None:
    done = subprocess.run(
        [sys.executable, BIN / command, "--version"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{command} {scw_signal.__version__}\n"


@pytest.mark.parametrize("words", [["scw-signald"], ["scw-signal-state", "booted"]])
def test_a_library_that_is_missing_is_one_line(
    words: list[str], tmp_path: Path
) -> None:
    # As after an upgrade of Python that removed the libraries' directory.
    package = Path(scw_signal.__file__).parent
    (tmp_path / "scw_signal").symlink_to(package)
    done = subprocess.run(
        [sys.executable, "-S", BIN / words[0], *words[1:]],
        env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{words[0]}: there is no urllib3, and urllib3 >= 1.26.18, < 3 is needed;"
        " there is no tenacity, and tenacity >= 8.5, < 10 is needed\n"
    )


def test_a_bug_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import scw_signal.cli.process as process\n"
        "def broken(*_): raise ZeroDivisionError('by\\nzero')\n"
        "process.informed = broken\n"
    )
    done = subprocess.run(
        [BIN / "scw-metadata"],
        env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"scw-metadata: internal error, please report this line: scw-signal \d[\w.]*,"
        r" \w+ [^ ]+, Python 3\.[\d.]+: ZeroDivisionError: by\\nzero\n",
        done.stderr,
    )


def test_the_module_says_which_commands_there_are() -> None:
    words = [sys.executable, "-m", "scw_signal"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        assert f"\n  {command} " in listed
    assert max(map(len, listed.splitlines())) < 80
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (closed.returncode, closed.stderr) == (1, "")


@pytest.mark.parametrize(
    "place",
    [
        "scw_signal.cli.signal_state",
        "scw_signal.wire",
        "urllib3",
        "urllib3.util.retry",
    ],
)
def test_ctrl_c_while_it_still_loads_is_quiet(tmp_path: Path, place: str) -> None:
    """Python before 3.12 makes a RuntimeError of an exception in __set_name__."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Descriptor:\n"
        "    def __set_name__(self, *_): os.kill(os.getpid(), signal.SIGINT)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {place!r}: type('C', (), {{'d': Descriptor()}})\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run(
        [BIN / "scw-signal-state", "booted"],
        env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_closed_standard_descriptor_is_not_taken_by_a_socket(
    descriptor: int,
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" --once booted {descriptor}>&-', BIN / COMMANDS[1]],
        env=ENVIRONMENT | {"METADATA_IP": "127.0.0.1", "METADATA_PORT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = "scw-signal-state: 127.0.0.1: Connection refused\n"
    assert done.stderr == ("" if descriptor == 2 else said)


def test_standard_output_that_is_closed_early_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [BIN / "scw-metadata", "--help"],
        env=ENVIRONMENT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")
