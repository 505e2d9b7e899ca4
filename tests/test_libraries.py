"""The check of the libraries: it needs what setup.cfg needs, and names each fault."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from installed import ENVIRONMENT
from scw_signal import libraries
from scw_signal.emulator import Emulator

TOP = Path(__file__).resolve().parent.parent
GOOD = {"urllib3": "2.8.0", "tenacity": "9.2.1"}


def site(directory: Path, suffix: str = "dist-info", **versions: str) -> list[str]:
    """Return a search path to libraries of these versions."""
    for name, version in versions.items():
        (directory / name).mkdir(parents=True)
        (directory / name / "__init__.py").write_text("")
        (directory / f"{name}-{version}.{suffix}").mkdir()
    return ["/nonexistent", str(directory)]


def test_they_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    assert setup["options"]["install_requires"].split() == [
        f"{name}>={first},<{beyond}"
        for name, (first, beyond) in libraries.REQUIRED.items()
    ]


def test_the_libraries_that_the_tests_run_with_will_do() -> None:
    assert libraries.fault(sys.path) == ""


@pytest.mark.parametrize("version", ["8.5", "8.5.0", "8.10.1", "9.2.1", "9.99"])
def test_a_version_within_the_bounds_will_do(tmp_path: Path, version: str) -> None:
    assert libraries.fault(site(tmp_path, **{**GOOD, "tenacity": version})) == ""


@pytest.mark.parametrize("version", ["8.2.1", "8.4.99", "10", "10.0rc1", "11.0"])
def test_a_version_out_of_bounds_is_named_and_what_is_needed(
    tmp_path: Path, version: str
) -> None:
    assert libraries.fault(site(tmp_path, **{**GOOD, "tenacity": version})) == (
        f"tenacity is {version}, and tenacity >= 8.5, < 10 is needed"
    )


def test_all_that_is_missing_is_named_in_one_line() -> None:
    assert libraries.fault(["/nonexistent"]) == (
        "there is no urllib3, and urllib3 >= 1.26.18, < 3 is needed;"
        " there is no tenacity, and tenacity >= 8.5, < 10 is needed"
    )


def test_the_one_that_would_be_imported_counts(tmp_path: Path) -> None:
    first = site(tmp_path / "first", tenacity="8.2.1")
    second = site(tmp_path / "second", **GOOD)
    assert "tenacity is 8.2.1" in libraries.fault([*first, *second])


def test_the_file_names_of_debian_are_understood(tmp_path: Path) -> None:
    old = {**GOOD, "urllib3": "1.26.12-py3.11"}
    assert libraries.fault(site(tmp_path, "egg-info", **old)).startswith(
        "urllib3 is 1.26.12, and "
    )


def test_a_library_that_does_not_say_its_version_counts_as_good(tmp_path: Path) -> None:
    path = site(tmp_path, **GOOD)
    (tmp_path / "tenacity-9.2.1.dist-info").rmdir()
    assert libraries.fault(path) == ""


# What the commands do about it.


def run(
    directory: Path, module: str, *words: str, versions: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command with these libraries in the place of the real ones."""
    path = site(directory, **versions)[1]
    code = (
        f"import sys; sys.path[:0] = [{path!r}, {str(TOP)!r}]\n"
        "from scw_signal.cli.process import run\n"
        f"sys.argv[1:] = {list(words)!r}\nrun({module!r})"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FAULT = "tenacity is 8.2.1, and tenacity >= 8.5, < 10 is needed"


@pytest.mark.parametrize(
    ("versions", "fault"),
    [
        ({**GOOD, "tenacity": "8.2.1"}, FAULT),
        ({"tenacity": "9.2.1"}, "there is no urllib3, and urllib3 >= 1.26.18, < 3"),
    ],
)
@pytest.mark.parametrize(
    ("module", "words"),
    [("signald", ("-d", "--no-dns")), ("signal_state", ("booted",))],
)
def test_before_the_first_try_one_line_names_the_library(
    tmp_path: Path, module: str, words: tuple[str, ...], versions: dict[str, str],
    fault: str,
) -> None:  # fmt: skip
    with Emulator() as service:
        done = run(tmp_path, module, *words, "--url", service.url, versions=versions)
        assert not service.requests
    name = f"scw-{module.replace('_', '-')}"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{name}: {fault}")
    assert done.stderr.count("\n") == 1


def test_the_check_names_a_missing_library_and_goes_on_with_what_needs_none(
    tmp_path: Path,
) -> None:
    with Emulator() as service:
        words = ("-n", "--dns-name", "localhost", "--url", service.url)
        done = run(tmp_path, "signald", *words, versions={"tenacity": "9.2.1"})
        assert not service.requests
    assert (done.returncode, done.stderr) == (1, "")
    first, *more = done.stdout.splitlines()
    assert first == (
        "FAIL install  there is no urllib3, and urllib3 >= 1.26.18, < 3 is needed"
    )
    assert [line for line in more if line.startswith("ok   connect")]
    assert "\nThe agent does not run with these libraries" in done.stdout
