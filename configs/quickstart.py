"""The whole job on the embedded corpus: synthesised speakers, six kinds of atypical speech, English with German
references.

    bash launch/quickstart.sh            (this file: published Whisper tiny.en, at most 8 minutes on 2 cores)
    bash launch/quickstart.sh --fast     (configs/quickstart.py:fast, at most 3 minutes: a micro network from scratch)

On the published model cohorts are found in its encoder, a mixture of LoRA experts in its decoder and one LoRA of the
same size are trained on windows of one speaker, and both are read beside the model as published. Variants: `st` goes on
and teaches both German, end to end beside the cascades (about twice the time); `micro` and
`fast` train their own small network on typical speakers first; `hyper` adds hypernetworks to `micro` that learn from
four of the seven cohorts and are tested on all. No test sentence is ever trained on.
"""

from ml_collections import ConfigDict

VARIANTS = ("st", "micro", "fast", "hyper")


def get_config(variant=""):
    if variant not in ("", *VARIANTS):
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    return published(variant) if variant in ("", "st") else micro(variant)


def published(variant):
    c = ConfigDict()
    c.name = "quickstart"
    c.data = dict(
        source="builtin",
        split="per_speaker",
        split_fractions=(0.7, 0.1, 0.2),
        split_options=dict(prompts="disjoint"),
        options=dict(
            speakers_per_cohort=3, utterances_per_speaker=12, typical_speakers=3, typical_utterances=12, prompts=252
        ),
    )
    c.model = dict(pretrained="tiny.en", weights="bfloat16", times=1.0, enrolled=0.7)  # windows alone: one shape
    c.embed = dict(layers=(-1,), pooling="mean_std")
    c.gate = dict(num_experts=4, hidden=0, steps=0, zero_start=True)
    c.mixture = dict(targets=("decoder/layers/*/*",), rank=4, alpha=8.0, shared_rank=0, routing="dense")
    c.experts = dict(steps=0)
    every = dict(batch_size=16, warmup=8, evals=1)
    c.joint = dict(steps=40, learning_rate=1e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True, **every)
    c.adapters = dict(learning_rate=1e-3, kinds=("lora_total",), **every)
    c.evaluate = dict(batch_size=16, systems=("base", "lora_total", "moe"), enroll=(3,))
    c.evaluate.enroll_systems = ("base", "moe")
    c.translate = dict(backends=("offline",), steps=150, layers=1, extra_pairs=3000)
    c.report = dict(normalizer="english")
    if variant == "st":
        c.st = dict(kinds=("lora_st", "moe_st"), steps=160, learning_rate=3e-3, gate_scale=1.0, evals=1, batch_size=32)
        c.evaluate.systems = (*c.evaluate.systems, "lora_st", "moe_st")
        c.evaluate.enroll = ()
    return c


def micro(variant):
    c = ConfigDict()
    c.name = f"quickstart-{variant}"
    c.data = dict(
        source="builtin",
        split="per_speaker",
        split_options=dict(prompts="disjoint"),
        options=dict(
            speakers_per_cohort=3, utterances_per_speaker=120, typical_speakers=8, typical_utterances=650, prompts=7360
        ),
    )
    c.model = dict(size="micro", vocab_size=1000, buckets=(2.6, 5.2))
    c.base = dict(
        select=dict(cohort=["typical"]), steps=900, batch_size=32, learning_rate=3e-3, warmup=60, weight_decay=0.01
    )
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std", signals=("gradient",))
    c.cluster = dict(signal="gradient")
    # Gated rank blocks: one LoRA of rank 32 in eight blocks, which a gate that knows nothing at the start weighs by the
    # voice. A gate pretrained on the clusters, and experts before it, did worse (docs/experiments.md)
    c.gate = dict(num_experts=8, hidden=0, steps=0, zero_start=True)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"),
        rank=4,
        alpha=8.0,
        shared_rank=0,
        routing="dense",
        even_speakers=True,
    )
    c.experts = dict(steps=0)
    c.joint = dict(steps=320, learning_rate=8e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True)
    c.adapters = dict(learning_rate=8e-3, kinds=("lora", "lora_total", "cohort"))
    c.translate = dict(steps=400)
    if variant == "hyper":  # breathy, substituted and tremor are heard by none of them
        c.hyper = dict(
            systems=("hyper_AB", "moe_hyper_AB", "lora_AB"),
            cohorts=("typical", "accent", "dropped", "slow_monotone"),
            learning_rate=8e-3,
        )
    if variant == "fast":
        c.data.options = dict(
            speakers_per_cohort=3, utterances_per_speaker=40, typical_speakers=8, typical_utterances=120, prompts=1680
        )
        c.model = dict(
            size="micro",
            sizes=dict(d_model=64, encoder_layers=1, decoder_layers=1, encoder_ffn=256, decoder_ffn=256),
            vocab_size=1000,
            buckets=(5.2,),
        )
        c.base.steps = 250
        c.embed.layers = (0, 1)
        c.joint.steps = 100
        c.translate = dict(steps=150, layers=1, extra_pairs=3000)
    return c
