"""scw-seal: what it removes, what it leaves, and the manual that says so.

It runs under mksh, in a mount namespace where /etc, /var, /home and /root are the
test's own, and everything else is read-only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from installed import PATIENCE

TOP = Path(__file__).resolve().parent.parent
IMAGE = TOP / "packaging/image"
MANUAL = TOP / "packaging/man/scw-seal.8"
INSIDE = """
set -e
for directory in etc var home root; do
	mount --bind "$1/$directory" "/$directory"
done
mount -o remount,ro,bind /
PATH=$1/bin:$PATH
shift
exec "$@"
"""
# What goes, what is emptied, and what stays.
REMOVED = (
    "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key", "etc/soii.key",
    "etc/iked/private/local.key", "etc/iked/local.pub",
    "etc/isakmpd/private/local.key", "etc/isakmpd/local.pub",
    "etc/resolv.conf", "var/db/dhcpleased/vio0",
    "var/db/scw_signal/instance", "var/db/scw_signal/user-data",
    "root/.sh_history", "root/.python_history", "home/puffy/.ksh_history",
    "home/puffy/.viminfo", "home/puffy/httpd.core", "root/.lesshst",
    "var/crash/httpd.core", "var/crash/bsd.0", "var/crash/bsd.0.core",
    "var/crash/scw/1.core", "var/log/messages.0.gz", "var/log/daemon.0",
    "var/www/logs/access.log.0.gz", "var/log/install.resp.12", "var/log/ai.log.99",
)  # fmt: skip
EMPTIED = (
    "var/log/messages", "var/log/wtmp", "var/log/nginx/access.log",
    "var/www/logs/access.log", "var/mail/root",
)  # fmt: skip
KEPT = (
    "etc/ssh/sshd_config", "etc/myname", "root/.ssh/authorized_keys", "etc/iked.conf",
    "etc/fstab", "home/puffy/history", "home/puffy/notes", "var/crash/minfree",
    "var/www/htdocs/index.html", "etc/hostname.vio0",
)  # fmt: skip
SEEDS = ("var/db/host.random", "etc/random.seed")


class Server:
    """A server that has been used, with scw-seal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in (*REMOVED, *EMPTIED, *KEPT, *SEEDS, "bin/x", "here/x"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        for name in (*REMOVED, *EMPTIED, *KEPT, *SEEDS):
            (path / name).write_text(f"# {name}\n")
        (path / "etc/resolv.conf").write_text("nameserver 10.0.0.1 # resolvd: vio0\n")
        for name in ("scw-seal", "first-server", "server.sub"):
            shutil.copy(IMAGE / name, path / "here")
        self.hook = path / "etc/rc.securelevel"
        self.stub("uname", "echo OpenBSD")

    def stub(self, name: str, text: str) -> None:
        (self.path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.path / "bin" / name).chmod(0o755)

    def seal(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                INSIDE,
                "sh",
                self.path,
                "mksh",
                self.path / "here/scw-seal",
                *words,
            ],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def contents(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.path).as_posix(): path.read_bytes()
            for path in self.path.rglob("*")
            if path.is_file() and path.parent.name not in ("bin", "here")
        }

    def is_sealed(self) -> None:
        there = self.contents()
        assert not set(REMOVED) & set(there)
        assert [there[name] for name in EMPTIED] == [b""] * len(EMPTIED)
        assert all(there[name] == f"# {name}\n".encode() for name in KEPT)
        first_line = f"ksh {self.path}/here/first-server"
        assert self.hook.read_text().splitlines()[0] == first_line
        for name, size in zip(SEEDS, (65536, 512), strict=True):
            assert len(there[name]) == size
            assert (self.path / name).stat().st_mode & 0o777 == 0o600
        assert not [name for name in there if name.endswith((".new", ".scw"))]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("only root on Linux can mount in a name space")
    if shutil.which("mksh") is None:
        pytest.skip("mksh is not installed here")
    return Server(tmp_path / "server")


def test_it_removes_what_is_the_servers_own_and_prepares_a_first_boot(
    server: Server,
) -> None:
    status, out, err = server.seal()
    assert (status, err) == (0, "")
    server.is_sealed()
    assert "shutdown -p now" in out


