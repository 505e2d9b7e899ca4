"""What the tests need under Pyodide in place of conftest.py, which needs a system."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from fakes import FakeClock

settings.register_profile(
    "pyodide", derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
settings.load_profile("pyodide")

# Pyodide has no syslog(3); nothing that is run here writes to it.
syslog = ModuleType("syslog")
for number, name in ((3, "ERR"), (4, "WARNING"), (6, "INFO"), (7, "DEBUG")):
    setattr(syslog, f"LOG_{name}", number)
sys.modules["syslog"] = syslog


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
