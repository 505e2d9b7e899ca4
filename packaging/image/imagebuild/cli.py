"""build-image: the command line."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from scw_signal import __version__
from scw_signal.terminal import printable

from . import answers, commands, destination, machine, medium, runner, volume
from .errors import BuildError
from .process import ENDING, signals_handled, signals_held
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TOP = Path(__file__).resolve().parent.parent.parent.parent
# It leaves the rest of the volume for /home, which the first boot makes.
LAYOUT = TOP / "packaging/image/disklabel.template"
PACKAGES = {commands.QEMU: "qemu-system-x86", commands.QEMU_IMG: "qemu-utils"}
FOR_TRIAL = {runner.SCAN: "openssh-client"}
# Bytes that must be free for all sets, installed and once more compressed. A guess.
SPACE = 4 * commands.GIGABYTE
NOTHING_LEFT = "nothing left behind"
LONGEST_FILE = 65536  # bytes of a key or of a layout
DESCRIPTION = """\
Install OpenBSD from installXX.img, unattended, in QEMU, onto a GPT disk that boots
by EFI with its console on com0, and write a qcow2. Then boot it as two servers of the
cloud, check that they signal, and print the commands that make a cloud image from it.
SHA256.sig or SHA256 must be beside the install image. This program has not been tried
with a real OpenBSD installer yet."""
EPILOG = """\
exit status: 0; 1 the image could not be built, or failed in its trial; 2 wrong command
line"""


def main(argv: Sequence[str] | None = None) -> int:
    """Build an image, or try one; return the exit status."""
    words = parser().parse_args(argv)
    report = Report(as_json=words.json)
    try:
        with ended_by_signals():
            return (
                try_only(words, report) if words.tried else build_image(words, report)
            )
    except BuildError as error:
        report.error(str(error), getattr(error, "console", ()))
        return 1
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        report.error(f"{where}{error.strerror}")
        return 1
    except KeyboardInterrupt as interrupt:
        if not words.json:
            print(file=sys.stderr)
        report.error(f"interrupted, and {getattr(interrupt, 'left', NOTHING_LEFT)}")
        return die(interrupt.args[0] if interrupt.args else signal.SIGINT)


def build_image(words: argparse.Namespace, report: Report) -> int:
    """Build an image, try it, and give it its name; return the exit status."""
    if words.image is None:
        raise BuildError("which install image? installXX.img, or --try IMAGE")
    build = prepared(words)
    if words.dry_run:
        print(*dry_run(build), sep="\n")
        return 0
    seen: list[str] = []
    with workshop(build):
        with words.console.open("wb", 0) if words.console else nullcontext() as record:
            for action in commands.actions(build):
                machine.perform(action, report.stage, record)
        if words.trial:
            # With the user's own layout, /home is the user's matter too.
            plan = runner.Trial(
                build.workshop.image,
                build.firmware,
                build.accelerators,
                home=words.layout is None,
            )
            seen = runner.carry_out(plan, report.stage)
        digest = sha256(build.workshop.image)
        facts = {"image": str(build.output), "sha256": digest, "seen": seen}
        if build.volume:
            # Check again: it may have been mounted during the build, which takes long.
            check_volume(build.output, words.disk_size, words.overwrite)
            fill_volume(build, report)
            report.end(facts, [*seen, f"{printable(str(build.output))} is written."])
            return 0
        ignore_signals()
        machine.perform(commands.last(build), report.stage, None)
        packages = [*site_packages(build.site), *report.packages]
        write_beside(
            build.output,
            destination.checksum_line(build.output.name, digest),
            destination.description(build, release_here(), packages, seen),
        )
    lines = commands.in_the_cloud(build.output, words.bucket, words.zone)
    ready = f"{printable(str(build.output))} is ready. To make an image of it there:\n"
    report.end(
        {**facts, "commands": lines}, [*seen, ready, *(f"    {line}" for line in lines)]
    )
    return 0


def fill_volume(build: commands.Build, report: Report) -> None:
    """Write the image to its volume; say so if it was written only in part."""
    left = f"{printable(str(build.output))} is written in part"
    try:
        machine.perform(commands.last(build), report.stage, None)
    except BuildError as error:
        raise BuildError(f"{error}; {left}") from None
    except KeyboardInterrupt as interrupt:
        interrupt.left = left  # type: ignore[attr-defined]
        raise


def try_only(words: argparse.Namespace, report: Report) -> int:
    """Try an existing image; return the exit status."""
    if words.image or words.dry_run:
        raise BuildError("--try IMAGE goes with no install image and no --dry-run")
    if not words.tried.is_file():
        raise BuildError(f"no such image: {printable(str(words.tried))}")
    need_programs(PACKAGES | FOR_TRIAL)
    plan = runner.Trial(
        words.tried,
        firmware(words.firmware),
        accelerators(words),
        home=words.layout is None,
    )
    seen = runner.carry_out(plan, report.stage)
    report.end({"image": str(words.tried), "seen": seen}, seen)
    return 0


def write_beside(image: Path, checksum: str, text: str) -> None:
    """Write the small files that belong to an image, each in one step."""
    for suffix, content in ((".SHA256", checksum), (".txt", text)):
        target = image.with_name(image.name + suffix)
        unfinished = target.with_name(f"{target.name}.new")
        try:
            unfinished.write_text(content)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def site_packages(site: Path) -> list[str]:
    """Return the packages of OpenBSD in a site set: python-3.x and its dependencies."""
    with tarfile.open(site) as archive:
        names = [Path(name) for name in archive.getnames()]
    return sorted(name.stem for name in names if name.parent.name == "packages")


def release_here() -> str:
    """Return the version of this tree, and its commit if git(1) knows it."""
    words = ["git", "-C", str(TOP), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(  # noqa: S603 # no shell
            words, capture_output=True, text=True, check=False
        )
    except OSError:
        return __version__
    commit = done.stdout.strip()
    return f"{__version__}, commit {commit}" if commit else __version__


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="build-image", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "image",
        type=Path,
        nargs="?",
        metavar="installXX.img",
        help="the install image",
    )
    add("--ssh-key", type=Path, metavar="FILE", help="root's public key")
    add(
        "--console-keys",
        action=argparse.BooleanOptionalAction,
        help="let the SSH keys in the cloud's console log in as root: then everyone who"
        " may add a key there, or can answer for the metadata service, is root;"
        " default: only without --ssh-key",
    )
    add(
        "--packages-at-boot",
        action="store_true",
        help="add Python at the first boot, from a mirror, instead of in this build",
    )
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
        help="template for disklabel(8) -T; default: one that leaves room for /home",
    )
    add(
        "--disk-size",
        type=int,
        default=8,  # the smallest volume has 10, so /home always gets some space
        metavar="GB",
        help="in units of 10^9 bytes, as the cloud counts; default: %(default)s",
    )
    add("--site", type=Path, metavar="FILE", help="default: the set from make site")
    add("--key", type=Path, metavar="FILE", help="openbsd-XX-base.pub, for signify(1)")
    add(
        "--firmware",
        type=Path,
        nargs=2,
        metavar=("CODE", "VARS"),
        help="the two files of OVMF, if they are not found",
    )
    add(
        "--port",
        type=int,
        default=8377,
        help="on loopback, from which the guest fetches files; default: %(default)s",
    )
    add(
        "--accel",
        choices=("kvm", "tcg"),
        help="how QEMU runs the machine; default: kvm, or tcg if there is no KVM",
    )
    add("--console", type=Path, metavar="FILE", help="record the serial console")
    add("--bucket", default="BUCKET", metavar="NAME", help="for the commands printed")
    add("--zone", default="fr-par-1", help="likewise; default: %(default)s")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: dist/openbsdXX.qcow2; or a whole volume, such as /dev/sdb",
    )
    add(
        "--overwrite",
        default="",
        metavar="SERIAL",
        help="serial number or size in bytes of a volume whose data may be lost",
    )
    add(
        "--try",
        dest="tried",
        type=Path,
        metavar="IMAGE",
        help="build nothing, but try an existing image: two servers of it boot twice,"
        " with an emulator of the metadata service and no other network",
    )
    add(
        "--no-try",
        dest="trial",
        action="store_false",
        help="do not try the image after building it",
    )
    add(
        "--json",
        action="store_true",
        help="for programs: one line of JSON for each stage, and one at the end",
    )
    add(
        *("-n", "--dry-run"),
        action="store_true",
        help="only print every command, and change nothing",
    )
    return parser


def prepared(words: argparse.Namespace) -> commands.Build:
    """Return the build for the command line; raises BuildError."""
    release = medium.release_of(words.image)
    check = medium.plan(words.image.absolute(), release, words.key)
    layout = small_text(words.layout or LAYOUT)
    named = words.ssh_key
    system = answers.System(
        release=release,
        hostname=answers.hostname(words.hostname),
        ssh_key=answers.ssh_key(small_text(named), printable(str(named)))
        if named
        else "",
        timezone=answers.timezone(words.timezone),
        sets=answers.sets(words.sets),
        layout=bool(layout),
    )
    if not commands.SMALLEST <= words.disk_size <= commands.LARGEST:
        raise BuildError(
            f"--disk-size {words.disk_size}: must be from {commands.SMALLEST} to"
            f" {commands.LARGEST} GB"
        )
    if answers.least_size(layout) > words.disk_size * commands.GIGABYTE:
        needed = answers.least_size(layout) / commands.GIGABYTE
        raise BuildError(
            f"--disk-size {words.disk_size}: the layout needs {needed:.1f} GB"
        )
    for word, form in ((words.bucket, "a bucket"), (words.zone, "a zone")):
        if not word.replace("-", "").replace(".", "").isalnum() or word[0] == "-":
            raise BuildError(f"not a name of {form}: {printable(word)!r}")
    site = words.site or TOP / f"dist/site{release.digits}.tgz"
    if not site.is_file():
        raise BuildError(f"no {printable(str(site))}: make site RELEASE={release}")
    need_programs(PACKAGES | (FOR_TRIAL if words.trial else {}))
    target = output(words.output, release)
    if whole := target.is_block_device():
        check_volume(target, words.disk_size, words.overwrite)
    elif words.overwrite:
        raise BuildError("--overwrite is for an --output that is a volume")
    else:
        destination.check_name(target)
    return commands.Build(
        system=system,
        options=answers.Options(
            console_keys=console_keys(words), python=not words.packages_at_boot
        ),
        check=check,
        firmware=firmware(words.firmware),
        gigabytes=words.disk_size,
        site=site.absolute(),
        layout=layout,
        port=words.port,
        accelerators=accelerators(words),
        output=target,
        volume=whole,
    )


def console_keys(words: argparse.Namespace) -> bool:
    """Tell whether the console's keys may log in; raises BuildError."""
    if words.console_keys is False and not words.ssh_key:
        raise BuildError("nobody could log in: use --ssh-key FILE or --console-keys")
    return bool(words.console_keys or not words.ssh_key)


