"""SIGTERM and SIGINT end the agent within a second, whatever it waits for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from ..claim import claim, expect
from ..lab import STOP_SECONDS, gone, milliseconds
from ..system import SERVICE

if TYPE_CHECKING:
    from ..lab import Lab

BY_NAME = ("--url", "http://metadata.example.org")


@claim("SIGTERM while it waits for a route")
def stop_route(lab: Lab) -> str:
    agent = lab.agent()
    agent.waits_for_route()
    return agent.stops()


@claim("SIGINT while it waits for a route")
def stop_route_int(lab: Lab) -> str:
    agent = lab.agent()
    agent.waits_for_route()
    return agent.stops(signal.SIGINT)


@claim("SIGTERM while it waits for DNS, with a look-up under way")
def stop_dns(lab: Lab) -> str:
    dns = lab.name_server("silent")
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "120")
    dns.line("question")
    return agent.stops()


@claim("SIGTERM while it waits for the name of the service")
def stop_look_up(lab: Lab) -> str:
    dns = lab.name_server("silent")
    lab.system.connect(4)
    agent = lab.agent("--no-dns", *BY_NAME)
    dns.line("question metadata.example.org")
    return agent.stops()


@claim("SIGTERM while it waits for a connection")
def stop_connection(lab: Lab) -> str:
    lab.system.black_hole()
    lab.system.connect(4)
    agent = lab.agent("--no-dns", "--url", f"http://{SERVICE[4]}")
    agent.line("network: a route to")
    lab.transcript.wait(agent.lines_of("signal:"), 0.5)
    return agent.stops()


@claim("SIGTERM while it waits for a reply, with a look-up under way")
def stop_exchange(lab: Lab) -> str:
    dns = lab.name_server("silent")
    service = lab.faulty("state/hang")
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "1")
    dns.line("question")
    service.line("fault=hang")
    return agent.stops()


@claim("SIGTERM in the pause after a failure, with a look-up under way")
def stop_pause(lab: Lab) -> str:
    dns = lab.name_server("silent")
    lab.faulty("state/429-after=60")
    lab.system.connect(4)
    agent = lab.agent("--dns-timeout", "1")
    dns.line("question")
    agent.line("429 .try 1; the next in")
    return agent.stops()


@claim("SIGTERM while it waits for the metadata")
def stop_metadata(lab: Lab) -> str:
    service = lab.faulty("conf/hang")
    lab.system.connect(4)
    agent = lab.agent("--no-dns")
    service.line("GET /conf.*fault=hang")
    return agent.stops()


@claim("SIGTERM while a script runs ends both processes, and the script")
def stop_script(lab: Lab) -> str:
    script = b'#!/bin/sh\necho "script $$"\nsleep 300 & wait\n'
    lab.emulator(user_data={"cloud-init": script})
    lab.system.connect(4)
    agent = lab.agent("--no-dns", "--run-user-data")
    number = int(agent.line("^script ").text.split()[1])
    figure = agent.stops()
    lab.until(lambda: gone(number), "the script still runs")
    return figure


@claim("SIGINT ends a command that waits for the name of the service")
def stop_command(lab: Lab) -> str:
    dns = lab.name_server("silent")
    lab.system.connect(4)
    command = lab.watched("command", "scw-metadata", *BY_NAME, "hostname")
    dns.line("question metadata.example.org")
    seconds = command.stop(signal.SIGINT)
    expect(seconds < STOP_SECONDS, f"it took {seconds:.3f} s to end")
    return milliseconds(seconds)
