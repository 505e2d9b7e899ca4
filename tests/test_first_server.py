"""A server's first boot: its disk and identity, even if the power fails at any step.

The scripts run under mksh with stand-ins for OpenBSD's programs (tests/openbsd/disk.py)
on a disk as build-image leaves it, or a similar one. A mount namespace gives the test
its own /etc, /var and /home.
"""

from __future__ import annotations

import marshal
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from installed import PATIENCE

TOP = Path(__file__).resolve().parent.parent
IMAGE = TOP / "packaging/image"
STAND_IN = TOP / "tests/openbsd/disk.py"
CHANGERS = ("cp", "mv", "rm", "mkdir", "sync", "fdisk", "disklabel", "newfs", "mount")
GIB = 1 << 30
EFI = 532480  # sectors; as OpenBSD's installer makes it
SMALLEST_VOLUME = 10 * 10**9 // 512  # sectors
IMAGE_DUID = "0123456789abcdef"
LETTERS = "abdefgh"
INSIDE = """
set -e
mount --bind "$1/etc" /etc
mount --bind "$1/var" /var
mount --bind "$1/home" /home
PATH=$1/bin:$PATH
shift
exec "$@"
"""

if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
    pytest.skip("only root on Linux can mount in a name space", allow_module_level=True)
if shutil.which("mksh") is None:
    pytest.skip("mksh is not installed here", allow_module_level=True)


def template() -> dict[str, int]:
    """Return the layout: mount points, or swap, and their sizes in sectors."""
    layout = {}
    for line in (IMAGE / "disklabel.template").read_text().splitlines():
        # As parse_autotable of disklabel(8) reads it: a leading blank, a comment and
        # an empty line are errors.
        match = re.fullmatch(r"(/\S*|swap)\s+(\d+)([MG])", line)
        assert match, line
        mount, size, unit = match.groups()
        layout[mount] = int(size) * (GIB if unit == "G" else GIB >> 10) // 512
    return layout


