"""The line that ends a run of the tests, if some were skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import packages

NAMES = ["curl", "mksh", "zsh"]
HERE = Path(__file__).resolve().parent


def test_the_packages_that_are_missing_are_named() -> None:
    assert packages.advice(3, NAMES, {"curl"}) == (
        "3 tests were skipped; to run more of them: apt-get install mksh zsh"
    )


def test_without_a_skip_or_a_missing_package_nothing_is_said() -> None:
    assert packages.advice(0, NAMES, set()) == ""
    assert packages.advice(3, NAMES, {*NAMES}) == ""


def test_without_dpkg_the_list_is_named() -> None:
    line = packages.advice(1, NAMES, None)
    assert line.startswith("1 test was skipped; ")
    assert "tests/debian-packages" in line


def test_a_list_is_words_with_comments() -> None:
    assert packages.listed("# all\nmake curl # two\n\nmksh\n") == [
        "make",
        "curl",
        "mksh",
    ]
    assert {"zsh", "fish", "mandoc"} <= {*packages.listed(packages.LIST.read_text())}


def test_dpkg_is_asked_and_a_name_that_it_does_not_know_is_not_installed() -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("dpkg is not installed here")
    assert packages.installed(["dpkg", "no-such-package"]) == {"dpkg"}


def test_the_line_is_printed_at_the_end_of_a_run(tmp_path: Path) -> None:
    test = tmp_path / "test_skip.py"
    test.write_text("import pytest\ndef test_it(): pytest.skip('a tool')\n")
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "packages.py").write_text(
        "LIST = __import__('pathlib').Path(__file__)\n"
        "def listed(_): return ['zsh']\n"
        "def installed(_): return set()\n"
        "def advice(*words): return f'the line: {words}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{HERE}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the line: (1, ['zsh'], set())" in done.stdout, done.stdout + done.stderr
