"""packaging/openbsd/port: its files agree with the project.

The tests build the wheel and install it into a root directory with build and
installer, as the python module of OpenBSD's ports does. Then they compare that root
with the packing list. The ports' own tools are not used.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scw_signal
from scw_signal import store

TOP = Path(__file__).resolve().parent.parent
PORT = TOP / "packaging/openbsd/port"
PATIENCE = 120.0

# Since this release, setuptools installs the licence where ports expect it.
SETUPTOOLS = 77

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PREFIX = "/usr/local"
# Variables that ports substitute; lang/python sets those that begin with MODPY.
VARIABLES = {
    "MODPY_VERSION": VERSION,
    "MODPY_DISTV": scw_signal.__version__,
    "MODPY_PYCACHE": "__pycache__/",
    "MODPY_PYC_MAGIC_TAG": f"{sys.implementation.cache_tag}.",
    "MODPY_PYOEXTENSION": "opt-1.pyc",
    "PKGSTEM": "scw-signal",
    "RCDIR": "/etc/rc.d",
    "TRUEPREFIX": PREFIX,
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")


def substituted(text: str) -> str:
    """Replace the variables of ports; any other is an error."""
    return VARIABLE.sub(lambda match: VARIABLES[match[1]], text)


def packing_list() -> list[str]:
    return substituted((PORT / "pkg/PLIST").read_text()).splitlines()


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of a root that the port was installed into."""
    for module in ("build", "installer", "setuptools", "wheel"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed here")
    setuptools = importlib.metadata.version("setuptools")
    if int(setuptools.split(".")[0]) < SETUPTOOLS:
        pytest.skip(f"setuptools {setuptools} is older than what ports have")

    source = tmp_path_factory.mktemp("source")
    for part in ("scw_signal", "packaging"):
        shutil.copytree(TOP / part, source / part)
    for file in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg", "MANIFEST.in"):
        shutil.copy(TOP / file, source)
    root = tmp_path_factory.mktemp("root")
    python(source, "-m", "build", "--wheel", "--no-isolation")
    (wheel,) = (source / "dist").iterdir()
    python(source, "-m", "installer", "--destdir", root, "--prefix", PREFIX, wheel)

    # The port's post-install.
    prefix = root / PREFIX[1:]
    assert "mv ${PREFIX}/share/man ${PREFIX}/man" in (PORT / "Makefile").read_text()
    (prefix / "share/man").rename(prefix / "man")

    # bsd.port.mk itself installs these two, from pkg/.
    (prefix / "share/doc/pkg-readmes").mkdir(parents=True)
    (prefix / "share/doc/pkg-readmes/scw-signal").touch()
    (root / "etc/rc.d").mkdir(parents=True)
    (root / "etc/rc.d/scw_signal").touch()
    return prefix


def python(directory: Path, *words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def listed_files() -> set[str]:
    return {
        line.removeprefix("@man ").removeprefix("@rcscript ")
        for line in packing_list()
        if not line.endswith("/")
        and not line.startswith(("@new", "@comment", "@extra"))
    }


def test_every_file_that_is_listed_is_there(fake: Path) -> None:
    # An absolute name is outside of the prefix.
    root = fake.parent.parent
    missing = {
        name
        for name in listed_files()
        if not (root / name[1:] if name.startswith("/") else fake / name).is_file()
    }
    assert missing == set()


def test_every_file_that_is_there_is_listed(fake: Path) -> None:
    there = {
        path.relative_to(fake).as_posix() for path in fake.rglob("*") if path.is_file()
    }
    assert there - listed_files() == set()


def test_the_directories_listed_are_those_that_are_ours(fake: Path) -> None:
    # Except those that exist before any package is installed.
    theirs = r"bin|man.*|lib|lib/[^/]*|lib/.*/site-packages|share(/doc.*)?"
    there = {
        path.relative_to(fake).as_posix() for path in fake.rglob("*") if path.is_dir()
    }
    ours = {name for name in there if not re.fullmatch(theirs, name)}
    # The variable for __pycache__ ends in a slash, and the line adds another.
    listed = [
        line.rstrip("/")
        for line in packing_list()
        if line.endswith("/") and not line.startswith("@extra ")
    ]
    assert sorted(listed) == sorted(ours)


def test_nothing_is_listed_twice() -> None:
    lines = packing_list()
    assert len(lines) == len(set(lines))


def test_the_account_is_the_one_that_install_makes() -> None:
    group, user, *_ = (PORT / "pkg/PLIST").read_text().splitlines()
    assert group == "@newgroup _scwsignal:NNN"
    name, _, _, login_class, comment, home, shell = user.split(":")
    assert name == "@newuser _scwsignal"
    install = (TOP / "packaging/systems.sub").read_text()
    assert f"comment='{comment}' home={home} shell={shell}\n" in install
    assert f"-L {login_class} " in install


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    for part in ("scw_signal", "packaging", "rc.d"):
        shutil.copytree(TOP / part, tmp_path / part)
    made = tmp_path / PORT.relative_to(TOP) / "pkg"
    for name in ("PLIST", "scw_signal.rc"):
        (made / name).unlink()
    script = tmp_path / "packaging/openbsd/make-port"
    subprocess.run([script], check=True)
    for name in ("PLIST", "scw_signal.rc"):
        assert (made / name).read_text() == (PORT / "pkg" / name).read_text(), (
            "run packaging/openbsd/make-port"
        )


def test_the_service_script_is_the_projects_own_once_it_is_substituted() -> None:
    text = (PORT / "pkg/scw_signal.rc").read_text()
    assert "${TRUEPREFIX}" in text
    # Ports replace the variables they know, and leave the shell's alone.
    for name, value in VARIABLES.items():
        text = text.replace(f"${{{name}}}", value)
    own = (TOP / "rc.d/scw_signal").read_text()
    # But a port names its Python.
    ported = re.sub(r'(?m)^#.*\n_python="\$\{MODPY_BIN\} "$', "", text)
    assert ported != text
    assert ported == re.sub(r"(?m)^# Any Python(.*\n)+?_python='.*'$", "", own)


def test_the_port_has_the_version_of_the_package() -> None:
    makefile = (PORT / "Makefile").read_text()
    (version,) = re.findall(r"^MODPY_DISTV =\t+(\S+)$", makefile, re.MULTILINE)
    assert version == scw_signal.__version__


def test_the_port_needs_what_the_package_needs() -> None:
    makefile = (PORT / "Makefile").read_text()
    (depends,) = re.findall(r"^RUN_DEPENDS =((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    ports = {port.split("/py-")[1] for port in depends.replace("\\", "").split()}
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    requires = setup["options"]["install_requires"].split()
    assert ports == {requirement.split(">")[0] for requirement in requires}


def test_the_tests_of_the_port_have_what_they_are_configured_for() -> None:
    makefile = (PORT / "Makefile").read_text()
    (depends,) = re.findall(r"^TEST_DEPENDS =((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    # pyproject.toml sets an option of pytest-timeout, and an unknown one is an error.
    assert re.search("(?m)^timeout = ", (TOP / "pyproject.toml").read_text())
    assert {"devel/py-hypothesis", "devel/py-test-timeout"} == {
        *depends.replace("\\", "").split()
    }


def test_what_a_submitter_fills_in_is_listed_in_one_place() -> None:
    head, _, rest = (PORT / "Makefile").read_text().partition("\nCOMMENT =")
    for name in ("HOMEPAGE", "MAINTAINER", "SITES", "distinfo", "NNN"):
        assert name in head
        assert name not in rest


def test_the_diff_for_the_list_of_users_adds_the_account() -> None:
    diff = (PORT / "user.list.diff").read_text()
    (added,) = re.findall(r"(?m)^\+(?!\+)(.*)$", diff)
    assert added.split() == ["NNN", "_scwsignal", "_scwsignal", "sysutils/scw-signal"]


def test_the_packing_list_removes_what_the_agent_leaves() -> None:
    lines = packing_list()
    for directory in (store.RUN_DIRECTORY, "/var/db/scw_signal"):
        at = lines.index(f"@extraunexec rm -rf {directory}/*")
        assert lines[at + 1] == f"@extra {directory}/"


def test_its_texts_fit_a_terminal() -> None:
    makefile = (PORT / "Makefile").read_text()
    (comment,) = re.findall(r"^COMMENT =\t+(.*)$", makefile, re.MULTILINE)
    assert len(comment) <= 60
    for name in ("pkg/DESCR", "pkg/README", "pkg/scw_signal.rc", "Makefile"):
        lines = (PORT / name).read_text().expandtabs().splitlines()
        assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []
