"""packaging/install, and the service files of systems other than OpenBSD.

systemd runs as the init of a container with this machine's files, and OpenRC runs in
namespaces. FreeBSD and NetBSD are not here: dash runs their scripts, with a stand-in
for their rc.subr, tests/systems/rc.subr.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tenacity
import urllib3

from installed import ENVIRONMENT, PATIENCE
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOP = Path(__file__).resolve().parent.parent
HERE = TOP / "tests/systems"
SERVICE_PAGE = TOP / "docs/service.md"

# This interpreter, and the system's, which services can see too.
PYTHON = Path(sys.executable).resolve()
FALSE = shutil.which("false") or "/bin/false"
SYSTEM_PYTHON = "/usr/bin/python3"

COMMANDS = [path.name for path in (TOP / "packaging/bin").iterdir()]
PAGES = [
    f"man{path.suffix[1:]}/{path.name}"
    for path in (TOP / "packaging/man").iterdir()
    if path.name != "scw-seal.8"  # it comes with OpenBSD's site set
]
COMPLETIONS = [
    *(f"bash-completion/completions/{command}" for command in COMMANDS),
    *(f"fish/vendor_completions.d/{command}.fish" for command in COMMANDS),
    "scw_signal/scw-signal.ksh",
    "zsh/site-functions/_scw-signal",
]
# By system: PREFIX, where the manuals go, the service's file and its mode.
PLACES = {
    "openbsd": ("/usr/local", "man", "/etc/rc.d/scw_signal", 0o555),
    "freebsd": ("/usr/local", "share/man", "/usr/local/etc/rc.d/scw_signal", 0o755),
    "netbsd": ("/usr/pkg", "man", "/etc/rc.d/scw_signal", 0o755),
    "openrc": ("/usr/local", "share/man", "/etc/init.d/scw_signal", 0o755),
    "systemd": (
        "/usr/local",
        "share/man",
        "/usr/local/lib/systemd/system/scw-signal.service",
        0o644,
    ),
}


def found(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make these namespaces")


Done = subprocess.CompletedProcess[str]


def ran(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path = TOP
) -> Done:
    return subprocess.run(
        words,
        env={**ENVIRONMENT, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an unpacked release, with the libraries that are installed here."""
    # The name of the directory has a blank, which must do no harm.
    top = tmp_path_factory.mktemp("a release")
    no_cache = shutil.ignore_patterns("__pycache__")
    for part in ("packaging", "rc.d", "scw_signal"):
        shutil.copytree(TOP / part, top / part, ignore=no_cache)
    for file in ("LICENSE", "Makefile"):
        shutil.copy(TOP / file, top)
    for library in (urllib3, tenacity):
        origin = Path(str(library.__file__)).parent
        shutil.copytree(origin, top / "vendor" / origin.name, ignore=no_cache)
    return top


@pytest.fixture(params=["dash", "mksh"])
def shell(request: pytest.FixtureRequest) -> str:
    return found(request.param)


def install(top: Path, *words: str, shell: str = "sh", **env: str | Path) -> Done:
    """Run packaging/install of a source tree; PYTHON is this one unless given."""
    settings = {"PYTHON": str(PYTHON), **{key: str(env[key]) for key in env}}
    return ran(shell, top / "packaging/install", *words, env=settings)


def must(done: Done) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def files(root: Path) -> dict[str, Path]:
    """Return the files in a root, except those that Python compiled."""
    return {
        f"/{path.relative_to(root)}": path
        for path in root.rglob("*")
        if not path.is_dir() and path.suffix != ".pyc"
    }


# make install.


@pytest.mark.parametrize("system", PLACES)
def test_each_file_is_where_its_system_looks_for_it(
    system: str, release: Path, tmp_path: Path, shell: str
) -> None:
    must(install(release, shell=shell, SYSTEM=system, DESTDIR=tmp_path))
    prefix, manuals, service, mode = PLACES[system]
    outside = {
        path: file.stat().st_mode & 0o777
        for path, file in files(tmp_path).items()
        if not path.startswith(f"{prefix}/libexec/scw_signal/")
    }
    assert outside == {
        **{f"{prefix}/bin/{command}": 0o755 for command in COMMANDS},
        **{f"{prefix}/{manuals}/{page}": 0o644 for page in PAGES},
        **{f"{prefix}/share/{name}": 0o644 for name in COMPLETIONS},
        service: mode,
    }


