"""Carries out a build: the only QEMU, and the only HTTP server."""

from __future__ import annotations

import functools
import gzip
import http.server
import io
import os
import select
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from scw_signal.terminal import printable

from .commands import (
    OPTIONS,
    Action,
    Copy,
    Install,
    Move,
    Overwrite,
    Run,
    Site,
    Verify,
    Write,
    to_volume,
)
from .console import Console, Stage, Typed
from .errors import BuildError
from .medium import verify
from .process import run, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .console import Step

    Show = Callable[[str], None]

END_SECONDS = 60.0  # seconds until a process must have ended after its output
CHUNK_BYTES = 65536


def perform(action: Action, show: Show, record: IO[bytes] | None) -> None:
    """Carry out one action; raises BuildError, and OSError for errors of files.

    `show` is called with each stage; `record` gets the output of the console.
    """
    match action:
        case Verify(check):
            show(verify(check))
        case Write(path, text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        case Copy(source, target):
            shutil.copyfile(source, target)
        case Site(source, target, options):
            extend(source, target, options.encode())
        case Overwrite(image, volume):
            show(f"writing {volume}")
            run(to_volume(image, volume))
        case Move(source, target):
            source.replace(target)
        case Run(stage, words):
            show(stage)
            run(words)
        case Install(words, served, port, steps):
            with serving(served, port):
                converse(words, steps, show, record)


def extend(source: Path, target: Path, options: bytes) -> None:
    """Copy a site set and add the options file to it; raises BuildError.

    It is hardly compressed, since it only goes to the guest.
    """
    added = tarfile.TarInfo(OPTIONS)
    added.size, added.mode = len(options), 0o644
    added.uname, added.gname = "root", "wheel"
    try:
        with (
            tarfile.open(source, "r|gz") as old,
            gzip.open(target, "wb", 1) as file,
            tarfile.open(fileobj=file, mode="w|") as new,
        ):
            for member in old:
                content = old.extractfile(member) if member.isreg() else None
                new.addfile(member, content)
            new.addfile(added, io.BytesIO(options))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BuildError(
            f"not a site set, or incomplete: {printable(str(source))}"
        ) from error


@contextmanager
def serving(directory: Path, port: int) -> Iterator[int]:
    """Serve the files of a directory on loopback; yield the port. 0 is any port."""
    handler = functools.partial(_Quiet, directory=str(directory))
    try:
        server = _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise BuildError(
            f"cannot serve on port {port}: {error.strerror}; choose another: --port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    """Serves several requests at once; the guest may end during any of them."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: the guest's console reports a set that is missing."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without log lines."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Leave the terminal to the stages of the installation."""


def converse(
    words: Sequence[str], steps: Sequence[Step], show: Show, record: IO[bytes] | None
) -> None:
    """Run a machine through a dialogue to its end; raises BuildError.

    The machine has always ended afterwards.
    """
    with tempfile.TemporaryFile() as complaints:
        with started(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,  # only we get Ctrl-C, and end it properly
        ) as process:
            try:
                _talk(process, Console(steps, time.monotonic()), show, record)
                status = process.wait(END_SECONDS)
            except BuildError as error:
                raise with_complaint(error, complaints) from None
        if status:
            failure = BuildError(f"{words[0]} ended with status {status}")
            raise with_complaint(failure, complaints)


def _talk(
    process: subprocess.Popen[bytes],
    console: Console,
    show: Show,
    record: IO[bytes] | None,
) -> None:
    """Pass bytes between the machine and the dialogue."""
    output, keyboard = process.stdout, process.stdin
    assert output is not None  # noqa: S101 # for mypy: they are pipes
    assert keyboard is not None  # noqa: S101
    show(console.stage)
    while True:
        wait = max(0.0, console.due - time.monotonic())
        if not select.select([output], [], [], wait)[0]:
            events: Iterator[Typed | Stage] = console.tick(time.monotonic())
        elif data := os.read(output.fileno(), CHUNK_BYTES):
            if record:
                record.write(data)
            events = console.receive(data, time.monotonic())
        elif console.finished:
            return
        else:
            raise console.ended()
        for event in events:
            if isinstance(event, Stage):
                show(event.name)
            elif not _type(keyboard, event.data):
                raise console.ended()


def _type(keyboard: IO[bytes], data: bytes) -> bool:
    """Type something; tell whether the machine still runs."""
    try:
        os.write(keyboard.fileno(), data)
    except BrokenPipeError:
        return False
    return True


def with_complaint(error: BuildError, complaints: IO[bytes]) -> BuildError:
    """Add QEMU's own last message to an error, if there is one."""
    complaints.seek(0)
    said = complaints.read().decode(errors="replace").strip().split("\n")
    # After "KVM internal error" it prints all registers.
    what = next((line for line in said if "internal error" in line), said[-1])
    if "KVM" in what:
        what += "; try --accel tcg"
    return BuildError(f"{error}; {printable(what)}") if what else error
