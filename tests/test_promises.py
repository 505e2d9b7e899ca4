"""The promises of the commands suffice: a check of their system calls on Linux.

On OpenBSD a call outside the promises kills the agent, at boot and unseen. Here
strace records each path through it, with marks in the trace where it would call
unveil and pledge. tests/promises.py says what each promise allows.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from raw import RawService, reply

import rooted
from installed import ENVIRONMENT, NOWHERE
from promises import Call, needed, violations
from scw_signal import sandbox
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("commands")

CONFINED = Path(__file__).parent / "confined.py"
LOOPBACK = 'ip link set lo up; exec "$@"'
FILES = " rpath wpath cpath"


class Life(NamedTuple):
    """One run of a command: its log, its marks, and the calls that are not allowed."""

    status: int
    log: str
    marks: list[str]
    violations: list[str]


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., Life]:
    """Return a function that runs a command under strace to its end."""
    if shutil.which("strace") is None or sys.platform != "linux":
        pytest.skip("strace is not installed here")
    trace = tmp_path / "trace"

    def run(
        *words: str,
        command: tuple[str, ...] = ("signald", "-d"),
        namespace: tuple[str, ...] = (),
        until: str = "",
        end: signal.Signals = signal.SIGTERM,
    ) -> Life:
        agent = subprocess.Popen(
            [
                *namespace,
                *("strace", "-f", "-y", "-qq", "-s", "512", "-o", str(trace)),
                *(sys.executable, str(CONFINED), *command, *words),
            ],
            env={**ENVIRONMENT, **NOWHERE},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert agent.stderr is not None
        log = ""
        if until:
            for line in agent.stderr:
                log += line
                if until in line:
                    break
            os.kill(child_of(agent.pid), end)
        try:
            log += agent.communicate(timeout=60)[1]
        finally:
            agent.kill()
        marks, found = violations(trace.read_text(errors="replace"))
        return Life(agent.returncode, log, marks, [str(each) for each in found])

    return run


def child_of(strace: int) -> int:
    """Return the process that strace runs, since strace does not pass signals on."""
    children = Path(f"/proc/{strace}/task/{strace}/children").read_text().split()
    return int(children[0])


def stages(directory: Path) -> list[str]:
    """Return the marks of a complete run."""
    where = str(directory).replace("/", ":")
    return [
        f"unveil {where} rwc",
        f"pledge stdio inet dns{FILES}",
        f"pledge stdio inet{FILES}",
        f"pledge stdio{FILES}",
    ]


def test_success(live: Callable[..., Life], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with Emulator() as service:
        life = live(
            "--url", service.url, "--run-dir", str(run_dir), "--dns-name", "localhost"
        )
    assert (life.status, life.violations) == (0, [])
    assert life.marks == stages(run_dir)
    assert (run_dir / "metadata.flat").exists()


@pytest.mark.parametrize(
    "fault",
    [
        "403:1", "429:1", "429-after=0:1", "429-date=0:1", "503:1", "html:1",
        "garbage:1", "truncate:1", "reset:1", "redirect:1", "huge=100000:1",
        "wrong-ack:1", "empty-ack:1", "json-ack:1",
    ],
)  # fmt: skip
def test_a_service_that_fails_once(
    live: Callable[..., Life], tmp_path: Path, fault: str
) -> None:
    with Emulator(faults=[fault]) as service:
        words = ("--no-dns", "--url", service.url, "--deadline", "3")
        life = live(*words, "--run-dir", str(tmp_path / "run"))
    assert (life.status, life.violations) == (0, [])


def test_metadata_that_is_not_ascii(live: Callable[..., Life], tmp_path: Path) -> None:
    document = {"name": "café \x1b \udc80", "state_detail": "\u202ebooting"}
    body = json.dumps(document).encode()
    words = ("--no-dns", "--run-dir", str(tmp_path), "--deadline", "1")
    with RawService(signal=reply(b""), document=reply(body)) as service:
        life = live("--url", service.url, *words)
    assert (life.status, life.violations) == (1, [])
    assert r"\u202ebooting" in life.log


def test_a_directory_that_cannot_be_used(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with Emulator() as service:
        life = live(
            "--no-dns", "--url", service.url, "--run-dir", str(tmp_path / "file")
        )
    assert (life.status, life.violations) == (0, [])
    assert life.marks == [
        "unveil :",
        "pledge stdio inet dns",
        "pledge stdio inet",
        "pledge stdio",
    ]


def test_a_service_that_was_given_by_name(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    with Emulator(faults=["503:1"]) as service:
        url = service.url.replace("127.0.0.1", "localhost")
        words = ("--no-dns", "--url", url, "--deadline", "3")
        life = live(*words, "--run-dir", str(tmp_path))
    assert (life.status, life.violations) == (0, [])
    assert life.marks[1:] == [f"pledge stdio inet dns{FILES}", f"pledge stdio{FILES}"]


def test_a_deadline_that_passes(live: Callable[..., Life], tmp_path: Path) -> None:
    life = live("--no-dns", "--deadline", "1.1", "--run-dir", str(tmp_path))
    assert (life.status, life.violations) == (1, [])


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_back_off(
    live: Callable[..., Life], tmp_path: Path, end: signal.Signals
) -> None:
    with Emulator(faults=["429-after=60"]) as service:
        words = ("--no-dns", "--url", service.url, "--run-dir", str(tmp_path))
        life = live(*words, until="429", end=end)
    assert f"stopped by {end.name}" in life.log
    assert life.violations == []


def test_no_route(live: Callable[..., Life], tmp_path: Path) -> None:
    life = live(
        "--url", "http://169.254.42.42", "--run-dir", str(tmp_path),
        namespace=empty_namespace(),
        until="waiting for a route",
    )  # fmt: skip
    assert "stopped by SIGTERM" in life.log
    assert life.violations == []


def test_a_resolver_that_fails(live: Callable[..., Life], tmp_path: Path) -> None:
    life = live(
        "--url", "http://127.0.0.1:1", "--run-dir", str(tmp_path),
        "--dns-timeout", "0.5",
        namespace=(*empty_namespace(), "sh", "-c", LOOPBACK, "sh"),
        until="Connection refused",
    )  # fmt: skip
    assert "dns: no answer" in life.log
    assert life.violations == []


SCRIPT = b"#!/bin/sh\nmount; hostname; echo done\n"
PREPARING = ("--no-dns", "--set-hostname", "--run-user-data")


def test_both_halves_of_an_agent_that_prepares_the_server(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    there = rooted.place(tmp_path)
    run_dir = tmp_path / "run"
    with Emulator(user_data={"cloud-init": SCRIPT}) as service:
        words = ("--url", service.url, "--run-dir", str(run_dir), *PREPARING)
        life = live(*words, namespace=there)
    assert "user-data: ended with status 0" in life.log
    assert "hostname: 'openbsd' set and written" in life.log
    assert (life.status, life.violations) == (0, [])
    root = [mark for mark in life.marks if "sendfd" in mark]
    assert root == [f"pledge {sandbox.PRIVILEGED}"]
    first, second, *others = stages(run_dir)
    agents = [first, second.replace(" dns", " dns recvfd"), *others]
    assert [mark for mark in life.marks if mark not in root] == agents


def test_files_are_hidden_by_root_and_promises_made_without_it(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    """The directory may be below one that the agent's user cannot search."""
    there = rooted.place(tmp_path)
    with Emulator() as service:
        words = ("--no-dns", "--url", service.url, "--run-dir", str(tmp_path / "run"))
        life = live(*words, namespace=there)
    assert life.status == 0
    calls = (tmp_path / "trace").read_text(errors="replace").splitlines()
    steps = [
        next(number for number, call in enumerate(calls) if step in call)
        for step in ("/mark|unveil", "setresuid(", "/mark|pledge")
    ]
    assert steps == sorted(steps)


