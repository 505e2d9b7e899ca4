"""scw-signald -n: what each check finds, given the system's answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from scw_signal.cli import checkup
from scw_signal.cli.checkup import (
    FAIL,
    OK,
    SYSTEMS,
    WARN,
    Finding,
    Tools,
    conclude,
    examine,
    facts,
    this_system,
)
from scw_signal.clock import Clock
from scw_signal.errors import BrokenOffError, ScwSignalError, UnavailableError
from scw_signal.resolver import Resolver
from scw_signal.wire import Endpoint, Reply, document_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from scw_signal.cli.checkup import System
    from scw_signal.transport import Service
    from scw_signal.wire import Request

    Run = Callable[[Sequence[str]], tuple[int, str] | None]

OPENBSD = SYSTEMS["openbsd"]

DOCUMENT = b"""{"hostname": "puffy", "commercial_type": "DEV1-S",
    "location": {"zone_id": "fr-par-1"}, "state_detail": "booted"}"""


class FakeService:
    """A service that gives one reply, and checks what it is asked."""

    def __init__(self, reply: Reply | ScwSignalError) -> None:
        self.reply = reply

    def __call__(self, endpoints: Sequence[Endpoint]) -> Service:
        self.endpoints = endpoints
        return self  # type: ignore[return-value]

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        assert request == document_request(), "a check may only look"
        assert budget == 3.0
        if isinstance(self.reply, ScwSignalError):
            raise self.reply
        return self.reply, self.endpoints[0]


@pytest.fixture
def listener() -> Iterator[Endpoint]:
    """Return an address that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Endpoint("127.0.0.1", server.getsockname()[1])


def reply(date: float | None = None, body: bytes = DOCUMENT) -> Reply:
    headers = {} if date is None else {"Date": formatdate(date, usegmt=True)}
    return Reply(200, headers, body)


def found(
    tmp_path: Path,
    endpoints: Sequence[Endpoint],
    answer: Reply | ScwSignalError,
    run: Run = lambda _: None,
    system: System = OPENBSD,
) -> dict[str, Finding]:
    """Make every check; return the findings by their names."""
    tools = Tools(
        system=system,
        endpoints=endpoints,
        service=FakeService(answer),
        resolver=Resolver(Clock()),
        run=run,
        directory=str(tmp_path / "run"),
        dns_name="localhost",
        root=str(tmp_path),
    )
    return {finding.check: finding for finding in examine(tools)}


def test_the_document_tells_what_the_server_is(
    tmp_path: Path, listener: Endpoint
) -> None:
    findings = found(tmp_path, [listener], reply())
    assert findings["service"].text.endswith("puffy, DEV1-S, fr-par-1")
    assert findings["state"][:3] == ("state", OK, "state_detail is booted")
    assert facts(list(findings.values())) == {
        "url": listener.url, "zone": "fr-par-1", "state_detail": "booted",
    }  # fmt: skip


def concluded(findings: dict[str, Finding]) -> checkup.Conclusion:
    return conclude(list(findings.values()), OPENBSD, "booted")


def test_it_says_what_was_signalled_or_else_what_would_happen(
    tmp_path: Path, listener: Endpoint
) -> None:
    word, good, advice = concluded(found(tmp_path, [listener], reply()))
    assert (word, good) == ("signalled", True)
    assert advice.startswith("Signalled: the service has 'booted'. Look at: ")
    body = DOCUMENT.replace(b"booted", b"booting kernel")
    word, good, advice = concluded(found(tmp_path, [listener], reply(body=body)))
    assert (word, good) == ("would-signal", True)
    assert advice.startswith("The signal would go out. Look at: ")
    fine = [Finding("state", OK, "", (("state_detail", "booted"),))]
    assert conclude(fine, OPENBSD, "booted").advice == (
        "Signalled: the service has 'booted'."
    )


def test_a_service_that_hangs_is_not_said_to_be_another_one(
    tmp_path: Path, listener: Endpoint
) -> None:
    silence = BrokenOffError("127.0.0.1: no answer in time", overload=True)
    word, good, advice = concluded(found(tmp_path, [listener], silence))
    assert (word, good) == ("no-answer", False)
    assert "does not answer in time" in advice
    reset = BrokenOffError("127.0.0.1: Connection reset by peer")
    assert concluded(found(tmp_path, [listener], reset)).word == "not-the-service"


