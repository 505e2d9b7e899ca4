"""The documents: their links lead somewhere, and the rules in them work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import netns
from netns import SERVICE, Lab
from scw_signal.emulator import Emulator

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)]+)\)")
MOST_WORDS = 900  # of the README
STRANGER = "4242"  # a user that is neither root nor the agent's

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.name
)


def prose(document: Path) -> str:
    """Return a document without its blocks of code."""
    text = re.sub(
        r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"^    .*\n", "", text, flags=re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors of its headings, as the forges make them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
        for title in titles
    }


@every_document
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    wrong = []
    for link in LINK.findall(prose(document)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@every_document
def test_no_line_of_prose_says_can_not(document: Path) -> None:
    assert "can not" not in prose(document)


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS


def test_no_document_evals_the_output_of_a_command_that_may_fail() -> None:
    for document in DOCUMENTS:
        assert 'eval "$(scw-metadata' not in document.read_text(), document


def test_the_rule_for_nftables_keeps_others_out() -> None:
    missing = [name for name in ("nft", "curl") if shutil.which(name) is None]
    reason = netns.missing() or "".join(f"there is no {name}" for name in missing[:1])
    if reason:
        pytest.skip(reason)
    text = (ROOT / "docs/service.md").read_text()
    found = re.search(
        r"^    table inet .*?^    }\n", text, flags=re.MULTILINE | re.DOTALL
    )
    assert found is not None
    with Lab() as lab:
        lab.connect(4)
        with lab.service.entered(), Emulator(host=SERVICE[4], port=netns.HTTP):
            rule = found[0].replace('"_scwsignal"', "65534")
            subprocess.run(
                lab.guest.command("nft", "-f", "-"), input=rule, text=True, check=True
            )
            asked = {
                user: subprocess.run(
                    lab.guest.command(
                        *("setpriv", "--reuid", user, "--clear-groups"),
                        *("curl", "-s", "-m", "5", f"http://{SERVICE[4]}/conf"),
                    ),
                    env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
                    capture_output=True,
                    check=False,
                ).returncode
                for user in ("0", "65534", STRANGER)
            }
    refused = 7  # of curl(1)
    assert asked == {"0": 0, "65534": 0, STRANGER: refused}
