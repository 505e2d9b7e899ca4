"""The service under rcctl(8), on OpenBSD only."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..claim import OPENBSD, claim, expect
from ..lab import HOSTNAME, STOP_SECONDS, milliseconds
from ..openbsd import PYTHON, SERVICE_NAME
from ..process import Process, run
from ..system import RUN_DIRECTORY, SERVICE, USER

if TYPE_CHECKING:
    from ..lab import Lab
    from ..openbsd import OpenBSD

START_SECONDS = 15.0  # for rcctl(8) itself, on an emulated machine


def _started(lab: Lab, *flags: str, user: str = USER) -> int:
    """Start the service; return its process ID."""
    machine = lab.openbsd
    machine.configure(*flags, user=user)
    lab.note(f"rcctl start, with {' '.join(flags)}")
    done = machine.rcctl("start", SERVICE_NAME)
    expect("(ok)" in done.out, done.out)
    expect(done.seconds < START_SECONDS, f"start took {done.seconds:.1f} s")
    lab.until(lambda: machine.agents(machine.rdomain), "there is no agent")
    return machine.agents(machine.rdomain)[0]


def _signalled(lab: Lab) -> None:
    machine = lab.openbsd
    lab.until((lab.run_directory / "state").exists, "there is no state file")
    lab.until(lambda: not machine.agents(machine.rdomain), "the agent still runs")


def _stopped(lab: Lab, agent: int) -> str:
    """Stop the service; return how soon the agent had ended.

    rcctl(8) needs some time before it sends SIGTERM: at most as long as a check.
    """
    machine = lab.openbsd
    own = machine.rcctl("check", SERVICE_NAME).seconds
    before = lab.note("rcctl stop")
    stop = Process(lab.transcript, "rcctl", ["rcctl", "stop", SERVICE_NAME])
    while _alive(agent):
        expect(time.monotonic() - before < START_SECONDS, "the agent does not end")
        time.sleep(0.005)
    seconds = time.monotonic() - before
    expect(stop.end() == 0, "rcctl failed")
    expect(stop.lines("\\(ok\\)"), "rcctl had to kill it")
    expect(seconds < own + STOP_SECONDS, f"it took {seconds:.3f} s, of them {own:.3f}")
    return f"{milliseconds(seconds)}, of which rcctl takes up to {milliseconds(own)}"


def _alive(number: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


def _is(machine: OpenBSD, *, running: bool) -> None:
    """Compare the service with `rcctl check` and `rcctl ls failed`."""
    word = "(ok)" if running else "(failed)"
    done = machine.rcctl("check", SERVICE_NAME, status=int(not running))
    expect(word in done.out, done.out)
    expect(machine.fails() is not running, f"rcctl ls failed: {machine.fails()}")


@claim("check, start and ls failed, before, during and after the work", only=OPENBSD)
def service_life(lab: Lab) -> None:
    machine = lab.openbsd
    machine.configure("--no-dns")
    _is(machine, running=False)
    agent = _started(lab, "--no-dns")
    _is(machine, running=True)
    machine.rcctl("start", SERVICE_NAME)
    expect(machine.agents(machine.rdomain) == [agent], "it was started twice")
    service = lab.emulator()
    machine.connect(4)
    _signalled(lab)
    _is(machine, running=True)
    machine.rcctl("start", SERVICE_NAME)
    expect(not machine.agents(machine.rdomain), "it was started again")
    expect(len(service.signals()) == 1, "it signalled more than once")
    machine.rcctl("stop", SERVICE_NAME)
    _is(machine, running=False)


@claim("the agent of the service is _scwsignal's", only=OPENBSD)
def service_user(lab: Lab) -> None:
    agent = _started(lab, "--no-dns")
    user = run(["ps", "-o", "user=", "-p", str(agent)], check=True).out.strip()
    expect(USER.startswith(user), f"it runs as {user}")


@claim("restart signals again", only=OPENBSD)
def service_restart(lab: Lab) -> None:
    service = lab.emulator()
    lab.system.connect(4)
    lab.openbsd.configure("--no-dns")
    lab.openbsd.rcctl("start", SERVICE_NAME)
    service.taken()
    _signalled(lab)
    lab.openbsd.rcctl("restart", SERVICE_NAME)
    service.taken(2)
    _signalled(lab)


@claim("an agent that gave up is failed", only=OPENBSD)
def service_deadline(lab: Lab) -> None:
    lab.system.connect(4)
    machine = lab.openbsd
    machine.configure("--no-dns", "--deadline", "2")
    machine.rcctl("start", SERVICE_NAME)
    lab.until(lambda: not machine.agents(machine.rdomain), "the agent still runs")
    _is(machine, running=False)


@claim("rcctl stop while it waits for a route", only=OPENBSD)
def service_stop_route(lab: Lab) -> str:
    return _stopped(lab, _started(lab))


@claim("rcctl stop while it waits for DNS, with a look-up under way", only=OPENBSD)
def service_stop_dns(lab: Lab) -> str:
    dns = lab.name_server("silent")
    lab.system.connect(4)
    agent = _started(lab, "--dns-timeout", "120")
    dns.line("question")
    return _stopped(lab, agent)


@claim("rcctl stop in the pause after a failure", only=OPENBSD)
def service_stop_pause(lab: Lab) -> str:
    service = lab.faulty("state/429-after=60")
    lab.system.connect(4)
    agent = _started(lab, "--no-dns")
    service.line("fault=429")
    return _stopped(lab, agent)


@claim("flags with brackets: the service by its IPv6 address", only=OPENBSD)
def service_brackets(lab: Lab) -> None:
    _started(lab, "--no-dns", "--url", f"http://[{SERVICE[6]}]")
    _is(lab.openbsd, running=True)
    service = lab.emulator(at=SERVICE[6])
    lab.system.connect(6)
    service.taken()
    _signalled(lab)


@claim("flags with quotes: check finds the agent, and stop ends it", only=OPENBSD)
def service_quotes(lab: Lab) -> str:
    agent = _started(lab, "--dns-name", "'a b'")
    _is(lab.openbsd, running=True)
    return _stopped(lab, agent)


@claim("stop ends the agent of its own routing table alone", only=OPENBSD)
def service_rtable(lab: Lab) -> None:
    machine = lab.openbsd
    flags = ("--no-dns", "--url", "http://127.0.0.1:1")
    # In the machine's own routing table, nothing listens on that loopback port.
    words = [PYTHON, "-I", "/usr/local/bin/scw-signald", *flags]
    other = Process(lab.transcript, "other", words, user=USER)
    try:
        lab.until(lambda: other.pid in machine.agents(0), "it does not run in table 0")
        agent = _started(lab, *flags)
        expect(agent != other.pid, "it is the same process")
        _stopped(lab, agent)
        expect(other.running(), "the other one was ended as well")
    finally:
        other.stop(signal.SIGTERM)
        other.close()


@claim("the service as root, with --set-hostname: the host name is set", only=OPENBSD)
def service_root(lab: Lab) -> None:
    machine = lab.openbsd
    machine.keep_hostname()
    service = lab.emulator()
    machine.connect(4)
    machine.configure("--no-dns", "--set-hostname", user="root")
    machine.rcctl("start", SERVICE_NAME)
    service.taken()
    _signalled(lab)
    expect(os.uname().nodename == HOSTNAME, f"it is {os.uname().nodename}")
    expect(Path(RUN_DIRECTORY).owner() == USER, f"{RUN_DIRECTORY} is not {USER}'s")
