"""How a build is told about: lines for people, or with --json a line of JSON each."""

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
    """Tells of stages as they come, and of the end."""

    def __init__(self, *, as_json: bool) -> None:
        """Begin to count the time."""
        self._json = as_json
        self._began = time.monotonic()
        self.packages: list[str] = []  # that pkg_add(1) has named

    def stage(self, name: str) -> None:
        """Tell what happens now, and since when it all goes on."""
        if name.startswith(PACKAGE):
            self.packages.append(name.removeprefix(PACKAGE))
        seconds = int(time.monotonic() - self._began)
        if self._json:
            self._line({"stage": name, "seconds": seconds})
        else:
            _say(f"{seconds // 60:3}:{seconds % 60:02}  {printable(name)}")

    def error(self, text: str, console: Sequence[str] = ()) -> None:
        """Tell why it failed: on standard error, the console's last lines first."""
        if self._json:
            self._line({"error": text, "console": list(console)})
        elif console:
            print("The console said last:", file=sys.stderr)
            print(*(f"    {line}" for line in console), sep="\n", file=sys.stderr)
        print(f"build-image: {text}", file=sys.stderr)

    def end(self, facts: Mapping[str, object], lines: Sequence[str]) -> None:
        """Tell how it went: the facts for a program, or the lines for people."""
        if self._json:
            self._line(facts)
        else:
            print(*lines, sep="\n", flush=True)

    @staticmethod
    def _line(facts: Mapping[str, object]) -> None:
        _say(json.dumps(facts))


def _say(line: str) -> None:
    """Print a line as one piece: two servers that are tried speak at once."""
    print(f"{line}\n", end="", flush=True)
