"""The claims on Linux: in kernel namespaces, which leave nothing behind.

Every process of a run is in a PID namespace whose first process is the harness. When
the harness ends, for whatever reason, the kernel kills the others and discards the
network, the mounts and the host name. Nothing on the machine itself is changed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .enclosure import wait_for
from .process import run
from .system import (
    BITS,
    COMMANDS,
    ELSEWHERE,
    GATEWAY,
    GUEST,
    SERVICE,
    USER,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

UID = 4242
GUEST_PLACE, SERVICE_PLACE = "guest", "service"
PLUG, SOCKET = "vio0", "eth0"
PROGRAMS = ("ip", "nsenter", "setpriv", "mount", "hostname", "ps")
_NEWNS, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = (
    0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000,
)  # fmt: skip
_PR_SET_PDEATHSIG = 1
_PRIVATE = ("/run", "/var/lib", "/etc")  # private copies inside


class Linux:
    """Network namespaces for guest and service, a copy of /etc, and the commands."""

    name = "Linux"
    bin = "/run/accept/bin"
    scratch = "/run/accept"
    db = "/var/lib/scw_signal"
    hostname_file = "/etc/hostname"

    def __init__(self, top: Path, package: Path) -> None:
        """Take the source tree and the directory that contains the package."""
        self._top = top
        self._path = [str(package)]
        if (top / "vendor").is_dir():
            self._path.append(str(top / "vendor"))
        self.emulator_env = {"PYTHONPATH": os.pathsep.join(self._path)}
        self.service_python = sys.executable

    def plan(self) -> list[str]:
        """Say what would be done to the machine."""
        return ["make namespaces of the kernel, which end with this; nothing else"]

    def check(self) -> None:
        """Raise RefusedError if namespaces cannot be created."""
        for program in PROGRAMS:
            if shutil.which(program) is None:
                raise RefusedError(f"{program} is not installed here")
        for path in (str(self._top), *self._path, sys.executable):
            if any(f"{path}/".startswith(f"{place}/") for place in _PRIVATE):
                raise RefusedError(f"cannot be run from {path}: copy it elsewhere")

        code = f"import sys; sys.path[:0] = {self._path!r}; import tenacity, urllib3"
        if run([sys.executable, "-I", "-c", code]).status != 0:
            raise RefusedError(
                f"{sys.executable} has no urllib3 and tenacity: make wheel, or say"
                " PYTHON="
            )

    def enclose(self) -> None:
        """Continue in namespaces; the original process waits for the end.

        Raises RefusedError.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise RefusedError(f"cannot make namespaces: {reason}")
        child = os.fork()
        if child != 0:
            wait_for(child)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def prepare(self) -> None:
        """Mount private directories over those written to; make the network."""
        _run("mount --make-rprivate /")
        _run("mount -t proc proc /proc")
        for place in ("/run", "/var/lib"):
            _run(f"mount -t tmpfs -o mode=755 tmpfs {place}")
        scratch = Path(self.scratch)
        scratch.mkdir()
        _copy_etc(scratch / "etc")
        _run(f"mount --bind {scratch}/etc /etc")
        _run("hostname before")
        self._make_commands()
        self._make_network()
        self.reset()

    def restore(self) -> None:
        """Do nothing: the kernel undoes everything when this process ends."""

    def reset(self) -> None:
        """End every other process, and remove the guest's network."""
        try:
            os.kill(-1, signal.SIGKILL)  # which spares the first process, this one
        except ProcessLookupError:
            pass
        for path in ("/run/scw_signal", self.db):
            if os.path.islink(path) or os.path.isfile(path):  # noqa: PTH113, PTH114
                os.unlink(path)  # noqa: PTH108
            shutil.rmtree(path, ignore_errors=True)
        self._guest("ip link set {plug} down")
        self._guest("ip addr flush dev {plug}")
        self._guest("ip link set {plug} up")
        self._service(f"ip route del blackhole {SERVICE[4]}", check=False)
        self._service(f"ip addr replace {SERVICE[4]}/32 dev {SOCKET}")
        _run("hostname before")
        self._write("hostname", "before\n")
        self.resolve_with(None)

    def watch(self) -> Sequence[str]:
        """Return nothing: there is no pledge(2) here."""
        return ()

    def guest(self, words: Sequence[str], user: str | None = None) -> list[str]:
        """Return the command line that runs a command in the guest's namespace."""
        switch = _switch_user(user) if user else []
        return ["nsenter", f"--net=/run/netns/{GUEST_PLACE}", "--", *switch, *words]

    def service(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs a command in the service's namespace."""
        return ["nsenter", f"--net=/run/netns/{SERVICE_PLACE}", "--", *words]

    def connect(self, *versions: int) -> None:
        """Give the guest an address and a default route."""
        for version in versions:
            self.address(version)
            self.route(version)

    def address(self, version: int) -> None:
        """Give the guest an address."""
        nodad = " nodad" if version == 6 else ""
        address = f"{GUEST[version]}/{BITS[version]}"
        self._guest(f"ip -{version} addr add {address} dev {{plug}}{nodad}")

    def route(self, version: int) -> None:
        """Give the guest its default route."""
        self._guest(f"ip -{version} route add default via {GATEWAY[version]}")

    def unroute(self, version: int) -> None:
        """Remove the guest's default route."""
        self._guest(f"ip -{version} route del default")

    def unrelated(self) -> None:
        """Add another address and a route that do not lead to the service."""
        self._guest("ip addr add 192.0.2.8/32 dev {plug}")
        self._guest(f"ip route add {ELSEWHERE[4]} via {GATEWAY[4]}")
        self._guest("ip addr del 192.0.2.8/32 dev {plug}")

    def black_hole(self) -> None:
        """Drop every packet for the service's IPv4 address."""
        self._service(f"ip addr del {SERVICE[4]}/32 dev {SOCKET}")
        self._service(f"ip route add blackhole {SERVICE[4]}")

    def resolve_with(self, text: str | None) -> None:
        """Write this as resolv.conf(5); None removes the file."""
        if text is None:
            Path("/etc/resolv.conf").unlink(missing_ok=True)
        else:
            self._write("resolv.conf", text)

    def keep_hostname(self) -> None:
        """Do nothing: the name belongs to this namespace, and `reset` sets it."""

    def memory(self, pid: int) -> float:
        """Return how much memory a process uses, in MiB."""
        return float(run(["ps", "-o", "rss=", "-p", str(pid)], check=True).out) / 1024

    def _make_commands(self) -> None:
        """Write the commands as an installation would, but to run from this tree."""
        Path(self.bin).mkdir()
        for command in COMMANDS:
            text = (self._top / "packaging/bin" / command).read_text()
            _, _, code = text.partition("\n")
            path = f"import sys\n\nsys.path[:0] = {self._path!r}\n\nfrom scw_signal"
            file = Path(self.bin, command)
            file.write_text(
                f"#!{sys.executable} -I\n{code.replace('from scw_signal', path, 1)}"
            )
            file.chmod(0o755)

    def _make_network(self) -> None:
        for place in (GUEST_PLACE, SERVICE_PLACE):
            _run(f"ip netns add {place}")
            # The claims alone decide about routes: do not look for routers.
            for setting in ("accept_ra", "router_solicitations", "accept_dad"):
                file = f"/proc/sys/net/ipv6/conf/default/{setting}"
                self._in(place, ["sh", "-c", f"echo 0 >{file}"])
            _run(f"ip -n {place} link set lo up")
        _run(
            f"ip link add {PLUG} netns {GUEST_PLACE} type veth"
            f" peer name {SOCKET} netns {SERVICE_PLACE}"
        )
        self._service(f"ip link set {SOCKET} up")
        for version in (4, 6):
            nodad = " nodad" if version == 6 else ""
            for address, bits in (
                (GATEWAY[version], BITS[version]),
                (SERVICE[version], 32 if version == 4 else 128),
            ):
                self._service(f"ip addr add {address}/{bits} dev {SOCKET}{nodad}")

    @staticmethod
    def _write(name: str, text: str) -> None:
        """Replace a file in /etc, which may be a link to somewhere else."""
        file = Path("/etc", name)
        file.unlink(missing_ok=True)
        file.write_text(text)

    def _guest(self, words: str) -> None:
        self._in(GUEST_PLACE, words.format(plug=PLUG).split())

    def _service(self, words: str, *, check: bool = True) -> None:
        self._in(SERVICE_PLACE, words.split(), check=check)

    @staticmethod
    def _in(place: str, words: Sequence[str], *, check: bool = True) -> None:
        run(["nsenter", f"--net=/run/netns/{place}", "--", *words], check=check)


def _switch_user(user: str) -> list[str]:
    """Return the command line that runs a command as a user.

    If Python is below a directory that only root may enter, such as /root, the user
    also gets the right to read every file, but not to write it.
    """
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    above = Path(sys.executable).resolve().parents
    if not all(place.stat().st_mode & stat.S_IXOTH for place in above):
        words += [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    return [*words, "--"]


def _copy_etc(target: Path) -> None:
    """Copy /etc, with the agent's user in it."""
    shutil.copytree("/etc", target, symlinks=True)
    for name, line in (
        ("passwd", f"{USER}:*:{UID}:{UID}::/nonexistent:/sbin/nologin\n"),
        ("group", f"{USER}:*:{UID}:\n"),
    ):
        text = (target / name).read_text()
        if not any(each.startswith(f"{USER}:") for each in text.splitlines()):
            (target / name).write_text(text + line)
    # Files only: names are looked up as the claims say.
    (target / "nsswitch.conf").write_text(
        "passwd: files\ngroup: files\nhosts: files dns\n"
    )


def _run(words: str) -> None:
    subprocess.run(words.split(), check=True, stdout=subprocess.DEVNULL)
