"""What the commands import: this guards their speed, without a stopwatch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installed import BIN, ENVIRONMENT
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("commands")

SLOW = {"urllib3", "ssl", "json", "re", "argparse", "logging", "typing", "enum"}


def loaded(command: str, *words: str) -> set[str]:
    """Run an installed command; return the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", BIN / command, *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    with Emulator() as service:
        words = ("--cached", "--run-dir", str(tmp_path), "--url", service.url)
        loaded("scw-metadata", *words, "hostname")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["hostname"],
        ["hostname", "zone"],
        ["--sh"],
        ["--list-keys"],
        ["--max-age", "3600", "zone"],
        [],
    ],
)
def test_a_cached_look_up_loads_nothing_slow(cache: Path, words: list[str]) -> None:
    modules = loaded("scw-metadata", "--cached", "--run-dir", str(cache), *words)
    assert "scw_signal.flat" in modules, "this looked at the wrong process"
    assert not SLOW & modules


def test_a_successful_first_try_loads_no_tenacity() -> None:
    with Emulator() as service:
        modules = loaded("scw-signal-state", "--url", service.url, "booted")
    assert "urllib3" in modules
    unwanted = {"tenacity", "argparse", "asyncio", "_ssl", "encodings.idna"}
    assert not unwanted & modules


def test_a_try_after_a_failure_loads_tenacity_but_no_asyncio() -> None:
    with Emulator(faults=["503:1"]) as service:
        modules = loaded("scw-signal-state", "--url", service.url, "booted")
    assert "tenacity" in modules
    assert "asyncio" not in modules


def test_the_agent_loads_no_ssl_and_no_asyncio(tmp_path: Path) -> None:
    with Emulator() as service:
        modules = loaded(
            "scw-signald", "-d", "--no-dns", "--url", service.url,
            "--run-dir", str(tmp_path),
        )  # fmt: skip
    assert "tenacity" in modules
    assert not {"asyncio", "_ssl", "argparse"} & modules


@pytest.mark.parametrize(
    "use",
    [
        "import importlib.metadata; importlib.metadata.version('urllib3')",
        "from importlib.metadata import PackageNotFoundError, version",
        "import importlib.metadata as m; list(m.distributions())",
        *(
            ["import urllib3.http2 as h; getattr(h, 'version', len)('urllib3')"]
            if importlib.util.find_spec("urllib3.http2")  # exists from urllib3 2 on
            else []
        ),
    ],
)
def test_importlib_metadata_can_be_imported_completely_later(use: str) -> None:
    script = "from scw_signal.cli.light_transport import transport\n" + use
    subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, check=True)
