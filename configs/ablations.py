"""What each ingredient of the mixture is worth: gated rank blocks on the quickstart's corpus, one change in each row.

    moejax all --config configs/ablations.py --workdir runs/ablations --seeds 3 --variants all
    moejax all --config configs/ablations.py:smoke --workdir runs/ablations-smoke --seeds 2 --variants all

Base and clusters are made once; a row trains what its change reaches. On 2 cores the first seed takes about as long as
the quickstart, each further seed 3 minutes, each row 1 to 2 minutes and seed. The mixture as configured is a LoRA of
rank 32 in 8 blocks that the gate scales: with a constant gate it is `lora_total`, so every difference is the gate's.
"""

from ml_collections import ConfigDict

# Speakers of each cohort, utterances of each of them, typical speakers, utterances of each of them, sentences
SIZES = {"": (4, 120, 8, 650, 8080), "fast": (3, 40, 8, 120, 1680), "smoke": (2, 16, 3, 40, 200)}


def get_config(variant=""):
    if variant not in SIZES:
        raise ValueError(f"unknown variant {variant!r}; known: fast, smoke")
    c = ConfigDict()
    c.name = "ablations"
    c.data = dict(
        source="builtin",
        seed=1,
        split="per_speaker",
        split_options=dict(prompts="disjoint"),
        unseen_share=0.25,
        options=corpus(SIZES[variant]),
    )
    c.model = dict(size="micro", vocab_size=1000, buckets=(2.6, 6.0))
    c.base = dict(
        select=dict(cohort=["typical"]), steps=900, batch_size=32, learning_rate=3e-3, warmup=60, weight_decay=0.01
    )
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std", signals=("gradient",))
    c.cluster = dict(discriminant="speaker", signal="gradient")
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
    c.joint = dict(steps=250, learning_rate=5e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True)
    c.adapters = dict(learning_rate=5e-3, kinds=("lora", "lora_total", "cohort", "speaker", "full"))
    c.translate = dict(steps=0)
    c.study = dict(kinds=("lora_total",), systems=("moe", "moe_enrolled"))
    c.variants = variants(c.joint.steps)
    if variant:
        c.model = dict(
            size="micro",
            sizes=dict(d_model=64, encoder_layers=1, decoder_layers=1, encoder_ffn=256, decoder_ffn=256),
            vocab_size=1000,
            buckets=(6.0,),
        )
        c.base.steps, c.joint.steps = 250, 100
        c.embed.layers = (0, 1)
        c.variants = variants(c.joint.steps)
    if variant == "smoke":
        c.model.sizes = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn=64, decoder_ffn=64)
        c.model.vocab_size = 300
        c.base.steps, c.joint.steps = 6, 4
        c.gate.num_experts = 3
        c.runtime = dict(cpu_devices=0)
        c.report = dict(draws=50)
        c.variants = variants(c.joint.steps)
    return c


def corpus(sizes):
    names = ("speakers_per_cohort", "utterances_per_speaker", "typical_speakers", "typical_utterances", "prompts")
    return dict(zip(names, sizes, strict=True))


def variants(steps):
    """One row each. Those with an experts stage give it a fifth of the steps, so that all train equally long."""
    early, late = steps // 5, steps - steps // 5
    return dict(
        # What the gate hears
        cluster_discriminant=dict(cluster=dict(discriminant="cluster")),
        no_discriminant=dict(cluster=dict(discriminant="none")),
        constant_gate=dict(joint=dict(gate_scale=0.0)),
        utterance_alone=dict(joint=dict(voice_mix=False)),
        # How it learns and chooses
        balance=dict(joint=dict(balance=0.01)),
        top_2=dict(mixture=dict(routing="topk", top_k=2), gate=dict(zero_start=False)),
        hidden_layer=dict(gate=dict(hidden=64)),
        pretrained_gate=dict(gate=dict(steps=300, zero_start=False)),
        plain_pipeline=dict(
            cluster=dict(discriminant="none"),
            gate=dict(hidden=64, steps=300, zero_start=False, num_experts=8),
            mixture=dict(routing="topk", top_k=2),
            experts=dict(steps=early, learning_rate=5e-3),
            joint=dict(steps=late, balance=0.01, gate_scale=0.1),
        ),
        # What it weighs
        shared_expert=dict(mixture=dict(shared_rank=4)),
        two_blocks=dict(gate=dict(num_experts=2), mixture=dict(rank=16, alpha=32.0)),
        encoder_only=dict(mixture=dict(targets=("encoder/layers/*/*",))),
        decoder_only=dict(mixture=dict(targets=("decoder/layers/*/*",))),
        # What the single LoRA makes of the same places
        single_decoder_only=dict(
            mixture=dict(targets=("decoder/layers/*/*",)),
            adapters=dict(kinds=("lora_total",)),
            evaluate=dict(systems=("lora_total",)),
        ),
    )
