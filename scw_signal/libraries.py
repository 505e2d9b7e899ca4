"""Tells whether the libraries are here, and neither too old nor too new.

The agent asks before it imports the first of them, `scw-signald -n` tells it, and
packaging/install runs this file as a script. Only the names of directories are looked
at: importlib.metadata would cost the agent 45 ms.
"""

from __future__ import annotations

import os
import sys

# From, and before. setup.cfg and packaging/install say the same.
REQUIRED = {
    "urllib3": ("1.26.18", "3"),
    "tenacity": ("8.5", "10"),
}


def fault(path: list[str]) -> str:
    """Return what is wrong with the libraries on a module search path, in one line.

    Empty if nothing is. A library whose version cannot be found out counts as good.
    """
    return "; ".join(filter(None, (_fault(name, path) for name in REQUIRED)))


def _fault(name: str, path: list[str]) -> str:
    first, beyond = REQUIRED[name]
    needed = f"{name} >= {first}, < {beyond} is needed"
    directory = _directory(name, path)
    if directory is None:
        return f"there is no {name}, and {needed}"
    version = _version(name, directory)
    if version and not _numbers(first) <= _numbers(version) < _numbers(beyond):
        return f"{name} is {version}, and {needed}"
    return ""


def _directory(name: str, path: list[str]) -> str | None:
    """Return the directory from which the library would be imported."""
    for directory in path:
        if os.path.exists(f"{directory}/{name}/__init__.py"):  # noqa: PTH110 - pathlib is slow to load
            return directory
    return None


def _version(name: str, directory: str) -> str:
    """Return the version that is written in the name beside the library's own."""
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return ""
    for entry in names:
        stem, _, suffix = entry.rpartition(".")
        library, _, version = stem.partition("-")
        if library.lower() == name and suffix in {"dist-info", "egg-info"}:
            return version.partition("-")[0]  # "-py3.11" may follow in egg-info
    return ""


def _numbers(version: str) -> list[int]:
    """Return the leading numbers of a version; what follows them is no part of it."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return numbers


if __name__ == "__main__":
    found = fault(sys.path)
    if found:
        print(found)
        sys.exit(1)
