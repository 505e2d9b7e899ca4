"""tests/openbsd/accept, the acceptance test: on Linux, in namespaces.

Its claims hold for the agent as it is. Each one fails for an agent that is broken
accordingly: BREAKINGS lists how.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import scw_signal
from openbsd.acceptance import openbsd
from openbsd.acceptance.claim import CLAIMS, Failed
from openbsd.acceptance.claims import load
from openbsd.acceptance.openbsd import OpenBSD
from openbsd.acceptance.process import Done
from openbsd.acceptance.system import RefusedError
from openbsd.acceptance.undo import SUFFIX, Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

ACCEPT = Path(__file__).resolve().parent / "openbsd/accept"
PACKAGE = Path(scw_signal.__file__).resolve().parent
PATIENCE = 170.0  # seconds; ends a run that hangs
REFUSED, INTERRUPTED = 2, 128 + signal.SIGINT  # exit statuses
PLACE = Path("/var/db/scw-accept")

load()
HERE = [claim.name for claim in CLAIMS if not claim.only]
ELSEWHERE = [claim.name for claim in CLAIMS if claim.only]


def run(
    *words: str | Path, env: dict[str, str] | None = None, through: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run accept to its end, with this Python."""
    return subprocess.run(
        [*through, "sh", ACCEPT, *words],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHON": sys.executable}
        | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def check(claim: str, package: Path, *more: str) -> tuple[int, str]:
    """Check one claim for the package in a directory; return status and output."""
    done = run("--yes", "--only", claim, "--package", package, *more)
    assert "Traceback" not in done.stdout + done.stderr
    assert not done.stderr
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def possible() -> None:
    """Skip if namespaces cannot be made."""
    if sys.platform != "linux":
        pytest.skip("on OpenBSD, run tests/openbsd/accept itself")
    if os.geteuid() != 0:
        pytest.skip("making namespaces takes root")
    done = run("--yes", "--only", "memory", "--package", PACKAGE.parent)
    if done.returncode == REFUSED:
        pytest.skip(done.stderr)


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("claim", HERE)
def test_a_claim_holds_for_the_agent_as_it_is(claim: str) -> None:
    status, out = check(claim, PACKAGE.parent)
    first, plan, line, last = out.splitlines()
    assert (first, plan) == ("TAP version 13", "1..1"), out
    assert line.startswith(f"ok 1 - {claim}: ")
    assert "# SKIP" not in line
    assert last == "1 passed, 0 failed"
    assert status == 0


@pytest.mark.usefixtures("possible")
def test_claims_that_need_openbsd_are_skipped_by_name() -> None:
    done = run("--yes", *(word for name in ELSEWHERE for word in ("--only", name)))
    *lines, last = done.stdout.splitlines()[2:]
    assert [line.split()[3] for line in lines] == [f"{name}:" for name in ELSEWHERE]
    assert all(line.endswith("# SKIP OpenBSD's alone") for line in lines)
    assert last == f"0 passed, 0 failed, {len(ELSEWHERE)} skipped"
    assert done.returncode == 0


class Breaking(NamedTuple):
    """A claim, and a change to one file that must make it fail."""

    claim: str
    file: str
    old: str
    new: str


# The wait for a route, and the pauses.
WAITS = "            self._changed(next_report - now)\n"
CUT = "            if not routed and self.route() is not None:\n"
# How a reply is judged.
FAILED = "    if status in TRANSIENT or status not in _REFUSAL:\n"
WEB_PAGE = (
    '    if _is_web_page(reply):\n        raise NonsenseError("the service sent a'
)
OTHER = "    if echoed != state:\n"
# The resolver.
ANSWERED = "            if any(question.answered for question in ended):\n"
IN_TIME = "        end = self._clock.monotonic() + seconds\n        again"
STOPPED = "            poll.register(self._stop.descriptor, select.POLLIN)\n"
DEAF = "            pass\n"
HEARD = "                self._stop.check()\n            if ready:\n"
PAUSE = "    return min(after, RETRY_AFTER_CAP) + ceiling(start, elapsed) * share"
BROKEN = "                reason = _reason(error)\n"
OPENED = "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC"
BREAKINGS = [
    *(
        Breaking(claim, "network.py", WAITS, "            self._clock.wait(9)\n")
        for claim in ("route_late", "route_late_user")
    ),
    Breaking(
        "root_becomes_user", "cli/signald.py", "sandbox.switch_user(user)", "pass"
    ),
    Breaking(
        "unrelated_events", "network.py",
        WAITS, f"{WAITS}            if next_report - now < 59.99:\n"
        "                return self._endpoints[0]\n",
    ),
    Breaking("route_back", "network.py", CUT, "            if False:\n"),
    Breaking("ipv6_only", "wire.py", '("169.254.42.42", "fd00:42::42")',
             '("169.254.42.42",)'),
    Breaking("black_hole", "transport.py", "CONNECT_SECONDS = 3.0",
             "CONNECT_SECONDS = 60.0"),
    Breaking("resolv_conf_late", "resolver.py", ANSWERED, "            if True:\n"),
    Breaking("name_server_answers", "resolver.py", ANSWERED, "            if False:\n"),
    Breaking("name_server_dead", "resolver.py", IN_TIME, IN_TIME.replace(
        "+ seconds", "+ 3 * seconds")),
    Breaking("name_server_refuses", "resolver.py", ANSWERED, "            if True:\n"),
    Breaking("name_server_late", "resolver.py", ANSWERED, "            if True:\n"),
    Breaking("service_by_name", "cli/signald.py", "resolve=resolver.addresses", ""),
    Breaking("not_found", "wire.py", FAILED, "    if status == 404:\n"
             f"        return\n{FAILED}"),
    Breaking("unavailable", "wire.py", FAILED, "    if status == 503:\n"
             f"        return\n{FAILED}"),
    Breaking("too_many", "backoff.py", PAUSE, PAUSE.replace(
             "min(after, RETRY_AFTER_CAP) + ", "")),
    Breaking("reset", "transport.py", BROKEN, f"                return Reply(200, {{}},"
             f" b'STATE_DETAIL=booted')\n{BROKEN}"),
    Breaking("web_page", "wire.py", WEB_PAGE, WEB_PAGE.replace(
        "_is_web_page(reply)", "False")),
    Breaking("wrong_ack", "wire.py", OTHER, "    if False:\n"),
    Breaking("empty_ack", "agent.py", "    settle = _Settlement(",
             "    settle = lambda _: False\n    _Settlement("),
    Breaking("refused", "retrying.py", "retry=", "retry=lambda _: False and "),
    Breaking("silence", "transport.py", "        seconds = min(left, self._seconds)\n",
             "        seconds = self._seconds\n"),
    *(
        Breaking(f"stop_{wait}", "clock.py", HEARD, HEARD.replace(
            "self._stop.check()", "pass"))
        for wait in ("route", "route_int")
    ),
    *(
        Breaking(f"stop_{wait}", "clock.py", STOPPED, DEAF)
        for wait in (
            "dns", "look_up", "connection", "exchange", "pause",
            "metadata", "command",
        )
    ),
    Breaking("stop_script", "privileged.py", "        script = self._script\n"
             "        if script is None or", "        script = self._script\n"
             "        if True or"),
    Breaking("unwritable", "cli/signald.py",
             'journal.warning(f"no files will be stored: {error}")', "raise"),
    Breaking("planted_link", "store.py", OPENED, OPENED.replace(
        " | os.O_NOFOLLOW", "")),
    Breaking("planted_file", "cli/signald.py",
             'journal.warning(f"no files will be stored: {error}")', "raise"),
    Breaking("planted_state", "store.py", '        new = f".{name}.{os.getpid()}"\n',
             '        open(f"{self.directory}/{name}", "wb").write(data)\n'
             '        new = f".{name}.{os.getpid()}"\n'),
    Breaking("vanished", "agent.py",
             '        parts.log.warning(f"cannot write: {error}")', "        raise"),
    Breaking("few_descriptors", "cli/signald.py", "    clock = Clock(stop)\n",
             "    clock = Clock(stop)\n    held = [os.dup(2) for _ in range(9)]\n"),
    Breaking("metadata_live", "render.py", """value.replace("'", "'\\"'\\"'")""",
             "value"),
    Breaking("metadata_cached", "store.py", "    try:\n        # O_NONBLOCK",
             "    return None\n    try:\n        # O_NONBLOCK"),
    Breaking("signal_state", "cli/signal_state.py", 'if arguments.has("quiet"):',
             "if False:"),
    Breaking("signal_state_in_vain", "cli/session.py", "seconds or math.inf",
             "math.inf"),
    Breaking("user_data", "cli/userdata.py", "reserved=True", "reserved=False"),
    Breaking("user_data_user", "cli/userdata.py", "reserved=True", "reserved=False"),
    Breaking("check_up", "cli/checkup.py", "ok", "OK"),
    Breaking("usage", "cli/options.py", 'raise UsageError', "raise KeyError"),
    Breaking("set_hostname", "privileged.py", "        if self._kept is not None:\n",
             "        if False:\n"),
    Breaking("run_user_data", "privileged.py", ".strip() == instance:",
             ".strip() == 0:"),
    Breaking("run_user_data_that_fails", "privileged.py",
             "        fault = _fault(script)\n        if fault is not None:\n",
             "        fault = _fault(script)\n        if False:\n"),
    Breaking("background_job", "cli/split.py", "    if status != 0:\n",
             "    os.killpg(duties._script.pid, 9)\n    if status != 0:\n"),
    Breaking("duties_user", "cli/signald.py", 'journal.error("--set-hostname and',
             'raise SystemExit("'),
    Breaking("memory", "cli/signald.py", "    clock = Clock(stop)\n",
             "    clock = Clock(stop)\n    clock.held = b'x' * 50_000_000\n"),
]  # fmt: skip


# Most of them fail only after a long wait, so a normal run tries just these.
QUICK = {
    "root_becomes_user", "unrelated_events", "resolv_conf_late", "wrong_ack",
    "empty_ack", "stop_script", "planted_state", "vanished", "few_descriptors",
    "user_data", "run_user_data_that_fails", "memory",
}  # fmt: skip
SOAKING = os.environ.get("HYPOTHESIS_PROFILE") == "soak"


@pytest.mark.usefixtures("possible", "soaking")
@pytest.mark.parametrize(
    "breaking",
    [each for each in BREAKINGS if SOAKING or each.claim in QUICK],
    ids=lambda breaking: breaking.claim,
)
def test_a_claim_fails_for_an_agent_that_was_broken_for_it(
    breaking: Breaking, tmp_path: Path
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "scw_signal")
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o555)  # for the user that the agent becomes
    file = tmp_path / "scw_signal" / breaking.file
    text = file.read_text()
    assert breaking.old in text, "what is to be broken is not there any more"
    file.write_text(text.replace(breaking.old, breaking.new))
    status, out = check(breaking.claim, tmp_path, "--patience", "6")
    assert f"\nnot ok 1 - {breaking.claim}: " in out
    assert re.search("^# seen: .", out, re.MULTILINE)
    assert out.endswith("\n0 passed, 1 failed\n")
    assert status == 1


