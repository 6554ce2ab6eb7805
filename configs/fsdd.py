"""FSDD digit strings: six real speakers in three accents, a base that knows one accent, a mixture for all of them.

    moejax all --config configs/fsdd.py --config.data.root=DATA/fsdd --workdir runs/fsdd
    moejax all --config configs/fsdd.py --config.data.root=DATA/fsdd --workdir runs/fsdd --seeds 3 --variants all

One seed takes about 15 minutes on 2 cores; figures, and what each row of `variants` showed, are in docs/experiments.md.
The variant `hyper` (configs/fsdd.py:hyper) adds hypernetworks that learn from accents A and B, tested on C: about
10 minutes of one core more, and in the same workdir all else is finished already.
`published` (configs/fsdd.py:published) is another study: published tiny.en and the recipe that dev of speechocean762
chose (configs/speechocean.py), nothing tuned here; two of the six speakers are heard by nobody. Half an hour.
Needs the Free Spoken Digit Dataset with a metadata.csv (file, text, digit, speaker, take). The learning rate of the
mixture and that of the single LoRA were chosen on dev out of the same three.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "smoke", "hyper", "published")


def get_config(variant=""):
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS[1:])}")
    c = ConfigDict()
    c.name = "fsdd"
    c.data = dict(
        source="digits",
        root="data/fsdd",
        split="official",
        options=dict(
            cohorts=dict(A=["jackson", "theo"], B=["lucas", "yweweler"], C=["george", "nicolas"]),
            strings_per_speaker=dict(train=400, dev=60, test=120),
        ),
    )
    c.model = dict(size="micro", vocab_size=300, buckets=(1.7, 4.0))
    c.base = dict(
        select=dict(cohort=["A"]),
        steps=1500,
        batch_size=32,
        learning_rate=3e-3,
        warmup=100,
        weight_decay=0.01,
        dropout=0.05,
        spec=True,
        time_masks=1,
        time_width=4,
        freq_masks=1,
        freq_width=8,
        warp_time=0.15,
        warp_freq=0.1,
        level=0.1,
    )
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std")
    # Gated rank blocks: one LoRA of rank 16 in four blocks, which a gate that knows nothing at the start weighs by the
    # voice; with an even gate it is `lora_total`
    c.gate = dict(num_experts=4, hidden=0, steps=0, zero_start=True)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"), rank=4, alpha=8.0, shared_rank=0, routing="dense"
    )
    noise = dict(
        spec=True, time_masks=1, time_width=4, freq_masks=1, freq_width=8, warp_time=0.1, warp_freq=0.05, level=0.1
    )
    c.experts = dict(steps=0, learning_rate=5e-3, part="train", **noise)
    c.joint = dict(steps=400, learning_rate=5e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True, **noise)
    c.adapters = dict(learning_rate=5e-3, kinds=("lora", "lora_total", "cohort", "speaker", "full"), **noise)
    c.translate = dict(steps=0)
    c.study = dict(kinds=("lora_total",), systems=("moe", "moe_enrolled"))
    c.report = dict(typical="A")
    if variant == "published":
        published(c)
    if variant == "smoke":
        c.base.steps = c.joint.steps = 3
        c.data.options.strings_per_speaker = dict(train=20, dev=10, test=10)
    if variant == "hyper":  # cohort C is heard by none of them
        c.hyper = dict(
            systems=("hyper_AB", "moe_hyper_AB", "lora_AB"),
            cohorts=("A", "B"),
            atoms=4,
            routed=2,
            learning_rate=5e-3,
            **noise,
        )
    c.variants = variants(c.joint.steps)
    return c


def published(c):
    """What configs/speechocean.py trains, with sigmoid weights and a gate that learns ten times as fast."""
    c.data.unseen_speakers = ("lucas", "nicolas")
    c.data.options.strings_per_speaker = dict(train=200, dev=30, test=60)
    c.model = dict(pretrained="tiny.en", times=0.6, enrolled=0.7, weights="bfloat16")
    del c.base
    c.embed = dict(layers=(-1,), pooling="mean_std", batch_size=32)
    c.mixture.update(targets=("decoder/layers/*/*",), routing="sigmoid")
    every = dict(steps=200, learning_rate=1e-3, batch_size=32, warmup=30, checkpoint_every=100, best="loss")
    c.experts = dict(steps=0)
    c.joint = dict(balance=0.0, z=0.0, gate_scale=10.0, voice_mix=True, **every)
    c.adapters = dict(kinds=("lora_total",), **every)
    c.evaluate = dict(batch_size=16)
    c.translate = dict(backends=("none",))
    c.report = dict(normalizer="english")
    c.variants = ConfigDict()


def variants(steps):
    """One row each; those with an experts stage give it a part of the steps, so that all train equally long."""
    fifth, half = max(steps // 5, 1), steps // 2
    return dict(
        # What the gate hears
        constant_gate=dict(joint=dict(gate_scale=0.0)),
        cluster_discriminant=dict(cluster=dict(discriminant="cluster")),
        no_discriminant=dict(cluster=dict(discriminant="none")),
        utterance_alone=dict(joint=dict(voice_mix=False)),
        # How it learns and chooses
        frozen_gate=dict(gate=dict(steps=300, zero_start=False), joint=dict(gate_scale=0.0)),
        pretrained_gate=dict(gate=dict(steps=300, zero_start=False)),
        top_2=dict(mixture=dict(routing="topk", top_k=2), gate=dict(zero_start=False)),
        balance=dict(joint=dict(balance=0.01)),
        hidden_layer=dict(gate=dict(hidden=64)),
        gate_dropout=dict(joint=dict(gate_dropout=0.2)),
        warm_start=dict(experts=dict(steps=half, route="uniform"), joint=dict(steps=steps - half)),
        plain_pipeline=dict(
            cluster=dict(discriminant="none"),
            gate=dict(hidden=64, steps=300, zero_start=False),
            mixture=dict(routing="topk", top_k=2),
            experts=dict(steps=fifth),
            joint=dict(steps=steps - fifth, balance=0.01, gate_scale=0.1),
        ),
        layer_gate=dict(gate=dict(kind="layer")),
        token_gate=dict(gate=dict(kind="token")),
        sigmoid=dict(mixture=dict(routing="sigmoid")),
        # What it weighs
        rank_gate=dict(gate=dict(kind="rank")),
        dora=dict(mixture=dict(kind="dora")),
        eight_blocks=dict(gate=dict(num_experts=8), mixture=dict(rank=2, alpha=4.0)),
        shared_expert=dict(mixture=dict(shared_rank=4, rank=3, alpha=6.0)),
        decoder_only=dict(mixture=dict(targets=("decoder/layers/*/*",))),
        single_decoder_only=dict(
            mixture=dict(targets=("decoder/layers/*/*",)),
            adapters=dict(kinds=("lora_total",)),
            evaluate=dict(systems=("lora_total",)),
        ),
    )
