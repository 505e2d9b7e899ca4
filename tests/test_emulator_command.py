"""The command: its output, its options, its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import IO, TYPE_CHECKING, NamedTuple

import pytest

import scw_signal
from emulated import (
    BOOTED,
    EVERY_BYTE,
    PATIENCE,
    PLAIN,
    SIGNAL,
    Answer,
    address,
    connect,
    read,
)
from scw_signal.emulator import FAULTS, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


class Command(NamedTuple):
    """The command, running."""

    process: subprocess.Popen[str]
    out: IO[str]
    err: IO[str]
    url: str

    def line(self) -> str:
        return self.out.readline().rstrip("\n")


# The command itself has to flush its lines.
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


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMULATOR, *words],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def ask_command(
    command: Command,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    with contextlib.closing(connect(command.url)) as connection:
        connection.request(method, target, body, headers or {})
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


def test_the_command_survives_the_end_of_its_reader() -> None:
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


def test_the_answers_that_are_uncertain_can_be_chosen() -> None:
    with running("--high-port-status", "400") as command:
        answer = ask_command(command, "GET", "/user_data")
        assert (answer.status, answer.body) == (400, b"invalid argument(s)\n")
    with running("--any-port", "--write-status", "200") as command:
        answer = ask_command(command, "PATCH", "/user_data/role", b"web", PLAIN)
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_the_log_can_have_the_time_of_day_and_the_client(option: str) -> None:
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)  # the log truncates
    with running(option) as command:
        assert ask_command(command, "PATCH", "/state", BOOTED).status == 200
        asked, changed = (command.line().split(" ", 2) for _ in range(2))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", asked[0])
    when = datetime.fromisoformat(asked[0].replace("Z", "+00:00"))
    assert before <= when <= datetime.now(timezone.utc)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", asked[1])
    assert asked[2] == "PATCH /state -> 200 state_detail=booted"
    assert changed[1:] == ["-", "server starting -> running"]


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
        (["--user-data", "a=/nonexistent"], "cannot read /nonexistent: No such file"),
        (["--vendor-data", "/"], "--vendor-data: cannot read /: Is a directory"),
        (["--doc", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["--doc", "/"], "cannot read /: Is a directory"),
        (["--doc", __file__], "argument --doc: not JSON: "),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["extra"], "unrecognized arguments: extra"),
        (["--fault"], "argument --fault: expected one argument"),
        (["--write-status", "500"], "argument --write-status: invalid choice: "),
        (["--write-status", "x"], "argument --write-status: invalid int value: 'x'"),
        (["--high-port-status", "404"], "--high-port-status: invalid choice: "),
        (
            ["--any-port", "--high-port-status", "400"],
            "argument --high-port-status: not allowed with argument --any-port",
        ),
    ],
)
def test_bad_usage_is_one_line_and_status_2(words: list[str], message: str) -> None:
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
def test_an_address_it_cannot_listen_on_is_one_line_and_status_1(
    service: Emulator, host: str
) -> None:
    done = run("--host", host, "--port", str(address(service.url)[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("emulator: cannot listen: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_help_has_at_most_80_columns_whatever_the_terminal_has(columns: str) -> None:
    done = run("--help", COLUMNS=columns)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_that_of_the_package(option: str) -> None:
    done = run(option)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"scw_signal.emulator {scw_signal.__version__}\n"


def test_help_explains_every_fault() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, kind in FAULTS.items():
        assert f"  {name:11}{kind.summary}\n" in done.stdout
