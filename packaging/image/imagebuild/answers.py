"""The response file of autoinstall(8): all answers for the installer.

Strategy: every question that comes up is answered here, even if its default is good,
so that a new default changes nothing. `_autorespond` of
distrib/miniroot/install.sub looks up an answer like this: it takes the first line
whose left side is in the question as whole words, ignoring case, up to a blank, a
question mark or the end. It then removes that line. A question that is asked again
gets the next such line, or else its default. So the order of lines with the same left
side matters, and `done` must end a selection, which would otherwise use up the
answers for the next location.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from scw_signal.document import is_hostname
from scw_signal.keys import authorized_keys
from scw_signal.terminal import printable

from .errors import BuildError

# autoinstall(8): with thirteen asterisks no password is valid.
NO_PASSWORD = "*" * 13
SITE_DIRECTORY = "site"  # where the site set is served
LONGEST_LABEL = 63  # RFC 1035, section 2.3.4


class Release(NamedTuple):
    """A release of OpenBSD, such as 8.0."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return it as people write it: 8.0."""
        return f"{self.major}.{self.minor}"

    @property
    def digits(self) -> str:
        """The form in names of files: 80."""
        return f"{self.major}{self.minor}"


class System(NamedTuple):
    """The system to install."""

    release: Release
    hostname: str
    ssh_key: str  # may be empty, if the console's keys are enough
    timezone: str
    sets: str  # patterns for the installer, which first selects all sets
    layout: bool  # whether to serve a template for disklabel(8)


class Options(NamedTuple):
    """Options for install.site and the first boot: a file in the site set."""

    console_keys: bool
    python: bool  # added while the image is built, not at the first boot

    @property
    def text(self) -> str:
        """The file: one word a line."""
        words = {"console-keys": self.console_keys, "python": self.python}
        return "".join(f"{word}\n" for word, wanted in words.items() if wanted)


class Answer(NamedTuple):
    """A line of the response file."""

    question: str
    answer: str


def least_size(layout: str) -> int:
    """Return the least number of bytes that a template's partitions need.

    disklabel(8), "automatic disk allocation": each line is a mount point and a size,
    or a least and a greatest size. Anything else is ignored.
    """
    sizes = re.findall(r"^\S+\s+([\d.]+)([KMGT])", layout, re.MULTILINE | re.IGNORECASE)
    return sum(
        int(float(number) * 1024 ** (1 + "KMGT".index(unit.upper())))
        for number, unit in sizes
    )


def answers(system: System, server: str) -> list[Answer]:
    """Return all answers, in the order of the questions.

    `server` is the address and port from which the guest fetches files.
    """
    return [
        Answer(*line)
        for line in (
            ("Terminal type", "vt220"),
            ("System hostname", system.hostname),
            ("Network interface to configure", "vio0"),
            ("IPv4 address for vio0", "autoconf"),
            ("IPv6 address for vio0", "autoconf"),
            ("Network interface to configure", "done"),
            ("DNS domain name", "my.domain"),
            ("Password for root account", NO_PASSWORD),
            ("Public ssh key for root account", system.ssh_key or "none"),
            ("Start sshd(8) by default", "yes"),
            ("Do you expect to run the X Window System", "no"),
            ("Do you want the X Window System to be started by xenodm(1)", "no"),
            ("Change the default console to com0", "yes"),
            ("Which speed should com0 use", "115200"),
            ("Setup a user", "no"),
            ("Allow root ssh login", "prohibit-password"),
            ("What timezone are you in", system.timezone),
            ("Which disk is the root disk", "sd0"),
            ("Encrypt the root disk with a (p)assphrase or (k)eydisk", "no"),
            ("Use (W)hole disk MBR, whole disk (G)PT or (E)dit", "gpt"),
            # Asked if the kernel has found no EFI frame buffer. The default no leads
            # back to the previous question, and there to an MBR.
            ("An EFI/GPT disk may not boot. Proceed", "yes"),
            (
                "URL to autopartitioning template for disklabel",
                f"http://{server}/disklabel" if system.layout else "none",
            ),
            ("Use (A)uto layout, (E)dit auto layout, or create (C)ustom layout", "a"),
            ("Which disk do you wish to initialize", "done"),
            # The sets of the release are on the medium, which is checked as a whole.
            ("Location of sets", "disk"),
            ("Is the disk partition already mounted", "no"),
            ("Which disk contains the install media", "sd1"),
            ("Which sd1 partition has the install sets", "a"),
            ("Pathname to the sets", f"{system.release}/amd64"),
            ("Set name(s)", f"{system.sets} done".strip()),
            ("Continue without verification", "yes"),
            # The site set is not signed.
            ("Location of sets", "http"),
            ("HTTP proxy URL", "none"),
            ("HTTP Server", f"http://{server}"),
            ("Server directory", SITE_DIRECTORY),
            ("INSTALL.amd64 not found. Use sets found here anyway", "yes"),
            ("Set name(s)", "site* done"),
            ("Continue without verification", "yes"),
            ("Location of sets", "done"),
        )
    ]


def response_file(system: System, server: str) -> str:
    """Return the response file."""
    return "".join(
        f"{question} = {answer}\n" for question, answer in answers(system, server)
    )


def index(name: str, size: int) -> str:
    """Return index.txt for one set of `size` bytes, in the form of ls -l."""
    return f"-rw-r--r--  1 0  0  {size} Jan  1 00:00:00 2000 {name}\n"


def hostname(word: str) -> str:
    """Return a short host name for the installer; raises BuildError."""
    if "." in word or len(word) > LONGEST_LABEL or not is_hostname(word):
        raise BuildError(
            f"not a host name: {printable(word)!r}; use letters, digits and inner"
            " hyphens, without a domain"
        )
    return word


def timezone(word: str) -> str:
    """Return a name that could be a time zone; raises BuildError."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)*", word):
        raise BuildError(f"not a time zone: {printable(word)!r}; as in Europe/Paris")
    return word


def sets(words: str) -> str:
    """Return patterns of sets to add or, with a hyphen, to leave out."""
    for word in words.split():
        if not re.fullmatch(r"[-+]?[A-Za-z0-9.*]+", word) or word in {"done", "abort"}:
            raise BuildError(f"not a pattern of sets: {printable(word)!r}; as in -x*")
    return " ".join(words.split())


def ssh_key(text: str, name: str) -> str:
    """Return the one public key in a file named `name`; raises BuildError."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        raise BuildError(f"{name}: {len(lines)} lines instead of one public key")
    keys, complaints = authorized_keys({"ssh_public_keys": [lines[0]]})
    if complaints:
        why = complaints[0].partition(": ")[2]
        raise BuildError(f"{name}: not a public key: {why}")
    return keys[0]
