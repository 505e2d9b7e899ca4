"""A stand-in for a machine that runs OpenBSD's installer: its serial console.

It replaces qemu-system-x86_64, and plays the boot loader, the kernel and the
installer's dialogue as in distrib/miniroot/install.sub and install.md of amd64:
which question follows which answer, what a wrong answer does, how an answer is
looked up and used up. It fetches what the guest would, from loopback. It shares no
code with packaging/image. FAULT in the environment names what goes wrong.
"""

from __future__ import annotations

import fnmatch
import http.client
import os
import re
import sys
import time
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASE_SETS = (
    "bsd bsd.mp bsd.rd base80.tgz comp80.tgz man80.tgz game80.tgz"
    " xbase80.tgz xshare80.tgz xfont80.tgz xserv80.tgz"
).split()
GUESTS_HOST = "10.0.2.2"


class NoAnswerError(Exception):
    """The response file has no answer, and the question no default."""


class FailedError(Exception):
    """The installer gives up, and says why."""


class Facts(NamedTuple):
    """What differs between machines, and so decides which questions are asked."""

    frame_buffer: bool = True  # from EFI
    display: bool = True  # wsdisplay(4)
    openbsd_org: bool = True  # reachable: it tells mirrors and a time zone
    domain: bool = False  # whether resolv.conf has one


class Installed(NamedTuple):
    """What the installer has made."""

    answers: dict[str, str]
    interfaces: dict[str, str]
    partitions: str  # gpt or mbr
    layout: str
    sets: dict[str, list[str]]  # by source