def accelerators(words: argparse.Namespace) -> list[str]:
    """Return the accelerators for QEMU, which uses the first one that works."""
    return [words.accel] if words.accel else ["kvm", "tcg"]


def need_programs(packages: Mapping[str, str]) -> None:
    """Check that programs are installed; raises BuildError."""
    for program, package in packages.items():
        if shutil.which(program) is None:
            raise BuildError(f"there is no {program}: apt install {package}")


def check_volume(path: Path, gigabytes: int, overwrite: str) -> None:
    """Check that a volume may be overwritten; raises BuildError, OSError."""
    destination.check_volume(
        volume.look(path), gigabytes * commands.GIGABYTE, overwrite
    )


def output(named: Path | None, release: answers.Release) -> Path:
    """Return where to write the image; raises BuildError if that is impossible."""
    path = (named or TOP / f"dist/openbsd{release.digits}.qcow2").absolute()
    special = path.exists() and not path.is_file() and not path.is_block_device()
    if special or not path.parent.is_dir():
        raise BuildError(f"cannot be written: {printable(str(path))}")
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
        raise BuildError(f"{printable(str(path))}: not a small file of ASCII text")
    return data.decode("ascii")


def dry_run(build: commands.Build) -> list[str]:
    """Return everything that a build does, as lines for sh(1)."""
    shop = build.workshop
    served = shlex.quote(str(shop.served / answers.SITE_DIRECTORY))
    return [
        "set -e",
        f"mkdir -p {served}",
        *map(commands.shell, commands.actions(build)),
        f"# build-image --try {shlex.quote(str(shop.image))}",
        commands.shell(commands.last(build)),
        f"rm -rf {shlex.quote(str(shop.directory))}",
    ]


@contextmanager
def workshop(build: commands.Build) -> Iterator[None]:
    """Make the directory of a build, and remove it at the end."""
    directory = build.workshop.directory
    if shutil.disk_usage(directory.parent).free < SPACE:
        raise BuildError(
            f"too little space in {printable(str(directory.parent))}:"
            f" {SPACE // commands.GIGABYTE} GB are needed"
        )
    made = False
    try:
        with signals_held():
            make(directory)
            made = True
        yield
    finally:
        if made:
            shutil.rmtree(directory)


def make(directory: Path) -> None:
    """Make the directory of a build; raises BuildError if it exists."""
    try:
        directory.mkdir()
    except FileExistsError:
        raise BuildError(
            f"{printable(str(directory))} exists: another build is running, or was"
            " killed; in that case remove it"
        ) from None


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a build as SIGINT does."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    with signals_handled(interrupt):
        yield


def ignore_signals() -> None:
    """Ignore signals once the image is done: the rest takes no time."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def die(number: int) -> int:
    """Die of a signal, so that the parent process sees it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
