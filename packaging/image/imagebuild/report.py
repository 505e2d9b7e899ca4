"""Reports the progress of a build: lines for people, or with --json lines of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from scw_signal.terminal import printable

from .console import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Report:
    """Reports each stage, and the end."""

    def __init__(self, *, as_json: bool) -> None:
        """Start the clock."""
        self._json = as_json
        self._began = time.monotonic()
        self.packages: list[str] = []  # those that pkg_add(1) has named

    def stage(self, name: str) -> None:
        """Report the current stage, and the time since the start."""
        if name.startswith(PACKAGE):
            self.packages.append(name.removeprefix(PACKAGE))
        seconds = int(time.monotonic() - self._began)
        if self._json:
            self._line({"stage": name, "seconds": seconds})
        else:
            _say(f"{seconds // 60:3}:{seconds % 60:02}  {printable(name)}")

    def error(self, text: str, console: Sequence[str] = ()) -> None:
        """Report a failure on standard error, after the console's last lines."""
        if self._json:
            self._line({"error": text, "console": list(console)})
        elif console:
            print("The console said last:", file=sys.stderr)
            print(*(f"    {line}" for line in console), sep="\n", file=sys.stderr)
        print(f"build-image: {text}", file=sys.stderr)

    def end(self, facts: Mapping[str, object], lines: Sequence[str]) -> None:
        """Report the result: the facts for a program, or the lines for people."""
        if self._json:
            self._line(facts)
        else:
            print(*lines, sep="\n", flush=True)

    @staticmethod
    def _line(facts: Mapping[str, object]) -> None:
        _say(json.dumps(facts))


def _say(line: str) -> None:
    """Print a line in one write, since two servers report at the same time."""
    print(f"{line}\n", end="", flush=True)
