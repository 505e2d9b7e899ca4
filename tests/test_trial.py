"""build-image --try: a finished image boots on two servers outside the cloud.

There is no image of OpenBSD here. tests/guest/stand_in.py plays QEMU and its server
within milliseconds, and a small Linux with this agent boots in the real QEMU.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from guest import build as guest
from guest import disk as disks

from imagebuild import commands, destination, disk, runner, trial
from imagebuild.destination import Volume
from imagebuild.errors import BuildError
from installed import PATIENCE

TOP = Path(__file__).resolve().parent.parent
BUILD_IMAGE = TOP / "packaging/image/build-image"
STAND_IN = TOP / "tests/guest/stand_in.py"
SCAN = """\
import socket, sys
port = int(sys.argv[sys.argv.index("-p") + 1])
try:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        key = connection.recv(100).decode()
        print(f"[127.0.0.1]:{port} ssh-ed25519 {key.replace(' ', '')}")
except OSError:
    sys.exit(1)
"""
SHORT = trial.Limits(signal=8, prompt=5, keys=3, off=3)


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here (on Debian: {package})")


class Bench(NamedTuple):
    """An image, and a stand-in for QEMU that shows the fault in FAULT."""

    directory: Path
    image: Path
    firmware: commands.Firmware

    def go(self, monkeypatch: pytest.MonkeyPatch, fault: str = "") -> list[str]:
        monkeypatch.setenv("FAULT", fault)
        plan = runner.Trial(self.image, self.firmware, ["tcg"], limits=SHORT)
        return runner.carry_out(plan, lambda _: None)

    def machines(self) -> list[str]:
        """Return the command lines of this test's machines that still run."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = each.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "stand_in.py" in line and str(self.directory) in line:
                found.append(line)
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    need("qemu-img", "qemu-utils")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (
        (commands.QEMU, f'exec {sys.executable} {STAND_IN} "$@"'),
        (runner.SCAN, f'exec {sys.executable} {programs}/scan.py "$@"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(0o755)
    (programs / "scan.py").write_text(SCAN)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    firmware = commands.Firmware(tmp_path / "CODE.fd", tmp_path / "VARS.fd")
    for path in firmware:
        path.write_bytes(b"firmware")
    image = tmp_path / "an, image.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"]
    subprocess.run(create, check=True)
    return Bench(tmp_path, image, firmware)


def test_a_good_image_passes_and_stays_unchanged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashlib.sha256(bench.image.read_bytes()).digest()
    lines = bench.go(monkeypatch)
    assert [line.partition("-")[0] for line in lines] == ["try1", "try2"]
    assert all(" s after power-on, at the second boot " in line for line in lines)
    # 1 GiB and 5 or 7 GB more; all but EFI partition and root is /home.
    assert lines[0].endswith("6.1 GB, /home has 5.9 GB")
    assert lines[1].endswith("8.1 GB, /home has 7.9 GB")
    assert hashlib.sha256(bench.image.read_bytes()).digest() == before
    assert list((bench.directory / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            "never",
            r"try\d-\w+: boot: no signal was acknowledged within 8 s of power-on",
        ),
        ("panic", r"boot: the kernel panicked: uvm_fault\(0xffffffff82a3"),
        ("no-loader", "boot: the firmware found nothing to boot"),
        ("single-user", "boot: it came up in single-user"),
        ("dead", "boot: the machine ended; a harmless remark of QEMU"),
        ("kvm", "the machine ended; KVM internal error. Suberror: 1; try --accel tcg"),
        ("guest-reset", "boot: the server rebooted by itself"),
        ("guest-shutdown", "boot: the server powered itself off"),
        ("wrong-name", r"login prompt: the host name is old, not try\d-"),
        ("no-sshd", r"host keys: sshd\(8\) showed no host key within 3 s"),
        ("stays-on", "power-off: it did not power off within 3 s of its button"),
        ("no-home", "nothing was mounted on /home"),
        ("small-home", r"/home leaves 0\.5 GB of the disk unused"),
        ("no-gpt", "the disk has no GPT"),
        ("torn-label", "no disklabel, or a damaged one"),
        ("changes", "the second boot changed the disklabel UID"),
        ("new-key", "the second boot changed the host keys"),
        ("same-uid", "two servers have the same disklabel UID"),
        ("same-key", "two servers have the same SSH host key"),
    ],
)
def test_a_fault_of_a_server_is_one_line_and_leaves_no_machine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str, why: str
) -> None:
    with pytest.raises(BuildError, match=why) as error:
        bench.go(monkeypatch, fault)
    assert "\n" not in str(error.value)
    assert list((bench.directory / "tmp").iterdir()) == []
    assert bench.machines() == []