@pytest.mark.parametrize("system", PLACES)
def test_the_service_has_the_paths_that_were_chosen(
    system: str, release: Path, tmp_path: Path
) -> None:
    python = "/nowhere/python3"
    env = {"SYSTEM": system, "DESTDIR": str(tmp_path), "PREFIX": "/usr"}
    must(install(release, **env, PYTHON=python))
    service = next(
        path
        for name, path in files(tmp_path).items()
        if re.search(r"(rc|init)\.d/scw_signal$|\.service$", name)
    )
    text = service.read_text()
    assert "/usr/bin/scw-signald" in text
    assert "/usr/local" not in text
    assert not re.search("@[A-Z]+@", text)
    command = (tmp_path / "usr/bin/scw-signald").read_text()
    assert command.startswith(f"#!{python} -I\n")


def contents(named: Mapping[str, Path]) -> dict[str, tuple[int, bytes]]:
    return {
        name: (path.stat().st_mode, path.read_bytes()) for name, path in named.items()
    }


@pytest.mark.parametrize(
    ("prefix", "directory"),
    [
        ("/usr", "/usr/lib/systemd/system"),
        ("/usr/", "/usr/lib/systemd/system"),
        ("/opt/scw", "/etc/systemd/system"),
    ],
)
def test_the_unit_is_where_systemd_looks(
    prefix: str, directory: str, release: Path, tmp_path: Path
) -> None:
    must(install(release, SYSTEM="systemd", PREFIX=prefix, DESTDIR=tmp_path))
    assert f"{directory}/scw-signal.service" in files(tmp_path)


@pytest.mark.parametrize(
    ("uname", "service"),
    [
        ("OpenBSD", PLACES["openbsd"][2]),
        ("FreeBSD", PLACES["freebsd"][2]),
        ("NetBSD", PLACES["netbsd"][2]),
    ],
)
def test_by_default_the_system_is_the_one_it_runs_on(
    uname: str, service: str, release: Path, tmp_path: Path
) -> None:
    must(install(release, DESTDIR=tmp_path / "root", PATH=saying(tmp_path, uname)))
    assert service in files(tmp_path / "root")


def test_on_an_unknown_system_the_known_ones_are_listed(
    release: Path, tmp_path: Path
) -> None:
    done = install(release, DESTDIR=tmp_path / "root", PATH=saying(tmp_path, "Plan9"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "install: no service file for Plan9: say SYSTEM= one of"
        " openbsd, freebsd, netbsd, systemd, openrc\n"
    )


def saying(directory: Path, system: str) -> str:
    """Return a PATH with a uname that names another system."""
    stub = directory / "stubs/uname"
    stub.parent.mkdir()
    stub.write_text(f"#!/bin/sh\necho {system}\n")
    stub.chmod(0o755)
    return f"{stub.parent}:{ENVIRONMENT['PATH']}"


@pytest.mark.parametrize("make", ["make", "bmake"])
def test_make_install_and_make_uninstall_are_symmetrical(
    make: str, release: Path, tmp_path: Path
) -> None:
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/other").write_text("somebody's\n")
    words = (f"DESTDIR={tmp_path}", "SYSTEM=systemd", f"PYTHON={PYTHON}")
    must(ran(found(make), "install", *words, cwd=release))
    assert len(files(tmp_path)) > len(COMMANDS)
    must(ran(found(make), "uninstall", *words, cwd=release))
    assert list(files(tmp_path)) == ["/usr/local/bin/other"]


def test_a_newer_release_leaves_nothing_of_the_older(
    release: Path, tmp_path: Path
) -> None:
    older, root = tmp_path / "older", tmp_path / "root"
    shutil.copytree(release, older)
    for former in ("scw_signal/former.py", "packaging/man/scw-former.8"):
        (older / former).write_text("")
    (older / "vendor/former").mkdir()
    must(install(release, SYSTEM="systemd", DESTDIR=root))
    before = contents(files(root))
    must(install(older, SYSTEM="systemd", DESTDIR=root))
    assert [path for path in files(root) if "former" in path]
    must(install(release, SYSTEM="systemd", DESTDIR=root))
    assert contents(files(root)) == before
    assert not list(root.rglob("*former*"))


def test_everybody_may_read_it_whatever_the_umask(
    release: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        must(install(release, SYSTEM="systemd", DESTDIR=tmp_path / "root"))
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "root").rglob("*")}
    assert modes == {0o755, 0o644}


