"""Keys that mean nothing together, or that the network, the table or one another rule out: read off the whole config at
once, before any work and after each key alone (`work.fields`).
"""

import dataclasses

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.cohorts import embed
from moejax.data import splits
from moejax.errors import BadValue
from moejax.nn import inject
from moejax.nn.whisper import WhisperConfig
from moejax.systems import controls, emotion, mixture, published, registry, translate, translators
from moejax.text import languages
from moejax.text.tokenizer import special_tokens
from moejax.training import adapters, base, packed, salmonn, st


def check(config) -> None:
    """ValueError naming the keys of the first combination that cannot be run."""
    _data(config)
    _network(config)
    _base(config)
    _vocabularies(config)
    _cluster(config)
    _systems(config)
    _gate(config)
    _translating(config)
    salmonn.check(config)
    if config.rater.scores and not config.gate.num_experts:
        raise BadValue("rater.scores needs the stage embed, which gate.num_experts = 0 leaves out: set it above 0")
    translators.check(config)
    _diarizer(config)
    joint = config.joint
    if joint.temperature_steps > joint.steps:
        raise BadValue(
            f"config key 'joint.temperature_steps' is {joint.temperature_steps}, of joint.steps = {joint.steps}: the"
            " temperature must have come down to 1 when the stage ends; 0 takes all of its steps"
        )
    sizes = list(config.mesh.values())
    if sizes.count(-1) > 1 or 0 in sizes:
        raise BadValue(f"config section 'mesh' is {config.mesh.to_dict()}: sizes are positive, and at most one is -1")
    if config.translate.width % config.translate.heads:
        raise BadValue(
            f"config key 'translate.width' is {config.translate.width}, which does not divide by translate.heads ="
            f" {config.translate.heads}"
        )


def _diarizer(config) -> None:
    for name in ("diarizer", "ego"):
        own = config[name]
        if own.steps and config.folds.models:
            raise BadValue(f"config keys '{name}.steps' and 'folds.models' are two tasks: a config is for one of them")
        if own.steps and own.width % own.heads:
            raise BadValue(
                f"config key '{name}.width' is {own.width}, which does not divide by {name}.heads = {own.heads}"
            )
    if config.diarizer.enhance and config.diarizer.head != "aed":
        raise BadValue(f"config key 'diarizer.enhance' is of diarizer.head = aed; that is {config.diarizer.head}")
    if config.diarizer.steps and max(config.talks.speakers) > config.diarizer.most:
        raise BadValue(
            f"config key 'talks.speakers' goes to {max(config.talks.speakers)}; diarizer.most is"
            f" {config.diarizer.most}, which it must not exceed"
        )


def _data(config) -> None:
    data = config.data
    others = set(config.translate.backends) - set(translators.BILLED)
    if others and config.translate.target not in languages.NAMES:
        known = ", ".join(languages.NAMES)
        raise BadValue(f"config key 'translate.target' is {config.translate.target!r}; known: {known}")
    if data.min_seconds >= data.max_seconds:
        raise BadValue(
            f"config key 'data.min_seconds' is {data.min_seconds:g}; it must lie below data.max_seconds ="
            f" {data.max_seconds:g}"
        )
    splits.check(data.split, tuple(data.split_fractions), data.split_options.to_dict(), "config section 'data': ")


def _vocabularies(config) -> None:
    """Those that are learnt from the corpus have room for bytes and special tokens."""
    learnt, spoken = {}, (config.data.language,)
    if not (config.model.vocabulary or config.model.pretrained):
        learnt["model"] = special_tokens(spoken, 30.0 if config.base.timestamps else 0.0)
    if any(name in translators.TRAINED for name in config.translate.backends):
        learnt["translate"] = special_tokens((*spoken, config.translate.target), 0.0)
    for section, tokens in learnt.items():
        if (size := config[section].vocab_size) < (least := 256 + len(tokens)):
            raise BadValue(
                f"config key '{section}.vocab_size' is {size}; it takes at least {least}, the bytes and special tokens"
            )


def _network(config) -> None:
    """What a base from scratch would be; of a pretrained one, its folder decides."""
    if config.model.pretrained:
        if config.model.vocabulary:
            raise BadValue("model.vocabulary is for a base from scratch; model.pretrained brings its own")
        return
    sizes, known = config.model.sizes.to_dict(), [field.name for field in dataclasses.fields(WhisperConfig)]
    for name in sizes:
        if name not in known or name == "dtype":  # which is model.dtype
            raise BadValue(f"config key 'model.sizes' has no {name!r}; known: {', '.join(sorted(known))}")
    try:
        network = base.from_scratch(config)
    except ValueError as error:
        raise BadValue(f"config key 'model.sizes': {error}") from None
    heard = network.max_source_positions * STRIDE * network.hop / SAMPLE_RATE
    if max(config.model.buckets) > heard + 1e-6:
        raise BadValue(
            f"config key 'model.buckets' ends at {max(config.model.buckets):g} s; the network of model.size ="
            f" {config.model.size!r} and model.sizes hears {heard:g} s"
        )
    embed.check_layers(config.embed.layers, network.encoder_layers)
    if config.base.pack.seconds:
        packed.check(config, network)
    layers = inject.layer_paths(network)
    for path, patterns in (
        ("mixture.targets", [t if isinstance(t, str) else t[0] for t in config.mixture.targets]),
        ("embed.gradient.targets", gradient_targets(config)),
    ):
        try:
            inject.matching(layers, patterns)
        except ValueError as error:
            raise BadValue(f"config key {path!r}: {error}") from None


