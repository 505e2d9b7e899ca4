"""Bad days: a service that fails in every way, and in all of them at once.

The real agent, down to its sockets, talks to the real emulator. A fake clock does
the waiting, so that an hour's outage takes a second. What needs a whole process
(memory, kill -9, a full disk, the time of day) is tried with the installed commands.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import syslog
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from raw import RawService, reply

from fakes import FakeClock
from installed import BIN, ENVIRONMENT, run, start
from scw_signal import agent, transport, wire
from scw_signal.agent import Parts, Patience, Receipt
from scw_signal.emulator import Emulator
from scw_signal.errors import ScwSignalError
from scw_signal.log import Log, Reporter
from scw_signal.network import Network
from scw_signal.store import Store
from scw_signal.transport import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scw_signal.wire import Endpoint, Reply, Request

FILES = {"state", "metadata.json", "metadata.flat"}
DOCUMENT = {"hostname": "puffy", "state_detail": "booting kernel"}
DATE_SECONDS = 9.0  # what the fault 429-date asks for here
SILENCE = 0.1  # real seconds until a service that hangs is given up here
FAULTS = (
    "refuse", "reset", "hang", "drip=0.0001", "429", "429-after=0", "429-after=7",
    "429-after=999", f"429-date={DATE_SECONDS:g}", "503", "404", "403", "html",
    "wrong-ack", "empty-ack", "empty-ack=204", "json-ack", "huge=200000", "huge=inf",
    "redirect", "truncate", "garbage",
)  # fmt: skip


EPSILON = 0.003  # seconds: waits are rounded to milliseconds
AHEAD = 16 * 1024  # bytes: the head of a reply, and what http.client reads ahead


class Try(NamedTuple):
    """One exchange with the service: when it was, and its result."""

    begin: float
    end: float
    target: str
    reply: Reply | None  # None: no valid reply
    received: int  # bytes
    silent: bool  # given up because nothing came

    @property
    def asked(self) -> float:
        """The seconds that the service asked for."""
        after = self.reply.headers.get("Retry-After") if self.reply else None
        if after is None:
            return 0.0
        return float(after) if after.isdigit() else DATE_SECONDS

    @property
    def says_nothing(self) -> bool:
        """Whether it is a success that names no state."""
        reply = self.reply
        if reply is None or reply.status not in {200, 204}:
            return False
        body = reply.body
        return b"STATE_DETAIL" not in body.upper() and not body.startswith(b"<")

    @property
    def overload(self) -> bool:
        """Whether the service may be overloaded."""
        return self.silent or (
            self.reply is not None and self.reply.status in {429, 503}
        )


class PollClock(FakeClock):
    """Rounds a wait up to milliseconds, as poll(2) takes them."""

    def _poll(self, seconds: float, descriptors: tuple[int, ...], event: int) -> bool:
        if math.isfinite(seconds):
            seconds = math.ceil(seconds * 1000) / 1000
        return super()._poll(seconds, descriptors, event)


class Witness(Service):
    """The real client of the service, which remembers its tries."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: FakeClock) -> None:
        super().__init__(endpoints, clock, seconds=SILENCE)
        self._given = clock
        self.tries: list[Try] = []

    def exchange(self, request: Request, budget: float) -> tuple[Reply, Endpoint]:
        begin, before, reply = self._clock.monotonic(), CountingSocket.received, None
        silent = False
        self._given.patience = SILENCE
        try:
            reply, endpoint = super().exchange(request, budget)
        except ScwSignalError as error:
            silent = str(error).endswith("no answer in time")
            raise
        finally:
            self._given.patience = 0.0
            received = CountingSocket.received - before
            end = self._clock.monotonic()
            self.tries.append(Try(begin, end, request.target, reply, received, silent))
        return reply, endpoint


class CountingSocket(transport._TimedSocket):
    """The socket of the real client, which counts what it receives."""

    received = 0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        received = super().recv_into(*args, **kwargs)
        CountingSocket.received += received
        return received


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Count what is received, and do not wait for real seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_TimedSocket", CountingSocket)
        yield


