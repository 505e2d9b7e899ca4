"""The emulated service, seen with tools that are neither it nor the client.

http.client, plain sockets, curl and shells tell what it does. A wait in here is
for something that comes; its bound only ends a test that has failed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import pytest

from scw_signal import emulator
from scw_signal.emulator import FAULTS, Emulator, Event, flatten, parse_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAMPLES = Path(__file__).parent / "samples"
TEXTS = sorted(SAMPLES.glob("*.txt"))
BOOTED = b'{"state_detail": "booted"}'
PATIENCE = 20.0  # seconds
NO_WAIT = 0.1  # seconds in which something does not happen


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


class Answer(NamedTuple):
    """What http.client read: header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*address(url), timeout=PATIENCE)


def ask(
    service: Emulator,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    with contextlib.closing(connect(service.url)) as connection:
        connection.request(method, target, body, headers or {})
        return read(connection)


def read(connection: http.client.HTTPConnection) -> Answer:
    with connection.getresponse() as reply:
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, headers, reply.read())


def send_signal(service: Emulator, body: bytes = BOOTED) -> Answer:
    return ask(service, "PATCH", "/state", body)


def get_json(service: Emulator) -> dict[str, object]:
    document = json.loads(ask(service, "GET", "/conf?format=json").body)
    assert isinstance(document, dict)
    return document


def plug(service: Emulator, wire: bytes = b"") -> socket.socket:
    """Connect a plain socket, and send something."""
    plugged = socket.create_connection(address(service.url), PATIENCE)
    plugged.sendall(wire)
    return plugged


def drain(plugged: socket.socket) -> bytes:
    """Read until the service closes."""
    return b"".join(iter(lambda: plugged.recv(65536), b""))


def is_refused(service: Emulator) -> bool:
    try:
        plug(service).close()
    except ConnectionRefusedError:
        return True
    return False


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    length = (f"Content-Length: {len(body)}",) if body else ()
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, *length, "", ""]
    return "\r\n".join(lines).encode() + body


SIGNAL = request("PATCH", "/state", body=BOOTED)


def texts(service: Emulator) -> list[str]:
    return [event.text for event in service.events]


# The text form


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_sample_is_reproduced_byte_for_byte(path: Path) -> None:
    document = json.loads(path.with_suffix(".json").read_bytes())
    assert flatten(document).encode() == path.read_bytes()


def test_there_are_samples() -> None:
    assert len(TEXTS) == 3


@pytest.mark.parametrize(
    "value",
    [
        *("", "it's", "''", 'a "b" $(c) `d` \\', "two\nlines", "-n", "$HOME", "~"),
        *("café 🐡", "\u202eoverride", "é", "a b", "a;b", "#", "\u0661"),
    ],
)
def test_a_value_comes_out_of_a_shell_as_it_went_in(value: str) -> None:
    assert shlex.split(flatten({"key": value}), comments=True) == [f"KEY={value}"]
    script = flatten({"key": value}) + 'printf %s "$KEY"'
    printed = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert printed.stdout.decode() == value


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": {"": "x", "b": []}}, "A=' B'\nA_=x\nA_B=0\n"),
        ({"a": [[1, 2.5]]}, "A=1\nA_0=2\nA_0_0=1\nA_0_1=2.5\n"),
        ({"a": [True, None]}, "A=2\nA_0=True\nA_1=\n"),
        ({"volumes": {"0": "x"}}, "VOLUMES=0\nVOLUMES_0=x\n"),
        ({"volumes": []}, "VOLUMES=0\n"),
        ({"a": {}}, "A=''\n"),
        ({}, ""),
    ],
)  # fmt: skip
def test_odd_shapes_flatten_as_the_grammar_says(
    document: dict[str, object], text: str
) -> None:
    assert flatten(document) == text


