"""The layers: imports go one way, and only one module imports each library.

    cli -> agent -> edges -> pure -> errors

The tests read the imports from the source. So imports in functions and imports for
type checkers count too.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scw_signal

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

ERRORS = {"errors"}
PURE = {"backoff", "document", "flat", "keys", "render", "script", "terminal", "wire"}
CLOCK = {"clock", "stop"}  # given to everything that waits
EDGES = {
    "libraries", "log", "network", "resolver", "retrying", "sandbox", "store",
    "transport",
}  # fmt: skip
ROOT = {"privileged"}  # what the agent can ask of root
AGENT = {"agent"}
CLI = {"cli"}
EMULATOR = {"emulator"}  # the tests' oracle, which shares nothing with the rest
NOTHING = frozenset[str]()

MAY_IMPORT: dict[str, AbstractSet[str]] = {
    **dict.fromkeys(ERRORS, NOTHING),
    **dict.fromkeys(PURE, ERRORS | PURE),
    **dict.fromkeys(CLOCK, ERRORS | CLOCK),
    **dict.fromkeys(EDGES, ERRORS | PURE | CLOCK),
    **dict.fromkeys(ROOT, ERRORS | PURE | CLOCK | EDGES),
    **dict.fromkeys(AGENT, ERRORS | PURE | CLOCK | EDGES | ROOT),
    **dict.fromkeys(CLI, ERRORS | PURE | CLOCK | EDGES | ROOT | AGENT | CLI),
    **dict.fromkeys(EMULATOR, EMULATOR),
    "__main__": NOTHING,
}

# Modules that read no clock, draw no random numbers and open nothing.
WITHOUT_IO = {
    "base64", "collections", "email", "ipaddress", "json", "math", "re", "shlex",
    "typing",
}  # fmt: skip

PACKAGE = Path(scw_signal.__file__).parent


def imports(path: Path) -> set[str]:
    """Return the dotted names of what a file imports."""
    package = ("scw_signal", *path.relative_to(PACKAGE).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) + 1 - node.level] if node.level else ()
            origin += (node.module,) if node.module else ()
            found.update(".".join((*origin, alias.name)) for alias in node.names)
    return found - {"__future__.annotations"}


def own(name: str) -> str | None:
    """Return which of our modules or packages a name is from; None for others."""
    parts = name.split(".")
    return parts[1] if parts[0] == "scw_signal" and parts[1] in MAY_IMPORT else None


IMPORTS = {
    path.relative_to(PACKAGE).as_posix(): imports(path)
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


@pytest.mark.parametrize("file", sorted(IMPORTS))
def test_imports_go_one_way(file: str) -> None:
    place = file.removesuffix(".py").split("/")[0]
    assert place in MAY_IMPORT, "a new module needs a place in the table above"
    assert {own(name) for name in IMPORTS[file]} <= MAY_IMPORT[place] | {None}


# The emulator's own modules: each imports only those before it.
MODULES = (
    "document", "protocol", "history", "faults", "platform", "service", "__init__",
    "command", "__main__",
)  # fmt: skip
LONGEST = 400  # lines of a module


@pytest.mark.parametrize("module", MODULES)
def test_the_modules_of_the_emulator_are_in_one_order(module: str) -> None:
    names = {name for name in IMPORTS[f"emulator/{module}.py"] if own(name)}
    assert {name.split(".")[2] for name in names} <= {*MODULES[: MODULES.index(module)]}


def test_no_module_of_the_emulator_is_large() -> None:
    paths = [*(PACKAGE / "emulator").glob("*.py")]
    assert sorted(path.stem for path in paths) == sorted(MODULES)
    for path in paths:
        assert len(path.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize(
    ("library", "file"),
    [
        ("urllib3", "transport.py"),
        ("tenacity", "retrying.py"),
        ("ctypes", "sandbox.py"),
        ("syslog", "log.py"),
    ],
)
def test_each_library_is_imported_by_one_module(library: str, file: str) -> None:
    assert [
        importer
        for importer, names in IMPORTS.items()
        if library in {name.split(".")[0] for name in names}
    ] == [file]


def test_no_other_library_is_needed() -> None:
    names = {name.split(".")[0] for found in IMPORTS.values() for name in found}
    assert names - sys.stdlib_module_names == {"scw_signal", "urllib3", "tenacity"}


@pytest.mark.parametrize("module", sorted(ERRORS | PURE))
def test_modules_that_decide_do_no_io(module: str) -> None:
    names = {
        name.split(".")[0]
        for name in IMPORTS[f"{module}.py"]
        if not name.startswith("urllib.parse.")  # the rest of urllib does I/O
    }
    assert names <= WITHOUT_IO | {"scw_signal"}
