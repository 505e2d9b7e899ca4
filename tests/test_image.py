"""build-image: the answers, the dialogue, the commands, and all of them together.

OpenBSD's installer does not run here: tests/installer.py stands in for it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from imagebuild import answers, cli, commands, console, machine, medium
from imagebuild import process as processes
from imagebuild.console import Console, Stage, Step, Typed
from imagebuild.errors import BuildError
from installed import PATIENCE
from installer import Facts, Installed, Installer, NoAnswerError, Responses

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent
IMAGE = TOP / "packaging/image"
RELEASE = answers.Release(8, 0)
SERVER = "10.0.2.2:8377"
PLACE = "usr/local/share/scw_signal"
BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()} puffy@example.org"
SYSTEM = answers.System(
    release=RELEASE,
    hostname="puffy",
    ssh_key=KEY,
    timezone="Europe/Paris",
    sets="-game* -x*",
    layout=False,
)
ANYTHING = [
    Facts(frame_buffer, display, openbsd_org, domain)
    for frame_buffer in (True, False)
    for display in (True, False)
    for openbsd_org in (True, False)
    for domain in (True, False)
]


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here (on Debian: {package})")


# The response file, and the installer's questions.


def installed(
    facts: Facts = Facts(),  # noqa: B008 - it has no state
    *,
    without: str = "",
    system: answers.System = SYSTEM,
) -> tuple[Installed, Responses]:
    """Let the installer read our answers, without one of them."""
    text = answers.response_file(system, SERVER)
    if without:
        kept = [line for line in text.splitlines() if not line.startswith(without)]
        assert len(kept) < len(text.splitlines())
        text = "\n".join(kept)
    responses = Responses(text)

    def fetch(url: str) -> str:
        return {
            f"http://{SERVER}/site/index.txt": answers.index("site80.tgz", 4711),
            f"http://{SERVER}/site/site80.tgz": "the site set",
            f"http://{SERVER}/disklabel": "/ 1G-* 100%\n",
        }[url]

    return Installer(responses, facts, lambda _: None, fetch).install(), responses


@pytest.mark.parametrize("facts", ANYTHING)
def test_every_question_has_its_answer_on_any_machine(facts: Facts) -> None:
    done, _ = installed(facts)
    assert done.partitions == "gpt"
    assert done.interfaces == {"vio0": "inet autoconf, inet6 autoconf"}
    assert done.layout == "a"
    assert done.sets == {
        "disk": "bsd bsd.mp bsd.rd base80.tgz comp80.tgz man80.tgz".split(),
        "http": ["site80.tgz"],
    }
    expected = {
        "System hostname": "puffy",
        "Password for root account": "*************",
        "Public ssh key for root account": KEY,
        "Start sshd(8) by default": "yes",
        "Change the default console to com0": "yes",
        "Which speed should com0 use": "115200",
        "Allow root ssh login": "prohibit-password",
        "What timezone are you in": "Europe/Paris",
        "Pathname to the sets": "8.0/amd64",
        "HTTP Server": f"http://{SERVER}",
    }
    assert expected.items() <= done.answers.items()


def test_every_answer_is_used_but_one() -> None:
    left = [set(installed(facts)[1].lines) for facts in ANYTHING]
    # Only i386 and a few others ask this; the answer does no harm.
    assert set.intersection(*left) == {"Do you expect to run the X Window System = no"}


@pytest.mark.parametrize("question", ["System hostname", "Password for root account"])
def test_a_question_without_an_answer_or_a_default_is_noticed(question: str) -> None:
    with pytest.raises(NoAnswerError, match=f"(?i){question}"):
        installed(without=question)


def test_the_site_set_needs_second_answers() -> None:
    # Without the second line, the installer would use the line after it.
    text = answers.response_file(SYSTEM, SERVER)
    assert text.count("\nSet name(s) = ") == 2
    assert text.count("\nContinue without verification = yes") == 2
    assert text.count("\nLocation of sets = ") == 3
    done, _ = installed(without="INSTALL.amd64 not found")
    assert done.sets["http"] == []


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("/ 1G-* 100%\n", 1 << 30),
        ("/ 512M\nswap 80M-256M 10%\n/home 1.5g-*\n", (592 << 20) + (3 << 29)),
        ("/ *\nswap 0\n", 0),
    ],
)
def test_a_layout_needs_the_sum_of_its_least_sizes(layout: str, size: int) -> None:
    assert answers.least_size(layout) == size


def test_a_layout_is_asked_for_where_it_is_served() -> None:
    done, _ = installed(system=SYSTEM._replace(layout=True))
    assert done.layout == "/ 1G-* 100%\n"


def test_all_sets_may_be_installed() -> None:
    done, _ = installed(system=SYSTEM._replace(sets=""))
    assert {"game80.tgz", "xbase80.tgz"} <= set(done.sets["disk"])


# OpenBSD's installer is not part of this source. If INSTALL_SUB names its
# distrib/miniroot/install.sub, the stand-in's look-up is compared to the real one.
INSTALL_SUB = os.environ.get("INSTALL_SUB", "")
LOOK_UP = r"""
err_exit() { print -r -- "$*" >&2; exit 1; }
AI_RESPFILE=$1/ai.conf
eval "$(sed -n '/^_autorespond() {/,/^}/p' "$INSTALL_SUB" | sed "s|/tmp/ai/|$1/|g")"
while IFS=$(print "\t") read -r question default; do
	resp=
	_autorespond "$question" "$default" && print -r -- "$resp"
done
"""


class Recording(Responses):
    """Remembers every question, its default, and the answer that was found."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.asked: list[tuple[str, str, str]] = []

    def answer(self, question: str, default: str = "") -> str:
        answer = super().answer(question, default)
        self.asked.append((question, default, answer))
        return answer


if INSTALL_SUB:

    @pytest.mark.parametrize("facts", ANYTHING)
    def test_the_installer_itself_finds_the_same_answers(
        tmp_path: Path, facts: Facts
    ) -> None:
        need("mksh", "mksh")
        text = answers.response_file(SYSTEM, SERVER)
        (tmp_path / "ai.conf").write_text(text)
        recording = Recording(text)
        listing = answers.index("site80.tgz", 4711)
        Installer(recording, facts, lambda _: None, lambda _: listing).install()
        found = subprocess.run(
            ["mksh", "-c", LOOK_UP, "mksh", tmp_path],
            env={**os.environ, "INSTALL_SUB": INSTALL_SUB},
            input="".join(f"{one}\t{default}\n" for one, default, _ in recording.asked),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        assert found.stdout.splitlines() == [answer for _, _, answer in recording.asked]


# Invalid answers.


@pytest.mark.parametrize(
    "word", ["-rf", "a;b", "", "a b", "a\nb", "a.example.org", "x" * 64, "a=b", "a-"]
)
def test_anything_but_a_short_host_name_is_refused(word: str) -> None:
    with pytest.raises(BuildError, match=r"^not a host name: [ -~]*$"):
        answers.hostname(word)


@pytest.mark.parametrize("word", ["puffy", "web-1", "X", "x" * 63])
def test_a_short_host_name_is_accepted(word: str) -> None:
    assert answers.hostname(word) == word


@pytest.mark.parametrize("word", ["", "?", "../etc", "Europe/", "a b", "UTC\n", "/UTC"])
def test_anything_but_a_time_zone_is_refused(word: str) -> None:
    with pytest.raises(BuildError, match="not a time zone"):
        answers.timezone(word)


@pytest.mark.parametrize("words", ["done", "abort", "-x*; halt", "x=y", "-"])
def test_anything_but_a_pattern_of_sets_is_refused(words: str) -> None:
    with pytest.raises(BuildError, match="not a pattern of sets"):
        answers.sets(words)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 lines"),
        (f"{KEY}\n{KEY}\n", "2 lines"),
        (f'command="rm -rf /" {KEY}\n', "not a public key"),
        (f"{KEY}\rSet name(s) = x\n", "2 lines"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "not a public key"),
    ],
)
def test_anything_but_a_single_public_key_is_refused(text: str, why: str) -> None:
    with pytest.raises(BuildError, match=rf"^k\.pub: [ -~]*{why}"):
        answers.ssh_key(text, "k.pub")


def test_a_public_key_is_accepted_with_its_comment() -> None:
    assert answers.ssh_key(f"{KEY}\n\n", "k.pub") == KEY


# The dialogue.

STEPS = [
    Step("boot> ", "loading", 100.0, "boot", again=10.0),
    Step("started", "running", 100.0),
    Step(r"Where\? ", "installing", 200.0, "there"),
    Step("rebooting", "over", 1000.0),
]


def told(dialogue: Console, text: bytes, now: float = 0.0) -> list[Typed | Stage]:
    return list(dialogue.receive(text, now))


def told_slowly(dialogue: Console, text: bytes) -> list[Typed | Stage]:
    return [event for byte in text for event in told(dialogue, bytes([byte]))]


def test_prompts_are_answered_in_their_order() -> None:
    dialogue = Console(STEPS, 0.0)
    assert told(dialogue, b"Where? boot> ") == [Stage("loading"), Typed(b"boot\r")]
    assert told(dialogue, b"boot\r\nstarted\r\nWhere? ") == [
        *(Stage("running"), Stage("installing"), Typed(b"there\r"))
    ]
    assert not dialogue.finished
    assert told(dialogue, b"there\r\nrebooting...") == [Stage("over")]
    assert dialogue.finished


