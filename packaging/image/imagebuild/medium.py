"""The install image: its name and its checksum.

Only `installXX.img` will do: it has every set of the release, so that one checksum
covers everything that is installed, and the installation needs no mirror.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from scw_signal.terminal import printable

from .answers import Release
from .errors import BuildError

# On Debian, signify(1) has the first name, and `signify` is another program.
SIGNIFY = ("signify-openbsd", "signify")
# Where the keys of OpenBSD are: on OpenBSD itself, and in Debian's package
# signify-openbsd-keys.
KEYS = ("/etc/signify", "/usr/share/signify-openbsd-keys")
VERIFY_SECONDS = 300.0  # seconds, more than enough to hash an image
_ENTRY = re.compile(r"^SHA256 \(([^()\n]+)\) = ([0-9a-f]{64})$", re.MULTILINE)


class Check(NamedTuple):
    """How to check an image: with a list of checksums, signed if there is a command."""

    image: Path
    checksums: Path
    command: list[str]  # of signify(1); may be empty
    key: Path | None = None
    beside: bool = False  # whether the key was beside the image, so perhaps not genuine


def release_of(image: Path) -> Release:
    """Return the release of an install image; raises BuildError."""
    found = re.fullmatch(r"install(\d{1,2})(\d)\.img", image.name)
    if found is None:
        raise BuildError(
            f"{printable(image.name)!r} is not named as OpenBSD's mirrors name it:"
            " installXX.img, as in install80.img"
        )
    return Release(int(found[1]), int(found[2]))


def plan(image: Path, release: Release, key: Path | None) -> Check:
    """Return how to check an image with the files beside it; raises BuildError."""
    if not image.is_file():
        raise BuildError(f"no such image: {printable(str(image))}")
    signed, plain = image.with_name("SHA256.sig"), image.with_name("SHA256")
    key = key or known_key(image.parent, release)
    signify = next(filter(None, map(shutil.which, SIGNIFY)), None)
    if key and signed.is_file() and signify:
        words = ["-C", "-q", "-p", str(key.resolve()), "-x", signed.name, image.name]
        beside = key.resolve().parent == image.resolve().parent
        return Check(image, signed, [signify, *words], key, beside)
    if key and not key.is_file():
        raise BuildError(f"no such key: {printable(str(key))}")
    if key and signed.is_file():
        raise BuildError(
            "there is no signify(1) to check the signature with: apt install"
            " signify-openbsd"
        )
    for checksums in (signed, plain):
        if checksums.is_file():
            return Check(image, checksums, [])
    raise BuildError(
        f"no SHA256.sig and no SHA256 beside {printable(str(image))}: get them from the"
        " mirror that the image is from"
    )


def known_key(beside: Path, release: Release) -> Path | None:
    """Return the key of a release if it is on this machine."""
    name = f"openbsd-{release.digits}-base.pub"
    candidates = (Path(place, name) for place in (*KEYS, beside))
    return next(filter(Path.is_file, candidates), None)


def verify(check: Check) -> str:
    """Check an image; return the result as text; raises BuildError."""
    if check.command:
        _signify(check)
        return (
            f"signature and checksum of {check.image.name}: good,"
            f" by {printable(str(check.key))}{_doubt(check)}"
        )
    wanted = listed(check.checksums.read_text("ascii", "replace"), check.image.name)
    if wanted is None:
        raise BuildError(f"{check.checksums} has no line for {check.image.name}")
    with check.image.open("rb") as image:
        digest = hashlib.sha256()
        while block := image.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != wanted:
        raise BuildError(
            f"{check.image} does not match {check.checksums.name}: its SHA256 is"
            f" {digest.hexdigest()}, and should be {wanted}"
        )
    return f"checksum of {check.image.name}: good; its signature was not checked"


def _doubt(check: Check) -> str:
    """Return a warning if the key came together with the image."""
    if not check.beside:
        return ""
    release = release_of(check.image)
    return (
        ", which is beside it: compare its second line with the one on"
        f" https://www.openbsd.org/{release.digits}.html"
    )


def listed(text: str, name: str) -> str | None:
    """Return the checksum of a name in a list, which may be signed."""
    return dict(_ENTRY.findall(text)).get(name)


def _signify(check: Check) -> None:
    try:
        done = subprocess.run(  # noqa: S603 # no shell
            check.command,
            cwd=check.image.parent,
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"signify(1) did not work: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise BuildError(f"{check.image}: the signature is not good: {printable(said)}")
