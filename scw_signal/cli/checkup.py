"""What is wrong with my server? Checks everything that the signal needs.

It sends no signal, changes nothing and does not need root. Each check takes at most
CHECK_SECONDS and reports its result in one line.
"""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
import textwrap
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scw_signal import document, wire
from scw_signal.cli import volume
from scw_signal.errors import BrokenOffError, ScwSignalError
from scw_signal.network import source_address
from scw_signal.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scw_signal.document import Node
    from scw_signal.resolver import Resolver
    from scw_signal.transport import Service
    from scw_signal.wire import Address, Endpoint, Reply

CHECK_SECONDS = 3.0
CLOCK_SECONDS = 60.0  # a clock that differs more than this gets a warning
# A Date header has whole seconds (RFC 9110, section 5.6.7), and a reply takes a moment:
# a smaller difference says nothing.
DATE_SECONDS = 2.0
OK, WARN, FAIL = "ok", "warn", "FAIL"
COLUMNS = 80
_INDENT = 14  # columns before the text of a finding
NO_ANSWER = "no-answer"

VENDOR = "Scaleway"


class System(NamedTuple):
    """The commands for one system, and the names that the advice uses."""

    vendor: tuple[str, ...]  # prints the vendor of the machine
    route: tuple[str, ...]  # followed by an address, prints the route to it
    interface: str  # the word before the interface in that output
    enabled: tuple[str, ...]  # succeeds if the service is enabled
    enable: str  # enables it
    scripts: tuple[str, ...]  # if the service is installed, one of them exists
    printing: str = ""  # if `enabled` always succeeds: the line it then prints
    network: str = ""  # the manual page about configuring an interface
    firewall: str = "its firewall"
    power: tuple[str, ...] = ()  # prints 1 if a power-off shuts the system down


_DMI = ("cat", "/sys/class/dmi/id/sys_vendor")
_IP = ("ip", "route", "get")
_ROUTE = ("route", "-n", "get")  # of every BSD

SYSTEMS = {
    "openbsd": System(
        vendor=("sysctl", "-n", "hw.vendor"),
        route=_ROUTE,
        interface="interface:",
        enabled=("rcctl", "get", "scw_signal", "status"),
        enable="rcctl enable scw_signal",
        scripts=("etc/rc.d/scw_signal",),
        network="hostname.if(5)",
        firewall="pf(4)",
        power=("sysctl", "-n", "machdep.pwraction"),
    ),
    "freebsd": System(
        vendor=("kenv", "-q", "smbios.system.maker"),
        route=_ROUTE,
        interface="interface:",
        enabled=("service", "scw_signal", "enabled"),
        enable="sysrc scw_signal_enable=YES",
        scripts=("usr/local/etc/rc.d/scw_signal",),
        network="rc.conf(5)",
    ),
    "netbsd": System(
        vendor=("sysctl", "-n", "machdep.dmi.system-vendor"),
        route=_ROUTE,
        interface="interface:",
        # rc.conf(5) is a script and not the only place, so it is not parsed here.
        enabled=("/etc/rc.d/scw_signal", "rcvar"),
        printing=r"\$?scw_signal=YES",
        enable="echo scw_signal=YES >>/etc/rc.conf",
        scripts=("etc/rc.d/scw_signal",),
        network="ifconfig.if(5)",
    ),
    "openrc": System(
        vendor=_DMI,
        route=_IP,
        interface="dev",
        enabled=("rc-update", "show", "default"),
        printing=r"\s*scw_signal \|.*",
        enable="rc-update add scw_signal default",
        scripts=("etc/init.d/scw_signal",),
    ),
    "systemd": System(
        vendor=_DMI,
        route=_IP,
        interface="dev",
        enabled=("systemctl", "is-enabled", "--quiet", "scw-signal"),
        enable="systemctl enable scw-signal",
        scripts=tuple(
            f"{place}/systemd/system/scw-signal.service"
            for place in ("etc", "usr/local/lib", "usr/lib", "lib")
        ),
    ),
}


