"""The installation: once, again, and over an older version. OpenBSD only."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..claim import OPENBSD, claim, expect
from ..openbsd import RC_SCRIPT, TREE
from ..process import run
from ..system import COMMANDS, USER

if TYPE_CHECKING:
    from ..lab import Lab

INSTALL_SECONDS = 300.0
OLDER = "0.0.1"
STALE = ("scw_signal/stale.py", "packaging/bin/scw-stale", "packaging/man/scw-stale.8")


def _install(lab: Lab, tree: Path) -> None:
    lab.note(f"install from {tree}")
    script = f"{tree}/packaging/openbsd/install"
    done = run(["sh", script], seconds=INSTALL_SECONDS, check=True)
    expect(not done.err, f"it complained: {done.err}")


def indexed() -> bool:
    """Tell whether the index of the manuals has ours."""
    return run(["apropos", "Nm=scw-signald"]).status == 0


def _version(lab: Lab) -> str:
    return run([f"{lab.system.bin}/scw-signald", "--version"], check=True).out.strip()


def _laid() -> dict[str, bytes]:
    """Return the files of an installation, except those that Python compiles."""
    files = [Path("/usr/local/bin", command) for command in COMMANDS]
    files += [Path(RC_SCRIPT), *Path("/usr/local/man").glob("man*/scw-*")]
    files += Path("/usr/local/share").rglob("*scw-*")  # completions
    files += [path for path in Path(TREE).rglob("*") if path.suffix != ".pyc"]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


@claim("install makes commands, service, manuals and the user", only=OPENBSD)
def installed(lab: Lab) -> None:
    source = (lab.openbsd.tree / "scw_signal/__init__.py").read_text()
    match = re.search('__version__ = "(.*)"', source)
    expect(match and match[1] in _version(lab), _version(lab))
    laid = _laid()
    for path in (*(f"/usr/local/bin/{command}" for command in COMMANDS), RC_SCRIPT):
        expect(path in laid, f"there is no {path}")
    expect(run(["id", USER]).status == 0, f"there is no user {USER}")
    expect(indexed(), "apropos(1) does not find the manual")


@claim("install, once more, changes nothing", only=OPENBSD)
def installed_again(lab: Lab) -> None:
    before = _laid()
    _install(lab, lab.openbsd.tree)
    expect(_laid() == before, "it is another installation")


@claim("install over an older version leaves nothing of that", only=OPENBSD)
def installed_over_older(lab: Lab) -> None:
    before = _laid()
    older = Path(lab.system.scratch, "older")
    older.mkdir()
    for part in ("LICENSE", "packaging", "rc.d", "scw_signal", "vendor"):
        origin = lab.openbsd.tree / part
        (shutil.copytree if origin.is_dir() else shutil.copy2)(origin, older / part)
    code = older / "scw_signal/__init__.py"
    code.write_text(
        re.sub('__version__ = ".*"', f'__version__ = "{OLDER}"', code.read_text())
    )
    for name in STALE:
        (older / name).write_text("#!python\nfrom scw_signal import stale\n")
    _install(lab, older)
    expect(OLDER in _version(lab), _version(lab))
    expect(Path("/usr/local/bin/scw-stale").exists(), "the older one is not whole")
    _install(lab, lab.openbsd.tree)
    left = sorted(set(_laid()) - set(before))
    expect(not left, f"left of the older one: {', '.join(left)}")
    expect(_laid() == before, "it is another installation")
    expect(not Path("/usr/local/bin/scw-stale").exists(), "its command is still there")


@claim("man and apropos find the manuals", only=OPENBSD)
def manuals(lab: Lab) -> None:
    for name in COMMANDS:
        page = run(["man", name], check=True).out
        expect(name.upper() in page, f"man {name}")
    found = run(["apropos", "scw-signald"], check=True).out
    expect("scw-signald(8)" in found, found)
    del lab
