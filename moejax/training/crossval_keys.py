"""The config section `folds`: which classifiers are cross-validated, and how each of them is trained."""

from typing import Any

from moejax.errors import BadValue
from moejax.nn.probe import POOLINGS
from moejax.tasks.classification import NETS
from moejax.train.optim import PLATEAU, SCHEDULES
from moejax.training import fitting
from moejax.work.fields import COUNT, SHARE, SIZE, Field, above, below, but

PLAIN = {name: field for name, field in fitting.PLAIN.items() if name not in ("steps", "schedule")}
SPEC = {name: fitting.NOISES[name] for name in ("spec", "time_masks", "time_width", "freq_masks", "freq_width")}


def _noise(key, values):
    if len(values) not in (0, 2) or (len(values) == 2 and values[0] > values[1]):
        raise BadValue(f"config key {key!r} is {values!r}; it takes (lowest, highest) decibels, or ()")


def _own(key, values):
    """Keys of the section for single networks."""
    for name, own in dict(values).items():
        if name not in NETS:
            raise BadValue(f"config key {key!r} names {name!r}; known: {', '.join(NETS)}")
        for inner, value in dict(own).items():
            if inner not in TRAINED:
                raise BadValue(f"config key '{key}.{name}' has no key {inner!r}; known: {', '.join(TRAINED)}")
            TRAINED[inner].check(f"{key}.{name}.{inner}", value)


# What is set for all networks, and may be set otherwise for one of them (`folds.own`).
TRAINED: dict[str, Field] = {
    "epochs": Field(30, "Epochs of each fold's training.", limits=COUNT),
    **but(PLAIN, learning_rate=1e-3, b2=0.999),
    "schedule": Field(
        "cosine",
        "Course of the learning rate after the warmup.\n"
        "cosine and linear end at 0 with the last step, constant stays; plateau is cut when the training loss stays.",
        choices=(*SCHEDULES, PLATEAU),
    ),
    "patience": Field(5, "Epochs without a lower training loss after which plateau cuts the rate.", limits=COUNT),
    "factor": Field(0.5, "What plateau multiplies the learning rate by.", limits=(above(0), below(1))),
    "evals": Field(0, "How often in a fold the validation fold is scored and logged; 0: never.", limits=(0, 10_000)),
    "keep": Field(
        "last",
        "Step whose parameters are tested.\n"
        "last; best: the best on the validation fold, where its paired difference to the last excludes zero.",
        choices=("last", "best"),
    ),
    "dropout": Field(
        0.1, "Share of activations that are dropped in training, of transformer and probe.", limits=(0.0, below(1))
    ),
    "smoothing": Field(0.0, "Label smoothing: share of the probability that all classes get.", limits=(0.0, below(1))),
    "shift": Field(0.0, "Greatest shift in time, round the end, as a share of the clip.", limits=SHARE),
    "gain": Field(0.0, "Greatest change of level either way, in decibels.", limits=(0.0, 60.0)),
    "noise": Field(
        (),
        "Lowest and highest signal-to-noise ratio of white noise that is added, in decibels; () for none.",
        kind=float,
        limits=(-60.0, 120.0),
        rule=_noise,
        takes="(lowest, highest): two numbers, or ()",
    ),
    "pitch": Field(0.0, "Greatest change of pitch either way, in semitones.", limits=(0.0, 24.0)),
    "stretch": Field(
        0.0, "Tempo is changed by a random factor within 1 +- this, at the same pitch.", limits=(0.0, 0.9)
    ),
    "chance": Field(0.5, "Share of the clips in which noise and pitch or tempo are changed.", limits=SHARE),
    **SPEC,
    "mixup": Field(0.0, "Alpha of MixUp: images and labels of two clips are mixed; 0: never.", limits=(0.0, 100.0)),
}
SECTIONS = {
    "folds": {
        "models": Field(
            (),
            "Networks that are cross-validated; where there is one, that is what the config is for.\n"
            "cnn, vgg, crnn, transformer: from scratch on log-mel images; probe: on the encoder of model.pretrained.",
            choices=NETS,
        ),
        "count": Field(
            5,
            "Folds that are made of whole speakers, where the corpus has none of its own; 0: one for each speaker.",
            limits=(0, 1000),
        ),
        "sanity": Field(
            "",
            "A check that must fail to learn.\n"
            "random-labels: labels are shuffled, and a test above chance is a leak; the option --sanity of moejax cv.",
            choices=("", "random-labels"),
        ),
        "own": Field(
            {}, "{network: {key: value}}: keys of this section that are otherwise for one network.", rule=_own
        ),
        **TRAINED,
        "probe": {
            "pooling": Field("attention", "How states become one vector, over time.", choices=POOLINGS),
            "hidden": Field(128, "Units of the probe's head; 0: one linear layer.", limits=(0, 100_000)),
            "experts": Field(0, "Low-rank experts on the head's first layer, with a gate; 0: none.", limits=(0, 4096)),
            "rank": Field(4, "Rank of one of them.", limits=SIZE),
            "alpha": Field(8.0, "Their scale: an update is multiplied by alpha / rank.", limits=(above(0), 1e6)),
            "routing": Field(
                "dense",
                "How the gate's logits become weights, as mixture.routing.",
                choices=("dense", "topk", "sigmoid"),
            ),
            "top_k": Field(2, "Experts that topk chooses.", limits=SIZE),
        },
    }
}


def section_of(section: Any, name: str) -> Any:
    """The section as one network is trained by it: its own keys laid over it, and `steps`, to be set by the epochs."""
    found = section.copy_and_resolve_references()
    with found.unlocked():
        for key, value in section.own.to_dict().get(name, {}).items():
            found[key] = value
        found.steps = 0
    return found


def learnt_by(section: Any) -> dict:
    """The keys of such a section that change what is learnt."""
    return {name: section[name] for name, field in TRAINED.items() if not field.no_result} | section.probe.to_dict()
