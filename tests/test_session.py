"""What a command shows on a terminal while it waits."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from installed import shown
from scw_signal.cli import session
from scw_signal.cli.options import Command, Option
from scw_signal.cli.session import Progress
from scw_signal.emulator import Emulator
from scw_signal.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = Command(
    "tool", "", "", (Option("quiet", ""), Option("verbose", "")),
)  # fmt: skip
LOST = UnreachableError("192.0.2.1: Network is unreachable; 192.0.2.2: the same")


class Screen:
    """A terminal of some columns: what was written to it, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
        self.now = 100.0
        self.text = ""
        self.progress: Progress
        monkeypatch.setattr(os, "isatty", lambda _: True)
        monkeypatch.setattr(
            os, "get_terminal_size", lambda _: os.terminal_size((columns, 24))
        )

    def open(self, *words: str) -> Progress:
        self.progress = Progress(COMMAND, COMMAND.parse(words), lambda: self.now)
        self.progress._write = self._take  # type: ignore[method-assign]
        return self.progress

    def _take(self, text: str) -> None:
        self.text += text

    def lines(self) -> list[str]:
        """Return the texts that the line showed, in order."""
        return [line.removesuffix("\x1b[K") for line in self.text.split("\r")[1:]]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Screen]:
    return lambda columns: Screen(monkeypatch, columns)


def test_what_changes_comes_first_and_the_rest_is_cut_off(
    screen: Callable[[int], Screen],
) -> None:
    narrow = screen(40)
    narrow.open().failed(LOST, 5, 1.84)
    assert narrow.lines() == ["try 6 in 1.8 s: 192.0.2.1: Network is u"]


@pytest.mark.parametrize("columns", [1, 2, 10, 80])
def test_no_line_reaches_the_last_column(
    screen: Callable[[int], Screen], columns: int
) -> None:
    it = screen(columns)
    progress = it.open()
    progress.failed(LOST, 1, 2.0)
    progress.begin("192.0.2.1")
    it.now += 3
    progress.tick()
    assert len(it.lines()) == 2
    assert max(map(len, it.lines())) <= columns - 1


def test_a_terminal_that_does_not_know_its_width_has_80_columns(
    screen: Callable[[int], Screen],
) -> None:
    it = screen(0)
    it.open().failed(UnreachableError("x" * 200), 1, 2.0)
    assert [len(line) for line in it.lines()] == [79]


def test_a_wait_is_shown_after_a_second_and_then_every_second(
    screen: Callable[[int], Screen],
) -> None:
    it = screen(80)
    progress = it.open()
    progress.failed(LOST, 1, 0.2)
    progress.begin("192.0.2.1")
    it.text = ""
    for _ in range(7):
        it.now += 0.5
        progress.tick()
    assert list(dict.fromkeys(it.lines())) == [
        f"waiting for 192.0.2.1 (try 2, {n} s)" for n in (1, 2, 3)
    ]


def test_each_address_has_a_line_and_seconds_of_its_own(
    screen: Callable[[int], Screen],
) -> None:
    it = screen(80)
    progress = it.open()
    for host in ("192.0.2.1", "2001:db8::1"):
        progress.begin(host)
        it.now += 2
        progress.tick()
    assert it.lines() == [
        "waiting for 192.0.2.1 (try 1, 2 s)",
        "waiting for 2001:db8::1 (try 1, 2 s)",
    ]


def test_a_pause_between_tries_leaves_their_line_alone(
    screen: Callable[[int], Screen],
) -> None:
    it = screen(80)
    progress = it.open()
    progress.begin("192.0.2.1")
    progress.failed(LOST, 1, 9.0)
    before = it.text
    it.now += 5
    progress.tick()
    assert it.text == before


def test_what_the_service_says_cannot_move_the_cursor(
    screen: Callable[[int], Screen],
) -> None:
    it = screen(80)
    it.open().failed(UnreachableError("\x1b[2J\r\n\u202e"), 1, 1.0)
    assert it.lines() == [r"try 2 in 1.0 s: \x1b[2J\r\n\u202e"]


@pytest.mark.parametrize("words", [("--quiet",), ("--verbose",)])
def test_quiet_and_verbose_have_no_line_that_is_rewritten(
    screen: Callable[[int], Screen], words: tuple[str, ...]
) -> None:
    it = screen(80)
    progress = it.open(*words)
    progress.begin("192.0.2.1")
    it.now += 5
    progress.tick()
    progress.failed(LOST, 1, 1.0)
    progress.clear()
    assert "\r" not in it.text


@pytest.mark.usefixtures("commands")
def test_a_service_that_hangs_is_named_while_the_terminal_waits() -> None:
    assert session.TRY_SECONDS > 3
    with Emulator(faults=["hang:1"]) as service:
        output = shown(
            "scw-signal-state", "--once", "--timeout", "3", "--url", service.url, "ok"
        )
    waits = re.findall(r"\rwaiting for 127\.0\.0\.1 \(try 1, (\d) s\)", output)
    assert waits[:2] == ["1", "2"]
    assert output.rpartition("\r\x1b[K")[2].startswith("scw-signal-state: ")
