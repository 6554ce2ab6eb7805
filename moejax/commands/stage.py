"""`moejax all` and `moejax STAGE`: a run in its workdir, or one stage of it with what that needs."""

import argparse
import contextlib
import functools
import textwrap
from pathlib import Path

from moejax.commands import config_file, parser
from moejax.errors import BadValue
from moejax.runtime import stopping, watchdog
from moejax.work.stage import ABOUT, OUTSIDE, WRITES

CODES = """75 stopped by SIGTERM or SIGINT (run again: training and evaluation go on, other stages begin again),
76 stuck, or another process was lost (run again as well)"""
ALL = f"""examples:
  moejax all --config configs/quickstart.py:fast --workdir runs/q
  moejax all --config configs/quickstart.py --workdir runs/q --config.gate.num_experts=4 --config.joint.steps=300
  moejax all --config configs/ablations.py --workdir runs/a --seeds 3 --variants all
  moejax all --config configs/fsdd.py --workdir runs/f --seeds 3 --leave_one_out

Stages that are finished for the same inputs are skipped; a changed key makes those that depend on it run again.
exit codes: 0 done, 1 refused or failed (one line says why),
{CODES}
"""
SHARD = (
    "listen to the I-th of N parts of the corpus alone, such as 2/16; when all have ended, the command without it puts"
    " them together"
)
EXAMPLE = "configs/quickstart.py:fast"
OF_SOUNDS = "configs/esc10.py:quick --config.data.root=DATA/esc10"
OF_TALKS = "configs/diarize.py --config.data.root=DATA"
OF_EMOTIONS = "configs/emotion_token.py --config.data.root=DATA/spoken"
EXAMPLES: dict[str, str] = {
    **dict.fromkeys(("clips", "folds", "cv"), OF_SOUNDS),
    **dict.fromkeys(("talks", "diarizer", "ego"), OF_TALKS),
    **dict.fromkeys(("emotion", "emotions"), OF_EMOTIONS),
}
SANITY = ("random-labels",)
SANITY_HELP = "a run in W/sanity that must fail to learn: labels are shuffled, and a test above chance is a leak"
EVERY = {"done.json": "inputs and summary of the finished stage", "started.json": "inputs that it was begun for"}


def add(commands) -> None:
    ours = parser.add(
        commands,
        "all",
        all_stages,
        usage=config_file.usage(
            "all", more="[--seeds N] [--variants all|NAME,...]\n                  [--leave_one_out] "
        ),
        description="Runs every stage in order, and prints the table.\n\nstages (moejax STAGE runs one):\n" + listed(),
        epilog=ALL,
    )
    config_file.add(ours, run=True)
    ours.add_argument("--seeds", type=parser.whole, default=1, metavar="N", help="with N training seeds, default 1")
    variants = "with these ablations, from the config's section variants"
    ours.add_argument("--variants", default=(), metavar="all|NAME,...", help=variants)
    ours.add_argument("--leave_one_out", action="store_true", help="with each cohort held out in turn")
    for name, about in ABOUT.items():
        ours = parser.add(
            commands,
            name,
            one_stage,
            usage=config_file.usage(name),
            description=f"Stage {name}: {about}.\nStages that it needs run before it, unless they are finished.",
            epilog=f"example:\n  moejax {name} --config {EXAMPLES.get(name, EXAMPLE)} --workdir runs/q",
            more=functools.partial(told, name),
        )
        config_file.add(ours, run=True)
        if name == "describe":
            ours.add_argument("--shard", type=shard, metavar="I/N", help=SHARD)
        if name == "cv":
            ours.add_argument("--sanity", choices=SANITY, default="", help=SANITY_HELP)


def shard(text: str) -> tuple[int, int]:
    """ "2/16" as (2, 16)."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"wants I/N, the I-th of N parts from 1 to N, got {text!r}")
    return int(number), int(of)


def listed() -> str:
    return "\n".join(f"  {name:<10} {about}" for name, about in ABOUT.items())


def all_stages(options, left: list[str]) -> int:
    with stopping.leaving(options.command):
        config = prepared(options, left)
        from moejax.job.study import study
        from moejax.report.stage import console_summary

        if config.folds.models:
            raise BadValue("the config has folds.models, which moejax cv cross-validates; all is for recognition")
        many = {"seeds": options.seeds, "variants": options.variants, "heldout": options.leave_one_out}
        with listening(options.command, config):
            work = study(config, options.workdir, **many)
        print(console_summary(work))
        return 0


def one_stage(options, left: list[str]) -> int:
    name = options.command
    with stopping.leaving(name):
        config = prepared(options, left)
        from moejax.job import graph

        with listening(name, config):
            if config.tune:
                raise BadValue(f"the config has a section tune, which moejax all carries out; {name} does not")
            if getattr(options, "shard", None):
                graph.shard(config, options.workdir, options.shard)
            elif getattr(options, "sanity", ""):
                checked(config, options.workdir, options.sanity)
            else:
                graph.run(config, options.workdir, name)
        return 0


def checked(config, workdir: str, sanity: str) -> None:
    """The cross-validation with what cannot be learnt, below its own workdir, whose clips it takes over."""
    from moejax.job import graph

    config.folds.sanity = sanity
    graph.run(config, Path(workdir, "sanity", sanity), "cv", donors=(workdir,))


def prepared(options, left: list[str]):
    """The config of a run. Errors: also a command line without a workdir."""
    config = config_file.read(options, left)
    if options.workdir is None:
        raise BadValue("--workdir W is missing: the folder that the run writes to")
    if options.force:
        config.runtime.force = True
    return config


@contextlib.contextmanager
def listening(command: str, config):
    """In it, a run that is stuck ends, and one that is asked to stop does so in time."""
    with watchdog.watching(config.runtime.watchdog), stopping.listening(command, config.runtime.stop_within):
        yield


def told(name: str) -> str:
    """What stage `name` reads and writes, and the keys of the config sections that it is the first to read."""
    from moejax.job.config import defaults  # here: these import JAX
    from moejax.job.graph import closure
    from moejax.job.stages import STAGES
    from moejax.work.folder import flatten

    before = list(STAGES)[: list(STAGES).index(name)]
    others = {read for stage in before for read in STAGES[stage].reads}
    own = [read for read in STAGES[name].reads if read not in others and "." not in read]
    keys = flatten({section: defaults()[section].to_dict() for section in own})
    parts = {
        "reads": [
            *([OUTSIDE[name]] if name in OUTSIDE else []),
            *(f"W/{stage}: {ABOUT[stage]}" for stage in closure(STAGES[name].needs)),
        ],
        f"writes in W/{name}": [f"{file:<29} {what}" for file, what in (WRITES[name] | EVERY).items()],
        "config keys, as they are where a config says nothing (moejax config --help KEY explains one)": [
            textwrap.shorten(f"{key}={value!r}", 100) for key, value in keys.items()
        ],
        "it also reads of the config": [read for read in STAGES[name].reads if read not in own],
    }
    lines = [f"{title}:\n" + "\n".join(f"  {line}" for line in found) for title, found in parts.items() if found]
    return "\n\n".join(lines) + "\n"
