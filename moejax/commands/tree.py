"""All commands in one tree of parsers. Importing it costs milliseconds: what a command needs comes when it runs."""

import argparse
import difflib

from moejax import __version__
from moejax.commands import (
    align,
    ask,
    bench,
    config,
    diarize,
    export,
    models,
    pack,
    personalize,
    plan,
    pronounce,
    recipe,
    score,
    serve,
    stage,
    transcribe,
    ui,
    voices,
)
from moejax.commands.parser import Parser
from moejax.errors import BadValue
from moejax.work.stage import ABOUT

COMMANDS = {
    **{"all": stage, "config": config, "plan": plan},
    **{"transcribe": transcribe, "enroll": voices, "speakers": voices, "personalize": personalize, "score": score},
    **{"pack": pack, "serve": serve, "ui": ui, "models": models, "export": export, "bench": bench},
    **{"align": align, "diarize": diarize, "pronounce": pronounce, "ask": ask, "recipe": recipe},
}
OVERVIEW = """moejax {version}: a frozen Whisper, a mixture of LoRA experts, and every baseline in one table.

usage:
  moejax all        --config FILE.py[:variant] --workdir W     every stage in order; finished ones are skipped
                    [--seeds N] [--variants all|NAME,...]      with N training seeds, with the config's ablations,
                    [--leave_one_out]                          with each cohort held out in turn: one report over all
  moejax STAGE      --config FILE.py[:variant] --workdir W     one stage (and what it needs)
  moejax transcribe FILE... --model MODEL [--system NAME]      text and subtitles of recordings
                                                               NAME: a row of the workdir's table, moe if not given
  moejax enroll     FILE... --name NAME                        phrases of one speaker, for transcribe --speaker NAME
  moejax personalize FILE... --name NAME --model MODEL         the best way to read one person, of 10 to 200 recordings
  moejax speakers   [export|remove NAME]                       who is enrolled
  moejax score      --model MODEL... --data FOLDER             error rates of any models on a corpus of your own
                    [--enroll 0,3]                             and with phrases of each speaker in front
  moejax align      FILE... --model MODEL [--text TEXT]        when every word and letter sounds: TextGrid, CTM, JSON
  moejax diarize    FILE... --model WORKDIR                    who speaks when; transcribe --diarize: who said what
  moejax recipe     NAME FOLDER                                references of AMI, VoxConverse ..., checked and described
  moejax pronounce  FILE... --model MODEL [--text TEXT]        how well it is pronounced: scores, words in colours
  moejax ask        FILE... --model FOLDER --question TEXT     a language model that hears answers (SALMONN)
  moejax serve      --model MODEL [--model NAME=MODEL]         a server with the routes of OpenAI's audio API
  moejax pack       SOURCE DEST [--workers N]                  a corpus of any size into shards for training
  moejax ui         --model MODEL [--model NAME=MODEL]         a page in the browser: record, read, compare
  moejax models                                                models that have a name, and where they are
  moejax export     --workdir W --to FORMAT --output D         for other libraries: hf, openai, ctranslate2, peft
  moejax plan       --config FILE.py[:variant] [--devices N]   sizes, sharding and memory of a config, no weights
  moejax config     --config FILE.py[:variant]                 every key with its value, as YAML
  moejax bench      [mel|encode|train|decode] [--peers]        speed beside other engines

moejax COMMAND --help shows its options and examples, moejax STAGE --help what the stage reads, writes and can be told,
moejax config --help KEY what a key of the config means.

stages:
{stages}

any key of the config can be changed from the command line:
  moejax all --config configs/quickstart.py --workdir runs/q --config.gate.num_experts=4 --config.joint.steps=300

--traceback shows where a refusal came from; what moejax did not foresee shows it always.
--force goes on with a half-trained stage whose base or data changed since, or begins one anew whose config did.
"""
CODES = f"""exit codes: 0 done, 1 refused or failed (one line says why), 2 called without a command,
{stage.CODES},
130 transcribe was interrupted, 141 the reader of the output went away.
"""


def build() -> Parser:
    """The parser of the whole command line."""
    overview = OVERVIEW.format(version=__version__, stages=stage.listed())
    tree = Parser(prog="moejax", usage=argparse.SUPPRESS, description=overview, epilog=CODES)
    tree.add_argument("--version", action="version", version=__version__)
    commands = tree.add_subparsers(dest="command", help=argparse.SUPPRESS)
    for module in dict.fromkeys(COMMANDS.values()):
        module.add(commands)
    return tree


def run(argv: list[str]) -> int:
    """Exit code of a command line. Errors: whatever the command raises; SystemExit after --help and --version."""
    tree = build()
    if not argv or argv[0] == "help":
        tree.print_help()
        return 0 if argv else 2
    options, left = parsed(argv, tree)
    return options.run(options, left)


def parsed(argv: list[str], tree: Parser | None = None):
    """(options, arguments that their parser did not take) of a command line. Errors: BadValue; as `run`."""
    known = [*sorted(COMMANDS), *ABOUT]
    if argv[0] not in (*known, "-h", "--help", "--version"):
        near = difflib.get_close_matches(argv[0], [*known, "--help", "--version"], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise BadValue(f"unknown command {argv[0]!r}{hint}; known: {', '.join(known)}")
    return (tree or build()).parse_known_args(argv)
