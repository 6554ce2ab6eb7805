"""What the stage `emotion` leaves, as a system: its LoRA says how somebody speaks, the base writes what."""

from moejax.cohorts.embed import options as embedding_options
from moejax.nn import functional
from moejax.systems.system import Kind, Network, Opened, System
from moejax.tasks import asr
from moejax.tasks import emotion as task
from moejax.train.params_file import load_params
from moejax.training import emotion
from moejax.work.context import Context
from moejax.work.folder import Work

NAME = "emotion"


def _known(work: Work) -> list[System]:
    if not work.path(NAME, emotion.FILE).exists():
        return []
    meaning = "one LoRA, and a token for each emotion behind the vocabulary"
    return [System(NAME, "adapter", NAME, meaning=meaning)]


def _open(context: Context, system: System) -> Opened:
    saved, meta = load_params(context.work.path(NAME, emotion.FILE))
    names, base = meta["emotions"], context.base.config
    mixture, config = emotion.definition(context.cfg, meta["rank"]), task.longer(base, len(names))
    have = task.joined({**context.base.params, "expert": saved["expert"], "head": saved["head"]})
    graphdef, params = asr.init(asr.build(config, mixture=mixture, seed=context.cfg.seed), have)
    tokenizer = context.base.tokenizer.with_emotions(names, base.vocab_size)
    heard = embedding_options(context.cfg)  # label -1: no expert; `decode.decoder` asks the one for the emotion alone
    opened = Network(graphdef, params, config, mixture, "label", heard, label=-1, tokenizer=tokenizer)
    return system.opened(opened, functional.count(saved))


KIND = Kind(_known, _open, (NAME,))
