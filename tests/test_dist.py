"""packaging/dist: a release has all that it needs, and is the same every time.

No test asks a package index: pip finds the libraries in a directory, as wheels made
from the ones that are installed here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scw_signal

if TYPE_CHECKING:
    from collections.abc import Mapping

TOP = Path(__file__).resolve().parent.parent
LIBRARIES = ("urllib3", "tenacity")
PIN = re.compile(r"^(\w+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", re.MULTILINE)
EPOCH = 1_600_000_000
PATIENCE = 120.0

GIT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{role}_NAME": "nobody" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "nobody@localhost" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_DATE": f"{EPOCH} +0000" for role in ("AUTHOR", "COMMITTER")},
}


def git(tree: Path, *words: str) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed here")
    subprocess.run(["git", "-C", tree, *words], env=GIT, check=True)


def dist(
    tree: Path,
    wheels: Path | None = None,
    env: Mapping[str, str] | None = None,
    words: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Make a release of a tree; without `wheels` the libraries cannot be found."""
    return subprocess.run(
        [sys.executable, tree / "packaging/dist", *words],
        env={
            "PATH": os.environ["PATH"],
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels or "/nonexistent"),
            **(env or {}),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def released(tree: Path, wheels: Path | None = None, **env: str) -> Path:
    """Make a release, and return it."""
    done = dist(tree, wheels, env)
    assert done.returncode == 0, done.stderr
    return tree / done.stdout.strip()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the libraries as wheels."""
    directory = tmp_path_factory.mktemp("wheels")
    for name in LIBRARIES:
        library = importlib.metadata.distribution(name)
        wheel = directory / f"{name}-{library.version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for file in library.files or ():
                if file.suffix != ".pyc":
                    archive.write(str(library.locate_file(file)), file)
    return directory


@pytest.fixture
def checkout(tmp_path: Path, wheels: Path) -> Path:
    """Return a checkout of the source as it is now, pinned to those wheels."""
    tree = tmp_path / "checkout"
    tree.mkdir()
    for part in ("scw_signal", "packaging", "rc.d", ".ci"):
        shutil.copytree(TOP / part, tree / part)
    for file in ("LICENSE", "setup.cfg", ".gitignore"):
        shutil.copy(TOP / file, tree)
    pins = ""
    for wheel in wheels.iterdir():
        name, version, *_ = wheel.name.split("-")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        pins += f"{name}=={version} --hash=sha256:{digest}\n"
    (tree / "packaging/vendor.txt").write_text(pins)
    git(tree, "init", "--quiet")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message=all of it")
    return tree


def unpacked(release: Path, where: Path) -> Path:
    """Unpack a release; return the one directory that is in it."""
    where.mkdir()
    subprocess.run(["tar", "-xzf", release, "-C", where], check=True)
    (tree,) = where.iterdir()
    return tree


def contents(tree: Path) -> dict[str, bytes]:
    return {
        path.relative_to(tree).as_posix(): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file()
    }


def test_the_release_is_named_after_the_version(checkout: Path, wheels: Path) -> None:
    (checkout / "scw_signal/__init__.py").write_text('__version__ = "7.8.9"\n')
    release = released(checkout, wheels)
    assert release == checkout / "dist/scw-signal-7.8.9.tar.gz"
    assert unpacked(release, checkout / "unpacked").name == "scw-signal-7.8.9"


def test_it_holds_what_git_knows_and_the_libraries(
    checkout: Path, wheels: Path, tmp_path: Path
) -> None:
    (checkout / "scw_signal/scratch.py").write_text("what git does not know\n")
    tree = unpacked(released(checkout, wheels), tmp_path / "unpacked")
    found = contents(tree)
    vendored = {name for name in found if name.startswith("vendor/")}
    known = subprocess.run(
        ["git", "-C", checkout, "ls-files"], capture_output=True, text=True, check=True
    )
    assert set(found) - vendored == set(known.stdout.splitlines())
    for name in LIBRARIES:
        assert f"vendor/{name}/__init__.py" in vendored
        # The release has its version and its licence too.
        assert [file for file in vendored if re.search(f"{name}-.*/METADATA", file)]
        assert [file for file in vendored if re.search(f"{name}-.*/LICENSE", file)]


def test_the_same_source_gives_the_same_bytes(
    checkout: Path, wheels: Path, tmp_path: Path
) -> None:
    first = released(checkout, wheels).read_bytes()
    for path in checkout.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (0, 0))
            path.chmod(path.stat().st_mode & 0o700)
    elsewhere = checkout.rename(tmp_path / "elsewhere")
    assert released(elsewhere, wheels).read_bytes() == first


def test_a_release_can_be_made_again_from_itself_without_a_network(
    checkout: Path, wheels: Path, tmp_path: Path
) -> None:
    release = released(checkout, wheels)
    tree = unpacked(release, tmp_path / "unpacked")
    # Working in the tree leaves files that do not belong to the source.
    for name in (".venv-newest", "build", "dist", "scw_signal/__pycache__"):
        (tree / name).mkdir()
        (tree / name / "left").write_text("")
    assert released(tree).read_bytes() == release.read_bytes()


def test_everything_belongs_to_root_and_dates_from_the_commit(
    checkout: Path, wheels: Path
) -> None:
    with tarfile.open(released(checkout, wheels)) as archive:
        members = archive.getmembers()
    assert {(member.uid, member.gid, member.mtime) for member in members} == {
        (0, 0, EPOCH)
    }
    assert {member.uname + member.gname for member in members} == {""}
    assert {member.mode for member in members} == {0o644, 0o755}
    assert [member.name for member in members] == sorted(
        (member.name for member in members), key=lambda name: name.split("/")
    )


def test_source_date_epoch_is_obeyed(checkout: Path, wheels: Path) -> None:
    release = released(checkout, wheels, SOURCE_DATE_EPOCH="1234567890")
    with tarfile.open(release) as archive:
        assert {member.mtime for member in archive} == {1234567890}


def test_a_library_other_than_the_pinned_one_is_refused(
    checkout: Path, wheels: Path
) -> None:
    pins = checkout / "packaging/vendor.txt"
    pins.write_text(re.sub("sha256:....", "sha256:0000", pins.read_text()))
    done = dist(checkout, wheels)
    assert done.returncode == 1
    assert "HASH" in done.stderr.upper()
    assert "Traceback" not in done.stderr
    assert not (checkout / "dist").exists()


def test_the_libraries_alone_can_be_put_into_a_checkout(
    checkout: Path, wheels: Path
) -> None:
    for _ in range(2):  # the second replaces the first
        done = dist(checkout, wheels, words=("vendor",))
        assert (done.returncode, done.stdout) == (0, "vendor\n"), done.stderr
        for name in LIBRARIES:
            assert (checkout / "vendor" / name / "__init__.py").exists()
        (checkout / "vendor/former").mkdir(exist_ok=True)
        assert not list(checkout.glob(".vendor*"))
    assert not (checkout / "dist").exists()


def test_without_the_libraries_it_says_so(checkout: Path) -> None:
    done = dist(checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dist: ")
    assert "Traceback" not in done.stderr


def test_the_pinned_libraries_are_those_that_setup_cfg_allows() -> None:
    pinned = dict(PIN.findall((TOP / "packaging/vendor.txt").read_text()))
    assert set(pinned) == set(LIBRARIES)
    allowed = (TOP / "setup.cfg").read_text()
    for name, version in pinned.items():
        match = re.search(rf"    {name}>=([\d.]+),<([\d.]+)\n", allowed)
        assert match is not None
        assert numbers(match[1]) <= numbers(version) < numbers(match[2])


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_it_installs_from_the_release_without_a_network(
    checkout: Path, wheels: Path, tmp_path: Path
) -> None:
    tree = unpacked(released(checkout, wheels), tmp_path / "unpacked")
    root = tmp_path / "root"
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/python3").symlink_to(Path(sys.executable).resolve())
    subprocess.run(
        [*without_network(), "sh", tree / "packaging/openbsd/install"],
        env={"PATH": "/usr/bin:/bin", "DESTDIR": str(root)},
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
    )
    installed = root / "usr/local/libexec/scw_signal"
    for name in ("scw_signal", *LIBRARIES):
        assert (installed / name / "__init__.py").exists()


def without_network() -> list[str]:
    """Return the words that run a command without a network."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", "--net", *user]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*words, "true"], stderr=subprocess.DEVNULL, check=False
        ).returncode
    ):
        pytest.skip("no network namespaces here")
    return words


