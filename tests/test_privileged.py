"""What root does for the agent, and that root does nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

import rooted
from installed import BIN, ENVIRONMENT, PATIENCE
from scw_signal import log, privileged
from scw_signal.cli import signald
from scw_signal.clock import Clock
from scw_signal.document import is_hostname
from scw_signal.emulator import DOCUMENT, Emulator
from scw_signal.errors import DutyError, NotRootError, Stopped
from scw_signal.log import Log
from scw_signal.privileged import Channel, Duties, Parent
from scw_signal.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fakes import FakeClock

ID = str(DOCUMENT["id"])
HERE = os.uname().nodename.partition(".")[0]


class Half:
    """A parent that serves in a thread, and the agent's side of its channel."""

    def __init__(
        self, directory: Path, *, hostname: bool = True, user_data: bool = True
    ) -> None:
        self.log: list[str] = []
        self.directory = directory
        self.kept = directory / "myname"
        agents, ours = socket.socketpair()
        self.parent = Parent(Channel(agents, Clock()))
        self._agents, self._ours = agents, Channel(ours, Clock())
        self.duties = Duties(
            Clock(),
            Log(lambda _, line: self.log.append(line), verbose=False),
            self._reserve,
            hostname=hostname,
            user_data=user_data,
            directory=str(directory / "db"),
            kept=str(self.kept),
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.closing(self._ours), contextlib.suppress(ConnectionError):
            self.duties.serve(self._ours)

    def _reserve(self, family: int) -> socket.socket:
        bound = socket.socket(family)
        bound.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return bound

    def ask(self, frame: bytes) -> bytes:
        self._agents.settimeout(PATIENCE)
        self._agents.sendall(frame)
        return self._agents.recv(1000)

    def leave(self) -> None:
        """End the agent, and wait until the parent has ended too."""
        with contextlib.suppress(OSError):
            self._agents.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """End both, and kill what is left of a script."""
        self.leave()
        self._agents.close()
        for child in (self.duties._script, self.duties._logger):
            if child is not None:
                child.kill()
                child.wait()


@pytest.fixture
def half(tmp_path: Path) -> Iterator[Half]:
    half = Half(tmp_path)
    yield half
    half.close()


# User data.


@pytest.fixture
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a logger(1) that writes to a FIFO; return the FIFO."""
    told = tmp_path / "told"
    os.mkfifo(told)
    logger = tmp_path / "bin/logger"
    logger.parent.mkdir()
    logger.write_text(f'#!/bin/sh\n{{ echo "$@"; exec cat; }} >"{told}"\n')
    logger.chmod(0o755)
    monkeypatch.setattr(privileged, "PATH", f"{logger.parent}:/bin:/usr/bin")
    return told


def test_a_script_is_run_and_what_it_prints_goes_to_logger(
    half: Half, logged: Path
) -> None:
    script = b"#!/bin/sh\necho one; echo two >&2; pwd; umask\n"
    assert half.parent.run_user_data(ID, script) == "ended with status 0"
    assert logged.read_text().splitlines() == [
        "-t scw-user-data -p daemon.info", "one", "two", "/", "0022",
    ]  # fmt: skip


def test_a_background_job_can_still_log_after_agent_and_parent_have_ended(
    half: Half, logged: Path
) -> None:
    gate = half.directory / "gate"
    os.mkfifo(gate)
    script = f"#!/bin/sh\n{{ read line <{gate}; echo $line; }} &\n"
    assert half.parent.run_user_data(ID, script.encode()) == "ended with status 0"
    half.leave()
    half.duties.stop()  # ends only a script that still runs
    gate.write_text("late\n")
    assert logged.read_text().endswith("late\n")


def test_without_logger_a_script_runs_and_the_log_says_so(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privileged, "LOGGER", ("no-such-logger",))
    ran = half.directory / "ran"
    half.parent.run_user_data(ID, f"#!/bin/sh\necho x; echo >{ran}\n".encode())
    assert ran.exists()
    assert half.log == ["user-data: without logger(1) its output is lost"]


def test_a_script_that_fails_is_an_error_that_says_how(half: Half) -> None:
    with pytest.raises(DutyError, match=r"^ended with status 7$"):
        half.parent.run_user_data(ID, b"#!/bin/sh\nexit 7\n")


def test_a_script_that_is_killed_is_an_error_that_names_the_signal(half: Half) -> None:
    with pytest.raises(DutyError, match=r"^ended with SIGKILL$"):
        half.parent.run_user_data(ID, b"#!/bin/sh\nkill -9 $$\n")


def test_a_script_that_is_killed_by_a_signal_without_a_name_is_an_error(
    half: Half,
) -> None:
    with pytest.raises(DutyError, match=r"^ended with signal 40$"):
        half.parent.run_user_data(ID, b"#!/bin/sh\nkill -40 $$\n")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (b"#!/nowhere/bash\n", "its interpreter /nowhere/bash does not exist"),
        (b"#! /nowhere/bash -e\n", "its interpreter /nowhere/bash does not exist"),
        (b"#!/usr/bin/env nosuch\n", "its interpreter nosuch is not in PATH"),
        (b"#!/bin/sh\r\necho\r\n", "its lines end in CR LF"),
        (b"#!\n", "its first line names no interpreter"),
        (b"#!/etc\n", "Permission denied; is its interpreter a program"),
        (b"#!/etc/passwd\n", "Permission denied; is its interpreter a program"),
    ],
)
def test_the_error_says_why_a_script_cannot_start_and_a_corrected_one_runs(
    half: Half, tmp_path: Path, script: bytes, said: str
) -> None:
    with pytest.raises(DutyError, match=f"^not run: {re.escape(said)}"):
        half.parent.run_user_data(ID, script)
    next_boot = Half(tmp_path)
    done = next_boot.parent.run_user_data(ID, b"#!/bin/sh\n")
    next_boot.close()
    assert done == "ended with status 0"


def test_a_script_on_a_file_system_mounted_noexec_is_not_noted_as_run(
    half: Half,
) -> None:
    place = half.directory / "db"
    place.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "noexec", "none", str(place))
    if not rooted.run(mount):
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(DutyError, match="noexec"):
            half.parent.run_user_data(ID, b"#!/bin/sh\n")
        assert not (place / "instance").exists()
    finally:
        assert rooted.run(("umount", str(place)))


def test_a_script_does_not_inherit_the_agents_environment(
    half: Half, logged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    half.parent.run_user_data(ID, b"#!/bin/sh\nunset PWD OLDPWD; env\n")
    names = {line.partition("=")[0] for line in logged.read_text().splitlines()[1:]}
    assert names == {"HOME", "LOGNAME", "PATH", "USER"}


def test_a_script_is_run_once_for_an_instance(half: Half, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\necho x >>{ran}\n".encode()
    half.parent.run_user_data(ID, script)
    again = Half(tmp_path)
    assert again.parent.run_user_data(ID, script) == "was already run for this instance"
    again.close()
    assert ran.read_text() == "x\n"
    other = Half(tmp_path)
    other.parent.run_user_data("another", script)
    other.close()
    assert ran.read_text() == "x\nx\n"


def test_a_script_that_failed_is_not_run_again(half: Half, tmp_path: Path) -> None:
    script = b"#!/bin/sh\nexit 1\n"
    with pytest.raises(DutyError):
        half.parent.run_user_data(ID, script)
    again = Half(tmp_path)
    assert "already run" in again.parent.run_user_data(ID, script)
    again.close()


def test_an_agent_can_have_only_one_script_run(half: Half) -> None:
    half.parent.run_user_data("a", b"#!/bin/sh\n")
    with pytest.raises(DutyError, match="already"):
        half.parent.run_user_data("b", b"#!/bin/sh\n")


@pytest.mark.parametrize(
    ("instance", "script", "said"),
    [
        (ID, b"", "not a script"),
        (ID, b"echo no", "not a script"),
        (ID, b"\x7fELF", "not a script"),
        (ID, b"#!" + b"x" * privileged.SCRIPT_LIMIT, "not a script"),
        ("", b"#!/bin/sh", "not the id"),
        ("../../etc/passwd", b"#!/bin/sh", "not the id"),
        ("x" * 65, b"#!/bin/sh", "not the id"),
        ("a\nb", b"#!/bin/sh", "not the id"),
    ],
)
def test_an_invalid_script_or_instance_is_not_run(
    half: Half, instance: str, script: bytes, said: str
) -> None:
    with pytest.raises(DutyError, match=said):
        half.parent.run_user_data(instance, script)
    assert not (half.directory / "db").exists()


def test_a_script_that_cannot_be_recorded_is_not_run(half: Half) -> None:
    (half.directory / "db").write_text("in the way")
    with pytest.raises(DutyError, match=r"^not run: .*/db: Not a directory"):
        half.parent.run_user_data(ID, b"#!/bin/sh\necho ran\n")
    assert half.log == []


def test_the_script_is_for_its_owner_only(half: Half) -> None:
    half.parent.run_user_data(ID, b"#!/bin/sh\n")
    place = half.directory / "db"
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "user-data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("job", ["sleep 300", "yes"])
def test_a_background_job_of_a_script_holds_nothing_up(half: Half, job: str) -> None:
    number = half.directory / "number"
    script = f"#!/bin/sh\n{job} & echo $! >{number}\n".encode()
    assert half.parent.run_user_data(ID, script) == "ended with status 0"
    half.duties.stop()
    os.kill(int(number.read_text()), signal.SIGKILL)  # it still runs


def test_the_signal_does_not_wait_for_a_long_script_beyond_the_limit(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privileged, "SCRIPT_SECONDS", 0.0)
    gate, ran = half.directory / "gate", half.directory / "ran"
    os.mkfifo(gate)
    os.mkfifo(ran)
    script = f"#!/bin/sh\nread line < {gate}; echo $line >{ran}\n".encode()
    assert half.parent.run_user_data(ID, script) == "still runs after 0 s"
    half.leave()
    gate.write_text("late\n")
    assert ran.read_text() == "late\n"


def test_when_the_agent_ends_the_parent_does_not_wait_for_its_script(
    half: Half,
) -> None:
    ready = half.directory / "ready"
    os.mkfifo(ready)
    script = f"#!/bin/sh\necho >{ready}; exec sleep 300\n".encode()
    asking = threading.Thread(target=ask_in_vain, args=(half.parent, script))
    asking.start()
    ready.read_text()
    half.leave()
    asking.join(PATIENCE)
    half.duties.stop()


def ask_in_vain(parent: Parent, script: bytes) -> None:
    with contextlib.suppress(DutyError):
        parent.run_user_data(ID, script)


@pytest.mark.parametrize(
    "trap", ["", "trap '' TERM\n"], ids=["a good one", "deaf to SIGTERM"]
)
def test_a_stop_ends_a_script_and_what_it_started_within_a_second(
    half: Half, trap: str
) -> None:
    pids = half.directory / "pids"
    os.mkfifo(pids)
    script = f"#!/bin/sh\n{trap}sleep 300 & echo $$ $! >{pids}\nwait; wait; wait\n"
    asking = threading.Thread(target=ask_in_vain, args=(half.parent, script.encode()))
    asking.start()
    numbers = [int(word) for word in pids.read_text().split()]
    await_script(half)
    start = time.monotonic()
    half.duties.stop()
    asking.join(PATIENCE)
    assert time.monotonic() - start < 1.0
    assert not [number for number in numbers if alive(number)]


def test_a_stop_ends_the_jobs_of_a_script_that_has_just_ended(half: Half) -> None:
    pids = half.directory / "pids"
    os.mkfifo(pids)
    script = f"#!/bin/sh\nsleep 300 & echo $$ $! >{pids}\nwait; wait; wait\n"
    asking = threading.Thread(target=ask_in_vain, args=(half.parent, script.encode()))
    asking.start()
    leader, job = (int(word) for word in pids.read_text().split())
    await_script(half)
    half.leave()
    asking.join(PATIENCE)
    os.kill(leader, signal.SIGKILL)  # as when all processes are stopped at once
    half.duties.stop()
    assert not alive(job)


def await_script(half: Half) -> None:
    """Wait until the parent's thread has noted the script that it started."""
    end = time.monotonic() + PATIENCE
    while half.duties._script is None and time.monotonic() < end:
        time.sleep(0.001)


def alive(number: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    words = ["ps", "-o", "stat=", "-p", str(number)]
    state = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return state.strip()[:1] not in {"", "Z"}


# Host names.


@pytest.mark.parametrize(
    "name", ["puffy", "a", "web-1", "WEB", "3com", "a.b.example", "x" * 63]
)
def test_a_valid_host_name_is_accepted(name: str) -> None:
    assert is_hostname(name)


@pytest.mark.parametrize(
    "name",
    ["", "-rf", "a;b", "a b", "a-", "a..b", ".a", "a.", "a_b", "x" * 64, "1.2.3.4",
     "a\n", "\u00e9", "None\0", ".".join(["x" * 60] * 5), "$(id)", "../etc"],
)  # fmt: skip
def test_an_invalid_host_name_is_not_set(half: Half, name: str) -> None:
    assert not is_hostname(name)
    with pytest.raises(DutyError, match="not a host name"):
        half.parent.set_hostname(name)
    assert not half.kept.exists()


def test_the_name_is_kept_for_the_next_boot(half: Half) -> None:
    half.kept.write_text("old.example.org\n")
    assert half.parent.set_hostname(HERE) == f"{HERE!r} written to {half.kept}"
    assert half.kept.read_text() == f"{HERE}\n"
    assert half.kept.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("domain", ["", ".example.org"])
def test_a_name_that_is_the_same_keeps_its_domain(half: Half, domain: str) -> None:
    half.kept.write_text(f"{HERE}{domain}\n")
    before = half.kept.stat()
    assert half.parent.set_hostname(HERE) == f"{HERE!r} already"
    after = half.kept.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "text",
    [
        f"# the name\n{HERE}\n",
        f"\n\n{HERE}.example.org # ours\n",
        f"  {HERE}\nanother\n",
    ],
)
def test_comments_and_blank_lines_are_no_names(half: Half, text: str) -> None:
    half.kept.write_text(text)
    assert half.parent.set_hostname(HERE) == f"{HERE!r} already"
    assert half.kept.read_text() == text


# The rules between the agent and root.


def test_what_the_command_line_did_not_ask_for_is_refused(tmp_path: Path) -> None:
    half = Half(tmp_path, hostname=True, user_data=False)
    with pytest.raises(DutyError, match="the command line does not ask for that"):
        half.parent.run_user_data(ID, b"#!/bin/sh\n")
    with pytest.raises(DutyError, match="the command line does not ask for that"):
        half.parent.reserved_socket(socket.AF_INET)
    half.close()
    half = Half(tmp_path, hostname=False, user_data=True)
    with pytest.raises(DutyError, match="the command line does not ask for that"):
        half.parent.set_hostname(HERE)
    half.close()
    assert not (tmp_path / "db").exists()


def test_a_refused_request_is_not_even_decoded(tmp_path: Path) -> None:
    half = Half(tmp_path, hostname=False, user_data=False)
    for frame in (b"h\0\0\0\1\xff", b"r\0\0\0\1\xff"):
        assert b"does not ask" in half.ask(frame)
    half.close()


def test_a_parent_that_does_not_answer_is_not_waited_for_forever(
    clock: FakeClock,
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent = Parent(Channel(ours, clock))
        with pytest.raises(DutyError, match="no answer"):
            parent.set_hostname("puffy")
        assert clock.now - 1000.0 == privileged.ANSWER_SECONDS


@pytest.mark.parametrize("frame", [b"", b"h\0", b"h\0\0\0\5pu"])
def test_a_stop_ends_the_wait_for_an_agent_that_stalls_in_a_frame(
    frame: bytes,
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Stop() as stop:
        theirs.send(frame)
        channel = Channel(ours, Clock(stop))
        timer = threading.Timer(
            0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)
        )
        timer.start()
        with pytest.raises(Stopped):
            channel.receive()


def test_a_stop_ends_the_wait_for_an_agent_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Stop() as stop:
        channel = Channel(ours, Clock(stop))
        timer = threading.Timer(
            0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)
        )
        timer.start()
        with pytest.raises(Stopped):
            channel.send(b"+", bytes(10_000_000))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_comes_bound(half: Half, family: int) -> None:
    with half.parent.reserved_socket(family) as bound:
        assert bound.family == family
        assert bound.getsockname()[1] > 0


def test_a_port_that_cannot_be_reserved_is_an_error(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: int) -> socket.socket:
        raise NotRootError("only root")

    monkeypatch.setattr(half.duties, "_reserve", none)
    with pytest.raises(DutyError, match="only root"):
        half.parent.reserved_socket(socket.AF_INET)


@pytest.mark.parametrize("frame", [b"x\0\0\0\0", b"p\0\0\0\1x", b"h\0\0\0\1\xff"])
def test_any_other_request_is_refused(half: Half, frame: bytes) -> None:
    assert half.ask(frame).startswith(b"-")


def test_a_frame_that_is_too_long_ends_the_connection(half: Half) -> None:
    assert half.ask(b"r\xff\xff\xff\xff") == b""
    with pytest.raises(DutyError):
        half.parent.set_hostname("x")


def test_without_root_the_agent_ignores_the_options_that_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said: list[str] = []
    setup = signald._Setup(signald.COMMAND.parse(["--run-user-data"]))
    journal = log.Log(lambda _, text: said.append(text), verbose=False)
    with Stop() as stop:
        assert signald._split(setup, journal, stop) is None
    assert said == ["--set-hostname and --run-user-data need root: ignored"]


# The complete agent, in a namespace where it may set the host name.

SCRIPT = b"""#!/bin/sh
echo "I am $(id -u) on $(hostname)"
touch %s
exit 3
"""


@pytest.fixture
def words(tmp_path: Path) -> Callable[[Emulator], list[str | Path]]:
    """Return a function that gives the agent's command line for a service."""
    there = rooted.place(tmp_path)
    return lambda service: [
        *there,
        *(BIN / "scw-signald", "-d", "-v", "--no-dns", "--url", service.url),
        *("--run-dir", tmp_path / "run", "--set-hostname", "--run-user-data"),
    ]


@pytest.fixture
def boot(words: Callable[[Emulator], list[str | Path]]) -> Callable[[Emulator], str]:
    """Return a function that runs the agent for a service and returns its log."""

    def boot(service: Emulator) -> str:
        done = subprocess.run(
            words(service),
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
            text=True,
        )
        return done.stderr

    return boot


@pytest.mark.usefixtures("commands")
def test_a_server_is_prepared_by_root_and_signals_without_it(
    boot: Callable[[Emulator], str], tmp_path: Path
) -> None:
    script = SCRIPT % bytes(tmp_path / "ran")
    with Emulator(user_data={"cloud-init": script}) as service:
        text = boot(service)
        assert "\nI am 0 on openbsd\n" in text
        assert "user-data: ended with status 3" in text
        assert "going on as _scwsignal" in text
        assert (tmp_path / "etc/hostname").read_text() == "openbsd\n"
        assert (tmp_path / "ran").exists()
        asked = [(request.method, request.target) for request in service.requests]
        assert asked == [
            ("GET", "/conf?format=json"),
            ("GET", "/user_data?format=json"),
            ("GET", "/user_data/cloud-init"),
            ("PATCH", "/state"),
            ("GET", "/conf?format=json"),
        ]
        assert service.server_state == "running"
        assert (tmp_path / "run/state").stat().st_uid == rooted.UID
        (tmp_path / "ran").unlink()
        assert "was already run for this instance" in boot(service)
        assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"#cloud-config\n", "it is a cloud-config"),
        (b"#!/bin/sh\n" + b"#" * 2_000_000, "larger than 1048576 bytes"),
        (None, "there is none"),
    ],
)
def test_user_data_that_is_no_script_does_not_prevent_the_signal(
    boot: Callable[[Emulator], str], data: bytes | None, said: str
) -> None:
    document = {**DOCUMENT, "hostname": "-rf"}
    with Emulator(
        document=document, user_data={"cloud-init": data} if data else {}
    ) as service:
        text = boot(service)
        assert service.server_state == "running"
    assert said in text
    assert re.search("hostname: not a host name: '-rf'", text)


