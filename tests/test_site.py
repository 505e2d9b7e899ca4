"""The site set: what is in it, and what its scripts do to a system under mksh."""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from installed import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOP = Path(__file__).resolve().parent.parent
IMAGE = "packaging/image"
PLACE = "./usr/local/share/scw_signal"
PYTHON = "touch /usr/local/bin/python3; chmod +x /usr/local/bin/python3"
SCRIPTS = [
    f"{PLACE}/{name}"
    for name in ("add-partition", "console-keys", "first-boot", "first-server",
                 "new-duid", "scw-seal")
]  # fmt: skip
TTYS = """\
console	"/usr/libexec/getty std.9600"	vt220	off secure
tty00	"/usr/libexec/getty std.9600"	unknown off
"""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an unpacked release, with empty packages as its libraries."""
    directory = tmp_path_factory.mktemp("release")
    for part in ("packaging", "rc.d", "scw_signal"):
        shutil.copytree(TOP / part, directory / part)
    shutil.copy(TOP / "LICENSE", directory)
    for package in ("urllib3", "tenacity"):
        (directory / "vendor" / package).mkdir(parents=True)
        (directory / "vendor" / package / "__init__.py").touch()
    return directory


def make(
    release: Path, *words: str | Path, umask: int = 0o022, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, release / IMAGE / "make-site", *words],
        env={"SOURCE_DATE_EPOCH": "1700000000", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        umask=umask,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="session")
def site(release: Path) -> Path:
    done = make(release, "8.0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "dist/site80.tgz\n", "")
    return release / "dist/site80.tgz"


def test_the_same_input_gives_the_same_bytes(site: Path, release: Path) -> None:
    before = site.read_bytes()
    for path in release.rglob("*.py"):
        path.touch()
    assert make(release, "8.0", umask=0o077).returncode == 0
    assert site.read_bytes() == before


def test_the_set_holds_only_files_and_root_owns_them(
    site: Path,
) -> None:
    with tarfile.open(site) as archive:
        members = archive.getmembers()
    assert all((member.uid, member.gid) == (0, 0) for member in members)
    # A directory in the set would change the mode of the one in the system.
    assert all(member.isfile() for member in members)
    assert {member.mode for member in members} == {0o644, 0o755}
    names = {member.name: member.mode for member in members}
    for script in ("./install.site", "./upgrade.site", *SCRIPTS):
        assert names.pop(script) == 0o755
    for file in (f"{PLACE}/server.sub", "./usr/local/man/man8/scw-seal.8"):
        assert names.pop(file) == 0o644
    assert all(name.startswith(f"{PLACE}/release/") for name in names)


def test_it_has_what_the_installation_needs(site: Path) -> None:
    with tarfile.open(site) as archive:
        names = set(archive.getnames())
    for path in (
        "packaging/openbsd/install", "rc.d/scw_signal", "scw_signal/agent.py",
        "packaging/man/scw-signald.8", "vendor/urllib3/__init__.py",
        "vendor/tenacity/__init__.py",
    ):  # fmt: skip
        assert f"{PLACE}/release/{path}" in names


def package(path: Path, *depends: str, first: str = "+CONTENTS") -> Path:
    """Make a package in OpenBSD's shape: the packing list, and then the files."""
    lines = "".join(f"@depend {depend}\n" for depend in depends)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (
            (first, f"@name {path.stem}\n{lines}".encode()),
            ("bin/x", os.urandom(100_000)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


LIBFFI = "devel/libffi:libffi-*:libffi-3.4.4p1"


def test_packages_are_included_unchanged(release: Path, tmp_path: Path) -> None:
    packages = [
        package(tmp_path / "python-3.13.1.tgz", LIBFFI),
        package(tmp_path / "libffi-3.4.6.tgz"),  # another version may do
    ]
    done = make(release, "8.1", *packages)
    assert (done.returncode, done.stdout) == (0, "dist/site81.tgz\n")
    with tarfile.open(release / "dist/site81.tgz") as archive:
        for path in packages:
            file = archive.extractfile(f"{PLACE}/packages/{path.name}")
            assert file is not None
            assert file.read() == path.read_bytes()


def test_incomplete_packages_are_refused_in_one_line(
    release: Path, tmp_path: Path
) -> None:
    lonely = package(
        tmp_path / "python-3.13.1.tgz", LIBFFI, "archivers/bzip2:bzip2-*:bzip2-1.0.8p0"
    )
    libffi = package(tmp_path / "libffi-3.4.4p1.tgz")
    for packages, message in (
        ([lonely], "packages depend on others: add bzip2-1.0.8p0, libffi-3.4.4p1"),
        ([lonely, libffi], "packages depend on others: add bzip2-1.0.8p0"),
        ([libffi], "there is no python-3.x.tgz among the packages"),
    ):
        done = make(release, "9.9", *packages)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"make-site: {message}\n"
    assert not list((release / "dist").glob("site99*"))


@pytest.mark.parametrize("word", ["", "8", "80", "8.0.1", "a.b", "-rf", "8.0\n"])
def test_a_wrong_release_is_refused_in_one_line(release: Path, word: str) -> None:
    done = make(release, word)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "make-site: which release of OpenBSD? As in: make site RELEASE=8.0\n"
    )


def test_a_file_that_is_no_package_is_refused_in_one_line(
    release: Path, tmp_path: Path
) -> None:
    whole = package(tmp_path / "python-3.13.1.tgz").read_bytes()
    for name, data in (
        ("text.tgz", b"no"),
        ("empty.tgz", b""),
        ("half.tgz", whole[: len(whole) // 2]),
        ("damaged.tgz", whole[:50_000] + b"\0" * 1000 + whole[51_000:]),
    ):
        (tmp_path / name).write_bytes(data)
    with tarfile.open(tmp_path / "nothing.tgz", "w:gz"):
        pass
    wrong = [
        *(
            tmp_path / f"{name}.tgz"
            for name in ("missing", "text", "empty", "half", "damaged", "nothing")
        ),
        tmp_path,
        package(tmp_path / "other.tgz", first="x"),
        package(tmp_path / "python.tar"),
    ]
    for path in wrong:
        done = make(release, "9.9", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"make-site: not a package of OpenBSD, or incomplete: {str(path)!r}\n"
        )
    assert not list((release / "dist").glob("site99*"))


def test_a_failed_write_is_one_line_and_leaves_no_file(release: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not installed here")
    done = make(release, "9.9", before=("prlimit", "--fsize=4096"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "make-site: [Errno 27] File too large\n"
    assert not list((release / "dist").glob("site99*"))


# In a system: a mount namespace where /etc, /usr/local and /var are the test's own.

INSIDE = """
set -e
mount --bind "$1/etc" /etc
mount --bind "$1/local" /usr/local
mount --bind "$1/var" /var
PATH=$1/bin:$PATH
shift
exec "$@"
"""


def until(happened: Callable[[], bool]) -> None:
    """Wait, at most PATIENCE seconds, for something in the background."""
    for _ in range(int(PATIENCE * 100)):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


class System:
    """A system on which the set was unpacked, with stand-ins for its programs."""

    def __init__(self, path: Path, site: Path) -> None:
        self.path = path
        self.etc = path / "etc"
        self.asked = path / "asked"
        for directory in (
            "etc", "local/bin", "var/db/dhcpleased", "var/run", "bin", "unpacked",
        ):  # fmt: skip
            (path / directory).mkdir(parents=True)
        self.lock = path / "var/run/scw_signal-first-boot.pid"
        (self.etc / "ttys").write_text(TTYS)
        with tarfile.open(site) as archive:
            archive.extractall(path / "unpacked", filter="tar")
        shutil.move(path / "unpacked/usr/local/share", path / "local/share")
        self.share = path / "local/share/scw_signal"
        # The installer has tests of its own.
        self.stub(self.share / "release/packaging/openbsd/install", "install")
        for name in ("rcctl", "logger", "sleep"):
            self.stub(path / "bin" / name, name)
        # Runs the command without a limit, and records the limit.
        self.stub(path / "bin/timeout", "timeout", 'shift 3; exec "$@"')
        self.stub(path / "bin/pkg_add", "pkg_add", PYTHON)
        # On OpenBSD ksh runs the scripts; here it is mksh.
        (path / "bin/ksh").symlink_to(str(shutil.which("mksh")))
        self.alive, self._life = os.pipe()

    def stub(self, path: Path, name: str, then: str = "") -> None:
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.asked}\n{then}\n')
        path.chmod(0o755)

    def run(self, *command: str | Path) -> str:
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", INSIDE, "sh", self.path, *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=True,
            text=True,
            pass_fds=(self._life,),
        ).stdout

    def rest(self) -> None:
        """Wait until all that was run here has ended, also in the background."""
        os.close(self._life)
        ended, _, _ = select.select([self.alive], [], [], PATIENCE)
        assert ended, self.asked.read_text()
        os.close(self.alive)
        self.alive, self._life = os.pipe()

    def site(self, script: str) -> None:
        assert self.run("mksh", self.path / "unpacked" / script) == ""

    def boot(self) -> str:
        """Boot, and wait until the work in the background has ended."""
        said = self.begin()
        self.rest()
        return said

    def begin(self) -> str:
        """Do what rc(8) does with rc.firsttime: move it away, and run it.

        Like rc(8), read its output to the end.
        """
        script = self.etc / "rc.firsttime"
        if not script.exists():
            return ""
        script = script.rename(self.etc / "rc.firsttime.run")
        lines = script.read_text().splitlines()
        script.unlink()
        # The first line of each script names ksh; here mksh runs it.
        return "".join(self.run("mksh", *line.split()) for line in lines)

    def asks(self) -> list[str]:
        lines = self.asked.read_text().splitlines() if self.asked.exists() else []
        self.asked.unlink(missing_ok=True)
        return lines


@pytest.fixture
def system(tmp_path: Path, site: Path) -> System:
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("only root on Linux can mount in a name space")
    if shutil.which("mksh") is None:
        pytest.skip("mksh is not installed here")
    return System(tmp_path / "system", site)


def test_the_console_is_the_first_serial_port(system: System) -> None:
    system.site("install.site")
    console = "stty com0 115200\nset tty com0\n"
    assert (system.etc / "boot.conf").read_text() == console
    lines = (system.etc / "ttys").read_text().splitlines()
    assert lines[0] == TTYS.splitlines()[0]
    assert lines[1].split() == [
        "tty00", '"/usr/libexec/getty', 'std.115200"', "vt220", "on", "secure",
    ]  # fmt: skip


def test_ipv4_and_ipv6_are_configured_automatically(system: System) -> None:
    system.site("install.site")
    file = system.etc / "hostname.vio0"
    assert file.read_text() == "inet autoconf\ninet6 autoconf\n"
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("mirror", "after", "leases"),
    [
        # 10.0.2.2 is the host, in QEMU's user network.
        ("http://10.0.2.2:8377/site", "https://cdn.openbsd.org/pub/OpenBSD", []),
        ("http://10.0.2.20/pub/OpenBSD", "http://10.0.2.20/pub/OpenBSD", ["vio0"]),
        ("https://example.org/pub", "https://example.org/pub", ["vio0"]),
    ],
)
def test_an_image_keeps_no_mirror_or_lease_of_the_build_host(
    system: System, mirror: str, after: str, leases: list[str]
) -> None:
    (system.etc / "installurl").write_text(f"{mirror}\n")
    directory = system.path / "var/db/dhcpleased"
    (directory / "vio0").write_text("address: 10.0.2.15\n")
    system.site("install.site")
    assert (system.etc / "installurl").read_text() == f"{after}\n"
    assert [path.name for path in directory.iterdir()] == leases


FIRST_SERVER = "ksh /usr/local/share/scw_signal/first-server\n"


def test_an_image_has_nothing_of_the_machine_that_made_it(system: System) -> None:
    (system.etc / "installurl").write_text("http://10.0.2.2:8377/site\n")
    # As install.sub of the installer leaves it.
    mail = "( /usr/bin/mail -s 'puffy install response file' root </var/log/x ) &\n"
    (system.etc / "rc.firsttime").write_text(f"/usr/sbin/fw_update\n{mail}")
    made = [
        "resolv.conf", "soii.key", "ssh/ssh_host_ed25519_key", "iked/private/local.key",
        "ssh/ssh_host_ed25519_key.pub", "iked/local.pub", "isakmpd/private/local.key",
        "isakmpd/local.pub", "../var/log/install.resp.123",
    ]  # fmt: skip
    for name in made:
        (system.etc / name).parent.mkdir(parents=True, exist_ok=True)
        (system.etc / name).write_text("x\n")
    for _ in range(2):
        system.site("install.site")
    assert not [name for name in made if (system.etc / name).exists()]
    lines = (system.etc / "rc.firsttime").read_text().splitlines()
    assert lines == ["/usr/local/share/scw_signal/first-boot enable"]
    assert (system.etc / "rc.securelevel").read_text() == FIRST_SERVER
    assert (system.etc / "rc.conf.local").read_text() == (
        "scw_signal_flags=--set-hostname\nscw_signal_user=root\n"
    )


def as_image(system: System, *options: str) -> None:
    """Leave the files that the installer and build-image leave for an image."""
    (system.etc / "installurl").write_text("http://10.0.2.2:8377/site\n")
    (system.etc / "resolv.conf").write_text("nameserver 10.0.2.3\n")
    (system.share / "image").write_text("".join(f"{word}\n" for word in options))


@pytest.mark.parametrize("packages", [True, False])
def test_python_is_added_to_an_image_on_request(
    system: System, *, packages: bool
) -> None:
    as_image(system, "console-keys", "python")
    # pkg_add(1) needs the mirror and a resolver; the resolver goes only afterwards.
    look = 'cat /etc/installurl /etc/resolv.conf >>"$0.saw"'
    pkg_add = system.path / "bin/pkg_add"
    system.stub(pkg_add, "pkg_add", f"{look}; : >/usr/local/bin/python3; "
                "chmod +x /usr/local/bin/python3")  # fmt: skip
    if packages:
        (system.share / "packages").mkdir()
        (system.share / "packages/python-3.13.1.tgz").touch()
    system.site("install.site")
    place = "/usr/local/share/scw_signal/packages/python-3.13.1.tgz"
    assert system.asks() == [f"pkg_add -I {place if packages else 'python%3'}"]
    assert (system.path / "bin/pkg_add.saw").read_text() == (
        "https://cdn.openbsd.org/pub/OpenBSD\nnameserver 10.0.2.3\n"
    )
    assert not (system.etc / "resolv.conf").exists()


def test_no_image_is_made_if_python_cannot_be_added(system: System) -> None:
    as_image(system, "python")
    system.stub(system.path / "bin/pkg_add", "pkg_add", "exit 1")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        system.site("install.site")
    assert caught.value.stdout == (
        "install.site: cannot add Python, which this image must have\n"
    )


def test_an_image_may_be_without_python(system: System) -> None:
    as_image(system, "console-keys")
    system.site("install.site")
    assert system.asks() == []


def test_a_server_installed_directly_is_not_an_image(system: System) -> None:
    (system.etc / "installurl").write_text("https://example.org/pub\n")
    for name in ("resolv.conf", "soii.key"):
        (system.etc / name).write_text("x\n")
    (system.etc / "rc.firsttime").write_text("/usr/sbin/fw_update\n")
    system.site("install.site")
    assert (system.etc / "resolv.conf").exists()
    assert (system.etc / "soii.key").exists()
    assert not (system.etc / "rc.securelevel").exists()
    assert not (system.etc / "rc.conf.local").exists()
    assert (system.etc / "rc.firsttime").read_text().startswith("/usr/sbin/fw_update\n")


def test_what_the_user_has_configured_stays(system: System) -> None:
    configured = {
        "boot.conf": "set tty com1\n",
        "hostname.vio0": "inet 192.0.2.1\n",
        "rc.conf.local": 'pkg_scripts="a b"\n',
    }
    for name, text in configured.items():
        (system.etc / name).write_text(text)
    system.site("install.site")
    for name, text in configured.items():
        assert (system.etc / name).read_text() == text


def test_a_console_speed_that_was_chosen_stays(system: System) -> None:
    chosen = TTYS.replace("unknown off", "vt220 on secure").replace("9600", "19200")
    (system.etc / "ttys").write_text(chosen)
    system.site("install.site")
    assert (system.etc / "ttys").read_text() == chosen


ADDED = ["timeout -k 10 1800 pkg_add -I python%3", "pkg_add -I python%3"]
ENABLED = ["install ", "rcctl enable scw_signal", "rcctl get scw_signal status"]
STARTED = "rcctl start scw_signal"
TOLD = "logger -t scw_signal -p daemon.info first boot: scw_signal is installed"
BACKGROUND = (
    "scw_signal: the installation continues in the background; see /var/log/daemon\n"
)


def test_the_first_boot_adds_python_installs_enables_and_starts(
    system: System,
) -> None:
    for _ in range(2):
        system.site("install.site")
    assert system.boot() == BACKGROUND
    assert system.asks() == [*ADDED, *ENABLED, STARTED, TOLD]
    assert system.boot() == ""
    assert system.asks() == []


def failing(system: System, path: Path, times: int) -> None:
    """Make a program fail with a reason, this many times, before it works."""
    log = system.asked
    tries = f"$(grep -c '^{path.name} ' {log})"
    works = PYTHON if path.name == "pkg_add" else ":"
    reason = "{ echo reason; exit 1; }"
    system.stub(path, path.name, f'[ "{tries}" -gt {times} ] || {reason}\n{works}')


def test_a_mirror_that_fails_is_asked_again_after_longer_pauses(
    system: System,
) -> None:
    failing(system, system.path / "bin/pkg_add", 9)
    system.site("install.site")
    assert system.boot() == BACKGROUND
    asked = system.asks()
    pauses = [int(line.split()[1]) for line in asked if line.startswith("sleep")]
    longest = [5, 10, 20, 40, 80, 160, 300, 300, 300]
    for pause, most in zip(pauses, longest, strict=True):
        assert most - most // 3 <= pause <= most
    assert pauses != longest  # chance shortens them
    told = [line for line in asked if "Python could not be added" in line]
    assert told == [
        "logger -t scw_signal -p daemon.err first boot: Python could not be added;"
        f" the next try is in {pause} s: reason"
        for pause in pauses
    ]
    assert asked[-7:] == [*ADDED, *ENABLED, STARTED, TOLD]
    assert not system.lock.exists()
    assert not (system.etc / "rc.firsttime").exists()


def test_python_in_the_set_is_added_before_the_boot_goes_on(
    system: System,
) -> None:
    (system.share / "packages").mkdir()
    (system.share / "packages/python-3.13.1.tgz").touch()
    system.site("install.site")
    assert system.boot() == ""
    place = "/usr/local/share/scw_signal/packages/python-3.13.1.tgz"
    assert system.asks() == [f"pkg_add -I {place}", *ENABLED, STARTED]


def test_after_a_power_failure_with_python_in_the_set_the_next_boot_installs(
    system: System,
) -> None:
    (system.share / "packages").mkdir()
    (system.share / "packages/python-3.13.1.tgz").touch()
    install = system.share / "release/packaging/openbsd/install"
    system.stub(install, "install", "kill -KILL $PPID")
    system.site("install.site")
    with pytest.raises(subprocess.CalledProcessError):
        system.boot()
    assert STARTED not in system.asks()
    system.stub(install, "install", ":")
    system.boot()
    assert system.asks() == [*ENABLED, STARTED]
    assert system.boot() == ""


@pytest.mark.parametrize("times", [1, 3])
def test_a_failed_installation_is_tried_again(system: System, times: int) -> None:
    failing(system, system.share / "release/packaging/openbsd/install", times)
    system.site("install.site")
    system.boot()
    asked = system.asks()
    trouble = [line for line in asked if "it could not be installed" in line]
    assert len(trouble) == times
    assert asked.count(ADDED[1]) == 1
    assert asked[-5:] == [*ENABLED, STARTED, TOLD]


def test_an_agent_that_could_not_be_started_is_started_again(system: System) -> None:
    count = f"grep -c '^rcctl start' {system.asked}"
    then = f'[ "$1" != start ] || [ "$({count})" -gt 2 ]'
    system.stub(system.path / "bin/rcctl", "rcctl", then)
    system.site("install.site")
    system.boot()
    assert [line for line in system.asks() if line == STARTED] == [STARTED] * 3


class Held(NamedTuple):
    """A system whose mirror has failed once, in the pause before the next try."""

    system: System
    pause: int

    def proceed(self) -> None:
        """End the pause, and wait for what follows."""
        os.write(self.pause, b"\n")
        self.system.rest()


@pytest.fixture
def held(system: System) -> Iterator[Held]:
    fifo = system.path / "pause"
    os.mkfifo(fifo)
    system.stub(system.path / "bin/sleep", "sleep", f"read -r _ <{fifo}")
    failing(system, system.path / "bin/pkg_add", 1)
    system.site("install.site")
    assert system.begin() == BACKGROUND
    until(lambda: system.asked.exists() and "\nsleep " in system.asked.read_text())
    held = Held(system, os.open(fifo, os.O_RDWR))
    yield held
    os.write(held.pause, b"\n")
    system.rest()
    os.close(held.pause)


def test_only_one_first_boot_runs_at_a_time(held: Held) -> None:
    script = "/usr/local/share/scw_signal/first-boot"
    said = held.system.run("mksh", script, "enable")
    assert said == "scw_signal: another first-boot is running\n"
    held.proceed()
    assert held.system.asks().count(STARTED) == 1


def test_the_next_boot_finishes_what_a_killed_one_began(held: Held) -> None:
    system = held.system
    os.kill(int(system.lock.read_text()), signal.SIGKILL)
    held.proceed()
    assert STARTED not in system.asks()
    assert system.lock.exists()  # as if /var/run were not emptied
    system.site("upgrade.site")  # adds no second line
    failing(system, system.path / "bin/pkg_add", 0)
    assert system.boot() == BACKGROUND
    assert system.asks()[-5:] == [*ENABLED, STARTED, TOLD]
    assert system.boot() == ""
    assert system.asks() == []


def test_a_hangup_does_not_end_first_boot(held: Held) -> None:
    os.kill(int(held.system.lock.read_text()), signal.SIGHUP)
    held.proceed()
    assert held.system.asks()[-1] == TOLD


def test_sigterm_ends_first_boot_and_the_next_boot_runs_it_again(held: Held) -> None:
    system = held.system
    os.kill(int(system.lock.read_text()), signal.SIGTERM)
    until(lambda: not system.lock.exists())
    held.proceed()
    assert system.boot() == BACKGROUND
    assert system.asks()[-1] == TOLD


def test_other_lines_in_rc_firsttime_stay(held: Held) -> None:
    file = held.system.etc / "rc.firsttime"
    file.write_text(f"first\n{file.read_text()}last\n")
    held.proceed()
    assert file.read_text() == "first\nlast\n"


UPGRADED = ["install ", "rcctl get scw_signal status"]


@pytest.fixture
def upgraded(system: System) -> System:
    """Return a system that was installed, has booted, and was then upgraded."""
    system.site("install.site")
    system.boot()
    system.asks()
    for _ in range(2):
        system.site("upgrade.site")
    return system


def test_after_an_upgrade_the_first_boot_installs_again(upgraded: System) -> None:
    assert upgraded.boot() == ""
    assert upgraded.asks() == [*UPGRADED, STARTED]


def test_after_an_upgrade_a_disabled_service_stays_disabled(
    upgraded: System,
) -> None:
    upgraded.stub(upgraded.path / "bin/rcctl", "rcctl", '[ "$1" != get ]')
    assert upgraded.boot() == ""
    assert upgraded.asks() == UPGRADED


def test_after_an_upgrade_a_second_try_does_not_enable_it_either(
    upgraded: System,
) -> None:
    failing(upgraded, upgraded.share / "release/packaging/openbsd/install", 1)
    said = upgraded.boot()
    assert said == f"reason\nscw_signal: it could not be installed\n{BACKGROUND}"
    asked = upgraded.asks()
    assert "rcctl enable scw_signal" not in asked
    assert asked[-4:] == [*UPGRADED, STARTED, TOLD]