def test_the_sdist_makes_the_same_wheel_and_has_no_tests(tmp_path: Path) -> None:
    if importlib.util.find_spec("build") is None:
        pytest.skip("build is not installed here")
    tree = tmp_path / "tree"
    # Not .sid: it holds tmp_path, so the copy would contain itself.
    skipped = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info")
    shutil.copytree(TOP, tree, ignore=skipped, symlinks=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, tree],
        check=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "LICENSE", "packaging/bin/scw-metadata"} <= names
    assert not [name for name in names if name.startswith("tests")]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive_:
        inside = set(archive_.namelist())
    data = f"scw_signal-{scw_signal.__version__}.data"
    manuals = {*(TOP / "packaging/man").glob("*.[18]")}
    manuals.discard(TOP / "packaging/man/scw-seal.8")  # only in the site set
    wanted = {
        f"{data}/data/share/man/man{page.suffix[1:]}/{page.name}" for page in manuals
    }
    assert wanted <= inside, "pipx looks for manuals in share/man"
    completions = {name for name in inside if "/data/share/" in name} - wanted
    assert f"{data}/data/share/zsh/site-functions/_scw-signal" in completions
    assert len(completions) == len([*(TOP / "packaging/completion").glob("*/[_s]*")])
    modules = {
        path.relative_to(TOP).as_posix() for path in TOP.glob("scw_signal/**/*.py")
    }
    assert modules <= inside
