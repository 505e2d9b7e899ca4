"""Prints the result as TAP, the Test Anything Protocol: a line for each claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable


class Report:
    """Writes the lines, and counts."""

    def __init__(self, out: TextIO, planned: int) -> None:
        """Print the plan."""
        self._out = out
        self._number = 0
        self.passed = self.failed = self.skipped = 0
        self._line("TAP version 13")
        self._line(f"1..{planned}")

    def ok(self, text: str, figure: str = "") -> None:
        """Say that a claim held, perhaps with a figure."""
        self.passed += 1
        self._result("ok", f"{text} ({figure})" if figure else text)

    def not_ok(self, text: str, seen: Iterable[str]) -> None:
        """Say that a claim did not hold, and below it what was seen."""
        self.failed += 1
        self._result("not ok", text)
        for line in seen:
            self.note(line)

    def skip(self, text: str, reason: str) -> None:
        """Say that a claim cannot be checked here."""
        self.skipped += 1
        self._result("ok", text, f" # SKIP {reason}")

    def note(self, text: str) -> None:
        """Print a diagnostic, which decides nothing."""
        for line in text.splitlines() or [""]:
            self._line(f"# {line}")

    def bail_out(self, reason: str) -> None:
        """Say that no claim can be checked any more."""
        self._line(f"Bail out! {reason}")

    def end(self) -> None:
        """Print the last line."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        self._line(f"{self.passed} passed, {self.failed} failed{skipped}")

    def _result(self, word: str, text: str, directive: str = "") -> None:
        self._number += 1
        # In the text of a result, # would begin a directive.
        self._line(f"{word} {self._number} - {text.replace('#', '')}{directive}")

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)
