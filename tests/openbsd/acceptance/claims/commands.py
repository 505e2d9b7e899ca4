"""Every command in every form, as root and as a user, live and from the cache."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from ..claim import claim, expect
from ..lab import DOCUMENT, HOSTNAME
from ..process import ENVIRONMENT
from ..system import COMMANDS, USER

if TYPE_CHECKING:
    from ..lab import Emulator, Lab

NO_KEY, USAGE = 3, 2  # exit statuses
KEY = "ssh-ed25519 AAAA"
VOLUMES = DOCUMENT["volumes"]


def _ready(lab: Lab) -> Emulator:
    service = lab.emulator(user_data={"cloud-init": b"#!/bin/sh\n"})
    lab.system.connect(4)
    return service


def _stored(lab: Lab) -> None:
    """Store the service's metadata, and remove the network."""
    _ready(lab)
    lab.agent("--no-dns").signalled()
    lab.system.unroute(4)


def _metadata(lab: Lab, *how: str) -> None:
    """Ask for the metadata in every form, as root and as a user."""
    for user in (None, USER):

        def out(*words: str, user: str | None = user) -> str:
            return lab.command("scw-metadata", *how, *words, user=user).out

        _expect(out("hostname", "public_ip.address"), f"{HOSTNAME}\n198.51.100.7\n")
        _expect(out("PUBLIC_IP_ADDRESS"), "198.51.100.7\n")
        expect(f"HOSTNAME={HOSTNAME}\n" in out(), out())
        _expect(json.loads(out("--json"))["tags"], DOCUMENT["tags"])
        _expect(json.loads(out("--json", "volumes")), VOLUMES)
        _expect(_in_a_shell(out("--sh")), f"{HOSTNAME} it's one $(id) `id`")
        expect("SRV_ZONE='fr-par-1'\n" in out("--sh", "--prefix", "SRV_"), out("--sh"))
        expect(out("--ssh-keys").startswith(KEY), out("--ssh-keys"))
        # The user given is not one of those who get the keys.
        _expect(out("--ssh-keys", "somebody"), "")
        missing = lab.command(
            "scw-metadata", *how, "hostnam", user=user, status=NO_KEY
        ).err
        _expect(missing, "scw-metadata: no such key: HOSTNAM (near: HOSTNAME)\n")
        parts = lab.command("scw-metadata-json", *how, "volumes", user=user).out
        _expect(json.loads(parts), VOLUMES)


@claim("scw-metadata and scw-metadata-json, live, in every form, as root and as a user")
def metadata_live(lab: Lab) -> None:
    service = _ready(lab)
    _metadata(lab)
    expect(service.lines("GET /conf"), "the service was not asked")


@claim("the same with --cached, from what the agent stored, without a network")
def metadata_cached(lab: Lab) -> None:
    _stored(lab)
    _metadata(lab, "--cached")


@claim("scw-signal-state, as root and as a user")
def signal_state(lab: Lab) -> None:
    service = _ready(lab)
    for count, user in enumerate((None, USER), start=1):
        for words, out in (
            (("booted",), "booted signal sent!\n"),
            (("-q", "--once", "booted"), ""),
        ):
            _expect(lab.command("scw-signal-state", *words, user=user).out, out)
        service.taken(2 * count)
    lab.command("scw-signal-state", "kernel-started")
    service.line("state_detail=kernel-started")


@claim("scw-signal-state without a service says why, and ends in time with status 1")
def signal_state_in_vain(lab: Lab) -> None:
    lab.system.connect(4)
    done = lab.command("scw-signal-state", "--timeout", "2", "booted", status=1)
    expect("Connection refused" in done.err and "gave up" in done.err, done.err)


@claim("scw-userdata lists, reads, sets and deletes, from a port below 1024")
def user_data(lab: Lab) -> None:
    service = _ready(lab)
    value = b"no newline \x00\xff"

    def out(*words: str, stdin: bytes = b"", status: int = 0) -> str:
        return lab.command("scw-userdata", *words, stdin=stdin, status=status).out

    _expect(out(), "cloud-init\n")
    _expect(out("cloud-init"), "#!/bin/sh\n")
    _expect(out("role", "web front"), "")
    _expect(out("role"), "web front")
    out("bytes", "-", stdin=value)
    _expect(out("bytes"), value.decode(errors="backslashreplace"))
    _expect(out(), "cloud-init\nrole\nbytes\n")
    out("-d", "role")
    out("role", status=NO_KEY)
    service.line("GET /user_data/role -> 404")
    expect(not service.lines("-> 403"), "it asked from a port that is not reserved")


@claim("scw-userdata says to a user that only root can do this")
def user_data_user(lab: Lab) -> None:
    service = _ready(lab)
    done = lab.command("scw-userdata", user=USER, status=1)
    expect("only root may do this" in done.err, done.err)
    expect(not service.lines("user_data"), "it asked all the same")


@claim("scw-signald -n says what is right and what is wrong, and signals nothing")
def check_up(lab: Lab) -> None:
    lab.name_server("answers")
    done = lab.command("scw-signald", "-n", status=1)
    expect("FAIL route" in done.out, done.out)
    service = _ready(lab)
    for user in (None, USER):
        done = lab.command("scw-signald", "-n", user=user)
        for line in (
            "ok   route    to 169.254.42.42 from 192.0.2.7",
            "ok   service",
            "ok   state    state_detail is booting kernel",
            "ok   dns",
        ):
            expect(line in done.out, f"there is no '{line}'")
        told = json.loads(lab.command("scw-signald", "-n", "--json", user=user).out)
        expect(told["would_signal"], told)
    expect(not service.signals(), "it signalled")


@claim("every command has --help and --version, and one line for a wrong command line")
def usage(lab: Lab) -> None:
    for command in COMMANDS:
        expect("usage: " in lab.command(command, "--help").out, f"{command} --help")
        expect(lab.command(command, "--version").out.strip(), f"{command} --version")
        error = lab.command(command, "--no-such-option", status=USAGE).err
        expect(error.count("\n") == 1 and "Traceback" not in error, error)


def _in_a_shell(assignments: str) -> str:
    """Return how sh(1) reads the output of --sh."""
    code = 'eval "$1"; echo "$SCW_HOSTNAME $SCW_TAGS_0 $SCW_TAGS_1"'
    done = subprocess.run(
        ["/bin/sh", "-c", code, "sh", assignments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).rstrip("\n")


def _expect(seen: object, wanted: object) -> None:
    expect(seen == wanted, f"{seen!r}, and not {wanted!r}")
