"""scw-metadata --ssh-keys, installed, by itself and under the real sshd(8)."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from installed import BIN, ENVIRONMENT, PATIENCE, Result, run
from scw_signal import emulator
from scw_signal.cli import ssh_keys
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
ONE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
TWO = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

OWN_RUN = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'

pytestmark = pytest.mark.usefixtures("commands")


def document(*keys: str, tags: tuple[str, ...] = ()) -> dict[str, object]:
    listed = [{"key": key, "fingerprint": "-"} for key in keys]
    return {**emulator.DOCUMENT, "ssh_public_keys": listed, "tags": list(tags)}


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(document=document(ONE)) as service:
        yield service


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a run directory in which the agent left another key."""
    (tmp_path / "metadata.json").write_text(json.dumps(document(TWO)))
    return tmp_path


def ssh_keys_of(service: Emulator, *words: str) -> Result:
    return run("scw-metadata", "--ssh-keys", "--url", service.url, *words)


# What is printed


def test_the_keys_of_the_account_and_of_tags_are_printed(service: Emulator) -> None:
    tag = f"AUTHORIZED_KEY={TWO} by tag".replace(" ", "_")
    service.set_document(document(f"{ONE} by account", tags=("web", tag)))
    assert ssh_keys_of(service) == (0, f"{ONE} by account\n{TWO} by tag\n", "")


def test_the_default_key_of_the_emulator_is_printed() -> None:
    with Emulator() as service:
        status, out, err = ssh_keys_of(service)
    assert (status, out.count("\n"), err) == (0, 1, "")


def test_no_keys_is_no_output_and_status_0(service: Emulator) -> None:
    service.set_document({})
    assert ssh_keys_of(service) == (0, "", "")


def test_a_key_that_is_left_out_is_reported_but_no_failure(service: Emulator) -> None:
    service.set_document(document(f'command="id" {TWO}', ONE))
    status, out, err = ssh_keys_of(service)
    assert (status, out) == (0, f"{ONE}\n")
    assert err == (
        "scw-metadata: left out: ssh_public_keys.0: begins with 'command=\"id\"',"
        " which is not a type of login key\n"
    )


def test_of_many_keys_left_out_only_a_few_are_reported(service: Emulator) -> None:
    service.set_document(document(*["x"] * 100, ONE))
    status, out, err = ssh_keys_of(service)
    assert (status, out, err.count("\n")) == (0, f"{ONE}\n", 9)
    assert err.endswith("left out: 92 more\n")


# Which accounts get keys


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ([], [ONE]),
        (["root"], [ONE]),
        (["puffy"], []),
        ([""], []),
        (["ROOT"], []),
        (["--account", "puffy", "puffy"], [ONE]),
        (["--account", "puffy", "root"], []),
        (["--account", "puffy", "--account", "root", "root"], [ONE]),
    ],
)
def test_only_the_accounts_that_are_named_get_keys(
    service: Emulator, words: list[str], keys: list[str]
) -> None:
    assert ssh_keys_of(service, *words) == (0, "".join(f"{key}\n" for key in keys), "")


def test_for_other_accounts_the_service_is_not_asked(service: Emulator) -> None:
    ssh_keys_of(service, "puffy")
    assert service.requests == []