def test_a_prompt_may_come_byte_by_byte_with_escape_sequences() -> None:
    dialogue = Console(STEPS, 0.0)
    drawn = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[37mbo\x1b[1m\x1b[40mot>\x00\x07 "
    assert told_slowly(dialogue, drawn) == [Stage("loading"), Typed(b"boot\r")]


def test_binary_noise_does_no_harm() -> None:
    dialogue = Console(STEPS, 0.0)
    assert told(dialogue, bytes(range(256)) * 100 + b"\x1b[" * 9999) == []
    assert told(dialogue, b"\nboot> ")[0] == Stage("loading")


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (
            'Question has no answer in response file: "system hostname? (short)"\r\n',
            r"has no answer to [a-z ]+: system hostname\? \(short\)$",
        ),
        ("'Mars' is not a valid timezone on this system.", "'Mars' is not a valid"),
        ("No response file found; non-interactive mode aborted.", "could not get the"),
        ("No dhcp address on interface vio0 in 30 seconds.", "no network"),
        ("Installation of site80.tgz failed. Continue anyway?", "site80.tgz"),
        ("install.site failed", "script of the site set"),
        ("failed; check /tmp/ai/ai.log", "gave up"),
        (
            "panic: kernel diagnostic\x1b[0m assertion\r\n",
            "panicked: kernel diagnostic a",
        ),
        ("Stopped at db_enter+0x14\r\nddb{1}> ", "debugger"),
        ("ddb> ", "debugger"),
        ("root device: ", "root"),
        ("UEFI Interactive Shell v2.2", "nothing to boot"),
        ("found no OpenBSD sets.  The set names", "found no sets"),
    ],
)
def test_every_way_to_fail_ends_it_and_says_why(output: str, why: str) -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> ")
    with pytest.raises(BuildError, match=f"^loading: [ -~]*{why}"):
        told_slowly(dialogue, output.encode())


def test_a_failure_before_a_prompt_counts_more_than_the_prompt() -> None:
    dialogue = Console(STEPS, 0.0)
    with pytest.raises(BuildError, match="nothing to boot"):
        told(dialogue, b"No bootable option\r\nboot> ")


def test_a_stage_that_takes_too_long_ends_it() -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> boot\r\nstarted\r\nchecking the disk\r\n", 50.0)
    told(dialogue, b".", 249.0)  # output alone does not extend the time
    assert dialogue.due == 250.0
    assert list(dialogue.tick(249.9)) == []
    with pytest.raises(
        BuildError, match=r"^running: not finished after 200 s; .*: \.$"
    ):
        list(dialogue.tick(250.0))


def test_a_question_that_nobody_answers_is_named_before_the_stage_is_over() -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> boot\r\nstarted\r\n", 0.0)
    told(dialogue, b"(I)nstall or (U)pgrade? [x] ", 10.0)
    assert dialogue.due == 10.0 + console.ANSWER_SECONDS
    with pytest.raises(BuildError, match=r"has no answer: \(I\)nstall or \(U\)pgr"):
        list(dialogue.tick(dialogue.due))


def test_what_the_boot_loader_missed_is_typed_again() -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> ", 1.0)
    told(dialogue, b"bo", 2.0)
    assert dialogue.due == 12.0
    assert list(dialogue.tick(12.0)) == [Typed(b"\x15boot\r")]
    assert dialogue.due == 22.0
    told(dialogue, b"started", 13.0)
    assert dialogue.due == 13.0 + 200.0  # what did arrive is not typed again


def test_a_machine_that_does_not_end_after_its_reboot_is_an_error() -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> started Where? rebooting", 5.0)
    assert dialogue.due == 5.0 + console.SHUTDOWN_SECONDS
    with pytest.raises(BuildError, match="did not end"):
        list(dialogue.tick(dialogue.due))


def test_each_set_is_shown_once() -> None:
    dialogue = Console(STEPS, 0.0)
    told(dialogue, b"boot> ")
    output = b"\rInstalling base80.tgz   %d%% |***| 00:01 ETA"
    events = [
        event for percent in range(100) for event in told(dialogue, output % percent)
    ]
    assert events == [Stage("loading: base80.tgz")]


def test_the_last_lines_of_a_stage_are_shown_too() -> None:
    dialogue = Console(STEPS, 0.0)
    output = b"boot> \nInstalling base80.tgz 100% |***|\npython-3.13.5: ok\nstarted"
    assert told(dialogue, output) == [
        Stage("loading"),
        Typed(b"boot\r"),
        Stage("loading: base80.tgz"),
        Stage("package python-3.13.5"),
        Stage("running"),
    ]


def test_the_output_of_the_guest_is_not_shown_raw() -> None:
    dialogue = Console(STEPS, 0.0)
    with pytest.raises(BuildError) as error:
        told(dialogue, b"panic: \x9b31m\xe2\x80\xae\x85\x1b]0;title\x07\n")
    assert str(error.value).isprintable()


# The medium and its checksum.


def lines_of(image: Path) -> str:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    return f"SHA256 (BUILDINFO) = {'0' * 64}\nSHA256 ({image.name}) = {digest}\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "install80.img"
    path.write_bytes(b"an install image\n" * 1000)
    (tmp_path / "SHA256").write_text(lines_of(path))
    return path


@pytest.mark.parametrize(
    "name", ["miniroot80.img", "install80.iso", "install8.img", "install80.img.part"]
)
def test_another_medium_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BuildError, match=r"as in install80\.img"):
        medium.release_of(Path(name))


