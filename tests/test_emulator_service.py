"""The service as a whole: what it remembers, how many it serves, how it ends."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from emulated import (
    PATIENCE,
    SIGNAL,
    address,
    ask,
    drain,
    plug,
    request,
    send_signal,
    texts,
)
from scw_signal.emulator import Emulator, Event

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


def test_a_request_is_recorded_as_it_came(service: Emulator) -> None:
    head = b"PATCH /state?x HTTP/1.1\r\nhost:  a \r\nX-B: 1\r\nX-B: 2\r\n"
    wire = head + b"Content-Length: 3\r\n\r\n\x00{}"
    with plug(service, wire) as plugged:
        assert plugged.recv(999)
        client = plugged.getsockname()
    (record,) = service.requests
    assert (record.method, record.target, record.body) == ("PATCH", "/state?x", b"\0{}")
    assert record.headers == (
        ("host", "a"), ("X-B", "1"), ("X-B", "2"), ("Content-Length", "3"),
    )  # fmt: skip
    assert (record.client, record.status, record.fault) == (client, 400, None)
    assert 0 <= record.seconds < PATIENCE


def test_the_events_are_a_timeline(service: Emulator) -> None:
    ask(service, "GET", "/conf?format=json")
    send_signal(service, b"{")
    send_signal(service)
    assert texts(service) == [
        "GET /conf?format=json -> 200",
        "PATCH /state -> 400 reason='the body is not JSON'",
        "PATCH /state -> 200 state_detail=booted",
        "server starting -> running",
    ]
    seconds = [event.seconds for event in service.events]
    assert seconds == sorted(seconds)


def test_an_event_is_printed_with_its_seconds_in_front() -> None:
    assert str(Event(0.1318, "PATCH /state -> 200")) == "   0.132 PATCH /state -> 200"


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        (("127.0.0.1", 600), "127.0.0.1:600"),
        (("fd00:42::7", 600), "[fd00:42::7]:600"),
        (None, "-"),
    ],
)
def test_an_event_can_be_printed_with_the_time_of_day_and_the_client(
    client: tuple[str, int] | None, shown: str
) -> None:
    event = Event(0.1, "port open", 1_600_000_000.25, client)
    assert event.verbose() == f"2020-09-13T12:26:40.250Z {shown} port open"


def test_an_event_has_the_client_that_asked(service: Emulator) -> None:
    with plug(service, b"nonsense\r\n\r\n") as plugged:
        assert drain(plugged)
        turned_away = plugged.getsockname()
    with plug(service, SIGNAL) as plugged:
        assert plugged.recv(999)
        served = plugged.getsockname()
    clients = [event.client for event in service.events]
    assert clients == [turned_away, served, None]


def test_a_follower_is_told_earlier_and_later_events(service: Emulator) -> None:
    ask(service, "GET", "/a")
    told: list[Event] = []
    service.follow(told.append)
    ask(service, "GET", "/b")
    assert told == service.events
    assert len(told) == 2


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nb", "\r", "\u202e", "\x9b", "é" * 100])
def test_nothing_a_client_says_reaches_the_terminal_raw(
    service: Emulator, evil: str
) -> None:
    send_signal(service, json.dumps({"state_detail": evil}).encode())
    (event,) = service.events
    assert event.text.isascii()
    assert event.text.isprintable()


def test_nothing_a_client_says_is_printed_at_length(service: Emulator) -> None:
    method, target = "X" * 4000, "/" + "y" * 4000
    with plug(service, request(method, target)) as plugged:
        assert plugged.recv(99)
    (event,) = service.events
    assert event.text == f"{'X' * 17}... /{'y' * 156}... -> 404 reason='not found'"
    assert service.requests[0].target == target


@pytest.mark.parametrize(
    ("fault", "wire"),
    [
        ("503:1", b""),  # an idle connection
        ("503:1", b"PATCH /state HT"),
        ("503:1", request("PATCH", "/state", "Content-Length: 26")),
        ("503:1", request("PATCH", "/state", "Content-Length: 999999")),  # turned away
        ("hang", SIGNAL),
        ("drip=3600", SIGNAL),
        ("huge=inf", SIGNAL),
        ("503", SIGNAL),
    ],
    ids=lambda part: str(part)[:30],
)
def test_closing_is_prompt_and_leaves_no_thread(fault: str, wire: bytes) -> None:
    before = threading.enumerate()
    # The quickest of three: at times another process slows one down.
    assert min(seconds_to_close(fault, wire) for _ in range(3)) < 0.2
    assert threading.enumerate() == before


def seconds_to_close(fault: str, wire: bytes) -> float:
    service = Emulator(faults=[fault])
    with plug(service, wire) as plugged:
        if wire == SIGNAL:
            assert service.wait_until(lambda: bool(service.requests), PATIENCE)
        start = time.monotonic()
        service.close()
        seconds = time.monotonic() - start
        with contextlib.suppress(ConnectionResetError):
            drain(plugged)
    return seconds


def test_closing_is_prompt_while_the_port_is_closed() -> None:
    before = threading.enumerate()
    service = Emulator(faults=["refuse"], watchdog=3600)
    start = time.monotonic()
    service.close()
    service.close()  # a second call does no harm
    assert time.monotonic() - start < 0.2
    assert threading.enumerate() == before


def test_a_port_can_be_used_again_at_once() -> None:
    with Emulator() as first:
        send_signal(first)
    with Emulator(port=address(first.url)[1]) as second:
        assert second.url == first.url
        assert send_signal(second).status == 200


def test_a_port_in_use_is_an_error(service: Emulator) -> None:
    with pytest.raises(OSError, match="in use"):
        Emulator(port=address(service.url)[1])


def test_it_serves_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with Emulator(host="::1") as service:
        assert re.fullmatch(r"http://\[::1\]:\d+", service.url)
        assert send_signal(service).status == 200
        assert service.requests[0].client[0] == "::1"


def test_many_clients_are_served_at_once(service: Emulator) -> None:
    barrier = threading.Barrier(40, timeout=PATIENCE)

    def client(_: int) -> list[int]:
        barrier.wait()
        return [send_signal(service).status for _ in range(5)]

    service.set_faults(["503:100"])
    with ThreadPoolExecutor(40) as pool:
        statuses = [status for part in pool.map(client, range(40)) for status in part]
    assert sorted(statuses) == [200] * 100 + [503] * 100
    assert len(service.requests) == 200


def test_a_burst_waits_in_the_backlog(service: Emulator) -> None:
    busy, free = threading.Event(), threading.Event()

    def hold(_: Event) -> None:
        busy.set()
        free.wait(PATIENCE)

    service.follow(hold)
    with contextlib.ExitStack() as stack:
        stack.callback(free.set)
        stack.enter_context(plug(service, SIGNAL))
        assert busy.wait(PATIENCE)  # the service is blocked: it accepts nobody
        for _ in range(100):
            stack.enter_context(plug(service))
