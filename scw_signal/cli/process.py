"""What the three commands share as processes: how they begin, write and end."""

from __future__ import annotations

import gc
import os
import sys

# Not signal, which loads enum: a third of a cached look-up.
from _signal import (  # type: ignore[import-not-found] # typeshed has it not
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
    """Run a command, a module of this package, as this process's whole work.

    Whatever goes wrong, from its imports on, becomes one line on standard error
    and an exit status.
    """
    name = "scw-" + command.replace("_", "-")
    # At Ctrl-C the kernel ends the process. As an exception it would come out of the
    # middle of an import, as another error or not at all.
    if getsignal(SIGINT) is default_int_handler:
        pthread_sigmask(SIG_BLOCK, {SIGINT})  # see stop.held_back
        signal(SIGINT, SIG_DFL)
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})
    _keep_standard_descriptors()
    gc.disable()  # most commands are over before it would find anything
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
    except Exception as error:  # noqa: BLE001 - a bug of ours; never a traceback
        from scw_signal import log  # noqa: PLC0415 - only here, and only then

        status = FAILED
        _complain(name, log.bug(error))
    # Sparing the interpreter its taking apart: nothing of ours is buffered.
    os._exit(status)


def informed(command: Command, arguments: Arguments) -> bool:
    """Answer --help or --version, and tell whether one was asked."""
    if arguments.has("help"):
        write(command.help())
    elif arguments.has("version"):
        write(f"{command.name} {__version__}\n")
    else:
        return False
    return True


def write(text: str) -> None:
    """Write to standard output, as UTF-8 whatever the locale is.

    To a terminal, control characters other than newline and tab are escaped.
    Raises ScwSignalError, or BrokenPipeError when nobody reads any more.
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
    """Write bytes to standard output as they are; to a terminal, as `write` does.

    There they also end with a newline, or the prompt would follow on the same line.
    Raises ScwSignalError, or BrokenPipeError when nobody reads any more.
    """
    if os.isatty(1):
        end = b"\n" if data and not data.endswith(b"\n") else b""
        data = lines(data.decode(errors="replace")).encode() + end
    _write(data)


def read(most: int) -> bytes:
    """Return standard input up to its end, or `most` bytes of it.

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
    """Write one line to standard error, in the name of a command."""
    try:
        os.write(2, f"{name}: {printable(message, 500)}\n".encode())
    except OSError:
        pass  # nobody is left to be told


def die_of(number: int) -> NoReturn:
    """End this process as a signal would have, so that a shell can tell."""
    try:
        pthread_sigmask(SIG_BLOCK, {SIGINT, SIGTERM})  # see stop.held_back
        signal(number, SIG_DFL)
    except (OSError, ValueError):
        pass  # SIGKILL, which needs neither, or a number that Python does not know
    os.kill(os.getpid(), number)
    pthread_sigmask(SIG_UNBLOCK, {number})
    os._exit(128 + number)  # what shells make of it; one that does not end a process


def _keep_standard_descriptors() -> None:
    """Fill a closed standard descriptor, or the next socket would take its place.

    For reading, so that writing to it fails as it would have.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)


def _complain(name: str, message: str) -> None:
    """Say why a command failed; for the agent, in the log as well.

    rc.d(8) hides standard error, and the log is where one looks then.
    """
    warn(name, message)
    if name == AGENT:
        from scw_signal import log  # noqa: PLC0415 - only here, and only then

        log.Log(log.to_syslog(name), verbose=False).error(message)