def test_a_relative_destdir_is_below_the_current_directory(
    release: Path, tmp_path: Path
) -> None:
    done = ran(
        "sh", release / "packaging/install", cwd=tmp_path,
        env={"DESTDIR": "root/", "SYSTEM": "systemd", "PYTHON": str(PYTHON)},
    )  # fmt: skip
    must(done)
    assert "/usr/local/bin/scw-signald" in files(tmp_path / "root")


def test_without_destdir_it_can_be_run_at_once_and_says_what_is_left_to_do(
    release: Path, tmp_path: Path
) -> None:
    # On FreeBSD everything goes below PREFIX, so this machine does not change.
    out = must(install(release, SYSTEM="freebsd", PREFIX=tmp_path, LIVE="no"))
    assert out.splitlines()[-3:] == [
        "scw-signal is installed. To have it started at every boot:",
        "    sysrc scw_signal_enable=YES",
        "It runs as the user _scwsignal: create that user first.",
    ]
    compiled = list((tmp_path / "libexec").rglob("*.pyc"))
    assert compiled
    assert (
        f"{tmp_path}/libexec/scw_signal/scw_signal/agent.py".encode()
        in next(
            path for path in compiled if path.name.startswith("agent.")
        ).read_bytes()
    )
    with Emulator() as service:
        done = ran(tmp_path / "bin/scw-signal-state", f"--url={service.url}", "booted")
    assert must(done) == "booted signal sent!\n"


def test_with_the_libraries_of_the_system_none_is_installed(
    release: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    out = must(install(release, SYSTEM="systemd", DESTDIR=root, LIBRARIES="system"))
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    requires = setup["options"]["install_requires"].split()
    needed = f"a package of this must depend on {' and '.join(requires)}"
    assert out.startswith(f"{needed}\n")
    assert not [path for path in files(root) if "urllib3" in path]


def python_with(tmp_path: Path, **libraries: str) -> Path:
    """Return a Python that has these libraries, of these versions, and no others."""
    site = tmp_path / "site"
    for name, version in libraries.items():
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("")
        (site / f"{name}-{version}.dist-info").mkdir()
    python = tmp_path / "python3"
    asked = f"import runpy, sys; sys.path.insert(0, '{site}');"
    asked += "runpy.run_path(sys.argv[1], run_name='__main__')"
    python.write_text(
        "#!/bin/sh\n"
        f'case $3 in *libraries.py) exec {PYTHON} -S -c "{asked}" "$3" ;; esac\n'
        f'exec {PYTHON} -S "$@"\n'
    )
    python.chmod(0o755)
    return python


GOOD = {"urllib3": "2.8.0", "tenacity": "9.2.1"}


@pytest.mark.parametrize(
    ("libraries", "fault"),
    [
        ({"urllib3": "2.8.0"}, "there is no tenacity, and tenacity >= 8.5, < 10"),
        # As in Debian 12.
        (
            {"urllib3": "1.26.12", "tenacity": "8.2.1"},
            (
                "urllib3 is 1.26.12, and urllib3 >= 1.26.18, < 3 is needed;"
                " tenacity is 8.2.1, and tenacity >= 8.5, < 10"
            ),
        ),
        ({**GOOD, "urllib3": "3.0.0"}, "urllib3 is 3.0.0, and urllib3 >= 1.26.18, < 3"),
        ({**GOOD, "tenacity": "10"}, "tenacity is 10, and tenacity >= 8.5, < 10"),
    ],
)
def test_unsuitable_libraries_are_named_with_the_command_that_helps(
    libraries: dict[str, str], fault: str, release: Path, tmp_path: Path
) -> None:
    python = python_with(tmp_path, **libraries)
    done = install(
        release, SYSTEM="freebsd", PREFIX=tmp_path / "p", LIBRARIES="system",
        PYTHON=python, LIVE="no",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"install: {python}: {fault} is needed: make vendor install\n"
    )
    assert not (tmp_path / "p").exists()


def test_suitable_libraries_are_accepted(release: Path, tmp_path: Path) -> None:
    python = python_with(tmp_path, **GOOD)
    must(
        install(
            release, SYSTEM="freebsd", PREFIX=tmp_path / "p", LIBRARIES="system",
            PYTHON=python, LIVE="no",
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"SYSTEM": "plan9"}, "SYSTEM is one of openbsd, freebsd, netbsd, systemd,"),
        ({"PREFIX": "usr"}, "PREFIX must be an absolute path: usr"),
        ({"PREFIX": "/a b"}, "PREFIX has characters that scripts cannot use: /a b"),
        ({"PREFIX": "/a|b"}, "PREFIX has characters that scripts cannot use: /a|b"),
        ({"PYTHON": "/bin/py thon"}, "PYTHON has characters that scripts cannot"),
        ({"PYTHON": "python3.99"}, "there is no python3.99 in PATH: say PYTHON=/path"),
        ({"PYTHON": FALSE}, f"{FALSE} does not run: say PYTHON=/path"),
        ({"PYTHON": sys.executable}, f"{sys.executable} is of a virtual environment"),
        ({"LIBRARIES": "some"}, "LIBRARIES is vendor or system; not some"),
        ({"EMULATOR": "1"}, "EMULATOR is yes or no; not 1"),
        ({"LIVE": "1"}, "LIVE is yes or no; not 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(
    env: dict[str, str], complaint: str, release: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    done = install(release, **{"SYSTEM": "systemd", "DESTDIR": str(root), **env})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"install: {complaint}")
    assert done.stderr.count("\n") == 1
    assert not root.exists()


@pytest.mark.parametrize("words", [["-x"], ["operand"], ["-u", "operand"]])
def test_the_command_line_is_checked(words: list[str], release: Path) -> None:
    done = install(release, *words, DESTDIR="/nonexistent")
    me = "uninstall" if "-u" in words else "install"
    assert done.returncode == 2
    assert done.stderr.endswith(f"usage: {me} [-nu]\n")


def test_a_failure_half_way_leaves_what_was_there(
    release: Path, tmp_path: Path
) -> None:
    must(install(release, SYSTEM="systemd", DESTDIR=tmp_path / "root"))
    before = contents(files(tmp_path / "root"))
    path = saying(tmp_path, "Linux")
    stub = tmp_path / "stubs/cp"
    stub.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        'case $last in *scw-signald.8.new) echo "cp: full" >&2; exit 1 ;; esac\n'
        f'exec {found("cp")} "$@"\n'
    )
    stub.chmod(0o755)
    done = install(release, SYSTEM="systemd", DESTDIR=tmp_path / "root", PATH=path)
    assert (done.returncode, done.stderr) == (1, "cp: full\n")
    assert contents(files(tmp_path / "root")) == before