def test_the_name_tells_the_release() -> None:
    assert str(medium.release_of(Path("install80.img"))) == "8.0"
    assert str(medium.release_of(Path("install103.img"))) == "10.3"


def test_a_good_checksum_is_accepted(image: Path) -> None:
    said = medium.verify(medium.plan(image, RELEASE, None))
    assert said.startswith("checksum of install80.img: good; its signature was not")


def test_an_image_that_was_changed_is_refused(image: Path) -> None:
    with image.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BuildError, match="does not match SHA256"):
        medium.verify(medium.plan(image, RELEASE, None))


def test_a_list_without_the_image_is_refused(image: Path) -> None:
    image.with_name("SHA256").write_text("SHA256 (xinstall80.img) = " + "0" * 64)
    with pytest.raises(BuildError, match=r"no line for install80\.img"):
        medium.verify(medium.plan(image, RELEASE, None))


def test_an_image_without_a_list_is_refused(image: Path) -> None:
    image.with_name("SHA256").unlink()
    with pytest.raises(BuildError, match=r"no SHA256\.sig and no SHA256 beside"):
        medium.plan(image, RELEASE, None)


@pytest.fixture
def signed(image: Path) -> Path:
    """Return an image with a signed list, like OpenBSD's."""
    need("signify-openbsd", "signify-openbsd")
    key = "openbsd-80-base"
    for words in (
        ["-Gn", "-p", f"{key}.pub", "-s", f"{key}.sec"],
        ["-Se", "-s", f"{key}.sec", "-m", "SHA256"],
    ):
        subprocess.run(["signify-openbsd", *words], cwd=image.parent, check=True)
    image.with_name("SHA256").unlink()
    return image


def test_a_signature_is_checked_if_the_key_is_there(signed: Path) -> None:
    said = medium.verify(medium.plan(signed, RELEASE, None))
    key = signed.with_name("openbsd-80-base.pub")
    assert said == (
        f"signature and checksum of install80.img: good, by {key}, which is beside it:"
        " compare its second line with the one on https://www.openbsd.org/80.html"
    )


def test_a_key_from_elsewhere_need_not_be_compared(signed: Path) -> None:
    key = signed.with_name("openbsd-80-base.pub")
    elsewhere = signed.parent / "etc" / key.name
    elsewhere.parent.mkdir()
    key.rename(elsewhere)
    said = medium.verify(medium.plan(signed, RELEASE, elsewhere))
    assert said.endswith(f"good, by {elsewhere}")


def test_without_a_key_the_signature_is_not_checked(signed: Path) -> None:
    signed.with_name("openbsd-80-base.pub").unlink()
    said = medium.verify(medium.plan(signed, RELEASE, None))
    assert said.endswith("its signature was not checked")


def test_a_bad_signature_is_refused_though_the_checksum_is_right(signed: Path) -> None:
    checksums = signed.with_name("SHA256.sig")
    checksums.write_text(checksums.read_text().replace("BUILDINFO", "BUILDINGS"))
    with pytest.raises(BuildError, match="the signature is not good: signify"):
        medium.verify(medium.plan(signed, RELEASE, None))


def test_a_signed_image_that_was_changed_is_refused(signed: Path) -> None:
    signed.write_bytes(b"something else")
    with pytest.raises(BuildError, match=r"is not good: .*FAIL"):
        medium.verify(medium.plan(signed, RELEASE, None))


def test_a_key_without_signify_is_an_error_and_not_a_lesser_check(
    signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildError, match="apt install signify-openbsd"):
        medium.plan(signed, RELEASE, None)


# All of it together, with a stand-in for the machine.


# Like the script, but without asking for the space that a real build needs.
BUILD = f"""import sys
sys.path.insert(0, {str(IMAGE)!r})
from imagebuild import cli
cli.SPACE = 0
sys.exit(cli.main())"""


class Bench(NamedTuple):
    """A place to build an image in."""

    directory: Path
    environment: dict[str, str]
    words: list[str]
    port: int

    def start(self, *more: str | Path, fault: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, *self.words, *more],
            cwd=self.directory,
            env={**self.environment, "FAULT": fault},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *more: str | Path, fault: str = "") -> tuple[int, str, str]:
        process = self.start(*more, fault=fault)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def left(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}

    def machines(self) -> list[str]:
        """Return the machines that run for this build."""
        return [
            command
            for process in Path("/proc").glob("[0-9]*/cmdline")
            if str(self.directory) in (command := read(process).replace("\0", " "))
            and "installer.py" in command
        ]


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # the process is gone
        return ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def site_set(path: Path) -> None:
    """Make a site set with the files that build-image looks at."""
    with tarfile.open(path, "w:gz") as archive:
        for name in ("install.site", f"{PLACE}/packages/python-3.13.5.tgz"):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"bytes"))


