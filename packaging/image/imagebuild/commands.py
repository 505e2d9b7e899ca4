"""What is done to build an image, and what to run in the cloud then; pure.

A build is a list of actions: the same list is carried out, or printed for a dry
run, so that what is printed is what would have been done.
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
HOST = "10.0.2.2"  # this machine, as a guest of QEMU's user network sees it
GIGABYTE = 10**9  # as the cloud counts: a volume is a number of these
SMALLEST, LARGEST = 4, 1000  # GB: what holds all sets; what the cloud imports
MEMORY = 1024  # MiB
OPTIONS = "usr/local/share/scw_signal/image"  # in the site set

# The firmware: where distributions have its code and the template of its variables.
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
    """The directory that a build happens in, beside the image to be; and its files."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk that is installed on."""
        return self.directory / "disk.qcow2"

    @property
    def variables(self) -> Path:
        """The firmware's variables, which are thrown away."""
        return self.directory / "variables.fd"

    @property
    def image(self) -> Path:
        """The compressed disk, before it gets its name."""
        return self.directory / "image.qcow2"

    @property
    def served(self) -> Path:
        """What the guest can fetch."""
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
    """Return the command that makes the image of the disk."""
    disk, image = str(workshop.disk), str(workshop.image)
    return [QEMU_IMG, "convert", "-c", "-f", "qcow2", "-O", "qcow2", disk, image]


def machine(
    workshop: Workshop, firmware: Firmware, medium: Path, accelerators: Sequence[str]
) -> list[str]:
    """Return the command that runs the machine, its console on stdin and stdout.

    The disk stands before the medium on the bus, which makes them sd0 and sd1; the
    firmware starts the medium. Two processors, for with one the installer leaves
    out the kernel for several. What the guest may write to the medium is dropped.
    The VGA is what the kernel takes a frame buffer of EFI from, and then offers GPT.
    """
    pflash = "if=pflash,format=raw,"
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35"),
        *(word for name in accelerators for word in ("-accel", name)),
        *("-smp", "2", "-m", str(MEMORY)),
        *("-drive", f"{pflash}readonly=on,{drive_file(firmware.code)}"),
        *("-drive", f"{pflash}{drive_file(workshop.variables)}"),
        # If it fails, the disk is thrown away: it need not be safe meanwhile.
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
    """Return the file of a drive, as QEMU wants it: a comma in a value is doubled."""
    return "file=" + str(path).replace(",", ",,")


def in_the_cloud(image: Path, bucket: str, zone: str) -> list[str]:
    """Return shell commands that make an image of the cloud of an image here.

    As the AWS CLI and the Scaleway CLI have them; an import is of the zone's region.
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
    """Return a line that keeps in a variable what a command prints."""
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
    """Copy a site set, and add the file of options to it."""

    source: Path
    target: Path
    options: str


class Move(NamedTuple):
    """Give a file its name, in the place of what had it."""

    source: Path
    target: Path


class Overwrite(NamedTuple):
    """Write the image to a whole volume, in the place of all that is on it."""

    image: Path
    volume: Path


class Install(NamedTuple):
    """Run the machine and the dialogue on its console, and serve it files."""

    words: Sequence[str]
    served: Path
    port: int
    steps: Sequence[Step]


Action = Run | Verify | Write | Copy | Site | Move | Overwrite | Install


class Build(NamedTuple):
    """Everything that a build is made of."""

    system: System
    options: Options
    check: Check
    firmware: Firmware
    gigabytes: int
    site: Path
    layout: str  # a template for disklabel(8), or nothing
    port: int
    accelerators: Sequence[str]  # of QEMU; the first that works is taken
    output: Path  # a file that is to be, or a volume that is there
    volume: bool = False

    @property
    def workshop(self) -> Workshop:
        """Where it happens: beside the image, for a rename is all that makes one."""
        if self.volume:
            place = Path(tempfile.gettempdir()) / f"build-image-{self.output.name}"
            return Workshop(place.with_suffix(".work"))
        return Workshop(self.output.with_name(f"{self.output.name}.work"))


def actions(build: Build) -> list[Action]:
    """Return what a build does, in order, within a workshop that is there."""
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
    """Return what is done when all else has gone well, the trial too."""
    image = build.workshop.image
    return (Overwrite if build.volume else Move)(image, build.output)


def to_volume(image: Path, volume: Path) -> list[str]:
    """Return the command that writes an image to a volume, which is there."""
    words = [QEMU_IMG, "convert", "-n", "-f", "qcow2", "-O", "raw"]
    return [*words, str(image), str(volume)]


def shell(action: Action) -> str:  # noqa: PLR0911 # one for each
    """Return an action as a person would type it into sh(1).

    But for the dialogue on the console, which is for hands then.
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
    """Return the command that prints whole lines, of which there may be none."""
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