@pytest.mark.parametrize("system", PLACES)
def test_with_n_it_says_what_it_would_do_and_does_nothing(
    system: str, release: Path
) -> None:
    settings = {"SYSTEM": system, "PYTHON": "/nowhere/python3", "PREFIX": "/nowhere"}
    done = ran("sh", release / "packaging/install", "-n", env=settings)
    here = "systemd" if sys.platform == "linux" else sys.platform.rstrip("0123456789")
    if system == here or (here == "systemd" and system == "openrc"):
        assert done.stderr.startswith("install: would refuse: there is no /nowhere/")
        assert done.returncode == 1
    else:
        assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line.startswith("would ") for line in lines)
    for command in COMMANDS:
        assert f"would install /nowhere/bin/{command}" in lines
    assert ("would make the user _scwsignal" in lines) == (system != "systemd")
    assert not Path("/nowhere").exists()
    assert not Path("/var/run/scw_signal.install").exists()


@pytest.mark.parametrize("system", PLACES)
def test_a_destdir_may_have_blanks(system: str, release: Path, tmp_path: Path) -> None:
    root = tmp_path / "a root "
    must(install(release, SYSTEM=system, DESTDIR=root))
    assert PLACES[system][2] in files(root)
    must(install(release, SYSTEM=system, DESTDIR=root))
    must(install(release, "-u", SYSTEM=system, DESTDIR=root))
    assert list(root.rglob("*")) == []
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("asked", ["", "no", "yes"])
def test_the_emulator_is_installed_only_if_asked_for(
    asked: str, release: Path, tmp_path: Path
) -> None:
    must(install(release, SYSTEM="openrc", DESTDIR=tmp_path, EMULATOR=asked))
    parts = [path for path in files(tmp_path) if "emulator" in path]
    assert bool(parts) == (asked == "yes")