def test_both_halves_when_they_are_stopped_while_a_script_runs(
    live: Callable[..., Life], tmp_path: Path
) -> None:
    there = rooted.place(tmp_path)
    script = b"#!/bin/sh\necho begun; exec sleep 300\n"
    with Emulator(user_data={"cloud-init": script}) as service:
        words = ("--url", service.url, "--run-dir", str(tmp_path / "run"), *PREPARING)
        life = live(*words, namespace=there, until="begun")
    assert "stopped by SIGTERM" in life.log
    assert life.violations == []


@pytest.mark.parametrize("fault", ["503:1", "404:1"])
@pytest.mark.parametrize(
    "command",
    [
        ("signal_state", "booted"),
        ("metadata", "hostname"),
        ("metadata", "--ssh-keys", "root"),
        ("userdata",),
        ("userdata", "role"),
        ("userdata", "role", "db"),
        ("userdata", "-d", "role"),
        ("userdata", "roles"),
    ],
    ids=" ".join,
)
def test_a_command_that_a_person_types(
    live: Callable[..., Life], command: tuple[str, ...], fault: str
) -> None:
    if command[0] == "userdata" and os.geteuid() != 0:
        pytest.skip("only root has the ports below 1024")
    with Emulator(faults=[fault], user_data={"role": b"web"}) as service:
        life = live("--url", service.url, command=command)
    assert life.status in {0, 3}
    assert (life.marks, life.violations) == ([f"pledge stdio inet dns{FILES}"], [])


