"""scw-signal-state, installed, end to end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from installed import BIN, ENVIRONMENT, Result, run, shown, start
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = BIN / "scw-signal-state"

pytestmark = pytest.mark.usefixtures("commands")


def signal_state(service: Emulator, *words: str) -> Result:
    return run("scw-signal-state", "--url", service.url, *words)


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as service:
        yield service


def test_a_signal_that_is_acknowledged_says_so(service: Emulator) -> None:
    assert signal_state(service, "booted") == (0, "booted signal sent!\n", "")
    assert service.state_detail == "booted"
    assert service.server_state == "running"


def test_it_is_one_request_on_the_wire(service: Emulator) -> None:
    signal_state(service, "booted")
    (request,) = service.requests
    headers = {name.lower(): value for name, value in request.headers}
    assert (request.method, request.target) == ("PATCH", "/state")
    assert json.loads(request.body) == {"state_detail": "booted"}
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(request.body))
    assert headers["user-agent"].startswith("scw-signal/")


def test_any_printable_state_arrives_as_it_was_typed(service: Emulator) -> None:
    state = 'it\'s "ready" \\ café 🐡'
    assert signal_state(service, state).status == 0
    assert service.state_detail == state


@pytest.mark.parametrize("state", ["", "x" * 129, "a\nb", "\x1b[31m", "a\u202eb"])
def test_an_invalid_state_is_refused_and_nothing_is_sent(
    service: Emulator, state: str
) -> None:
    status, out, err = signal_state(service, state)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.rstrip("\n").isprintable()
    assert service.requests == []


@pytest.mark.parametrize("words", [[], ["booted", "again"], ["--bogus", "booted"]])
def test_a_wrong_command_line_is_one_line_and_status_2(
    service: Emulator, words: list[str]
) -> None:
    status, out, err = signal_state(service, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--help" in err


@pytest.mark.parametrize(
    "fault", ["reset", "429", "429-after=0", "503", "404", "wrong-ack", "truncate"]
)
def test_after_a_passing_fault_it_tries_until_it_is_acknowledged(fault: str) -> None:
    with Emulator(faults=[f"state/{fault}:2"]) as service:
        assert signal_state(service, "booted").status == 0
        assert [r.target for r in service.requests].count("/state") == 3


@pytest.mark.parametrize("fault", ["403", "redirect"])
def test_a_refusal_ends_it_at_once(fault: str) -> None:
    with Emulator(faults=[fault]) as service:
        status, out, err = signal_state(service, "booted")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert len(service.requests) == 1


def test_once_is_one_try() -> None:
    with Emulator(faults=["503"]) as service:
        status, _, err = signal_state(service, "--once", "booted")
        assert (status, err) == (1, "scw-signal-state: the service answered 503\n")
        assert len(service.requests) == 1


def test_timeout_ends_it_with_the_last_reason() -> None:
    with Emulator(faults=["503"]) as service:
        status, out, err = signal_state(service, "--timeout", "1.2", "booted")
        assert (status, out) == (1, "")
        assert re.fullmatch(
            r"scw-signal-state: the service answered 503;"
            r" gave up after 1\.[12]\d* s \(--timeout\)\n",
            err,
        )


def test_an_empty_acknowledgement_is_confirmed_by_reading_back() -> None:
    with Emulator(faults=["state/empty-ack"]) as service:
        assert signal_state(service, "booted") == (0, "booted signal sent!\n", "")
        assert [r.method for r in service.requests] == ["PATCH", "GET"]


def test_an_acknowledgement_that_nothing_confirms_is_reported() -> None:
    with Emulator(faults=["state/empty-ack:1", "conf/html"]) as service:
        status, out, err = signal_state(service, "booted")
        assert (status, out) == (0, "booted signal sent!\n")
        assert err == "scw-signal-state: sent, but the service did not confirm it\n"


def test_quiet_prints_nothing_when_all_is_well(service: Emulator) -> None:
    assert signal_state(service, "-q", "booted") == (0, "", "")


def test_verbose_prints_a_line_for_each_failed_try() -> None:
    with Emulator(faults=["503:2"]) as service:
        _, _, err = signal_state(service, "-v", "booted")
        assert err.count("the service answered 503") == 2


def test_the_second_address_is_asked_when_the_first_cannot_be_reached(
    service: Emulator,
) -> None:
    status, _, err = run(
        "scw-signal-state", "--url", "http://127.0.0.1:1", "--url", service.url, "ready"
    )
    assert (status, err) == (0, "")
    assert service.state_detail == "ready"


def test_the_vendors_variables_name_the_service(service: Emulator) -> None:
    address, port = service.url.removeprefix("http://").rsplit(":", 1)
    env = {"METADATA_IP": address, "METADATA_PORT": port}
    assert run("scw-signal-state", "booted", env=env).status == 0
    assert service.state_detail == "booted"


def test_no_proxy_is_used_whatever_the_environment_says(service: Emulator) -> None:
    with Emulator() as proxy:
        names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy")
        env = dict.fromkeys(names, proxy.url)
        assert (
            run("scw-signal-state", "--url", service.url, "booted", env=env).status == 0
        )
        assert proxy.requests == []


def test_on_a_terminal_it_says_what_it_waits_for_in_one_line_that_goes_away() -> None:
    with Emulator(faults=["503:2"]) as service:
        output = shown("scw-signal-state", "--url", service.url, "booted")
    waiting, _, rest = output.rpartition("\r\x1b[K")
    assert re.match(r"\rtry 2 in [\d.]+ s: the service answered 503\x1b\[K", waiting)
    assert "\n" not in waiting
    assert rest == "booted signal sent!\r\n"


def test_ctrl_c_is_quiet_and_tells_the_shell() -> None:
    with Emulator(faults=["503"]) as service:
        process = start("scw-signal-state", "-v", "--url", service.url, "booted")
        assert process.stderr is not None
        assert "503" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == -signal.SIGINT
        assert "Traceback" not in err


def test_a_closed_standard_output_is_a_clear_error(
    service: Emulator, tmp_path: Path
) -> None:
    log = tmp_path / "err"
    shell = f'"$0" --url {service.url} booted >&- 2>{log}'
    words = ["sh", "-c", shell, str(COMMAND)]
    assert subprocess.run(words, env=ENVIRONMENT, check=False).returncode == 1
    assert "standard output" in log.read_text()


def test_help_fits_a_screen() -> None:
    status, out, _ = run("scw-signal-state", "--help")
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) < 80