# The service


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
def test_a_client_that_waits_for_the_end_gets_it(
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
    # Nagle's algorithm and a delayed acknowledgement make 40 ms each of these.
    start = time.monotonic()
    with contextlib.closing(connect(service.url)) as connection:
        for _ in range(100):
            connection.request("PATCH", "/state", BOOTED)
            read(connection)
    assert time.monotonic() - start < 2


def test_a_body_that_is_announced_is_asked_for(service: Emulator) -> None:
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


def test_a_target_as_a_proxy_gets_it_is_understood(service: Emulator) -> None:
    target = "http://169.254.42.42/state"
    assert ask(service, "PATCH", target, BOOTED).status == 200
    assert service.requests[0].target == target


def test_the_two_forms_are_the_same_document(service: Emulator) -> None:
    text = ask(service, "GET", "/conf")
    assert text.headers["content-type"] == "text/plain"
    assert text.body.decode() == flatten(get_json(service))
    form = ask(service, "GET", "/conf?format=json").headers["content-type"]
    assert form == "application/json"


def test_the_built_in_server_has_the_shape_of_the_sample(service: Emulator) -> None:
    sample = json.loads((SAMPLES / "conf-routed-ipv4.json").read_bytes())
    document = get_json(service)
    assert {key: type(value) for key, value in document.items()} == {
        key: type(value) for key, value in sample.items()
    }
    for key in ("public_ip", "image", "location"):
        ours, theirs = document[key], sample[key]
        assert isinstance(ours, dict)
        assert sorted(ours) == sorted(theirs)


def test_a_new_server_is_starting_and_boots_its_kernel(service: Emulator) -> None:
    document = get_json(service)
    assert (document["state"], document["state_detail"]) == (
        "starting",
        "booting kernel",
    )
    assert (service.server_state, service.state_detail) == (
        "starting",
        "booting kernel",
    )


def test_the_signal_makes_the_server_run_and_shows_in_the_document(
    service: Emulator,
) -> None:
    send_signal(service)
    document = get_json(service)
    assert (document["state"], document["state_detail"]) == ("running", "booted")
    assert (service.server_state, service.state_detail) == ("running", "booted")


def test_another_state_is_taken_and_does_not_make_it_run(service: Emulator) -> None:
    assert send_signal(service, b'{"state_detail": "kernel-started"}').status == 200
    assert (service.server_state, service.state_detail) == (
        "starting",
        "kernel-started",
    )


def test_a_server_that_runs_goes_on_with_the_next_state(service: Emulator) -> None:
    send_signal(service)
    send_signal(service, b'{"state_detail": "ready"}')
    assert (service.server_state, service.state_detail) == ("running", "ready")


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
def test_a_state_is_quoted_where_it_needs_it(
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
        *("/elsewhere", "/user_data/", "/user_data/a/b", "/conf/", "*", "/state2"),
        *("/vendor_data", "/vendor_data/", "/vendor_data/else"),
    ],
)
def test_there_is_nothing_elsewhere(service: Emulator, target: str) -> None:
    assert ask(service, "GET", target).status == 404


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/state", "PATCH"),
        ("PUT", "/state", "PATCH"),
        ("PATCH", "/conf", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("PATCH", "/user_data", "GET, HEAD"),
        ("POST", "/user_data/key", "GET, HEAD, PATCH, DELETE"),
        ("DELETE", "/vendor_data/cloud-init", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
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


def test_a_document_replaces_the_built_in_one_and_is_not_changed() -> None:
    document = {"state_detail": "stopped", "id": "x", "volumes": {"0": {"size": 1}}}
    with Emulator(document=document) as service:
        send_signal(service)
        document["id"] = "changed later"
        expected = (
            "STATE_DETAIL=booted\nID=x\nVOLUMES=0\nVOLUMES_0=SIZE\nVOLUMES_0_SIZE=1\n"
        )
        assert ask(service, "GET", "/conf").body.decode() == expected
    assert document["state_detail"] == "stopped"


def test_a_document_without_a_state_gets_a_state_detail_only() -> None:
    with Emulator(document={}) as service:
        assert get_json(service) == {"state_detail": "booting kernel"}


def test_a_document_with_half_a_surrogate_pair_is_served() -> None:
    with Emulator(document={"name": "\ud800"}) as service:
        assert ask(service, "GET", "/conf").body.startswith(b"NAME='?'\n")
        assert get_json(service)["name"] == "\ud800"


# What it remembers and says


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


def test_a_follower_is_told_what_was_and_what_comes(service: Emulator) -> None:
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


# The watchdog


def reaches(service: Emulator, state: str) -> bool:
    return service.wait_until(lambda: service.server_state == state, PATIENCE)


def test_a_silent_server_is_hard_rebooted_and_starts_again() -> None:
    with Emulator(watchdog=0.3) as service:
        send_signal(service, b'{"state_detail": "kernel-started"}')
        assert reaches(service, "hard-rebooted")
        assert reaches(service, "starting")
        assert reaches(service, "hard-rebooted")
        assert service.state_detail == "booting kernel"
        assert [text for text in texts(service) if text.startswith("server")] == [
            "server starting -> hard-rebooted",
            "server hard-rebooted -> starting",
            "server starting -> hard-rebooted",
        ]


def test_the_watchdog_bites_on_time_and_not_before() -> None:
    with Emulator(watchdog=0.2) as service:
        assert service.wait_until(lambda: bool(service.events), PATIENCE)
        assert 0.2 <= service.events[0].seconds < 1


def test_a_signal_calls_the_watchdog_off() -> None:
    with Emulator(watchdog=0.5) as service:
        send_signal(service)
        assert not service.wait_until(lambda: service.server_state != "running", 0.6)


def test_there_is_no_watchdog_unless_it_is_asked_for(service: Emulator) -> None:
    assert not service.wait_until(lambda: bool(service.events), NO_WAIT)


# User data, whatever port asks: curl asks from one below 1024 at the end


EVERY_BYTE = bytes(range(256))
PLAIN = {"Content-Type": "text/plain"}


@pytest.fixture
def stocked() -> Iterator[Emulator]:
    stock = {"role": b"web", "cloud-init": EVERY_BYTE}
    with Emulator(user_data=stock, vendor_data=EVERY_BYTE, any_port=True) as service:
        yield service


def test_the_keys_of_user_data_are_listed_in_both_forms(stocked: Emulator) -> None:
    text = ask(stocked, "GET", "/user_data")
    assert text.body == b"USER_DATA=2\nUSER_DATA_0=role\nUSER_DATA_1=cloud-init\n"
    assert text.headers["content-type"] == "text/plain"
    form = ask(stocked, "GET", "/user_data?format=json")
    assert json.loads(form.body) == {"user_data": ["role", "cloud-init"]}
    assert form.headers["content-type"] == "application/json"


def test_without_user_data_the_list_is_empty() -> None:
    with Emulator(any_port=True) as service:
        assert ask(service, "GET", "/user_data").body == b"USER_DATA=0\n"
        form = ask(service, "GET", "/user_data?format=json")
        assert json.loads(form.body) == {"user_data": []}


@pytest.mark.parametrize("where", ["/user_data/cloud-init", "/vendor_data/cloud-init"])
def test_a_value_is_served_byte_for_byte_as_text(stocked: Emulator, where: str) -> None:
    answer = ask(stocked, "GET", where)
    assert (answer.status, answer.body) == (200, EVERY_BYTE)
    assert answer.headers["content-type"] == "text/plain"


@pytest.mark.parametrize("value", [EVERY_BYTE, b"", b"\n", b"x" * 2 * 1024 * 1024])
def test_a_value_is_set_byte_for_byte(stocked: Emulator, value: bytes) -> None:
    for key in ("role", "new"):
        assert ask(stocked, "PATCH", f"/user_data/{key}", value, PLAIN).status == 204
        assert ask(stocked, "GET", f"/user_data/{key}").body == value
    assert [*stocked.user_data] == ["role", "cloud-init", "new"]


def test_a_value_that_is_not_said_to_be_text_is_not_set(stocked: Emulator) -> None:
    for headers in ({}, {"Content-Type": "application/json"}):
        answer = ask(stocked, "PATCH", "/user_data/role", b"db", headers)
        assert (answer.status, stocked.user_data["role"]) == (400, b"web")


def test_a_value_that_is_too_large_is_not_set(stocked: Emulator) -> None:
    value = b"x" * (2 * 1024 * 1024 + 1)
    assert ask(stocked, "PATCH", "/user_data/role", value, PLAIN).status == 413
    assert stocked.user_data["role"] == b"web"


def test_a_key_is_gone_once_it_is_deleted(stocked: Emulator) -> None:
    statuses = [ask(stocked, "DELETE", "/user_data/role").status for _ in range(2)]
    assert statuses == [204, 404]
    assert [*stocked.user_data] == ["cloud-init"]


def test_a_key_that_is_not_there_is_not_found(stocked: Emulator) -> None:
    assert ask(stocked, "GET", "/user_data/none").status == 404


def test_without_vendor_data_there_is_none_to_be_found() -> None:
    with Emulator(any_port=True) as service:
        assert ask(service, "GET", "/vendor_data/cloud-init").status == 404


@pytest.mark.parametrize("key", ["a/b", "a b", "..", "\u00e9", "a?b#c", "%2f", "a\nb"])
def test_a_key_is_one_segment_of_the_path(stocked: Emulator, key: str) -> None:
    target = f"/user_data/{quote(key, safe='')}"
    assert ask(stocked, "PATCH", target, b"value", PLAIN).status == 204
    assert stocked.user_data[key] == b"value"
    form = ask(stocked, "GET", "/user_data?format=json")
    assert json.loads(form.body)["user_data"][-1] == key


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/user_data"),
        ("GET", "/user_data?format=json"),
        ("GET", "/user_data/role"),
        ("PATCH", "/user_data/role"),
        ("DELETE", "/user_data/role"),
        ("GET", "/user_data/none"),
        ("GET", "/vendor_data/cloud-init"),
    ],
)
def test_a_source_port_above_1023_is_forbidden_and_told_so(
    method: str, target: str
) -> None:
    with Emulator(user_data={"role": b"web"}, vendor_data=b"x") as service:
        answer = ask(service, method, target, b"db" if method == "PATCH" else None)
        assert (answer.status, service.user_data) == (403, {"role": b"web"})
        assert answer.body == b"ask from a source port below 1024\n"