class Server:
    """A server with the disk of an image."""

    def __init__(self, path: Path, sectors: int = 2 * SMALLEST_VOLUME) -> None:
        self.path = path
        self.etc, self.db = path / "etc", path / "var/db"
        self.disk_file = path / "disk"
        self.steps, self.synced = path / "disk.steps", path / "disk.synced"
        for name in ("etc", "var/db", "var/log", "home", "bin", "here"):
            (path / name).mkdir(parents=True)
        _, code = STAND_IN.read_text().split("\n", 1)
        for name in CHANGERS:
            program = path / "bin" / name
            program.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{code}")
            program.chmod(0o755)
        for name in ("logger", "rcctl"):
            self.stub(name, f'echo "{name} $*" >>{path}/asked')
        (path / "bin/ksh").symlink_to(shutil.which("mksh") or "/")
        # The real path: the usual link goes through /etc, which the test replaces.
        (path / "bin/awk").symlink_to(Path(shutil.which("awk") or "/").resolve())
        for script in ("first-server", "new-duid", "add-partition", "console-keys",
                       "server.sub"):  # fmt: skip
            shutil.copy(IMAGE / script, path / "here")
        self.make_disk(sectors)
        self.hook = self.etc / "rc.securelevel"
        self.hook.write_text(f"ksh {path}/here/first-server\n")
        self.run("sync")

    def stub(self, name: str, text: str) -> None:
        (self.path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.path / "bin" / name).chmod(0o755)

    def make_disk(self, sectors: int) -> None:
        """Lay out a disk of 8 GB as the installer does."""
        small = 8 * 10**9 // 512
        at = 64 + EFI
        partitions, fstab = {}, []
        for letter, (mount, size) in zip("abdefg", template().items(), strict=True):
            start = at + -at % 32
            partitions[letter] = [size, start, "swap" if mount == "swap" else "4.2BSD"]
            at = start + size
            options = "rw" if mount == "/" else "rw,nodev,nosuid"
            fstab.append(
                f"{IMAGE_DUID}.{letter} none swap sw"
                if mount == "swap"
                else f"{IMAGE_DUID}.{letter} {mount} ffs {options} 1 2"
            )
        assert at < small - 34, "the layout does not fit the disk it is installed on"
        (self.etc / "fstab").write_text("\n".join(fstab) + "\n")
        self.save({
            "sectors": sectors,
            "backup": small,
            "gpt": [["EFI Sys", 64, EFI], ["OpenBSD", 64 + EFI, small - 98 - EFI]],
            "label": {"duid": IMAGE_DUID, "partitions": partitions},
            "file_systems": dict.fromkeys("adefg", "full"),
            "mounted": {},
        })  # fmt: skip
        self.mount_all()

    @property
    def disk(self) -> dict[str, Any]:
        disk: dict[str, Any] = marshal.loads(self.disk_file.read_bytes())  # noqa: S302
        return disk

    def save(self, disk: dict[str, Any]) -> None:
        self.disk_file.write_bytes(marshal.dumps(disk))

    def change(self, **changes: Any) -> None:
        self.save(self.disk | changes)

    def fstab(self) -> dict[str, str]:
        lines = [line.split() for line in (self.etc / "fstab").read_text().splitlines()]
        return {fields[1] if fields[1] != "none" else "swap": fields[0]
                for fields in lines}  # fmt: skip

    def run(self, *words: str | Path, power_goes: int = 0) -> str:
        """Run a script or a program; the power may fail at a step."""
        words = tuple(
            word if Path(word).name in CHANGERS else self.path / "here" / word
            for word in words[:1]
        ) + words[1:]  # fmt: skip
        shell = [] if Path(words[0]).name in CHANGERS else ["mksh"]
        self.steps.unlink(missing_ok=True)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", INSIDE, "sh", self.path, *shell, *words],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "DISK": str(self.disk_file),
                "POWER_GOES": str(power_goes),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            start_new_session=True,
            check=False,
            text=True,
        )
        self.status = done.returncode
        return done.stdout

    # What rc(8) does.

    def mount_all(self) -> None:
        """Check and mount what fstab(5) names, or fail: single-user mode."""
        disk = self.disk
        if disk["gpt"] == "torn":
            raise AssertionError("no GPT")
        disk["mounted"] = {}
        fstab = self.fstab()
        assert set(template()) <= set(fstab), "fstab has lost lines"
        for mount, device in fstab.items():
            match = re.fullmatch(r"(?:(\w{16})\.|/dev/sd0)([a-p])", device)
            assert match, device
            duid, letter = match.groups()
            assert duid in (None, disk["label"]["duid"]), "no disk of that UID"
            assert letter in disk["label"]["partitions"]
            if mount == "swap":
                continue
            assert disk["file_systems"][letter] in ("full", "empty"), "fsck fails"
            disk["mounted"][f"/dev/sd0{letter}"] = mount
        self.save(disk)

    def boot(self, power_goes: int = 0) -> str:
        """Boot, and run rc.securelevel as rc(8) does; return what that printed."""
        self.mount_all()
        said = ""
        if self.hook.exists() and "first-server" in self.hook.read_text():
            said = self.run("first-server", power_goes=power_goes)
            if self.status < 0:
                self.lose_power()
        return said

    def lose_power(self) -> None:
        """Lose what was written to files but not synced."""
        synced = marshal.loads(self.synced.read_bytes())  # noqa: S302 - the test's own
        for path in [*self.etc.rglob("*"), *self.db.rglob("*")]:
            inode = path.stat().st_ino
            if path.is_file() and synced.get(inode) != path.read_bytes():
                path.write_text("")
        disk = self.disk
        if disk["gpt"] == "torn" or disk["label"] is None:
            raise AssertionError("the disk is lost")

    def is_done(self) -> None:
        """Check everything that a first boot is for."""
        disk = self.disk
        duid = disk["label"]["duid"]
        assert duid not in (IMAGE_DUID, "0" * 16)
        assert self.fstab() == {
            mount: f"{duid}.{letter}"
            for letter, mount in zip(LETTERS, [*template(), "/home"], strict=True)
        }
        size, offset, kind = disk["label"]["partitions"]["h"]
        end = disk["sectors"] - 34
        assert end - 64 < offset + size <= end
        others = [part for name, part in disk["label"]["partitions"].items()
                  if name != "h"]  # fmt: skip
        assert offset >= max(start + length for length, start, _ in others)
        assert kind == "4.2BSD"
        assert disk["mounted"]["/dev/sd0h"] == "/home"
        assert not self.hook.exists()
        assert not (self.db / "scw_partition").exists()
        for path, length in ((self.db / "host.random", 65536),
                             (self.etc / "random.seed", 512)):  # fmt: skip
            assert path.stat().st_size == length
            assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server")


# The layout.


def test_the_layout_leaves_room_for_home_on_the_smallest_volume() -> None:
    layout = template()
    assert list(layout) == ["/", "swap", "/tmp", "/var", "/usr", "/usr/local"]  # noqa: S108 - no file
    rest = SMALLEST_VOLUME - 64 - EFI - sum(layout.values()) - 34
    assert rest * 512 > 1.5 * GIB, "sysupgrade(8) keeps the sets there"


# Aliases that OpenBSD's ksh(1) has (main.c) and mksh has not.
ALIASES = {
    "autoload", "functions", "hash", "history", "integer", "local", "login", "nohup",
    "r", "stop",
}  # fmt: skip


