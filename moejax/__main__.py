"""The command line: `moejax STAGE --config FILE --workdir W`, `moejax all ...`, `moejax transcribe FILE...`."""

import errno
import logging
import os
import sys

from moejax import __version__
from moejax.errors import BadValue, Preempted, Refused
from moejax.runtime import stopping, watchdog

USAGE = """moejax {version}: a frozen Whisper, a mixture of LoRA experts, and every baseline in one table.

usage:
  moejax all        --config FILE.py[:variant] --workdir W     every stage in order; finished ones are skipped
                    [--seeds N] [--variants all|NAME,...]      with N training seeds, with the config's ablations,
                    [--leave_one_out]                          with each cohort held out in turn: one report over all
  moejax STAGE      --config FILE.py[:variant] --workdir W     one stage (and what it needs)
  moejax transcribe FILE... --model MODEL [--system NAME]      text and subtitles of recordings; --help shows examples
                                                               NAME: a row of the workdir's table, moe if not given
  moejax export     --workdir W --to FORMAT --output D         hf, openai, ctranslate2, peft: see moejax export --help
  moejax plan       --config FILE.py[:variant] [--devices N]   sizes, sharding and memory of a config, no weights
  moejax bench      mel|encode|train|decode [--peers]          speed beside other engines; --help lists the options

stages:
{stages}

any key of the config can be changed from the command line:
  moejax all --config configs/quickstart.py --workdir runs/q --config.gate.num_experts=4 --config.joint.steps=300

`moejax config --config FILE.py` prints every key with its value, as YAML.
--traceback shows where a refusal came from; what moejax did not foresee shows it always.
--force goes on with a half-trained stage whose base or data changed since, or begins one anew whose config did.
exit codes: 0 done, 1 refused or failed (one line says why), 2 called without a command,
75 stopped by SIGTERM or SIGINT (run again: training and evaluation go on, other stages begin again),
76 stuck, or another process was lost (run again as well),
141 the reader of the output went away.
"""
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the file system says no, and not about which file
EXIT_BROKEN_PIPE = 141  # as if SIGPIPE had ended the process, which is what shells know


def main(argv=None) -> None:
    """Runs a command and leaves the process with its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            code = command(argv)
        except SystemExit as stop:  # argparse, after --help
            code = stop.code
        sys.stdout.flush()  # or a reader that went away is noticed only when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        code = EXIT_BROKEN_PIPE
    sys.exit(code)


def command(argv) -> int:
    """Exit code of a command line."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("moejax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs stacks of what it raises as well
    return guarded(argv)


def guarded(argv) -> int:
    """Exit code of a command; bad input becomes one line on stderr, a bug keeps its traceback."""
    command, rest = argv[0], argv[1:]
    try:
        if command == "transcribe":
            from moejax.commands.transcribe import main as transcribe

            return transcribe([arg for arg in rest if arg != "--traceback"])
        if command == "bench":
            from moejax.bench.run import main as bench

            return bench(rest)
        if command == "export":
            from moejax.commands.export import main as export

            return export([arg for arg in rest if arg != "--traceback"])
        with stopping.leaving(command):
            return staged(command, rest)
    except Exception as error:
        if isinstance(error, Preempted):
            print(f"moejax {command}: {error}", file=sys.stderr)
            return error.exit_code
        if "--traceback" in argv or not foreseen(error):
            raise
        print(f"moejax {command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def foreseen(error: Exception) -> bool:
    """Whether moejax refused something, or the file system said no; every other error is a bug."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return isinstance(error, Refused) or error.filename is not None or error.errno in DISK
    return isinstance(error, Refused)


def usage() -> str:
    from moejax.work.stage import ABOUT

    stages = "\n".join(f"  {name:<10} {about}" for name, about in ABOUT.items())
    return USAGE.format(version=__version__, stages=stages)


def staged(command: str, argv: list[str]) -> int:
    """`all`, one stage, `config` or `plan`."""
    from moejax.job import graph
    from moejax.work.stage import ABOUT

    if command not in ("all", "config", "plan", *ABOUT):
        known = ", ".join(["all", "bench", "config", "export", "plan", "transcribe", *ABOUT])
        raise BadValue(f"unknown command {command!r}; known: {known}")
    if "-h" in argv or "--help" in argv:
        print(usage())
        return 0
    path, argv = take(argv, "--config")
    workdir, argv = take(argv, "--workdir")
    devices, argv = whole_number(argv, "--devices") if command == "plan" else (1, argv)
    many = {}
    if command == "all":
        many["seeds"], argv = whole_number(argv, "--seeds")
        variants, argv = take(argv, "--variants")
        many |= {"variants": variants or (), "heldout": "--leave_one_out" in argv}
        argv = [arg for arg in argv if arg != "--leave_one_out"]
    force = "--force" in argv
    argv = [arg for arg in argv if arg not in ("--traceback", "--force")]
    if path is None:
        raise BadValue("--config FILE.py is missing; the shipped configs are in configs/")
    config = overridden(path, argv)
    if command == "config":
        from moejax.job.config import text

        print(text(config), end="")
        return 0
    if command == "plan":
        from moejax.job.plan import plan

        print(plan(config, devices))
        return 0
    if workdir is None:
        raise BadValue("--workdir W is missing: the folder that the run writes to")
    if force:
        config.runtime.force = True
    with watchdog.watching(config.runtime.watchdog), stopping.listening(command, config.runtime.stop_within):
        if command == "all":
            from moejax.job.study import study

            work = study(config, workdir, **many)
        else:
            if config.tune:
                raise BadValue(f"the config has a section tune, which moejax all carries out; {command} does not")
            work = graph.run(config, workdir, command)
    if command == "all":
        from moejax.report.stage import console_summary

        print(console_summary(work))
    return 0


def take(argv: list[str], flag: str):
    """`(value, argv without it)` of `--flag value` or `--flag=value`; None when absent."""
    left, value = [], None
    arguments = iter(argv)
    for arg in arguments:
        if arg == flag:
            value = next(arguments, None)
            if value is None:
                raise BadValue(f"{flag} wants a value")
        elif arg.startswith(flag + "="):
            value = arg.split("=", 1)[1]
        else:
            left.append(arg)
    return value, left


def whole_number(argv: list[str], flag: str):
    """`take` of an integer; 1 when absent."""
    value, left = take(argv, flag)
    if value is not None and not value.isdecimal():
        raise BadValue(f"{flag} wants a whole number, got {value!r}")
    return int(value or 1), left


def overridden(path: str, argv: list[str]):
    """The resolved config with `--config.a.b=value` flags applied, typed as ml_collections types them."""
    from absl import flags
    from ml_collections import config_flags

    from moejax.job import config as configs

    config = configs.load(path)
    argv = configs.open_keys(argv, config)
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["moejax", *argv])
        left = values(["moejax", *argv])[1:]
    except (flags.Error, AttributeError, KeyError) as error:
        raise BadValue(configs.explain(str(error), argv, config)) from error
    if left:
        raise BadValue(f"unexpected argument {left[0]!r}; overrides are written --config.section.key=value")
    config = values["config"].value
    configs.check(config)
    return config


if __name__ == "__main__":
    main()