@pytest.mark.parametrize(
    ("endpoint", "met"),
    [("user_data", [503, 503, 200, 200]), ("vendor_data", [200, 200, 503, 200])],
)
def test_a_fault_for_user_data_is_for_its_list_and_its_keys(
    stocked: Emulator, endpoint: str, met: list[int]
) -> None:
    stocked.set_faults([f"{endpoint}/503"])
    targets = "/user_data", "/user_data/role", "/vendor_data/cloud-init", "/conf"
    assert [ask(stocked, "GET", target).status for target in targets] == met


def test_what_happens_to_user_data_is_told_and_no_value_is(stocked: Emulator) -> None:
    ask(stocked, "PATCH", "/user_data/role", b"secret", PLAIN)
    ask(stocked, "DELETE", "/user_data/role")
    assert texts(stocked) == [
        "PATCH /user_data/role -> 204 bytes=6",
        "DELETE /user_data/role -> 204 deleted=6",
    ]


# Faults


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
def test_a_bare_failure_names_no_time(service: Emulator, fault: str) -> None:
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


def test_what_stands_behind_a_closed_port_comes_after_it() -> None:
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
def test_a_fault_that_can_not_be_is_refused_and_named(spec: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"in '{spec.rstrip()}")):
        parse_fault(spec)