def test_a_command_for_a_service_that_was_given_by_name(
    live: Callable[..., Life],
) -> None:
    with Emulator() as service:
        url = service.url.replace("127.0.0.1", "localhost")
        life = live("--url", url, command=("signal_state", "booted"))
    assert (life.status, life.violations) == (0, [])


@pytest.mark.parametrize(
    ("call", "needs"),
    [
        (Call("openat", 'AT_FDCWD</>, "/etc/passwd", O_RDONLY'), set()),
        (Call("openat", 'AT_FDCWD</>, "/lib/x.so", O_RDONLY|O_CLOEXEC'), set()),
        (Call("openat", '5</run/x>, ".state.1", O_WRONLY|O_CREAT'), {"cpath"}),
        (Call("openat", '5</run/y>, ".state.1", O_WRONLY|O_CREAT'), set()),
        (Call("openat", 'AT_FDCWD</>, "/etc/resolv.conf", O_RDONLY'), {"dns"}),
        (Call("socket", "AF_NETLINK, SOCK_RAW, NETLINK_ROUTE"), {"dns"}),
        (Call("socket", "AF_PACKET, SOCK_RAW, 0"), set()),
        (Call("mmap", "NULL, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE"), {"prot_exec"}),
        (Call("clone3", "{flags=CLONE_VFORK}"), {"proc"}),
        (Call("execve", '"/bin/sh"'), {"exec"}),
        (Call("kill", "7, SIGTERM", 7), {"stdio"}),
        (Call("kill", "-7, SIGTERM", 7), {"proc"}),
        (Call("sendmsg", "4, {msg_control=[{cmsg_type=SCM_RIGHTS}]}, 0"), {"sendfd"}),
        (Call("recvmsg", "4, {msg_control=[{cmsg_type=SCM_RIGHTS}]}, 0"), {"recvfd"}),
        (Call("setresuid", "0, 0, 0"), set()),
        (Call("getdents64", "5</proc/7/fd>, 0x7ffe7b5e0d30, 280"), {"rpath"}),
        (Call("fchmod", "5</run/x/state>, 0644"), set()),
        (Call("ioctl", "1</dev/pts/0>, TCGETS, 0x7ffe0"), {"stdio"}),
        (Call("ioctl", "1</dev/pts/0>, TCGETS2, 0x7ffe0"), {"stdio"}),
        (Call("ioctl", "1</dev/pts/0>, TCSETS, {c_iflag=0}"), set()),
        (Call("ioctl", "1</dev/pts/0>, TCSETS2, {c_iflag=0}"), set()),
        (Call("ioctl", "1</dev/pts/0>, TIOCGWINSZ, 0x7ffe0"), set()),
        (Call("prctl", 'PR_SET_NAME, "Thread-1 (_ask)"...'), {"stdio"}),
        (Call("prctl", "PR_SET_PDEATHSIG, SIGKILL"), set()),
        (Call("sched_getaffinity", "7, 32, [0 1]"), {"stdio"}),
        (Call("sched_setaffinity", "7, 32, [0]"), set()),
        (Call("setsockopt", "5, SOL_SOCKET, SO_BINDTODEVICE"), {"inet"}),
        (Call("setsockopt", "5, SOL_TCP, TCP_NODELAY, [1], 4"), {"stdio"}),
    ],
)
def test_the_table_tells_what_a_call_needs(call: Call, needs: set[str]) -> None:
    assert needed(call, "/run/x") == needs


def empty_namespace() -> tuple[str, ...]:
    """Return the words that run a command where there is no network."""
    words = ("unshare", "--net") if os.getuid() == 0 else ("unshare", "-r", "--net")
    if (
        shutil.which(words[0]) is None
        or subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no network namespace can be made here")
    return words
