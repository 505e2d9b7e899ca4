"""console-keys: the console's SSH keys in sshd_config(5), as a real sshd reads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from installed import PATIENCE

TOP = Path(__file__).resolve().parent.parent
IMAGE = TOP / "packaging/image"
SSHD = "/usr/sbin/sshd"
INSIDE = """
set -e
mount --bind "$1/etc" /etc
mount -t tmpfs none /run
mkdir /run/sshd
PATH=$1/bin:$PATH
shift
exec "$@"
"""
# The lines of OpenBSD's sshd_config that are not comments.
CONFIG = """\
AuthorizedKeysFile	.ssh/authorized_keys
PermitRootLogin prohibit-password
Subsystem	sftp	/usr/libexec/sftp-server
"""
OURS = "/usr/local/bin/scw-metadata --ssh-keys %u"


class Server:
    """A server with sshd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "etc/ssh/sshd_config"
        for name in ("etc/ssh", "bin", "here"):
            (path / name).mkdir(parents=True)
        (path / "etc/passwd").write_text(
            "root:x:0:0::/root:/bin/sh\nsshd:x:27:27::/run/sshd:/sbin/nologin\n"
        )
        self.config.write_text(CONFIG)
        self.config.chmod(0o640)
        for name in ("console-keys", "server.sub"):
            shutil.copy(IMAGE / name, path / "here")
        for name in ("rcctl", "logger"):
            (path / "bin" / name).write_text(
                f'#!/bin/sh\necho "{name} $*" >>{path}/asked\n'
            )
            (path / "bin" / name).chmod(0o755)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "",
             "-f", path / "etc/ssh/ssh_host_ed25519_key"],
            check=True,
        )  # fmt: skip

    def run(self, *words: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", INSIDE, "sh", self.path, *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
            text=True,
        )
        return done.returncode, done.stdout

    def console_keys(self) -> tuple[int, str]:
        return self.run("mksh", self.path / "here/console-keys")

    def for_user(self, user: str) -> list[str]:
        """Return the settings of sshd itself for the keys of a user."""
        who = f"user={user},host=localhost,addr=127.0.0.1"
        status, said = self.run(SSHD, "-T", "-C", who)
        assert status == 0, said
        return [
            line.partition(" ")[2]
            for line in said.splitlines()
            if line.lower().startswith("authorizedkeyscommand")
        ]

    def left(self) -> set[str]:
        return {path.name for path in self.config.parent.iterdir()}


@pytest.fixture
def server(tmp_path: Path) -> Server:
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("unshare"):
        pytest.skip("only root on Linux can mount in a name space")
    if shutil.which("mksh") is None:
        pytest.skip("mksh is not installed here")
    if not Path(SSHD).exists():
        pytest.skip("sshd is not installed here")
    return Server(tmp_path / "server")


def test_roots_keys_come_from_the_console_and_nobody_elses(server: Server) -> None:
    before = server.left()
    status, said = server.console_keys()
    assert (status, said) == (
        0, "the SSH keys in the cloud's console log in as root\n"
    )  # fmt: skip
    assert server.for_user("root") == [OURS, "_scwsignal"]
    assert server.for_user("sshd") == ["none", "none"]
    assert server.config.read_text().startswith(CONFIG)
    assert server.config.stat().st_mode & 0o777 == 0o640
    assert server.left() == before
    assert (server.path / "asked").read_text().splitlines() == [
        "rcctl check sshd", "rcctl reload sshd",
    ]  # fmt: skip


def test_a_second_run_changes_nothing(server: Server) -> None:
    server.console_keys()
    before = server.config.read_text()
    assert server.console_keys() == (0, "")
    assert server.config.read_text() == before


@pytest.mark.parametrize(
    "own",
    [
        "AuthorizedKeysCommand /usr/bin/true\nAuthorizedKeysCommandUser nobody\n",
        (
            "Match User root\n\tauthorizedkeyscommand=/usr/bin/true %u\n"
            "\tAuthorizedKeysCommandUser nobody\n"
        ),
        "Include /etc/ssh/more\n",
    ],
)
def test_a_command_that_somebody_wrote_stays(server: Server, own: str) -> None:
    (server.config.parent / "more").write_text(
        "AuthorizedKeysCommand /usr/bin/true\nAuthorizedKeysCommandUser nobody\n"
    )
    server.config.write_text(CONFIG + own)
    assert server.console_keys() == (0, "")
    assert server.config.read_text() == CONFIG + own
    assert not (server.path / "asked").exists()


def test_a_command_for_another_account_is_no_obstacle(server: Server) -> None:
    own = "Match User puffy\n\tAuthorizedKeysCommand /usr/bin/true\n"
    own += "\tAuthorizedKeysCommandUser nobody"  # without a newline
    server.config.write_text(CONFIG + own)
    assert server.console_keys()[0] == 0
    assert server.for_user("root") == [OURS, "_scwsignal"]
    assert server.for_user("puffy") == ["/usr/bin/true", "nobody"]


def test_a_configuration_that_sshd_rejects_stays(server: Server) -> None:
    server.config.write_text(f"{CONFIG}Nonsense yes\n")
    before = server.left()
    status, said = server.console_keys()
    assert status == 1
    assert said.splitlines()[-1] == (
        "console-keys: sshd rejects /etc/ssh/sshd_config; it is unchanged"
    )
    assert server.config.read_text() == f"{CONFIG}Nonsense yes\n"
    assert server.left() == before


@pytest.mark.parametrize("program", ["cp", "sync", "mv"])
def test_the_power_may_go_at_any_step(server: Server, program: str) -> None:
    stub = server.path / "bin" / program
    stub.write_text("#!/bin/sh\nkill -9 $PPID\n")
    stub.chmod(0o755)
    assert server.console_keys()[0] == -9
    assert server.config.read_text() == CONFIG
    stub.unlink()
    assert server.console_keys()[0] == 0
    assert server.for_user("root") == [OURS, "_scwsignal"]
    assert server.config.read_text().count("Match") == 1


def test_the_block_is_the_one_in_the_manual() -> None:
    manual = (TOP / "packaging/man/scw-metadata.1").read_text()
    script = (IMAGE / "console-keys").read_text()
    for line in ("Match User root", "AuthorizedKeysCommandUser _scwsignal", OURS):
        assert line in manual
        assert line in script