def test_an_unknown_fault_is_told_the_known_ones() -> None:
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


# Beginning and end


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
    # The quickest of three: now and then another process is in the way.
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
    service.close()  # once more does no harm
    assert time.monotonic() - start < 0.2
    assert threading.enumerate() == before


def test_a_port_can_be_taken_again_at_once() -> None:
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
        assert busy.wait(PATIENCE)  # the service stands still: nobody is accepted
        for _ in range(100):
            stack.enter_context(plug(service))


# The command


class Command(NamedTuple):
    """The command, running."""

    process: subprocess.Popen[str]
    out: IO[str]
    err: IO[str]
    url: str

    def line(self) -> str:
        return self.out.readline().rstrip("\n")


# It has to flush its lines by itself.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
EMULATOR = (sys.executable, "-W", "error", "-m", "scw_signal.emulator")


@contextlib.contextmanager
def running(*words: str) -> Iterator[Command]:
    process = subprocess.Popen(
        [*EMULATOR, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout as out, process.stderr as err:
        try:
            yield Command(process, out, err, out.readline().rstrip("\n"))
        finally:
            process.kill()
            process.wait(PATIENCE)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMULATOR, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def ask_command(
    command: Command, method: str, target: str, body: bytes = b""
) -> Answer:
    with contextlib.closing(connect(command.url)) as connection:
        connection.request(method, target, body)
        return read(connection)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_end(number: signal.Signals) -> None:
    with running() as command:
        assert ask_command(command, "PATCH", "/state", BOOTED).status == 200
        assert re.fullmatch(
            r" +\d+\.\d{3} PATCH /state -> 200 state_detail=booted", command.line()
        )
        assert command.line().endswith(" server starting -> running")
        command.process.send_signal(number)
        assert command.process.wait(PATIENCE) == 0
        assert (command.out.read(), command.err.read()) == ("", "")


def test_the_url_comes_first_whatever_happens_before() -> None:
    with running("--fault", "refuse") as command:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", command.url)
        assert command.line().endswith(" port closed fault=refuse")


def test_the_command_ends_while_a_client_hangs() -> None:
    with (
        running("--fault", "hang") as command,
        socket.create_connection(address(command.url)) as plugged,
    ):
        plugged.sendall(SIGNAL)
        assert command.line().endswith("PATCH /state -> - fault=hang")
        command.process.terminate()
        assert command.process.wait(PATIENCE) == 0


def test_the_command_survives_whoever_reads_it() -> None:
    with running() as command:
        command.out.close()
        for _ in range(3):
            assert ask_command(command, "PATCH", "/state", BOOTED).status == 200
        command.process.terminate()
        assert command.process.wait(PATIENCE) == 0
        assert command.err.read() == ""


def test_the_options_reach_the_service(tmp_path: Path) -> None:
    document = tmp_path / "conf.json"
    document.write_text('{"hostname": "elsewhere"}')
    words = ("--host", "localhost", "--doc", str(document), "--watchdog", "0.05")
    faults = ("--fault", "conf/503:1", "--fault", "conf/404:1")
    with running(*words, *faults) as command:
        assert address(command.url)[0] == "localhost"
        answers = [ask_command(command, "GET", "/conf") for _ in range(3)]
        assert [answer.status for answer in answers] == [503, 404, 200]
        assert answers[2].body.startswith(b"HOSTNAME=elsewhere\n")
        while not command.line().endswith("server starting -> hard-rebooted"):
            pass


def test_user_data_can_be_given_on_the_command_line(tmp_path: Path) -> None:
    value = tmp_path / "a=b"
    value.write_bytes(EVERY_BYTE)
    given = ("--user-data", f"role={value}", "--user-data", "empty=/dev/null")
    with running(*given, "--vendor-data", str(value), "--any-port") as command:
        targets = "/user_data/role", "/user_data/empty", "/vendor_data/cloud-init"
        values = [ask_command(command, "GET", target).body for target in targets]
    assert values == [EVERY_BYTE, b"", EVERY_BYTE]


def test_the_port_can_be_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with running("--port", str(port)) as command:
        assert command.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--fault", "nonsense"],
            "argument --fault: in 'nonsense': unknown fault; known",
        ),
        (["--port", "65536"], "argument --port: not a number from 0 to 65535: 65536"),
        (["--port", "x\x1b"], "argument --port: not a number from 0 to 65535: x\\x1b"),
        (
            ["--watchdog", "0"],
            "argument --watchdog: not a number of seconds above 0: 0",
        ),
        (["--watchdog", "inf"], "not a number of seconds above 0: inf"),
        (["--user-data", "role"], "argument --user-data: not KEY=FILE: role"),
        (["--user-data", "=/dev/null"], "--user-data: not KEY=FILE: =/dev/null"),
        (["--user-data", "a=/nonexistent"], "can not read /nonexistent: No such file"),
        (["--vendor-data", "/"], "--vendor-data: can not read /: Is a directory"),
        (["--doc", "/nonexistent"], "can not read /nonexistent: No such file"),
        (["--doc", "/"], "can not read /: Is a directory"),
        (["--doc", __file__], "argument --doc: not JSON: "),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["extra"], "unrecognized arguments: extra"),
        (["--fault"], "argument --fault: expected one argument"),
    ],
)
def test_bad_usage_is_one_line_and_2(words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.startswith("emulator: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_document_is_a_json_object(tmp_path: Path) -> None:
    document = tmp_path / "conf.json"
    document.write_text("[]")
    done = run("--doc", str(document))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"emulator: argument --doc: not a JSON object: {document}\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "name.invalid"])
def test_an_address_it_can_not_listen_on_is_one_line_and_1(
    service: Emulator, host: str
) -> None:
    done = run("--host", host, "--port", str(address(service.url)[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("emulator: can not listen: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_explains_every_fault() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, kind in FAULTS.items():
        assert f"  {name:11}{kind.summary}\n" in done.stdout


# curl


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
def test_curl_fails_for_the_reason_that_the_fault_is(
    curl: str, service: Emulator, fault: str, status: int, words: list[str]
) -> None:
    service.set_faults([fault])
    assert patch(curl, service, *words).returncode == status


def test_curl_that_follows_is_seen_doing_it(curl: str, service: Emulator) -> None:
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
        assert asked(where) == "200"
        assert value.read_bytes() == b"USER_DATA=1\nUSER_DATA_0=role\n"
        assert asked("-X", "DELETE", f"{where}/role") == "204"
        assert service.user_data == {}
        assert fetch(curl, f"{where}/role").stdout.startswith("ask from a source port")
