"""What every test may use, and what a skip means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Generator

STRICT = os.environ.get("STRICT", "") not in {"", "0"}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def commands() -> Path:
    """Return the directory of the installed commands, beside this interpreter."""
    directory = Path(sys.executable).parent
    if not (directory / "scw-signald").exists():
        pytest.skip("scw-signal is not installed beside this Python: run make test")
    return directory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """With STRICT=1 a skip is a failure: this machine was to have everything."""
    report = yield
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though STRICT is set: {report.longrepr}"
    return report
