"""The tests, and the processes they start, send nothing to other machines."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import offline
from installed import BIN

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESSES = ("169.254.42.42", "192.0.2.1", "fd00:42::42", "2001:db8::1")
CONNECT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(family, kind) as end:
        end.settimeout(5)
        print(end.connect_ex((sys.argv[1], 80)))
"""


@pytest.fixture
def off() -> None:
    if offline.interfaces() != {"lo"}:
        pytest.skip("this user may make no network namespace: only pytest is held back")


@pytest.mark.usefixtures("off")
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_process_that_a_test_starts_has_no_way_to_another_machine(
    address: str,
) -> None:
    printed = subprocess.run(
        [sys.executable, "-I", "-c", CONNECT, address],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    # If IPv6 is switched off, there is no address to send from.
    unreachable = {str(errno.ENETUNREACH), str(errno.EADDRNOTAVAIL)}
    assert set(printed.split()) <= unreachable


@pytest.mark.usefixtures("off", "commands")
def test_a_command_that_looks_for_the_real_service_finds_none() -> None:
    done = subprocess.run(
        [BIN / "scw-signal-state", "--timeout", "0.1", "booted"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "unreachable" in done.stderr.lower()


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_tests_themselves_send_nothing_to_another_machine(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(5)
        with pytest.raises(OSError, match=r"unreachable|would send|assign"):
            stream.connect((address, 80))
    with (
        socket.socket(family, socket.SOCK_DGRAM) as datagrams,
        pytest.raises(OSError, match=r"unreachable|would send|assign"),
    ):
        datagrams.sendto(b"", (address, 9))


def test_without_a_namespace_a_hook_holds_the_process_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hooks: list[Callable[[str, tuple[object, ...]], None]] = []
    monkeypatch.setattr(offline, "_unshare", refuse)
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    offline.enter()
    (hook,) = hooks
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        for event, end in (
            ("socket.connect", stream),
            ("socket.sendto", datagrams),
            ("socket.sendmsg", datagrams),
        ):
            hook(event, (end, ("127.0.0.1", 80)))
            with pytest.raises(PermissionError, match=r"to 192\.0\.2\.1"):
                hook(event, (end, ("192.0.2.1", 80)))
        hook("socket.connect", (datagrams, ("192.0.2.1", 80)))
        hook("socket.connect", (unix, "/run/socket"))
        hook("socket.sendmsg", (stream, None))
        hook("open", ("/dev/null", "r", 0))


def refuse() -> None:
    raise PermissionError(errno.EPERM, "unshare")