def test_only_root_may_install_and_uninstall(release: Path, tmp_path: Path) -> None:
    path = saying(tmp_path, "Linux")
    (tmp_path / "stubs/id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "stubs/id").chmod(0o755)
    for words in ((), ("-u",)):
        done = install(release, *words, SYSTEM="systemd", PATH=path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "only root can do this; with -n it shows" in done.stderr
        assert done.stderr.count("\n") == 1


# The link that enabling the service leaves, as a path in the root of a package.
LINKS = {
    "systemd": "etc/systemd/system/multi-user.target.wants/scw-signal.service",
    "openrc": "etc/runlevels/default/scw_signal",
}


@pytest.mark.parametrize("system", LINKS)
def test_uninstall_leaves_no_link_to_the_service_dangling(
    system: str, release: Path, tmp_path: Path
) -> None:
    must(install(release, SYSTEM=system, DESTDIR=tmp_path))
    link = tmp_path / LINKS[system]
    link.parent.mkdir(parents=True)
    link.symlink_to(PLACES[system][2])
    must(install(release, "-u", SYSTEM=system, DESTDIR=tmp_path))
    assert not link.is_symlink()


# By system: the calls of its own programs. 998 is a free number for the user.
ASKED = {
    "freebsd": [
        "pw groupadd _scwsignal -g 998",
        (
            "pw useradd _scwsignal -u 998 -g _scwsignal -c scw-signal agent"
            " -d /nonexistent -s /usr/sbin/nologin"
        ),
        "service scw_signal onestop",
        "sysrc -x scw_signal_enable",
        "pw userdel _scwsignal",
        "pw groupdel _scwsignal",
    ],
    "netbsd": [
        "groupadd -g 998 _scwsignal",
        (
            "useradd -u 998 -g _scwsignal -c scw-signal agent"
            " -d /nonexistent -s /sbin/nologin _scwsignal"
        ),
        "service scw_signal onestop",
        "userdel _scwsignal",
        "groupdel _scwsignal",
    ],
    "openrc": [
        "groupadd -g 998 _scwsignal",
        (
            "useradd -r -M -u 998 -g _scwsignal -c scw-signal agent"
            " -d /nonexistent -s /sbin/nologin _scwsignal"
        ),
        "rc-service scw_signal stop",
        "rc-update -a del scw_signal",
        "userdel _scwsignal",
        "groupdel _scwsignal",
    ],
    "systemd": [
        "systemctl daemon-reload",
        "systemctl disable --now scw-signal",
        "systemctl daemon-reload",
    ],
}
# Records how it was called, and keeps the lists of users and groups.
PROGRAM = """#!/bin/sh
root={root}
echo "${{0##*/}} $*" >>$root/asked
case "${{0##*/}} $*" in
*groupadd*) echo "_scwsignal:*:998:" >>$root/etc/group ;;
*useradd*) echo "_scwsignal:*:998:998:" >>$root/etc/passwd ;;
*userdel*) sed -i /_scwsignal/d $root/etc/passwd ;;
*groupdel*) sed -i /_scwsignal/d $root/etc/group ;;
esac
"""


@pytest.mark.parametrize("system", ASKED)
def test_the_system_s_programs_make_the_user_and_end_the_service(
    system: str, release: Path, tmp_path: Path
) -> None:
    root = tmp_path
    stored = "var/db" if system.endswith("bsd") else "var/lib"
    for directory in ("etc", "usr/sbin", "var/run", stored):
        (root / directory).mkdir(parents=True)
    for name in {line.split()[0] for line in ASKED[system]}:
        (root / "usr/sbin" / name).write_text(PROGRAM.format(root=root))
        (root / "usr/sbin" / name).chmod(0o755)
    (root / "etc/passwd").write_text("root:*:0:0:\nother:*:999:20:\n")
    (root / "etc/group").write_text("wheel:*:0:\n")
    (root / "python3").symlink_to(PYTHON)
    before = sorted(root.rglob("*"))
    env = {
        "SYSTEM": system, "DESTDIR": str(root), "LIVE": "yes", "PYTHON": "/python3",
    }  # fmt: skip
    must(install(release, **env))
    for state in ("var/run/scw_signal", f"{stored}/scw_signal"):
        (root / state).mkdir()
        (root / state / "left").write_text("by the agent\n")
    must(install(release, "-u", **env))
    assert (root / "asked").read_text().splitlines() == ASKED[system]
    (root / "asked").unlink()
    assert sorted(root.rglob("*")) == before
    assert "_scwsignal" not in (root / "etc/passwd").read_text()


# systemd.


@pytest.fixture(scope="session")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unit, with the command that is installed beside this Python."""
    path = tmp_path_factory.mktemp("unit") / "scw-signal.service"
    text = (TOP / "packaging/systemd/scw-signal.service").read_text()
    path.write_text(text.replace("@PREFIX@/bin", str(Path(sys.executable).parent)))
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = ran(found("systemd-analyze"), "verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_s_exposure_is_at_most_2(unit: Path) -> None:
    words = ("security", "--offline=true", "--threshold=20", "--no-pager")
    done = ran(found("systemd-analyze"), *words, unit)
    assert done.returncode == 0, done.stdout


def test_systemd_knows_the_condition_that_the_unit_suggests(unit: Path) -> None:
    text = unit.read_text()
    (condition,) = re.findall("^# +(ConditionFirmware=.*)$", text, re.MULTILINE)
    done = ran(found("systemd-analyze"), "condition", condition)
    assert f"{condition} " in done.stderr
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr


@pytest.fixture(scope="session")
def tried(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Boot a container with the service; return what was found out in it."""
    root_only()
    found("systemd-nspawn")
    directory = tmp_path_factory.mktemp("container")
    (directory / "scratch").mkdir()
    shutil.copy(HERE / "try", directory)
    (line,) = re.findall(
        "^    (IPAddressDeny=.*)$", SERVICE_PAGE.read_text(), re.MULTILINE
    )
    (directory / "deny").write_text(line)
    done = ran(
        found("unshare"), "--mount", "--propagation=private",
        "sh", HERE / "container", directory, "sh", release / "packaging/install",
        env={"SYSTEM": "systemd", "PYTHON": SYSTEM_PYTHON, "EMULATOR": "yes"},
    )  # fmt: skip
    console = directory / "console"
    if not (directory / "out").exists():
        said = console.read_text() if console.exists() else ""
        pytest.skip(f"no containers here: {done.stderr}{said}")
    out = (directory / "out").read_text()
    print(out)  # shown if a test fails
    pairs = re.findall(r"^([A-Z][A-Za-z-]+):\s+(.*)$", out, re.MULTILINE)
    return {"": out, **dict(pairs)}


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("ENABLED", "enabled"),
        ("BOOT", "running"),  # the boot does not wait for the signal
        ("WAITING", "active/running"),
        ("ROUTING-SOCKETS", "1"),
        ("AFTER-CRASHES", "active, 7 restarts"),
        ("STOPPED-AT-WORK", "inactive, success"),
        ("THEN", "active/exited"),
        ("BY-SYSLOG", "1"),  # so each line has its level
        ("OWNER", "scw-signal"),
        ("ANYBODY-READS", "openbsd"),
        ("SIGNALS", "1"),
        ("SIGNALS-AFTER-RESTART", "2"),
        ("AFTER-STOP", "nothing left"),
        ("WRONG-FLAGS", "failed after 0 restarts"),
    ],
)
def test_the_unit_does_its_work_under_systemd(
    what: str, answer: str, tried: dict[str, str]
) -> None:
    assert tried.get(what) == answer


