"""rc.d/scw_signal, run with rc.subr under the shells that can run it.

The tests run on Linux. rc.subr is OpenBSD's own if RC_SUBR names it or /etc/rc.d has
it, and otherwise a stand-in, like the few programs in tests/rc.d/bin. Each test has
its own root directory, and the paths in the scripts are changed to those in there.

Many tests need an agent that does what they say when they say it. For them a shell
with the name python3 runs a script in place of the agent. It reports its start in one
FIFO and reads its orders from another.
"""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests/rc.d"
SERVICE = ROOT / "rc.d/scw_signal"
PORTED = ROOT / "packaging/openbsd/port/pkg/scw_signal.rc"
NAME = "scw_signal"

# Seconds after which a test that hangs fails; nothing waits for this long.
PATIENCE = 60.0

OK, FAILED = f"{NAME}(ok)\n", f"{NAME}(failed)\n"

# What the fake agent can do.
OBEYS = "read -r order <{root}/orders; eval $order"
SUCCEEDS_AT_ONCE = ": >{state}"
# At SIGTERM it writes its state, and again when that is removed or before it ends.
WRITES_WHILE_DYING = (
    "trap ': >{state}; n=0; while [ -e {state} ] && [ $((n += 1)) -lt 20000 ]; do :;"
    " done; : >{state}; exit 1' TERM; " + OBEYS
)
WRITES_AND_IS_DEAF = "trap ': >{state}' TERM; while :; do " + OBEYS + "; done"
IS_DEAF = "trap '' TERM; " + OBEYS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the stand-ins ask Linux's pgrep and its /proc"
)


def _rc_subr() -> Path:
    """Return OpenBSD's rc.subr if it is on this machine, or else the stand-in."""
    named = os.environ.get("RC_SUBR")
    if named:
        return Path(named)
    installed = Path("/etc/rc.d/rc.subr")
    return installed if installed.exists() else HERE / "rc.subr"


