"""picture.py FILE COMMAND ...: run a command on a terminal, and draw what it shows.

The picture is an SVG of the terminal after the command has ended. Needs rich.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console  # type: ignore[import-not-found] # make picture
from rich.text import Text  # type: ignore[import-not-found]

WIDTH = 80  # columns


def shown(command: list[str]) -> str:
    """Return what a command writes to a terminal."""
    ours, its = os.openpty()
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        data = b""
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while chunk := os.read(ours, 65536):
                data += chunk
    os.close(ours)
    if process.returncode:
        sys.exit(data.decode())
    return data.decode().replace("\r\n", "\n")


def main() -> None:
    """Draw the picture."""
    target, *command = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(f"$ make demo\n{shown(command)}"))
    svg = console.export_svg(title="make demo")
    # Viewers need not fetch a font: any monospaced one will do.
    svg = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("<text ", '<text xml:space="preserve" ')  # some viewers trim
    Path(target).write_text(svg)


if __name__ == "__main__":
    main()
