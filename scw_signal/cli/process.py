"""What all commands share as processes: how they begin, write and end."""

from __future__ import annotations

import gc
import os
import sys

# Not signal, which loads enum: that takes a third of a cached look-up.
from _signal import (  # type: ignore[import-not-found] # not in typeshed
    SIG_BLOCK,
    SIG_DFL,
    SIG_UNBLOCK,
    SIGINT,
    SIGPIPE,
    SIGTERM,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
)

from scw_signal import __version__
from scw_signal.errors import NoSuchKeyError, ScwSignalError, Stopped, UsageError
from scw_signal.terminal import lines, printable

TYPE_CHECKING = False  # see render
if TYPE_CHECKING:
    from typing import NoReturn

    from scw_signal.cli.options import Arguments, Command

OK, FAILED, USAGE, NO_SUCH_KEY = 0, 1, 2, 3

AGENT = "scw-signald"

_STATUS = {UsageError: USAGE, NoSuchKeyError: NO_SUCH_KEY}


def run(command: str) -> NoReturn:
    """Run a command, a module of this package, and end the process.

    Any failure, even of its imports, becomes one line on standard error and an
    exit status.
    """
    name = "scw-" + command.replace("_", "-")
    # Let the kernel end the process at Ctrl-C. As an exception it could come in the
    # middle of an import, and turn into another error or get lost.
    if getsignal(SIGINT) is default_int_handler:
        pthread_sigmask(SIG_BLOCK, {SIGINT})  # see stop.held_back
        signal(SIGINT, SIG_DFL)
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})
    _keep_standard_descriptors()
    gc.disable()  # most commands end before it would find anything
    try:
        module = __import__(f"scw_signal.cli.{command}", fromlist=["main"])
        status = module.main(sys.argv[1:])
    except ScwSignalError as error:
        status = _STATUS.get(type(error), FAILED)
        hint = f" (see {name} --help)" if status == USAGE else ""
        _complain(name, f"{error}{hint}")
    except Stopped as stopped:
        die_of(stopped.number)
    except BrokenPipeError:
        die_of(SIGPIPE)
    except ImportError as error:
        status = FAILED
        _complain(name, f"incomplete installation: {error}")
    except Exception as error:  # noqa: BLE001 - a bug; users never see a traceback
        from scw_signal import log  # noqa: PLC0415 - only needed here

        status = FAILED
        _complain(name, log.bug(error))
    # Skips the interpreter's clean-up, which takes time; no output is buffered.
    os._exit(status)


def informed(command: Command, arguments: Arguments) -> bool:
    """Answer --help or --version; tell whether one of them was given."""
    if arguments.has("help"):
        write(command.help())
    elif arguments.has("version"):
        write(f"{command.name} {__version__}\n")
    else:
        return False
    return True


def write(text: str) -> None:
    """Write to standard output, as UTF-8 in every locale.

    On a terminal, control characters other than newline and tab are escaped.
    Raises ScwSignalError, or BrokenPipeError if the reader has closed the pipe.
    """
    _write((lines(text) if os.isatty(1) else text).encode(errors="replace"))


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ScwSignalError(f"standard output: {error.strerror}") from None


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output unchanged; on a terminal, as `write` does.

    There a newline is added if the last one is missing, for the sake of the prompt.
    Raises ScwSignalError, or BrokenPipeError if the reader has closed the pipe.
    """
    if os.isatty(1):
        end = b"\n" if data and not data.endswith(b"\n") else b""
        data = lines(data.decode(errors="replace")).encode() + end
    _write(data)


def read(most: int) -> bytes:
    """Return standard input up to its end, but at most `most` bytes.

    Raises ScwSignalError.
    """
    data = b""
    try:
        while len(data) < most and (chunk := os.read(0, most - len(data))):
            data += chunk
    except OSError as error:
        raise ScwSignalError(f"standard input: {error.strerror}") from None
    return data


def warn(name: str, message: str) -> None:
    """Write one line to standard error, after the name of the command."""
    try:
        os.write(2, f"{name}: {printable(message, 500)}\n".encode())
    except OSError:
        pass  # nobody reads it


def die_of(number: int) -> NoReturn:
    """End this process by a signal, so that a shell sees why it ended."""
    try:
        pthread_sigmask(SIG_BLOCK, {SIGINT, SIGTERM})  # see stop.held_back
        signal(number, SIG_DFL)
    except (OSError, ValueError):
        pass  # SIGKILL, which needs neither, or a number that Python does not know
    os.kill(os.getpid(), number)
    pthread_sigmask(SIG_UNBLOCK, {number})
    os._exit(128 + number)  # if the signal does not end a process: what a shell shows


def _keep_standard_descriptors() -> None:
    """Open closed standard descriptors, so that no socket takes their numbers.

    They are opened for reading, so that writing still fails.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)


def _complain(name: str, message: str) -> None:
    """Say why a command failed; for the agent, in the log too.

    rc.d(8) hides standard error, so users look in the log.
    """
    warn(name, message)
    if name == AGENT:
        from scw_signal import log  # noqa: PLC0415 - only needed here

        log.Log(log.to_syslog(name), verbose=False).error(message)
