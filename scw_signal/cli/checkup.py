"""What is wrong with my server? Looks at everything that the signal needs.

Signals nothing, changes nothing and needs no root. No check takes longer than
SECONDS, and each says what it found in one line.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scw_signal import document, wire
from scw_signal.errors import ScwSignalError
from scw_signal.network import source_address
from scw_signal.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scw_signal.document import Node
    from scw_signal.resolver import Resolver
    from scw_signal.transport import Service
    from scw_signal.wire import Endpoint, Reply

SECONDS = 3.0
CLOCK_SECONDS = 60.0  # a clock that is further off than this is worth a word
OK, WARN, FAIL = "ok", "warn", "FAIL"

VENDOR = "Scaleway"
_DMI_VENDOR = "/sys/class/dmi/id/sys_vendor"

# What each system is asked, and what in its answer tells the interface.
_ROUTE = ("ip", "route", "get") if sys.platform == "linux" else ("route", "-n", "get")
_INTERFACE = "dev" if sys.platform == "linux" else "interface:"
_OPENBSD = sys.platform.startswith("openbsd")
_ENABLED = (
    ("rcctl", "get", "scw_signal", "status")
    if _OPENBSD
    else ("systemctl", "is-enabled", "--quiet", "scw-signal")
)


class Finding(NamedTuple):
    """What one check found: its name, ok, warn or FAIL, and a line of text."""

    check: str
    verdict: str
    text: str


class Tools(NamedTuple):
    """What the checks look with."""

    endpoints: Sequence[Endpoint]
    service: Callable[[Sequence[Endpoint]], Service]
    resolver: Resolver
    run: Callable[[Sequence[str]], tuple[int, str] | None]  # None: no such program
    directory: str
    dns_name: str


def examine(tools: Tools) -> Iterator[Finding]:
    """Make every check, in the order in which a boot meets what it looks at."""
    yield _vendor(tools)
    routed, findings = _each(tools.endpoints, lambda each: _route(tools, each))
    yield from findings
    connected, findings = _each(routed, lambda each: _connection(tools, each))
    yield from findings
    yield from _service(tools, connected)
    yield _dns(tools)
    yield _directory(tools.directory)
    yield _enabled(tools)
    if _OPENBSD:
        yield _power(tools)


def verdict(findings: Sequence[Finding]) -> tuple[bool, str]:
    """Tell whether the signal would go out, and what to do."""
    failed = {finding.check for finding in findings if finding.verdict == FAIL}
    for check, advice in _ADVICE.items():
        if check in failed:
            return False, advice
    warned = [finding.check for finding in findings if finding.verdict == WARN]
    if warned:
        return True, f"The signal would go out; look at: {', '.join(warned)}."
    return True, "All is well: the signal would go out."


def _each(
    endpoints: Sequence[Endpoint], check: Callable[[Endpoint], Finding]
) -> tuple[list[Endpoint], list[Finding]]:
    """Check each address; return those that pass, and what there is to say.

    One address is enough: where one passes, another that does not is only told.
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


# By the check that fails, in the order in which one needs the other.
_ADVICE = {
    "route": (
        "There is no route to the service: let an interface configure itself"
        f"{', in hostname.if(5)' if _OPENBSD else ''}, and ask again."
    ),
    "connect": (
        "Nothing answers at the service's addresses: is this a server on"
        " Scaleway, does it have a public address, and does"
        f" {'pf(4)' if _OPENBSD else 'its firewall'} let port 80 out?"
    ),
    "service": (
        "Something answers there, but not as the metadata service does: ask again"
        " in a minute. The agent would go on trying."
    ),
}


