"""The metadata document, and the text form of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from emulated import SAMPLES, ask, get_json, send_signal
from scw_signal.emulator import Emulator, flatten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TEXTS = sorted(SAMPLES.glob("*.txt"))


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_sample_is_reproduced_byte_for_byte(path: Path) -> None:
    document = json.loads(path.with_suffix(".json").read_bytes())
    assert flatten(document).encode() == path.read_bytes()


def test_there_are_samples() -> None:
    assert len(TEXTS) == 3


@pytest.mark.parametrize(
    "value",
    [
        *("", "it's", "''", 'a "b" $(c) `d` \\', "two\nlines", "-n", "$HOME", "~"),
        *("café 🐡", "\u202eoverride", "é", "a b", "a;b", "#", "\u0661"),
    ],
)
def test_a_value_comes_out_of_a_shell_as_it_went_in(value: str) -> None:
    assert shlex.split(flatten({"key": value}), comments=True) == [f"KEY={value}"]
    script = flatten({"key": value}) + 'printf %s "$KEY"'
    printed = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert printed.stdout.decode() == value


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": {"": "x", "b": []}}, "A=' B'\nA_=x\nA_B=0\n"),
        ({"a": [[1, 2.5]]}, "A=1\nA_0=2\nA_0_0=1\nA_0_1=2.5\n"),
        ({"a": [True, None]}, "A=2\nA_0=True\nA_1=\n"),
        ({"volumes": {"0": "x"}}, "VOLUMES=0\nVOLUMES_0=x\n"),
        ({"volumes": []}, "VOLUMES=0\n"),
        ({"a": {}}, "A=''\n"),
        ({}, ""),
    ],
)  # fmt: skip
def test_odd_shapes_flatten_as_the_grammar_says(
    document: dict[str, object], text: str
) -> None:
    assert flatten(document) == text


def test_the_built_in_server_has_the_shape_of_the_sample(service: Emulator) -> None:
    sample = json.loads((SAMPLES / "conf-routed-ipv4.json").read_bytes())
    document = get_json(service)
    assert {key: type(value) for key, value in document.items()} == {
        key: type(value) for key, value in sample.items()
    }
    for key in ("public_ip", "image", "location"):
        ours, theirs = document[key], sample[key]
        assert isinstance(ours, dict)
        assert sorted(ours) == sorted(theirs)


def test_a_document_replaces_the_built_in_one_and_is_not_changed() -> None:
    document = {"state_detail": "stopped", "id": "x", "volumes": {"0": {"size": 1}}}
    with Emulator(document=document) as service:
        send_signal(service)
        document["id"] = "changed later"
        expected = (
            "STATE_DETAIL=booted\nID=x\nVOLUMES=0\nVOLUMES_0=SIZE\nVOLUMES_0_SIZE=1\n"
        )
        assert ask(service, "GET", "/conf").body.decode() == expected
    assert document["state_detail"] == "stopped"


def test_a_document_without_a_state_gets_a_state_detail_only() -> None:
    with Emulator(document={}) as service:
        assert get_json(service) == {"state_detail": "booting kernel"}


def test_a_document_with_half_a_surrogate_pair_is_served() -> None:
    with Emulator(document={"name": "\ud800"}) as service:
        assert ask(service, "GET", "/conf").body.startswith(b"NAME='?'\n")
        assert get_json(service)["name"] == "\ud800"