def test_a_home_that_the_image_has_already_need_not_grow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sectors = 2**30 // disks.SECTOR
    end = sectors - disks.LAST_SECTORS - 1
    parts = {"k": (disks.HOME, end - disks.HOME, disks.FFS)}
    for offset, data in (
        (0, disks.gpt(sectors, end)),
        ((disks.START + 1) * disks.SECTOR, disks.label(bytes(8), sectors, end, parts)),
        (disks.HOME * disks.SECTOR + 65536, disks.superblock("/home")),
    ):
        file = tmp_path / "data"
        sector_end = -(-len(data) // disks.SECTOR) * disks.SECTOR
        file.write_bytes(data.ljust(sector_end, b"\0"))
        words = f"write -s {file} {offset} {file.stat().st_size}"
        subprocess.run(["qemu-io", "-c", words, bench.image], check=True)
    assert len(bench.go(monkeypatch, "small-home")) == 2


def test_the_host_name_may_be_set_after_the_login_prompt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(bench.go(monkeypatch, "late-name")) == 2


def run(bench: Bench, *words: str | Path, fault: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, BUILD_IMAGE, "--firmware", *bench.firmware, *words],
        env={**os.environ, "FAULT": fault},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_try_of_an_image_says_how_long_the_signal_took(bench: Bench) -> None:
    status, out, err = run(bench, "--try", bench.image)
    assert (status, err) == (0, "")
    assert len(re.findall(r"signalled \d+ s after power-on", out)) == 2


def test_a_failure_shows_the_end_of_the_console(bench: Bench) -> None:
    status, _, err = run(bench, "--try", bench.image, fault="panic")
    lines = err.splitlines()
    assert status == 1
    assert lines[0] == "The console said last:"
    assert "    panic: uvm_fault(0xffffffff82a3, 0x0, 0, 1) -> e" in lines
    assert lines[-1].startswith("build-image: try")


def test_json_is_a_line_for_each_stage_and_one_at_the_end(bench: Bench) -> None:
    status, out, err = run(bench, "--json", "--try", bench.image)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert all(set(line) == {"stage", "seconds"} for line in lines[:-1])
    assert set(lines[-1]) == {"image", "seen"}
    status, out, err = run(bench, "--json", "--try", bench.image, fault="panic")
    last = json.loads(out.splitlines()[-1])
    assert (status, "panicked" in last["error"]) == (1, True)
    assert any("ddb" in line or "panic:" in line for line in last["console"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_machines_and_leaves_nothing(
    bench: Bench, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, BUILD_IMAGE, "--try", str(bench.image)),
            *("--firmware", str(bench.firmware.code), str(bench.firmware.variables)),
        ],
        env={**os.environ, "FAULT": "never"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(2):
        assert "first boot" in process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert err == "\nbuild-image: interrupted, and nothing left behind\n"
    assert list((bench.directory / "tmp").iterdir()) == []
    assert bench.machines() == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--try", "nowhere"], "no such image: nowhere"),
        (["--try", __file__], "is not a qcow2 without a backing file, but raw"),
        (["--try", "x", "install80.img"], "--try IMAGE goes with no install image"),
        ([], "which install image? installXX.img, or --try IMAGE"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    bench: Bench, words: list[str], why: str
) -> None:
    status, out, err = run(bench, *words)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert why in err


# The real thing: firmware, kernel, QEMU's network, this agent.


@pytest.fixture(scope="session")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the small guest, once."""
    need(commands.QEMU, "qemu-system-x86")
    need(runner.SCAN, "openssh-client")
    if package := guest.missing():
        pytest.skip(f"the guest cannot be built here (on Debian: {package})")
    return guest.build(tmp_path_factory.mktemp("guest"))


def try_for_real(image: Path, larger: list[int], **limits: float) -> list[str]:
    try:
        firmware = commands.find_firmware(Path.is_file)
    except BuildError:
        pytest.skip("no OVMF here (on Debian: ovmf)")
    plan = runner.Trial(
        image, firmware, ["tcg"], limits=trial.Limits(**limits), larger=larger
    )
    stages: list[str] = []
    try:
        return runner.carry_out(plan, stages.append)
    except BuildError as error:
        error.args = (f"{error}; after {stages}",)
        raise


@pytest.mark.timeout(900)  # without KVM, while four other tests run
def test_a_real_kernel_with_this_agent_passes(linux: Path) -> None:
    before = hashlib.sha256(linux.read_bytes()).digest()
    (line,) = try_for_real(linux, [2 * 10**9])
    assert " s after power-on, at the second boot " in line
    assert hashlib.sha256(linux.read_bytes()).digest() == before


# Each takes minutes without KVM.
if os.environ.get("HYPOTHESIS_PROFILE") == "soak":

    @pytest.mark.parametrize(
        ("mode", "why"),
        [
            ("panic", "boot: the kernel panicked: sysrq triggered crash"),
            ("reboots", "boot: the server rebooted by itself"),
            ("never", "no signal was acknowledged within 120 s"),
            ("no-name", "the host name is"),
            ("no-home", "nothing was mounted on /home"),
            ("changes", "the second boot changed the disklabel UID"),
            ("late", ""),
            ("twin", "two servers have the same disklabel UID"),
        ],
    )
    @pytest.mark.timeout(0)
    def test_a_real_kernel_that_misbehaves_is_found_out(
        linux: Path,
        tmp_path: Path,
        soaking: bool,  # noqa: FBT001 # a fixture
        mode: str,
        why: str,
    ) -> None:
        assert soaking
        image = guest.variant(linux, mode, tmp_path / "image.qcow2")
        limit = 120 if mode == "never" else 1800
        if not why:
            assert len(try_for_real(image, [10**9, 2 * 10**9])) == 2
            return
        larger = [10**9, 2 * 10**9] if mode == "twin" else [10**9]
        with pytest.raises(BuildError, match=why):
            try_for_real(image, larger, signal=limit, prompt=60)


# The course of a boot, and what is read from a disk.


def boot(name: str = "puffy") -> trial.Boot:
    return trial.Boot(name, SHORT, 100.0)


def test_the_seconds_are_those_from_power_on_to_the_signal() -> None:
    course = boot()
    assert list(course.signalled(112.5)) == []
    assert course.seconds == 12.5


def test_a_prompt_before_the_signal_counts_once_the_signal_is_there() -> None:
    course = boot()
    list(course.receive(b"\nOpenBSD/amd64 (puffy.example.org) (tty00)\n\nlogin: ", 101))
    assert course.part.value == "boot"
    list(course.signalled(102))
    assert course.part.value == "host keys"


def test_a_prompt_with_another_name_is_asked_for_again() -> None:
    course = boot()
    list(course.signalled(101))
    assert list(course.receive(b"\nOpenBSD/amd64 (old) (tty00)\n", 102)) == [b"\x04"]
    assert list(course.receive(b"\nOpenBSD/amd64 (puffy) (tty00)\n", 103)) == []
    assert course.part is trial.Part.KEYS


def test_a_missing_prompt_is_asked_for_again_after_a_while() -> None:
    course = trial.Boot("puffy", trial.Limits(), 0.0)
    list(course.signalled(1.0))
    assert course.due == 1.0 + trial.NUDGE
    assert list(course.tick(10.9)) == []
    assert list(course.tick(11.0)) == [b"\x04"]


def test_an_error_has_the_last_lines_of_the_console_all_printable() -> None:
    course = boot()
    for number in range(100):
        list(course.receive(f"line {number}\r\n\r\n".encode(), 101))
    with pytest.raises(trial.TrialError) as error:
        list(course.receive(b"\x1b]0;title\x07\npanic: \x9b31m\xff\n", 102))
    assert len(error.value.console) == trial.SHOWN
    assert all(line.isprintable() for line in error.value.console)


@pytest.mark.parametrize("size", [0, 512, 1 << 20])
def test_an_empty_or_damaged_disk_is_an_error_and_no_traceback(
    size: int,
) -> None:
    data = (b"EFI PART" + os.urandom(504)) * (size // 512)

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length].ljust(length, b"\0")

    with pytest.raises(BuildError):
        disk.layout(read)


# Which volumes may be overwritten.

VOLUME = Volume(Path("/dev/sdb"), 20 * 10**9, "S-42", [], 0, empty=True)


@pytest.mark.parametrize(
    ("volume", "overwrite"),
    [
        (VOLUME, ""),
        (VOLUME._replace(partitions=3, empty=False), "S-42"),
        (VOLUME._replace(partitions=3), "20000000000"),
    ],
)
def test_an_empty_volume_or_one_that_was_named_is_accepted(
    volume: Volume, overwrite: str
) -> None:
    destination.check_volume(volume, 10 * 10**9, overwrite)


@pytest.mark.parametrize(
    ("volume", "overwrite", "why"),
    [
        (VOLUME._replace(used=["mounted on /mnt"]), "S-42", "in use: mounted on /mnt"),
        (VOLUME._replace(size=9 * 10**9), "", r"has 9\.0 GB, and 10\.0 GB are needed"),
        (
            VOLUME._replace(partitions=3),
            "",
            "3 partitions on it: --overwrite S-42 or 20000000000 if that may be lost",
        ),
        (VOLUME._replace(empty=False), "", "has data on it"),
        (VOLUME, "S-43", "neither this serial number nor this size"),
    ],
)
def test_any_other_volume_is_refused(volume: Volume, overwrite: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        destination.check_volume(volume, 10 * 10**9, overwrite)


def test_a_name_that_does_not_end_in_qcow2_is_refused() -> None:
    destination.check_name(Path("new.qcow2"))
    for name in ("new.img", "new", ".qcow2", "new.qcow2.gz"):
        with pytest.raises(BuildError, match="does not end in"):
            destination.check_name(Path(name))
