"""scw-signald, installed, end to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installed import BIN, ENVIRONMENT, PATIENCE, Result, run, shown, start
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("commands")

FILES = {"state", "metadata.json", "metadata.flat"}


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as service:
        yield service


def agent(service: Emulator, directory: Path, *words: str) -> Result:
    return run("scw-signald", *arguments(service, directory), "--no-dns", *words)


def arguments(service: Emulator, directory: Path) -> tuple[str, ...]:
    return "-d", "--url", service.url, "--run-dir", str(directory)


def state(directory: Path) -> dict[str, str]:
    lines = (directory / "state").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_boot_is_signalled_and_the_server_runs(
    service: Emulator, tmp_path: Path
) -> None:
    assert agent(service, tmp_path).status == 0
    assert service.server_state == "running"
    assert [(r.method, r.target) for r in service.requests] == [
        ("PATCH", "/state"),
        ("GET", "/conf?format=json"),
    ]


def test_it_leaves_the_state_behind(service: Emulator, tmp_path: Path) -> None:
    agent(service, tmp_path)
    found = state(tmp_path)
    seconds = {name: found.pop(name) for name in list(found) if "SECONDS" in name}
    assert found == {
        "STATE_DETAIL": "booted",
        "CONFIRMED": "True",
        "URL": service.url,
        "TRIES": "1",
    }
    assert set(seconds) == {"NETWORK_SECONDS", "DNS_SECONDS", "SIGNAL_SECONDS"}
    assert all(float(value) >= 0 for value in seconds.values())


def test_it_leaves_the_metadata_behind_for_every_user(
    service: Emulator, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    agent(service, directory)
    assert {path.name for path in directory.iterdir()} == FILES
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    served = json.loads((directory / "metadata.json").read_text())
    assert served["state_detail"] == "booted"
    words = ("--cached", "--run-dir", str(directory))
    assert run("scw-metadata", *words, "hostname").out.strip() == served["hostname"]


def test_what_it_leaves_behind_is_assignments_for_a_shell(
    service: Emulator, tmp_path: Path
) -> None:
    agent(service, tmp_path)
    command = BIN / "scw-metadata"
    script = 'metadata=$("$0" --cached --run-dir "$1" --sh) || exit; eval "$metadata"'
    printed = subprocess.run(
        ["sh", "-c", f'{script}; echo "$SCW_STATE_DETAIL"', command, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == "booted\n"


def test_the_log_has_a_line_for_each_stage(service: Emulator, tmp_path: Path) -> None:
    _, out, err = agent(service, tmp_path)
    stages = [line.split(": ")[1] for line in err.splitlines()]
    assert out == ""
    assert stages == ["network", "signal", "metadata"]


@pytest.mark.parametrize(
    "fault",
    ["reset", "429", "429-after=0", "503", "404", "wrong-ack", "html", "garbage"],
)
def test_a_service_that_comes_to_its_senses_gets_the_signal(
    tmp_path: Path, fault: str
) -> None:
    # html: after a web page, /conf says that the state was not set.
    # After an overload, the short deadline makes the second try come soon.
    with Emulator(faults=[f"{fault}:1"]) as service:
        assert agent(service, tmp_path, "--deadline", "3").status == 0
        assert state(tmp_path)["TRIES"] == "2"


def test_an_unconfirmed_signal_is_confirmed_by_the_document(tmp_path: Path) -> None:
    with Emulator(faults=["state/empty-ack"]) as service:
        _, _, err = agent(service, tmp_path)
    assert "'booted' acknowledged" in err
    assert state(tmp_path)["CONFIRMED"] == "True"


@pytest.mark.parametrize(
    "faults", [["html:2"], ["state/html:1", "conf/503:1"]], ids=str
)
def test_a_web_page_is_no_acknowledgement(tmp_path: Path, faults: list[str]) -> None:
    with Emulator(faults=faults) as service:
        assert agent(service, tmp_path, "--deadline", "60").status == 0
        assert service.server_state == "running"
    assert state(tmp_path)["CONFIRMED"] == "True"


@pytest.mark.parametrize(
    "conf", ["conf/503", "conf/html", "conf/garbage", "conf/reset"]
)
def test_a_signal_that_cannot_be_checked_has_failed(tmp_path: Path, conf: str) -> None:
    with Emulator(faults=["state/empty-ack", conf]) as service:
        status, _, err = agent(service, tmp_path, "--deadline", "1.5")
    assert status == 1
    assert "the reply names no state, and /conf cannot be read: " in err
    assert not (tmp_path / "state").exists()


def test_a_sane_address_behind_one_that_answers_nonsense_is_found(
    tmp_path: Path,
) -> None:
    with Emulator(faults=["garbage"]) as bad, Emulator() as sane:
        words = ("-d", "--no-dns", "--url", bad.url, "--url", sane.url)
        done = run("scw-signald", *words, "--run-dir", str(tmp_path))
    assert done.status == 0
    assert sane.server_state == "running"
    assert len(bad.requests) == 2


def test_typed_on_a_terminal_it_says_where_the_log_goes(
    service: Emulator, tmp_path: Path
) -> None:
    words = ("--no-dns", "--url", service.url, "--run-dir", str(tmp_path))
    (line,) = shown("scw-signald", *words).splitlines()
    assert re.fullmatch(r"scw-signald: logging to .*; -d logs here", line)
    assert "logging to" not in shown("scw-signald", "-d", *words)
    assert run("scw-signald", *words).err == ""


def test_a_verbose_agent_logs_every_try(tmp_path: Path) -> None:
    with Emulator(faults=["503:3"]) as service:
        words = ("--no-dns", "--url", service.url, "--run-dir", str(tmp_path))
        verbose = run("scw-signald", "-dv", *words)
    assert re.findall(r"the service answered 503 \(try (\d)", verbose.err) == [*"123"]


def test_a_deadline_that_passes_is_status_1(tmp_path: Path) -> None:
    with Emulator(faults=["503"]) as service:
        status, _, err = agent(service, tmp_path, "--deadline", "1.2")
    assert status == 1
    last = err.splitlines()[-1]
    assert re.search(r"gave up after 1\.[12] s \(--deadline\)$", last)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_counts_even_if_the_metadata_is_refused(
    service: Emulator, tmp_path: Path
) -> None:
    service.set_faults(["conf/403"])
    process = start("scw-signald", *arguments(service, tmp_path), "--no-dns")
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("metadata: the service refused" in line for line in lines)
    assert state(tmp_path)["STATE_DETAIL"] == "booted"
    process.terminate()
    process.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", ["back-off", "hang"])
def test_a_signal_ends_it_with_one_plain_line(
    tmp_path: Path, number: signal.Signals, wait: str
) -> None:
    fault = {"back-off": "429-after=60", "hang": "hang"}[wait]
    with Emulator(faults=[fault]) as service:
        process = start("scw-signald", *arguments(service, tmp_path), "--no-dns")
        assert process.stderr is not None
        assert "network" in process.stderr.readline()
        if wait == "back-off":
            assert "429" in process.stderr.readline()
        else:
            assert service.wait_until(lambda: bool(service.requests), 10)
        process.send_signal(number)
        _, err = process.communicate(timeout=3)
    assert err == f"scw-signald: stopped by {number.name}\n"
    assert process.returncode == -number


def test_a_standard_error_that_nobody_reads_does_not_hold_up_the_signal(
    service: Emulator, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    done = subprocess.run(
        [BIN / "scw-signald", *arguments(service, tmp_path), "--no-dns"],
        env=ENVIRONMENT,
        stderr=writing,
        timeout=PATIENCE,
        check=False,
    )
    os.close(reading)
    os.close(writing)
    assert (done.returncode, service.server_state) == (0, "running")


def test_a_resolver_that_says_nothing_is_a_warning(
    service: Emulator, tmp_path: Path
) -> None:
    # .invalid never resolves, but the bound is what ends the wait here.
    words = (*arguments(service, tmp_path), "--dns-timeout", "0")
    status, _, err = run("scw-signald", *words)
    assert status == 0
    assert "dns: no answer in 0.0 s; signalling without it" in err
    assert service.server_state == "running"


def test_a_run_directory_that_is_a_file_is_a_warning(
    service: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("mine")
    status, _, err = agent(service, tmp_path / "run")
    assert status == 0
    assert "no files will be stored" in err
    assert (tmp_path / "run").read_text() == "mine"
    assert service.server_state == "running"


def test_a_symlink_planted_in_the_run_directory_is_not_followed(
    service: Emulator, tmp_path: Path
) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    directory.mkdir()
    shutil.chown(directory, tmp_path.stat().st_uid)  # the agent's: see conftest
    for name in FILES:
        (directory / name).symlink_to(victim)
    assert agent(service, directory).status == 0
    assert victim.read_text() == "mine"
    assert not any(path.is_symlink() for path in directory.iterdir())


def test_a_read_only_file_system_is_a_warning(
    service: Emulator, tmp_path: Path
) -> None:
    mount = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    words = (*arguments(service, tmp_path / "run"), "--no-dns")
    namespace = ("unshare", "--mount", "sh", "-c", mount, str(tmp_path))
    if (
        shutil.which(namespace[0]) is None
        or subprocess.run(
            [*namespace, "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*namespace, str(BIN / "scw-signald"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "no files will be stored" in done.stderr
    assert "Read-only file system" in done.stderr
    assert service.server_state == "running"


def test_neither_an_empty_environment_nor_a_c_locale_hurts(tmp_path: Path) -> None:
    document = {"name": "café 🐡", "state_detail": "booting kernel"}
    for environment in ({}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}):
        with Emulator(document=document) as service:
            done = subprocess.run(
                [
                    *(sys.executable, str(BIN / "scw-signald"), "--no-dns"),
                    *arguments(service, tmp_path),
                ],
                env=environment,
                capture_output=True,
                check=False,
            )
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
        assert "\nNAME=café 🐡\n" in (tmp_path / "metadata.flat").read_text("utf-8")


def test_an_unknown_flag_is_one_line_and_status_2() -> None:
    status, out, err = run("scw-signald", "--frobnicate")
    assert (status, out) == (2, "")
    assert err == (
        "scw-signald: there is no option --frobnicate (see scw-signald --help)\n"
    )


def test_two_agents_at_once_both_end_well(service: Emulator, tmp_path: Path) -> None:
    words = (*arguments(service, tmp_path), "--no-dns")
    both = [start("scw-signald", *words) for _ in range(2)]
    assert [process.communicate(timeout=30) and process.returncode for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_a_half_written_file_of_a_killed_agent_does_no_harm(
    service: Emulator, tmp_path: Path
) -> None:
    half = tmp_path / f".state.{os.getpid()}"
    half.write_text("STATE_DET")
    agent(service, tmp_path)
    assert state(tmp_path)["STATE_DETAIL"] == "booted"


def test_check_tells_that_the_signal_would_go_out_and_sends_none(
    service: Emulator, tmp_path: Path
) -> None:
    words = ("-n", "--url", service.url, "--run-dir", str(tmp_path / "run"))
    status, out, err = run("scw-signald", *words, "--dns-name", "localhost")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert {line[:4].strip() for line in lines[:-1]} <= {"ok", "warn", ""}
    assert "the signal would go out" in lines[-1].lower()
    assert max(map(len, lines)) <= 80
    assert [r.method for r in service.requests if r.method != "GET"] == []
    assert not (tmp_path / "run").exists()


def test_check_tells_what_is_wrong_when_nothing_answers(tmp_path: Path) -> None:
    words = ("-n", "--run-dir", str(tmp_path), "--dns-name", "localhost")
    status, out, _ = run("scw-signald", *words)
    assert status == 1
    assert "FAIL connect" in out
    assert "\nNothing answers at the service's addresses" in out
    assert max(map(len, out.splitlines())) <= 80


def test_check_in_json_says_the_same(service: Emulator, tmp_path: Path) -> None:
    words = ("-n", "--json", "--url", service.url, "--run-dir", str(tmp_path))
    status, out, _ = run("scw-signald", *words, "--dns-name", "localhost")
    answer = json.loads(out)
    assert (status, answer["would_signal"]) == (0, True)
    assert {"check", "verdict", "text"} == set(answer["findings"][0])
    assert answer["verdict"] == "would-signal"
    known = {name: answer[name] for name in ("state_detail", "zone", "url")}
    assert known == {
        "state_detail": "booting kernel", "zone": "fr-par-1", "url": service.url,
    }  # fmt: skip


def test_check_says_when_it_is_signalled(service: Emulator, tmp_path: Path) -> None:
    words = ("--url", service.url, "--run-dir", str(tmp_path))
    assert run("scw-signald", "-d", "--no-dns", *words).status == 0
    status, out, _ = run("scw-signald", "-n", "--dns-name", "localhost", *words)
    assert status == 0
    assert out.splitlines()[-1].startswith("Signalled: the service has 'booted'.")


def test_help_fits_a_screen() -> None:
    status, out, _ = run("scw-signald", "--help")
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) < 80
