"""What a stage is, as the graph sees it: a function, what it reads, and what of that changes its results.

Every stage module declares one (`STAGE`, or several where one module trains several); `job/stages.py` lists them.
"""

import dataclasses
from collections.abc import Callable, Mapping

# In the order in which they run; here so that the command line can name them without importing what they import.
ABOUT = {
    "describe": "gate the audio, write manifest and splits, print hours and leakage",
    "base": "train or fine-tune the base, or name the pretrained folder",
    "embed": "pool encoder states of every utterance",
    "cluster": "discover cohorts in the embeddings of the sample",
    "gate": "pretrain the gate on the clusters",
    "experts": "train the experts, gate frozen",
    "joint": "train experts and gate together",
    "adapters": "train the baselines of the table",
    "hyper": "train hypernetworks and their control",
    "evaluate": "decode the test part with every system",
    "translate": "translate the hypotheses, score BLEU and chrF",
    "report": "tables, figures, error analysis",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """`run(config, work) -> summary` writes W/<name>; the rest says when it has to run again."""

    name: str
    run: Callable
    needs: tuple[str, ...] = ()  # stages whose results it reads
    reads: tuple[str, ...] = ()  # config sections, or single keys
    without: tuple[str, ...] = ()  # keys of those sections that it does not read
    together: bool = False  # it trains: several processes run it on all their devices; else the first one does, alone
    reseeded: bool = False  # draws by seed + train_seed: runs that differ in train_seed alone share all other stages
    switch: str = ""  # a config key that is empty where the stage has nothing to do: then nothing depends on it
    # Digest of what it reads from outside the workdir. Errors: what is not there, before any stage has run
    outside: Callable | None = None
    sections: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)  # the config sections that it declares

    @property
    def about(self) -> str:
        return ABOUT[self.name]
