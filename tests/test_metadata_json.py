"""scw-metadata-json, installed: another name for what scw-metadata --json does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installed import run
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = Path(__file__).parent / "samples" / "conf-routed-ipv4.json"

pytestmark = pytest.mark.usefixtures("commands")


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(document=json.loads(SAMPLE.read_text())) as service:
        yield service


@pytest.mark.parametrize("keys", [[], ["volumes"], ["PUBLIC_IP", "hostname"]])
def test_it_prints_what_scw_metadata_prints_as_json(
    service: Emulator, tmp_path: Path, keys: list[str]
) -> None:
    where = ("--url", service.url)
    stored = ("--cached", "--run-dir", str(tmp_path))
    live = run("scw-metadata-json", *where, *keys)
    assert (live.status, live.err) == (0, "")
    assert live == run("scw-metadata", "--json", *where, *keys)
    assert live == run("scw-metadata-json", *stored, *where, *keys)
    assert live == run("scw-metadata-json", *stored, *keys), "this needs no service"


def test_it_prints_the_document_of_the_service() -> None:
    document = {"name": "caf\u00e9 \x1b", "state_detail": "booting kernel"}
    with Emulator(document=document) as service:
        printed = run("scw-metadata-json", "--url", service.url).out
    assert json.loads(printed) == document


def test_an_error_begins_with_its_own_name(service: Emulator) -> None:
    where = ("--url", service.url)
    said = "scw-metadata-json: no such key: HOSTNAM (near: HOSTNAME)\n"
    assert run("scw-metadata-json", *where, "hostnam") == (3, "", said)
    status, out, err = run("scw-metadata-json", *where, "--sh")
    assert (status, out) == (2, "")
    assert err.startswith("scw-metadata-json: there is no option --sh")


def test_a_service_that_is_not_there_is_status_1() -> None:
    status, out, err = run("scw-metadata-json", "--timeout", "0.1")
    assert (status, out) == (1, "")
    assert err.startswith("scw-metadata-json: 127.0.0.1: Connection refused")
