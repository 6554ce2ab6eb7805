"""The parser of every command: argparse that refuses in one line, and whose help may say what is looked up for it."""

import argparse
import difflib
import re
from collections.abc import Callable

from moejax.errors import BadValue


class Parser(argparse.ArgumentParser):
    """Argparse without abbreviations; what is wrong is a `BadValue`, which the caller prints.

    `spelled(parser, arguments)` rewrites arguments before they are parsed. `more()` gives what stands below the help:
    called when the help is shown, so it may import what a command imports.
    """

    def __init__(self, *, spelled: Callable | None = None, more: Callable[[], str] | None = None, **settings):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self.spelled, self.more = spelled, more

    def parse_known_args(self, args=None, namespace=None):
        return super().parse_known_args(args if self.spelled is None else self.spelled(self, args), namespace)

    def format_help(self) -> str:
        return super().format_help() + (f"\n{self.more()}" if self.more else "")

    def error(self, message):
        message = message.replace("expected one argument", "wants a value")
        raise BadValue(re.sub(r"^argument (\S+): wants", r"\1 wants", message))

    def refuse(self, left: list[str], hint: str = "--help shows what it takes") -> None:
        """BadValue for the first argument that nothing took: an option with the nearest that there is, else `hint`."""
        if not left:
            return
        name = left[0].partition("=")[0]
        if not name.startswith("-"):
            raise BadValue(f"unexpected argument {left[0]!r}; {hint}")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(name, known, n=1)
        found = f"did you mean {near[0]}?" if near else "--help lists them"
        raise BadValue(f"{self.prog.split()[-1]} has no option {name!r}; {found}")


def add(commands, name: str, run: Callable, **settings) -> Parser:
    """A command of the tree: its parser. `run(options, left)` carries it out and gives its exit code; `left` are the
    arguments that the parser did not take.
    """
    parser = commands.add_parser(name, **settings)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("--traceback", action="store_true", help="show where a refusal came from")
    return parser


def takes_recordings(ours: Parser, metavar: str, help: str) -> None:
    """FILE... and --model, which is called `metavar`, of commands that read recordings with one model."""
    ours.add_argument("files", nargs="*", metavar="FILE", help="recordings, folders, patterns")
    ours.add_argument("--model", metavar=metavar, help=help)


def told(options, left: list[str], model: str) -> bool:
    """Whether such a command has files to read; else its help is shown. Errors: BadValue where --model, `model` in
    words, is missing, and for arguments that nothing took.
    """
    options.parser.refuse(left)
    if not options.files:
        options.parser.print_help()
        return False
    if not options.model:
        raise BadValue(f"--model is missing: {model}")
    return True


def whole(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wants a whole number, got {text!r}")
    return int(text)