def test_the_unit_s_restrictions_hold_in_the_container(tried: dict[str, str]) -> None:
    names = ("Seccomp", "NoNewPrivs", "CapBnd", "WRITABLE")
    got = tuple(tried.get(name) for name in names)
    assert got == ("2", "1", "0000000000000000", "no")


def test_no_restriction_of_the_unit_hinders_the_agent(
    tried: dict[str, str],
) -> None:
    assert "network: a route to 169.254.42.42 after" in tried[""]
    assert "metadata: stored" in tried[""]
    for trouble in ("status=31/SYS", "nothing will be", "internal error"):
        assert trouble not in tried[""]


def test_the_line_for_systemd_keeps_a_service_from_the_metadata(
    tried: dict[str, str],
) -> None:
    assert re.findall("^REACHES: (.*)$", tried[""], re.MULTILINE) == [
        "http://169.254.42.42/conf yes, denied: no",
        "http://[fd00:42::42]/conf yes, denied: no",
        "http://127.0.0.1/conf yes, denied: yes",
    ]


# FreeBSD and NetBSD.

# A stand-in for the agent: reports its start in one FIFO, and obeys the other. If it
# is split, its halves do not pass a stop on to each other; the agent's do.
AGENT = """#!{python} -I
import os, signal, sys
hangup = signal.getsignal(signal.SIGHUP).name
halves = [os.getpid()]
if "--set-hostname" in sys.argv:
    halves.append(os.fork())
    if halves[1] == 0:
        signal.pause()
with open("{root}/life", "w") as life:
    print(*halves, hangup, *sys.argv[1:], file=life)
if open("{root}/orders").read() == "signal":
    open("{state}", "w")
"""
# Detaches from its caller at once, as daemon(8) does.
DAEMON = """#!/bin/sh
[ "$1" = -f ] && shift
exec setsid -f "$@" </dev/null >/dev/null 2>&1
"""
RCVAR = {"freebsd": "scw_signal_enable", "netbsd": "scw_signal"}
# NetBSD's own works here too. FreeBSD's does not: it asks ps(1) for jails.
RC_SUBR = {
    "freebsd": HERE / "rc.subr",
    "netbsd": Path(os.environ.get("NETBSD_RC_SUBR", HERE / "rc.subr")),
}