@pytest.mark.parametrize(
    "script", [path.name for path in IMAGE.iterdir() if path.is_file()]
)
def test_no_function_has_the_name_of_an_alias_of_ksh(script: str) -> None:
    functions = re.findall(r"^(\w+)\(\) ", (IMAGE / script).read_text(), re.MULTILINE)
    assert not ALIASES & set(functions)


# A whole first boot.


@pytest.mark.parametrize("gigabytes", [10, 20, 100, 1000])
def test_home_gets_the_rest_of_a_volume_of_any_size(
    tmp_path: Path, gigabytes: int
) -> None:
    server = Server(tmp_path / "server", gigabytes * 10**9 // 512)
    server.boot()
    server.is_done()


def test_a_second_boot_changes_nothing(server: Server) -> None:
    said = server.boot()
    duid = server.disk["label"]["duid"]
    assert said == f"disklabel UID of sd0: {duid}\n/home is sd0h\n"
    disk, fstab = server.disk, server.fstab()
    assert server.boot() == ""
    assert server.run("add-partition", "/home") == ""  # nor does running it by hand
    assert (server.status, server.disk, server.fstab()) == (0, disk, fstab)


def steps(path: Path) -> int:
    """Return how many steps a first boot has."""
    server = Server(path)
    server.boot()
    return server.steps.stat().st_size


PARTS = 8  # splits the tests of one kind among the processors


@pytest.mark.parametrize("part", range(PARTS))
def test_the_power_may_go_at_any_step(tmp_path: Path, part: int) -> None:
    last = steps(tmp_path / "count")
    assert last > 30
    for step in range(1 + part, last + 1, PARTS):
        server = Server(tmp_path / str(step))
        server.boot(power_goes=step)
        assert server.status < 0
        server.boot()
        server.is_done()


def test_the_power_may_go_again_and_again(
    tmp_path: Path,
    soaking: bool,  # noqa: FBT001 # a fixture
) -> None:
    drawn = random.Random(20261126)  # noqa: S311 - no key
    for attempt in range(12 if soaking else 4):
        server = Server(tmp_path / str(attempt))
        for _ in range(4):
            server.boot(power_goes=drawn.randint(1, 40))
        server.boot()
        server.is_done()


def test_what_the_installer_left_for_root_is_not_mailed(server: Server) -> None:
    log = server.path / "var/log"
    for name in ("install.resp.123", "ai.log.4567", "messages"):
        (log / name).write_text("x\n")
    server.boot()
    assert [path.name for path in log.iterdir()] == ["messages"]


@pytest.mark.parametrize("wanted", [True, False])
def test_console_keys_runs_once_and_only_if_wanted(
    server: Server, *, wanted: bool
) -> None:
    image = server.path / "here/image"
    image.write_text("console-keys\npython\n" if wanted else "python\n")
    # console-keys has its own tests.
    (server.path / "here/console-keys").write_text(f"echo >>{server.path}/asked keys\n")
    for _ in range(2):  # as after scw-seal
        server.run("first-server")
    asked = server.path / "asked"
    assert (asked.read_text() if asked.exists() else "") == ("keys\n" if wanted else "")
    assert image.read_text() == "python\n"


def test_other_lines_in_rc_securelevel_stay(server: Server) -> None:
    own = "sysctl kern.securelevel=2 # a\\tb\n"
    server.hook.write_text(server.hook.read_text() + own)
    server.boot()
    assert server.hook.read_text() == own


def test_two_servers_of_one_image_have_nothing_in_common(tmp_path: Path) -> None:
    both = [Server(tmp_path / name) for name in "ab"]
    for server in both:
        server.boot()
    for find in (
        lambda server: server.disk["label"]["duid"],
        lambda server: (server.db / "host.random").read_bytes(),
        lambda server: (server.etc / "random.seed").read_bytes(),
    ):
        assert len(set(map(find, both))) == 2


# An unexpected disk is left alone, and one line says so.


def other_gpt(server: Server) -> None:
    gpt = server.disk["gpt"]
    server.change(gpt=[*gpt, ["Linux files*", gpt[-1][1] + gpt[-1][2], 4096]])


def efi_elsewhere(server: Server) -> None:
    gpt = server.disk["gpt"]
    server.change(gpt=[["EFI Sys", 128, EFI - 64], gpt[1]])


def no_efi(server: Server) -> None:
    server.change(gpt=server.disk["gpt"][1:])


def no_room(server: Server) -> None:
    partitions = server.disk["label"]["partitions"]
    end = server.disk["sectors"]
    start = partitions["g"][1]
    partitions["g"][0] = end - start - 4096
    server.change(label=server.disk["label"] | {"partitions": partitions})


def home_in_use(server: Server) -> None:
    (server.path / "home/puffy").mkdir()


def label_is_stuck(server: Server) -> None:
    server.change(label_is_stuck=True)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (other_gpt, "sd0 has not just an EFI and an OpenBSD partition"),
        (efi_elsewhere, "sd0 has not just an EFI and an OpenBSD partition"),
        (no_efi, "sd0 has not just an EFI and an OpenBSD partition"),
        (no_room, "sd0 has no unused space"),
        (home_in_use, "that directory is not empty"),
        (label_is_stuck, "disklabel did not add it to sd0"),
    ],
)
def test_another_disk_is_left_alone(server: Server, make: Any, why: str) -> None:
    make(server)
    before = server.disk
    said = server.run("add-partition", "/home")
    assert (server.status, said) == (
        1,
        f"add-partition: no partition for /home: {why}; the disk is unchanged\n",
    )
    after = server.disk
    if make is label_is_stuck:  # the step before it succeeded
        before["gpt"], before["backup"] = after["gpt"], after["backup"]
    assert after == before
    assert "/home" not in server.fstab()
    server.mount_all()