def run(words: Sequence[str]) -> tuple[int, str] | None:
    """Run a program of the system for what it prints: (status, output)."""
    try:
        done = subprocess.run(  # noqa: S603 - words of ours only
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
            env={"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode, done.stdout.decode(errors="replace")


def _vendor(tools: Tools) -> Finding:
    if sys.platform == "linux":
        try:
            vendor = Path(_DMI_VENDOR).read_text(errors="replace").strip()
        except OSError:
            vendor = ""
    else:
        answer = tools.run(("sysctl", "-n", "hw.vendor"))
        vendor = answer[1].strip() if answer else ""
    if vendor == VENDOR:
        return Finding("vendor", OK, f"this machine says that it is {VENDOR}'s")
    said = f"{printable(vendor, 60)!r}" if vendor else "nothing"
    return Finding("vendor", WARN, f"this machine says {said}, not {VENDOR!r}")


def _route(tools: Tools, endpoint: Endpoint) -> Finding:
    host = printable(endpoint.host, 60)
    if not endpoint.is_numeric():
        if tools.resolver.await_answer(endpoint.host, SECONDS):
            return Finding("route", OK, f"the resolver answers for {host}")
        return Finding("route", FAIL, f"the resolver does not answer for {host}")
    source = source_address(endpoint)
    if source is None:
        return Finding("route", FAIL, f"no route to {host}")
    answer = tools.run((*_ROUTE, endpoint.host))
    words = answer[1].split() if answer else []
    via = words[words.index(_INTERFACE) + 1 :][:1] if _INTERFACE in words else []
    through = f" through {printable(via[0], 20)}" if via else ""
    return Finding("route", OK, f"to {host} from {source}{through}")


def _connection(tools: Tools, endpoint: Endpoint) -> Finding:
    host, port = endpoint
    try:
        hosts = [host]
        if not endpoint.is_numeric():
            found = tools.resolver.addresses(host, port, SECONDS)
            hosts = [address[0] for _, address in found]
        _connect(hosts, port)
    except OSError as error:
        reason = error.strerror or "no answer in time"
        return Finding("connect", FAIL, f"{endpoint.url}: {reason}")
    return Finding("connect", OK, f"{endpoint.url} accepts connections")


def _connect(hosts: Sequence[str], port: int) -> None:
    """Connect to one of `hosts`, and hang up; raises OSError."""
    failure = OSError(errno.EADDRNOTAVAIL, "no address")
    for host in hosts:
        try:
            socket.create_connection((host, port), SECONDS).close()
        except OSError as error:
            failure = error
        else:
            return
    raise failure


def _service(tools: Tools, endpoints: Sequence[Endpoint]) -> Iterator[Finding]:
    """Ask for the document once, and tell what it and its reply say."""
    if not endpoints:
        return
    try:
        service = tools.service(endpoints)
        reply, endpoint = service.exchange(wire.document_request(), SECONDS)
        tree = document.parse(wire.judge_document(reply))
    except ScwSignalError as error:
        yield Finding("service", FAIL, str(error))
        return
    place = tree.get("location")
    zone = tree.get("zone") or (place.get("zone_id") if isinstance(place, dict) else "")
    names = (tree.get("hostname"), tree.get("commercial_type"), zone)
    told = ", ".join(_shown(name) for name in names)
    yield Finding("service", OK, f"{endpoint.url} knows this server: {told}")
    yield Finding("state", OK, f"state_detail is {_shown(tree.get('state_detail'))}")
    yield _clock(reply)


def _clock(reply: Reply) -> Finding:
    try:
        theirs = parsedate_to_datetime(reply.headers.get("Date", "")).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return Finding("clock", WARN, "the service's reply has no date to compare with")
    off = time.time() - theirs
    text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the service's"
    return Finding("clock", WARN if abs(off) > CLOCK_SECONDS else OK, text)


def _dns(tools: Tools) -> Finding:
    name = tools.dns_name
    if tools.resolver.await_answer(name, SECONDS):
        return Finding("dns", OK, f"the resolver answers for {printable(name, 60)}")
    return Finding("dns", WARN, "the resolver does not answer; the signal needs none")


def _directory(name: str) -> Finding:
    directory, shown = Path(name), printable(name, 80)
    try:
        if (directory / "state").exists():
            text = f"{shown} has the state of a signal that went out"
        elif directory.is_dir():
            text = f"{shown} is there"
        elif directory.exists():
            return Finding("run-dir", WARN, f"{shown} is not a directory")
        else:
            text = f"{shown} is not there yet; the service makes it"
    except (OSError, ValueError) as error:
        return Finding("run-dir", WARN, f"{shown}: {error}")
    return Finding("run-dir", OK, text)


def _enabled(tools: Tools) -> Finding:
    answer = tools.run(_ENABLED)
    how = "rcctl enable scw_signal" if _OPENBSD else "systemctl enable scw-signal"
    if answer is None:
        return Finding("enabled", WARN, f"can not tell: there is no {_ENABLED[0]} here")
    if answer[0] == 0:
        return Finding("enabled", OK, "the service starts at boot")
    return Finding("enabled", WARN, f"the service does not start at boot: {how}")


def _power(tools: Tools) -> Finding:
    answer = tools.run(("sysctl", "-n", "machdep.pwraction"))
    if answer is None or answer[1].strip() != "1":
        return Finding(
            "power", WARN, "the console's power-off needs sysctl machdep.pwraction=1"
        )
    return Finding("power", OK, "the console's power-off shuts this system down")


def _shown(node: Node) -> str:
    return printable(node, 60) if isinstance(node, str) else "unknown"
