"""The base as a system: the network that nobody has adapted."""

from moejax.cohorts.embed import options as embedding_options
from moejax.systems.system import Kind, Network, Opened, System
from moejax.tasks import asr
from moejax.work.context import Context
from moejax.work.folder import Work


def _known(work: Work) -> list[System]:
    del work
    return [System("base", "base", "base")]


def _open(context: Context, system: System) -> Opened:
    config = context.base.config
    graphdef, params = asr.init(asr.build(config), context.base.params)
    return system.opened(Network(graphdef, params, config, embedding=embedding_options(context.cfg)), 0)


KIND = Kind(_known, _open, names=("base",))
