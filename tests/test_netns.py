"""The agent on a real network: interfaces, routes, a router, the real addresses.

These tests do not measure the agent's speed. But they note figures for the table of
`make bench`: the seconds from the moment when the signal became possible to its
acknowledgement, and the requests and connections that it took.
"""

from __future__ import annotations

import functools
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import netns
from installed import BIN
from netns import GATEWAYS, SERVICE, Lab, NameServer
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from netns import Packet

pytestmark = pytest.mark.usefixtures("commands")

# Enough on a machine under load, but too little for an agent that waits by the clock.
PROMPT = 2.0  # seconds
QUIET = 3.0  # seconds in which nothing may be sent: more than a poll or a try
LONG = 60.0  # seconds after which a test that hangs fails
CONNECTING = 3.0  # seconds until the agent tries the next address
# Seconds for an unlucky agent: a try without a reply takes 30, and the next may come a
# minute later.
UNLUCKY = 900.0
CHANGES = 250  # of the network


@pytest.fixture
def lab() -> Iterator[Lab]:
    reason = _missing()
    if reason:
        pytest.skip(reason)
    with Lab() as lab:
        yield lab


@pytest.fixture
def quiet(soaking: bool) -> float:  # noqa: FBT001 - a fixture's value
    """Return for how many seconds nothing may happen: a minute in `make soak`."""
    return 60.0 if soaking else QUIET


@functools.cache
def _missing() -> str:
    return netns.missing()