def this_system(root: str = "/") -> System:
    """Return the current system; an unknown one counts as systemd.

    Linux systems are distinguished as packaging/install does.
    """
    for name in ("openbsd", "freebsd", "netbsd"):
        if sys.platform.startswith(name):
            return SYSTEMS[name]
    openrc = Path(root, "sbin/openrc-run").exists()
    systemd = Path(root, "run/systemd/system").is_dir()
    return SYSTEMS["openrc" if openrc and not systemd else "systemd"]


class Finding(NamedTuple):
    """The result of one check: its name, ok, warn or FAIL, and a line of text."""

    check: str
    verdict: str
    text: str
    facts: tuple[tuple[str, str], ...] = ()  # about the service: names and values
    word: str = ""  # names the failure, if the name of the check is too general

    def line(self) -> str:
        """Return it for people, in lines of at most COLUMNS."""
        start = f"{self.verdict:<5}{self.check:<9}"
        return _wrapped(start + self.text, " " * _INDENT)


class Conclusion(NamedTuple):
    """The result of all checks: a word for programs, and advice for people."""

    word: str
    good: bool  # the signal would go out, or already has
    advice: str

    def line(self) -> str:
        """Return the advice in lines of at most COLUMNS."""
        return _wrapped(self.advice, "")


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text, COLUMNS, subsequent_indent=indent, break_on_hyphens=False
    )


class Tools(NamedTuple):
    """What the checks use."""

    system: System
    endpoints: Sequence[Endpoint]
    service: Callable[[Sequence[Endpoint]], Service]
    resolver: Resolver
    run: Callable[[Sequence[str]], tuple[int, str] | None]  # None: no such program
    directory: str
    dns_name: str
    library_fault: str = ""
    root: str = "/"


def examine(tools: Tools) -> Iterator[Finding]:
    """Make every check, in the order of a boot."""
    yield _install(tools.library_fault)
    yield _vendor(tools)
    routed, findings = _each(tools.endpoints, lambda each: _route(tools, each))
    yield from findings
    connected, findings = _each(routed, lambda each: _connection(tools, each))
    yield from findings
    if not tools.library_fault:
        yield from _service(tools, connected)
    yield _dns(tools)
    yield _directory(tools.directory)
    yield _enabled(tools)
    if tools.system.power:
        yield _power(tools)
        yield _volume(tools)


def conclude(findings: Sequence[Finding], system: System, state: str) -> Conclusion:
    """Tell whether `state` was or would be signalled, and what to do."""
    failed = {each.word or each.check for each in findings if each.verdict == FAIL}
    for check, (word, advice) in _advice(system).items():
        if check in failed:
            return Conclusion(word, good=False, advice=advice)
    warned = [finding.check for finding in findings if finding.verdict == WARN]
    look = f" Look at: {', '.join(warned)}." if warned else ""
    if facts(findings).get("state_detail") == state:
        text = f"Signalled: the service has {state!r}."
        return Conclusion("signalled", good=True, advice=text + look)
    text = (
        "The signal would go out."
        if warned
        else "All is well: the signal would go out."
    )
    return Conclusion("would-signal", good=True, advice=text + look)


def facts(findings: Sequence[Finding]) -> dict[str, str]:
    """Return what is known about the service, by name."""
    return dict(fact for finding in findings for fact in finding.facts)


def _each(
    endpoints: Sequence[Endpoint], check: Callable[[Endpoint], Finding]
) -> tuple[list[Endpoint], list[Finding]]:
    """Check each address; return those that pass, and all findings.

    One address is enough: if one passes, the failure of another is only a note.
    """
    findings = [check(endpoint) for endpoint in endpoints]
    passed = [
        endpoint
        for endpoint, finding in zip(endpoints, findings, strict=True)
        if finding.verdict == OK
    ]
    if passed:
        findings = [
            finding
            if finding.verdict == OK
            else finding._replace(verdict=OK, text=f"{finding.text}; not needed")
            for finding in findings
        ]
    return passed, findings


