"""Keys of a config that a command line changes: `--config.a.b=value`, as ml_collections reads them."""

from absl import flags
from ml_collections import config_flags

from moejax.errors import BadValue
from moejax.job import config as configs
from moejax.types import Config


def overridden(path: str, argv: list[str]) -> tuple[Config, list[str]]:
    """(the config of `FILE.py[:variant]` with its overrides, typed as ml_collections types them; arguments that are no
    overrides).

    Errors: what `configs.load` refuses, a key that does not exist, a value that it cannot have.
    """
    config = configs.load(path)
    argv = ["moejax", *configs.open_keys(argv, config)]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        left = values(argv, known_only=True)[1:]
    except (flags.Error, AttributeError, KeyError) as error:
        raise BadValue(configs.explain(str(error), argv, config)) from error
    config: Config = values["config"].value
    configs.check(config)
    return config, left
