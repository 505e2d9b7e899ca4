"""HTTP as the emulator speaks it, to correct clients and to others."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from emulated import (
    BOOTED,
    SIGNAL,
    ask,
    connect,
    drain,
    get_json,
    plug,
    read,
    request,
    send_signal,
    texts,
)
from scw_signal import emulator
from scw_signal.emulator import Emulator, flatten

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


def test_the_acknowledgement_is_the_one_of_the_capture(service: Emulator) -> None:
    with plug(
        service, request("PATCH", "/state", "Connection: close", body=BOOTED)
    ) as s:
        reply = drain(s)
    assert re.sub(rb"Date: [^\r]+ GMT\r\n", b"", reply) == (
        b"HTTP/1.1 200 OK\r\nServer: Tengine\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 20\r\nConnection: close\r\n\r\nSTATE_DETAIL=booted\n"
    )


def test_the_connection_is_kept_alive_and_says_so(service: Emulator) -> None:
    with contextlib.closing(connect(service.url)) as connection:
        for _ in range(3):
            connection.request("PATCH", "/state", BOOTED)
            assert read(connection).headers["connection"] == "keep-alive"
    assert len({record.client for record in service.requests}) == 1
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    "wire",
    [
        request("GET", "/", "Connection: close"),
        request("GET", "/", "Connection: closed"),  # as the vendor's C tool has it
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\n\n",
    ],
)
def test_a_client_that_wants_the_connection_closed_gets_that(
    service: Emulator, wire: bytes
) -> None:
    with plug(service, wire) as plugged:
        reply = drain(plugged)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in reply


def test_pipelined_requests_are_answered_in_order(service: Emulator) -> None:
    with plug(
        service, SIGNAL * 2 + request("GET", "/", "Connection: close")
    ) as plugged:
        reply = drain(plugged)
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert [record.target for record in service.requests] == ["/state", "/state", "/"]


def test_an_idle_connection_is_closed_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulator.service, "IDLE", 0.01)
    with Emulator() as service, plug(service, SIGNAL) as plugged:
        assert drain(plugged).endswith(b"STATE_DETAIL=booted\n")


def test_a_reply_does_not_wait_for_others_acknowledgements(service: Emulator) -> None:
    # Nagle's algorithm and delayed acknowledgements would add 40 ms to each.
    start = time.monotonic()
    with contextlib.closing(connect(service.url)) as connection:
        for _ in range(100):
            connection.request("PATCH", "/state", BOOTED)
            read(connection)
    assert time.monotonic() - start < 2


def test_a_client_that_expects_100_continue_gets_it(service: Emulator) -> None:
    head = request("PATCH", "/state", "Expect: 100-continue", "Content-Length: 26")
    with plug(service, head) as plugged:
        assert plugged.recv(999) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plugged.sendall(BOOTED)
        assert plugged.recv(999).startswith(b"HTTP/1.1 200 OK")


def test_half_a_request_is_no_request(service: Emulator) -> None:
    for length in range(0, len(SIGNAL), 10):
        with plug(service, SIGNAL[:length]) as plugged:
            plugged.shutdown(socket.SHUT_WR)
            assert drain(plugged) == b""
    assert service.requests == []
    assert service.state_detail == "booting kernel"


def test_an_absolute_target_is_understood(service: Emulator) -> None:
    target = "http://169.254.42.42/state"
    assert ask(service, "PATCH", target, BOOTED).status == 200
    assert service.requests[0].target == target


def test_the_two_forms_are_the_same_document(service: Emulator) -> None:
    text = ask(service, "GET", "/conf")
    assert text.headers["content-type"] == "text/plain"
    assert text.body.decode() == flatten(get_json(service))
    form = ask(service, "GET", "/conf?format=json").headers["content-type"]
    assert form == "application/json"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("booting kernel", "STATE_DETAIL='booting kernel'\n"),
        ("it's", "STATE_DETAIL='it'\"'\"'s'\n"),
        ("", "STATE_DETAIL=''\n"),
        ("é", "STATE_DETAIL='é'\n"),
        ("x" * 128, f"STATE_DETAIL={'x' * 128}\n"),
    ],
)
def test_a_state_is_quoted_where_needed(
    service: Emulator, state: str, line: str
) -> None:
    answer = send_signal(service, json.dumps({"state_detail": state}).encode())
    assert (answer.status, answer.body.decode()) == (200, line)
    assert service.state_detail == state


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"booted", b"\xff", b"[" * 60_000, b'"booted"', b"[]", b"null", b"{}"),
        *(b'{"state_detail": null}', b'{"state_detail": 1}', b'{"state": "booted"}'),
        b'{"state_detail": "' + b"x" * 129 + b'"}',
        rb'{"state_detail": "\ud800"}',
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_a_body_that_is_no_signal_is_refused(service: Emulator, body: bytes) -> None:
    answer = send_signal(service, body)
    assert (answer.status, answer.headers["content-type"]) == (400, "text/plain")
    assert 0 < len(answer.body) < 80
    assert service.state_detail == "booting kernel"


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"PATCH /state\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (request("GET", "/", "Host: y"), 400),
        (request("GET", "/", "no colon"), 400),
        (request("GET", "/", "A: b", " folded"), 400),
        (request("PATCH", "/state", "Content-Length: -1"), 400),
        (request("PATCH", "/state", "Content-Length: 1", "Content-Length: 2"), 400),
        (request("PATCH", "/state", "Transfer-Encoding: chunked"), 411),
        (request("GET", "/" + "x" * 9000), 431),
        (request("GET", "/", *(f"A{i}: b" for i in range(200))), 431),
        (request("PATCH", "/state", body=b"x" * 5_000_000), 413),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_request_that_is_wrong_is_turned_away_readably(
    service: Emulator, wire: bytes, status: int
) -> None:
    with plug(service) as plugged:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            plugged.sendall(wire)
        plugged.shutdown(socket.SHUT_WR)
        assert drain(plugged).startswith(f"HTTP/1.1 {status} ".encode())
    assert service.requests == []
    assert texts(service)[-1].startswith(f"? -> {status} reason=")


@pytest.mark.parametrize(
    "target",
    [
        *("/elsewhere", "/user_data//", "/user_data/a/b", "/conf/", "*", "/state2"),
        *("/vendor_data", "/vendor_data/", "/vendor_data/else"),
    ],
)
def test_any_other_path_is_404(service: Emulator, target: str) -> None:
    assert ask(service, "GET", target).status == 404


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/state", "PATCH"),
        ("PUT", "/state", "PATCH"),
        ("PATCH", "/conf", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("PATCH", "/user_data", "GET, HEAD"),
        ("PATCH", "/user_data/", "GET, HEAD"),
        ("POST", "/user_data/key", "GET, HEAD, PATCH, DELETE"),
        ("DELETE", "/vendor_data/cloud-init", "GET, HEAD"),
    ],
)
def test_the_reply_to_a_wrong_method_names_the_right_ones(
    service: Emulator, method: str, target: str, allow: str
) -> None:
    answer = ask(service, method, target)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("target", ["/", "/conf", "/conf?format=json", "/x", "/state"])
def test_head_is_get_without_the_body(service: Emulator, target: str) -> None:
    get, head = (ask(service, method, target) for method in ("GET", "HEAD"))
    assert head.status == get.status
    assert head.headers["content-length"] == str(len(get.body))


def test_head_has_no_body_on_the_wire(service: Emulator) -> None:
    with plug(service, request("HEAD", "/conf", "Connection: close")) as plugged:
        assert drain(plugged).endswith(b"\r\n\r\n")


def test_the_index_names_every_endpoint(service: Emulator) -> None:
    index = ask(service, "GET", "/").body.decode()
    assert re.findall(r"(?m)^(.*?)  +(\S+)", index) == [
        ("GET, HEAD", "/"),
        ("GET, HEAD", "/conf"),
        ("PATCH", "/state"),
        ("GET, HEAD", "/user_data"),
        ("GET, HEAD, PATCH, DELETE", "/user_data/KEY"),
        ("GET, HEAD", "/vendor_data/cloud-init"),
    ]