def _advice(system: System) -> dict[str, tuple[str, str]]:
    """Return a word and advice for each check that can fail, the first one first."""
    where = f", see {system.network}" if system.network else ""
    libraries = (
        "The agent does not run with these libraries: install those that it needs."
    )
    route = (
        f"There is no route to the service: configure the network{where}, then check"
        " again."
    )
    connect = (
        "Nothing answers at the service's addresses: is this a server on"
        " Scaleway, does it have a public address, and does"
        f" {system.firewall} let port 80 out?"
    )
    silent = (
        "The service accepts connections, but does not answer in time: check again in"
        " a minute. The agent would keep trying."
    )
    other = (
        "Something answers there, but not like the metadata service: check again in"
        " a minute. The agent would keep trying."
    )
    return {
        "install": ("no-libraries", libraries),
        "route": ("no-route", route),
        "connect": ("no-connection", connect),
        NO_ANSWER: (NO_ANSWER, silent),
        "service": ("not-the-service", other),
    }


def run(words: Sequence[str]) -> tuple[int, str] | None:
    """Run a program of the system; return its (status, output)."""
    try:
        done = subprocess.run(  # noqa: S603 - words of ours only
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=CHECK_SECONDS,
            check=False,
            env={"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout.decode(errors="replace")


def _install(fault: str) -> Finding:
    if fault:
        return Finding("install", FAIL, fault)
    return Finding("install", OK, "the libraries are installed")


def _vendor(tools: Tools) -> Finding:
    answer = tools.run(tools.system.vendor)
    vendor = answer[1].strip() if answer else ""
    if vendor == VENDOR:
        return Finding("vendor", OK, f"this machine says that it is {VENDOR}'s")
    said = f"{printable(vendor, 60)!r}" if vendor else "empty"
    text = f"not known to be a {VENDOR} server (its DMI vendor is {said})"
    return Finding("vendor", WARN, text)


def _route(tools: Tools, endpoint: Endpoint) -> Finding:
    host = printable(endpoint.host, 60)
    scope = endpoint.host.partition("%")[2]
    if not endpoint.is_numeric() and not scope:
        if tools.resolver.await_answer(endpoint.host, CHECK_SECONDS):
            return Finding("route", OK, f"the resolver answers for {host}")
        return Finding("route", FAIL, f"the resolver does not answer for {host}")
    source = source_address(endpoint)
    if source is None:
        return Finding("route", FAIL, f"no route to {host}")
    via = scope or _interface(tools, endpoint.host)
    through = f" through {printable(via, 20)}" if via else ""
    return Finding("route", OK, f"to {host} from {source}{through}")


def _interface(tools: Tools, host: str) -> str:
    """Return the interface that the system's route command names, or ""."""
    answer = tools.run((*tools.system.route, host))
    words = iter(answer[1].split() if answer else ())
    return next(words, "") if tools.system.interface in words else ""


def _connection(tools: Tools, endpoint: Endpoint) -> Finding:
    try:
        _connect(_addresses(tools, endpoint))
    except OSError as error:
        reason = error.strerror or "no answer in time"
        return Finding("connect", FAIL, f"{endpoint.url}: {reason}")
    return Finding("connect", OK, f"{endpoint.url} accepts connections")


def _addresses(tools: Tools, endpoint: Endpoint) -> list[Address]:
    """Return the socket addresses of an endpoint; raises OSError."""
    host, port = endpoint
    if endpoint.is_numeric():
        return [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))]
    return tools.resolver.addresses(host, port, CHECK_SECONDS)


