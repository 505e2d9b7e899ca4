"""The parsers of bytes from elsewhere, under thousands of random inputs.

The targets and their seeds are those of tests/fuzz. `make fuzz` searches there for
more, guided by coverage; what it finds becomes a test here.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz.targets import TARGETS, Target

MUTATIONS = 3000  # of each target, or when soaking:
MANY_MUTATIONS = 1_000_000
LONGEST = 16 * 1024  # bytes; inputs of the greatest length are tried below
# Seconds of CPU for an input of the greatest length. A parser that is not linear
# takes minutes; this is no measurement.
BOUND = 20.0


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_every_seed_is_understood(target: Target) -> None:
    for seed in target.seeds():
        target.check(seed)


def mutated(source: random.Random, target: Target, seeds: list[bytes]) -> bytes:
    """Return a damaged copy of a seed."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.randint(1, 8)):
        at, end = sorted(source.choices(range(len(data) + 1), k=2))
        end = min(end, at + 64)
        what = source.randrange(6)
        if what == 0:
            data[at:end] = b""
        elif what == 1:
            data[at:at] = source.choice(target.tokens) * source.choice((1, 1, 2, 99))
        elif what == 2:
            data[at:at] = source.randbytes(source.randint(1, 8))
        elif what == 3:
            data[at:at] = source.choice(seeds)[at:end]
        elif what == 4 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        else:
            data[at:at] = data[at:end] * source.randint(1, 4)
    return bytes(data[:LONGEST])


def test_no_mutation_of_a_seed_breaks_a_promise(
    target: Target, *, soaking: bool
) -> None:
    source = random.Random(target.check.__name__)  # noqa: S311 - the same in each run
    seeds = target.seeds()
    for _ in range(MANY_MUTATIONS if soaking else MUTATIONS):
        data = mutated(source, target, seeds)
        try:
            target.check(data)
        except Exception as error:
            raise AssertionError(f"{target.check.__name__}({data!r})") from error


@pytest.mark.parametrize("most", [LONGEST, sys.maxsize], ids=["long", "longest"])
def test_no_repetition_takes_more_than_linear_time(target: Target, most: int) -> None:
    limit = min(target.limit, most)
    for begin in (b"", target.tokens[0], target.seeds()[0]):
        for token in target.tokens:
            data = begin + token * ((limit - len(begin)) // len(token))
            start = time.process_time()
            target.check(data)
            assert time.process_time() - start < BOUND, (begin, token)


# atheris is not available everywhere, and is optional: no skip without it.
if importlib.util.find_spec("atheris"):

    def test_the_fuzzer_runs_a_target(tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "fuzz", "retry-after", "--seconds", "1"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "DONE" in done.stderr
