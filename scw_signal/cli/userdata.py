"""scw-userdata: lists, reads, sets and deletes the user data of this server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from scw_signal import agent, wire
from scw_signal.cli import process
from scw_signal.cli.options import ONCE, QUIET, VERBOSE, Command, Option, timeout, url
from scw_signal.cli.session import Session
from scw_signal.errors import NoSuchKeyError, ScwSignalError, UsageError
from scw_signal.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 10.0
MOST_COMPARED = 2000  # keys to compare for suggestions

COMMAND = Command(
    "scw-userdata",
    "[KEY [VALUE]]",
    "List the keys of the user data, print the value of KEY, or set it to VALUE.\n"
    "With - for VALUE it is read from standard input. For root only.",
    (
        Option("delete", "delete KEY", letter="d"),
        timeout(TIMEOUT_SECONDS),
        ONCE,
        QUIET,
        VERBOSE,
        url("USERDATA_IP or METADATA_IP"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status, raises ScwSignalError."""
    arguments = COMMAND.parse(argv)
    if process.informed(COMMAND, arguments):
        return process.OK
    method, key, value = _asked(arguments.operands, delete=arguments.has("delete"))
    session = Session(
        COMMAND,
        arguments,
        TIMEOUT_SECONDS,
        variables=("USERDATA_IP", "METADATA_IP"),  # the vendor's
        reserved=True,
    )
    with session:
        answer = (
            _keys(session) if key is None else _exchange(session, method, key, value)
        )
    if method == "GET":
        process.write_bytes(answer)
    return process.OK


def _keys(session: Session) -> bytes:
    """Return the keys, one a line, escaped: a key may hold even a newline."""
    keys = agent.user_data_keys(session.service, session.patience)
    return "".join(f"{printable(key)}\n" for key in keys).encode()


def _exchange(session: Session, method: str, key: str, value: bytes | None) -> bytes:
    """Return what the service answers; suggest similar keys if KEY does not exist."""
    try:
        return agent.user_data(session.service, session.patience, method, key, value)
    except NoSuchKeyError as error:
        from difflib import get_close_matches  # noqa: PLC0415 - only here

        near = get_close_matches(key, _once(session)[:MOST_COMPARED])
        if not near:
            raise
        names = ", ".join(printable(name, 60) for name in near)
        raise NoSuchKeyError(f"{error} (near: {names})") from None


def _once(session: Session) -> list[str]:
    """Return the keys if one try succeeds; more would be too much for a hint."""
    try:
        request = wire.user_data_list_request()
        return wire.judge_keys(
            session.service.exchange(request, session.patience.remaining())[0]
        )
    except ScwSignalError:
        return []


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
    """Return the value, from standard input for `-`; raises UsageError."""
    value = process.read(wire.USER_DATA_LIMIT + 1) if word == "-" else os.fsencode(word)
    if len(value) > wire.USER_DATA_LIMIT:
        raise UsageError(
            f"the value is larger than {wire.USER_DATA_LIMIT} bytes; nothing was set"
        )
    return value
