"""Command lines: the usual grammar, and a usage error for all else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal.cli.options import Command, Option
from scw_signal.errors import UsageError

unhurried = settings(deadline=None)  # the machine may be busy

COMMAND = Command(
    "tool",
    "[KEY ...]",
    "Do a thing.",
    (
        Option("quiet", "say nothing", letter="q"),
        Option("verbose", "say more", letter="v"),
        Option("level", "how much", letter="l", metavar="LEVEL"),
        Option("timeout", "how long", metavar="SECONDS"),
        Option("url", "where", metavar="URL"),
    ),
)


@pytest.mark.parametrize(
    "argv", [["--level", "3"], ["--level=3"], ["-l", "3"], ["-l3"], ["-ql3"]]
)
def test_a_value_is_written_in_any_of_the_usual_ways(argv: list[str]) -> None:
    arguments = COMMAND.parse(argv)
    assert arguments.text("level", "default") == "3"
    assert arguments.operands == []


@pytest.mark.parametrize(
    "argv", [["-q", "-v"], ["-qv"], ["-vq"], ["--quiet", "--verbose"], ["-qq", "-v"]]
)
def test_flags_may_be_bundled(argv: list[str]) -> None:
    arguments = COMMAND.parse(argv)
    assert arguments.has("quiet")
    assert arguments.has("verbose")


def test_an_option_that_is_not_given_has_its_default() -> None:
    arguments = COMMAND.parse([])
    assert not arguments.has("quiet")
    assert arguments.all("url") == []
    assert arguments.text("level", "default") == "default"
    assert arguments.seconds("timeout", 30.0) == 30.0


def test_of_a_repeated_option_all_values_are_kept_and_the_last_counts() -> None:
    arguments = COMMAND.parse(["--url", "a", "--url=b", "--timeout=1", "--timeout=2"])
    assert arguments.all("url") == ["a", "b"]
    assert arguments.text("url", "") == "b"
    assert arguments.seconds("timeout", 30.0) == 2.0


def test_options_and_operands_come_in_any_order() -> None:
    arguments = COMMAND.parse(["A", "-q", "B", "--level", "3", "C"])
    assert arguments.operands == ["A", "B", "C"]
    assert arguments.has("quiet")


def test_two_dashes_end_the_options() -> None:
    arguments = COMMAND.parse(["-q", "--", "-v", "--", "--nonsense"])
    assert arguments.operands == ["-v", "--", "--nonsense"]
    assert not arguments.has("verbose")


@pytest.mark.parametrize("word", ["-", ""])
def test_a_lone_dash_and_nothing_are_operands(word: str) -> None:
    assert COMMAND.parse([word]).operands == [word]


@pytest.mark.parametrize("value", ["", "-q", "--", "--quiet", "a=b", "-"])
def test_any_word_may_be_the_value_of_an_option(value: str) -> None:
    for argv in (["--level", value], [f"--level={value}"], ["-l", value]):
        arguments = COMMAND.parse(argv)
        assert arguments.text("level", "default") == value
        assert not arguments.has("quiet")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nonsense"], "there is no option --nonsense"),
        (["--nonsense=1"], "there is no option --nonsense"),
        (["--verb"], "there is no option --verb"),
        (["--Quiet"], "there is no option --Quiet"),
        (["--=1"], "there is no option --"),
        (["---quiet"], "there is no option ---quiet"),
        (["-x"], "there is no option -x"),
        (["-qx"], "there is no option -x"),
        (["-q-"], "there is no option --"),
        (["-\x1b"], r"there is no option -\x1b"),
        (["--a\r\nb\udcff"], r"there is no option --a\r\nb\udcff"),
        (["--quiet=1"], "--quiet takes no value"),
        (["--quiet="], "--quiet takes no value"),
        (["--level"], "--level needs a value: LEVEL"),
        (["-ql"], "--level needs a value: LEVEL"),
    ],
)
def test_a_usage_error_says_what_is_wrong(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        COMMAND.parse(argv)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0), (".5", 0.5)]
)
def test_seconds_are_a_number_from_zero(text: str, seconds: float) -> None:
    assert COMMAND.parse([f"--timeout={text}"]).seconds("timeout", 30.0) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "-1", "-0.1", "inf", "-inf", "Infinity", "nan", "1e999", "5s", "1,5", "\x1b"],
)
def test_anything_else_is_no_time(text: str) -> None:
    arguments = COMMAND.parse(["--timeout", text])
    with pytest.raises(UsageError, match="--timeout takes seconds") as caught:
        arguments.seconds("timeout", 30.0)
    assert str(caught.value).isprintable()


def test_help_has_a_line_for_each_option() -> None:
    assert COMMAND.help() == (
        "usage: tool [options] [KEY ...]\n"
        "\n"
        "Do a thing.\n"
        "\n"
        "  -q, --quiet             say nothing\n"
        "  -v, --verbose           say more\n"
        "  -l, --level LEVEL       how much\n"
        "  --timeout SECONDS       how long\n"
        "  --url URL               where\n"
        "  -h, --help              print this and exit\n"
        "  -V, --version           print the version and exit\n"
    )


def test_the_help_of_an_option_is_wrapped_below_itself() -> None:
    words = " ".join(20 * ["seven-7"])
    help_ = Command("tool", "", "", (Option("long", words),)).help()
    assert f"  --long                  {words[:47]}\n{26 * ' '}seven-7 " in help_
    assert max(map(len, help_.splitlines())) < 80


def test_without_operands_the_synopsis_ends_with_the_options() -> None:
    assert Command("tool", "", "", ()).help().startswith("usage: tool [options]\n")


WORDS = st.lists(
    st.text(st.characters(), max_size=8)
    | st.sampled_from(["-q", "-qv", "-l", "--level", "--level=", "--url=x", "--", "-"])
)


@unhurried
@given(WORDS)
def test_any_words_are_a_command_line_or_a_usage_error(argv: list[str]) -> None:
    with contextlib.suppress(UsageError):
        arguments = COMMAND.parse(argv)
        assert set(arguments.operands) <= set(argv)


@unhurried
@given(WORDS)
def test_after_two_dashes_every_word_is_an_operand(argv: list[str]) -> None:
    assert COMMAND.parse(["-q", "--", *argv]).operands == argv
