"""The platform that is emulated: a server's state, its user data, the watchdog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from emulated import (
    EVERY_BYTE,
    NO_WAIT,
    PATIENCE,
    PLAIN,
    ask,
    get_json,
    send_signal,
    texts,
)
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


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


@pytest.fixture
def stocked() -> Iterator[Emulator]:
    stock = {"role": b"web", "cloud-init": EVERY_BYTE}
    with Emulator(user_data=stock, vendor_data=EVERY_BYTE, any_port=True) as service:
        yield service


@pytest.mark.parametrize("target", ["/user_data", "/user_data/"])
def test_the_keys_of_user_data_are_listed_in_both_forms(
    stocked: Emulator, target: str
) -> None:
    text = ask(stocked, "GET", target)
    assert text.body == b"USER_DATA=2\nUSER_DATA_0=role\nUSER_DATA_1=cloud-init\n"
    assert text.headers["content-type"] == "text/plain"
    form = ask(stocked, "GET", f"{target}?format=json")
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
def test_a_source_port_above_1023_is_forbidden_with_a_reason(
    method: str, target: str
) -> None:
    with Emulator(user_data={"role": b"web"}, vendor_data=b"x") as service:
        answer = ask(service, method, target, b"db" if method == "PATCH" else None)
        assert (answer.status, service.user_data) == (403, {"role": b"web"})
        assert answer.body == b"ask from a source port below 1024\n"


def test_a_source_port_above_1023_can_be_refused_as_in_the_field() -> None:
    with Emulator(user_data={"role": b"web"}, high_port_status=400) as service:
        answer = ask(service, "GET", "/user_data/role")
    assert (answer.status, answer.body) == (400, b"invalid argument(s)\n")


@pytest.mark.parametrize("status", [204, 200])
def test_the_status_of_a_write_can_be_chosen(status: int) -> None:
    with Emulator(any_port=True, write_status=status) as service:
        written = ask(service, "PATCH", "/user_data/role", b"web", PLAIN)
        deleted = ask(service, "DELETE", "/user_data/role")
    assert (written.status, written.body) == (status, b"")
    assert (deleted.status, deleted.body) == (status, b"")


def test_a_status_that_the_service_would_not_send_is_an_error() -> None:
    with pytest.raises(ValueError, match="write_status is 204 or 200, not 500"):
        Emulator(write_status=500)
    with pytest.raises(ValueError, match="high_port_status is 403 or 400, not 404"):
        Emulator(high_port_status=404)


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


def test_events_tell_what_happens_to_user_data_but_no_value(stocked: Emulator) -> None:
    ask(stocked, "PATCH", "/user_data/role", b"secret", PLAIN)
    ask(stocked, "DELETE", "/user_data/role")
    assert texts(stocked) == [
        "PATCH /user_data/role -> 204 bytes=6",
        "DELETE /user_data/role -> 204 deleted=6",
    ]