class Guest:
    """One boot of a server: the real agent with fake time, chance and network.

    Its routing socket is one end of a pair; the test holds the other.
    """

    def __init__(self, service: Emulator, directory: Path | None = None) -> None:
        self.clock = PollClock()
        self.client = Witness([wire.endpoint(service.url)], self.clock)
        self.draws: list[float] = []
        self.changes: list[float] = []
        self.lines: list[str] = []
        self.told: list[str] = []  # without -v
        self.insists = True
        self.service = service
        self._random = random.Random(0)  # noqa: S311 - the same in each run
        self._directory = directory

    def _take(self, priority: int, line: str) -> None:
        self.lines.append(line)
        if priority < syslog.LOG_DEBUG:
            self.told.append(line)

    def cure(self, seconds: float, rest: Sequence[str] = ()) -> None:
        """Give the service these faults in `seconds` of this guest's time."""
        self.clock.at(seconds, lambda: self.service.set_faults(rest))

    def boot(self, state: str = "booted", changes: Sequence[float] = ()) -> Receipt:
        """Do what scw-signald does; the network changes at the given moments."""
        log = Log(self._take, verbose=True)

        def patience(stage: str, seconds: float) -> Patience:
            report = Reporter(stage, self.clock, log).failed
            return self._patience(network, seconds, report, insist=True)

        with self._network(changes) as network, self._store() as store:
            parts = Parts(
                clock=self.clock,
                network=network,
                await_dns=None,
                service=self.client,
                store=store,
                log=log,
                patience=patience,
                narrow=lambda _: None,
            )
            return agent.boot(parts, state)

    def signal(self, state: str, seconds: float) -> Receipt:
        """Do what scw-signal-state does."""
        self.insists = False
        with self._network() as network:
            patience = self._patience(network, seconds, lambda *_: None, insist=False)
            return agent.signal(self.client, state, patience)

    @contextlib.contextmanager
    def _network(self, changes: Sequence[float] = ()) -> Iterator[Network]:
        kernel, monitor = socket.socketpair(type=socket.SOCK_DGRAM)
        kernel.settimeout(0)
        monitor.settimeout(0)

        def change() -> None:
            self.changes.append(self.clock.now)
            with contextlib.suppress(BlockingIOError):
                kernel.send(b"changed")

        for seconds in changes:
            self.clock.at(seconds, change)
        with kernel, pytest.MonkeyPatch.context() as patch:
            patch.setattr("scw_signal.network._open_monitor", lambda: monitor)
            network = Network([wire.endpoint(self.service.url)], self.clock)
            try:
                yield network
            finally:
                network.close()

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store | None]:
        store = Store(str(self._directory)) if self._directory else None
        try:
            yield store
        finally:
            if store:
                store.close()

    def _patience(
        self,
        network: Network,
        seconds: float,
        report: Callable[[ScwSignalError, int, float], None],
        *,
        insist: bool,
    ) -> Patience:
        pause, chance = network.pause, self._chance
        return Patience(
            self.clock, seconds, pause, report, insist=insist, chance=chance
        )

    def _chance(self) -> float:
        self.draws.append(self._random.random())
        return self.draws[-1]


# What always holds


def check(guest: Guest, receipt: Receipt | None, seconds: float = math.inf) -> None:
    """Check a boot against the promises; its signal had at most `seconds`."""
    signals, questions = apart(guest.client.tries)
    draws = guest.draws[max(0, len(signals) - 1) :]
    check_pace(guest, signals, guest.draws, seconds)
    check_pace(guest, questions, draws, agent.METADATA_SECONDS)
    assert all(each.received <= wire.ACKNOWLEDGEMENT_LIMIT + AHEAD for each in signals)
    assert all(each.received <= wire.DOCUMENT_LIMIT + AHEAD for each in questions)
    assert all(line.isprintable() for line in guest.lines)
    if receipt is not None:
        check_receipt(guest, receipt, signals)


def apart(tries: Sequence[Try]) -> tuple[list[Try], list[Try]]:
    """Return the signals, and the questions that come after them.

    A signal whose reply says nothing lasts until the document has been looked at,
    and fails as that look fails.
    """
    signals: list[Try] = []
    questions: list[Try] = []
    for before, each in itertools.pairwise((tries[0], *tries)):
        if each.target == "/state":
            signals.append(each)
        elif before.target == "/state" and before.says_nothing:
            signals[-1] = each._replace(begin=before.begin, received=before.received)
        else:
            questions.append(each)
    return signals, questions


def check_receipt(guest: Guest, receipt: Receipt, signals: Sequence[Try]) -> None:
    """Compare what is reported with what the service knows."""
    assert receipt.tries == len(signals)
    last = signals[-1].reply
    assert last is not None
    assert last.status in {200, 204}, "the service did not take it"
    assert guest.service.state_detail == receipt.state


