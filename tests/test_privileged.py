"""What root does for the agent, and that it does no more than that."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import rooted
from installed import BIN, ENVIRONMENT, PATIENCE
from scw_signal import log, privileged
from scw_signal.cli import signald
from scw_signal.clock import Clock
from scw_signal.document import is_hostname
from scw_signal.emulator import DOCUMENT, Emulator
from scw_signal.errors import DutyError, NotRootError
from scw_signal.privileged import Duties, Parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ID = str(DOCUMENT["id"])
HERE = os.uname().nodename.partition(".")[0]


class Half:
    """A parent that serves in a thread, and the agent's face of it."""

    def __init__(self, directory: Path) -> None:
        self.log: list[str] = []
        self.directory = directory
        self.kept = directory / "myname"
        agents, self._ours = socket.socketpair()
        self.parent = Parent(agents)
        self._agents = agents
        self.duties = Duties(
            Clock(),
            self.log.append,
            self._reserve,
            directory=str(directory / "db"),
            kept=str(self.kept),
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._ours:
            self.duties.serve(self._ours)

    def _reserve(self, family: int) -> socket.socket:
        bound = socket.socket(family)
        bound.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return bound

    def ask(self, frame: bytes) -> bytes:
        self._agents.sendall(frame)
        return self._agents.recv(1000)

    def close(self) -> None:
        """Leave, and wait until the parent has ended too."""
        self._agents.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def half(tmp_path: Path) -> Iterator[Half]:
    half = Half(tmp_path)
    yield half
    half.close()


# User data.


def test_a_script_is_run_and_what_it_prints_is_logged(half: Half) -> None:
    script = b"#!/bin/sh\necho one; echo two >&2; printf '\\033[31m'; pwd\n"
    assert half.parent.run_user_data(ID, script) == "ended with status 0"
    assert half.log == ["user-data: one", "user-data: two", "user-data: \\x1b[31m/"]


def test_a_script_that_fails_is_an_error_that_says_how(half: Half) -> None:
    with pytest.raises(DutyError, match=r"^ended with status 7$"):
        half.parent.run_user_data(ID, b"#!/bin/sh\nexit 7\n")


def test_a_script_that_is_killed_is_an_error_that_says_by_what(half: Half) -> None:
    with pytest.raises(DutyError, match=r"^ended with SIGKILL$"):
        half.parent.run_user_data(ID, b"#!/bin/sh\nkill -9 $$\n")


def test_a_script_without_its_interpreter_is_an_error(half: Half) -> None:
    with pytest.raises(DutyError, match="No such file"):
        half.parent.run_user_data(ID, b"#!/nowhere/sh\n")


def test_a_script_has_nothing_of_the_agents_surroundings(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    half.parent.run_user_data(ID, b"#!/bin/sh\nunset PWD OLDPWD; env\n")
    names = {line.partition("=")[0].removeprefix("user-data: ") for line in half.log}
    assert names == {"HOME", "LOGNAME", "PATH", "USER"}


def test_a_script_is_run_once_for_an_instance(half: Half, tmp_path: Path) -> None:
    script = b"#!/bin/sh\necho ran\n"
    half.parent.run_user_data(ID, script)
    again = Half(tmp_path)
    assert again.parent.run_user_data(ID, script) == "was run for this instance before"
    assert again.log == []
    again.close()
    other = Half(tmp_path)
    other.parent.run_user_data("another", script)
    assert other.log == ["user-data: ran"]
    other.close()


def test_a_script_that_failed_is_not_run_again(half: Half, tmp_path: Path) -> None:
    script = b"#!/bin/sh\nexit 1\n"
    with pytest.raises(DutyError):
        half.parent.run_user_data(ID, script)
    again = Half(tmp_path)
    assert "before" in again.parent.run_user_data(ID, script)
    again.close()


def test_an_agent_gets_one_script_run_and_no_more(half: Half) -> None:
    half.parent.run_user_data("a", b"#!/bin/true\n")
    with pytest.raises(DutyError, match="already"):
        half.parent.run_user_data("b", b"#!/bin/true\n")


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
def test_what_makes_no_sense_is_not_run(
    half: Half, instance: str, script: bytes, said: str
) -> None:
    with pytest.raises(DutyError, match=said):
        half.parent.run_user_data(instance, script)
    assert not (half.directory / "db").exists()


def test_what_can_not_be_noted_is_not_run(half: Half) -> None:
    (half.directory / "db").write_text("in the way")
    with pytest.raises(DutyError, match=r"^not run: .*/db: Not a directory"):
        half.parent.run_user_data(ID, b"#!/bin/sh\necho ran\n")
    assert half.log == []


def test_the_script_is_for_its_owner_only(half: Half) -> None:
    half.parent.run_user_data(ID, b"#!/bin/true\n")
    place = half.directory / "db"
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "user-data").stat().st_mode & 0o777 == 0o700


def test_what_a_script_leaves_in_the_background_holds_nothing_up(half: Half) -> None:
    script = b"#!/bin/sh\nsleep 300 & echo $!\n"
    assert half.parent.run_user_data(ID, script) == "ended with status 0"
    os.kill(int(half.log[0].rpartition(" ")[2]), 15)


@pytest.mark.parametrize(
    ("begins", "logged"),
    [("", ["user-data: late"]), ("exec >/dev/null 2>&1", [])],
    ids=["talks", "closes its output"],
)
def test_the_signal_waits_for_a_long_script_only_so_long(
    half: Half, monkeypatch: pytest.MonkeyPatch, begins: str, logged: list[str]
) -> None:
    monkeypatch.setattr(privileged, "SCRIPT_SECONDS", 0.0)
    gate = half.directory / "gate"
    os.mkfifo(gate)
    script = f"#!/bin/sh\n{begins}\nread line < {gate}; echo $line\n".encode()
    assert half.parent.run_user_data(ID, script) == "still runs after 0 s"
    gate.write_text("late\n")
    half.close()
    assert half.log == [*logged, "user-data: ended with status 0"]
    half.close = lambda: None  # type: ignore[method-assign]


def test_what_prints_for_ever_in_the_background_holds_nothing_up(half: Half) -> None:
    # It dies of SIGPIPE, once nobody reads any more.
    script = b"#!/bin/sh\nyes &\n"
    assert half.parent.run_user_data(ID, script) == "ended with status 0"


# Host names.


@pytest.mark.parametrize(
    "name", ["puffy", "a", "web-1", "WEB", "3com", "a.b.example", "x" * 63]
)
def test_a_host_name_is_one(name: str) -> None:
    assert is_hostname(name)


@pytest.mark.parametrize(
    "name",
    ["", "-rf", "a;b", "a b", "a-", "a..b", ".a", "a.", "a_b", "x" * 64, "1.2.3.4",
     "a\n", "\u00e9", "None\0", ".".join(["x" * 60] * 5), "$(id)", "../etc"],
)  # fmt: skip
def test_a_host_name_that_is_none_is_not_set(half: Half, name: str) -> None:
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
def test_a_name_that_is_the_same_is_left_with_its_domain(
    half: Half, domain: str
) -> None:
    half.kept.write_text(f"{HERE}{domain}\n")
    before = half.kept.stat()
    assert half.parent.set_hostname(HERE) == f"{HERE!r} already"
    assert half.kept.stat() == before


# The rules between the two.


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_comes_bound(half: Half, family: int) -> None:
    with half.parent.reserved_socket(family) as bound:
        assert bound.family == family
        assert bound.getsockname()[1] > 0


def test_that_no_port_can_be_had_is_an_error(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: int) -> socket.socket:
        raise NotRootError("only root")

    monkeypatch.setattr(half.duties, "_reserve", none)
    with pytest.raises(DutyError, match="only root"):
        half.parent.reserved_socket(socket.AF_INET)


@pytest.mark.parametrize("frame", [b"x\0\0\0\0", b"p\0\0\0\1x", b"h\0\0\0\1\xff"])
def test_whatever_else_is_asked_for_is_refused(half: Half, frame: bytes) -> None:
    assert half.ask(frame).startswith(b"-")


def test_a_frame_that_is_too_long_ends_it(half: Half) -> None:
    assert half.ask(b"r\xff\xff\xff\xff") == b""
    with pytest.raises(DutyError):
        half.parent.set_hostname("x")


def test_without_root_the_agent_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said: list[str] = []
    setup = signald._Setup(signald.COMMAND.parse(["--run-user-data"]))
    journal = log.Log(lambda _, text: said.append(text), verbose=False)
    assert signald._split(setup, journal) is None
    assert said == ["--set-hostname and --run-user-data take root: left out"]


# The whole agent, in a name space where it may set the host name.

SCRIPT = b"""#!/bin/sh
echo "I am $(id -u) on $(hostname)"
touch %s
exit 3
"""


@pytest.fixture
def words(tmp_path: Path) -> Callable[[Emulator], list[str | Path]]:
    """Return what gives the command that boots a server, for a service."""
    there = rooted.place(tmp_path)
    return lambda service: [
        *there,
        *(BIN / "scw-signald", "-d", "-v", "--no-dns", "--url", service.url),
        *("--run-dir", tmp_path / "run", "--set-hostname", "--run-user-data"),
    ]


@pytest.fixture
def boot(words: Callable[[Emulator], list[str | Path]]) -> Callable[[Emulator], str]:
    """Return what boots a server with user data, and returns the log."""

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
        assert "user-data: I am 0 on openbsd" in text
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
        assert "was run for this instance before" in boot(service)
        assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"#cloud-config\n", "not a script"),
        (b"#!/bin/sh\n" + b"#" * 2_000_000, "larger than 1048576 bytes"),
        (None, "there is none"),
    ],
)
def test_user_data_that_is_no_script_does_not_keep_the_server_silent(
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
        assert any("user-data: begun" in line for line in agent.stderr)
        agent.terminate()
        assert told.read_text() == "SIGTERM\n"
        assert any("stopped by SIGTERM" in line for line in agent.stderr)
        assert agent.wait(PATIENCE) == -signal.SIGTERM
        assert service.state_detail != "booted"
