"""curl, as the scripts of the vendor use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from emulated import BOOTED, EVERY_BYTE, PATIENCE
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


@pytest.fixture(scope="session")
def curl() -> str:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed here")
    return program


def fetch(curl: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [curl, "--silent", "--noproxy", "*", "--max-time", str(PATIENCE), *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )


def patch(
    curl: str, service: Emulator, *words: str
) -> subprocess.CompletedProcess[str]:
    header = ("-H", "Content-Type: application/json")
    target = f"{service.url}/state"
    return fetch(curl, "-X", "PATCH", *header, "-d", BOOTED.decode(), *words, target)


def test_curl_sends_the_request_of_the_capture(curl: str, service: Emulator) -> None:
    done = patch(curl, service)
    assert (done.returncode, done.stdout) == (0, "STATE_DETAIL=booted\n")
    (record,) = service.requests
    assert [name for name, _ in record.headers] == [
        "Host", "User-Agent", "Accept", "Content-Type", "Content-Length",
    ]  # fmt: skip
    assert record.body == BOOTED


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("refuse", 7, []),  # could not connect
        ("truncate", 18, []),  # partial file
        ("503", 22, ["--fail"]),
        ("hang", 28, ["--max-time", "0.2"]),
        ("drip=3600", 28, ["--max-time", "0.2"]),
        ("reset", 56, []),  # failure in receiving
        ("garbage", 1, []),  # HTTP/0.9 is not supported
        ("huge", 63, ["--max-filesize", "1000000"]),
    ],
)
def test_curl_fails_with_the_status_that_fits_the_fault(
    curl: str, service: Emulator, fault: str, status: int, words: list[str]
) -> None:
    service.set_faults([fault])
    assert patch(curl, service, *words).returncode == status


def test_a_curl_that_follows_a_redirect_is_recorded(
    curl: str, service: Emulator
) -> None:
    service.set_faults(["redirect:1"])
    patch(curl, service, "--location")
    assert [record.target for record in service.requests] == ["/state", "/elsewhere"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the ports below 1024")
def test_curl_does_what_the_vendors_script_does(curl: str, tmp_path: Path) -> None:
    value, sent = tmp_path / "value", tmp_path / "sent"
    sent.write_bytes(EVERY_BYTE)
    plain = ("-X", "PATCH", "-H", "Content-Type: text/plain", "--data-binary")

    def asked(*words: str) -> str:
        status = ("--local-port", "600-1023", "-w", "%{http_code}")
        return fetch(curl, *status, "-o", str(value), *words).stdout

    with Emulator() as service:
        where = f"{service.url}/user_data"
        assert asked(f"{where}/role") == "404"
        assert asked(*plain, f"@{sent}", f"{where}/role") == "204"
        assert asked(f"{where}/role") == "200"
        assert value.read_bytes() == EVERY_BYTE
        for listed in (where, f"{where}/"):
            assert asked(listed) == "200"
            assert value.read_bytes() == b"USER_DATA=1\nUSER_DATA_0=role\n"
        assert asked("-X", "DELETE", f"{where}/role") == "204"
        assert service.user_data == {}
        assert fetch(curl, f"{where}/role").stdout.startswith("ask from a source port")
