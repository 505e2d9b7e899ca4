"""scw-metadata, installed, end to end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from installed import BIN, ENVIRONMENT, Result, run
from scw_signal import __version__
from scw_signal.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLES = Path(__file__).parent / "samples"
ROUTED = SAMPLES / "conf-routed-ipv4.json"

pytestmark = pytest.mark.usefixtures("commands")


@pytest.fixture
def service() -> Iterator[Emulator]:
    with Emulator(document=json.loads(ROUTED.read_text())) as service:
        yield service


@pytest.fixture
def cache(service: Emulator, tmp_path: Path) -> Path:
    """Return a run directory that a look-up has filled."""
    directory = tmp_path / "run"
    words = ("--cached", "--run-dir", str(directory), "--url", service.url)
    assert run("scw-metadata", *words, "hostname").status == 0
    return directory


def metadata(service: Emulator, *words: str) -> Result:
    return run("scw-metadata", "--url", service.url, *words)


def cached(directory: Path, *words: str) -> Result:
    """Look up in the cache; there is no service to ask."""
    return run("scw-metadata", "--cached", "--run-dir", str(directory), *words)


@pytest.mark.parametrize("name", ["routed-ipv4", "ipv6-only", "legacy-2018"])
def test_no_key_prints_the_services_own_text_form(name: str) -> None:
    document = json.loads((SAMPLES / f"conf-{name}.json").read_text())
    with Emulator(document=document) as service:
        printed = metadata(service).out
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
        connection.request("GET", "/conf")
        text = connection.getresponse().read().decode()
        connection.close()
    assert printed == text


def test_keys_print_one_value_a_line_in_their_order(service: Emulator) -> None:
    assert metadata(service, "HOSTNAME", "PUBLIC_IP_ADDRESS") == (
        0,
        "puffy\n198.51.100.7\n",
        "",
    )


@pytest.mark.parametrize(
    "key", ["PUBLIC_IP_ADDRESS", "public_ip.address", "Public_IP.Address"]
)
def test_a_key_is_taken_in_either_spelling_and_any_case(
    service: Emulator, key: str
) -> None:
    assert metadata(service, key).out == "198.51.100.7\n"


def test_a_missing_key_is_status_3_with_near_ones_and_nothing_on_stdout(
    service: Emulator,
) -> None:
    status, out, err = metadata(service, "hostname", "hostnam", "no.such")
    assert (status, out) == (3, "")
    assert err == "scw-metadata: no such key: HOSTNAM (near: HOSTNAME), NO_SUCH\n"


def test_json_prints_the_document(service: Emulator) -> None:
    printed = json.loads(metadata(service, "--json").out)
    served = json.loads(ROUTED.read_text())
    # The platform behind the service keeps these two up to date.
    for document in (printed, served):
        del document["state"], document["state_detail"]
    assert printed == served


def test_json_with_a_key_prints_that_part(service: Emulator) -> None:
    out = metadata(service, "--json", "public_ip", "tags.1").out
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(out)
    assert first["address"] == "198.51.100.7"
    assert decoder.raw_decode(out[end:].lstrip()) == ("role=front", 12)


def test_cached_or_not_sh_prints_the_same(service: Emulator, cache: Path) -> None:
    asked = metadata(service, "--sh").out
    assert "SCW_HOSTNAME='" in asked
    assert run("scw-metadata", "--cached", "--run-dir", str(cache), "--sh").out == asked


def test_prefix_changes_the_names(service: Emulator) -> None:
    assert metadata(service, "--sh", "--prefix", "SRV_", "hostname").out == (
        "SRV_HOSTNAME='puffy'\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--sh", "--json"],
        ["--prefix", "X_"],
        ["--list-keys", "--json"],
        ["--max-age", "soon"],
        ["--max-age", "-1"],
        ["--max-age", ""],
        ["--max-age", "60", "--ssh-keys"],
        ["--sh", "--prefix", "x;id"],
        ["--timeout", "soon"],
        ["--timeout", "-1"],
        ["--timeout"],
        ["--url", "ftp://127.0.0.1"],
        ["--url", "http://127.0.0.1\r\nX: y"],
        ["--nonsense"],
        ["-z"],
        ["--json=yes"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(words: list[str]) -> None:
    status, out, err = run("scw-metadata", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("scw-metadata: ")


def test_cached_needs_no_service(cache: Path) -> None:
    assert cached(cache, "hostname", "zone") == (0, "puffy\nfr-par-1\n", "")


@pytest.mark.parametrize("words", [[], ["--json"], ["--sh"], ["--json", "volumes"]])
def test_cached_prints_what_the_service_would(
    service: Emulator, cache: Path, words: list[str]
) -> None:
    assert cached(cache, *words) == metadata(service, *words)


def test_list_keys_prints_the_names_of_all_keys(service: Emulator, cache: Path) -> None:
    names = metadata(service, "--list-keys").out.splitlines()
    assert {"HOSTNAME", "PUBLIC_IP_ADDRESS"} <= set(names)
    assert metadata(service, *names).status == 0
    assert cached(cache, "--list-keys").out.splitlines() == names


def test_list_keys_with_keys_prints_them_and_those_below(cache: Path) -> None:
    assert cached(cache, "--list-keys", "public_ip", "zone").out.split() == [
        "PUBLIC_IP", "PUBLIC_IP_ADDRESS", "PUBLIC_IP_DYNAMIC", "PUBLIC_IP_FAMILY",
        "PUBLIC_IP_GATEWAY", "PUBLIC_IP_ID", "PUBLIC_IP_IPAM_ID", "PUBLIC_IP_NETMASK",
        "PUBLIC_IP_PROVISIONING_MODE", "PUBLIC_IP_STATE", "PUBLIC_IP_TAGS", "ZONE",
    ]  # fmt: skip


def test_list_keys_with_an_unknown_key_is_status_3_and_one_line(cache: Path) -> None:
    status, out, err = cached(cache, "--list-keys", "zone", "hostnam")
    assert (status, out) == (3, "")
    assert err == "scw-metadata: no such key: HOSTNAM (near: HOSTNAME)\n"


def test_a_key_that_spans_lines_is_listed_on_one() -> None:
    with Emulator(document={"a\nb": 1, "c\x1b[2J": 2}) as service:
        assert metadata(service, "--list-keys").out.startswith("A\\nB\nC\\x1b[2J\n")


@pytest.mark.parametrize("command", ["scw-metadata", "scw-metadata-json"])
@pytest.mark.parametrize(
    ("age", "uses_it"), [(0.0, True), (50, True), (70, False), (-3600, False)]
)
def test_max_age_uses_what_is_stored_if_it_is_not_older(
    service: Emulator, cache: Path, command: str, age: float, *, uses_it: bool
) -> None:
    asked = len(service.requests)
    for name in ("metadata.flat", "metadata.json"):
        os.utime(cache / name, (time.time() - age,) * 2)
    words = ("--run-dir", str(cache), "--url", service.url, "--max-age", "60")
    for _ in range(2):  # what the service answers is stored, and used the second time
        assert run(command, *words, "zone").out.strip('"\n') == "fr-par-1"
    assert len(service.requests) == asked + (0 if uses_it else 1)


def test_max_age_without_a_stored_document_stores_one(
    service: Emulator, tmp_path: Path
) -> None:
    words = ("--run-dir", str(tmp_path), "--url", service.url, "--max-age", "60")
    assert run("scw-metadata", *words, "zone") == (0, "fr-par-1\n", "")
    assert cached(tmp_path, "zone") == (0, "fr-par-1\n", "")


def test_a_cache_that_is_not_ours_is_not_read(service: Emulator, cache: Path) -> None:
    (cache / "metadata.flat").write_text("HOSTNAME=other\n")
    words = ("--cached", "--run-dir", str(cache), "--url", service.url)
    assert run("scw-metadata", *words, "hostname").out == "puffy\n"


def test_if_nothing_can_be_stored_there_is_still_an_answer(
    service: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = ("--cached", "--run-dir", str(tmp_path / "file"), "--url", service.url)
    assert run("scw-metadata", *words, "hostname") == (0, "puffy\n", "")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("503", "the service answered 503"),
        ("html", "the document is not JSON but HTML"),
        ("reset", "127.0.0.1: "),
        ("garbage", "127.0.0.1: the reply broke off or is not HTTP"),
        ("huge", "the document is larger than 524288 bytes"),
    ],
)
def test_a_service_that_makes_no_sense_is_one_line_and_status_1(
    fault: str, reason: str
) -> None:
    with Emulator(faults=[fault]) as service:
        status, out, err = metadata(service, "--timeout", "1.1", "hostname")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert reason in err


def test_a_failure_that_passes_is_tried_again() -> None:
    with Emulator(faults=["503:1", "html:1"]) as service:
        assert metadata(service, "state").status == 0


def test_no_service_is_one_line_and_status_1() -> None:
    status, out, err = run("scw-metadata", "--timeout", "0.1", "hostname")
    assert (status, out) == (1, "")
    assert err.startswith("scw-metadata: 127.0.0.1: Connection refused; gave up after")


def test_a_broken_pipe_is_quiet(cache: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [BIN / "scw-metadata", "--cached", "--run-dir", cache],
        env=ENVIRONMENT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_a_full_disk_is_one_line_and_status_1(cache: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [BIN / "scw-metadata", "--cached", "--run-dir", cache],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "scw-metadata: standard output: No space left on device\n"


def test_a_document_that_is_not_ascii_survives_a_c_locale(tmp_path: Path) -> None:
    document = {"name": "café 🐡", "tags": ["\x1b[31m"]}
    with Emulator(document=document) as service:
        words = ("--cached", "--run-dir", str(tmp_path), "--url", service.url)
        for _ in range(2):  # from the service, then from the cache
            for locale in ("C", "POSIX", "en_US.ISO8859-1"):
                env = {"LANG": locale, "LC_ALL": locale, "PYTHONUTF8": "0"}
                assert run("scw-metadata", *words, "name", env=env).out == "café 🐡\n"


def test_help_fits_a_screen() -> None:
    status, out, _ = run("scw-metadata", "--help")
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) < 80


def test_version_is_the_packages() -> None:
    for option in ("-V", "--version"):
        assert run("scw-metadata", option).out == f"scw-metadata {__version__}\n"