class Service:
    """A root with the service of a BSD in it, and a stand-in for the agent."""

    def __init__(self, system: str, root: Path) -> None:
        self.system = system
        self.state = root / "var/run/scw_signal/state"
        self._root = root
        for directory in ("etc", "usr/sbin", "bin"):
            (root / directory).mkdir(parents=True)
        self.state.parent.mkdir(parents=True)
        agent = AGENT.format(python=PYTHON, root=root, state=self.state)
        self.program("bin/scw-signald", agent)
        self.program("usr/sbin/daemon", DAEMON)
        self.program("usr/bin/id", "#!/bin/sh\n")
        text = (TOP / "packaging" / system / "scw_signal").read_text()
        for old, new in {
            "@PREFIX@": f"{root}",
            "@PYTHON@": f"{PYTHON}",
            "/etc/rc.subr": f"{root}/etc/rc.subr",
            "/var/run": f"{root}/var/run",
            "/usr/sbin/daemon": f"{root}/usr/sbin/daemon",
        }.items():
            text = text.replace(old, new)
        self.program("scw_signal", text)
        subr = RC_SUBR[system].read_text()
        subr = subr.replace("/etc/rc.conf", f"{root}/etc/rc.conf")
        (root / "etc/rc.subr").write_text(subr)
        self._halves: list[int] = []
        for name in ("life", "orders"):
            os.mkfifo(root / name)
        self.configure(**{RCVAR[system]: "YES"})

    def program(self, name: str, text: str) -> None:
        """Write a program into the root."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def configure(self, **variables: str) -> None:
        """Set these in rc.conf, and no others."""
        lines = [f'{name}="{value}"\n' for name, value in variables.items()]
        (self._root / "etc/rc.conf").write_text("".join(lines))

    def do(self, action: str) -> tuple[int, str]:
        """Run the script as service(8) does; return the status and the output."""
        done = ran(
            found("dash"), self._root / "scw_signal", action,
            env={"PATH": f"{self._root}/usr/bin:{ENVIRONMENT['PATH']}"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def born(self) -> list[str]:
        """Wait for the agent; return its action on SIGHUP, and its arguments."""
        words = (self._root / "life").read_text().split()
        while words[0].isdigit():
            self._halves.append(os.pidfd_open(int(words.pop(0))))
        return words

    def gone(self) -> None:
        """Wait until the agent has ended, with both halves if it has two."""
        while self._halves:
            ended, _, _ = select.select(self._halves[:1], [], [], PATIENCE)
            os.close(self._halves.pop(0))
            assert ended

    def close(self) -> None:
        """Kill what a failed test has left."""
        for half in self._halves:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(half, signal.SIGKILL)
            os.close(half)

    def order(self, what: str) -> None:
        """Tell the agent what to do."""
        (self._root / "orders").write_text(what)


@pytest.fixture(params=["freebsd", "netbsd"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    service = Service(request.param, tmp_path / "root")
    yield service
    service.close()


RUNS = r"scw_signal is running as pid \d+\.\n"
DONE = "scw_signal has done its work in this boot.\n"
STOPPED = "scw_signal is not running.\n"


def test_start_does_not_wait_for_the_agent_and_status_shows_its_state(
    service: Service,
) -> None:
    assert service.do("status") == (1, STOPPED)
    assert service.do("start") == (0, "Starting scw_signal.\n")
    service.born()
    status, out = service.do("status")
    assert (status, bool(re.fullmatch(RUNS, out))) == (0, True)
    service.order("signal")
    service.gone()
    assert service.do("status") == (0, DONE)


def test_an_agent_that_ended_without_signalling_is_not_done(
    service: Service,
) -> None:
    service.do("start")
    service.born()
    service.order("fail")
    service.gone()
    assert service.do("status") == (1, STOPPED)


def test_start_does_nothing_while_it_runs_or_when_it_has_done_its_work(
    service: Service,
) -> None:
    service.do("start")
    service.born()
    status, out = service.do("start")
    assert (status, bool(re.fullmatch(RUNS, out))) == (0, True)
    service.order("signal")
    service.gone()
    assert service.do("start") == (0, DONE)


def test_stop_ends_the_agent(service: Service) -> None:
    service.do("start")
    service.born()
    assert service.do("stop") == (0, "Stopping scw_signal.\n")
    service.gone()
    assert service.do("status") == (1, STOPPED)


def test_status_shows_both_halves_of_a_split_agent_and_stop_ends_them(
    service: Service,
) -> None:
    flags = {RCVAR[service.system]: "YES", "scw_signal_flags": "--set-hostname"}
    service.configure(**flags)
    service.do("start")
    service.born()
    status, out = service.do("status")
    assert (status, bool(re.fullmatch(r".* as pid \d+ \d+\.\n", out))) == (0, True)
    assert service.do("stop") == (0, "Stopping scw_signal.\n")
    service.gone()
    assert service.do("status") == (1, STOPPED)


def test_restart_signals_again(service: Service) -> None:
    service.do("start")
    service.born()
    service.order("signal")
    service.gone()
    assert service.do("restart") == (0, "Starting scw_signal.\n")
    service.born()
    assert not service.state.exists()
    service.order("end")
    service.gone()


def test_the_flags_are_split_into_words(service: Service) -> None:
    flags = "-v --url http://[fd00:42::42]"
    service.configure(**{RCVAR[service.system]: "YES", "scw_signal_flags": flags})
    service.do("start")
    assert service.born()[1:] == flags.split()
    service.order("end")
    service.gone()


def test_it_is_off_by_default(service: Service) -> None:
    service.configure()
    status, out = service.do("start")
    assert (status, "Starting" in out) == (1, False)


def test_without_the_user_it_warns_and_starts(service: Service) -> None:
    service.program("usr/bin/id", "#!/bin/sh\nexit 1\n")
    status, out = service.do("start")
    assert (status, "WARNING: there is no user _scwsignal" in out) == (0, True)
    service.born()
    service.order("end")
    service.gone()


def test_without_daemon_the_agent_ignores_sighup(tmp_path: Path) -> None:
    service = Service("netbsd", tmp_path / "root")
    service.do("start")
    assert service.born() == [signal.SIG_IGN.name]
    service.order("end")
    service.gone()


@pytest.mark.parametrize("system", ["freebsd", "netbsd"])
def test_rcorder_knows_when_to_start_it(system: str) -> None:
    text = (TOP / "packaging" / system / "scw_signal").read_text()
    lines = dict(re.findall("^# (PROVIDE|REQUIRE|KEYWORD): (.*)$", text, re.MULTILINE))
    nojail = {"KEYWORD": "nojail"} if system == "freebsd" else {}
    wanted = {"PROVIDE": "scw_signal", "REQUIRE": "NETWORKING syslogd"}
    assert lines == {**wanted, **nojail}


# OpenRC.


@pytest.fixture(scope="session")
def openrc(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run the service under OpenRC; return the lines about it."""
    root_only()
    found("openrc-run")
    directory = tmp_path_factory.mktemp("openrc")
    text = (TOP / "packaging/openrc/scw_signal").read_text()
    text = text.replace("/sbin/openrc-run", found("openrc-run"))
    (directory / "scw_signal").write_text(text.replace("@PREFIX@", "/usr/local"))
    done = ran(
        found("unshare"), "--mount", "--pid", "--kill-child", "--mount-proc",
        "sh", HERE / "openrc", directory,
    )  # fmt: skip
    print(done.stdout, done.stderr)  # shown if a test fails
    return re.findall(r"^> (.*)$", done.stdout, re.MULTILINE)


def test_openrc_tells_each_state_of_the_service(openrc: list[str]) -> None:
    assert openrc == [
        "status 3: * status: stopped",
        "start 0",
        "status 0: * status: at work",
        "started agent -v",
        "status 0: * status: done in this boot",
        "restart 0",
        "status 0: * status: at work",
        "stop 0",
        "agents left: 0",
        "status 3: * status: stopped",
        "start 0",
        "stop 1",
        "left: /run/scw_signal.pid",
        "left: /run/scw_signal/state",
        "status 0: * status: at work",
        "stop 0",
        "state left: ",
        "start 0",
        "status 32: * status: ended without having signalled, see the log",
        "stop 0",
        "bystander: alive",
    ]