def test_a_partition_with_another_use_is_never_formatted(server: Server) -> None:
    server.run("add-partition", "/home")
    label = server.disk["label"]
    # Somebody uses it for another purpose, and an old note still exists.
    (server.etc / "fstab").write_text(
        (server.etc / "fstab").read_text().replace("/home", "/data")
    )
    server.change(file_systems=server.disk["file_systems"] | {"h": "full"})
    for note in ("making h /home", "making h /data", "made h /home"):
        (server.db / "scw_partition").write_text(f"{note}\n")
        server.mount_all()
        server.run("add-partition", "/home")
        assert server.disk["file_systems"]["h"] == "full"
        assert server.disk["label"] == label


def test_a_file_system_that_is_in_use_already_is_not_formatted_again(
    server: Server,
) -> None:
    # It is mounted, but fstab cannot be written; somebody uses it until the boot.
    server.stub("mv", 'case $2 in */fstab) exit 1 ;; esac; exec /bin/mv "$@"')
    said = server.run("add-partition", "/home")
    assert said == "add-partition: cannot write /etc/fstab; /home is mounted\n"
    server.change(file_systems=server.disk["file_systems"] | {"h": "full"})
    server.stub("mv", 'exec /bin/mv "$@"')
    server.mount_all()
    assert server.run("add-partition", "/home") == "/home is sd0h\n"
    assert server.disk["file_systems"]["h"] == "full"
    server.mount_all()
    assert server.disk["mounted"]["/dev/sd0h"] == "/home"


def test_a_file_system_that_cannot_be_made_does_not_get_into_fstab(
    server: Server,
) -> None:
    server.change(newfs_fails=True)
    said = server.run("add-partition", "/home")
    assert said == "add-partition: newfs fails on sd0h; /home is not made\n"
    server.mount_all()
    server.change(newfs_fails=False)
    server.run("new-duid")
    server.run("add-partition", "/home")
    server.mount_all()
    assert "/home" in server.fstab()


def test_a_layout_with_a_home_of_its_own_stays(server: Server) -> None:
    fstab = server.etc / "fstab"
    fstab.write_text(fstab.read_text().replace(" /tmp ", " /home "))
    before = server.disk
    assert server.run("add-partition", "/home") == ""
    assert (server.status, server.disk) == (0, before)


def test_an_enlarged_volume_gets_one_more_partition(server: Server) -> None:
    server.boot()
    server.change(sectors=server.disk["sectors"] + 20_000_000)
    home = server.disk["label"]["partitions"]["h"]
    (server.path / "home/data").mkdir()
    assert server.run("add-partition", "/home/data") == "/home/data is sd0j\n"
    server.mount_all()
    assert server.disk["label"]["partitions"]["h"] == home


@pytest.mark.parametrize("words", [[], ["home"], ["/"], ["/a b"], ["/a", "/b"], ["-n"]])
def test_an_invalid_mount_point_prints_the_usage(
    server: Server, words: list[str]
) -> None:
    before = server.disk
    said = server.run("add-partition", *words)
    assert (server.status, said) == (2, "usage: add-partition mountpoint\n")
    assert server.disk == before


def test_a_label_that_cannot_be_changed_leaves_fstab_with_its_uid(
    server: Server,
) -> None:
    label_is_stuck(server)
    before = (server.etc / "fstab").read_text()
    said = server.run("new-duid")
    assert said == f"new-duid: cannot change the disklabel UID of sd0, {IMAGE_DUID}\n"
    assert (server.etc / "fstab").read_text() == before
