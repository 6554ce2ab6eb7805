"""What all commands that read a config have in common: --config FILE.py[:variant], and overrides of its keys."""

from moejax.commands.parser import Parser
from moejax.errors import BadValue

OVERRIDES = "overrides are written --config.section.key=value"


def add(parser: Parser, run: bool) -> None:
    """The options that name a run. With `run` false the command only looks at the config: it takes the others too, so
    that the line of a run can be asked with another command.
    """
    add = parser.add_argument
    add("--config", metavar="FILE.py[:variant]", help="a file with get_config(); the shipped ones are in configs/")
    add("--workdir", metavar="W", help="the folder that the run writes to" if run else "not used here")
    begun = "go on with a half-trained stage whose base or data changed, or begin one anew whose config did"
    add("--force", action="store_true", help=begun if run else "not used here")


def usage(name: str, workdir: bool = True, more: str = "") -> str:
    return f"moejax {name} --config FILE.py[:variant] {'--workdir W ' * workdir}{more}[--config.KEY=VALUE ...]"


def read(options, left: list[str]):
    """The config of a command line, resolved, with its overrides. Errors: an option that there is not, no config, and
    what is wrong with the config.
    """
    if options.config is None:
        options.parser.refuse([argument for argument in left if not _overrides(argument)], OVERRIDES)
        raise BadValue("--config FILE.py is missing; the shipped configs are in configs/")
    from moejax.job.overrides import overridden  # here: help and refusals do not wait for JAX

    config, left = overridden(options.config, left)
    options.parser.refuse(left, OVERRIDES)
    return config


def _overrides(argument: str) -> bool:
    """Whether it is an override, or may be the value of one."""
    return argument.startswith("--config.") or not argument.startswith("-")
