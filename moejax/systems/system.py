"""A system is one row of the table: something that can be decoded, loaded, exported and judged.

    base            the network that nobody has adapted, or a published model
    adapter         one LoRA for whoever it decodes
    full            the whole network, fine-tuned
    mixture         experts that a gate weighs
    hypernetwork    updates generated from the voice
    control         another system on another route than its own, for the table alone

`registry` knows which there are; everything else reads these records.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from moejax.nn import functional
from moejax.nn.whisper import WhisperConfig
from moejax.tasks import asr
from moejax.tasks.answers import Answerer
from moejax.tasks.hypernetwork import Hyper
from moejax.tasks.routes import Mixture
from moejax.text.tokenizer import Tokenizer
from moejax.work.context import Context
from moejax.work.folder import Work

ROLES = ("base", "adapter", "full", "mixture", "hypernetwork", "control")


@dataclasses.dataclass(frozen=True)
class Network:
    """What is run: a network, its parameters, and the route that utterances take through it.

    `route` is none, label (expert number `label`), gate, or uniform; `embedding` is what the gate hears. `logits_NE`
    stand in place of what the gate says: one row for everybody (an enrolled speaker), or one for each row of the
    manifest (a control); None asks the gate. `tokenizer` is the base's unless given. `target`: the language that it is
    asked to translate into; "" to write what is said.
    """

    graphdef: functional.GraphDef
    params: dict
    config: WhisperConfig
    mixture: Mixture | Hyper | None = None
    route: str = "none"
    embedding: asr.Embedding | None = None
    label: int = 0
    tokenizer: Tokenizer | None = None  # of a published model that is not the base
    logits_NE: np.ndarray | None = None
    target: str = ""
    answerer: Answerer | None = None  # of a language model that hears, whose encoder `config` then is

    def into(self, target: str) -> "Network":
        """The same, asked to translate (`training.st`): a gate that minds the task is told it."""
        embedding = self.embedding
        if embedding is not None and embedding.told:
            embedding = dataclasses.replace(embedding, told=(1.0,))
        return dataclasses.replace(self, target=target, embedding=embedding)

    @property
    def experts(self) -> Mixture:
        """The mixture of a network that has experts, adapters and mixtures alike."""
        assert isinstance(self.mixture, Mixture), "neither the base nor a hypernetwork is asked for its experts"
        return self.mixture

    def count(self, *groups: str) -> int:
        """Numbers in these groups of its parameters."""
        return sum(functional.count(self.params[group]) for group in groups)


@dataclasses.dataclass(frozen=True)
class System:
    """One system, as it is known before it is opened."""

    name: str
    role: str  # of ROLES
    stage: str  # which leaves it; all that stage needs is behind it
    asked: tuple[str, str] | None = None  # (config key, entry) that has its stage train it; None: it always does
    group: tuple[str, str] | None = None  # (cohort or speaker, whose) where it was trained for one
    writes: tuple[str, ...] = ()  # languages that it has learnt to translate into
    answers: bool = False  # a language model that hears: evaluate and translate alone know how to ask it
    of: str = ""  # of a control: the system whose route it exchanges
    meaning: str = ""  # for people: what it is; a control without one is no network that could leave the workdir

    def opened(self, network: Network, trainable: int) -> "Opened":
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(System)}
        return Opened(**own, network=network, trainable=trainable)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened(System):
    """A system that can be run."""

    network: Network
    trainable: int  # numbers that were trained for it


@dataclasses.dataclass(frozen=True)
class Kind:
    """An entry of the registry: systems that come about, are found and are opened alike."""

    known: Callable[[Work], list[System]]  # those that this workdir has, in the order of the table
    open: Callable[[Context, System], Opened]
    names: tuple[str, ...] = ()  # of those whose names do not depend on the corpus
    prefixes: tuple[str, ...] = ()  # of those that are called by a cohort or a speaker
    # (config key, entry) that has a stage train the system of this name; or None
    asked: Callable[[str], tuple[str, str] | None] = lambda name: None
