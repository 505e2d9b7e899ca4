"""The dialogue on the serial console, from the firmware to the reboot; pure.

Strategy: the steps are a list, in their order. Input are the bytes of the console and
the time; output is what to type and what to show. Each step has a time limit. If it is
exceeded, or if a known failure shows up, the error says at which stage it was and what
the console said last.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from scw_signal.terminal import printable

from .errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Failures = Sequence[tuple[re.Pattern[str], str]]

# Bytes to keep of an unfinished line; everything that is searched for is shorter.
LONGEST_LINE = 4096
# Seconds that a machine may take to end after its reboot has begun.
SHUTDOWN_SECONDS = 60.0
# Seconds after which a question without an answer is an error.
ANSWER_SECONDS = 60.0

# The firmware draws with escape sequences: ECMA-48, section 5.4, and two-byte ones.
# An incomplete one stays until the rest has come.
_DRAWING = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_]|[ -/]+[0-~])"
    rb"|[\x00-\x09\x0b\x0c\x0e-\x1a\x7f]"
)
# ftp(1) shows its progress like this; a carriage return starts the line again.
_SET = re.compile(rb"^(?:Installing|Extracting) +([A-Za-z0-9.-]+) ", re.MULTILINE)


def drawn(data: bytes) -> bytes:
    """Return the text of a console, without drawing, each line ended by a newline."""
    return _DRAWING.sub(b"", data).replace(b"\r", b"\n")


def failure(text: str, known: Failures) -> str:
    """Return the meaning of a console's text if it is a known failure, or ""."""
    for pattern, meaning in known:
        found = pattern.search(text)
        if found:
            return meaning.format(printable(found[1].strip()))
    return ""


# pkg_add(1) prints this after each package.
_PACKAGE = re.compile(
    rb"^([A-Za-z][A-Za-z0-9+._-]*-[0-9][A-Za-z0-9+._-]*): ok$", re.MULTILINE
)
PACKAGE = "package "  # the stage of an added package begins with this


class Step(NamedTuple):
    """What to wait for, what to type then, and the stage that begins then."""

    awaits: str  # a regular expression
    stage: str
    limit: float  # seconds until it must have come
    types: str = ""  # without end of line; if empty, nothing is typed
    again: float = 0.0  # seconds of silence until it is typed again; 0: never


class Typed(NamedTuple):
    """Bytes for the guest."""

    data: bytes


class Stage(NamedTuple):
    """What happens now, to show to people."""

    name: str


# Failures of any machine: what the console shows, and what that means.
STOPPED = [
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"\bpanic(?: - [a-z ]+)?: ([^\n]*)\n", "the kernel panicked: {}"),
        (r"\bddb(?:\{\d+\})?> ()", "the kernel stopped in its debugger"),
        (r"(root device:)", "the kernel does not find its root"),
        (
            r"(UEFI Interactive Shell|No bootable option)",
            "the firmware found nothing to boot",
        ),
    )
]

# Failures of an installation: what the console shows, and what that means. The texts
# are those of install.sub.
INSTALL_FAILURES = [
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (
            r'Question has no answer in response file: "([^"\n]*)"',
            "the response file has no answer to a question of the installer: {}",
        ),
        (r"(No response file found)", "the installer could not get the response file"),
        (
            r"('[^'\n]*' is not a valid [a-z ]+)\.",
            "the installer refuses an answer: {}",
        ),
        (r"(No dhcp address on interface \w+) ", "the installer has no network: {}"),
        (r"(Autopartitioning failed)", "the installer cannot use this layout: {}"),
        (r"(No autopartitioning template)", "the installer got no layout: {}"),
        (r"(not properly mounted)", "the installer cannot use its new disk: {}"),
        (r"(Failed to install bootblocks)", "the disk would not boot: {}"),
        (r"(found no OpenBSD sets)", "the installer found no sets: {}"),
        (r"((?:Fetching|Installation) of \S+ failed)", "a set is missing: {}"),
        (r"(Checksum test for \S+ failed)", "a set is damaged: {}"),
        (r"(install\.site failed)", "the script of the site set failed: {}"),
        (r"(failed; check /tmp/ai/ai\.log)", "the installer gave up"),
    )
] + STOPPED

# How the output ends when the installer asks a question.
_QUESTION = re.compile(r"[^\n]*\?[^\n]*[\])?:] ?$")