class Boot:
    """A boot of the guest: the agent in it, and the service that waits for it."""

    def __init__(
        self, lab: Lab, directory: Path, note: Callable[[str, object], None]
    ) -> None:
        self._lab = lab
        self._directory = directory
        self._note = note
        self._stack = ExitStack()
        self._emulators: dict[int, Emulator] = {}
        self._lines: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()

    def close(self) -> None:
        self._stack.close()

    def serve(self, *versions: int) -> float:
        """Start the service, and return the moment just before."""
        before = time.monotonic()
        with self._lab.service.entered():
            for version in versions:
                emulator = Emulator(host=SERVICE[version], port=netns.HTTP)
                self._emulators[version] = self._stack.enter_context(emulator)
        return before

    def resolve(self, manner: str) -> NameServer:
        """Start the name server that the guest is configured to ask."""
        with self._lab.router.entered():
            return self._stack.enter_context(NameServer(GATEWAYS[4], manner))

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> None:
        """Start the agent, which looks for the service at its real addresses."""
        agent = subprocess.Popen(
            self._lab.guest.command(
                *(BIN / "scw-signald", "-d", "--run-dir", self._directory), *words
            ),
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **(env or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._agent = agent

        def read() -> None:
            assert agent.stderr is not None
            with agent.stderr:
                for line in agent.stderr:
                    self._lines.put((time.monotonic(), line.rstrip()))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for end in (reader.join, agent.wait, agent.kill):  # called in reverse order
            self._stack.callback(end)

    def logged(self, text: str, patience: float = LONG) -> tuple[float, str]:
        """Wait for a line of the log with `text`; return its moment and the line."""
        while True:
            moment, line = self._lines.get(timeout=patience)
            if text in line:
                return moment, line

    def acknowledged(self, possible: float, patience: float = LONG) -> float:
        """Wait for the acknowledgement; return the seconds since it was possible."""
        moment, _ = self.logged(" acknowledged by ", patience)
        sent = self._lab.wire.sent()
        self._note("seconds", f"{moment - possible:.3f}")
        self._note("requests", sum(self.signals().values()))
        self._note("connections", sum(packet.syn for packet in sent))
        return moment - possible

    def stop(self) -> None:
        """Send the agent SIGTERM."""
        self._agent.terminate()

    def ends(self) -> int:
        """Wait for the agent's end; return its status."""
        return self._agent.wait(LONG)

    def signals(self) -> dict[int, int]:
        """Return how many signals the service got, by IP version."""
        return {
            version: sum(request.method == "PATCH" for request in emulator.requests)
            for version, emulator in self._emulators.items()
        }


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Return a function that notes a figure in the report of --junit-xml.

    It is record_property without its warning, which would be an error here.
    """
    properties = request.node.user_properties
    return lambda name, value: properties.append((name, value))


@pytest.fixture
def boot(
    lab: Lab, tmp_path: Path, note: Callable[[str, object], None]
) -> Iterator[Boot]:
    boot = Boot(lab, tmp_path, note)
    yield boot
    boot.close()


def receivers(packets: list[Packet]) -> set[tuple[str, int]]:
    """Return the addresses and ports that packets went to."""
    return {(packet.destination, packet.port) for packet in packets}


HTTP4, HTTP6 = (SERVICE[4], netns.HTTP), (SERVICE[6], netns.HTTP)
RESOLVER = (GATEWAYS[4], netns.DNS)


def test_a_link_that_comes_up_late_gets_the_signal_out_at_once(
    lab: Lab, boot: Boot, quiet: float
) -> None:
    boot.serve(4)
    boot.start("--no-dns")
    boot.logged("waiting for a route")
    assert lab.wire.await_sent(1, quiet) == []
    assert boot.acknowledged(lab.connect(4)) < PROMPT
    assert boot.ends() == 0
    assert boot.signals() == {4: 1}
    assert receivers(lab.wire.sent()) == {HTTP4}


def test_a_cable_that_is_plugged_in_late_gets_the_signal_out_with_the_next_syn(
    lab: Lab, boot: Boot
) -> None:
    # The routes exist all the time, so only a try can find the service.
    boot.serve(4)
    lab.connect(4)
    lab.wire.plug(into=False)
    boot.start("--no-dns")
    boot.logged("signal: ")
    assert lab.wire.sent() == []
    plugged = time.monotonic()
    lab.wire.plug(into=True)
    assert boot.acknowledged(plugged) < CONNECTING + PROMPT
    assert boot.ends() == 0
    assert boot.signals() == {4: 1}


def test_an_address_alone_is_no_route(lab: Lab, boot: Boot, quiet: float) -> None:
    boot.serve(4)
    boot.start("--no-dns")
    boot.logged("waiting for a route")
    lab.link(up=True)
    lab.address(4)
    assert lab.wire.await_sent(1, quiet) == []
    assert boot.acknowledged(lab.route(4)) < PROMPT
    assert boot.signals() == {4: 1}


def test_a_route_that_comes_back_cuts_a_back_off_short(lab: Lab, boot: Boot) -> None:
    lab.connect(4)
    boot.start("--no-dns")
    boot.logged("Connection refused")
    change_until_tried(lab, 7)  # from here on a back-off takes at least 2.7 s
    lab.unroute(4)
    boot.logged("Network is unreachable")
    boot.serve(4)
    # Far less than the back-off.
    assert boot.acknowledged(lab.route(4)) < 1
    assert boot.signals() == {4: 1}


def test_a_network_that_never_rests_makes_no_storm(lab: Lab, boot: Boot) -> None:
    lab.connect(4)
    boot.start("--no-dns")
    boot.logged("Connection refused")
    for number in range(CHANGES):
        change(lab, number)
    # An eighth of a back-off remains: seven tries take two seconds.
    assert 2 <= len(lab.wire.sent()) <= CHANGES / 10


def test_ipv4_in_a_black_hole_gives_way_to_ipv6(lab: Lab, boot: Boot) -> None:
    boot.serve(4, 6)
    lab.wire.swallow(lambda packet: packet.version == 4)
    possible = lab.connect(4, 6)
    boot.start("--no-dns")
    assert boot.acknowledged(possible) < CONNECTING + PROMPT
    boot.ends()
    assert boot.signals() == {4: 0, 6: 1}
    assert receivers(lab.wire.sent()) == {HTTP4, HTTP6}


def test_a_route_into_a_black_hole_is_none(lab: Lab, boot: Boot) -> None:
    boot.serve(4, 6)
    possible = lab.connect(4, 6)
    lab.guest.ip(f"route add blackhole {SERVICE[4]}")
    boot.start("--no-dns")
    assert boot.acknowledged(possible) < PROMPT
    boot.ends()
    assert receivers(lab.wire.sent()) == {HTTP6}


def test_ipv6_in_a_black_hole_is_not_even_noticed(lab: Lab, boot: Boot) -> None:
    boot.serve(4, 6)
    lab.wire.swallow(lambda packet: packet.version == 6)
    possible = lab.connect(4, 6)
    boot.start("--no-dns")
    assert boot.acknowledged(possible) < PROMPT
    boot.ends()
    assert boot.signals() == {4: 1, 6: 0}
    assert receivers(lab.wire.sent()) == {HTTP4}


def test_ipv6_alone_is_enough(lab: Lab, boot: Boot) -> None:
    boot.serve(4, 6)
    boot.start("--no-dns")
    boot.logged("waiting for a route")
    assert boot.acknowledged(lab.connect(6)) < PROMPT
    boot.ends()
    assert boot.signals() == {4: 0, 6: 1}
    assert receivers(lab.wire.sent()) == {HTTP6}


def test_a_name_server_that_answers_holds_nothing_up(lab: Lab, boot: Boot) -> None:
    boot.serve(4)
    boot.resolve("answers")
    boot.start()
    boot.logged("waiting for a route")
    assert boot.acknowledged(lab.connect(4)) < PROMPT
    boot.ends()
    assert boot.signals() == {4: 1}
    assert receivers(lab.wire.sent()) == {RESOLVER, HTTP4}


@pytest.mark.parametrize("manner", ["silent", "fails"])
def test_a_name_server_that_never_answers_holds_the_signal_up_to_the_bound_only(
    lab: Lab, boot: Boot, manner: str
) -> None:
    boot.serve(4)
    server = boot.resolve(manner)
    boot.start("--dns-timeout", "2")
    boot.logged("waiting for a route")
    seconds = boot.acknowledged(lab.connect(4))
    assert 2 <= seconds < 2 + PROMPT
    assert boot.ends() == 0
    assert boot.signals() == {4: 1}
    # Questions at 0, 0.1, 0.3, 0.7 and 1.5 s; each for both kinds of address, twice.
    assert 2 <= server.await_questions(0, 0) <= 5 * 2 * 2


def test_a_name_server_that_comes_late_ends_the_wait_for_it(
    lab: Lab, boot: Boot, quiet: float
) -> None:
    boot.serve(4)
    server = boot.resolve("silent")
    lab.connect(4)
    boot.start("--dns-timeout", f"{quiet + LONG:g}")
    assert server.await_questions(1, LONG)
    assert [p for p in lab.wire.await_sent(999, quiet) if p.protocol == "tcp"] == []
    answers = time.monotonic()
    server.behave("answers")
    # The agent asks every five seconds, even while it waits for an earlier answer.
    assert boot.acknowledged(answers) < 5 - quiet % 5 + PROMPT
    assert boot.signals() == {4: 1}


def test_a_service_by_name_does_not_keep_an_agent_from_being_stopped(
    lab: Lab, boot: Boot
) -> None:
    server = boot.resolve("silent")
    lab.connect(4)
    boot.start("--no-dns", "--url", "http://metadata.example.org")
    assert server.await_questions(1, LONG)
    before = time.monotonic()
    boot.stop()
    assert boot.ends() == -signal.SIGTERM
    assert time.monotonic() - before < PROMPT


def test_a_service_by_name_does_not_hold_a_command_up_beyond_its_time(
    lab: Lab, boot: Boot
) -> None:
    boot.resolve("silent")
    lab.connect(4)
    words = ("--timeout", "1.5", "--url", "http://metadata.example.org", "booted")
    before = time.monotonic()
    done = subprocess.run(
        lab.guest.command(BIN / "scw-signal-state", *words),
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert time.monotonic() - before < 1.5 + PROMPT
    assert done.returncode == 1
    assert "metadata.example.org: no answer in time" in done.stderr


@pytest.mark.timeout(UNLUCKY)
def test_loss_of_30_percent_and_half_a_second_of_delay_are_overcome(
    lab: Lab, boot: Boot
) -> None:
    boot.serve(4)
    lab.wire.worsen(delay=0.25, loss=0.3, seed=1)  # each way
    possible = lab.connect(4)
    boot.start("--no-dns")
    assert boot.acknowledged(possible, UNLUCKY) < UNLUCKY
    assert boot.signals()[4] >= 1  # more, if a reply was lost
    assert receivers(lab.wire.sent()) == {HTTP4}


def test_a_service_that_comes_up_after_the_guest_gets_one_request(
    lab: Lab, boot: Boot
) -> None:
    lab.connect(4)
    boot.start("--no-dns")
    assert len(lab.wire.await_sent(3, LONG)) >= 3
    # The second try came within 2 s and the third within 6, so the fourth comes at most
    # 8 s after that.
    assert boot.acknowledged(boot.serve(4)) < 8 + PROMPT
    assert boot.signals() == {4: 1}


def test_proxies_in_the_environment_are_not_asked(lab: Lab, boot: Boot) -> None:
    boot.serve(4)
    proxy = f"http://{GATEWAYS[4]}:3128"
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")
    possible = lab.connect(4)
    boot.start("--no-dns", env=dict.fromkeys(names, proxy))
    assert boot.acknowledged(possible) < PROMPT
    boot.ends()
    assert receivers(lab.wire.sent()) == {HTTP4}


@pytest.mark.parametrize("answer", ["nothing", "unreachable"])
def test_on_another_cloud_there_is_no_storm(
    lab: Lab, boot: Boot, note: Callable[[str, object], None], answer: str
) -> None:
    if answer == "unreachable":
        lab.router.ip(f"route replace unreachable {SERVICE[4]}")
    else:
        lab.wire.swallow(lambda packet: packet.destination == SERVICE[4])
    lab.connect(4)
    boot.start("--no-dns")
    # At most three tries begin within 5 s, and the kernel sends a SYN at most twice in
    # the 3 s of each.
    sent = lab.wire.await_sent(7, 5)
    note("connections", len(sent))
    assert 2 <= len(sent) <= 6
    assert receivers(sent) == {HTTP4}
    assert all(packet.syn for packet in sent)


def test_what_a_killed_run_left_behind_is_cleared_by_the_next(lab: Lab) -> None:
    assert lab.guest.name in netns.listed()
    code = (
        "import netns, os; print(netns.Namespace('old').name, flush=True); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(netns.__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    left = done.stdout.strip()
    assert left in netns.listed()
    with Lab(wired=False) as other:
        assert left not in netns.listed()
        assert lab.guest.name in netns.listed()
    assert other.guest.name not in netns.listed()


def change(lab: Lab, number: int) -> None:
    """Give the guest another address, from a range that is for documentation."""
    lab.guest.ip(f"addr add 192.0.2.{number}/32 dev lo")


def change_until_tried(lab: Lab, tries: int) -> None:
    """Change the guest's network until the agent has made `tries` tries.

    A change cuts a back-off short, but not if it comes during a try. So it takes more
    changes than tries.
    """
    for number in range(CHANGES):
        change(lab, number)
        if len(lab.wire.await_sent(tries, 0.05)) >= tries:
            return
    pytest.fail("changes do not cut back-offs short")
