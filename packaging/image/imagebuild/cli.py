"""build-image: argv in, exit status out."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from scw_signal.terminal import printable

from . import answers, commands, machine, medium
from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOP = Path(__file__).resolve().parent.parent.parent.parent
LAYOUT = TOP / "packaging/image/disklabel.template"
PACKAGES = {commands.QEMU: "qemu-system-x86", commands.QEMU_IMG: "qemu-utils"}
# Bytes that must be free: all sets, installed, and once more, compressed. A guess.
SPACE = 4 * commands.GIGABYTE
LONGEST_FILE = 65536  # bytes of a key or of a layout
DESCRIPTION = """\
Install OpenBSD from installXX.img, unattended, in QEMU, onto a GPT disk that boots
by EFI with its console on com0, and leave a qcow2. Then print the commands that make
an image of this cloud of it. SHA256.sig or SHA256 must lie beside the image."""
EPILOG = """\
exit status: 0; 1 the image could not be built; 2 the command line"""


def main(argv: Sequence[str] | None = None) -> int:
    """Build an image; return the exit status."""
    words = parser().parse_args(argv)
    try:
        build = prepared(words)
        if words.dry_run:
            print(*dry_run(build), sep="\n")
            return 0
        with ended_by_signals(), workshop(build):
            carry_out(build, words.console)
    except BuildError as error:
        print(f"build-image: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        print(f"build-image: {where}{error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print("\nbuild-image: interrupted, and nothing left behind", file=sys.stderr)
        return die(interrupt.args[0] if interrupt.args else signal.SIGINT)
    print(f"{printable(str(build.output))} is ready. To make an image of it there:\n")
    for line in commands.in_the_cloud(build.output, words.bucket, words.zone):
        print(f"    {line}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="build-image", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    add = parser.add_argument
    add("image", type=Path, metavar="installXX.img", help="the install image")
    add("--ssh-key", type=Path, required=True, metavar="FILE", help="root's public key")
    add("--hostname", default="openbsd", metavar="NAME", help="default: %(default)s")
    add("--timezone", default="UTC", metavar="ZONE", help="default: %(default)s")
    add(
        "--sets",
        default="-game* -x*",
        metavar="PATTERNS",
        help="add sets or, with -, leave some out; default: --sets='%(default)s'",
    )
    add(
        "--layout",
        type=Path,
        metavar="FILE",
        help="disklabel(8)'s, for option -T; default: one that leaves room for /home",
    )
    add(
        "--disk-size",
        type=int,
        default=10,
        metavar="GB",
        help="in units of 10^9 bytes, as the cloud counts; default: %(default)s",
    )
    add("--site", type=Path, metavar="FILE", help="default: what make site made")
    add("--key", type=Path, metavar="FILE", help="openbsd-XX-base.pub, for signify(1)")
    add(
        "--firmware",
        type=Path,
        nargs=2,
        metavar=("CODE", "VARS"),
        help="OVMF, where it is not found by itself",
    )
    add(
        "--port",
        type=int,
        default=8377,
        help="on loopback, for what the guest fetches; default: %(default)s",
    )
    add(
        "--accel",
        choices=("kvm", "tcg"),
        help="how QEMU runs the machine; default: kvm, and tcg where there is none",
    )
    add("--console", type=Path, metavar="FILE", help="record the serial console")
    add("--bucket", default="BUCKET", metavar="NAME", help="for the commands printed")
    add("--zone", default="fr-par-1", help="likewise; default: %(default)s")
    add("--output", type=Path, metavar="FILE", help="default: dist/openbsdXX.qcow2")
    add(
        *("-n", "--dry-run"),
        action="store_true",
        help="print every command instead, and touch nothing",
    )
    return parser


def prepared(words: argparse.Namespace) -> commands.Build:
    """Return the build that the command line is about; raises BuildError."""
    release = medium.release_of(words.image)
    check = medium.plan(words.image.absolute(), release, words.key)
    layout = small_text(words.layout or LAYOUT)
    system = answers.System(
        release=release,
        hostname=answers.hostname(words.hostname),
        ssh_key=answers.ssh_key(
            small_text(words.ssh_key), printable(str(words.ssh_key))
        ),
        timezone=answers.timezone(words.timezone),
        sets=answers.sets(words.sets),
        layout=bool(layout),
    )
    if not commands.SMALLEST <= words.disk_size <= commands.LARGEST:
        raise BuildError(
            f"--disk-size {words.disk_size}: a number from {commands.SMALLEST} to"
            f" {commands.LARGEST} was due, in GB"
        )
    for word, form in ((words.bucket, "a bucket"), (words.zone, "a zone")):
        if not word.replace("-", "").replace(".", "").isalnum() or word[0] == "-":
            raise BuildError(f"no name of {form}: {printable(word)!r}")
    site = words.site or TOP / f"dist/site{release.digits}.tgz"
    if not site.is_file():
        raise BuildError(f"no {printable(str(site))}: make site RELEASE={release}")
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            raise BuildError(f"there is no {program}: apt install {package}")
    return commands.Build(
        system=system,
        check=check,
        firmware=firmware(words.firmware),
        gigabytes=words.disk_size,
        site=site.absolute(),
        layout=layout,
        port=words.port,
        accelerators=[words.accel] if words.accel else ["kvm", "tcg"],
        output=output(words.output, release),
    )


def output(named: Path | None, release: answers.Release) -> Path:
    """Return where the image goes; raises BuildError if that can not be."""
    path = (named or TOP / f"dist/openbsd{release.digits}.qcow2").absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise BuildError(f"can not be written: {printable(str(path))}")
    return path


def firmware(named: Sequence[Path] | None) -> commands.Firmware:
    """Return the firmware, named or found; raises BuildError."""
    if not named:
        return commands.find_firmware(Path.is_file)
    for path in named:
        if not path.is_file():
            raise BuildError(f"no such firmware: {printable(str(path))}")
    return commands.Firmware(*(path.absolute() for path in named))


def small_text(path: Path) -> str:
    """Return the text of a small file; raises BuildError, OSError."""
    with path.open("rb") as file:
        data = file.read(LONGEST_FILE + 1)
    if len(data) > LONGEST_FILE or not data.isascii():
        raise BuildError(f"{printable(str(path))}: no small file of ASCII text")
    return data.decode("ascii")


def dry_run(build: commands.Build) -> list[str]:
    """Return everything that a build does, as lines for sh(1)."""
    shop = build.workshop
    served = shlex.quote(str(shop.served / answers.SITE_DIRECTORY))
    return [
        "set -e",
        f"mkdir -p {served}",
        *map(commands.shell, commands.actions(build)),
        f"rm -rf {shlex.quote(str(shop.directory))}",
    ]


def carry_out(build: commands.Build, console: Path | None) -> None:
    """Build the image, and show how far it is."""
    began = time.monotonic()

    def show(stage: str) -> None:
        seconds = int(time.monotonic() - began)
        print(f"{seconds // 60:3}:{seconds % 60:02}  {printable(stage)}", flush=True)

    with console.open("wb", buffering=0) if console else nullcontext() as record:
        for action in commands.actions(build):
            machine.perform(action, show, record)


@contextmanager
def workshop(build: commands.Build) -> Iterator[None]:
    """Have the directory of a build, and leave nothing of it."""
    directory = build.workshop.directory
    if shutil.disk_usage(build.output.parent).free < SPACE:
        raise BuildError(
            f"too little space in {printable(str(build.output.parent))}:"
            f" {SPACE // commands.GIGABYTE} GB are needed"
        )
    try:
        directory.mkdir()
    except FileExistsError:
        raise BuildError(
            f"{printable(str(directory))} is there: another build goes on, or was"
            " killed; in that case remove it"
        ) from None
    try:
        yield
    finally:
        shutil.rmtree(directory)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a build as Ctrl-C does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def die(number: int) -> int:
    """Die of a signal, so that whoever waits for us knows."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
