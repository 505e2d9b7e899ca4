"""The claims on OpenBSD: the two ends of a pair(4), each in its own rdomain.

The machine's own interfaces and routes are left alone. The host name and the files in
/etc that the claims change are restored at the end: see undo.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .claim import Failed, expect
from .enclosure import Terminal
from .process import run
from .system import (
    BITS,
    COMMANDS,
    ELSEWHERE,
    GATEWAY,
    GUEST,
    RUN_DIRECTORY,
    SERVICE,
    USER,
    RefusedError,
)
from .undo import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .process import Done

PLACE = Path("/var/db/scw-accept")  # the journal; survives a reboot
SERVICE_NAME = "scw_signal"
RESOLV_CONF, MYNAME, RC_CONF = "/etc/resolv.conf", "/etc/myname", "/etc/rc.conf.local"
TREE = "/usr/local/libexec/scw_signal"
RC_SCRIPT = f"/etc/rc.d/{SERVICE_NAME}"
DUTIES = "/var/db/scw_signal"
# What an installation and its agent create; none of it may exist before or after.
OURS = (
    *(f"/usr/local/bin/{command}" for command in COMMANDS),
    *(TREE, RC_SCRIPT, DUTIES, RUN_DIRECTORY, f"/var/run/rc.d/{SERVICE_NAME}"),
)
PROGRAMS = ("ifconfig", "route", "pkill", "pgrep", "rcctl", "dmesg", "hostname")
PYTHON = "/usr/local/bin/python3"
SYSCALLS = Path("/usr/include/sys/syscall.h")
CORES = ("/", "/var/crash", RUN_DIRECTORY)
_TENTATIVE_SECONDS = 10.0
_PLEDGE = re.compile(r'(\S+)\[(\d+)\]: pledge "([^"]*)", syscall (\d+)')


class OpenBSD:
    """rdomain(4)s, rcctl(8), pledge(2), and an installation of this source tree."""

    name = "OpenBSD"
    bin = "/usr/local/bin"
    db = DUTIES
    hostname_file = MYNAME
    service_python = PYTHON

    def __init__(
        self, top: Path, pairs: tuple[int, int], rdomains: tuple[int, int]
    ) -> None:
        """Take the source tree, and the interfaces and rdomains to make."""
        self._top = top
        self.emulator_env = {
            "PYTHONPATH": str(top),
            "PYTHONDONTWRITEBYTECODE": "1",  # the tree stays as it is
        }
        self._plug, self._socket = (f"pair{number}" for number in pairs)
        self.rdomain, self._service_rdomain = rdomains
        self._place = PLACE
        self.scratch = str(PLACE / "scratch")
        self._journal = Journal(
            self._place / "journal",
            {
                "interface": self._destroy,
                "rdomain": self._kill,
                "hostname": _set_hostname,
                "paused": _resume,
                "installation": self._uninstall,
                "directory": shutil.rmtree,
            },
        )
        self._made = self._hole = False
        self._hostname = os.uname().nodename
        self._before: dict[str, str] = {}
        self._told: set[str] = set()
        self._terminal = Terminal()
        self.tree = top  # with vendor/

    def plan(self) -> list[str]:
        """Say what would be done to the machine."""
        return [
            f"make {self._plug} in rdomain {self.rdomain}, and remove it",
            f"make {self._socket} in rdomain {self._service_rdomain}, and remove it",
            "install scw-signal with its user, start and stop it, and uninstall it",
            f"pause resolvd(8) while {RESOLV_CONF} is another, and put that back",
            "set another host name for some seconds, and put that back",
            f"keep what is needed to undo that in {self._place}, and remove it",
        ]

    def check(self) -> None:
        """Raise RefusedError if the test cannot run here.

        If an earlier run was killed, its changes are undone first.
        """
        for program in PROGRAMS:
            if shutil.which(program, path="/bin:/usr/bin:/sbin:/usr/sbin") is None:
                raise RefusedError(f"there is no {program}(8) here")
        if not Path(PYTHON).exists():
            raise RefusedError(f"there is no {PYTHON}: pkg_add python%3")
        self._lock()
        try:
            self._check_free(self._journal.undo())
        except RefusedError:
            self._unlock()
            raise

    def _check_free(self, left: Sequence[str]) -> None:
        """Raise RefusedError if something that the test makes already exists.

        `left` is what could not be undone of an earlier run.
        """
        if left:
            raise RefusedError(f"cannot undo what an earlier run left: {left[0]}")
        self._check_installation()
        for interface in (self._plug, self._socket):
            if _exists(interface):
                raise RefusedError(f"{interface} is taken: choose others with --pairs")
        for number in (self.rdomain, self._service_rdomain):
            if not 0 < number < 256:
                raise RefusedError(f"an rdomain has a number from 1 to 255: {number}")
            if _has_routes(number) or _exists(f"lo{number}"):
                raise RefusedError(
                    f"rdomain {number} is taken: choose others with --rdomains"
                )

    def enclose(self) -> None:
        """Continue in a session whose terminal shows broken promises."""
        self._terminal.enter()

    def prepare(self) -> None:
        """Make the network, and install."""
        self._made = True
        self._before = self._snapshot()
        self._journal.note("directory", self.scratch)
        Path(self.scratch).mkdir(mode=0o755)
        self._make_network()
        self.tree = self._tree()
        self._journal.keep(RC_CONF, "setting")
        self._journal.note("installation", str(self.tree))
        run(["sh", f"{self.tree}/packaging/openbsd/install"], seconds=300, check=True)
        self.watch()

    def restore(self) -> None:
        """Undo every change to the machine."""
        if not self._made:
            return
        self._made = False
        for each in self._journal.undo():
            print(f"# cannot undo, the next run tries again: {each}", flush=True)
        self._unlock()

    def reset(self) -> None:
        """End what a claim has left running, and undo its changes."""
        if not self._made:
            return
        self._kill(str(self.rdomain))
        self._kill(str(self._service_rdomain))
        for kind in ("hostname", "file", "paused"):  # resolvd(8) last: its file is back
            self._journal.undo(kind)
        for path in (RUN_DIRECTORY, DUTIES):
            _remove(path)
        self._forget_guest()
        self._close_hole()

    def differences(self) -> list[str]:
        """Return how the machine differs from its state before the run."""
        after = self._snapshot()
        return [
            f"{what}: was {self._before[what]!r}, is {after[what]!r}"
            for what in after
            if after[what] != self._before[what]
        ]

    def watch(self) -> Sequence[str]:
        """Return what pledge(2) has killed since the last call, and new core files."""
        lines = [*self._terminal.take(), *run(["dmesg"]).out.splitlines()]
        seen = [_named(line) for line in lines if _PLEDGE.search(line)]
        for place in (*CORES, self.scratch):
            seen += [
                f"a core file: {core}, of {core.stat().st_mtime:.0f}"
                for core in Path(place).glob("*.core")
            ]
        new = [each for each in dict.fromkeys(seen) if each not in self._told]
        self._told.update(new)
        return new

    def guest(self, words: Sequence[str], user: str | None = None) -> list[str]:
        """Return the command line that runs a command in the guest's rdomain."""
        del user  # the process is already started as that user
        return ["route", "-T", str(self.rdomain), "exec", *words]

    def service(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs a command in the service's rdomain."""
        return ["route", "-T", str(self._service_rdomain), "exec", *words]

    def connect(self, *versions: int) -> None:
        """Give the guest an address and a default route."""
        for version in versions:
            self.address(version)
            self.route(version)

    def address(self, version: int) -> None:
        """Give the guest an address, and wait until it may be used."""
        family = "inet" if version == 4 else "inet6"
        address = f"{GUEST[version]}/{BITS[version]}"
        run(["ifconfig", self._plug, family, address, "up"], check=True)
        self._settled(self._plug)

    def route(self, version: int) -> None:
        """Give the guest its default route."""
        self._route(self.rdomain, "add", f"{_flag(version)} default {GATEWAY[version]}")

    def unroute(self, version: int) -> None:
        """Remove the guest's default route."""
        self._route(
            self.rdomain, "delete", f"{_flag(version)} default {GATEWAY[version]}"
        )

    def unrelated(self) -> None:
        """Add another address and a route that do not lead to the service."""
        run(["ifconfig", self._plug, "inet", "alias", "192.0.2.8/32"], check=True)
        self._route(self.rdomain, "add", f"-inet -net {ELSEWHERE[4]} {GATEWAY[4]}")
        run(["ifconfig", self._plug, "inet", "192.0.2.8", "delete"], check=True)

    def black_hole(self) -> None:
        """Drop every packet for the service's IPv4 address."""
        self._hole = True
        run(["ifconfig", self._socket, "inet", SERVICE[4], "delete"], check=True)
        self._route(
            self._service_rdomain, "add", f"-host {SERVICE[4]} {GATEWAY[4]} -blackhole"
        )

    def resolve_with(self, text: str | None) -> None:
        """Write this as resolv.conf(5); None removes the file."""
        self._journal.note("paused", "resolvd")
        run(["pkill", "-STOP", "-x", "resolvd"])
        self._journal.keep(RESOLV_CONF)
        if text is None:
            Path(RESOLV_CONF).unlink(missing_ok=True)
            return
        new = Path(f"{RESOLV_CONF}.new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(RESOLV_CONF)

    def memory(self, pid: int) -> float:
        """Return how much memory a process uses, in MiB."""
        return float(run(["ps", "-o", "rss=", "-p", str(pid)], check=True).out) / 1024

    # The service, on OpenBSD only.

    def configure(self, *flags: str, user: str = USER) -> None:
        """Enable the service in the guest's rdomain, and set its flags."""
        self.rcctl("enable", SERVICE_NAME)
        self.rcctl("set", SERVICE_NAME, "rtable", str(self.rdomain))
        self.rcctl("set", SERVICE_NAME, "user", user)
        self.rcctl("set", SERVICE_NAME, "flags", *flags)

    def rcctl(self, *words: str, status: int = 0) -> Done:
        """Run rcctl, and check that its exit status is `status`."""
        done = run(["rcctl", *words], seconds=120)
        said = (done.out + done.err).strip()
        expect(
            done.status == status,
            f"rcctl {' '.join(words)}: status {done.status}, not {status}: {said}",
        )
        return done

    def fails(self) -> bool:
        """Tell whether `rcctl ls failed` lists the service."""
        return SERVICE_NAME in run(["rcctl", "ls", "failed"], seconds=120).out.split()

    def agents(self, rtable: int) -> list[int]:
        """Return the process IDs of the agents in a routing table."""
        words = ["pgrep", "-T", str(rtable), "-f", "[s]cw-signald"]
        return [int(number) for number in run(words).out.split()]

    def keep_hostname(self) -> None:
        """Make sure that the host name, and the one for the next boot, are restored."""
        self._journal.note("hostname", self._hostname)
        self._journal.keep(MYNAME)

    def _lock(self) -> None:
        """Keep other runs out until this process ends."""
        try:
            self._place.mkdir(mode=0o755, exist_ok=True)
            self._held = os.open(self._place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise RefusedError(f"{self._place}: {error.strerror}") from None
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._held)
            raise RefusedError("another accept is running") from None

    def _unlock(self) -> None:
        """Let other runs in, and keep only what could not be undone."""
        if not self._journal.pending():
            shutil.rmtree(self._place, ignore_errors=True)
        os.close(self._held)

    def _check_installation(self) -> None:
        there = [path for path in OURS if os.path.lexists(path)]
        if run(["id", USER]).status == 0:
            there.append(f"the user {USER}")
        if there:
            raise RefusedError(
                f"scw-signal is installed here, or was: there is {there[0]};"
                " uninstall it first"
            )

    def _tree(self) -> Path:
        """Return a tree with the libraries in vendor/; make one if needed."""
        if (self._top / "vendor").is_dir():
            return self._top
        tree = Path(self.scratch, "tree")
        tree.mkdir()
        for part in ("LICENSE", "packaging", "rc.d", "scw_signal"):
            copy = shutil.copytree if (self._top / part).is_dir() else shutil.copy2
            copy(self._top / part, tree / part)
        for release in sorted(self._top.glob("dist/scw-signal-*.tar.gz")):
            with tarfile.open(release) as archive:
                for member in archive.getmembers():
                    _, _, member.name = member.name.partition("/")
                    if member.name.startswith("vendor/"):
                        archive.extract(member, tree)
            return tree
        code = "import os, {0}; print(os.path.dirname({0}.__file__))"
        for library in ("urllib3", "tenacity"):
            found = run([PYTHON, "-I", "-c", code.format(library)])
            if found.status != 0:
                raise RefusedError(
                    f"there is no {library}: use a release, run make dist,"
                    f" or pkg_add py3-{library}"
                )
            shutil.copytree(found.out.strip(), tree / "vendor" / library)
        return tree

    def _make_network(self) -> None:
        for interface, rdomain in (
            (self._plug, self.rdomain),
            (self._socket, self._service_rdomain),
        ):
            # The rdomain has a loopback, which can be removed once it is alone.
            self._journal.note("interface", f"lo{rdomain}")
            self._journal.note("interface", interface)
            self._journal.note("rdomain", str(rdomain))
            run(["ifconfig", interface, "create"], check=True)
            run(["ifconfig", interface, "rdomain", str(rdomain)], check=True)
            run(["ifconfig", f"lo{rdomain}", "inet", "127.0.0.1/8", "up"], check=True)
        run(["ifconfig", self._plug, "patch", self._socket], check=True)
        run(["ifconfig", self._plug, "up"], check=True)
        for version, family in ((4, "inet"), (6, "inet6")):
            alone = 32 if version == 4 else 128
            for address in (
                f"{GATEWAY[version]}/{BITS[version]}",
                f"{SERVICE[version]}/{alone}",
            ):
                words = ["ifconfig", self._socket, family, "alias", address]
                run(words, check=True)
        run(["ifconfig", self._socket, "up"], check=True)
        self._settled(self._socket)

    def _settled(self, interface: str) -> None:
        """Wait until duplicate address detection has finished."""
        end = time.monotonic() + _TENTATIVE_SECONDS
        while "tentative" in run(["ifconfig", interface], check=True).out:
            if time.monotonic() > end:
                raise Failed(f"an address of {interface} stays tentative")
            time.sleep(0.1)

    def _close_hole(self) -> None:
        if not self._hole:
            return
        self._hole = False
        self._route(self._service_rdomain, "delete", f"-host {SERVICE[4]}", check=False)
        run(["ifconfig", self._socket, "inet", "alias", f"{SERVICE[4]}/32"], check=True)

    def _forget_guest(self) -> None:
        self._route(self.rdomain, "flush", "", check=False)
        text = run(["ifconfig", self._plug], check=True).out
        for family, address in re.findall(r"^\s+(inet6?) (\S+)", text, re.MULTILINE):
            plain = address.partition("%")[0]
            run(["ifconfig", self._plug, family, plain, "delete"])

    def _route(
        self, rdomain: int, verb: str, words: str, *, check: bool = True
    ) -> None:
        command = ["route", "-T", str(rdomain), "-qn", verb, *words.split()]
        run(command, check=check)

    def _kill(self, rdomain: str) -> None:
        run(["pkill", "-KILL", "-T", rdomain, "."])

    def _uninstall(self, tree: str) -> None:
        run(["rcctl", "disable", SERVICE_NAME])
        run(["sh", f"{tree}/packaging/openbsd/uninstall"], seconds=300, check=True)
        for path in (RUN_DIRECTORY, DUTIES, f"/var/run/rc.d/{SERVICE_NAME}"):
            _remove(path)

    def _destroy(self, interface: str) -> None:
        if _exists(interface):
            run(["ifconfig", interface, "destroy"], check=True)

    def _snapshot(self) -> dict[str, str]:
        """Return the parts of the machine's state that must be the same at the end."""
        routes = [
            " ".join((*line.split()[:2], line.split()[-1]))
            for line in run(["route", "-n", "show"]).out.splitlines()
            # The kernel adds and removes cloned routes and neighbours by itself.
            if line.split()[2:3] and not set(line.split()[2]) & set("cL")
        ]
        interfaces = [
            line.strip()
            for line in run(["ifconfig", "-a"]).out.splitlines()
            if re.match(r"\S|\s+inet", line)
        ]
        files = {
            path: Path(path).read_text() if Path(path).exists() else "none"
            for path in (
                RESOLV_CONF, MYNAME, RC_CONF, "/etc/passwd", "/etc/group",
            )
        }  # fmt: skip
        return {
            "addresses": "\n".join(interfaces),
            "routes": "\n".join(sorted(routes)),
            "services": run(["rcctl", "ls", "started"], seconds=120).out,
            "enabled services": run(["rcctl", "ls", "on"], seconds=120).out,
            "host name": os.uname().nodename,
            "installation": ", ".join(path for path in OURS if os.path.lexists(path)),
            "manuals": ", ".join(map(str, Path("/usr/local/man").glob("man*/scw-*"))),
            "completions": ", ".join(
                map(str, Path("/usr/local/share").rglob("*scw-*"))
            ),
            **files,
        }


def _named(line: str) -> str:
    """Return what the kernel said, with the name of the system call."""
    match = _PLEDGE.search(line)
    assert match is not None
    program, number, promise, call = match.groups()
    name = ""
    if SYSCALLS.exists():
        found = re.search(rf"SYS_(\w+)\s+{call}$", SYSCALLS.read_text(), re.MULTILINE)
        name = f", {found[1]}" if found else ""
    return f'{program}[{number}]: pledge "{promise}", system call {call}{name}'


def _exists(interface: str) -> bool:
    return run(["ifconfig", interface]).status == 0


def _has_routes(number: int) -> bool:
    """Tell whether a routing table is in use; a table, once made, exists forever."""
    shown = run(["route", "-T", str(number), "-n", "show"]).out
    return re.search(r"^(default|[\da-f]+[.:])", shown, re.MULTILINE) is not None


def _flag(version: int) -> str:
    return "-inet" if version == 4 else "-inet6"


def _set_hostname(name: str) -> None:
    run(["hostname", name], check=True)


def _resume(name: str) -> None:
    run(["pkill", "-CONT", "-x", name])


def _remove(path: str) -> None:
    if os.path.islink(path) or os.path.isfile(path):  # noqa: PTH113, PTH114
        os.unlink(path)  # noqa: PTH108
    shutil.rmtree(path, ignore_errors=True)