def _shells() -> list[str]:
    """Return the shells here that come from pdksh, as OpenBSD's ksh does."""
    versions = {
        shell: subprocess.run(
            [shell, "-c", "echo $KSH_VERSION"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        for shell in map(shutil.which, ("ksh", "mksh", "oksh"))
        if shell
    }
    return [
        shell
        for shell, version in versions.items()
        if "PD KSH" in version or "MIRBSD KSH" in version
    ]


class Result(NamedTuple):
    """The exit status and the output of an action of the service."""

    status: int
    out: str


class Scratch:
    """A root directory with the service and all that it needs."""

    def __init__(self, root: Path, shell: str) -> None:
        self.root = root
        self.shell = shell
        self.script = root / "etc/rc.d" / NAME
        self.run_dir = root / "var/run" / NAME
        self.state = self.run_dir / "state"
        self.agent = root / "usr/local/bin/scw-signald"
        for directory in ("etc/rc.d", "usr/local/bin", "var/run"):
            (root / directory).mkdir(parents=True)
        self._install(SERVICE)
        self._install(_rc_subr(), "rc.subr")
        # By default the service's user is the one who runs the tests.
        self.user("_scwsignal", os.getuid())

    def _install(self, file: Path, name: str = "") -> None:
        text = file.read_text().replace("#!/bin/ksh", f"#!{self.shell}", 1)
        for directory in ("/etc/", "/var/run", "/usr/local/"):
            text = text.replace(directory, f"{self.root}{directory}")
        installed = self.root / "etc/rc.d" / (name or file.name)
        installed.write_text(text)
        installed.chmod(0o755)

    def user(self, name: str, uid: int) -> None:
        """Add a user."""
        with (self.root / "etc/passwd").open("a") as passwd:
            passwd.write(f"{name}:*:{uid}:{uid}::/:/sbin/nologin\n")

    def set(self, **variables: str) -> None:
        """Set these and no others, as `rcctl set scw_signal VARIABLE VALUE` does."""
        lines = [f"{NAME}_{name}={value}\n" for name, value in variables.items()]
        (self.root / "etc/rc.conf.local").write_text("".join(lines))

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of the service."""
        path = f"{HERE}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "SCRATCH": str(self.root), **variables}

    def rcctl(self, action: str, **environment: str) -> Result:
        """Do what `rcctl ACTION scw_signal` does; rc(8) also sets INRC at boot."""
        done = subprocess.run(
            [self.script, action],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        print(done.stderr)  # pytest shows it if a test fails
        return Result(done.returncode, done.stdout)

    def has_failed(self) -> bool:
        """Tell whether `rcctl ls failed`, and so daily(8), lists the service."""
        return self.rcctl("check").status != 0

    def logins(self) -> list[str]:
        """Return the users that a daemon was started as, in order."""
        log = self.root / "su.log"
        return log.read_text().split() if log.exists() else []

    def print_from_service(self, code: str) -> str:
        """Run `code` in place of the action, and return what it prints."""
        script = self.root / NAME
        script.write_text(self.script.read_text().replace("rc_cmd $1", code))
        script.chmod(0o755)
        return subprocess.run(
            [script, "check"],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout


class Life(NamedTuple):
    """One run of the fake agent: its process, its routing table and its flags."""

    pidfd: int
    rtable: str
    flags: str

    def has_ended(self) -> bool:
        """Wait for the end; tell whether it came."""
        return bool(_readable(self.pidfd))


class FakeAgent:
    """A script in the agent's place."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._lives: list[Life] = []
        self._lines: list[str] = []
        (scratch.root / "usr/local/bin/python3").symlink_to("/bin/sh")
        self._news, self._orders = map(self._fifo, ("news", "orders"))
        self.does(OBEYS)

    def _fifo(self, name: str) -> int:
        path = self._scratch.root / name
        os.mkfifo(path)
        path.chmod(0o666)
        # For both, so that no opening blocks, and no reader meets the end of the file.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def does(self, life: str, interpreter: str = "usr/local/bin/python3") -> None:
        """Set what the agent does from its next start on."""
        root, script = self._scratch.root, self._scratch.agent
        script.write_text(
            f"#!{root / interpreter}\n"
            f'echo "$$ ${{RTABLE:-0}} $*" >{root}/news\n'
            f"{life.format(root=root, state=self._scratch.state)}\n"
        )
        script.chmod(0o755)

    def start(self) -> Life:
        """Start the service, and wait until the agent runs."""
        assert self._scratch.rcctl("start") == (0, OK)
        return self.born()

    def born(self) -> Life:
        """Wait until the agent has been started once more."""
        if not self._lines:
            assert _readable(self._news), "no agent came to life"
            self._lines = os.read(self._news, 65536).decode().splitlines()
        pid, rtable, flags = self._lines.pop(0).split(" ", 2)
        life = Life(os.pidfd_open(int(pid)), rtable, flags)
        self._lives.append(life)
        return life

    def succeed(self) -> None:
        """Let the agent write its state and end, and wait until it has ended."""
        self._order(f": >{self._scratch.state}; exit 0")

    def give_up(self) -> None:
        """Let the agent end as with --deadline, and wait until it has ended."""
        self._order("exit 1")

    def _order(self, order: str) -> None:
        os.write(self._orders, f"{order}\n".encode())
        assert self._lives[-1].has_ended()

    def close(self) -> None:
        for descriptor in (self._news, self._orders, *(x.pidfd for x in self._lives)):
            os.close(descriptor)


def _readable(descriptor: int, seconds: float = PATIENCE) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@pytest.fixture(params=_shells() or [""])
def scratch(request: pytest.FixtureRequest) -> Iterator[Scratch]:
    if not request.param:
        pytest.skip("no mksh or oksh here to run OpenBSD's rc.subr with")
    # Not tmp_path: other users must be able to enter it.
    with tempfile.TemporaryDirectory(prefix="rcd") as name:
        root = Path(name)
        root.chmod(0o755)
        yield Scratch(root, request.param)
        for pid in _processes(name):
            with suppress(ProcessLookupError):  # it was about to end anyway
                os.kill(pid, signal.SIGKILL)


def _processes(text: str) -> list[int]:
    """Return the processes with `text` in their command line."""
    found = subprocess.run(
        ["/usr/bin/pgrep", "-f", "--", text], capture_output=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


@pytest.fixture
def agent(scratch: Scratch) -> Iterator[FakeAgent]:
    agent = FakeAgent(scratch)
    yield agent
    agent.close()


# Starting


def test_start_does_not_wait_for_the_work_to_be_done(
    scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.set(timeout="3600")  # the longest that rc.subr waits for a daemon
    agent.start()
    assert not scratch.state.exists()


def test_start_at_boot_says_no_more_than_the_name(
    scratch: Scratch, agent: FakeAgent
) -> None:
    assert scratch.rcctl("start", INRC="1") == (0, f" {NAME}")
    agent.born()


def test_the_agent_runs_as_its_own_user(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    assert scratch.logins() == ["_scwsignal"]


def test_start_while_the_agent_runs_does_nothing(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.start()
    assert scratch.rcctl("start") == (0, "")
    assert len(scratch.logins()) == 1


def test_start_after_the_signal_does_nothing(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.start()
    agent.succeed()
    assert scratch.rcctl("start") == (0, "")
    assert len(scratch.logins()) == 1


def test_what_rc_firsttime_started_is_not_started_again_by_the_same_boot(
    scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.rcctl("start", INRC="1")
    agent.born()
    assert scratch.rcctl("start", INRC="1").status == 0
    agent.succeed()
    assert scratch.rcctl("start", INRC="1").status == 0
    assert len(scratch.logins()) == 1


def test_an_agent_that_has_done_its_work_before_anybody_looks_is_ok(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.does(SUCCEEDS_AT_ONCE)
    assert scratch.rcctl("start") == (0, OK)
    assert not scratch.has_failed()


def test_an_agent_that_dies_at_once_is_reported(
    scratch: Scratch, agent: FakeAgent
) -> None:
    # Without python3 in its command line it is never taken for a running agent.
    agent.does("", interpreter=shutil.which("false") or "/bin/false")
    assert scratch.rcctl("start") == (1, FAILED)
    assert scratch.has_failed()


@pytest.mark.usefixtures("agent")
def test_without_the_user_nothing_is_started(scratch: Scratch) -> None:
    (scratch.root / "etc/passwd").write_text("")
    assert scratch.rcctl("start") == (1, FAILED)
    assert not scratch.logins()


def test_start_makes_the_run_directory(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    assert scratch.run_dir.is_dir()
    assert scratch.run_dir.stat().st_mode & 0o777 == 0o755


def test_without_a_run_directory_the_agent_is_started_all_the_same(
    scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.run_dir.write_text("a file in its place")
    agent.start()
    assert not scratch.has_failed()


# Checking, as `rcctl ls failed` does


def test_a_service_that_was_never_started_has_failed(scratch: Scratch) -> None:
    assert scratch.rcctl("check") == (1, FAILED)


def test_an_agent_that_waits_has_not_failed(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    assert scratch.rcctl("check") == (0, OK)


def test_after_the_signal_nothing_has_failed_though_nothing_runs(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.start()
    agent.succeed()
    assert scratch.rcctl("check") == (0, OK)


def test_an_agent_that_gave_up_has_failed(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    agent.give_up()
    assert scratch.has_failed()


def test_the_next_boot_starts_afresh(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    agent.succeed()
    shutil.rmtree(scratch.root / "var/run")  # as rc(8) does
    (scratch.root / "var/run").mkdir()
    assert scratch.has_failed()
    assert scratch.rcctl("start", INRC="1").status == 0
    agent.born()


def test_every_user_may_check(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    assert scratch.rcctl("check", SCRATCH_UID="1000") == (0, OK)
    assert scratch.rcctl("stop", SCRATCH_UID="1000").status == 1


# Stopping, restarting, reloading


def test_stop_ends_the_agent(scratch: Scratch, agent: FakeAgent) -> None:
    life = agent.start()
    assert scratch.rcctl("stop") == (0, OK)
    assert life.has_ended()
    assert scratch.has_failed()


def test_stop_forgets_the_signal(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    agent.succeed()
    assert scratch.rcctl("stop") == (0, OK)
    assert scratch.has_failed()


def test_stop_does_nothing_if_nothing_was_started(scratch: Scratch) -> None:
    assert scratch.rcctl("stop") == (0, "")


def test_an_agent_that_writes_its_state_while_it_is_stopped_is_forgotten(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.does(WRITES_WHILE_DYING)
    scratch.set(timeout="3600")  # the longest that rc.subr waits for the check
    agent.start()
    assert scratch.rcctl("stop") == (0, OK)
    assert not scratch.state.exists()


def test_an_agent_that_writes_its_state_until_it_is_killed_is_forgotten(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.does(WRITES_AND_IS_DEAF)
    scratch.set(timeout="1")
    agent.start()
    assert scratch.rcctl("stop") == (0, f"{NAME}(killed)\n")
    assert not scratch.state.exists()


def test_an_agent_that_ignores_sigterm_is_killed_after_the_timeout(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.does(IS_DEAF)
    scratch.set(timeout="1")
    life = agent.start()
    assert scratch.rcctl("stop").out == f"{NAME}(killed)\n"
    assert life.has_ended()


def test_restart_sends_the_signal_again(scratch: Scratch, agent: FakeAgent) -> None:
    agent.start()
    agent.succeed()
    assert scratch.rcctl("restart") == (0, OK + OK)
    agent.born()
    assert not scratch.state.exists()


def test_restart_while_the_agent_waits_puts_a_new_one_in_its_place(
    scratch: Scratch, agent: FakeAgent
) -> None:
    life = agent.start()
    assert scratch.rcctl("restart").status == 0
    assert life.has_ended()
    agent.born()


def test_reload_is_refused_and_leaves_the_agent_alone(
    scratch: Scratch, agent: FakeAgent
) -> None:
    agent.start()
    assert scratch.rcctl("reload") == (1, "")
    assert not scratch.has_failed()


# What `rcctl set` sets


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("-v --no-dns", "-v --no-dns"),
        ("--dns-name 'a name with spaces'", "--dns-name a name with spaces"),
        ('--dns-name "a name" -v', "--dns-name a name -v"),
        ("--url http://[fd00:42::42]", "--url http://[fd00:42::42]"),
        ("--dns-name 'a.b+c^d$|{2}(e)*?'", "--dns-name a.b+c^d$|{2}(e)*?"),
    ],
)
def test_flags_reach_the_agent_and_are_found_again(
    flags: str, words: str, scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.set(flags=flags)
    life = agent.start()
    assert life.flags == words
    assert scratch.rcctl("check").status == 0
    assert scratch.rcctl("stop").status == 0
    assert life.has_ended()


def test_restart_stops_an_agent_that_runs_with_older_flags(
    scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.set(flags="--no-dns")
    life = agent.start()
    scratch.set(flags="--verbose")
    assert scratch.rcctl("restart").status == 0
    assert life.has_ended()
    assert agent.born().flags == "--verbose"


def test_the_user_can_be_set(scratch: Scratch, agent: FakeAgent) -> None:
    scratch.user("operator", os.getuid())
    scratch.set(user="operator")
    agent.start()
    assert scratch.logins() == ["operator"]


def test_the_run_directory_belongs_to_the_user_that_was_set(
    scratch: Scratch, agent: FakeAgent
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a directory for another user")
    nobody = pwd.getpwnam("nobody").pw_uid
    scratch.user("operator", nobody)
    scratch.set(user="operator")
    agent.start()
    assert scratch.run_dir.stat().st_uid == nobody
    agent.succeed()  # which writes to it as that user
    assert scratch.state.stat().st_uid == nobody
    assert not scratch.has_failed()


def test_the_routing_table_can_be_set(scratch: Scratch, agent: FakeAgent) -> None:
    scratch.set(rtable="3")
    life = agent.start()
    assert life.rtable == "3"
    assert scratch.rcctl("check").status == 0
    assert scratch.rcctl("stop").status == 0
    assert life.has_ended()


def test_an_agent_in_another_routing_table_is_not_the_service(
    scratch: Scratch, agent: FakeAgent
) -> None:
    scratch.set(rtable="3")
    with _by_hand(scratch.agent):
        life = agent.born()
        assert scratch.has_failed()
        scratch.run_dir.mkdir()
        scratch.state.touch()
        assert scratch.rcctl("stop") == (0, OK)
        assert not _readable(life.pidfd, seconds=0)  # it still runs


# What is taken for the agent


RUN_BY_PYTHON = [
    "/usr/local/bin/python3 -I {agent}",
    "/usr/local/bin/python3 {agent}",
    "/usr/local/bin/python3.10 -I {agent}",
    "/usr/local/bin/python3.14t -I {agent}",
    "/opt/a-b_c/bin/python3.12 -IEs {agent}",
    "/home/joe/venv/bin/python {agent}",
    "python3 {agent}",
    "python3.13 -X dev -IW error -u -bb {agent}",
]
OTHER_PROCESSES = [
    "/usr/local/bin/python3 -I {agent} --run-dir /tmp",
    "/usr/local/bin/python3 -I {agent} -n",
    "/usr/local/bin/python3 -I {agent}.orig",
    "/usr/local/bin/python3 -I /home/joe{agent}",
    "/usr/local/bin/python3 -I {directory}/scw-signal-state booted",
    "/usr/local/bin/python3 -I {directory}/scw-metadata",
    "/usr/local/bin/python3 -m py_compile {agent}",
    "/usr/local/bin/python3 /usr/local/bin/editor {agent}",
    "{agent}",
    "vi {agent}",
    "vi /usr/local/bin/python3 {agent}",
    "/home/python3/bin/vi {agent}",
    "less -I {agent}",
    "/bin/sh /etc/rc.d/scw_signal start",
    "su -fl -c daemon -s /bin/sh _scwsignal -c set -o monitor; {agent}",
    "doas /usr/local/bin/python3 -I {agent}",
]


def test_pexp_matches_the_agent_under_any_python_and_nothing_else(
    scratch: Scratch,
) -> None:
    pexp = scratch.print_from_service('print -r -- "${pexp}"').rstrip("\n")
    lines = [
        line.format(agent=scratch.agent, directory=scratch.agent.parent)
        for line in RUN_BY_PYTHON + OTHER_PROCESSES
    ]
    # pgrep -x matches an extended regular expression against the complete line.
    matched = subprocess.run(
        ["grep", "-xE", "-e", pexp],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert matched.splitlines() == lines[: len(RUN_BY_PYTHON)]


def test_in_a_port_pexp_matches_only_the_python_of_the_port(
    scratch: Scratch,
) -> None:
    python = "/usr/local/bin/python3.13"
    text = PORTED.read_text().replace("${MODPY_BIN}", python)
    ported = scratch.root / "scw_signal"
    ported.write_text(text.replace("${TRUEPREFIX}", "/usr/local"))
    scratch._install(ported)
    scratch.set(flags='--url "http://[fd00:42::42]"')
    pexp = scratch.print_from_service('print -r -- "${pexp}"').rstrip("\n")
    words = f"{scratch.agent} --url http://[fd00:42::42]"
    python = f"{scratch.root}{python}"
    lines = [f"{python} {words}", f"python3.13 {words}", f"/bin/sh {words}", words]
    matched = subprocess.run(
        ["grep", "-xE", "-e", pexp],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert matched == f"{lines[0]}\n"


@contextmanager
def _by_hand(*words: Path | str) -> Iterator[None]:
    """Run a command as somebody at a terminal does."""
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        yield
        process.kill()


# With the real agent


class Log:
    """The agent's messages, read as they come."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def wait_for(self, text: str) -> None:
        while text not in self.text:
            assert self._read(), f"no {text!r} in: {self.text}"

    def wait_for_end(self) -> None:
        while self._read():
            pass

    def _read(self) -> bool:
        assert _readable(self._descriptor), f"nothing more than: {self.text}"
        data = os.read(self._descriptor, 65536)
        self.text += data.decode()
        return bool(data)


class RealAgent:
    """The installed agent in the scratch root."""

    def __init__(self, scratch: Scratch, commands: Path) -> None:
        self._scratch = scratch
        self._always = f"-d --run-dir {scratch.run_dir}"
        scratch.agent.symlink_to(commands / "scw-signald")

    @contextmanager
    def start(self, flags: str, namespace: tuple[str, ...] = ()) -> Iterator[Log]:
        """Start the service with its output shown (rc.d's -d)."""
        self._scratch.set(flags=f"{self._always} {flags}")
        with subprocess.Popen(
            [*namespace, self._scratch.script, "-d", "start"],
            env=self._scratch.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as starting:
            assert starting.stderr
            yield Log(starting.stderr.fileno())


@pytest.fixture
def real_agent(scratch: Scratch, commands: Path) -> RealAgent:
    return RealAgent(scratch, commands)


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as service:
        yield service


def test_a_boot_is_signalled_once_and_has_not_failed(
    scratch: Scratch, real_agent: RealAgent, service: Emulator
) -> None:
    with real_agent.start(f"--no-dns --url {service.url}") as log:
        log.wait_for_end()
    assert service.state_detail == "booted"
    assert scratch.rcctl("check") == (0, OK)
    assert scratch.rcctl("start") == (0, "")
    assert signals(service) == 1


def test_a_restart_is_signalled_again(
    scratch: Scratch, real_agent: RealAgent, service: Emulator
) -> None:
    with real_agent.start(f"--no-dns --url {service.url}") as log:
        log.wait_for_end()
    assert scratch.rcctl("restart") == (0, OK + OK)
    assert service.wait_until(lambda: signals(service) == 2, PATIENCE)


def signals(service: Emulator) -> int:
    return sum(request.method == "PATCH" for request in service.requests)


def test_stop_ends_the_wait_for_a_route(
    scratch: Scratch, real_agent: RealAgent
) -> None:
    # This address needs an interface. Without one there is no route to it.
    with real_agent.start("--no-dns --url http://[fe80::1]") as log:
        log.wait_for("network: waiting for a route")
        assert_stop_ends(scratch, log)


@pytest.mark.parametrize(
    ("stage", "endpoint"), [("signal", "state"), ("metadata", "conf")]
)
def test_stop_ends_the_wait_for_the_next_try(
    stage: str,
    endpoint: str,
    scratch: Scratch,
    real_agent: RealAgent,
    service: Emulator,
) -> None:
    service.set_faults([f"{endpoint}/429-after=30"])
    with real_agent.start(f"--no-dns --url {service.url}") as log:
        log.wait_for(f"{stage}: the service answered 429 (try 1")
        assert_stop_ends(scratch, log)


def test_stop_ends_the_wait_for_a_reply(
    scratch: Scratch, real_agent: RealAgent, service: Emulator
) -> None:
    service.set_faults(["hang"])
    with real_agent.start(f"--no-dns --url {service.url}") as log:
        assert service.wait_until(lambda: bool(service.requests), PATIENCE)
        assert_stop_ends(scratch, log)


def test_stop_ends_the_wait_for_dns(scratch: Scratch, real_agent: RealAgent) -> None:
    flags = "--dns-timeout 600 --url http://127.0.0.1"
    with real_agent.start(flags, namespace_without_dns()) as log:
        log.wait_for("network: a route to 127.0.0.1")
        assert_stop_ends(scratch, log)


def assert_stop_ends(scratch: Scratch, log: Log) -> None:
    assert scratch.rcctl("check") == (0, OK)
    assert scratch.rcctl("stop") == (0, OK)
    log.wait_for_end()
    assert "stopped by SIGTERM" in log.text
    assert scratch.has_failed()


def namespace_without_dns() -> tuple[str, ...]:
    """Return the words that run a command in a network with nothing but loopback."""
    unshare: tuple[str, ...] = ("unshare", "--net")
    if os.getuid() != 0:
        unshare += ("--map-current-user", "--keep-caps")
    words = (*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    try:
        subprocess.run([*words, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")
    return words


def test_flags_that_the_agent_does_not_know_are_a_failure(
    scratch: Scratch, real_agent: RealAgent
) -> None:
    with real_agent.start("--no-such-flag") as log:
        log.wait_for_end()
    assert "--no-such-flag" in log.text
    assert scratch.has_failed()


# How the script is written


def test_rcctl_can_read_the_variables_and_nothing_happens(scratch: Scratch) -> None:
    before = sorted(scratch.root.rglob("*"))
    printed = subprocess.run(
        [
            scratch.shell,
            "-c",
            (
                'FUNCS_ONLY=1; . "$0/rc.subr"; rc_cmd() { :; }; . "$0/scw_signal"\n'
                'print -r -- "$daemon_user"'
            ),
            scratch.script.parent,
        ],
        env=scratch.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert printed.stdout == "_scwsignal\n"
    assert sorted(scratch.root.rglob("*")) == before


def test_the_shell_finds_nothing_wrong_in_it(scratch: Scratch) -> None:
    for script in (SERVICE, HERE / "rc.subr"):
        read = subprocess.run(
            [scratch.shell, "-n", script], capture_output=True, text=True, check=True
        )
        assert read.stdout + read.stderr == ""


@pytest.mark.parametrize("script", [SERVICE, PORTED], ids=str)
def test_no_line_is_longer_than_portcheck_allows(script: Path) -> None:
    lines = script.read_text().expandtabs().splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_it_is_in_the_order_of_rc_subr_8() -> None:
    lines = SERVICE.read_text().splitlines()
    sourced = lines.index(". /etc/rc.d/rc.subr")
    assignments = [line for line in lines[:sourced] if line and line[0] != "#"]
    assert all(line.startswith("daemon") for line in assignments)
    assert not any(line.startswith("daemon") for line in lines[sourced:])
    assert lines[-1] == "rc_cmd $1"