@pytest.mark.parametrize(
    "words",
    [
        ["root", "puffy"],
        ["--json"],
        ["--sh"],
        ["--prefix", "X_"],
        ["--timeout", "0"],
        ["--timeout", "3"],
        ["--url", "http://localhost"],
    ],
)
def test_options_unsafe_or_slow_at_a_login_are_status_2(words: list[str]) -> None:
    status, out, err = run("scw-metadata", "--ssh-keys", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_account_needs_ssh_keys() -> None:
    status, _, err = run("scw-metadata", "--account", "root")
    assert status == 2
    assert "--account goes with --ssh-keys" in err


# Where the keys come from


def test_the_service_comes_before_what_is_stored(
    service: Emulator, cache: Path
) -> None:
    assert ssh_keys_of(service, "--run-dir", str(cache)).out == f"{ONE}\n"


def test_a_service_without_keys_is_believed_too(service: Emulator, cache: Path) -> None:
    service.set_document(document())
    assert ssh_keys_of(service, "--run-dir", str(cache)).out == ""


@pytest.mark.parametrize(
    "fault", ["refuse", "503", "429-after=60", "html", "reset", "drip", "hang", "huge"]
)
def test_if_the_service_fails_the_stored_keys_are_printed(
    service: Emulator, cache: Path, fault: str
) -> None:
    service.set_faults([fault])
    words = ("--timeout", "0.3", "--run-dir", str(cache))
    status, out, err = ssh_keys_of(service, *words)
    assert (status, out) == (0, f"{TWO}\n")
    assert err.endswith("; using the keys stored at boot\n")
    assert err.count("\n") == 1


def test_a_failure_that_passes_is_tried_again(service: Emulator, cache: Path) -> None:
    service.set_faults(["503:1"])
    assert ssh_keys_of(service, "--run-dir", str(cache)) == (0, f"{ONE}\n", "")


def test_cached_does_not_ask(service: Emulator, cache: Path) -> None:
    words = ("--cached", "--run-dir", str(cache))
    assert ssh_keys_of(service, *words) == (0, f"{TWO}\n", "")
    assert service.requests == []


@pytest.mark.parametrize("stored", [None, "", "{", "[]"])
def test_neither_an_answer_nor_a_cache_is_status_1(
    tmp_path: Path, stored: str | None
) -> None:
    if stored is not None:
        (tmp_path / "metadata.json").write_text(stored)
    status, out, err = run("scw-metadata", "--ssh-keys", "--run-dir", str(tmp_path))
    assert (status, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("words", [[], ["--cached"]])
def test_nothing_is_written(
    service: Emulator, tmp_path: Path, words: list[str]
) -> None:
    directory = tmp_path / "run"
    assert ssh_keys_of(service, *words, "--run-dir", str(directory)).status == 0
    assert not directory.exists()


# How long it takes


def test_the_bounds_add_up_to_three_seconds() -> None:
    starting = 0.2
    longest = max(ssh_keys.TIMEOUT_SECONDS, ssh_keys.LONGEST_TIMEOUT)
    assert longest < ssh_keys.KILL_AFTER_SECONDS <= 3.0 - starting


def test_a_process_that_hangs_is_ended_by_the_kernel(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # writing to it blocks when it is full
    with (tmp_path / "fifo").open("r+b", buffering=0) as full:
        os.set_blocking(full.fileno(), False)
        while full.write(bytes(4096)):
            pass
        os.set_blocking(full.fileno(), True)
        (tmp_path / "metadata.json").write_text(json.dumps(document(TWO)))
        done = subprocess.run(
            ["scw-metadata", "--ssh-keys", "--cached", "--run-dir", str(tmp_path)],
            executable=BIN / "scw-metadata",
            env=ENVIRONMENT,
            stdout=full,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == -14, "not ended by SIGALRM"


# Under sshd


class Sshd(NamedTuple):
    """A real sshd on loopback, which gets root's keys from the installed command."""

    port: int
    directory: Path

    def make_key(self, name: str) -> str:
        """Make a key pair; return the public half."""
        private = self.directory / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", private],
            check=True,
            timeout=PATIENCE,
        )
        return private.with_suffix(".pub").read_text()

    def login(self, name: str, user: str = "root") -> bool:
        """Log in with a key and run a command; tell whether that worked."""
        options = (
            "BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none",
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null", "LogLevel=ERROR",
        )  # fmt: skip
        done = subprocess.run(
            [
                "ssh",
                "-F",
                "none",
                "-p",
                str(self.port),
                "-i",
                str(self.directory / name),
            ]
            + [word for option in options for word in ("-o", option)]
            + [f"{user}@127.0.0.1", "echo", "here"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode == 0:
            assert done.stdout == b"here\n", "another command ran"
            return True
        assert b"Permission denied" in done.stderr, done.stderr
        return False


def sshd_program() -> list[str]:
    """Return how to run sshd, or skip the test.

    It gets a /run of its own: Debian's sshd needs a directory there, and records
    logins in a file there.
    """
    if os.geteuid() != 0:
        pytest.skip("running sshd takes root")
    # It executes itself again for each connection, so it needs an absolute path.
    program = shutil.which("sshd", path=ENVIRONMENT["PATH"])
    if program is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH is not installed here")
    own_run = ["unshare", "--mount", "sh", "-c", OWN_RUN, "sh"]
    if shutil.which(own_run[0]) is None:
        pytest.skip("unshare is not installed here")
    if subprocess.run([*own_run, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    return [*own_run, program]


def configuration(directory: Path, port: int, command: str) -> str:
    return f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {directory}/host
PidFile none
StrictModes yes
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
PrintLastLog no
AuthorizedKeysCommand {command}
AuthorizedKeysCommandUser {command_user()}
"""


def command_user() -> str:
    """Return "nobody", or "root" if that user cannot run this Python."""
    tried = subprocess.run(
        ["sh", "-c", '"$0" --version', BIN / "scw-metadata"],
        user=pwd.getpwnam("nobody").pw_uid,
        capture_output=True,
        check=False,
    )
    return "nobody" if tried.returncode == 0 else "root"


@contextmanager
def running(directory: Path, service: Emulator) -> Iterator[Sshd]:
    """Run sshd with its files in a directory that only root may write to."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # sshd requires that only root may write to this and the directories above it.
    command = shutil.copy(BIN / "scw-metadata", directory)
    sshd = Sshd(port, directory)
    sshd.make_key("host")
    words = f"--ssh-keys --url {service.url} --run-dir {directory}/run %u"
    settings = directory / "sshd_config"
    settings.write_text(configuration(directory, port, f"{command} {words}"))
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(
            [*sshd_program(), "-D", "-e", "-f", str(settings)],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        try:
            await_port(port, process)
            yield sshd
        finally:
            process.terminate()


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail("sshd has ended")


@pytest.fixture
def sshd(service: Emulator) -> Iterator[Sshd]:
    sshd_program()
    with tempfile.TemporaryDirectory(prefix="scwtest-", dir="/var/lib") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with running(directory, service) as sshd:
            yield sshd


def test_a_key_added_in_the_console_works_at_the_next_login(
    sshd: Sshd, service: Emulator
) -> None:
    first, second = sshd.make_key("first"), sshd.make_key("second")
    service.set_document(document(first))
    assert sshd.login("first")
    assert not sshd.login("second")
    service.set_document(document(first, second))
    assert sshd.login("second")
    service.set_document(document(second))
    assert not sshd.login("first"), "it was taken away"


def test_when_the_service_is_down_the_keys_stored_at_boot_work(
    sshd: Sshd, service: Emulator
) -> None:
    key = sshd.make_key("stored")
    service.set_faults(["refuse"])
    assert not sshd.login("stored")
    (sshd.directory / "run").mkdir()
    (sshd.directory / "run" / "metadata.json").write_text(json.dumps(document(key)))
    assert sshd.login("stored")


def test_nobody_but_root_gets_the_keys(sshd: Sshd, service: Emulator) -> None:
    service.set_document(document(sshd.make_key("key")))
    assert not sshd.login("key", user="nobody")
    assert service.requests == [], "asked on behalf of another account"


def test_a_key_with_options_lets_nobody_in(sshd: Sshd, service: Emulator) -> None:
    key, good = sshd.make_key("key"), sshd.make_key("good")
    options = 'command="echo other"'
    service.set_document(
        document(
            f"{options} {key}", f"# x\n{key}", f"{good.strip()} c\n{options} {key}"
        )
    )
    assert not sshd.login("key")
    assert not sshd.login("good")


def test_sshd_accepts_the_example_in_the_manual(tmp_path: Path) -> None:
    sshd_program()
    page = (ROOT / "packaging" / "man" / "scw-metadata.1").read_text()
    example = page[page.index("\nMatch User root") :].split("\n.Ed", 1)[0]
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-f", tmp_path / "host"],
        check=True,
        timeout=PATIENCE,
    )
    (tmp_path / "config").write_text(f"HostKey {tmp_path}/host\n{example}\n")
    effective = subprocess.run(
        [*sshd_program(), "-T", "-f", str(tmp_path / "config"), "-C", "user=root"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout.lower()  # newer versions write AuthorizedKeysCommand
    assert (
        "authorizedkeyscommand /usr/local/bin/scw-metadata --ssh-keys %u\n" in effective
    )
    assert "authorizedkeyscommanduser _scwsignal\n" in effective
