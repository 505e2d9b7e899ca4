"""Lets atheris search for bytes that a target fails on: `python3 -m fuzz`.

Inputs that it finds interesting are kept in .fuzz/TARGET for the next run, and those
that fail in .fuzz. `python3 -m fuzz TARGET FILE` runs one input alone.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

PLACE = Path(".fuzz")
LONGEST = 32 * 1024  # bytes: longer inputs only make it slow
SECONDS = 60
# Atheris is guided by the branches that an input takes in these.
PARSERS = ["scw_signal", "email", "http", "json", "shlex", "urllib3"]
HANG = 10  # seconds; an input that takes longer fails


def main() -> int:
    """Fuzz one target, or each in turn; return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m fuzz")
    parser.add_argument("target", nargs="?", help="one of them; all in turn otherwise")
    parser.add_argument("file", nargs="?", type=Path, help="the only input to try")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    options = parser.parse_args()
    if options.target is None:
        return each(options.seconds)
    # Not at the top of the file: atheris instruments only what it sees imported.
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=PARSERS):
        targets = importlib.import_module("fuzz.targets").TARGETS
    target = targets[options.target]
    corpus, dictionary = prepare(options.target, target.seeds(), target.tokens)
    settings = {
        "max_total_time": options.seconds,
        "timeout": HANG,
        "max_len": LONGEST,
        "dict": dictionary,
        "artifact_prefix": f"{corpus}-",
    }
    words = [f"-{name}={value}" for name, value in settings.items()]
    atheris.Setup([sys.argv[0], *words, str(options.file or corpus)], target.check)
    atheris.Fuzz()  # which ends the process
    return 0


def each(seconds: int) -> int:
    """Fuzz each target in a process of its own; return 1 if any of them fails."""
    names = importlib.import_module("fuzz.targets").TARGETS
    command = (sys.executable, "-m", "fuzz", "--seconds", str(seconds))
    failed = [
        name
        for name in names
        if subprocess.run([*command, name], check=False).returncode
    ]
    if failed:
        print("fuzz: these fail, see .fuzz:", *failed, file=sys.stderr)
    return 1 if failed else 0


def prepare(
    name: str, seeds: list[bytes], tokens: tuple[bytes, ...]
) -> tuple[Path, Path]:
    """Write the seeds and the tokens of a target; return where they are."""
    corpus = PLACE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / sha256(seed).hexdigest()).write_bytes(seed)
    dictionary = PLACE / f"{name}.tokens"
    escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in tokens)
    dictionary.write_text("".join(f'"{token}"\n' for token in escaped))
    return corpus, dictionary


if __name__ == "__main__":
    sys.exit(main())