@pytest.mark.parametrize("name", SYSTEMS)
def test_nobody_is_told_to_enable_a_service_that_is_not_installed(
    tmp_path: Path, listener: Endpoint, name: str
) -> None:
    findings = found(tmp_path, [listener], reply(), lambda _: (1, ""), SYSTEMS[name])
    text = "the service is not installed"
    assert findings["enabled"] == Finding("enabled", WARN, text)


@pytest.mark.parametrize("length", [1, 60, 66, 67, 200, 2000])
def test_no_line_has_more_than_80_columns(length: int) -> None:
    for text in ("x" * length, "word " * (length // 5 + 1), "http://x-" * length):
        lines = Finding("service", FAIL, text).line().splitlines()
        assert max(map(len, lines)) <= 80
        assert all(line.startswith(" " * 14) for line in lines[1:])
        words = "".join(lines).replace(" ", "")
        assert words == f"FAILservice{text}".replace(" ", "")


def test_without_a_date_to_compare_the_clock_with_it_warns(
    tmp_path: Path, listener: Endpoint
) -> None:
    assert found(tmp_path, [listener], reply())["clock"].verdict == WARN


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        (0, (OK, "the same as the service's")),
        (1.9, (OK, "the same as the service's")),  # a date has whole seconds
        (3, (OK, "3 s ahead of the service's")),
        (61, (WARN, "61 s ahead of the service's")),
        (-61, (WARN, "61 s behind the service's")),
    ],
)
def test_a_clock_that_is_off_by_a_minute_gets_a_warning(
    tmp_path: Path, listener: Endpoint, monkeypatch: pytest.MonkeyPatch, off: float,
    expected: tuple[str, str],
) -> None:  # fmt: skip
    monkeypatch.setattr("time.time", lambda: 1_000_000.0 + off)
    clock = found(tmp_path, [listener], reply(1_000_000.0))["clock"]
    assert (clock.verdict, clock.text) == expected


def test_a_service_that_answers_503_fails(tmp_path: Path, listener: Endpoint) -> None:
    busy = UnavailableError("the service answered 503", overload=True)
    findings = found(tmp_path, [listener], busy)
    assert findings["service"] == Finding("service", FAIL, "the service answered 503")
    word, good, advice = concluded(findings)
    assert (word, good, "check again" in advice) == ("not-the-service", False, True)


def test_a_page_that_is_no_document_fails(tmp_path: Path, listener: Endpoint) -> None:
    findings = found(tmp_path, [listener], reply(body=b"<html>"))
    assert findings["service"].verdict == FAIL


def test_a_closed_port_fails_and_nothing_is_asked(tmp_path: Path) -> None:
    findings = found(tmp_path, [Endpoint("127.0.0.1", 1)], reply())
    assert findings["connect"].verdict == FAIL
    assert "service" not in findings
    assert "Nothing answers" in concluded(findings).advice
    assert concluded(findings).word == "no-connection"


def test_one_address_that_works_is_enough(tmp_path: Path, listener: Endpoint) -> None:
    findings = found(tmp_path, [listener, Endpoint("127.0.0.1", 1)], reply())
    assert findings["connect"].verdict == OK
    assert findings["connect"].text.endswith("Connection refused; not needed")


def test_an_address_without_a_route_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "source_address", lambda _: None)
    findings = found(tmp_path, [Endpoint("169.254.42.42")], reply())
    assert findings["route"] == Finding("route", FAIL, "no route to 169.254.42.42")
    assert "no route to the service" in concluded(findings).advice
    assert concluded(findings).word == "no-route"


LINUX_ROUTE = "169.254.42.42 via 62.210.0.1 dev vio0 src 198.51.100.7 uid 0\n"
BSD_ROUTE = "   route to: 169.254.42.42\n  interface: vio0\n     flags: <UP>\n"


def answering(words: tuple[str, ...], answer: tuple[int, str] | None) -> Run:
    """Return a system that answers one question and no other."""
    return lambda asked: answer if asked == words else None