def options_in(path: Path) -> str:
    """Return what a site set tells install.site and the first boot."""
    with tarfile.open(path) as archive:
        file = archive.extractfile(f"{PLACE}/image")
        assert file is not None
        return file.read().decode()


@pytest.fixture
def bench(image: Path) -> Bench:
    need("qemu-img", "qemu-utils")
    here = image.parent
    programs = here.with_name(f"{here.name}-bin")
    programs.mkdir()
    qemu = programs / commands.QEMU
    installer = TOP / "tests/installer.py"
    qemu.write_text(f'#!/bin/sh\nexec {sys.executable} {installer} "$@"\n')
    qemu.chmod(0o755)
    site_set(here / "site80.tgz")
    (here / "k.pub").write_text(KEY)
    for name in ("CODE.fd", "VARS.fd"):
        (here / name).write_bytes(b"firmware")
    port = free_port()
    words = (
        "--ssh-key k.pub --site site80.tgz --firmware CODE.fd VARS.fd --no-try"
        f" --port {port}"
    )
    return Bench(
        here,
        {"PATH": f"{programs}:{os.environ['PATH']}", "LC_ALL": "C"},
        ["install80.img", *words.split(), "--output", "new.qcow2"],
        port,
    )


def test_an_image_is_built_and_the_next_steps_are_shown(bench: Bench) -> None:
    before = bench.left()
    status, out, err = bench.run("--console", "console", "--bucket", "puffy")
    assert (status, err) == (0, "")
    assert bench.left() - before == {
        *("new.qcow2", "new.qcow2.SHA256", "new.qcow2.txt", "console")
    }
    info = subprocess.run(
        ["qemu-img", "info", "new.qcow2"],
        cwd=bench.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file format: qcow2" in info.stdout
    assert "8000000000 bytes" in info.stdout
    stages = [line[8:] for line in out.split("\n\n")[0].splitlines()]
    order = [
        "firmware",
        "boot loader",
        "installer: disk",
        "sets of the release: base80.tgz",
    ]
    order += ["site set site80.tgz", "install.site", "reboot", "compression"]
    assert [stage for stage in stages if stage in order] == order
    assert "bucket=puffy key=new.qcow2" in out
    assert b"CONGRATULATIONS!" in (bench.directory / "console").read_bytes()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """Return a block device of 9 GB that takes no space, with a file system on it."""
    need("losetup", "mount")
    need("mkfs.ext4", "e2fsprogs")
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(9 * 10**9)
    words = ["losetup", "--find", "--show", "--partscan", str(backing)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", str(device)], check=True)
    yield device
    subprocess.run(["losetup", "--detach", str(device)], check=True)


def test_a_whole_volume_that_was_named_gets_the_image(
    bench: Bench, device: Path
) -> None:
    assert any(start_of(device))
    status, out, err = bench.run("--output", device, "--overwrite", "9000000000")
    assert (status, err) == (0, "")
    assert out.endswith(f"{device} is written.\n")
    assert not any(start_of(device))  # the stand-in's disk is empty as well
    assert "new.qcow2" not in bench.left()


def test_a_volume_with_something_on_it_is_left_alone(
    bench: Bench, device: Path
) -> None:
    before = start_of(device)
    status, _, err = bench.run("--output", device)
    advice = "--overwrite 9000000000 if that may be lost"
    assert (status, err) == (1, f"build-image: {device} has data on it: {advice}\n")
    assert start_of(device) == before


def test_a_mounted_volume_is_left_alone_even_if_it_was_named(
    bench: Bench, device: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", str(device), str(place)], check=True)
    try:
        (place / "kept").write_text("as it was")
        status, _, err = bench.run("--output", device, "--overwrite", "9000000000")
        assert status == 1
        assert err == f"build-image: {device} is in use: mounted on {place}\n"
        assert (place / "kept").read_text() == "as it was"
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_volume_with_partitions_is_left_alone(bench: Bench, device: Path) -> None:
    subprocess.run(
        ["sfdisk", "--quiet", "--wipe", "always", str(device)],
        input="label: gpt\nsize=100M\nsize=200M\n",
        text=True,
        check=True,
    )
    status, _, err = bench.run("--output", device)
    # A kernel that does not know this partition table takes it for data.
    assert (status, "on it: --overwrite 9000000000" in err) == (1, True)


def start_of(device: Path) -> bytes:
    with device.open("rb") as file:
        return file.read(1 << 20)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("panic", "kernel of the installer: the kernel panicked: uvm_fault"),
        ("no-medium", "firmware: the firmware found nothing to boot"),
        ("install.site", "kernel: the script of the site set failed"),
        ("dead", "firmware: the machine ended too early; a harmless remark of QEMU"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    bench: Bench, fault: str, why: str
) -> None:
    (bench.directory / "new.qcow2").write_bytes(b"that of last week")
    before = bench.left()
    status, _, err = bench.run(fault=fault)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"build-image: {why}")
    assert bench.left() == before
    assert (bench.directory / "new.qcow2").read_bytes() == b"that of last week"
    assert bench.machines() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_machine_too_and_leaves_nothing(
    bench: Bench, number: signal.Signals
) -> None:
    before = bench.left()
    process = bench.start(fault="hang")
    assert process.stdout is not None
    while "device nodes" not in process.stdout.readline():
        assert process.poll() is None
    assert len(bench.machines()) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    assert err == "\nbuild-image: interrupted, and nothing left behind\n"
    assert bench.left() == before
    assert bench.machines() == []


def test_ctrl_c_leaves_nothing_at_any_stage(bench: Bench) -> None:
    before = bench.left()
    stages = 0
    for number in itertools.count(1):
        process = bench.start()
        assert process.stdout is not None
        for _ in range(number):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert bench.machines() == []
        if "new.qcow2" in bench.left():  # the build was already done
            assert {"new.qcow2.SHA256", "new.qcow2.txt"} <= bench.left()
            assert "nothing left" not in err
            break
        assert process.returncode == -signal.SIGINT, (number, err)
        assert err == "\nbuild-image: interrupted, and nothing left behind\n"
        assert bench.left() == before
        stages += 1
    assert stages > 10


@pytest.mark.parametrize("number", processes.ENDING)
def test_a_signal_while_a_program_starts_does_not_leave_it_running(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    born: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            born.append(self)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with (
        cli.ended_by_signals(),
        pytest.raises(KeyboardInterrupt) as ended,
    ):
        processes.run(["sleep", "1000"])
    assert ended.value.args == (number,)
    assert born[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("kilobytes", [4, 24, 64, 200])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    bench: Bench, tmp_path: Path, kilobytes: int
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    had = sum((file.stat().st_size + 4095) // 4096 * 4 for file in ours(bench))
    size = f"size={had + kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "small", small], check=True)
    try:
        for file in ours(bench):
            shutil.copy(file, small)
        full = bench._replace(directory=small)
        before = full.left()
        status, _, err = full.run()
        assert (status, err.count("\n")) == (1, 1), err
        assert "No space left on device" in err
        assert full.left() == before
    finally:
        subprocess.run(["umount", small], check=True)


def ours(bench: Bench) -> list[Path]:
    """Return the files that a build begins with."""
    return [file for file in bench.directory.iterdir() if file.is_file()]


def test_a_machine_that_hangs_is_ended(tmp_path: Path) -> None:
    steps = [Step("never", "late", 0.2)]
    words = [sys.executable, str(TOP / "tests/installer.py"), str(tmp_path)]
    began = time.monotonic()
    with pytest.raises(BuildError, match=r"^firmware: not finished after 0 s"):
        machine.converse(words, steps, lambda _: None, None)
    assert time.monotonic() - began < PATIENCE
    assert Bench(tmp_path, {}, [], 0).machines() == []


def test_beside_an_image_are_its_checksum_and_a_description(bench: Bench) -> None:
    assert bench.run("--console-keys")[0] == 0
    subprocess.run(
        ["cksum", "-a", "sha256", "--check", "new.qcow2.SHA256"],
        cwd=bench.directory,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    text = (bench.directory / "new.qcow2.txt").read_text()
    rows = dict(line.split(":", 1) for line in text.splitlines())
    assert {name: value.strip() for name, value in rows.items()}.items() >= {
        "OpenBSD": "8.0 amd64, from install80.img",
        "sets": "-game* -x*",
        "layout": "/ 700M, swap 512M, /tmp 512M, /var 1280M, /usr 3G, /usr/local 1280M",
        "host name": "openbsd",
        "SSH keys": "the one given and those of the cloud's console",
        "packages": "python-3.13.5",
        "tried": "no",
    }.items()
    assert rows["scw-signal"].strip().startswith("1.")


@pytest.mark.parametrize(
    ("words", "options", "key"),
    [
        ("--ssh-key k.pub", "python\n", KEY),
        ("--ssh-key k.pub --console-keys", "console-keys\npython\n", KEY),
        ("", "console-keys\npython\n", "none"),
        ("--packages-at-boot", "console-keys\n", "none"),
        ("--ssh-key k.pub --packages-at-boot", "", KEY),
    ],
)
def test_the_site_set_tells_the_guest_of_keys_and_packages(
    bench: Bench, words: str, options: str, key: str
) -> None:
    kept = bench.words[: bench.words.index("--ssh-key")]
    kept += bench.words[bench.words.index("--site") :]
    bench.words[:] = [*kept, *words.split()]
    _, out, err = bench.run("--dry-run")
    assert err == ""
    lines = [line for line in out.splitlines() if commands.QEMU not in line]
    subprocess.run(
        ["sh", "-c", "\n".join(lines[:-1])],
        env=bench.environment,
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
    )
    served = bench.directory / "new.qcow2.work/served"
    assert options_in(served / "site/site80.tgz") == options
    assert (
        f"Public ssh key for root account = {key}\n"
        in (served / "install.conf").read_text()
    )


def test_the_site_set_keeps_its_other_files(tmp_path: Path) -> None:
    site_set(tmp_path / "old.tgz")
    machine.extend(tmp_path / "old.tgz", tmp_path / "new.tgz", b"console-keys\n")
    with tarfile.open(tmp_path / "new.tgz") as archive:
        names = archive.getnames()
    assert names == [
        "install.site", f"{PLACE}/packages/python-3.13.5.tgz", f"{PLACE}/image"
    ]  # fmt: skip
    assert options_in(tmp_path / "new.tgz") == "console-keys\n"


def test_an_image_that_nobody_could_log_in_to_is_refused(bench: Bench) -> None:
    at = bench.words.index("--ssh-key")
    del bench.words[at : at + 2]
    status, out, err = bench.run("--no-console-keys")
    assert (status, out) == (1, "")
    assert err == (
        "build-image: nobody could log in: use --ssh-key FILE or --console-keys\n"
    )


def test_a_file_that_is_no_site_set_is_refused(bench: Bench) -> None:
    (bench.directory / "site80.tgz").write_bytes(b"no set")
    before = bench.left()
    status, _, err = bench.run()
    assert (status, err.count("\n")) == (1, 1)
    assert "not a site set, or incomplete: " in err
    assert bench.left() == before


def test_each_package_that_the_guest_has_added_is_shown() -> None:
    dialogue = Console(STEPS, 0.0)
    assert told_slowly(dialogue, b"python-3.13.5p0: ok\r\nnot a package: ok\r\n") == [
        Stage("package python-3.13.5p0")
    ]


def test_json_tells_of_the_image_at_the_end(bench: Bench) -> None:
    status, out, err = bench.run("--json")
    assert (status, err) == (0, "")
    *stages, last = map(json.loads, out.splitlines())
    assert all(set(line) == {"stage", "seconds"} for line in stages)
    image = bench.directory / "new.qcow2"
    assert last["image"] == str(image)
    assert last["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert any("root-volume=sbs:" in line for line in last["commands"])


def test_a_dry_run_prints_what_a_shell_can_run_and_touches_nothing(
    bench: Bench,
) -> None:
    before = bench.left()
    status, out, err = bench.run("--dry-run")
    assert (status, err, bench.left()) == (0, "", before)
    # Run all but the machine itself, whose console needs a person.
    lines = [line for line in out.splitlines() if commands.QEMU not in line]
    (machine_line,) = set(out.splitlines()) - set(lines)
    words = shlex.split(machine_line)
    assert words[:3] == ["python3", "-m", "http.server"]
    assert "readonly=on" in machine_line
    kept = lines.pop()
    assert kept == f"rm -rf {bench.directory}/new.qcow2.work"
    subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        env=bench.environment,
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
    )
    served = bench.directory / "new.qcow2.work/served"
    server = f"10.0.2.2:{bench.port}"
    system = SYSTEM._replace(hostname="openbsd", timezone="UTC", layout=True)
    assert (served / "disklabel").read_text() == cli.LAYOUT.read_text()
    assert (served / "install.conf").read_text() == answers.response_file(
        system, server
    )
    assert options_in(served / "site/site80.tgz") == "python\n"
    assert (bench.directory / "new.qcow2").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--hostname", "a;b"], "not a host name: 'a;b'"),
        (["--hostname=-rf"], "not a host name: '-rf'"),
        (["--site", "nowhere.tgz"], "no nowhere.tgz: make site RELEASE=8.0"),
        (["--ssh-key", "nowhere"], "nowhere: No such file or directory"),
        (["--ssh-key", "."], ".: Is a directory"),
        (["--ssh-key", "install80.img"], "install80.img: "),
        (["--disk-size", "1"], "--disk-size 1: must be from 4 to"),
        (["--key", "nowhere"], "no such key: nowhere"),
        (["--firmware", "CODE.fd", "no"], "no such firmware: no"),
        (["--output", "/nonexistent/new"], "cannot be written: /nonexistent/new"),
        (["--output", "new.img"], "'new.img' does not end in .qcow2"),
        (["--overwrite", "S-42"], "--overwrite is for an --output that is a volume"),
        (["--output", "/dev/null"], "cannot be written: /dev/null"),
        (["--disk-size", "7"], "--disk-size 7: the layout needs 7.7 GB"),
        (["--disk-size", "1001"], "--disk-size 1001: must be from 4 to 1000"),
        (["--zone", "-o"], "expected one argument"),
        (["--zone=$(id)"], "not a name of a zone: '$(id)'"),
        (["--port", "x"], "invalid int value"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(
    bench: Bench, words: list[str], why: str
) -> None:
    before = bench.left()
    status, out, err = bench.run(*words)
    assert status == (2 if "usage:" in err else 1)
    assert why in err.splitlines()[-1]
    assert status == 2 or err.count("\n") == 1
    assert out == ""
    assert bench.left() == before


def test_an_image_that_is_no_file_is_refused(bench: Bench) -> None:
    (bench.directory / "install80.img").unlink()
    (bench.directory / "install80.img").mkdir()
    status, _, err = bench.run()
    assert (status, "no such image" in err) == (1, True)


def test_a_missing_program_is_named_with_its_package(bench: Bench) -> None:
    bench.environment["PATH"] = "/nonexistent"
    status, _, err = bench.run()
    assert status == 1
    assert err == (
        "build-image: there is no qemu-system-x86_64: apt install qemu-system-x86\n"
    )
    with pytest.raises(BuildError, match="apt install ovmf"):
        commands.find_firmware(lambda _: False)


def test_a_port_that_is_taken_is_reported(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, _, err = bench.run("--port", str(taken.getsockname()[1]))
    assert (status, "choose another: --port" in err) == (1, True)
    assert "new.qcow2" not in str(bench.left())


def test_two_builds_of_one_image_cannot_run_at_once(bench: Bench) -> None:
    (bench.directory / "new.qcow2.work").mkdir()
    status, _, err = bench.run()
    assert (status, "another build is running" in err) == (1, True)
    assert "new.qcow2.work" in bench.left()


def test_too_little_space_is_reported_before_anything_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bench.directory)
    monkeypatch.setenv("PATH", bench.environment["PATH"])
    monkeypatch.setattr(cli, "SPACE", 1 << 62)
    before = bench.left()
    assert cli.main(bench.words) == 1
    assert "too little space" in capsys.readouterr().err
    assert bench.left() == before


def test_the_files_are_served_to_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "install.conf").write_text("x = y\n")
    with machine.serving(tmp_path, 0) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /install.conf?path=8.0/amd64 HTTP/1.0\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"\r\n\r\nx = y\n")
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X} 00000000:0000 0A" in listening


# The commands.


def test_file_names_may_contain_any_character(tmp_path: Path) -> None:
    strange = tmp_path / "a, b;$(id)"
    shop = commands.Workshop(strange)
    firmware = commands.Firmware(strange / "C", strange / "V")
    words = commands.machine(shop, firmware, strange / "install80.img", ["tcg"])
    assert f"file={tmp_path}/a,, b;$(id)/install80.img" in " ".join(words)
    cloud = commands.in_the_cloud(strange / "new.qcow2", "puffy", "nl-ams-1")
    assert shlex.split(cloud[0])[3] == f"{strange}/new.qcow2"
    assert "https://s3.nl-ams.scw.cloud" in cloud[0]
    subprocess.run(["sh", "-n"], input="\n".join(cloud), text=True, check=True)


def test_the_disk_is_before_the_medium_on_the_bus_and_after_it_at_boot() -> None:
    nowhere = Path("/nowhere")
    words = commands.machine(
        commands.Workshop(nowhere),
        commands.Firmware(nowhere, nowhere),
        nowhere / "install80.img",
        ["kvm", "tcg"],
    )
    (disk,) = [word for word in words if word.startswith("virtio-blk-pci,drive=disk")]
    (installs,) = [word for word in words if "drive=medium" in word]
    assert disk.endswith("addr=0x3,bootindex=2")
    assert installs.endswith("addr=0x4,bootindex=1")
    assert words[words.index("-smp") + 1] == "2"  # with one, bsd.mp would be left out
    assert "-no-reboot" in words


def test_the_real_qemu_takes_the_command_line_and_the_dialogue_follows_it(
    tmp_path: Path,
) -> None:
    need(commands.QEMU, "qemu-system-x86")
    need("qemu-img", "qemu-utils")
    try:
        firmware = commands.find_firmware(Path.is_file)
    except BuildError:
        pytest.skip("no OVMF here (on Debian: ovmf)")
    shop = commands.Workshop(tmp_path)
    shutil.copy(firmware.variables, shop.variables)
    shop.variables.chmod(stat.S_IRUSR | stat.S_IWUSR)
    subprocess.run(commands.create(shop, 10), check=True)
    medium_file = tmp_path / "install80.img"
    medium_file.write_bytes(bytes(1 << 20))
    words = commands.machine(shop, firmware, medium_file, ["tcg"])
    steps = console.installation(SERVER, "site80.tgz")
    stages: list[str] = []
    with pytest.raises(
        BuildError, match="firmware: the firmware found nothing to boot"
    ):
        machine.converse(words, steps, stages.append, None)
    assert stages == ["firmware"]