class Console:
    """The state of a dialogue: the current step, and its deadline.

    `stage` is what happens now, to show to people.
    """

    def __init__(self, steps: Sequence[Step], now: float) -> None:
        """Begin with the first step; times are seconds on one monotonic clock."""
        self._steps = steps
        self._at = 0
        self._since = now  # the step before came
        self._heard = now
        self._pending = b""
        self._last = ""  # line that was not empty
        self._set = b""
        self.stage = "firmware"

    @property
    def finished(self) -> bool:
        """Whether the last step has come."""
        return self._at == len(self._steps)

    @property
    def due(self) -> float:
        """When to call `tick` if nothing is received earlier."""
        if self.finished:
            return self._since + SHUTDOWN_SECONDS
        moments = [self._since + self._steps[self._at].limit]
        if _QUESTION.search(self._text()):
            moments.append(self._heard + ANSWER_SECONDS)
        if self._typed and self._typed.again:
            moments.append(self._heard + self._typed.again)
        return min(moments)

    def receive(self, data: bytes, now: float) -> Iterator[Typed | Stage]:
        """Take what the guest has sent; raises BuildError for a known failure."""
        self._heard = now
        self._pending = drawn(self._pending + data)
        self._last = next(filter(str.strip, reversed(self._text().split("\n"))), "")
        while not self.finished:
            step = self._steps[self._at]
            found = re.search(step.awaits.encode(), self._pending)
            # Only failures before this step count.
            self._look_for_failure(self._pending[: found.end() if found else None])
            if found is None:
                break
            yield from self._progress(self._pending[: found.end()])
            self._pending = self._pending[found.end() :]
            self._at += 1
            self._since = now
            self.stage = step.stage
            yield Stage(step.stage)
            if step.types:
                yield Typed(f"{step.types}\r".encode())
        yield from self._progress(self._pending)
        self._pending = self._pending.rpartition(b"\n")[2][-LONGEST_LINE:]

    def _progress(self, output: bytes) -> Iterator[Stage]:
        """Name the sets in a piece of output, and the packages in its whole lines."""
        for name in dict.fromkeys(_SET.findall(output)):
            if name != self._set:
                self._set = name
                yield Stage(f"{self.stage}: {name.decode()}")
        for name in _PACKAGE.findall(output.rpartition(b"\n")[0]):
            yield Stage(PACKAGE + name.decode())

    def tick(self, now: float) -> Iterator[Typed]:
        """Let time pass; raises BuildError if it has been too long."""
        if now < self.due:
            return
        if self.finished:
            raise self._error("the machine did not end")
        step = self._steps[self._at]
        if now >= self._since + step.limit:
            raise self._error(f"not finished after {step.limit:.0f} s")
        if now >= self._heard + ANSWER_SECONDS and _QUESTION.search(self._text()):
            raise BuildError(
                f"{self.stage}: the installer asks a question that has no answer:"
                f" {printable(self._last.strip())}"
            )
        if self._typed:
            self._heard = now
            # Control-U erases what has arrived of the first try.
            yield Typed(f"\x15{self._typed.types}\r".encode())

    def ended(self) -> BuildError:
        """Return the error for a guest that ended before the dialogue did."""
        return self._error("the machine ended too early")

    @property
    def _typed(self) -> Step | None:
        """The previous step, if what it typed must still have an effect."""
        before = self._steps[self._at - 1] if self._at else None
        return before if before and before.again and not self.finished else None

    def _text(self) -> str:
        return self._pending.decode("ascii", "replace")

    def _look_for_failure(self, output: bytes) -> None:
        why = failure(output.decode("ascii", "replace"), INSTALL_FAILURES)
        if why:
            raise BuildError(f"{self.stage}: {why}")

    def _error(self, what: str) -> BuildError:
        said = f"; the console's last line: {printable(self._last.strip())}"
        return BuildError(f"{self.stage}: {what}{said if self._last.strip() else ''}")


def installation(server: str, site: str) -> list[Step]:
    """Return the steps of an installation with files from `server`.

    The limits are guesses, long enough for a machine without KVM.
    """
    boot = r"boot> "
    return [
        # The boot loader speaks through the firmware at first, and waits 5 s.
        Step(boot, "boot loader", 120, "stty com0 115200", again=10),
        Step(boot, "boot loader: serial console", 60, "set tty com0", again=10),
        # From here on both it and the firmware read the port, so characters may get
        # lost: what has no effect is typed again.
        Step(boot, "kernel of the installer: loading", 60, "boot", again=15),
        Step(r"OpenBSD \d+\.\d[^\n]*RAMDISK", "kernel of the installer", 300),
        Step(r"\(A\)utoinstall or \(S\)hell\? ", "installer: network", 600, "a"),
        Step(
            r"Response file location\? ",
            "installer: response file",
            180,
            f"http://{server}/install.conf",
        ),
        Step(r"Performing non-interactive install", "installer: questions", 120),
        Step(r"Setting OpenBSD GPT partition", "installer: disk", 300),
        Step(r"Let's install the sets!", "sets of the release", 900),
        Step(
            r"INSTALL\.amd64 not found\. Use sets found here anyway\? ",
            f"site set {site}",
            3 * 3600,
        ),
        Step(r"Saving configuration files", "configuration", 600),
        Step(r"Making all device nodes", "device nodes", 300),
        Step(r"Relinking to create unique kernel", "kernel", 1200),
        Step(r"CONGRATULATIONS!", "install.site", 3600),
        Step(r"syncing disks|rebooting", "reboot", 300),
    ]
