"""Command lines: each command has one table of options, for parsing and for --help.

Not argparse: importing it, with re, takes as long as all the rest of a cached
look-up. The grammar is the usual one: `--name VALUE`, `--name=VALUE`, `-abc` for
flags, options and operands in any order; `--` ends the options.
"""

from __future__ import annotations

from scw_signal.errors import UsageError
from scw_signal.store import RUN_DIRECTORY
from scw_signal.terminal import printable

TYPE_CHECKING = False  # see render
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Option:
    """One option: `--name`, perhaps `-letter`, perhaps with a value."""

    __slots__ = ("help", "letter", "metavar", "name")

    def __init__(
        self, name: str, help_: str, *, letter: str = "", metavar: str = ""
    ) -> None:
        """Take its names and help, which may have several lines.

        An option with a `metavar` takes a value.
        """
        self.name = name
        self.help = help_
        self.letter = letter
        self.metavar = metavar

    def usage(self) -> str:
        """Return its usage, such as `-q, --quiet` or `--url URL`."""
        letter = f"-{self.letter}, " if self.letter else ""
        return f"{letter}--{self.name}{self.metavar and ' ' + self.metavar}"


HELP = Option("help", "print this and exit", letter="h")
VERSION = Option("version", "print the version and exit", letter="V")
ONCE = Option("once", "try once only")
QUIET = Option("quiet", "show no progress on a terminal", letter="q")
VERBOSE = Option("verbose", "print a line for each failed try", letter="v")
RUN_DIR = Option(
    "run-dir", f"where the stored files are ({RUN_DIRECTORY})", metavar="DIRECTORY"
)


def url(variable: str = "METADATA_IP") -> Option:
    """Return the option for the service; a variable can name the service too."""
    return Option(
        "url",
        f"the service; may be repeated ({variable} with "
        "METADATA_PORT, else 169.254.42.42 and fd00:42::42)",
        metavar="URL",
    )


URL = url()


def timeout(default: float) -> Option:
    """Return the option for how long to try."""
    how = f"how long to try ({default:g}); 0: forever"
    return Option("timeout", how, metavar="SECONDS")


class Command:
    """The name, the operands, the options and the help of a command."""

    def __init__(
        self, name: str, operands: str, summary: str, options: Sequence[Option]
    ) -> None:
        """Take the synopsis of the operands and a summary of one sentence."""
        self.name = name
        self.operands = operands
        self.summary = summary
        self.options = (*options, HELP, VERSION)

    def help(self) -> str:
        """Return the text that --help prints."""
        import textwrap  # noqa: PLC0415 - it imports re, which only --help can afford

        rows = [
            textwrap.fill(
                f"  {option.usage():<24}{option.help}",
                width=79,
                subsequent_indent=26 * " ",
                break_on_hyphens=False,
            )
            for option in self.options
        ]
        synopsis = " ".join(filter(None, (self.name, "[options]", self.operands)))
        return "\n".join([f"usage: {synopsis}", "", self.summary, "", *rows, ""])

    def parse(self, argv: Sequence[str]) -> Arguments:
        """Parse the words after the command's name; raises UsageError."""
        found = Arguments()
        words = iter(argv)
        for word in words:
            if word == "--":
                found.operands.extend(words)
            elif word.startswith("--"):
                self._long(word[2:], words, found)
            elif word.startswith("-") and word != "-":
                self._letters(word[1:], words, found)
            else:
                found.operands.append(word)
        return found

    def _long(self, word: str, words: Iterator[str], found: Arguments) -> None:
        name, equals, value = word.partition("=")
        option = next((o for o in self.options if o.name == name), None)
        if option is None:
            raise UsageError(f"there is no option --{printable(name, 40)}")
        if equals and not option.metavar:
            raise UsageError(f"--{name} takes no value")
        found.add(option, value if equals else None, words)

    def _letters(self, word: str, words: Iterator[str], found: Arguments) -> None:
        for at, letter in enumerate(word):
            option = next((o for o in self.options if o.letter == letter), None)
            if option is None:
                raise UsageError(f"there is no option -{printable(letter)}")
            if option.metavar:
                found.add(option, word[at + 1 :] or None, words)
                return
            found.add(option, None, words)


class Arguments:
    """The options and operands of a command line; conversions raise UsageError."""

    def __init__(self) -> None:
        """Start without any."""
        self.operands: list[str] = []
        self._values: dict[str, list[str]] = {}

    def add(self, option: Option, value: str | None, words: Iterator[str]) -> None:
        """Record an option; if its value is None, the next word is the value."""
        if option.metavar and value is None:
            value = next(words, None)
            if value is None:
                raise UsageError(f"--{option.name} needs a value: {option.metavar}")
        self._values.setdefault(option.name, []).append(value or "")

    def has(self, name: str) -> bool:
        """Tell whether an option was given."""
        return name in self._values

    def all(self, name: str) -> list[str]:
        """Return every value of an option that may be repeated, in order."""
        return self._values.get(name, [])

    def text(self, name: str, default: str) -> str:
        """Return the value of an option; the last one if it was repeated."""
        return self._values.get(name, [default])[-1]

    def seconds(self, name: str, default: float) -> float:
        """Return the value of an option as seconds: a finite number, at least 0."""
        if name not in self._values:
            return default
        text = self._values[name][-1]
        try:
            # float() also accepts 1_000 and non-ASCII digits: surely mistakes.
            seconds = float(text) if text.isascii() and "_" not in text else -1.0
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise UsageError(
                f"--{name} takes seconds, as in 2.5; not {printable(text, 40)!r}"
            )
        return seconds
