"""The actions of a build, and the commands to run later in the cloud; pure.

A build is a list of actions. The same list is carried out or, for a dry run, printed:
so the printed commands are those that would have been run.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .answers import SITE_DIRECTORY, Options, System, index, response_file
from .console import Step, installation
from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .medium import Check

QEMU = "qemu-system-x86_64"
QEMU_IMG = "qemu-img"
HOST = "10.0.2.2"  # this machine, in QEMU's user network
GIGABYTE = 10**9  # the cloud's unit for the size of a volume
SMALLEST, LARGEST = 4, 1000  # GB: enough for all sets; the most the cloud imports
MEMORY = 1024  # MiB
OPTIONS = "usr/local/share/scw_signal/image"  # in the site set

# Where distributions install the firmware: its code, the template of its variables.
FIRMWARE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),  # Debian
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),  # older
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)


class Firmware(NamedTuple):
    """The two files of OVMF."""

    code: Path
    variables: Path


class Workshop(NamedTuple):
    """The working directory of a build, beside the future image, and its files."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk for the installation."""
        return self.directory / "disk.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's variables, which are discarded."""
        return self.directory / "variables.fd"

    @property
    def image(self) -> Path:
        """The compressed disk, before it gets its name."""
        return self.directory / "image.qcow2"

    @property
    def served(self) -> Path:
        """The directory from which the guest can fetch files."""
        return self.directory / "served"


def find_firmware(exists: Callable[[Path], bool]) -> Firmware:
    """Return the firmware of this machine; raises BuildError."""
    for code, variables in FIRMWARE:
        firmware = Firmware(Path(code), Path(variables))
        if all(map(exists, firmware)):
            return firmware
    raise BuildError("there is no OVMF, the firmware for EFI: apt install ovmf")


def create(workshop: Workshop, gigabytes: int) -> list[str]:
    """Return the command that makes the empty disk."""
    size = str(gigabytes * GIGABYTE)
    return [QEMU_IMG, "create", "-q", "-f", "qcow2", str(workshop.disk), size]


def compress(workshop: Workshop) -> list[str]:
    """Return the command that makes the image from the disk."""
    disk, image = str(workshop.disk), str(workshop.image)
    return [QEMU_IMG, "convert", "-c", "-f", "qcow2", "-O", "qcow2", disk, image]


def machine(
    workshop: Workshop, firmware: Firmware, medium: Path, accelerators: Sequence[str]
) -> list[str]:
    """Return the command that runs the machine, its console on stdin and stdout.

    The disk comes before the medium on the bus, so they become sd0 and sd1; the
    firmware boots from the medium. It has two processors, since with one the installer
    omits the kernel for several. Writes of the guest to the medium are discarded. The
    VGA gives the kernel an EFI frame buffer, without which it does not offer GPT.
    """
    pflash = "if=pflash,format=raw,"
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35"),
        *(word for name in accelerators for word in ("-accel", name)),
        *("-smp", "2", "-m", str(MEMORY)),
        *("-drive", f"{pflash}readonly=on,{drive_file(firmware.code)}"),
        *("-drive", f"{pflash}{drive_file(workshop.variables)}"),
        # After a failure the disk is discarded, so it needs no safe writes.
        "-drive",
        "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,"
        + drive_file(workshop.disk),
        *("-device", "virtio-blk-pci,drive=disk,addr=0x3,bootindex=2"),
        *("-drive", f"if=none,id=medium,format=raw,snapshot=on,{drive_file(medium)}"),
        *("-device", "virtio-blk-pci,drive=medium,addr=0x4,bootindex=1"),
        *("-netdev", "user,id=net"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),  # no boot from the network
        *("-device", "virtio-rng-pci", "-device", "VGA"),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
    ]


def drive_file(path: Path) -> str:
    """Return the file of a drive for QEMU: a comma in a value must be doubled."""
    return "file=" + str(path).replace(",", ",,")


def in_the_cloud(image: Path, bucket: str, zone: str) -> list[str]:
    """Return shell commands that make an image of the cloud from a local one.

    They use the AWS CLI and the Scaleway CLI; the bucket is in the zone's region.
    """
    region = zone.rpartition("-")[0]
    endpoint = f"https://s3.{region}.scw.cloud"
    upload = ["aws", "s3", "cp", str(image), f"s3://{bucket}/{image.name}"]
    upload += ["--region", region, "--endpoint-url", endpoint]
    start = ["scw", "block", "snapshot", "import-from-object-storage"]
    start += [f"bucket={bucket}", f"key={image.name}", f"name={image.stem}"]
    volume = 'image=none root-volume=sbs:"$snapshot"'
    return [
        shlex.join(upload),
        _assigned("snapshot", [*start, f"zone={zone}", "-o", "template={{ .ID }}"]),
        f'scw block snapshot wait "$snapshot" timeout=30m zone={zone}',
        _assigned(
            "image",
            [
                *("scw", "instance", "image", "create", f"name={image.stem}"),
                *("arch=x86_64", f"zone={zone}", "-o", "template={{ .Image.ID }}"),
            ],
            'snapshot-id="$snapshot"',
        ),
        f'scw instance server create image="$image" type=DEV1-S zone={zone}',
        "# or, for one server, without an image:",
        f"scw instance server create {volume} type=DEV1-S zone={zone}",
    ]


