"""FSDD digit strings: six real speakers in three accents, a base that knows one of them, experts for the others.

    moejax all --config configs/fsdd.py --config.data.root=DATA/fsdd --workdir runs/fsdd

14 minutes on 2 cores. WER on 360 test utterances: 26.7 % for the base, 5.5 % for one LoRA, 3.5 % for one LoRA of the
mixture's size, 3.6 % for the mixture (intervals in README.md).
Needs the Free Spoken Digit Dataset with a metadata.csv (file, text, digit, speaker, take).
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke", "hyper"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke, hyper")
    c = ConfigDict()
    c.name = "fsdd"
    c.data = dict(
        source="digits",
        root="data/fsdd",
        split="official",
        options=dict(
            cohorts=dict(A=["jackson", "theo"], B=["lucas", "yweweler"], C=["george", "nicolas"]),
            strings_per_speaker=dict(train=400, dev=30, test=60),
        ),
    )
    c.model = dict(size="micro", vocab_size=300, buckets=(1.7, 4.0))
    c.base = dict(
        select=dict(cohort=["A"]),
        steps=1500, batch_size=32, learning_rate=3e-3, warmup=100, weight_decay=0.01,
        dropout=0.05, spec=True, time_masks=1, time_width=4, freq_masks=1, freq_width=8,
        warp_time=0.15, warp_freq=0.1, level=0.1,
    )  # fmt: skip
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std")
    c.gate = dict(num_experts=3, hidden=64)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"), rank=4, alpha=8.0, shared_rank=4, routing="dense"
    )
    noise = dict(
        spec=True, time_masks=1, time_width=4, freq_masks=1, freq_width=8, warp_time=0.1, warp_freq=0.05, level=0.1
    )
    c.experts = dict(steps=100, learning_rate=5e-3, part="train", **noise)
    c.joint = dict(steps=900, learning_rate=5e-3, **noise)
    c.adapters = dict(learning_rate=5e-3, **noise)
    c.report = dict(typical="A")
    if variant == "smoke":
        c.base.steps = c.experts.steps = c.joint.steps = 3
        c.data.options.strings_per_speaker = dict(train=20, dev=10, test=10)
    if variant == "hyper":
        c.hyper = dict(
            systems=("hyper_AB", "moe_hyper_AB", "lora_AB", "hyper"), cohorts=("A", "B"),
            steps=400, learning_rate=5e-3, **noise,
        )  # fmt: skip
    return c
