"""The faults: how one is written, and what each one does."""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from scw_signal.emulator.document import BOOTING, printable
from scw_signal.emulator.protocol import Reply, acknowledgement, said

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable


class Fault(NamedTuple):
    """A fault that waits for requests; `parse_fault` makes it."""

    name: str
    argument: float
    left: float  # requests, or seconds for refuse; inf: forever
    path: str | None  # the path that it affects; None: all paths


class Delivery(NamedTuple):
    """What a fault needs to send a reply in its own way."""

    connection: socket.socket
    wire: bytes  # the reply; empty if there is none
    argument: float
    closing: threading.Event


class Kind(NamedTuple):
    """What a fault does."""

    summary: str
    effect: bool = False  # whether the request still has its effect
    # Makes the false reply from the argument and the state_detail.
    reply: Callable[[float, str], Reply] | None = None
    # Sends the reply in its own way, or not at all; then the connection ends.
    deliver: Callable[[Delivery], None] | None = None


def _retry_date(seconds: float, _: str) -> Reply:
    # The clock is read once for both dates, since they have whole seconds only.
    now = int(time.time())
    later = formatdate(now + math.ceil(seconds), usegmt=True)
    dates = (("Date", formatdate(now, usegmt=True)), ("Retry-After", later))
    return said(429, "slow down", *dates)


def _empty(status: float, _: str) -> Reply:
    bare = (("Content-Type", ""), ("Content-Length", ""))
    return Reply(int(status), headers=bare if status == HTTPStatus.NO_CONTENT else ())


def _vast(size: float, _: str) -> Reply:
    length = "" if math.isinf(size) else str(int(size))
    return Reply(200, headers=(("Content-Length", length),))


def _echo(_: float, state: str) -> Reply:
    body = json.dumps({"state_detail": state}).encode()
    return Reply(200, body, "application/json")


def _reset(to: Delivery) -> None:
    # With no time to linger, closing discards what is queued and sends a RST.
    no_time = struct.pack("ii", 1, 0)
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)


def _hang(to: Delivery) -> None:
    to.connection.settimeout(None)
    while to.connection.recv(4096):
        pass


def _drip(to: Delivery) -> None:
    for at in range(len(to.wire)):
        to.connection.sendall(to.wire[at : at + 1])
        if to.closing.wait(to.argument):
            return


def _pour(to: Delivery) -> None:
    to.connection.sendall(to.wire)
    block = b"STATE_DETAIL=huge\n" * 4096
    left = to.argument
    while left > 0:
        to.connection.sendall(block[: int(min(left, len(block)))])
        left -= len(block)


def _truncate(to: Delivery) -> None:
    head, blank, body = to.wire.partition(b"\r\n\r\n")
    to.connection.sendall(head + blank + body[: len(body) // 2])


def _babble(to: Delivery) -> None:
    to.connection.sendall(b"\x16\x03\x01\x00\xff\x1b[2J no HTTP \x00\xfe\r\n\r\n\xff")


_PAGE = b"<!DOCTYPE html>\n<title>Welcome</title>\n<h1>It works!</h1>\n"
_DAY = 86400.0  # seconds

FAULTS = {
    "refuse": Kind("the port is closed, for COUNT seconds"),
    "reset": Kind("the request is read, the connection reset", deliver=_reset),
    "hang": Kind("the request is read and never answered", deliver=_hang),
    "drip": Kind(
        "the signal is taken, the reply comes a byte every ARG seconds (1)",
        effect=True,
        deliver=_drip,
    ),
    "429": Kind("429, no Retry-After", reply=lambda *_: said(429, "slow down")),
    "429-after": Kind(
        "429, Retry-After: ARG seconds (1)",
        reply=lambda seconds, _: said(
            429, "slow down", ("Retry-After", str(math.ceil(seconds)))
        ),
    ),
    "429-date": Kind(
        "429, Retry-After: ARG seconds (1) after the Date", reply=_retry_date
    ),
    "503": Kind("503", reply=lambda *_: said(503, "not now")),
    "400": Kind("400", reply=lambda *_: said(400, "not so")),
    "404": Kind("404", reply=lambda *_: said(404, "not here")),
    "403": Kind("403", reply=lambda *_: said(403, "not for you")),
    "html": Kind("200, a web page", reply=lambda *_: Reply(200, _PAGE, "text/html")),
    "wrong-ack": Kind(
        f"200, but it names another state, {BOOTING!r}",
        reply=lambda *_: acknowledgement(BOOTING),
    ),
    "empty-ack": Kind(
        "the signal is taken, the reply is empty; ARG is its status (200)",
        effect=True,
        reply=_empty,
    ),
    "json-ack": Kind(
        "the signal is taken, the reply is JSON", effect=True, reply=_echo
    ),
    "huge": Kind("200 and ARG bytes (1e8); inf: endless", reply=_vast, deliver=_pour),
    "redirect": Kind(
        "302 to /elsewhere",
        reply=lambda *_: said(302, "over there", ("Location", "/elsewhere")),
    ),
    "truncate": Kind(
        "the signal is taken, the body of the reply ends halfway",
        effect=True,
        deliver=_truncate,
    ),
    "garbage": Kind("bytes that are not HTTP", deliver=_babble),
}
NO_FAULT = Kind("the truth", effect=True)
_ARGUMENTS = {  # fault: the default of ARG, its least and its most
    "drip": (1.0, 0.0, _DAY),
    "429-after": (1.0, 0.0, 1e12),
    "429-date": (1.0, 0.0, 365 * _DAY),
    "empty-ack": (200.0, 200.0, 204.0),
    "huge": (1e8, 0.0, math.inf),
}

FILTERS = ("state", "conf", "user_data", "vendor_data")

_SPEC = re.compile(
    "(?:(?P<endpoint>[^/]*)/)?(?P<name>[^/=:]*)"
    "(?:=(?P<argument>[^:]*))?(?::(?P<count>.*))?",
    re.DOTALL,
)


def parse_fault(spec: str) -> Fault:
    """Read a fault, `[ENDPOINT/]NAME[=ARG][:COUNT]`.

    Raises ValueError, with a text for the user.
    """
    shown = f"in '{printable(spec, 60)}'"
    match = _SPEC.fullmatch(spec)
    if match is None or match["name"] not in FAULTS:
        raise ValueError(f"{shown}: unknown fault; known are {', '.join(FAULTS)}")
    endpoint, name, argument, count = match.groups()
    closes = name == "refuse"
    if endpoint is not None and (closes or endpoint not in FILTERS):
        known = "none for refuse" if closes else f"known are {', '.join(FILTERS)}"
        raise ValueError(f"{shown}: unknown endpoint; {known}")
    if argument is not None and name not in _ARGUMENTS:
        raise ValueError(f"{shown}: {name} takes no argument")
    default, least, most = _ARGUMENTS.get(name, (0.0, 0.0, 0.0))
    number = default if argument is None else as_number(argument)
    if not least <= number <= most:
        raise ValueError(f"{shown}: the argument is from {least:g} to {most:g}")
    left = math.inf if count is None else as_number(count)
    if not left > 0 or not (closes or left == math.inf or left.is_integer()):
        unit = "seconds" if closes else "requests"
        raise ValueError(f"{shown}: the count is a number of {unit} above 0")
    return Fault(name, number, left, None if endpoint is None else f"/{endpoint}")


def as_number(text: str) -> float:
    """Read a number; return NaN, which is in no range, if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan
