"""`moejax bench`: speed beside other engines, and beside what the machine could do."""

import argparse

from moejax.commands import parser
from moejax.errors import BadValue

DESCRIPTION = """Measures the rows asked for, prints one table; mel, encode, train, decode, diarize without a name.

`transcribe` and `serve` are tables of their own, each asked for alone: whole commands on your recordings, start of the
process included; and many clients at once at our server and at faster-whisper behind the same route.

A call counts only when other processes used less than 0.15 of a core during it; a row without enough such calls says
"not measured". Run it on a machine that does nothing else.
"""
EPILOG = """examples:
  moejax bench                                     ours alone, with the floors
  moejax bench --peers --json bench.json           the whole table beside the peers, and all that was measured
  moejax bench --peers --check                     are the results equal? valid on a busy machine
  moejax bench mel decode --size base --batch 1    part of it, at other sizes
  moejax bench transcribe --peers --data FOLDER    our command beside faster-whisper and openai-whisper: a talk of five
                                                   minutes, 100 clips, one of 11 s; time, processor time, WER
  moejax bench transcribe --peers --model base --files talk.wav --workloads talk
  moejax bench serve --peers --data FOLDER         50 clients at once, a recording each

`transcribe` takes its recordings from FOLDER (metadata.csv with the columns file and text, else all sound files, texts
beside them as NAME.txt), or from --files. Its rows: `moejax transcribe` sequential and chunked, float32 and bfloat16,
each with no compiled programs at hand (first start) and with them (later start); faster-whisper in int8 and float32, as
WhisperModel and as BatchedInferencePipeline (8 at once); openai-whisper. All greedy, language given, all cores.
"""

OPTIONS = (
    *("groups", "peers", "json", "check", "size", "batch", "seconds", "tokens", "dtype", "weights", "devices"),
    *("calls", "row_limit", "limit", "model", "language", "data", "files", "workloads", "hour", "clients"),
)
TABLES = ("transcribe", "serve")


def add(commands) -> None:
    ours = parser.add(
        commands,
        "bench",
        run,
        usage="moejax bench [mel] [encode] [train] [decode] [diarize] [options] | transcribe|serve --data FOLDER",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,  # defaults are those of the three `Settings`
    )
    add = ours.add_argument
    add("groups", nargs="*", metavar="GROUP", help="mel, encode, train, decode, diarize; or transcribe, or serve")
    peers = 'also the other engines (pip install "moejax[peers]")'
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
    add("--calls", type=int, metavar="N", help="clean calls that a median needs, default 3; transcribe, serve: 2")
    add(
        "--row_limit",
        type=float,
        metavar="S",
        help="seconds for a row, default 120; transcribe, serve: a process, 1800",
    )
    add("--limit", type=float, metavar="S", help="seconds for all, default 3600; transcribe, serve: 7200")
    whole = ours.add_argument_group("transcribe and serve")
    add = whole.add_argument
    add("--model", metavar="MODEL", help="of everybody: a name, a folder or a .pt file; default tiny.en")
    add("--language", metavar="CODE", help="told to everybody, default en")
    add("--data", metavar="FOLDER", help="recordings with texts")
    add("--files", nargs="+", metavar="FILE", help="recordings, in place of --data")
    names = "transcribe: of short, clips, talk; default all three"
    add("--workloads", metavar="NAME[,NAME]", help=names)
    hour = "transcribe: also one hour, joined from the recordings, once for each engine"
    add("--hour", action="store_true", help=hour)
    add("--clients", type=int, metavar="N", help="serve: how many ask at once, a recording each; default 50")


def settings(options, left: list[str]):
    """The `Settings` of `bench.run`, `bench.transcribe` or `bench.serving` of a command line, checked."""
    options.parser.refuse(left)
    groups = getattr(options, "groups", ())
    table = next((name for name in TABLES if name in groups), None)
    # imported here: help does not wait for it
    if table is None:
        from moejax.bench.run import Settings
    elif table == "serve":
        from moejax.bench.serving import Settings
    else:
        from moejax.bench.transcribe import Settings
    if table is not None and len(groups) > 1:
        raise BadValue(f"{table} is a table of its own: ask for it alone")
    given = {name: value for name, value in vars(options).items() if name in OPTIONS}
    if foreign := [name for name in given if name not in Settings.__dataclass_fields__]:
        raise BadValue(f"bench {table or '(mel, encode, train, decode, diarize)'} has no --{foreign[0]}")
    return Settings(**given).checked()


def run(options, left: list[str]) -> int:
    """Exit code 0 when it could measure or compare what was asked, 1 when nothing could be."""
    asked = settings(options, left)
    from moejax.bench import run, serving, transcribe

    home = next(one for one in (run, serving, transcribe) if isinstance(asked, one.Settings))
    return home.report(asked)
