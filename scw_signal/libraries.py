"""Checks that the libraries are installed, and neither too old nor too new.

The agent runs this check before it imports them, `scw-signald -n` reports it, and
packaging/install runs this file as a script. It only looks at the names of
directories: importlib.metadata would cost the agent 45 ms.
"""

from __future__ import annotations

import os
import sys

# At least, and less than. setup.cfg and packaging/install have the same numbers.
REQUIRED = {
    "urllib3": ("1.26.18", "3"),
    "tenacity": ("8.5", "10"),
}


def fault(path: list[str]) -> str:
    """Return what is wrong with the libraries on a module search path, in one line.

    Empty if nothing is wrong. A library whose version is unknown counts as good.
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
    """Return the directory from which Python would import the library."""
    for directory in path:
        if os.path.exists(f"{directory}/{name}/__init__.py"):  # noqa: PTH110 - pathlib is slow to load
            return directory
    return None


def _version(name: str, directory: str) -> str:
    """Return the version, which is in the name of the library's -info directory."""
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
    """Return the leading numbers of a version; the rest is ignored."""
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