def gradient_targets(config) -> tuple[str, ...]:
    """Where the adapter sits whose gradient is a signal; nowhere if none is asked for."""
    return tuple(config.embed.gradient.targets) if "gradient" in config.embed.signals else ()


def _base(config) -> None:
    section = config.base
    if section.word_strings > section.readings:
        raise BadValue(
            f"config key 'base.word_strings' is {section.word_strings}, of base.readings = {section.readings}: strings"
            " are a part of the readings, so at most as many"
        )
    if section.ctc and config.model.pretrained:
        raise BadValue("config key 'base.ctc' is for a base from scratch; with model.pretrained it must be 0")
    if section.timestamps and not section.pack.seconds:
        raise BadValue("base.timestamps needs windows: set base.pack.seconds, such as (30.0,)")
    if section.pack.seconds:
        packed.phases(section)


def _cluster(config) -> None:
    names = embed.layer_names(config.embed.layers)
    unknown = [name for name in config.cluster.layers if name not in (*names, "auto")]
    if unknown:
        known = ", ".join((*names, "auto"))
        raise BadValue(f"config key 'cluster.layers' has {unknown[0]!r}; embed.layers gives {known}")
    if "auto" in config.cluster.layers and len(config.cluster.layers) > 1:
        raise BadValue("config key 'cluster.layers' has 'auto' beside others; it stands alone")
    if config.cluster.signal not in ("embedding", *config.embed.signals):
        raise BadValue(f"cluster.signal={config.cluster.signal!r} needs embed.signals=({config.cluster.signal!r},)")


def _gate(config) -> None:
    if not config.gate.num_experts:
        _without_experts(config)
    kind = config.gate.kind
    if kind == "token" and config.mixture.kind == "dora":
        raise BadValue("config key 'gate.kind' is token, with mixture.kind dora: norms for every token; take lora")
    if kind == "rank" and any(not isinstance(target, str) for target in config.mixture.targets):
        raise BadValue("config key 'gate.kind' is rank, so all of mixture.targets have the rank mixture.rank")


def _without_experts(config) -> None:
    """What is made of a mixture, of its size, or of the embeddings that its gate hears."""
    total = [kind for kind in config.adapters.kinds if kind == "lora_total"]
    mixtures = (mixture.KIND_FROZEN, mixture.KIND, controls.KIND)
    mixed = [name for name in config.evaluate.systems if registry.named(name) in mixtures]
    wanted = {"adapters.kinds": total, "hyper.systems": config.hyper.systems, "st.kinds": config.st.kinds}
    wanted["salmonn.systems"] = [name for name in config.salmonn.systems if name == "salmonn_moe"]
    for key, names in {**wanted, "evaluate.systems": mixed}.items():
        if names:
            raise BadValue(f"config key 'gate.num_experts' is 0, so there is no mixture; {key!r} has {names[0]!r}")


def _translating(config) -> None:
    """What learns to translate speech needs the language's token, and a gate that can be told one thing more."""
    if config.st.kinds and not (config.model.pretrained or config.model.vocabulary):
        raise BadValue(
            "st.kinds needs a vocabulary that names languages: set model.pretrained (a published Whisper, English-only"
            " ones too), or model.vocabulary"
        )
    if config.st.kinds and config.translate.target not in languages.NAMES:
        raise BadValue(
            f"config key 'translate.target' is {config.translate.target!r}; st.kinds needs one that a vocabulary names:"
            f" {', '.join(languages.NAMES)}"
        )
    if "moe_st" in config.st.kinds and config.gate.fallback:
        raise BadValue("st.kinds has 'moe_st', whose gate has no gate.fallback: set it to 0, or take lora_st alone")


def _against(config, theirs: set[str]) -> None:
    """A row of the table of translations: which there are is known once all are made."""
    if not (row := config.translate.against):
        return
    system, _, translator = row.rpartition(".")
    known = [name for name in translators.NAMES if name not in translators.ALONE]
    if not system or translator not in (*known, "end_to_end"):
        raise BadValue(
            f"config key 'translate.against' is {row!r}; it takes SYSTEM.TRANSLATOR with one of {', '.join(known)},"
            " end_to_end"
        )
    if translator != "end_to_end" and system != translate.TRANSCRIPT and system not in theirs:
        registry.named(system, "translate.against")


def _systems(config) -> None:
    """Names of systems that no stage can train. Those of cohorts and speakers are known to the corpus alone."""
    theirs = {system.name for system in published.systems(config.evaluate.published).values()}
    for path, names in (
        ("evaluate.systems", config.evaluate.systems),
        ("translate.systems", [name for name in config.translate.systems if name not in theirs]),
        ("translate.tuned_system", [name for name in (config.translate.tuned_system,) if name not in theirs]),
        ("study.systems", config.study.systems),
        ("study.heldout_systems", config.study.heldout_systems),
    ):
        for name in names:
            registry.named(name, path)
    _against(config, theirs)
    for name in config.evaluate.systems:
        if name in adapters.SINGLE and name not in config.adapters.kinds:
            raise BadValue(f"config key 'evaluate.systems' has {name!r}, which adapters.kinds does not train")
        if name in st.KINDS and name not in config.st.kinds:
            raise BadValue(f"config key 'evaluate.systems' has {name!r}, which st.kinds does not train")
        if name in salmonn.KINDS and name not in config.salmonn.systems:
            raise BadValue(f"config key 'evaluate.systems' has {name!r}, which salmonn.systems does not have")
        if name == emotion.NAME and not config.emotion.steps:
            raise BadValue(f"config key 'evaluate.systems' has {name!r}, and emotion.steps is 0")
