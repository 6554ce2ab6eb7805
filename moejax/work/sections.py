"""Config sections that several stages read, or none."""

from moejax.errors import BadValue
from moejax.nn import experts
from moejax.ops import routing
from moejax.runtime import compilation
from moejax.work.fields import SEED, SIZE, Field, above, below

RUN = {
    "seed": Field(0, "Seed of everything that is drawn, except the corpus and its splits (data.seed).", limits=SEED),
    "train_seed": Field(
        0,
        "Added to the seed in the stages that train; runs that differ in it alone share all other stages.",
        limits=SEED,
    ),
    "name": Field("experiment", "Name of the run, on its report and where a folder has to be named.", needed=True),
}


def _targets(key, targets):
    if not isinstance(targets, tuple | list) or not targets:
        raise BadValue(f"config key {key!r} is {targets!r}; it takes a tuple of at least one pattern")
    for target in targets:
        own = target if isinstance(target, tuple | list) else (target, 1, 1.0)
        if not (
            len(own) == 3
            and isinstance(own[0], str)
            and type(own[1]) is int
            and type(own[2]) in (int, float)
            and 0 < own[1] <= 4096
            and 0 < own[2] < 1e6
        ):
            raise BadValue(f"config key {key!r} has {target!r}; each is a pattern, or (pattern, rank, alpha) above 0")


MIXTURE = {
    "kind": Field(
        "lora",
        "What an expert is.\nlora: a low-rank pair; dora: with a magnitude per output.",
        choices=tuple(experts.KINDS),
    ),
    "targets": Field(
        ("decoder/layers/*/*attn/[qv]", "decoder/layers/*/fc?"),
        "Layers that experts live on, as shell-style patterns over parameter paths of linear layers.\n"
        "(pattern, rank, alpha) where these are not the common ones; the first that matches a layer counts.",
        kind=object,
        rule=_targets,
        takes="a tuple of at least one: patterns, or (pattern, rank, alpha)",
    ),
    "rank": Field(4, "Rank of one expert.", limits=SIZE),
    "alpha": Field(8.0, "Scale of an expert: its update is multiplied by alpha / rank.", limits=(above(0), 1e6)),
    "stabilised": Field(False, "Whether updates are multiplied by alpha / sqrt(rank) instead."),
    "second_rate": Field(
        1.0,
        "Learning rate of a pair's second factor, as a multiple of the first's: LoRA+ (Hayou et al. 2024) takes 16.",
        limits=(above(0), 1000.0),
        later=True,
    ),
    "shared_rank": Field(0, "Rank of an expert that is always on; 0 for none.", limits=(0, 4096)),
    "routing": Field(
        "topk",
        "How logits become weights of the experts.\n"
        "topk: softmax over the chosen; dense: E * softmax over all; threshold: those of probability"
        " mixture.threshold or more; top_p: the fewest that have mixture.top_p together; sigmoid: 2 * sigmoid, each on"
        " its own.",
        choices=tuple(routing.KINDS),
    ),
    "top_k": Field(2, "Experts that topk chooses; of threshold and top_p the most that may be chosen.", limits=SIZE),
    "threshold": Field(0.1, "Least probability of a chosen expert, for routing threshold.", limits=(above(0), 1.0)),
    "top_p": Field(
        0.9, "Probability that the chosen experts have together, for routing top_p.", limits=(above(0), 1.0)
    ),
    "even_speakers": Field(
        False, "Whether experts, mixture and adapters hear every training speaker about equally often."
    ),
    "expert_dropout": Field(
        0.0, "Dropout on the input of the low-rank pairs, in training only.", limits=(0.0, below(1))
    ),
}
AXIS = (-1, 1_000_000)
MESH = {
    "data": Field(-1, "Devices along the axis that cuts the batch; -1 takes what is left.", limits=AXIS),
    "fsdp": Field(1, "Devices along the axis that cuts batch and parameters; -1 takes what is left.", limits=AXIS),
    "expert": Field(1, "Devices along the axis that cuts the stack of experts; -1 takes what is left.", limits=AXIS),
    "model": Field(1, "Devices along the axis that cuts the backbone's layers; -1 takes what is left.", limits=AXIS),
}
RUNTIME = {
    "cpu_devices": Field(
        0,
        "XLA devices that a CPU counts as; 0 leaves JAX's own number. No effect on accelerators.\n"
        "One device uses little more than one core outside its matrix products: two with half the batch each use both.",
        limits=(0, 4096),
    ),
    "compilation_cache": Field(compilation.FOLDER, 'Folder of compiled programs; "" turns the cache off.'),
    "workers": Field(0, "Loader processes; 0 reads in the training process.", limits=(0, 1024)),
    "audio_cache_bytes": Field(2_000_000_000, "Bytes of decoded audio that are kept in memory."),
    "encoder_cache_bytes": Field(
        20_000_000_000,
        "Bytes of disk for encoder states; 0: never.\n"
        "They are kept where training leaves the encoder and what it hears as they are.\n"
        "Those of salmonn.folder's encoders may take as many once more: of large-v2 and BEATs 6 MB a recording in"
        " bfloat16, 12 in float32, whatever its length.",
    ),
    "max_skipped": Field(
        20, "Updates left out because loss or gradient is not finite, before training stops; 0: never."
    ),
    "watchdog": Field(3600.0, "Seconds without a sign of life after which a run counts as stuck and ends; 0: never."),
    "heartbeat": Field(60.0, "Of several processes: seconds of silence after which one counts as lost, and all end."),
    "stop_within": Field(25.0, "Seconds from SIGTERM to the end, whatever the run is doing; 0: as long as it takes."),
    "force": Field(
        False,
        "Whether a half-trained stage goes on though its base or data changed, or begins anew though its config did.\n"
        "The same as --force.",
    ),
}
SECTIONS = {
    "mixture": MIXTURE,
    "mesh": MESH,
    "runtime": RUNTIME,
    "export": {"license": Field("", "Licence of exported models, for their cards: the corpus and the base decide it.")},
}
