"""What the emulator does wrong when it is told to."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from emulated import (
    BOOTED,
    NO_WAIT,
    PATIENCE,
    SIGNAL,
    ask,
    connect,
    drain,
    is_refused,
    plug,
    read,
    request,
    send_signal,
    texts,
)
from scw_signal import emulator
from scw_signal.emulator import FAULTS, Emulator, parse_fault

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


@pytest.mark.parametrize(
    ("fault", "status", "is_done"),
    [
        ("429", 429, False),
        ("429-after", 429, False),
        ("429-date", 429, False),
        ("503", 503, False),
        ("400", 400, False),
        ("404", 404, False),
        ("403", 403, False),
        ("html", 200, False),
        ("wrong-ack", 200, False),
        ("empty-ack", 200, True),
        ("empty-ack=204", 204, True),
        ("json-ack", 200, True),
        ("huge=10", 200, False),
        ("redirect", 302, False),
        ("drip=0", 200, True),
    ],
)
def test_a_fault_that_answers_has_its_status_and_effect(
    service: Emulator,
    fault: str,
    status: int,
    is_done: bool,  # noqa: FBT001
) -> None:
    service.set_faults([fault])
    assert send_signal(service).status == status
    (record,) = service.requests
    assert (record.status, record.fault) == (status, fault.partition("=")[0])
    assert service.server_state == ("running" if is_done else "starting")


@pytest.mark.parametrize("fault", ["429", "503", "404", "403", "400"])
def test_a_fault_without_a_time_sends_no_retry_after(
    service: Emulator, fault: str
) -> None:
    service.set_faults([fault])
    assert "retry-after" not in send_signal(service).headers


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [("429-after", "1"), ("429-after=7", "7"), ("429-after=0", "0")],
)
def test_retry_after_can_be_seconds(
    service: Emulator, fault: str, seconds: str
) -> None:
    service.set_faults([fault])
    assert send_signal(service).headers["retry-after"] == seconds
    assert texts(service) == [
        f"PATCH /state -> 429 retry_after={seconds} fault=429-after"
    ]


@pytest.mark.parametrize(
    ("fault", "seconds"), [("429-date", 1), ("429-date=90", 90), ("429-date=1e6", 1e6)]
)
def test_retry_after_can_be_a_date_after_the_replys_own(
    service: Emulator, fault: str, seconds: float
) -> None:
    service.set_faults([fault])
    headers = send_signal(service).headers
    date, until = headers["date"], headers["retry-after"]
    wait = parsedate_to_datetime(until) - parsedate_to_datetime(date)
    assert wait.total_seconds() == seconds
    assert texts(service) == [
        f"PATCH /state -> 429 retry_after='{until}' fault=429-date"
    ]
    assert until.endswith(" GMT")


def test_a_web_page_comes_with_its_type(service: Emulator) -> None:
    service.set_faults(["html"])
    answer = ask(service, "GET", "/conf?format=json")
    assert answer.headers["content-type"] == "text/html"
    assert b"<h1>" in answer.body


def test_the_wrong_acknowledgement_names_another_state(service: Emulator) -> None:
    service.set_faults(["wrong-ack"])
    assert send_signal(service).body == b"STATE_DETAIL='booting kernel'\n"


def test_the_empty_acknowledgement_is_empty(service: Emulator) -> None:
    service.set_faults(["empty-ack:1", "empty-ack=204"])
    answer = send_signal(service)
    assert (answer.headers["content-length"], answer.body) == ("0", b"")
    answer = send_signal(service)
    assert not {"content-length", "content-type"} & answer.headers.keys()


def test_the_json_acknowledgement_echoes_the_state(service: Emulator) -> None:
    service.set_faults(["json-ack"])
    answer = send_signal(service, b'{"state_detail": "ready"}')
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"state_detail": "ready"}
    assert texts(service) == ["PATCH /state -> 200 state_detail=ready fault=json-ack"]


def test_the_redirect_leads_to_itself_and_followers_are_recorded(
    service: Emulator,
) -> None:
    service.set_faults(["redirect:1"])
    place = send_signal(service).headers["location"]
    assert ask(service, "GET", place).status == 404
    assert [record.target for record in service.requests] == ["/state", "/elsewhere"]


def test_the_huge_reply_has_the_size_it_was_given(service: Emulator) -> None:
    service.set_faults(["huge=200000"])
    with plug(service, request("GET", "/conf")) as plugged:
        head, _, body = drain(plugged).partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: 200000" in head
    assert len(body) == 200_000


@pytest.mark.parametrize(("fault", "size"), [("huge", "100000000"), ("huge=inf", None)])
def test_the_huge_reply_goes_on_until_the_client_leaves(
    service: Emulator, fault: str, size: str | None
) -> None:
    service.set_faults([fault])
    before = set(threading.enumerate())
    with contextlib.closing(connect(service.url)) as connection:
        connection.request("GET", "/conf")
        with connection.getresponse() as reply:
            assert reply.getheader("Content-Length") == size
            assert len(reply.read(20_000_000)) == 20_000_000
    for worker in set(threading.enumerate()) - before:
        worker.join(PATIENCE)
        assert not worker.is_alive()


def test_a_reset_is_a_reset_after_the_request_was_read(service: Emulator) -> None:
    service.set_faults(["reset"])
    with plug(service, SIGNAL) as plugged, pytest.raises(ConnectionResetError):
        plugged.recv(1)
    (record,) = service.requests
    assert (record.body, record.status) == (BOOTED, None)
    assert texts(service) == ["PATCH /state -> - fault=reset"]
    assert service.state_detail == "booting kernel"


def test_a_hanging_request_was_read_and_is_not_answered(service: Emulator) -> None:
    service.set_faults(["hang"])
    with plug(service, SIGNAL) as plugged:
        assert service.wait_until(lambda: bool(service.requests), PATIENCE)
        plugged.settimeout(NO_WAIT)
        with pytest.raises(TimeoutError):
            plugged.recv(1)
    assert service.requests[0].status is None
    assert service.state_detail == "booting kernel"


def test_a_hanging_request_outlasts_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulator.service, "IDLE", NO_WAIT / 4)
    with Emulator(faults=["hang"]) as service, plug(service, SIGNAL) as plugged:
        plugged.settimeout(NO_WAIT)
        with pytest.raises(TimeoutError):
            plugged.recv(1)


def test_a_dripping_reply_begins_with_one_byte(service: Emulator) -> None:
    service.set_faults(["drip=3600"])
    with plug(service, SIGNAL) as plugged:
        assert plugged.recv(999) == b"H"
        plugged.settimeout(NO_WAIT)
        with pytest.raises(TimeoutError):
            plugged.recv(1)


def test_a_dripping_reply_is_the_true_one_in_single_bytes(service: Emulator) -> None:
    service.set_faults(["drip=0.002"])
    start = time.monotonic()
    answer = send_signal(service)
    assert answer.body == b"STATE_DETAIL=booted\n"
    assert time.monotonic() - start >= 0.002 * 150


def test_a_truncated_reply_announces_more_than_it_sends(service: Emulator) -> None:
    service.set_faults(["truncate"])
    with pytest.raises(http.client.IncompleteRead) as caught:
        send_signal(service)
    assert caught.value.partial == b"STATE_DETA"
    assert service.state_detail == "booted"


def test_garbage_is_no_http(service: Emulator) -> None:
    service.set_faults(["garbage"])
    with pytest.raises(http.client.HTTPException):
        send_signal(service)
    assert service.requests[0].status is None


def test_faults_come_one_after_the_other_and_end(service: Emulator) -> None:
    service.set_faults(["503:2", "429:1"])
    assert [send_signal(service).status for _ in range(4)] == [503, 503, 429, 200]


def test_a_fault_without_a_count_is_for_good(service: Emulator) -> None:
    service.set_faults(["503", "429"])
    assert {send_signal(service).status for _ in range(9)} == {503}


def test_a_fault_for_an_endpoint_lets_other_requests_pass(service: Emulator) -> None:
    service.set_faults(["state/503:1", "conf/404:1", "429:1"])
    assert ask(service, "GET", "/conf?format=json").status == 404
    assert ask(service, "GET", "/conf").status == 429
    assert ask(service, "GET", "/").status == 200
    assert [send_signal(service).status for _ in range(2)] == [503, 200]


def test_a_closed_port_refuses_connections_until_it_opens_again() -> None:
    with Emulator(faults=["refuse:0.3"]) as service:
        assert is_refused(service)
        assert service.wait_until(lambda: "port open" in texts(service), PATIENCE)
        assert send_signal(service).status == 200
        closed, opened, *_ = service.events
        assert closed.text == "port closed fault=refuse"
        assert 0.3 <= opened.seconds - closed.seconds < 1


def test_a_port_closes_and_opens_on_demand(service: Emulator) -> None:
    for fault in ("refuse", "refuse:3600", "refuse", "refuse:3600"):
        service.set_faults([fault])
        assert is_refused(service)
        service.set_faults([])
        assert send_signal(service).status == 200


def test_a_port_closes_before_the_last_reply_ahead_of_it_is_sent() -> None:
    with (
        Emulator(faults=["503:1", "refuse", "429:1"]) as service,
        contextlib.closing(connect(service.url)) as connection,
    ):
        connection.request("PATCH", "/state", BOOTED)
        answer = read(connection)
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert is_refused(service)


def test_faults_after_a_closed_port_come_when_it_is_open() -> None:
    with Emulator(faults=["state/503:1", "refuse:0.05", "429:1"]) as service:
        assert ask(service, "GET", "/conf").status == 200
        assert send_signal(service).status == 503
        assert service.wait_until(lambda: "port open" in texts(service), PATIENCE)
        assert [ask(service, "GET", "/conf").status for _ in range(2)] == [429, 200]


def test_closing_the_port_ends_idle_connections(service: Emulator) -> None:
    with plug(service, SIGNAL) as plugged:
        assert plugged.recv(999)
        service.set_faults(["refuse"])
        assert plugged.recv(1) == b""


@pytest.mark.parametrize(
    "spec",
    [
        *("", "nonsense", "503:", "503:0", "503:-1", "503:1.5", "503:x", "503:nan"),
        *("503=0", "503=", "503=x", "drip=", "refuse:x", "refuse:-1", "refuse:nan"),
        *("503=1", "elsewhere/503", "/503", "state/refuse", "refuse:0", "refuse=1"),
        *("drip=x", "drip=-1", "drip=nan", "429-date=inf", "503 "),
        *("empty-ack=500", "empty-ack=199", "503:1:1", "state/conf/503", "503\n"),
    ],
)  # fmt: skip
def test_an_invalid_fault_is_refused_and_named(spec: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"in '{spec.rstrip()}")):
        parse_fault(spec)


def test_the_error_for_an_unknown_fault_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=", ".join(FAULTS)):
        parse_fault("nonsense")


def test_bad_faults_change_nothing(service: Emulator) -> None:
    service.set_faults(["503"])
    with pytest.raises(ValueError, match="nonsense"):
        service.set_faults(["429", "nonsense"])
    assert send_signal(service).status == 503


@pytest.mark.parametrize("name", [*FAULTS])
def test_every_fault_works_with_its_default(name: str) -> None:
    with Emulator(faults=[f"{name}:1"]) as service:
        if name != "refuse":
            with plug(service, SIGNAL):
                assert service.wait_until(lambda: bool(service.requests), PATIENCE)
            assert service.requests[0].fault == name
