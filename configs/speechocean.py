"""speechocean762 on a published Whisper: English of native speakers of Mandarin, adults and children. 130 known
speakers, and 60 whom nothing is trained on.

    moejax all --config configs/speechocean.py --config.data.root=DATA/speechocean762 --workdir runs/speechocean
    moejax score --model runs/speechocean --system base,lora_total,moe --data DATA/speechocean762 \\
        --speakers so_0005,so_0026 --enroll 0,1,3,5

    moejax all --config configs/speechocean.py ... --variants all --config.evaluate.split=dev    every recipe, on dev

Variants: `base` takes Whisper base in place of tiny.en; `encoder` and `base-encoder` have experts in the encoder, too
(for accelerators: its states cannot be kept then, and every step hears 30 s anew).

The unseen speakers are every third in the order of their names, the first 60 of those; nothing is chosen on them. Most
of the training windows are a speaker's phrases with their texts and one more utterance, which alone is learnt: so all
systems read by the phrases that a person enrolls with. Figures are in docs/enrolment.md.
"""

from ml_collections import ConfigDict

UNSEEN = """
0005 0026 0049 0070 0096 0111 0114 0135 0157 0563 0594 0765 0960 1027 1037 1046 1076 1186 1260 1309 1372 1418
1439 1502 2007 2027 2034 2089 2129 2242 2252 2380 2430 2451 2740 2917 3002 3014 3027 3083 3214 3631 5015 5218
5424 5551 6099 6902 8002 8068 8585 9088 9555 9600 9607 9611 9616 9622 9625 9629
"""
VARIANTS = ("base", "encoder", "base-encoder", "smoke")


def get_config(variant=""):
    if variant not in ("", *VARIANTS):
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    c = ConfigDict()
    c.name = "speechocean"
    c.data = dict(
        source="folder",
        root="data/speechocean762",
        columns=dict(audio="file"),
        options=dict(text="sentence"),
        split="per_speaker",
        split_fractions=(0.7, 0.1, 0.2),
        unseen_speakers=tuple(f"so_{number}" for number in UNSEEN.split()),
        sample_share=0.3,
    )
    c.model = dict(pretrained="base" if variant.startswith("base") else "tiny.en", times=0.6, enrolled=0.7)
    c.embed = dict(layers=(-1,), pooling="mean_std", batch_size=32)
    c.gate = dict(num_experts=4, hidden=0, steps=0, zero_start=True)
    encoder = ("encoder/layers/*/*",) if variant.endswith("encoder") else ()
    c.mixture = dict(targets=("decoder/layers/*/*", *encoder), rank=4, alpha=8.0, shared_rank=0, routing="dense")
    every = dict(batch_size=32, warmup=30, checkpoint_every=100, best="loss")
    c.experts = dict(steps=0)
    c.joint = dict(steps=400, learning_rate=1e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True, **every)
    c.adapters = dict(learning_rate=1e-3, kinds=("lora", "lora_total"), **every)
    c.evaluate = dict(batch_size=16)
    c.translate = dict(backends=("none",))
    c.report = dict(normalizer="english")
    c.study = dict(kinds=("lora_total",), systems=("moe",))
    c.variants = variants()
    if variant == "smoke":
        c.joint.steps = 3
        c.joint.batch_size = c.adapters.batch_size = 4
        c.data.unseen_speakers = ()
    return c


def variants():
    """One recipe each, of the same size and as many steps; a gate that hardly moves makes one LoRA of any mixture."""
    hot = dict(gate_scale=10.0)
    return dict(
        # How fast the gate learns
        constant_gate=dict(joint=dict(gate_scale=0.0)),
        hot_gate=dict(joint=hot),
        hotter_gate=dict(joint=dict(gate_scale=30.0)),
        second_rate=dict(mixture=dict(second_rate=16.0)),
        double_rate=dict(joint=dict(learning_rate=2e-3)),
        half_rate=dict(joint=dict(learning_rate=5e-4)),
        # What it hears
        cluster_discriminant=dict(cluster=dict(discriminant="cluster"), joint=hot),
        no_discriminant=dict(cluster=dict(discriminant="none"), joint=hot),
        utterance_alone=dict(joint=dict(voice_mix=False, **hot)),
        # How it chooses
        pretrained_gate=dict(gate=dict(steps=300, zero_start=False), joint=dict(gate_scale=1.0)),
        level_and_age=dict(
            cluster=dict(method="known"),
            gate=dict(steps=300, zero_start=False, num_experts=6),
            mixture=dict(rank=3, alpha=6.0),
        ),
        level_and_age_apart=dict(  # with experts kept apart, as arXiv 2505.22072 does
            cluster=dict(method="known"),
            gate=dict(steps=300, zero_start=False, num_experts=6),
            mixture=dict(rank=3, alpha=6.0),
            joint=dict(diversity=0.1),
        ),
        sigmoid=dict(mixture=dict(routing="sigmoid"), joint=hot),
        top_2=dict(mixture=dict(routing="topk", top_k=2), gate=dict(zero_start=False), joint=hot),
        gate_dropout=dict(joint=dict(gate_dropout=0.2, **hot)),
        layer_gate=dict(gate=dict(kind="layer"), joint=hot),
        rank_gate=dict(gate=dict(kind="rank"), joint=hot),
        # What it weighs
        eight_blocks=dict(gate=dict(num_experts=8), mixture=dict(rank=2, alpha=4.0), joint=hot),
        shared_expert=dict(mixture=dict(shared_rank=4, rank=3, alpha=6.0), joint=hot),
        # The single opponent
        single_double_rate=dict(
            adapters=dict(kinds=("lora_total",), learning_rate=2e-3),
            evaluate=dict(systems=("lora_total",)),
        ),
        single_half_rate=dict(
            adapters=dict(kinds=("lora_total",), learning_rate=5e-4),
            evaluate=dict(systems=("lora_total",)),
        ),
        single_second_rate=dict(
            mixture=dict(second_rate=16.0),
            adapters=dict(kinds=("lora_total",)),
            evaluate=dict(systems=("lora_total",)),
        ),
        single_stabilised=dict(
            mixture=dict(stabilised=True),
            adapters=dict(kinds=("lora_total",)),
            evaluate=dict(systems=("lora_total",)),
        ),
        single_dora=dict(
            mixture=dict(kind="dora"),
            adapters=dict(kinds=("lora_total",)),
            evaluate=dict(systems=("lora_total",)),
        ),
    )
