"""scw-signald -n: what each check finds, with the system's answers given."""

from __future__ import annotations

import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from scw_signal.cli import checkup
from scw_signal.cli.checkup import FAIL, OK, WARN, Finding, Tools, examine, verdict
from scw_signal.clock import Clock
from scw_signal.errors import UnavailableError
from scw_signal.resolver import Resolver
from scw_signal.wire import Endpoint, Reply, document_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from scw_signal.transport import Service
    from scw_signal.wire import Request

    Run = Callable[[Sequence[str]], tuple[int, str] | None]

DOCUMENT = b"""{"hostname": "puffy", "commercial_type": "DEV1-S",
    "location": {"zone_id": "fr-par-1"}, "state_detail": "booted"}"""


class FakeService:
    """A service that gives one reply, and checks what it is asked."""

    def __init__(self, reply: Reply | None) -> None:
        self.reply = reply

    def __call__(self, endpoints: Sequence[Endpoint]) -> Service:
        self.endpoints = endpoints
        return self  # type: ignore[return-value]

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        assert request == document_request(), "a check may only look"
        assert budget == 3.0
        if self.reply is None:
            raise UnavailableError("the service answered 503")
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
    answer: Reply | None,
    run: Run = lambda _: None,
) -> dict[str, Finding]:
    """Make every check; return the findings by their names."""
    tools = Tools(
        endpoints=endpoints,
        service=FakeService(answer),
        resolver=Resolver(Clock()),
        run=run,
        directory=str(tmp_path / "run"),
        dns_name="localhost",
    )
    return {finding.check: finding for finding in examine(tools)}


def test_the_document_tells_what_the_server_is(
    tmp_path: Path, listener: Endpoint
) -> None:
    findings = found(tmp_path, [listener], reply())
    assert findings["service"].text.endswith("puffy, DEV1-S, fr-par-1")
    assert findings["state"] == Finding("state", OK, "state_detail is booted")
    assert verdict(list(findings.values()))[0]


def test_no_date_to_compare_the_clock_with_is_said(
    tmp_path: Path, listener: Endpoint
) -> None:
    assert found(tmp_path, [listener], reply())["clock"].verdict == WARN


@pytest.mark.parametrize(("off", "expected"), [(0, OK), (61, WARN), (-61, WARN)])
def test_a_clock_that_is_off_by_a_minute_is_told(
    tmp_path: Path, listener: Endpoint, monkeypatch: pytest.MonkeyPatch, off: int,
    expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.time", lambda: 1_000_000.0 + off)
    assert found(tmp_path, [listener], reply(1_000_000.0))["clock"].verdict == expected


def test_a_service_that_answers_503_fails(tmp_path: Path, listener: Endpoint) -> None:
    findings = found(tmp_path, [listener], None)
    assert findings["service"] == Finding("service", FAIL, "the service answered 503")
    good, advice = verdict(list(findings.values()))
    assert (good, "ask again" in advice) == (False, True)


def test_a_page_that_is_no_document_fails(tmp_path: Path, listener: Endpoint) -> None:
    findings = found(tmp_path, [listener], reply(body=b"<html>"))
    assert findings["service"].verdict == FAIL


def test_a_closed_port_fails_and_nothing_is_asked(tmp_path: Path) -> None:
    findings = found(tmp_path, [Endpoint("127.0.0.1", 1)], reply())
    assert findings["connect"].verdict == FAIL
    assert "service" not in findings
    assert "Nothing answers" in verdict(list(findings.values()))[1]


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
    assert "no route to the service" in verdict(list(findings.values()))[1]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("ip", "169.254.42.42 via 62.210.0.1 dev ens2 src 198.51.100.7 uid 0\n"),
        ("route", "   route to: 169.254.42.42\n  interface: vio0\n"),
    ],
)
def test_the_interface_is_read_from_the_systems_own_answer(
    tmp_path: Path, listener: Endpoint, monkeypatch: pytest.MonkeyPatch, words: str,
    answer: str,
) -> None:  # fmt: skip
    mark = "dev" if words == "ip" else "interface:"
    monkeypatch.setattr(checkup, "_ROUTE", (words,))
    monkeypatch.setattr(checkup, "_INTERFACE", mark)

    def run(asked: Sequence[str]) -> tuple[int, str] | None:
        return (0, answer) if asked == (words, "127.0.0.1") else None

    text = found(tmp_path, [listener], reply(), run)["route"].text
    assert text.endswith(" through ens2" if words == "ip" else " through vio0")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(None, WARN), ((1, ""), WARN), ((0, ""), OK)],
)
def test_a_service_that_is_not_enabled_is_a_warning(
    tmp_path: Path, listener: Endpoint, answer: tuple[int, str] | None, expected: str
) -> None:
    findings = found(tmp_path, [listener], reply(), lambda _: answer)
    assert findings["enabled"].verdict == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _: None, (OK, "is not there yet")),
        (lambda path: path.mkdir(), (OK, "is there")),
        (lambda path: path.touch(), (WARN, "is not a directory")),
    ],
)
def test_the_run_directory_is_looked_at_and_not_made(
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


def test_what_the_service_says_can_not_reach_the_terminal_raw(
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
