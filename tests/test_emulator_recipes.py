"""docs/emulator.md: each recipe runs as written, and prints what the document says.

A block below a line with a file name is that file. A console block has commands and
what they print together; a line of three dots stands for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import netns
from emulated import BOOTED, PATIENCE, address
from installed import BIN, NOWHERE
from scw_signal.emulator import parse_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCUMENT = Path(__file__).parent.parent / "docs/emulator.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
ENVIRONMENT = {
    "PATH": os.pathsep.join([str(BIN), "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
    **{name: os.environ[name] for name in ["PYTHONPATH"] if name in os.environ},
}
DEBIAN_PYTHON = "/usr/bin/python3"

AT_THE_ADDRESS = "At the real address"
CLOUD_INIT = "Behind cloud-init"
SHELL = "For a shell script's test"
FLAKY = "A flaky service"
PYTEST = "As a pytest fixture"


class Session(NamedTuple):
    """The commands of a block, as a script, and what they print."""

    script: str
    printed: str


def section(title: str) -> str:
    """Return the text of a recipe."""
    return TEXT.partition(f"\n### {title}\n")[2].partition("\n### ")[0]


def lay_out(title: str, directory: Path) -> list[Session]:
    """Write the files of a recipe; return its sessions."""
    sessions = []
    for name, language, body in BLOCK.findall(section(title)):
        if name:
            (directory / name).write_text(body)
        else:
            assert language == "console"
            sessions.append(session(body))
    return sessions


def session(body: str) -> Session:
    script, printed = "", ""
    for line in body.splitlines(keepends=True):
        if line.startswith(("$ ", "# ", "> ")):
            script += line[2:]
        else:
            printed += line
    return Session(script, printed)


def perform(script: str, directory: Path, elsewhere: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env={**ENVIRONMENT, **elsewhere, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def pattern(printed: str) -> str:
    """Return a pattern for what was printed: times and free ports may differ."""
    exact = re.escape(printed)
    exact = re.sub(r"(?m)^(?:\\ )+\d+\\\.\d{3}(?=\\ )", r" *\\d+\\.\\d{3}", exact)
    exact = re.sub(r"(?<=127\\\.0\\\.0\\\.1:)\d+", r"\\d+", exact)
    exact = re.sub(r"(?<=in\\ )\d\\\.\d\ds", r"\\d+\\.\\d\\ds", exact)
    return re.sub(r"(?m)^\\\.\\\.\\\.\\?\n", r"(?:.*\\n)*", exact)


# cloud-init may try a source port that is in TIME_WAIT. It says so, and takes another.
PORT_IN_USE = r"(?m)^Error while trying .* Cannot assign requested address.*\n"


def hold(title: str, directory: Path, elsewhere: Mapping[str, str] = NOWHERE) -> None:
    """Run a recipe with `elsewhere` in its environment; check what it prints."""
    sessions = lay_out(title, directory)
    assert sessions
    for each in sessions:
        printed = re.sub(PORT_IN_USE, "", perform(each.script, directory, elsewhere))
        assert re.fullmatch(pattern(each.printed), printed), printed
    # A script removes what it made.
    assert not [*directory.glob("tmp.*")]


@pytest.fixture
def namespaces() -> None:
    lacking = netns.missing() or (
        "" if shutil.which("unshare") else "unshare is not installed here"
    )
    if lacking:
        pytest.skip(lacking)


@pytest.fixture
def cloud_init() -> None:
    found = Path(DEBIAN_PYTHON).exists() and not subprocess.run(
        [DEBIAN_PYTHON, "-c", "import cloudinit"],
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode  # fmt: skip
    if not found:
        pytest.skip(f"cloud-init is not installed here for {DEBIAN_PYTHON}")


pytestmark = pytest.mark.usefixtures("commands")


def test_there_is_no_recipe_without_a_test() -> None:
    titles = re.findall(r"(?m)^### (.*)$", TEXT)
    assert titles == [AT_THE_ADDRESS, CLOUD_INIT, SHELL, FLAKY, PYTEST]


@pytest.mark.usefixtures("namespaces")
def test_at_the_real_address(tmp_path: Path) -> None:
    hold(AT_THE_ADDRESS, tmp_path, {})  # in a namespace that leads nowhere


@pytest.mark.usefixtures("namespaces", "cloud_init")
def test_behind_cloud_init(tmp_path: Path) -> None:
    lay_out(AT_THE_ADDRESS, tmp_path)
    hold(CLOUD_INIT, tmp_path, {})


@pytest.mark.parametrize("title", [SHELL, FLAKY, PYTEST])
def test_a_recipe_prints_what_it_says(title: str, tmp_path: Path) -> None:
    hold(title, tmp_path)


def test_the_first_example_prints_what_it_says(tmp_path: Path) -> None:
    words, printed = session(BLOCK.findall(TEXT)[0][2])
    url, *_ = printed.splitlines()
    _, port = address(url)
    script = (
        f"{words.rstrip()} >log & until [ -s log ]; do kill -0 $! || exit; done;"
        f" curl --silent -X PATCH -d '{BOOTED.decode()}' {url}/state >/dev/null;"
        " kill $!; cat log"
    )
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    assert f"--port {port}" in words
    assert re.fullmatch(pattern(printed), perform(script, tmp_path, NOWHERE))


def test_the_options_and_faults_that_it_names_exist() -> None:
    helped = subprocess.run(
        [sys.executable, "-m", "scw_signal.emulator", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    options = set(re.findall(r"scw_signal\.emulator [^\n]*?(--[a-z-]+)", TEXT))
    options |= set(re.findall(r"`(--[a-z-]+)", TEXT)) | {"--fault", "--user-data"}
    assert options <= set(re.findall(r"--[a-z-]+", helped.stdout))
    for spec in re.findall(r"--fault (\S+)", TEXT):
        parse_fault(spec)
    for spec in re.findall(r"\(`([a-z:0-9]+)`\)", TEXT):
        parse_fault(spec)


def test_every_relative_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^):#]+)", TEXT):
        assert (DOCUMENT.parent / target).exists(), target