def check_pace(
    guest: Guest, tries: Sequence[Try], draws: Sequence[float], seconds: float
) -> None:
    """Check the pauses between tries against the policy, which is restated here."""
    for number, (one, other) in enumerate(itertools.pairwise(tries), 1):
        asked, draw = min(60.0, one.asked), draws[number - 1]
        elapsed = one.end - tries[0].end
        ceiling = min(elapsed + (2.0 if guest.insists else 0.25), 60.0)
        longest = asked + ceiling * (2 + draw) / 3
        shortest = asked + ceiling / 8
        changed = any(one.end <= moment <= other.begin for moment in guest.changes)
        if one.overload or not changed:
            shortest = longest
        kept = min(max(one.end - one.begin, 0.05), 1.0)
        last = tries[0].begin + seconds - kept
        if abs(other.begin - last) < EPSILON:  # the last try before time runs out
            shortest = asked
        assert shortest - EPSILON < other.begin - one.end < longest + EPSILON


# Singly, in pairs, and in any order


def with_count(fault: str) -> str:
    """Return a fault for one request; a port stays closed until it is opened."""
    return fault if fault == "refuse" else f"{fault}:1"


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_and_each_pair_ends_with_the_signal(fault: str) -> None:
    with loopback(), Emulator(document=DOCUMENT) as service:
        for number, other in enumerate((None, *FAULTS)):
            faults = [with_count(each) for each in (fault, other) if each]
            service.set_faults(faults)
            guest = Guest(service)
            if fault == "refuse":
                guest.cure(20, faults[1:])
            if other == "refuse":
                guest.cure(120)
            check(guest, guest.boot(f"state {number}"))


class Worst(RuleBasedStateMachine):
    """Faults, network changes, boots and a person's signals, in any order."""

    @initialize()
    def begin(self) -> None:
        self.resources = contextlib.ExitStack()
        self.resources.enter_context(loopback())
        self.service = self.resources.enter_context(Emulator(document=DOCUMENT))
        self.directory = Path(
            self.resources.enter_context(tempfile.TemporaryDirectory())
        )
        self.faults: list[str] = []
        self.lives = 0

    @rule(
        fault=st.sampled_from([fault for fault in FAULTS if fault != "refuse"]),
        endpoint=st.sampled_from(["", "state/", "conf/"]),
        count=st.integers(1, 3),
    )
    def fail(self, fault: str, endpoint: str, count: int) -> None:
        """Let the next requests fail."""
        self.faults.append(f"{endpoint}{fault}:{count}")

    @rule()
    def boot(self) -> None:
        """Boot a server."""
        guest, state = self.begin_life()
        self.end_life(guest, guest.boot(state))

    @rule(
        fault=st.sampled_from([fault for fault in FAULTS if fault != "hang"]),
        cure=st.floats(0, 300),
        changes=st.lists(st.floats(0, 400), max_size=20),
    )
    def boot_in_an_outage(self, fault: str, cure: float, changes: list[float]) -> None:
        """Boot a server while the service has one fault, until that is cured."""
        self.faults.append(fault)
        guest, state = self.begin_life()
        guest.cure(cure)
        self.end_life(guest, guest.boot(state, changes))

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 30.0]))
    def signal_by_hand(self, seconds: float) -> None:
        """Signal as a person does: with a short bound, and refusals are reported."""
        guest, state = self.begin_life()
        receipt = None
        with contextlib.suppress(ScwSignalError):
            receipt = guest.signal(state, seconds)
        check(guest, receipt, seconds)

    def begin_life(self) -> tuple[Guest, str]:
        self.service.set_faults(self.faults)
        self.faults = []
        self.lives += 1
        return Guest(self.service, self.directory), f"state {self.lives}"

    def end_life(self, guest: Guest, receipt: Receipt) -> None:
        check(guest, receipt)
        assert {path.name for path in self.directory.iterdir()} <= FILES
        lines = (self.directory / "state").read_text().splitlines()
        assert f"STATE_DETAIL='{receipt.state}'" in lines
        assert f"CONFIRMED={receipt.confirmed}" in lines

    def teardown(self) -> None:
        self.resources.close()