class Responses:
    """The response file, and how an answer is found in it: `_autorespond`."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def answer(self, question: str, default: str = "") -> str:
        for number, line in enumerate(self.lines):
            key, equals, value = line.strip(" \t").partition("=")
            if not equals or not key or key.startswith("#") or not value:
                continue
            key = re.escape(key.rstrip(" \t").lower())
            words = rf"(?:.*[ \t])?{key}(?:[ \t?].*)?"
            if re.fullmatch(words, question.lower(), re.DOTALL):
                del self.lines[number]
                return value.strip(" \t")
        if not default:
            raise NoAnswerError(question.lower())
        return default


class Installer:
    """One way through the questions."""

    def __init__(
        self,
        responses: Responses,
        facts: Facts,
        show: Callable[[str], None],
        fetch: Callable[[str], str],
    ) -> None:
        self.responses = responses
        self.facts = facts
        self.show = show
        self.fetch = fetch
        self.answers: dict[str, str] = {}

    def ask(self, question: str, default: str = "") -> str:
        self.show(f"{question} [{default}] " if default else f"{question} ")
        answer = self.responses.answer(question, default)
        self.answers[question.partition("?")[0]] = answer
        self.show(f"{answer}\n")
        return answer

    def yes(self, question: str, default: str = "no") -> bool:
        answer = self.ask(question, default)
        if answer not in {"y", "yes", "n", "no"}:
            self.fail(f"'{answer}' is not a valid choice.")
        return answer.startswith("y")

    def which(self, question: str, choices: list[str], default: str = "") -> str:
        self.show(f"{question} (or 'done') [{default or choices[0]}] ")
        answer = self.responses.answer(question, default or choices[0])
        self.answers[question.partition("?")[0]] = answer
        self.show(f"{answer}\n")
        if answer not in {*choices, "done"}:
            self.fail(f"'{answer}' is not a valid choice.")
        return answer

    def fail(self, why: str) -> NoReturn:
        self.show(f"{why}\n")
        raise FailedError(why)

    def install(self) -> Installed:
        ask = self.ask
        ask("Terminal type?", "vt220")
        ask("System hostname? (short form, e.g. 'foo')")
        interfaces = self.network()
        self.responses_to("Password for root account?")
        ask("Public ssh key for root account?", "none")
        self.yes("Start sshd(8) by default?", "yes")
        if self.facts.display:
            self.yes("Do you want the X Window System to be started by xenodm(1)?")
        if self.yes("Change the default console to com0?", "yes"):
            speeds = "9600 19200 38400 57600 115200".split()
            self.which("Which speed should com0 use?", speeds, "115200")
        if ask("Setup a user? (enter a lower-case loginname, or 'no')", "no") != "no":
            raise NotImplementedError("a user is not our way")
        how = ask("Allow root ssh login? (yes, no, prohibit-password)", "no")
        if how not in {"yes", "no", "prohibit-password"}:
            self.fail(f"'{how}' is not a valid choice.")
        if self.facts.openbsd_org:
            self.timezone("Europe/Berlin")
        partitions, layout = self.disk()
        sets = self.sets()
        if not self.facts.openbsd_org:
            self.timezone("")
        else:
            self.yes("Time appears wrong.  Set to 'Tue Jan  1 00:00:00 UTC'?", "yes")
        self.show("Saving configuration files... done.\n")
        return Installed(self.answers, interfaces, partitions, layout, sets)

    def responses_to(self, question: str) -> None:
        """Ask for a password, which is not echoed."""
        self.show(f"{question} ")
        self.answers[question.partition("?")[0]] = self.responses.answer(question)
        self.show("<provided>\n")

    def network(self) -> dict[str, str]:
        interfaces: dict[str, str] = {}
        default = "vio0"
        question = "Network interface to configure? (name, lladdr, '?', or 'done')"
        while (name := self.ask(question, default)) != "done":
            if name != "vio0":
                self.fail(f"'{name}' is not a valid choice.")
            others = "(or 'autoconf' or 'none')"
            four = self.ask(f"IPv4 address for {name}? {others}", "autoconf")
            six = self.ask(f"IPv6 address for {name}? {others}", "none")
            interfaces[name] = f"inet {four}, inet6 {six}"
            default = "done"
        if self.facts.domain:
            self.ask("DNS domain name? (e.g. 'example.com')", "my.domain")
        return interfaces

    def timezone(self, default: str) -> None:
        zone = self.ask("What timezone are you in? ('?' for list)", default)
        if zone not in {"UTC", "Europe/Paris"}:
            # The installer asks again, with the same default.
            self.fail(f"'{zone}' is not a valid timezone on this system.")

    def disk(self) -> tuple[str, str]:
        if self.ask("Which disk is the root disk? ('?' for details)", "sd0") != "sd0":
            self.fail("no such disk")
        self.ask("Encrypt the root disk with a (p)assphrase or (k)eydisk?", "no")
        self.show("No valid MBR or GPT.\n")
        while True:
            scheme = self.ask(
                "Use (W)hole disk MBR, whole disk (G)PT or (E)dit?",
                "gpt" if self.facts.frame_buffer else "whole",
            )
            if scheme.lower().startswith("w"):
                self.show("Setting OpenBSD MBR partition to whole sd0...done.\n")
                break
            if self.facts.frame_buffer or self.yes(
                "An EFI/GPT disk may not boot. Proceed?"
            ):
                self.show("Setting OpenBSD GPT partition to whole sd0...done.\n")
                break
        url = self.ask("URL to autopartitioning template for disklabel?", "none")
        if url == "none":
            question = "Use (A)uto layout, (E)dit auto layout, or create (C)ustom"
            layout = self.ask(f"{question} layout?", "a")
        elif not (layout := self.fetch(url)):
            self.fail("No autopartitioning template found.")
        if self.which("Which disk do you wish to initialize?", ["sd1"], "done") != (
            "done"
        ):
            self.fail("that was the medium")
        return ("mbr" if scheme.lower().startswith("w") else "gpt"), layout

    def sets(self) -> dict[str, list[str]]:
        self.show("Let's install the sets!\n")
        chosen: dict[str, list[str]] = {}
        default = "disk"
        while (
            where := self.ask("Location of sets? (disk http or 'done')", default)
        ) != ("done"):
            if where == "disk":
                chosen[where] = self.from_disk()
            elif where == "http":
                chosen[where] = self.from_http()
            else:
                self.fail(f"'{where}' is not a valid choice.")
            default = "done"
        return chosen

    def from_disk(self) -> list[str]:
        if self.yes("Is the disk partition already mounted?"):
            self.fail("The directory does not exist.")
        if self.which("Which disk contains the install media?", ["sd1"]) != "sd1":
            self.fail("no such disk")
        which = "Which sd1 partition has the install sets?"
        if self.which(which, ["a", "i"]) != "a":
            self.fail("No filesystems found on sd1.")
        where = self.ask("Pathname to the sets? (or 'done')", "8.0/amd64")
        if where != "8.0/amd64":
            self.fail(f"The directory '{where}' does not exist.")
        optional = [name for name in RELEASE_SETS if name != "bsd.sp"]
        return self.install_files([*RELEASE_SETS, "INSTALL.amd64"], optional)

    def from_http(self) -> list[str]:
        self.ask("HTTP proxy URL? (e.g. 'http://proxy:8080', or 'none')", "none")
        more = "hostname, list#, 'done' or '?'"
        server = self.ask(
            f"HTTP Server? ({more if self.facts.openbsd_org else 'hostname or done'})",
            "cdn.openbsd.org" if self.facts.openbsd_org else "",
        )
        if not re.fullmatch(r"http://[A-Za-z0-9:.\[\]_-]+", server):
            self.fail(f"'{server}' is not a valid hostname.")
        directory = self.ask("Server directory?", "pub/OpenBSD/8.0/amd64").lstrip("/")
        self.show("Unable to get a verified list of distribution sets.\n")
        listing = self.fetch(f"{server}/{directory}/index.txt")
        names = re.findall(r"(?m)^.* ([a-zA-Z][a-zA-Z0-9._-]+)$", listing)
        sets = self.install_files(names, [])
        for name in sets:
            if not self.fetch(f"{server}/{directory}/{name}"):
                self.fail(f"Installation of {name} failed. Continue anyway? [no] no")
        return sets

    def install_files(self, there: list[str], selected: list[str]) -> list[str]:
        known = [name for name in (*RELEASE_SETS, "site80.tgz") if name in there]
        if not known:
            self.fail("Looked at it and found no OpenBSD sets.")
        if "INSTALL.amd64" not in there and not self.yes(
            "INSTALL.amd64 not found. Use sets found here anyway?"
        ):
            return []
        chosen = set(selected)
        words: list[str] = []
        while "done" not in words:
            answer = self.ask("Set name(s)? (or 'abort' or 'done')", "done")
            words = answer.split()
            for word in words[: words.index("done") if "done" in words else None]:
                names = fnmatch.filter(known, word.lstrip("+-"))
                chosen = chosen - {*names} if word[0] == "-" else chosen | {*names}
        if not self.yes(
            "Directory does not contain SHA256.sig. Continue without verification?"
        ):
            self.fail("not verified")
        for name in (sets := [name for name in known if name in chosen]):
            for percent in (0, 50, 100):
                self.show(f"\rInstalling {name:12} {percent:3}% |****| 00:00 ETA")
            self.show("\n")
        return sets


def fetch(url: str) -> str:
    """Fetch something as the guest would: through the user network of QEMU."""
    parts = urllib.parse.urlsplit(url)
    if (parts.scheme, parts.hostname) != ("http", GUESTS_HOST):
        raise ValueError(f"not from here: {url}")
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    try:
        connection.request("GET", parts.path)
        reply = connection.getresponse()
        return reply.read().decode("latin-1") if reply.status == 200 else ""
    finally:
        connection.close()


def show(text: str) -> None:
    """Write to the console, as a terminal gets it, in pieces of 7 bytes."""
    data = text.replace("\n", "\r\n").encode()
    for at in range(0, len(data), 7):
        os.write(1, data[at : at + 7])


def heard() -> str:
    """Return the next line that is typed; exit at the end of input."""
    line = b""
    while (char := os.read(0, 1)) != b"\r":
        if not char:
            sys.exit("nobody types any more")
        line = b"" if char == b"\x15" else line + char
    show(line.decode() + "\n")
    return line.decode()


def hang() -> NoReturn:
    """Print nothing more, and never end."""
    while True:
        time.sleep(60)


def machine(fault: str) -> int:
    """Play the machine, from the firmware to the reboot."""
    print("a harmless remark of QEMU", file=sys.stderr, flush=True)
    if fault == "dead":
        return 1
    show("\x1b[2J\x1b[01;01H\x1b[=3h\x1b[0m\x1b[35mBdsDxe: starting Boot0001\x1b[0m\n")
    if fault == "no-medium":
        show("\x1b[2JUEFI Interactive Shell v2.2\n\x1b[1m\x1b[33mShell> \x1b[0m")
        hang()
    boot(fault)
    return install(fault)


def boot(fault: str) -> None:
    """Play the boot loader and the kernel."""
    for command in ("stty com0 115200", "set tty com0", "boot"):
        show(">> OpenBSD/amd64 BOOTX64 3.67\n\x1b[37mboot\x1b[40m> ")
        if (typed := heard()) != command:
            sys.exit(f"the boot loader was told {typed!r}")
    show("booting hd0a:/8.0/amd64/bsd.rd: 4103-\nentry point at 0x1001000\n")
    show("OpenBSD 8.0 (RAMDISK_CD) #1: Tue Nov 24 00:00:00 UTC 2026\n")
    if fault == "panic":
        show("panic: uvm_fault(0xffffffff82a3, 0x0, 0, 1) -> e\nddb{0}> ")
        hang()


def install(fault: str) -> int:
    """Play the installer."""
    show("root on rd0a swap on rd0b dump on rd0b\nWelcome to the installation.\n")
    show("(I)nstall, (U)pgrade, (A)utoinstall or (S)hell? ")
    if heard() != "a":
        sys.exit("no autoinstall")
    if fault == "two-interfaces":
        show("Available network interfaces are: vio0 vio1.\n")
        show("Which network interface should be used for the initial DHCP request?")
        show(" (or 'done') [vio0] ")
        hang()
    show("Could not determine auto mode.\n")
    show(f"Response file location? [http://{GUESTS_HOST}/install.conf] ")
    text = fetch(location := heard())
    show(f"Fetching {location}\n")
    if not text:
        show("No response file found; non-interactive mode aborted.\n")
        hang()
    show("Performing non-interactive install...\n")
    try:
        Installer(
            Responses(text), Facts(domain=fault == "domain"), show, fetch
        ).install()
    except NoAnswerError as error:
        show(f'\nQuestion has no answer in response file: "{error}"\n')
    except FailedError:
        pass
    else:
        return reboot(fault)
    show("failed; check /tmp/ai/ai.log\n")
    hang()


def reboot(fault: str) -> int:
    """Finish an installation."""
    show("Making all device nodes... done.\n")
    if fault == "hang":
        hang()
    show("Relinking to create unique kernel... done.\n")
    if fault == "install.site":
        show("install.site failed\nfailed; check /tmp/ai/ai.log\n")
        hang()
    show("\nCONGRATULATIONS! Your OpenBSD install has been successfully completed!\n")
    show("syncing disks... done\nrebooting...\n")
    if fault == "no-reboot":
        hang()
    return 0


if __name__ == "__main__":
    sys.exit(machine(os.environ.get("FAULT", "")))