@pytest.mark.usefixtures("commands")
def test_a_stop_is_passed_on_to_a_script_and_is_not_held_up_by_it(
    words: Callable[[Emulator], list[str | Path]], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    script = f"#!/bin/sh\ntrap 'echo SIGTERM >{told}; exit' TERM\necho begun\n"
    script += "sleep 300 & wait\n"
    with (
        Emulator(user_data={"cloud-init": script.encode()}) as service,
        subprocess.Popen(
            words(service), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        ) as agent,
    ):
        assert agent.stderr is not None
        assert any("begun" in line for line in agent.stderr)
        agent.terminate()
        assert told.read_text() == "SIGTERM\n"
        assert any("stopped by SIGTERM" in line for line in agent.stderr)
        assert agent.wait(PATIENCE) == -signal.SIGTERM
        assert service.state_detail != "booted"


READ_ONLY = """
mount -t tmpfs none /var/run
mkdir /var/run/scw_signal
mount -o remount,ro /var/run
exec "$@"
"""


@pytest.mark.usefixtures("commands")
def test_root_is_given_up_though_the_run_directory_is_read_only(
    tmp_path: Path,
) -> None:
    there = (*rooted.place(tmp_path), "sh", "-ec", READ_ONLY, "sh")
    with Emulator() as service:
        agent = subprocess.run(
            [*there, BIN / "scw-signald", "-d", "-v", "--no-dns", "--url", service.url],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
            text=True,
        )
    assert "/var/run/scw_signal: Read-only file system" in agent.stderr
    assert "going on as _scwsignal" in agent.stderr
    assert agent.returncode == 0
