"""`moejax config`: every key of a config with its value; `moejax config --help KEY`: what a key means; `moejax config
--from FILE`: what the keys of another trainer are here.
"""

import argparse
import sys

from moejax.commands import config_file, parser
from moejax.errors import BadValue
from moejax.runtime import stopping

EPILOG = """examples:
  moejax config --help gate                              what the keys of a section mean; of one: --help gate.kind
  moejax config --config configs/quickstart.py:fast      all keys with their values, as YAML
  moejax config --config configs/fsdd.py --config.gate.num_experts=4 --config.adapters.kinds="('lora','cohort')"
  moejax config --from args.json --section adapters      Hugging Face's arguments, or the YAML of a torch script
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "config",
        run,
        usage=config_file.usage("config", workdir=False)
        + "\n       moejax config --help [KEY]\n       moejax config --from FILE [--section NAME]",
        description="Prints the resolved config as YAML: every key, whether the file sets it or not.",
        epilog=EPILOG,
        add_help=False,
    )
    ours.add_argument("-h", "--help", nargs="?", metavar="KEY", action=Help, help="this help, and what keys mean")
    config_file.add(ours, run=False)
    said = "a YAML or JSON file with keys of another trainer: prints the overrides that they are here"
    ours.add_argument("--from", dest="trainer", metavar="FILE", help=said)
    ours.add_argument("--section", metavar="NAME", help="of --from: the section that trains, default base")


class Help(argparse.Action):
    """Help of the command and of all keys, or of the KEY behind it alone."""

    def __call__(self, parser, options, key, flag=None):
        from moejax.job import config  # here: other help does not wait for JAX

        if key is None:
            parser.print_help()
            print()
        print(config.help_text(key), end="")
        parser.exit()


def run(options, left: list[str]) -> int:
    with stopping.leaving(options.command):
        if options.trainer is not None:
            return _converted(options, left)
        if options.section is not None:
            raise BadValue("--section says which section the keys of --from FILE are for")
        config = config_file.read(options, left)
        from moejax.job.config import text

        print(text(config), end="")
        return 0


def _converted(options, left: list[str]) -> int:
    """Overrides on standard output, what is none of them on standard error."""
    options.parser.refuse(left)
    if options.config is not None:
        raise BadValue("--from FILE prints overrides; give them to a command together with --config")
    from moejax.job import trainer_keys

    found = trainer_keys.read(options.trainer, options.section or "base")
    for note in found.notes:
        print(f"moejax config: {note}", file=sys.stderr)
    print("".join(f"{line}\n" for line in found.overrides()), end="")
    return 0
