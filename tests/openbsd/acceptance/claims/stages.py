"""A boot, stage by stage: the route, DNS, and the signal by either address."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..claim import claim, expect
from ..lab import RESOLV_CONF, milliseconds
from ..system import SERVICE, USER

if TYPE_CHECKING:
    from ..lab import Agent, Lab

PROMPT = 2.0  # seconds from the route to the signal, on a slow machine as well
QUIET = 0.5  # seconds in which nothing may happen


def _acknowledged_after_route(lab: Lab, agent: Agent, version: int) -> str:
    """Give the guest its route; return how soon the signal follows."""
    service = lab.emulator(at=SERVICE[version])
    lab.system.address(version)
    agent.waits_for_route()
    before = lab.note("a default route")
    lab.system.route(version)
    after = time.monotonic()
    signalled = service.taken().moment
    agent.signalled()
    expect(signalled - before < PROMPT, f"it took {signalled - before:.3f} s")
    route, whole = milliseconds(after - before), milliseconds(signalled - before)
    return f"{whole} after the route was asked for, which took {route}"


@claim("root: without a route it waits, and with one the signal goes out at once")
def route_late(lab: Lab) -> str:
    figure = _acknowledged_after_route(lab, lab.agent("--no-dns"), 4)
    state = lab.state()
    expect("STATE_DETAIL=booted\nCONFIRMED=True\n" in state, state)
    return figure


@claim("root becomes _scwsignal, and its files are that user's")
def root_becomes_user(lab: Lab) -> None:
    agent = lab.agent("--no-dns")
    agent.line(f"going on as {USER}")
    agent.waits_for_route()
    lab.emulator()
    lab.system.connect(4)
    agent.signalled()
    owners = {path.owner() for path in lab.run_directory.iterdir()}
    expect(owners == {USER}, f"the files belong to {owners}")


@claim("_scwsignal: without a route it waits, and with one the signal goes out at once")
def route_late_user(lab: Lab) -> str:
    lab.run_dir_for(USER)
    figure = _acknowledged_after_route(lab, lab.agent("--no-dns", user=USER), 4)
    expect("CONFIRMED=True" in lab.state(), lab.state())
    return figure


@claim("changes of the network without a route do not end the wait for one")
def unrelated_events(lab: Lab) -> None:
    service = lab.emulator()
    agent = lab.agent("--no-dns")
    agent.waits_for_route()
    lab.note("an address, and a route elsewhere")
    lab.system.address(4)
    lab.system.unrelated()
    lab.transcript.wait(lambda: agent.lines("a route to"), QUIET)
    expect(agent.running(), "the agent has ended")
    expect(not agent.lines("a route to") and not service.signals(), "it signalled")
    before = lab.note("a default route")
    lab.system.route(4)
    late = service.taken().moment - before
    expect(late < PROMPT, f"it took {late:.3f} s")


@claim("a route that comes back after a failure ends the pause before the next try")
def route_back(lab: Lab) -> str:
    service = lab.faulty("state/404:2")
    lab.system.connect(4)
    agent = lab.agent("--no-dns")
    service.line("fault=404", 2)
    lab.note("no default route any more")
    lab.system.unroute(4)
    # A change shortens the pause to an eighth. The next pause has no route throughout.
    text = agent.line("(unreachable|No route to host).*the next in").text
    pause = float(text.rpartition("the next in ")[2].split()[0])
    before = lab.note("a default route")
    lab.system.route(4)
    late = service.taken().moment - before
    expect(late < pause / 8, f"it took {late:.3f} s of a pause of {pause} s")
    return f"{milliseconds(late)}, and not {pause} s"


@claim("a server with IPv6 only signals by IPv6")
def ipv6_only(lab: Lab) -> str:
    return _acknowledged_after_route(lab, lab.agent("--no-dns"), 6)


@claim("if IPv4 ends in a black hole, the signal goes out by IPv6")
def black_hole(lab: Lab) -> None:
    service = lab.emulator(at=SERVICE[6])
    lab.system.black_hole()
    lab.system.connect(4, 6)
    lab.agent("--no-dns").signalled()
    expect(len(service.signals()) == 1, "it came more than once")


@claim("without a resolv.conf(5) it waits, and continues as soon as there is one")
def resolv_conf_late(lab: Lab) -> str:
    service = lab.emulator()
    lab.name_server("answers")
    lab.system.resolve_with(None)
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "120")
    agent.line("dns: waiting for an answer")
    lab.transcript.wait(agent.lines_of("dns: answered"), 3 * QUIET)
    expect(not agent.lines("dns: answered"), "it took no resolv.conf for an answer")
    expect(not service.signals(), "it signalled without waiting")
    before = lab.note("a resolv.conf")
    lab.system.resolve_with(RESOLV_CONF)
    late = agent.line("dns: answered").moment - before
    agent.signalled()
    expect(0 < late < 8, f"it took {late:.3f} s")
    return milliseconds(late)


@claim("a name server that answers does not delay the signal")
def name_server_answers(lab: Lab) -> None:
    lab.emulator()
    dns = lab.name_server("answers")
    lab.system.connect(4)
    agent = lab.agent()
    agent.line("dns: answered")
    agent.signalled()
    expect(dns.lines("question scaleway.com"), "it was not asked")


def _held_up_to_the_bound(lab: Lab) -> None:
    service = lab.emulator()
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "2")
    asked = agent.line("dns: waiting for an answer").moment
    agent.line("dns: no answer in 2.* s; signalling without it")
    waited = service.taken().moment - asked
    agent.signalled()
    expect(2 - 0.2 < waited < 2 + PROMPT, f"it waited {waited:.3f} s")


@claim("a dead name server delays the signal by --dns-timeout, and no longer")
def name_server_dead(lab: Lab) -> None:
    dns = lab.name_server("silent")
    _held_up_to_the_bound(lab)
    expect(dns.lines("question"), "it was not asked")


@claim("a name server that refuses delays the signal by --dns-timeout, and no longer")
def name_server_refuses(lab: Lab) -> None:
    dns = lab.name_server("refuses")
    _held_up_to_the_bound(lab)
    expect(dns.lines("question"), "it was not asked")


@claim("a name server that comes late ends the wait for it")
def name_server_late(lab: Lab) -> str:
    service = lab.emulator()
    lab.system.resolve_with(RESOLV_CONF)
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "120")
    agent.line("dns: waiting for an answer")
    lab.transcript.wait(agent.lines_of("dns: answered"), 3 * QUIET)
    expect(not service.signals(), "it signalled without waiting")
    before = lab.name_server("answers").line("^ready").moment
    late = agent.line("dns: answered").moment - before
    agent.signalled()
    expect(0 < late < 8, f"it took {late:.3f} s")
    return milliseconds(late)


@claim("a service by name is looked up, and gets the signal")
def service_by_name(lab: Lab) -> None:
    lab.emulator()
    dns = lab.name_server("answers")
    lab.system.connect(4)
    agent = lab.agent("--no-dns", "--url", "http://metadata.example.org")
    agent.signalled()
    expect(dns.lines("question metadata.example.org A"), "its name was not asked for")
    expect("metadata.example.org" in lab.state(), lab.state())