def test_there_is_a_broken_agent_for_every_claim() -> None:
    assert [breaking.claim for breaking in BREAKINGS] == list(
        dict.fromkeys(breaking.claim for breaking in BREAKINGS)
    )
    assert {breaking.claim for breaking in BREAKINGS} == set(HERE)


# Whatever happens, nothing is left on the machine.


class Traces(NamedTuple):
    """What a run could leave behind on this machine."""

    host_name: str
    resolv_conf: bytes
    namespaces: set[str]
    files: set[str]

    @classmethod
    def now(cls) -> Traces:
        """Return what there is now."""
        files = ("/run/accept", "/run/scw_signal", "/var/lib/scw_signal", PLACE)
        return cls(
            os.uname().nodename,
            Path("/etc/resolv.conf").read_bytes(),
            {path.name for path in Path("/run/netns").glob("*") if path.name in PLACES},
            {str(file) for file in files if os.path.lexists(file)},
        )


PLACES = {"guest", "service"}


def under_way(claim: str) -> subprocess.Popen[str]:
    """Start a claim that takes long, and return it once it is under way."""
    process = subprocess.Popen(
        ["sh", ACCEPT, "--yes", "--only", claim, "--package", PACKAGE.parent],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for _ in range(1000):
        if any("scw-signald" in line for line in descendants(process.pid)):
            return process
        time.sleep(0.01)
    pytest.fail("the agent is not started")


def descendants(number: int) -> list[str]:
    """Return the command lines of all descendants of a process."""
    table = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    found: list[str] = []
    numbers = {str(number)}
    while more := [row for row in rows if row[1] in numbers and row[0] not in numbers]:
        numbers |= {pid for pid, *_ in more}
        found += [" ".join((pid, *words)) for pid, _, *words in more]
    return found


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_so_and_leaves_nothing(number: signal.Signals) -> None:
    before = Traces.now()
    process = under_way("silence")
    started = descendants(process.pid)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert out.splitlines()[2:] == [
        f"Bail out! interrupted by {number.name}",
        "0 passed, 0 failed",
    ]
    assert process.returncode == 128 + number
    assert not_running(started)
    assert Traces.now() == before


@pytest.mark.usefixtures("possible")
def test_a_killed_run_leaves_nothing() -> None:
    before = Traces.now()
    process = under_way("silence")
    started = descendants(process.pid)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert not_running(started)
    assert Traces.now() == before


def not_running(processes: list[str]) -> bool:
    """Wait until none of these runs any more; tell whether they all ended."""
    for _ in range(500):
        if not any(Path("/proc", line.split()[0]).exists() for line in processes):
            return True
        time.sleep(0.01)
    return False


# Bad input: one line, and status 2.


def refusal(*words: str | Path, **how: Any) -> str:
    """Return the one line that accept prints when it refuses."""
    done = run(*words, **how)
    assert done.returncode == REFUSED
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    return line


def test_without_root_it_refuses() -> None:
    through: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed here")
        through += ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    line = refusal("--yes", through=through)
    assert line.startswith("accept: only root can do this")


def test_without_yes_and_without_a_terminal_it_does_nothing() -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes root to come so far")
    assert refusal() == "accept: cannot ask without a terminal: use --yes"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "nothing"), "no claim has the name nothing: see --list"),
        (("--no-such-option",), "unrecognized arguments: --no-such-option"),
        (("--pairs", "1"), "argument --pairs: not two numbers, as in 242,243: 1"),
        (("--pairs", "7,7"), "argument --pairs: not two numbers, as in 242,243: 7,7"),
        (("--rdomains", "a,b"),
         "argument --rdomains: not two numbers, as in 242,243: a,b"),
        (("--only",), "argument --only: expected one argument"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(words: tuple[str, ...], said: str) -> None:
    assert refusal("--list", *words) == f"accept: {said}"


def test_without_python_it_says_how_to_get_it() -> None:
    line = refusal("--list", env={"PYTHON": "/nonexistent/python3"})
    assert line == (
        "accept: there is no /nonexistent/python3: on OpenBSD, pkg_add python%3"
    )


def test_with_n_it_says_what_it_would_do() -> None:
    done = run("-n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "make namespaces" in done.stdout


def test_it_lists_its_claims() -> None:
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [claim.name for claim in CLAIMS]


def test_it_asks_and_takes_no_for_an_answer() -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes root to come so far")
    ours, its = os.openpty()
    with subprocess.Popen(
        ["sh", ACCEPT],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHON": sys.executable},
        stdin=its,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, b"no\n")
        out, _ = process.communicate(timeout=PATIENCE)
    os.close(ours)
    os.close(its)
    assert out.startswith("This would\n    make namespaces")
    assert out.endswith("Go on? [no] ")
    assert process.returncode == REFUSED


# Changes to an OpenBSD machine can be undone, however far they went.


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("the machine's own\n")
    (tmp_path / "file").chmod(0o640)
    return tmp_path


def journal(place: Path, done: list[str] | None = None) -> Journal:
    return Journal(place / "journal", {"interface": (done or []).append})


def test_a_file_is_put_back_by_a_later_run(etc: Path) -> None:
    file, new = etc / "file", etc / "new"
    first = journal(etc)
    first.keep(str(file))
    first.keep(str(new))
    file.write_text("another\n")
    first.keep(str(file))  # the first copy counts
    new.write_text("made\n")
    assert journal(etc).undo() == []
    assert file.read_text() == "the machine's own\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in etc.iterdir()) == ["file"]


def test_changes_are_undone_in_reverse_and_each_only_once(tmp_path: Path) -> None:
    done: list[str] = []
    begun = journal(tmp_path, done)
    begun.note("interface", "lo242")
    begun.note("interface", "pair242")
    begun.note("interface", "lo242")
    undone = Journal(tmp_path / "journal", {"interface": done.append})
    assert undone.undo() == []
    assert undone.undo() == []
    assert done == ["pair242", "lo242"]


def test_what_cannot_be_undone_stays_noted_and_the_rest_is_undone(etc: Path) -> None:
    def fail(what: str) -> None:
        raise OSError(f"{what} is busy")

    file = etc / "file"
    begun = Journal(etc / "journal", {"interface": fail})
    begun.keep(str(file))
    file.write_text("another\n")
    begun.note("interface", "pair242")
    assert begun.undo() == ["interface pair242: pair242 is busy"]
    assert file.read_text() == "the machine's own\n"
    assert begun.undo() == ["interface pair242: pair242 is busy"]


def test_without_space_for_a_copy_nothing_is_changed(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    begun = journal(etc)
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left"):
        begun.keep(str(etc / "file"))
    assert begun.undo() == []
    assert not (etc / f"file{SUFFIX}").exists()
    assert (etc / "file").read_text() == "the machine's own\n"


class Machine:
    """The parts of OpenBSD that its layer uses: interfaces, and a file of settings.

    Command number `broken` fails, as on a full disk or when interrupted.
    """

    def __init__(self, interfaces: set[str]) -> None:
        self.interfaces = interfaces
        self.routes = {"0": "default            10.0.2.2           UGS"}
        self.rdomains: dict[str, str] = {}
        self.installed = False
        self.broken = -1
        self.settings = Path()

    def run(self, words: Sequence[str], **how: Any) -> Done:
        """Do what a command would do to these parts."""
        self.broken -= 1
        if self.broken == 0:
            raise Failed(f"{words[0]} failed")
        status, out = self._do(list(words))
        if how.get("check") and status:
            raise Failed(f"{' '.join(words)}: status {status}")
        return Done(status, out, "", 0.1)

    def _do(self, words: list[str]) -> tuple[int, str]:
        match words:
            case ["ifconfig", name]:
                return int(name not in self.interfaces), ""
            case ["ifconfig", name, "create"]:
                self.interfaces.add(name)
            case ["ifconfig", name, "rdomain", number]:
                self.rdomains[name] = number
                self.interfaces.add(f"lo{number}")
                self.routes[number] = "127.0.0.1          127.0.0.1          UHhl"
            case ["ifconfig", name, "destroy"]:
                number = name.removeprefix("lo")
                if number in self.rdomains.values():
                    return 1, "busy"
                self.interfaces.remove(name)
                self.routes.update({number: ""})  # the table itself stays
                self.rdomains.pop(name, None)
            case ["route", "-T", number, "-n", "show"]:
                shown = f"Routing tables\n\nInternet:\n{self.routes.get(number)}\n"
                return (0, shown) if number in self.routes else (1, "")
            case ["id", *_]:
                return int(not self.installed), ""
            case ["sh", script] if script.endswith("/uninstall"):
                self.installed = False
            case ["sh", _]:
                self.installed = True
                self.settings.write_text("scw_signal_flags=\n")
        return 0, ""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine({"lo0", "vio0", "pair0"})
    machine.settings = tmp_path / "rc.conf.local"
    machine.settings.write_text("pf=NO\n")
    (tmp_path / "vendor").mkdir()
    monkeypatch.setattr(openbsd, "run", machine.run)
    for name, value in (
        ("PLACE", tmp_path / "place"), ("PYTHON", sys.executable), ("PROGRAMS", ()),
        ("OURS", (str(tmp_path / "command"),)), ("RC_CONF", str(machine.settings)),
        ("CORES", ()), ("RUN_DIRECTORY", str(tmp_path / "run")),
        ("DUTIES", str(tmp_path / "duties")),
    ):  # fmt: skip
        monkeypatch.setattr(openbsd, name, value)
    return machine


def layer(
    machine: Machine, pairs: tuple[int, int] = (242, 243), rdomain: int = 242
) -> OpenBSD:
    """Return the layer for OpenBSD, on such a machine."""
    return OpenBSD(machine.settings.parent, pairs, (rdomain, 243))


def whole(machine: Machine) -> bool:
    """Tell whether a machine is as it was."""
    return (
        machine.interfaces == {"lo0", "vio0", "pair0"}
        and not any(routes for table, routes in machine.routes.items() if table != "0")
        and not machine.installed
        and machine.settings.read_text() == "pf=NO\n"
        and sorted(path.name for path in machine.settings.parent.iterdir())
        == ["rc.conf.local", "vendor"]
    )


def test_what_was_prepared_on_openbsd_is_undone(machine: Machine) -> None:
    system = layer(machine)
    system.check()
    system.prepare()
    assert {"pair242", "pair243"} <= machine.interfaces
    assert machine.installed
    system.restore()
    assert whole(machine)


def test_it_can_be_run_again_even_if_the_routing_tables_stay(machine: Machine) -> None:
    for _ in range(2):
        system = layer(machine)
        system.check()
        system.prepare()
        system.restore()
    assert {"242", "243"} <= set(machine.routes)


def test_wherever_a_preparation_fails_it_is_undone(machine: Machine) -> None:
    for number in range(1, 60):
        system = layer(machine)
        system.check()
        machine.broken = number
        try:
            system.prepare()
        except Failed:
            machine.broken = -1
            system.restore()
            assert whole(machine), number
        else:
            system.restore()
            assert number > 20  # it runs at least so many commands
            return
    pytest.fail("it never succeeds")


def test_what_a_killed_run_left_on_openbsd_is_undone_by_the_next(
    machine: Machine,
) -> None:
    killed = layer(machine)
    killed.check()
    killed.prepare()
    os.close(killed._held)  # as when the process dies
    following = layer(machine)
    following.check()
    following.prepare()
    following.restore()
    assert whole(machine)


def test_two_at_once_are_refused(machine: Machine) -> None:
    first = layer(machine)
    first.check()
    with pytest.raises(RefusedError, match="another accept is running"):
        layer(machine).check()
    first.prepare()
    first.restore()
    assert whole(machine)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"pairs": (0, 243)}, "pair0 is taken: choose others with --pairs"),
        ({"rdomain": 0}, "an rdomain has a number from 1 to 255: 0"),
        ({"rdomain": 256}, "an rdomain has a number from 1 to 255: 256"),
        ({"rdomain": 7}, "rdomain 7 is taken: choose others with --rdomains"),
    ],
)
def test_interfaces_and_rdomains_that_are_taken_are_refused(
    machine: Machine, how: dict[str, Any], said: str
) -> None:
    machine.routes["7"] = "fe80::%lo7/10      fe80::1            U"
    with pytest.raises(RefusedError, match=said):
        layer(machine, **how).check()
    del machine.routes["7"]
    assert whole(machine)