@pytest.mark.parametrize(
    ("name", "words", "answer"),
    [
        ("systemd", ("ip", "route", "get"), LINUX_ROUTE),
        ("openrc", ("ip", "route", "get"), LINUX_ROUTE),
        ("openbsd", ("route", "-n", "get"), BSD_ROUTE),
        ("freebsd", ("route", "-n", "get"), BSD_ROUTE),
        ("netbsd", ("route", "-n", "get"), BSD_ROUTE),
    ],
)
def test_the_interface_is_read_from_the_systems_own_answer(
    tmp_path: Path, listener: Endpoint, name: str, words: tuple[str, ...], answer: str
) -> None:
    run = answering((*words, "127.0.0.1"), (0, answer))
    findings = found(tmp_path, [listener], reply(), run, SYSTEMS[name])
    assert findings["route"].text.endswith(" through vio0")


VENDOR = {
    "systemd": ("cat", "/sys/class/dmi/id/sys_vendor"),
    "openrc": ("cat", "/sys/class/dmi/id/sys_vendor"),
    "openbsd": ("sysctl", "-n", "hw.vendor"),
    "freebsd": ("kenv", "-q", "smbios.system.maker"),
    "netbsd": ("sysctl", "-n", "machdep.dmi.system-vendor"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_tells_the_vendor(
    tmp_path: Path, listener: Endpoint, name: str
) -> None:
    def vendor(answer: tuple[int, str] | None) -> Finding:
        run = answering(VENDOR[name], answer)
        return found(tmp_path, [listener], reply(), run, SYSTEMS[name])["vendor"]

    says = "this machine says"
    assert vendor((0, "Scaleway\n")) == Finding(
        "vendor", OK, f"{says} that it is Scaleway's"
    )
    for answer, what in (((0, "QEMU\n"), "'QEMU'"), ((1, ""), "empty")):
        text = f"not known to be a Scaleway server (its DMI vendor is {what})"
        assert vendor(answer) == Finding("vendor", WARN, text)
    assert vendor(None) == vendor((1, ""))


class Enabled(NamedTuple):
    """How to ask a system whether the service is enabled, and its answers."""

    words: tuple[str, ...]
    yes: tuple[int, str]
    no: tuple[int, str]
    how: str


ENABLED = {
    "openbsd": Enabled(
        ("rcctl", "get", "scw_signal", "status"),
        (0, ""),
        (1, ""),
        "rcctl enable scw_signal",
    ),
    "freebsd": Enabled(
        ("service", "scw_signal", "enabled"),
        (0, ""),
        (1, ""),
        "sysrc scw_signal_enable=YES",
    ),
    "netbsd": Enabled(
        ("/etc/rc.d/scw_signal", "rcvar"),
        (0, "# scw_signal\n$scw_signal=YES\n"),
        (0, "# scw_signal\n$scw_signal=NO\n"),
        "echo scw_signal=YES >>/etc/rc.conf",
    ),
    "openrc": Enabled(
        ("rc-update", "show", "default"),
        (0, "             local | default\n        scw_signal | default\n"),
        (0, "             local | default\n       scw_signals | default\n"),
        "rc-update add scw_signal default",
    ),
    "systemd": Enabled(
        ("systemctl", "is-enabled", "--quiet", "scw-signal"),
        (0, ""),
        (1, ""),
        "systemctl enable scw-signal",
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_system_tells_whether_the_service_is_enabled(
    tmp_path: Path, listener: Endpoint, name: str
) -> None:
    words, yes, no, how = ENABLED[name]
    script = tmp_path / SYSTEMS[name].scripts[-1]
    script.parent.mkdir(parents=True)
    script.touch()

    def enabled(answer: tuple[int, str] | None) -> Finding:
        run = answering(words, answer)
        return found(tmp_path, [listener], reply(), run, SYSTEMS[name])["enabled"]

    assert enabled(yes) == Finding("enabled", OK, "the service starts at boot")
    text = f"the service does not start at boot: {how}"
    assert enabled(no) == Finding("enabled", WARN, text)
    assert enabled((1, "")) == Finding("enabled", WARN, text)
    text = f"cannot tell: there is no {words[0]} here"
    assert enabled(None) == Finding("enabled", WARN, text)


@pytest.mark.parametrize(
    ("platform", "there", "name"),
    [
        ("openbsd7", [], "openbsd"),
        ("openbsd", [], "openbsd"),
        ("freebsd14", [], "freebsd"),
        ("netbsd10", [], "netbsd"),
        ("linux", [], "systemd"),
        ("linux", ["run/systemd/system"], "systemd"),
        ("linux", ["sbin/openrc-run"], "openrc"),
        ("linux", ["sbin/openrc-run", "run/systemd/system"], "systemd"),
    ],
)
def test_the_system_is_told_by_its_name_and_linux_by_what_starts_its_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, there: list[str],
    name: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.platform", platform)
    for directory in there:
        (tmp_path / directory).mkdir(parents=True)
    assert this_system(str(tmp_path)) == SYSTEMS[name]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_advice_names_no_manual_of_another_system(name: str) -> None:
    system = SYSTEMS[name]
    for check in ("route", "connect"):
        advice = conclude([Finding(check, FAIL, "")], system, "booted").advice
        assert ("hostname.if(5)" in advice) == (name == "openbsd" and check == "route")
        assert ("pf(4)" in advice) == (name == "openbsd" and check == "connect")


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_power_button_is_checked_on_openbsd_only(
    tmp_path: Path, listener: Endpoint, name: str
) -> None:
    findings = found(tmp_path, [listener], reply(), system=SYSTEMS[name])
    assert ("power" in findings) == (name == "openbsd")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _: None, (OK, "does not exist yet")),
        (lambda path: path.mkdir(), (OK, "exists")),
        (lambda path: path.touch(), (WARN, "is not a directory")),
    ],
)
def test_the_run_directory_is_checked_but_not_made(
    tmp_path: Path,
    listener: Endpoint,
    make: Callable[[Path], None],
    expected: tuple[str, str],
) -> None:
    make(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    finding = found(tmp_path, [listener], reply())["run-dir"]
    assert finding.verdict == expected[0]
    assert expected[1] in finding.text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_signal_that_went_out_is_seen(tmp_path: Path, listener: Endpoint) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state").touch()
    assert "went out" in found(tmp_path, [listener], reply())["run-dir"].text


def test_what_the_service_says_cannot_reach_the_terminal_raw(
    tmp_path: Path, listener: Endpoint
) -> None:
    body = b'{"hostname": "\\u001b[2J", "state_detail": "\\u202e"}'
    for finding in found(tmp_path, [listener], reply(body=body)).values():
        assert finding.text.isprintable()


def test_a_program_that_is_not_there_is_no_answer() -> None:
    assert checkup.run(("there-is-no-such-program",)) is None


def test_a_service_by_name_is_connected_to_at_any_of_its_addresses(
    tmp_path: Path, listener: Endpoint
) -> None:
    def lookup(name: str, port: int, *_: object) -> list[Any]:
        assert name in {"metadata", "localhost"}
        hosts = ["127.0.0.2", listener.host]  # nobody listens at the first
        return [(socket.AF_INET, 1, 6, "", (host, port)) for host in hosts]

    named = Endpoint("metadata", listener.port)
    tools = Tools(
        system=OPENBSD,
        endpoints=[named],
        service=FakeService(reply()),
        resolver=Resolver(Clock(), lookup),
        run=lambda _: None,
        directory=str(tmp_path / "run"),
        dns_name="localhost",
    )
    found = {finding.check: finding for finding in examine(tools)}
    assert found["connect"] == Finding(
        "connect", OK, f"{named.url} accepts connections"
    )


SCOPED = """
ip link set lo up
ip address add fe80::1/64 dev lo nodad
exec "$@"
"""
# Listens there, and checks that address with each of these scopes.
LOOK = """
import socket, sys
from scw_signal.cli import checkup, signald
with socket.create_server(("::", 8042), family=socket.AF_INET6):
    for zone in ("lo", "1", "no-such"):
        url = f"http://[fe80::1%{zone}]:8042"
        checkup.CHECK_SECONDS = 0.2  # nobody will answer
        signald.main(["-n", "--dns-name=localhost", f"--url={url}"])
"""


def test_the_scope_of_an_address_is_kept() -> None:
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("only root on Linux can make a network namespace")
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", SCOPED, "sh", sys.executable, "-c", LOOK],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    looked = re.findall(r"^(\w+) +(?:route|connect) +(.*)$", done.stdout, re.MULTILINE)
    assert looked == [
        ("ok", "to fe80::1%lo from fe80::1 through lo"),
        ("ok", "http://[fe80::1%lo]:8042 accepts connections"),
        ("ok", "to fe80::1%1 from fe80::1 through 1"),
        ("ok", "http://[fe80::1%1]:8042 accepts connections"),
        ("FAIL", "no route to fe80::1%no-such"),
    ], done.stderr