def _assigned(variable: str, words: Sequence[str], expanded: str = "") -> str:
    """Return a line that assigns the output of a command to a variable."""
    return f"{variable}=$({shlex.join(words)}{' ' if expanded else ''}{expanded})"


class Run(NamedTuple):
    """Run a command to its end."""

    stage: str
    words: Sequence[str]


class Verify(NamedTuple):
    """Check the medium."""

    check: Check


class Write(NamedTuple):
    """Make a small text file."""

    path: Path
    text: str


class Copy(NamedTuple):
    """Copy a file."""

    source: Path
    target: Path


class Site(NamedTuple):
    """Copy a site set, and add the options file to it."""

    source: Path
    target: Path
    options: str


class Move(NamedTuple):
    """Give a file its final name, replacing an existing file."""

    source: Path
    target: Path


class Overwrite(NamedTuple):
    """Write the image to a whole volume, replacing everything on it."""

    image: Path
    volume: Path


class Install(NamedTuple):
    """Run the machine and the dialogue on its console, and serve files to it."""

    words: Sequence[str]
    served: Path
    port: int
    steps: Sequence[Step]


Action = Run | Verify | Write | Copy | Site | Move | Overwrite | Install


class Build(NamedTuple):
    """Everything that a build needs."""

    system: System
    options: Options
    check: Check
    firmware: Firmware
    gigabytes: int
    site: Path
    layout: str  # a template for disklabel(8); may be empty
    port: int
    accelerators: Sequence[str]  # of QEMU, which uses the first that works
    output: Path  # the file to make, or an existing volume
    volume: bool = False

    @property
    def workshop(self) -> Workshop:
        """The working directory; beside the image, so that a rename finishes it."""
        if self.volume:
            place = Path(tempfile.gettempdir()) / f"build-image-{self.output.name}"
            return Workshop(place.with_suffix(".work"))
        return Workshop(self.output.with_name(f"{self.output.name}.work"))


def actions(build: Build) -> list[Action]:
    """Return the actions of a build, in order; its workshop must exist."""
    shop = build.workshop
    server = f"{HOST}:{build.port}"
    sets = shop.served / SITE_DIRECTORY
    name = f"site{build.system.release.digits}.tgz"
    size = build.site.stat().st_size if build.site.exists() else 0
    words = machine(shop, build.firmware, build.check.image, build.accelerators)
    layout = [Write(shop.served / "disklabel", build.layout)] if build.layout else []
    return [
        Verify(build.check),
        Write(shop.served / "install.conf", response_file(build.system, server)),
        *layout,
        Write(sets / "index.txt", index(name, size)),
        Site(build.site, sets / name, build.options.text),
        Copy(build.firmware.variables, shop.variables),
        Run("an empty disk", create(shop, build.gigabytes)),
        Install(words, shop.served, build.port, installation(server, name)),
        Run("compression", compress(shop)),
    ]


def last(build: Build) -> Action:
    """Return the last action, after all others and the trial have succeeded."""
    image = build.workshop.image
    return (Overwrite if build.volume else Move)(image, build.output)


def to_volume(image: Path, volume: Path) -> list[str]:
    """Return the command that writes an image to an existing volume."""
    words = [QEMU_IMG, "convert", "-n", "-f", "qcow2", "-O", "raw"]
    return [*words, str(image), str(volume)]


def shell(action: Action) -> str:  # noqa: PLR0911 # one for each
    """Return an action as a person would type it into sh(1).

    The dialogue on the console is not included: a person would type it there.
    """
    match action:
        case Run(_, words):
            return shlex.join(words)
        case Verify(check):
            return _shell_of_check(check)
        case Write(path, text):
            return f"{_printed(text)} >{shlex.quote(str(path))}"
        case Copy(source, target):
            return shlex.join(["cp", "--", str(source), str(target)])
        case Site(source, target, options):
            return _shell_of_site(source, target, options)
        case Overwrite(image, volume):
            return shlex.join(to_volume(image, volume))
        case Move(source, target):
            return shlex.join(["mv", "--", str(source), str(target)])
        case Install(words, served, port, _):
            serve = ["python3", "-m", "http.server", "--bind", "127.0.0.1"]
            serve += ["--directory", str(served), str(port)]
            return f"{shlex.join(serve)} & {shlex.join(words)}; kill $!"


def _printed(text: str) -> str:
    """Return the command that prints whole lines, perhaps none."""
    return shlex.join(["printf", "%s\\n", *text.splitlines()]) if text else ":"


def _shell_of_site(source: Path, target: Path, options: str) -> str:
    tree, plain = target.with_name("tree"), target.with_suffix(".tar")
    parent = shlex.quote(str(tree / Path(OPTIONS).parent))
    return (
        f"mkdir -p {parent} && {_printed(options)} >{shlex.quote(str(tree / OPTIONS))}"
        f" && gzip -dc {shlex.quote(str(source))} >{shlex.quote(str(plain))}"
        f" && {shlex.join(['tar', '-rf', str(plain), '-C', str(tree), OPTIONS])}"
        f" && gzip -c {shlex.quote(str(plain))} >{shlex.quote(str(target))}"
    )


def _shell_of_check(check: Check) -> str:
    cd = shlex.join(["cd", "--", str(check.image.parent)])
    if check.command:
        return f"({cd} && {shlex.join(check.command)})"
    find = shlex.join(["grep", "-F", f"({check.image.name})", check.checksums.name])
    return f"({cd} && {find} | sha256sum -c)"
