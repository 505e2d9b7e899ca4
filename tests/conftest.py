"""What every test may use, and what a skip means."""

from __future__ import annotations

import os
import pwd
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import offline
import packages
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Generator

STRICT = os.environ.get("STRICT", "") not in {"", "0"}
# STRICT does not mind a skip whose reason contains this.
MAY_SKIP = os.environ.get("MAY_SKIP", "")
ROOT = Path(__file__).resolve().parent.parent

# "steady" tries the same examples in each run: only a change makes a test fail.
# "soak" (make soak) searches long for new ones, and remembers what it found.
settings.register_profile("steady", derandomize=True)
settings.register_profile(
    "soak", max_examples=20_000, stateful_step_count=100, deadline=None, print_blob=True
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "steady")
settings.load_profile(PROFILE)


# A shell makes its background commands ignore Ctrl-C, and everything that the tests
# start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# In a parallel run each process gets its own namespace: when one closes a port for a
# while, no other can take it.
offline.enter()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tmp_path(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return pytest's directory for a test; the agent's user may use it too.

    An agent that root starts becomes that user, if the user exists.
    """
    if os.geteuid() != 0:
        return tmp_path
    try:
        user = pwd.getpwnam("_scwsignal")
    except KeyError:
        return tmp_path
    os.chown(tmp_path, user.pw_uid, user.pw_gid)
    top = tmp_path_factory.getbasetemp()
    for path in (top, top.parent):  # only root may search pytest's own
        path.chmod(path.stat().st_mode | 0o011)
    return tmp_path


@pytest.fixture(scope="session")
def soaking() -> bool:
    """Tell whether to go on for many minutes rather than seconds."""
    return PROFILE == "soak"


@pytest.hookimpl(trylast=True)  # after hypothesis has marked its tests
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """When soaking, leave out tests that do the same in every run."""
    if PROFILE != "soak":
        return
    drawing = [item for item in items if _draws(item)]
    config.hook.pytest_deselected(items=[each for each in items if each not in drawing])
    items[:] = drawing


def _draws(item: pytest.Item) -> bool:
    marked = item.get_closest_marker("hypothesis") is not None
    return marked or "soaking" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def commands() -> Path:
    """Return the directory of the installed commands, beside this interpreter."""
    directory = Path(sys.executable).parent
    if not (directory / "scw-signald").exists():
        pytest.skip("scw-signal is not installed beside this Python: run make test")
    return directory


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the packages that would make a run skip fewer tests."""
    names = packages.listed(packages.LIST.read_text())
    skipped = len(terminalreporter.getreports("skipped"))
    line = packages.advice(
        skipped, names, packages.installed(names) if skipped else None
    )
    if line:
        terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """With STRICT=1 a skip is a failure: this machine should have everything."""
    report = yield
    allowed = hasattr(report, "wasxfail") or (
        MAY_SKIP and MAY_SKIP in str(report.longrepr)
    )
    if STRICT and report.skipped and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, though STRICT is set: {report.longrepr}"
    return report