TestWorst = Worst.TestCase
TestWorst.settings = settings(
    settings(),
    max_examples=settings().max_examples // 20,
    stateful_step_count=settings().stateful_step_count // 2,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# The pace


@pytest.mark.parametrize("fault", ["404", "403", "429", "503", "hang", "html"])
def test_an_outage_of_an_hour_costs_a_request_a_minute(fault: str) -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=[fault]) as service:
        guest = Guest(service)
        guest.cure(3500)
        check(guest, guest.boot())
        tries = len(guest.client.tries)
    assert 60 < tries < 90


def test_a_service_that_asks_for_a_day_is_asked_again_within_minutes() -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=["429-after=86400"]) as service:
        guest = Guest(service)
        guest.cure(3500)
        check(guest, guest.boot())
        assert 3500 / 120 <= len(guest.client.tries) <= 3500 / 100 + 2


def test_a_network_that_never_rests_is_no_reason_for_a_storm() -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=["404"]) as service:
        guest = Guest(service)
        guest.cure(600)
        changes = [number / 10 for number in range(6000)]
        check(guest, guest.boot(changes=changes))
        assert len(guest.client.tries) < 600 / 5


def test_the_log_of_an_hour_without_a_service_is_short() -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=["503"]) as service:
        guest = Guest(service)
        guest.cure(3600)
        guest.boot()
    assert len([line for line in guest.told if "503" in line]) <= 60 + 1


def test_a_web_page_in_place_of_an_acknowledgement_is_not_the_last_word() -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=["state/html:3"]) as service:
        guest = Guest(service)
        receipt = guest.boot()
        assert service.state_detail == "booted"
    check(guest, receipt)
    assert receipt.confirmed
    assert receipt.tries == 4


def test_web_pages_are_never_taken_for_an_acknowledgement() -> None:
    with loopback(), Emulator(document=DOCUMENT, faults=["state/html"]) as service:
        guest = Guest(service)
        guest.cure(3000)
        receipt = guest.boot()
        assert service.state_detail == "booted"
    check(guest, receipt)
    assert receipt.confirmed
    assert guest.clock.now > 3000


# The whole process


def serving(url: str, directory: Path) -> tuple[str, ...]:
    return "-d", "--no-dns", "--url", url, "--run-dir", str(directory)


# Its memory

MEMORY = 64 * 1024  # KiB
# A child counts its parent's peak as its own until it runs another program, so a
# small process stands between this one and the agent. It does not wait until the
# agent gives up on the metadata.
MEASURE = """
import resource, subprocess, sys

with subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True) as agent:
    for line in agent.stderr:
        if ": metadata: " in line:
            print(line, end="")
            break
    agent.terminate()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(url: str, directory: Path) -> tuple[str, int]:
    """Run the agent; return what it says of the metadata, and its peak in KiB."""
    words = (str(BIN / "scw-signald"), *serving(url, directory))
    line, peak = subprocess.run(
        [sys.executable, "-I", "-c", MEASURE, *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout.splitlines()
    return line, int(peak)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("size", ["inf", "1e7"])
def test_a_huge_reply_does_not_fill_the_memory(tmp_path: Path, size: str) -> None:
    faults = [f"state/huge={size}:3", f"conf/huge={size}:1"]
    with Emulator(faults=faults) as service:
        line, peak = measured(service.url, tmp_path)
        assert service.state_detail == "booted"
    assert "the document is larger than 524288 bytes" in line
    assert peak < MEMORY


WIDE = "\U0001f421"


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("unit", "values", "name"),
    [
        pytest.param("x", 1, "v", id="one text"),
        pytest.param("x", 19_900, "v", id="many texts"),
        pytest.param("'" * 4000 + WIDE, 1, "v", id="one text of quotes"),
        pytest.param("'" * 4000 + WIDE, 64, "v", id="texts of quotes"),
        pytest.param("x" * 60 + WIDE, 19_900, "v", id="wide texts"),
        pytest.param("x", 19_900, "k" * 120, id="texts with long names"),
        pytest.param("x" * 4000 + WIDE + "\ud800", 64, "v", id="surrogates"),
    ],
)
def test_no_document_fills_the_memory(
    tmp_path: Path, unit: str, values: int, name: str
) -> None:
    document = document_of(unit, values, name)
    with RawService(document=reply(document)) as service:
        line, peak = measured(service.url, tmp_path)
    assert "metadata: stored" in line or "the document has" in line
    assert peak < MEMORY


def document_of(unit: str, values: int, name: str) -> bytes:
    """Return the largest allowed document, of texts made of `unit`.

    It is not escaped where UTF-8 can hold it: one wide character makes Python's
    copy of the whole document four times as large.
    """
    ascii_only = "\ud800" in unit
    size = len(json.dumps(unit, ensure_ascii=ascii_only).encode()) - 2
    each = (wire.DOCUMENT_LIMIT - 4096) // values - len('"", ')
    value = unit * (each // size) + "x" * (each % size)
    document = {name: value if values == 1 else [value] * values}
    return json.dumps(document, ensure_ascii=ascii_only).encode()


# Its end at any moment

DIE = """
import os, signal

