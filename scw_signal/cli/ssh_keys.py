"""scw-metadata --ssh-keys: prints which keys may log in; sshd(8) runs it at each login.

A user waits, so this takes at most 3 s. Three things ensure that: a time limit for
asking the service; no host names, since nothing can interrupt a resolver; and a timer
of the kernel, in case all of that fails.

sshd accepts no keys from a command whose exit status is not 0, and discards what it
writes to standard error. So a key that is left out is only reported there, and the
status stays 0. If neither the service nor the cache has an answer, it is not 0.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from scw_signal import agent, document, keys, store, wire
from scw_signal.cli import process
from scw_signal.cli.session import Session
from scw_signal.errors import NonsenseError, ScwSignalError, UsageError

if TYPE_CHECKING:
    from scw_signal.cli.options import Arguments, Command
    from scw_signal.document import Node

ACCOUNT = "root"  # the user of these keys on the images of this cloud
TIMEOUT_SECONDS = 2.0  # for the service
LONGEST_TIMEOUT = 2.5  # seconds, the most that --timeout accepts
KILL_AFTER_SECONDS = 2.8  # then the kernel ends the process; its start took time too
MOST_NAMED = 8  # of the keys that are left out


def show(command: Command, arguments: Arguments) -> int:
    """Print the keys, but none for users who are not --account.

    Returns the exit status, raises ScwSignalError.
    """
    signal.setitimer(signal.ITIMER_REAL, KILL_AFTER_SECONDS)
    _check(arguments)
    accounts = arguments.all("account") or [ACCOUNT]
    if not set(arguments.operands) <= set(accounts):
        return process.OK
    lines, complaints = keys.authorized_keys(_document(command, arguments))
    for complaint in complaints[:MOST_NAMED]:
        process.warn(command.name, f"left out: {complaint}")
    if len(complaints) > MOST_NAMED:
        process.warn(command.name, f"left out: {len(complaints) - MOST_NAMED} more")
    process.write("".join(f"{line}\n" for line in lines))
    return process.OK


def _check(arguments: Arguments) -> None:
    """Raise UsageError for options that would make a login unsafe or slow."""
    if len(arguments.operands) > 1:
        raise UsageError("--ssh-keys takes at most one user name, such as sshd's %u")
    if not 0 < arguments.seconds("timeout", TIMEOUT_SECONDS) <= LONGEST_TIMEOUT:
        raise UsageError(
            f"with --ssh-keys, --timeout is more than 0, up to {LONGEST_TIMEOUT}"
        )
    endpoints = wire.endpoints(arguments.all("url"), os.environ)
    if not all(endpoint.is_numeric() for endpoint in endpoints):
        raise UsageError("--ssh-keys needs an address: a name could hang or be forged")


def _document(command: Command, arguments: Arguments) -> dict[str, Node]:
    """Return the metadata of the service, or else what was stored at boot."""
    if arguments.has("cached"):
        stored = _stored(arguments)
        if stored is not None:
            return stored
    with Session(command, arguments, TIMEOUT_SECONDS) as session:
        try:
            return agent.fetch(session.service, session.patience).document
        except ScwSignalError as error:
            failure = error
    stored = _stored(arguments)
    if stored is None:
        raise failure
    process.warn(command.name, f"{failure}; using the keys stored at boot")
    return stored


def _stored(arguments: Arguments) -> dict[str, Node] | None:
    """Return what the agent stored, or None if it is missing or damaged.

    The flat form is not used, since one key can hide another in it.
    """
    text = store.read(
        arguments.text("run-dir", store.RUN_DIRECTORY), store.METADATA_JSON
    )
    try:
        return document.parse((text or "").encode())
    except NonsenseError:
        return None
