"""`moejax bench`: speed beside other engines, and beside what the machine could do."""

import argparse

from moejax.commands import parser

DESCRIPTION = """Measures the rows asked for, prints one table; all four groups without a name.

A call counts only when other processes used less than 0.15 of a core during it; a row without enough such calls says
"not measured". Run it on a machine that does nothing else.
"""
EPILOG = """examples:
  moejax bench                                     ours alone, with the floors
  moejax bench --peers --json bench.json           the whole table beside the peers, and all that was measured
  moejax bench --peers --check                     are the results equal? valid on a busy machine
  moejax bench mel decode --size base --batch 1    part of it, at other sizes
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "bench",
        run,
        usage="moejax bench [mel] [encode] [train] [decode] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,  # defaults are those of `bench.run.Settings`
    )
    add = ours.add_argument
    add("groups", nargs="*", metavar="GROUP", help="mel, encode, train, decode")
    peers = 'also openai-whisper, transformers, PEFT, CTranslate2 (pip install "moejax[peers]")'
    add("--peers", action="store_true", help=peers)
    add("--json", metavar="FILE", help="everything that was measured, every call with its load")
    add("--check", action="store_true", help="compare results only, once each; no times")
    size = "a Whisper size with the published vocabulary (default tiny), or nano; random weights"
    add("--size", metavar="SIZE", help=size)
    add("--batch", type=int, metavar="N", help="utterances at once, default 8")
    add("--seconds", type=float, metavar="S", help="of each utterance, default 30")
    add("--tokens", type=int, metavar="N", help="of each utterance, default 64")
    add("--dtype", choices=("float32", "bfloat16"), help="activations and peers, default float32")
    add("--weights", choices=("", "float32", "bfloat16", "int8"), help="int8 keeps our backbone in int8")
    devices = "XLA devices of the training steps, default 1 (2 uses two cores better outside of matrix products)"
    add("--devices", type=int, metavar="N", help=devices)
    add("--calls", type=int, metavar="N", help="clean calls that a median needs, default 3")
    add("--row_limit", type=float, metavar="S", help="seconds for a row, default 120")
    add("--limit", type=float, metavar="S", help="seconds for all, default 3600")


def settings(options, left: list[str]):
    """`bench.run.Settings` of a command line, checked."""
    options.parser.refuse(left)
    from moejax.bench.run import Settings  # here: help does not wait for it

    fields = Settings.__dataclass_fields__
    return Settings(**{name: value for name, value in vars(options).items() if name in fields}).checked()


def run(options, left: list[str]) -> int:
    """Exit code 0 when it could measure or compare what was asked, 1 when nothing could be."""
    asked = settings(options, left)
    from moejax.bench.run import report

    return report(asked)