def test_with_n_it_shows_what_it_would_do_and_changes_nothing(server: Server) -> None:
    before = server.contents()
    status, out, err = server.seal("-n")
    assert (status, err) == (0, "")
    assert server.contents() == before
    shown = out.splitlines()
    assert all(line.startswith("would ") for line in shown)
    _, done, _ = server.seal()
    assert done.splitlines()[: len(shown)] == [
        line.removeprefix("would ") for line in shown
    ]
    for name in {*REMOVED, *EMPTIED}:
        assert f"/{name}" in out


def test_it_may_be_run_twice(server: Server) -> None:
    server.seal()
    assert server.seal()[0] == 0
    server.is_sealed()
    assert server.hook.read_text().count("first-server") == 1


def test_resolvers_that_somebody_wrote_stay(server: Server) -> None:
    own = "nameserver 192.0.2.53\nlookup file bind\n"
    file = server.path / "etc/resolv.conf"
    file.write_text(f"nameserver 10.0.0.1 # resolvd: vio0\n{own}")
    server.seal()
    assert file.read_text() == own


def test_other_lines_in_rc_securelevel_stay(server: Server) -> None:
    server.hook.write_text("sysctl kern.securelevel=2\n")
    server.seal()
    server.is_sealed()
    assert server.hook.read_text().splitlines()[1:] == ["sysctl kern.securelevel=2"]


@pytest.mark.parametrize("number", [1, 2, 5, 12, 25])
def test_if_interrupted_it_says_so_and_can_be_run_again(
    server: Server, number: int
) -> None:
    # The count is in /var: in the namespace the test may write there.
    server.stub(
        "rm",
        'echo >>/var/count; [ "$(wc -l </var/count)" -ne '
        f'{number} ] || kill -INT 0; exec /bin/rm "$@"',
    )
    status, _, err = server.seal()
    assert status == 1
    assert err == "scw-seal: interrupted: this server is half sealed; run it again\n"
    assert "first-server" in server.hook.read_text()
    (server.path / "bin/rm").unlink()
    (server.path / "var/count").unlink()
    assert server.seal()[0] == 0
    server.is_sealed()


def test_another_system_is_left_alone(server: Server) -> None:
    (server.path / "bin/uname").unlink()
    before = server.contents()
    for words in ([], ["-n"]):
        status, out, err = server.seal(*words)
        assert (status, out) == (1, "")
        assert err == "scw-seal: this is for OpenBSD, not for Linux\n"
    assert server.contents() == before


def test_without_root_only_n_is_allowed(server: Server) -> None:
    server.stub("id", "echo 1000")
    before = server.contents()
    status, out, err = server.seal()
    assert (status, out) == (1, "")
    assert err == (
        "scw-seal: only root can do this; with -n it shows what would be done\n"
    )
    assert server.contents() == before
    assert server.seal("-n")[0] == 0


@pytest.mark.parametrize("words", [["-x"], ["now"], ["-n", "now"]])
def test_a_wrong_command_line_prints_the_usage(
    server: Server, words: list[str]
) -> None:
    before = server.contents()
    status, out, err = server.seal(*words)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == "usage: scw-seal [-n]"
    assert server.contents() == before


def test_without_first_server_nothing_is_removed(server: Server) -> None:
    (server.path / "here/first-server").unlink()
    before = server.contents()
    status, out, err = server.seal()
    assert (status, out) == (1, "")
    assert err == f"scw-seal: there is no {server.path}/here/first-server\n"
    assert server.contents() == before


def test_a_file_that_cannot_be_removed_is_a_failure(server: Server) -> None:
    server.stub("rm", "exit 1")
    status, out, err = server.seal()
    assert (status, "sealed" in out) == (1, False)
    assert err == "scw-seal: not sealed: some steps failed\n"


def test_the_manual_has_every_status_and_the_option() -> None:
    text = MANUAL.read_text()
    statuses = text[text.index(".Sh EXIT STATUS") : text.index(".Sh EXAMPLES")]
    assert re.findall(r"^\.It (\d)", statuses, re.MULTILINE) == ["0", "1", "2"]
    assert ".Op Fl n\n" in text
