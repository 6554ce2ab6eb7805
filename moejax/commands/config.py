"""`moejax config`: every key of a config with its value; `moejax config --help KEY`: what a key means."""

import argparse

from moejax.commands import config_file, parser
from moejax.runtime import stopping

EPILOG = """examples:
  moejax config --help gate                              what the keys of a section mean; of one: --help gate.kind
  moejax config --config configs/quickstart.py:fast      all keys with their values, as YAML
  moejax config --config configs/fsdd.py --config.gate.num_experts=4 --config.adapters.kinds="('lora','cohort')"
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "config",
        run,
        usage=config_file.usage("config", workdir=False) + "\n       moejax config --help [KEY]",
        description="Prints the resolved config as YAML: every key, whether the file sets it or not.",
        epilog=EPILOG,
        add_help=False,
    )
    ours.add_argument("-h", "--help", nargs="?", metavar="KEY", action=Help, help="this help, and what keys mean")
    config_file.add(ours, run=False)


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
        config = config_file.read(options, left)
        from moejax.job.config import text

        print(text(config), end="")
        return 0
