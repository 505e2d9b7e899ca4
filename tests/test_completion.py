"""Completion in real shells: the test presses a key on the shell's terminal.

A stand-in for each command prints what it was called with. OpenBSD's ksh is used
if it is installed (as ksh there, or as oksh). Otherwise mksh sources its file, and
the test looks up the arrays as ksh(1) says.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "packaging/completion"
STORED = "/var/run/scw_signal/metadata.flat"
COMMANDS = ("scw-metadata", "scw-metadata-json", "scw-signal-state", "scw-signald",
            "scw-userdata")  # fmt: skip
FLAT = """# scw-signal flat metadata 1
HOSTNAME=puffy
PUBLIC_IP=address
PUBLIC_IP_ADDRESS=198.51.100.7
BOOTSCRIPT
TOUCH $(touch pwned)=x
TOUCH`touch pwned`
"""
BOUND = 30.0  # seconds; only ends a test that fails

OKSH = shutil.which("ksh" if sys.platform.startswith("openbsd") else "oksh")
SHELLS = ["bash", "zsh", "fish", *([OKSH] if OKSH else [])]


def generator() -> object:
    loader = importlib.machinery.SourceFileLoader(
        "make_completion", str(PLACE / "make-completion")
    )
    spec = importlib.util.spec_from_loader("make_completion", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_files_are_those_generated_from_the_tables_of_options() -> None:
    made = generator().files()  # type: ignore[attr-defined]
    there = {
        path.relative_to(PLACE).as_posix(): path.read_text()
        for path in PLACE.glob("*/*")
        if "__pycache__" not in path.parts
    }
    assert there == made, "run make completion"


class Terminal:
    """A shell on a terminal, with our completions, in a directory of its own."""

    def __init__(self, shell: str, home: Path) -> None:
        self.shell = Path(shell).name
        self.home = home
        self.stored = home / "metadata.flat"
        (home / "bin").mkdir()
        for name in (*COMMANDS, *(each.replace("-", "_") for each in COMMANDS)):
            stand_in = home / "bin" / name
            stand_in.write_text('#!/bin/sh\nfor word; do echo "GOT<$word>"; done\n')
            stand_in.chmod(0o755)
        self._copy()
        self._terminal, self._its = os.openpty()
        # The first terminal that a session leader opens becomes its controlling one.
        opening = f'exec "$0" "$@" <>{os.ttyname(self._its)} >&0 2>&1'
        self._process = subprocess.Popen(
            ["sh", "-c", opening, shutil.which(shell) or shell, *self._flags()],
            cwd=home,
            env=self._environment(),
            start_new_session=True,
        )
        self._seen = ""

    def _copy(self) -> None:
        """Copy the completions; they look for stored files in this directory."""
        for path in PLACE.glob("*/*"):
            copy = self.home / "completion" / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text().replace(STORED, str(self.stored)))

    def _flags(self) -> list[str]:
        return {
            "bash": ["--norc", "--noprofile", "-i"],
            "zsh": ["-f", "-i"],
            "fish": ["--no-config", "-i"],
        }.get(self.shell, ["-i"])

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.home}/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "TERM": "dumb" if self.shell == "fish" else "vt100",
            "LC_ALL": "C.UTF-8",
            "PS1": "> ",
        }

    def load(self) -> None:
        """Source the file that an installation would have put in place."""
        there = self.home / "completion"
        lines = {
            "bash": [f". {there}/bash/{name}" for name in COMMANDS],
            "zsh": [
                f"fpath=({there}/zsh $fpath)",
                "autoload -Uz compinit",
                "compinit -u -D",
            ],
            "fish": [f". {there}/fish/{name}.fish" for name in COMMANDS],
        }.get(self.shell, ["set -o emacs", f". {there}/ksh/scw-signal.ksh"])
        for line in lines:
            self._send(line + "\n")
        self._send('printf "%s\\n" LOA""DED\n')
        self._await("LOADED")

    def complete(self, line: str) -> list[str]:
        """Type a line, press the key, end the line; return the words that came."""
        command, _, rest = line.partition(" ")
        if self.shell not in {"bash", "zsh", "fish"}:
            command = command.replace("-", "_")
        self._seen = ""
        self._send(f"{command} {rest}\t")
        self._quiet()
        self._send(" END\n")
        self._await("GOT<END>")
        return re.findall(r"GOT<(.*?)>", self._seen)[:-1]

    def _send(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _read(self, seconds: float) -> bool:
        if not select.select([self._terminal], [], [], seconds)[0]:
            return False
        self._seen += os.read(self._terminal, 65536).decode(errors="replace")
        return True

    def _quiet(self) -> None:
        """Read until nothing more comes: the completion is then done."""
        while self._read(1.0):
            pass

    def _await(self, text: str) -> None:
        end = time.monotonic() + BOUND
        while text not in self._seen:
            assert self._read(end - time.monotonic()), self._seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait(BOUND)
        os.close(self._its)
        os.close(self._terminal)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(shell: str, stored: str | None = FLAT) -> Terminal:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed here")
        home = tmp_path / Path(shell).name
        home.mkdir()
        (home / "folder").mkdir()
        opened.append(Terminal(shell, home))
        if stored is not None:
            opened[-1].stored.write_text(stored)
        opened[-1].load()
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_options_keys_and_the_state_are_completed(
    terminal: Callable[..., Terminal], shell: str
) -> None:
    typed = terminal(shell)
    assert typed.complete("scw-metadata --cac") == ["--cached"]
    assert typed.complete("scw-metadata PUBLIC_IP_AD") == ["PUBLIC_IP_ADDRESS"]
    assert typed.complete("scw-metadata BOOTS") == ["BOOTSCRIPT"]
    assert typed.complete("scw-metadata-json --cached HOS") == ["--cached", "HOSTNAME"]
    assert typed.complete("scw-signal-state boo") == ["booted"]
    assert typed.complete("scw-signald --set-h") == ["--set-hostname"]
    assert typed.complete("scw-userdata --del") == ["--delete"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_key_may_be_typed_in_either_spelling_and_a_directory_is_one(
    terminal: Callable[..., Terminal], shell: str
) -> None:
    typed = terminal(shell)
    assert typed.complete("scw-metadata hostn") == ["HOSTNAME"]
    (directory,) = typed.complete("scw-signald --run-dir fol")[1:]
    assert directory.rstrip("/") == "folder"


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_stored_document_nothing_is_completed_and_nothing_said(
    terminal: Callable[..., Terminal], shell: str
) -> None:
    typed = terminal(shell, None)
    assert typed.complete("scw-metadata HOSTN") == ["HOSTN"]
    assert "sed" not in typed._seen
    assert typed.complete("scw-metadata --cac") == ["--cached"]


@pytest.mark.parametrize("shell", SHELLS)
def test_only_keys_that_are_names_are_completed_and_none_is_run(
    terminal: Callable[..., Terminal], shell: str
) -> None:
    typed = terminal(shell)
    assert typed.complete("scw-metadata TOU") == ["TOU"]
    assert not (typed.home / "pwned").exists()


def test_mksh_sources_the_file_for_ksh_and_finds_the_arrays(tmp_path: Path) -> None:
    if shutil.which("mksh") is None:
        pytest.skip("mksh is not installed here")
    (tmp_path / "flat").write_text(FLAT)
    file = tmp_path / "scw-signal.ksh"
    text = (PLACE / "ksh/scw-signal.ksh").read_text()
    file.write_text(text.replace(STORED, str(tmp_path / "flat")))
    script = (
        f'. {file}; print -r -- "${{complete_scw_metadata[@]}}"; alias scw_metadata'
    )
    done = subprocess.run(
        ["mksh", "-c", script],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    words, alias = done.stdout.splitlines()
    assert {"--cached", "-V", "HOSTNAME", "BOOTSCRIPT"} <= {*words.split()}
    assert "TOUCH" not in words
    assert (alias, done.stderr) == ("scw_metadata=scw-metadata", "")