name, left = os.environ["DIE_IN"].split()
left = int(left)
call = getattr(os, name)

def die(*arguments, **options):
    "Make the call, but die halfway through the last one in the run directory."
    global left
    if options or arguments[0] != 2:  # descriptor 2 is the log
        left -= 1
        if left == 0:
            if name == "write":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    return call(*arguments, **options)

setattr(os, name, die)
"""


def injected(directory: Path, code: str) -> dict[str, str]:
    """Return an environment in which Python first runs `code`."""
    directory.mkdir(exist_ok=True)
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(directory)}


def stored(directory: Path) -> dict[str, bytes]:
    """Return the files for readers, without the values that differ in each run."""
    found = {path.name: path.read_bytes() for path in directory.glob("[!.]*")}
    if "state" in found:
        found["state"] = re.sub(rb"(SECONDS|URL)=.*", rb"\1=", found["state"])
    return found


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_killed_while_it_writes_it_leaves_every_file_old_or_new(
    tmp_path: Path, call: str
) -> None:
    directory, env = tmp_path / "run", injected(tmp_path / "inject", DIE)
    old = left_behind(directory, {"name": "x" * 3000}, "404:1")
    new = left_behind(tmp_path / "new", {"name": "y" * 3000})
    with Emulator(document={"name": "y" * 3000}) as service:
        words = serving(service.url, directory)
        for number in range(1, 4):  # one for each file
            died = run("scw-signald", *words, env={**env, "DIE_IN": f"{call} {number}"})
            assert died.status == -signal.SIGKILL
            found = stored(directory)
            assert set(found) == FILES
            assert all(found[name] in {old[name], new[name]} for name in FILES)
        assert run("scw-signald", *words).status == 0
    assert stored(directory) == new


def left_behind(
    directory: Path, document: dict[str, object], *faults: str
) -> dict[str, bytes]:
    """Run the agent, and return what it leaves in `directory`."""
    with Emulator(document=document, faults=faults) as service:
        assert run("scw-signald", *serving(service.url, directory)).status == 0
    assert {path.name for path in directory.iterdir()} == FILES
    return stored(directory)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        pytest.param(["state/hang:1"], 1, id="the signal is under way"),
        pytest.param(["state/429-after=60:1"], 1, id="it backs off"),
        pytest.param(["conf/hang:1"], 2, id="the metadata are under way"),
        pytest.param(["conf/503:1"], 2, id="the metadata are not available"),
    ],
)
def test_killed_while_it_waits_for_the_service_it_starts_again(
    tmp_path: Path, faults: list[str], requests: int
) -> None:
    with Emulator(faults=faults) as service:
        words = serving(service.url, tmp_path)
        with start("scw-signald", *words) as process:
            assert service.wait_until(lambda: len(service.requests) == requests, 30)
            process.kill()
        assert set(stored(tmp_path)) == ({"state"} if requests == 2 else set())
        assert run("scw-signald", *words).status == 0
        assert service.state_detail == "booted"
    assert set(stored(tmp_path)) == FILES


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(
            ["--url", "http://169.254.42.42"], "waiting for a route", id="a route"
        ),
        pytest.param(["--url", "http://127.0.0.1:1"], "network: a route to", id="DNS"),
    ],
)
def test_killed_while_it_waits_for_the_network_it_starts_again(
    tmp_path: Path, words: list[str], line: str
) -> None:
    namespace = in_namespace("--net", script='ip link set lo up; exec "$@"')
    agent_ = (str(BIN / "scw-signald"), "-d", "--run-dir", str(tmp_path), *words)
    with subprocess.Popen(
        [*namespace, *agent_], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert line in process.stderr.readline()
        process.kill()
    assert stored(tmp_path) == {}
    with Emulator() as service:
        assert run("scw-signald", *serving(service.url, tmp_path)).status == 0
    assert set(stored(tmp_path)) == FILES


def in_namespace(*kinds: str, script: str) -> tuple[str, ...]:
    """Return words that run `script` in new namespaces; a command follows as "$@"."""
    words = ("unshare", *kinds) if os.getuid() == 0 else ("unshare", "-r", *kinds)
    try:
        subprocess.run([*words, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no namespace ({' '.join(kinds)}) can be made here")
    return *words, "sh", "-c", script, "sh"


# A full disk

# Mounts a disk of size $1 on $2, copies $3 to it, runs the command, and copies the
# disk to $4.
ON_A_SMALL_DISK = """
size=$1 directory=$2 before=$3 after=$4; shift 4
owner=$(id -u _scwsignal 2>/dev/null || echo 0)
mount -t tmpfs -o "size=$size,mode=755,uid=$owner" scw-signal "$directory" || exit
cp "$before"/* "$directory" || exit
"$@"
status=$?
cp -R "$directory/." "$after"
exit "$status"
"""


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("pages", [3, 4, 5, 7, 11])
def test_on_a_full_disk_the_signal_goes_out_and_every_file_is_old_or_new(
    tmp_path: Path, pages: int
) -> None:
    prefix = in_namespace("--mount", script=ON_A_SMALL_DISK)
    directory, before, after, elsewhere = (
        tmp_path / name for name in ("disk", "before", "after", "elsewhere")
    )
    directory.mkdir()
    after.mkdir()
    large: dict[str, object] = {"name": "y" * 9000}
    old = left_behind(before, {"name": "x"}, "404:1")
    new = left_behind(elsewhere, large)
    with Emulator(document=large) as service:
        size = pages * os.sysconf("SC_PAGE_SIZE")
        done = subprocess.run(
            [
                *prefix, str(size), directory, before, after,
                BIN / "scw-signald", *serving(service.url, directory),
            ],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert service.state_detail == "booted"
    found = stored(after)
    assert {path.name for path in after.iterdir()} == FILES
    assert all(found[name] in {old[name], new[name]} for name in FILES)
    assert (found == new) == ("No space left on device" not in done.stderr)
    assert done.stderr.count("No space left") <= 2  # for the state, and for the rest
    # A later file is not newer than one that did not fit.
    assert (found["state"] == new["state"]) == (pages > 3)


# The time of day

# ntpd(8) may set it at any moment of a boot, by a day or by thirty years.
NO_TIME_OF_DAY = """
import datetime, logging, time  # logging reads the clock once, when imported

def refuse(*_):
    raise AssertionError("something reads the time of day")

for name in ("time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime"):
    setattr(time, name, refuse)

class Refusing(datetime.datetime):
    now = utcnow = today = refuse

datetime.datetime = Refusing
"""

A_DAY_OFF = """
import itertools, time
true, days = time.time, itertools.cycle((-86400, 86400))
time.time = lambda: true() + next(days)
"""


@pytest.mark.usefixtures("commands")
def test_nothing_depends_on_the_time_of_day(tmp_path: Path) -> None:
    env = injected(tmp_path / "inject", NO_TIME_OF_DAY)
    directory = tmp_path / "run"
    faults = ["state/reset:1", "state/404:1", "state/429-date=1:1", "conf/404:1"]
    with Emulator(faults=faults) as service:
        words = serving(service.url, directory)
        agent_ = run("scw-signald", *words, "--deadline", "60", env=env)
        command = run("scw-signal-state", *words[2:4], "booted", env=env)
        live = run("scw-metadata", *words[2:4], "hostname", env=env)
    cached = run("scw-metadata", "--cached", *words[4:], "hostname", env=env)
    assert (agent_.status, command.status) == (0, 0), agent_.err
    assert live == cached == (0, "openbsd\n", "")


@pytest.mark.usefixtures("commands")
def test_the_check_up_reports_a_clock_that_is_a_day_off_and_nothing_else(
    tmp_path: Path,
) -> None:
    env = injected(tmp_path / "inject", A_DAY_OFF)
    with Emulator() as service:
        words = (*serving(service.url, tmp_path / "run")[2:], "--dns-name", "localhost")
        told = run("scw-signald", "-n", *words)
        told_a_day_off = run("scw-signald", "-n", *words, env=env)
    assert told.status == told_a_day_off.status == 0
    assert told_a_day_off.out.replace("warn clock", "ok   clock") != told_a_day_off.out
    others = [
        [line for line in each.out.splitlines()[:-1] if " clock" not in line]
        for each in (told, told_a_day_off)
    ]
    assert others[0] == others[1]