def test_an_existing_installation_is_not_overwritten(machine: Machine) -> None:
    machine.installed = True
    with pytest.raises(RefusedError, match=r"installed here, or was: .*the user"):
        layer(machine).check()
    machine.installed = False
    Path(openbsd.OURS[0]).touch()
    with pytest.raises(RefusedError, match=r"there is /.*command; uninstall it first"):
        layer(machine).check()


def test_without_python_from_packages_it_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openbsd, "PYTHON", "/nonexistent/python3")
    with pytest.raises(RefusedError, match="pkg_add python%3"):
        layer(machine).check()


def test_a_kill_by_pledge_is_named_once_with_promise_and_system_call(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    header = tmp_path / "syscall.h"
    header.write_text("#define\tSYS_open\t5\n#define\tSYS_ioctl\t54\n")
    monkeypatch.setattr(openbsd, "SYSCALLS", header)
    log = ["root on wd0a"]
    monkeypatch.setattr(openbsd, "run", lambda _: Done(0, "\n".join(log), "", 0.1))
    system = layer(machine)
    system._terminal.heard('python3.11[97948]: pledge "rpath", syscall 5')
    named = ['python3.11[97948]: pledge "rpath", system call 5, open']
    assert list(system.watch()) == named
    assert list(system.watch()) == []
    log.append('python3.11[5]: pledge "tty", syscall 54')
    assert list(system.watch()) == [
        'python3.11[5]: pledge "tty", system call 54, ioctl'
    ]
