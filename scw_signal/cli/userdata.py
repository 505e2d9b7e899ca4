"""scw-userdata: lists, reads, sets and deletes the user data of this server."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from scw_signal import agent, wire
from scw_signal.cli import process
from scw_signal.cli.by_hand import Session
from scw_signal.cli.options import URL, Command, Option
from scw_signal.errors import UsageError
from scw_signal.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 10.0

COMMAND = Command(
    "scw-userdata",
    "[KEY [VALUE]]",
    "List the keys of the user data, print the value of KEY, or set it to VALUE.\n"
    "With - for VALUE it is read from standard input. For root only.",
    (
        Option("delete", "delete KEY", letter="d"),
        Option("timeout", "how long to try (10); 0: for ever", metavar="SECONDS"),
        Option("once", "try once only"),
        Option("quiet", "do not show what is waited for", letter="q"),
        Option("verbose", "print a line for each try", letter="v"),
        URL,
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status, raises ScwSignalError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    method, key, value = _asked(arguments.operands, delete=arguments.has("delete"))
    session = Session(
        COMMAND, arguments, SECONDS, environment=_environment(), reserved=True
    )
    with closing(session):
        if key is None:
            keys = agent.user_data_keys(session.service, session.patience)
            answer = "".join(f"{printable(key)}\n" for key in keys).encode()
        else:
            answer = agent.user_data(
                session.service, session.patience, method, key, value
            )
    if method == "GET":
        process.write_bytes(answer)
    return process.OK


def _asked(
    operands: list[str], *, delete: bool
) -> tuple[str, str | None, bytes | None]:
    """Return the method, the key and the value; raises UsageError."""
    if delete:
        if len(operands) != 1:
            raise UsageError("-d takes one key, as in: scw-userdata -d KEY")
        return "DELETE", wire.valid_key(operands[0]), None
    if not operands:
        return "GET", None, None
    key, *values = operands
    wire.valid_key(key)
    if not values:
        return "GET", key, None
    if len(values) > 1:
        raise UsageError("give one key and one value; quote a value that has spaces")
    return "PATCH", key, _value(values[0])


def _value(word: str) -> bytes:
    """Return the value that a word stands for; raises UsageError."""
    value = process.read(wire.USER_DATA_LIMIT + 1) if word == "-" else os.fsencode(word)
    if len(value) > wire.USER_DATA_LIMIT:
        raise UsageError(
            f"the value is larger than {wire.USER_DATA_LIMIT} bytes; nothing was set"
        )
    return value


def _environment() -> dict[str, str]:
    """Return the environment, in which the vendor's USERDATA_IP comes first."""
    environment = dict(os.environ)
    if address := environment.get("USERDATA_IP"):
        environment["METADATA_IP"] = address
    return environment