def _connect(addresses: Sequence[Address]) -> None:
    """Connect to one of `addresses`, and close; raises OSError."""
    failure = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, address in addresses:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(CHECK_SECONDS)
                probe.connect(address)
        except OSError as error:
            failure = error
        else:
            return
    raise failure


def _service(tools: Tools, endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    """Ask for the document once, and report what it says."""
    if not endpoints:
        return
    try:
        service = tools.service(endpoints)
        reply, endpoint = service.exchange(wire.document_request(), CHECK_SECONDS)
        tree = document.parse(wire.judge_document(reply))
    except ScwSignalError as error:
        silent = isinstance(error, BrokenOffError) and error.overload
        word = NO_ANSWER if silent else ""
        yield Finding("service", FAIL, str(error), word=word)
        return
    place = tree.get("location")
    zone = tree.get("zone") or (place.get("zone_id") if isinstance(place, dict) else "")
    names = (tree.get("hostname"), tree.get("commercial_type"), zone)
    told = ", ".join(_shown(name) for name in names)
    known = [
        ("url", endpoint.url),
        *([("zone", zone)] if isinstance(zone, str) else []),
    ]
    text = f"{endpoint.url} knows this server: {told}"
    yield Finding("service", OK, text, tuple(known))
    state = tree.get("state_detail")
    known = [("state_detail", state)] if isinstance(state, str) else []
    yield Finding("state", OK, f"state_detail is {_shown(state)}", tuple(known))
    yield _clock(reply)


def _clock(reply: Reply) -> Finding:
    try:
        theirs = parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return Finding("clock", WARN, "the service's reply has no date to compare with")
    off = time.time() - theirs
    text = "the same as the service's"
    if abs(off) >= DATE_SECONDS:
        text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the service's"
    return Finding("clock", WARN if abs(off) > CLOCK_SECONDS else OK, text)


def _dns(tools: Tools) -> Finding:
    name = tools.dns_name
    if tools.resolver.await_answer(name, CHECK_SECONDS):
        return Finding("dns", OK, f"the resolver answers for {printable(name, 60)}")
    return Finding("dns", WARN, "the resolver does not answer; DNS is optional")


def _directory(name: str) -> Finding:
    directory, shown = Path(name), printable(name, 80)
    try:
        if (directory / "state").exists():
            text = f"{shown} has the state of a signal that went out"
        elif directory.is_dir():
            text = f"the directory {shown} exists"
        elif directory.exists():
            return Finding("run-dir", WARN, f"{shown} is not a directory")
        else:
            text = f"{shown} does not exist yet; the service makes it"
    except (OSError, ValueError) as error:
        return Finding("run-dir", WARN, f"{shown}: {error}")
    return Finding("run-dir", OK, text)


def _enabled(tools: Tools) -> Finding:
    system = tools.system
    if not any(Path(tools.root, script).exists() for script in system.scripts):
        return Finding("enabled", WARN, "the service is not installed")
    answer = tools.run(system.enabled)
    if answer is None:
        program = system.enabled[0]
        return Finding("enabled", WARN, f"cannot tell: there is no {program} here")
    status, printed = answer
    said = re.search(f"^{system.printing}$", printed, re.MULTILINE)
    if status == 0 and (said or not system.printing):
        return Finding("enabled", OK, "the service starts at boot")
    how = f"the service does not start at boot: {system.enable}"
    return Finding("enabled", WARN, how)


def _power(tools: Tools) -> Finding:
    answer = tools.run(tools.system.power)
    if answer is None or answer[1].strip() != "1":
        return Finding(
            "power", WARN, "the console's power-off needs sysctl machdep.pwraction=1"
        )
    return Finding("power", OK, "the console's power-off shuts this system down")


def _volume(tools: Tools) -> Finding:
    good, text = volume.examine(tools.run)
    return Finding("volume", OK if good else WARN, text)


def _shown(node: Node) -> str:
    return printable(node, 60) if isinstance(node, str) else "unknown"
